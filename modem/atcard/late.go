package atcard

import (
	"context"
	"slices"
	"strconv"
	"time"
)

// late is the opening of a channel whose answer did not come in time. When it
// comes after all, the channel is open and nobody's: some modems have only one.
type late struct {
	stop chan struct{} // closed when the channel is about to be opened again
	done chan struct{} // closed when the answer was noted, or is not waited for any more
}

// awaitLate waits for the answer of an opening, notes the channel in the memory
// in the place of guess, and closes it. read gives the id out of a line, or "".
// It ends with the connection at the latest. The caller holds the turn, or is
// about to give it back.
func (c *Card) awaitLate(lines <-chan string, forget func(), guess string, read func(line string) string) {
	l := &late{make(chan struct{}), make(chan struct{})}
	c.late = l
	go func() {
		defer forget()
		gone := time.NewTimer(lateTime)
		defer gone.Stop()
		line, stopped := "", false
		select {
		case line = <-lines: // "": the connection has ended
		case <-gone.C:
		case <-l.stop:
			stopped = true
			select {
			case line = <-lines:
			default:
			}
		}
		id := read(line)
		if id != "" {
			c.noteLate(id, guess)
		}
		close(l.done)
		if id == "" || stopped {
			return // who stopped it closes what is left
		}
		c.turn <- struct{}{}
		defer func() { <-c.turn }()
		ctx, cancel := context.WithTimeout(context.Background(), lateTime)
		defer cancel()
		_ = c.closeLeft(ctx) // nobody is left to be told; it stays noted
	}()
}

// noteLate notes a channel that was opened after all.
func (c *Card) noteLate(id, guess string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.using, id) {
		c.opt.Memory.opened(id, guess)
	}
}

// settleLate makes sure that no answer of an earlier opening is to come any more:
// the line is found again, and what came before that is noted. The caller holds
// the turn.
func (c *Card) settleLate(ctx context.Context) error {
	if c.late == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	if err := c.conn.Resync(ctx); err != nil {
		return err
	}
	close(c.late.stop)
	<-c.late.done
	c.late = nil
	return nil
}

// sessionOf reads the late answer to AT+CCHO.
func sessionOf(line string) string {
	handle, err := parseHandle([]string{line})
	if err != nil {
		return ""
	}
	return sessionID + handle
}

// channelOf reads the late answer to MANAGE CHANNEL by AT+CSIM.
func channelOf(line string) string {
	response, err := parseResponse([]string{line}, "+CSIM")
	if err != nil {
		return ""
	}
	if n := channelNumber(response); n > 0 {
		return strconv.Itoa(n)
	}
	return ""
}
