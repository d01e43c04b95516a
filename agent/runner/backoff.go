package runner

import (
	"math/rand/v2"
	"time"
)

// Backoff spaces repeated attempts: First, then twice as long each time, at
// most Most, each with a quarter of jitter either way so that a fleet that
// lost its server together does not come back together.
type Backoff struct {
	First, Most time.Duration // zero: half a minute and an hour
}

func (b Backoff) orDefault() Backoff {
	if b.First <= 0 {
		b.First = 30 * time.Second
	}
	if b.Most < b.First {
		b.Most = max(time.Hour, b.First)
	}
	return b
}

// after is the pause after n failures in a row, n from 1.
func (b Backoff) after(n int) time.Duration {
	d := b.First
	for range min(n, 32) - 1 {
		if d >= b.Most {
			break
		}
		d *= 2
	}
	d = min(d, b.Most)
	return d*3/4 + rand.N(d/2)
}
