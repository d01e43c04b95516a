package runner

import (
	"context"
	"sync"
	"time"

	"lpad/agent/job"
)

// progress is the type of the events that nobody wants to hear of later.
const progress = "progress"

// Event is one thing that watchers are told.
type Event struct {
	ID          uint64 // grows by one; begins at 1 with the daemon
	At          time.Time
	Type        string   // job, progress, notification, report, card, state
	Job         *job.Job // for job and progress
	Done, Total int      // for progress: segments of the profile package
	Bytes, Size int      // the same in bytes
	Text        string
	Card        string // the runner's name
}

// How much a hub remembers for watchers that come back, and how much it holds
// for one that is slow before it lets go of it.
const (
	hubMemory  = 512
	hubBacklog = 128
)

// Hub hands events to any number of watchers. None of them can hold it up: one
// that does not read misses progress, and its channel is closed before it
// would miss anything else. Progress is not remembered.
type Hub struct {
	mu       sync.Mutex
	last     uint64
	ring     []Event // the latest hubMemory events, oldest first
	watchers map[chan Event]struct{}
}

// NewHub makes one; several runners may share it.
func NewHub() *Hub { return &Hub{watchers: map[chan Event]struct{}{}} }

// voice is what a runner publishes by.
type voice struct {
	*Hub
	card string
}

func (v voice) publish(e Event) {
	e.Card = v.card
	v.Hub.publish(e)
}

func (h *Hub) publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	e.ID = h.last
	if e.Type != progress {
		if len(h.ring) == hubMemory {
			h.ring = h.ring[:copy(h.ring, h.ring[1:])]
		}
		h.ring = append(h.ring, e)
	}
	for w := range h.watchers {
		select {
		case w <- e:
		default:
			if e.Type != progress {
				h.leave(w)
			}
		}
	}
}

// leave closes the channel of a watcher, once.
func (h *Hub) leave(w chan Event) {
	if _, here := h.watchers[w]; here {
		delete(h.watchers, w)
		close(w)
	}
}

// onlyNew and what is above it are ids that no event ever has: who asks for what
// came after them wants nothing of the past.
const onlyNew = 1 << 62

// watch sends what came after the event with id after, then everything new,
// until ctx ends or the watcher is too slow. The channel is closed then.
func (h *Hub) watch(ctx context.Context, after uint64) <-chan Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	if after > h.last && after < onlyNew {
		after = 0 // an id of the daemon before this one: whoever saw it has seen nothing of this one
	}
	var missed []Event
	for _, e := range h.ring {
		if e.ID > after {
			missed = append(missed, e)
		}
	}
	w := make(chan Event, len(missed)+hubBacklog)
	for _, e := range missed {
		w <- e
	}
	h.watchers[w] = struct{}{}
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.leave(w)
	})
	return w
}

// latest is the id of the newest event that is remembered.
func (h *Hub) latest() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) == 0 {
		return 0
	}
	return h.ring[len(h.ring)-1].ID
}

// Tell publishes an event of somebody else's, and logs it.
func (r *Runner) Tell(kind, text string) {
	r.log.Warn(text)
	r.hub.publish(Event{At: r.cfg.Now().UTC(), Type: kind, Text: text})
}
