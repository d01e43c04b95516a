package at

import (
	"context"
	"log/slog"
	"strings"
	"sync"
)

// messageBuffer is how many messages wait for a subscriber. A modem sends a
// handful in a row when it starts or changes the SIM.
const messageBuffer = 16

type subscription struct {
	prefix string
	ch     chan string
}

// Notify subscribes to the messages that begin with prefix ("+CPIN:"; empty for
// all). A subscriber that does not read loses the oldest ones ([Conn.Dropped])
// and holds nobody up. The channel is closed by cancel and at the end of the
// connection.
func (c *Conn) Notify(prefix string) (messages <-chan string, cancel func()) {
	s := &subscription{prefix: prefix, ch: make(chan string, messageBuffer)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		close(s.ch)
		return s.ch, func() {}
	}
	c.subs[s] = struct{}{}
	var once sync.Once
	return s.ch, func() {
		once.Do(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if _, ok := c.subs[s]; ok {
				delete(c.subs, s)
				close(s.ch)
			}
		})
	}
}

// Dropped counts the messages that slow subscribers lost.
func (c *Conn) Dropped() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}

// announce gives a message to its subscribers. A line that is no message (the
// rest of a late answer, an echo) is thrown away. The reader calls it, under mu.
func (c *Conn) announce(line string) {
	name := nameOf(line)
	if !extended(line) {
		if !bareMessage(line) {
			return
		}
		name = line
	}
	if is, _ := final(line, false); is {
		return // a late +CME ERROR
	}
	c.trace(context.Background(), "message", slog.String("name", name), slog.Int("length", len(line)))
	for s := range c.subs {
		if strings.HasPrefix(line, s.prefix) {
			c.push(s, line)
		}
	}
}

// push makes room by dropping the oldest message. Only the reader sends, so
// there is room after at most one turn.
func (c *Conn) push(s *subscription, line string) {
	for {
		select {
		case s.ch <- line:
			return
		default:
		}
		select {
		case <-s.ch:
			c.dropped++
		default:
		}
	}
}
