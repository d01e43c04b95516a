package pcsc

import "syscall"

// What choosing a reader comes to.
var (
	Choose   = choose
	MatchATR = matchATR
)

// KillHelper kills the helper of a card and waits for its end.
func KillHelper(c *Card) {
	// It is there, since the card is connected.
	_ = syscall.Kill(-c.h.pid, syscall.SIGKILL)
	<-c.h.exited
}
