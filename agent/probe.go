package agent

import (
	"context"
	"errors"
	"strings"
	"time"

	"lpad/agent/api"
	"lpad/agent/runner"
	"lpad/internal/redact"
)

// Probe finds out what the way to the card can do. Nothing is changed by it; a
// modem that has only one port loses its network for the time.
func (b *backend) Probe(ctx context.Context) (api.Probe, error) {
	var found api.Probe
	err := b.runner.WithCard(ctx, func(ctx context.Context) error {
		b.probe(ctx, &found)
		return ctx.Err()
	})
	if err != nil {
		return api.Probe{}, err
	}
	return found, nil
}

// probe is Probe in the card's turn.
func (b *backend) probe(ctx context.Context, p *api.Probe) {
	if t := b.card.turns; t != nil {
		if err := t.shared.Borrow(ctx); err != nil {
			b.conclude(p, errors.Join(err, t.end(ctx)))
			return
		}
		defer func() {
			if err := t.end(context.WithoutCancel(ctx)); err != nil {
				b.log.Warn("the modem is not given back after a probe", "err", err)
			}
		}()
	}
	var err error
	if b.parts.Probe != nil {
		err = b.parts.Probe(ctx, p)
	}
	if err == nil {
		err = b.look(ctx, p)
	}
	b.conclude(p, err)
}

// look opens the eUICC as a job would: by the path that is preferred, and by all
// the addresses that its ISD-R may have.
func (b *backend) look(ctx context.Context, p *api.Probe) error {
	begin := time.Now()
	p.Usable = false
	c := api.Capability{Name: "euicc", Answer: api.AnswerNo}
	card, err := b.card.Open(ctx)
	if err == nil {
		eid, asked := card.GetEID(ctx)
		err = errors.Join(asked, card.Close(context.WithoutCancel(ctx)))
		c.Evidence = "the ISD-R gives the EID " + redact.Digits(eid.String())
	}
	if err == nil {
		c.Answer, p.Usable, p.ISDR = api.AnswerYes, true, b.card.known.String()
	} else {
		f := problemOf(err)
		c.Evidence, c.Code, c.Next = "open the eUICC: "+f.Detail, f.Code, f.Next
	}
	c.Millis = time.Since(begin).Milliseconds()
	for i := range p.Capabilities {
		if p.Capabilities[i].Name == c.Name {
			p.Capabilities[i] = c
			return err
		}
	}
	p.Capabilities = append(p.Capabilities, c)
	return err
}

// conclude adds what the daemon knows, and shortens what must not be shown.
func (b *backend) conclude(p *api.Probe, err error) {
	p.Version, p.Backend, p.Managers.Network = b.host.Version, b.parts.CardPath.Backend, b.parts.backend()
	if p.Path == "" {
		p.Path = b.parts.CardPath.now()
	}
	if p.At.IsZero() {
		p.At = time.Now().UTC().Truncate(time.Second)
	}
	p.Problem = problemOf(err)
	p.BlockSize = b.card.size()
	if b.parts.Habits != nil {
		p.Enable = b.parts.Habits.Enable()
	}
	if len(p.Enable) == 0 {
		p.Enable = runner.EnableOrder()
	}
	shown := []*string{&p.Path, &p.Place, &p.Manufacturer, &p.Model, &p.Revision, &p.IMEI, &p.Managers.Device, &p.Managers.Problem}
	for i := range p.Capabilities {
		c := &p.Capabilities[i]
		shown = append(shown, &c.Value, &c.Evidence, &c.Next)
	}
	if p.Problem != nil {
		shown = append(shown, &p.Problem.Title, &p.Problem.Detail, &p.Problem.Next)
	}
	for _, text := range shown {
		*text = shorten(*text)
	}
}

// longest is how many digits in a row may be shown: an IMEI without its check
// digit, the shortest identifier that is nobody's business, has 14.
const longest = 13

// shorten shortens every long row of digits, whatever it is: a probe goes by mail
// to people that nobody knows. Modems put identifiers into the oddest answers.
func shorten(text string) string {
	var out strings.Builder
	digits := 0 // at the end of what was read
	for i := 0; i <= len(text); i++ {
		if i < len(text) && text[i] >= '0' && text[i] <= '9' {
			digits++
			continue
		}
		row := text[i-digits : i]
		if digits > longest {
			row = redact.Digits(row)
		}
		out.WriteString(row)
		if digits = 0; i < len(text) {
			out.WriteByte(text[i])
		}
	}
	return out.String()
}
