package atport

import (
	"context"

	"lpad/modem/quirks"
)

// Enable is the order in which ways of enabling a profile are to be tried with
// this modem, as in [quirks.Quirks]; empty if nothing is known, also as long as
// the port was not opened.
func (p *Port) Enable() []string {
	q, _ := p.Known()
	return q.Enable
}

// ISDR is the AID that the ISD-R answered to the last time, hexadecimal; empty if
// that is not known. It opens the port, for only then it is known which modem this
// is.
func (p *Port) ISDR(ctx context.Context) (string, error) {
	if _, _, err := p.parts(ctx); err != nil {
		return "", err
	}
	_, was := p.Known()
	return was.ISDR, nil
}

// LearnISDR remembers the AID that the ISD-R has answered to.
func (p *Port) LearnISDR(aid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.learn(func(l *quirks.Learned) { l.ISDR = aid })
}
