package runner

import (
	"context"
	"sync"
	"time"

	"lpad/agent/job"
)

// Event is one thing that watchers are told.
type Event struct {
	ID          uint64 // grows by one; begins at 1 with the daemon
	At          time.Time
	Type        string   // job, progress, card, notification
	Job         *job.Job // for job and progress
	Done, Total int      // for progress: segments of the profile package
	Text        string
}

// How much a hub remembers for watchers that come back, and how much it holds
// for one that is slow before it is told that it missed something.
const (
	hubMemory  = 512
	hubBacklog = 128
)

// hub hands events to any number of watchers. None of them can hold it up: a
// watcher that does not read loses events and can see that from the ids.
type hub struct {
	mu       sync.Mutex
	last     uint64
	ring     []Event // the latest hubMemory events, oldest first
	watchers map[chan Event]struct{}
}

func newHub() *hub { return &hub{watchers: map[chan Event]struct{}{}} }

func (h *hub) publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	e.ID = h.last
	if len(h.ring) == hubMemory {
		h.ring = append(h.ring[:0:0], h.ring[1:]...)
	}
	h.ring = append(h.ring, e)
	for w := range h.watchers {
		select {
		case w <- e:
		default: // slow: it will notice the gap in the ids
		}
	}
}

// watch sends what came after the event with id after, then everything new,
// until ctx ends. The channel is closed then.
func (h *hub) watch(ctx context.Context, after uint64) <-chan Event {
	h.mu.Lock()
	defer h.mu.Unlock()
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
		delete(h.watchers, w)
		close(w)
	})
	return w
}

// latest is the id of the newest event.
func (h *hub) latest() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}
