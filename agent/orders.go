package agent

import (
	"context"
	"log/slog"

	"lpad/agent/api"
	"lpad/agent/job"
	"lpad/agent/orders"
	"lpad/agent/runner"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// Order takes a signed order: it is verified, and then as good as one that was
// given over the socket, but for what it binds.
func (b *backend) Order(ctx context.Context, by string, jws []byte, mayDelete bool) (api.Job, error) {
	keys, err := orders.LoadKeys(b.cfg.Orders.KeysDir) // each time: who adds or takes back a key restarts nothing
	if err != nil {
		return api.Job{}, err
	}
	o, to, err := b.addressee(ctx, jws, keys)
	if err != nil {
		f := fault.Of(err)
		b.log.Warn("a signed order is refused", "by", by, "code", f.Code, "err", f.Text)
		return api.Job{}, err
	}
	if o.Deletes() && !mayDelete {
		return api.Job{}, fault.New(fault.Fault{Code: api.CodeForbidden, Text: "you may not hand in an order that deletes a profile: it needs the level admin", Who: fault.Configuration,
			Next: "have it handed in by somebody who may, or have an order signed that deletes nothing"}, nil)
	}
	return to.order(ctx, jobOrder(o, jws, by, to.cfg.RSP.Consent == "auto"), redact.Secret{})
}

// addressee verifies a signed order, and finds the card that it is for, where the
// request names none: the one that fits what the order says of its device.
func (b *backend) addressee(ctx context.Context, jws []byte, keys orders.Keys) (o *orders.Order, found *backend, err error) {
	if !b.all || len(b.units) == 1 {
		o, err = b.believe(ctx, jws, keys)
		return o, b, err
	}
	var failed error
	for _, u := range b.units {
		one := &backend{b.Agent, u, false}
		got, err := one.believe(ctx, jws, keys)
		switch f := fault.Of(err); {
		case err == nil && found != nil:
			_, err = b.ForCard("", true) // says which cards there are
			return nil, nil, err
		case err == nil:
			o, found = got, one
		case f.Code != orders.CodeDevice && err != runner.ErrClockNotSet:
			return nil, nil, err // what is wrong with the order is wrong everywhere
		case failed == nil || f.Retry:
			failed = err
		}
		if found == one && !o.Device.EID.IsZero() { // no other has it
			break
		}
	}
	if found != nil {
		failed = nil
	}
	return o, found, failed
}

// believe verifies a signed order for the card of b.
func (b *backend) believe(ctx context.Context, jws []byte, keys orders.Keys) (*orders.Order, error) {
	if err := b.knowTime(ctx); err != nil {
		return nil, err
	}
	for again := false; ; again = true {
		o, err := orders.Verify(jws, keys, b.clock.Now(), b.here())
		if f := fault.Of(err); err == nil || again || f.Code != orders.CodeDevice || !f.Retry {
			return &o, err
		}
		b.lookWho(ctx) // of what was not asked yet
	}
}

// jobOrder is a signed order in the words of a job.
func jobOrder(o *orders.Order, jws []byte, by string, consent bool) job.Order {
	out := job.Order{Kind: job.Kind(o.Action), Parameters: o.Parameters, DeleteOld: o.DeleteOld, ReportTo: o.ReportTo, By: by,
		Issuer: o.Issuer, Serial: o.Serial, Verified: !o.BySMDP, EnableAt: o.EnableAt}
	if o.Action != orders.Install {
		out.ICCID = o.ICCID
		return out
	}
	c := o.ActivationCode
	out.Source, out.SMDP, out.MatchingID, out.OID = job.SourceActivationCode, c.SMDP, c.MatchingID, c.OID
	out.Enable, out.Bound, out.EID = o.Enable, o.ICCID, o.Device.EID
	// Whoever has put the operator's key on the device has consented to its
	// profiles. Of a server that nobody here has chosen, that cannot be said.
	out.Consent = consent || !o.BySMDP
	if o.BySMDP {
		out.Issuer, out.JWS = runner.SMDPIssuer(c.SMDP), string(jws)
	}
	return out
}

// here is what is known of this device.
func (b *backend) here() orders.Device {
	modem := b.device.present()
	d := orders.Device{IMEI: modem.IMEI, Model: modem.Model}
	if v := b.runner.View(); v.CardErr == nil && !v.FactsAt.IsZero() {
		d.EID = v.Facts.EID
	}
	return d
}

// lookWho asks card and modem who they are, if that is not known and they can be
// asked just now. What they do not tell stays unknown.
func (b *backend) lookWho(ctx context.Context) {
	if b.here().EID.IsZero() {
		if _, err := b.runner.Refresh(ctx, freshEnough); err != nil {
			b.log.Info("the card was not asked who it is", "err", err)
		}
	}
	if b.device.identity == nil || b.device.present().IMEI != "" {
		return
	}
	err := b.runner.WithCard(ctx, func(ctx context.Context) error {
		b.device.ask(ctx)
		return b.endTurn(ctx)
	})
	if err != nil {
		b.log.Info("the modem was not asked who it is", "err", err)
	}
}

// endTurn gives a modem back that was taken for a question.
func (b *backend) endTurn(ctx context.Context) error {
	if t := b.card.turns; t != nil && t.channel != nil {
		return t.end(context.WithoutCancel(ctx))
	}
	return nil
}

// knowTime makes sure that an order can be judged by the time.
func (b *backend) knowTime(ctx context.Context) error {
	if _, source := b.clock.now(); source != "" {
		return nil
	}
	err := b.runner.WithCard(ctx, func(ctx context.Context) error {
		b.clock.Ready(ctx)
		return b.endTurn(ctx)
	})
	if _, source := b.clock.now(); source != "" {
		return nil
	}
	if err != nil {
		b.log.Info("the modem was not asked for the time", "err", err)
	}
	return runner.ErrClockNotSet
}

// tellKeys says at the start whose signed orders count.
func tellKeys(c config.Orders, log *slog.Logger) {
	keys, err := orders.LoadKeys(c.KeysDir)
	if err != nil {
		log.Warn("no operator's key is known (orders.keys_dir)", "err", err)
	}
	for _, text := range keys.Skipped {
		log.Warn("an operator's key is not used, its file was skipped (orders.keys_dir)", "file", text)
	}
	if keys.Len() > 0 || c.Require != runner.RequireNone {
		log.Info("signed orders", "keys", keys.Len(), "require", c.Require)
	}
}
