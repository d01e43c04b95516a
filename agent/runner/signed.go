package runner

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"lpad/agent/job"
	"lpad/agent/orders"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// What must be signed (agent/orders), see [Config.Require].
const (
	RequireNone       = "none"
	RequireParameters = "parameters" // whatever brings terminal parameters
	RequireAll        = "all"        // these, and every installation
)

// Codes of the faults of signed orders that need a memory or a session to be
// found; the others are those of package orders.
const (
	codeUnsigned     = "signed-order-needed"
	codeReplayed     = "signed-order-replayed"
	codeOtherProfile = "signed-order-profile"
)

// permitted refuses an order that should be signed, and is not.
func (r *Runner) permitted(o job.Order) error {
	what := ""
	switch {
	case o.Issuer != "": // and verified, or about to be
	case len(o.Parameters) > 0 && (r.cfg.Require == RequireParameters || r.cfg.Require == RequireAll):
		what = "terminal parameters"
	case o.Kind == job.Install && r.cfg.Require == RequireAll:
		what = "an installation"
	}
	if what == "" {
		return nil
	}
	return fault.New(fault.Fault{Code: codeUnsigned, Text: "this device takes " + what + " by signed order alone", Who: fault.Configuration,
		Next: "send an order that an operator has signed (lpactl order), or have orders.require changed"}, nil)
}

// Serial is the last serial of an issuer of signed orders. What is not above it
// is a replay.
type Serial struct {
	Issuer string    `json:"issuer"` // the name of a key, or smdpIssuer and a host
	Serial int64     `json:"serial"`
	Job    string    `json:"job"` // that it belongs to
	At     time.Time `json:"at"`
}

// maxSerials bounds the list of issuers: far more than a device has keys. Those
// that were heard of the longest ago go, servers first, which give a profile to
// one taker only.
const maxSerials = 256

// smdpIssuer begins the name of an issuer that is an SM-DP+.
const smdpIssuer = orders.SMDP + ":"

// SMDPIssuer is the issuer of the orders that an SM-DP+ signs.
func SMDPIssuer(host string) string { return smdpIssuer + strings.ToLower(host) }

// replayed refuses a serial that was used before. The job that has used it may
// come again: after a restart its download begins anew.
func (m Memory) replayed(o job.Order, id string) error {
	at := slices.IndexFunc(m.Serials, func(s Serial) bool { return s.Issuer == o.Issuer })
	if o.Issuer == "" || at < 0 {
		return nil
	}
	last := m.Serials[at]
	if o.Serial > last.Serial || o.Serial == last.Serial && last.Job == id {
		return nil
	}
	text := fmt.Sprintf("an order of %s with the serial %d was taken already, and this one has %d", o.Issuer, last.Serial, o.Serial)
	next := "give the order a serial above that and sign it again"
	if o.Serial == last.Serial {
		text = fmt.Sprintf("this order of %s was taken already: it is job %s", o.Issuer, last.Job)
		next = "watch job " + last.Job + "; for another order, take a serial above that"
	}
	return fault.New(fault.Fault{Code: codeReplayed, Text: text, Who: fault.Operator, Next: next}, nil)
}

// took remembers the serial of an order whose signature is good.
func (m Memory) took(o job.Order, id string, at time.Time) Memory {
	if o.Issuer == "" || !o.Verified || slices.ContainsFunc(m.Serials, func(s Serial) bool { return s.Issuer == o.Issuer && s.Serial >= o.Serial }) {
		return m
	}
	m.Serials = slices.DeleteFunc(slices.Clone(m.Serials), func(s Serial) bool { return s.Issuer == o.Issuer })
	if len(m.Serials) >= maxSerials {
		oldest := max(0, slices.IndexFunc(m.Serials, func(s Serial) bool { return strings.HasPrefix(s.Issuer, smdpIssuer) }))
		m.Serials = slices.Delete(m.Serials, oldest, oldest+1)
	}
	m.Serials = append(m.Serials, Serial{Issuer: o.Issuer, Serial: o.Serial, Job: id, At: at})
	return m
}

// accepted remembers the serial of an order that was just journalled. The job's
// own record holds it too, so a crash in between, or a disk that takes no more,
// loses nothing: see recallSerials.
func (r *Runner) accepted(j job.Job) {
	m := r.View().Memory
	m = m.took(j.Order, j.ID, j.Created)
	r.change(func(v *View) { v.Memory = m })
	if err := r.remember(m); err != nil {
		r.log.Warn("the serial of the order is in the job's record alone for now", "job", j.ID, "err", err)
	}
}

// recallSerials adds what the records of the jobs say, the oldest first.
func (r *Runner) recallSerials(m Memory) Memory {
	for _, j := range r.cfg.Journal.Jobs() {
		m = m.took(j.Order, j.ID, j.Created)
	}
	return m
}

// believe checks, between authentication and load, what of a signed order only
// the session can tell: the signature of the SM-DP+, by the certificate that the
// eUICC has accepted, and which profile is offered. What does not fit ends the
// session on both sides, and nothing was loaded.
func (r *Runner) believe(ctx context.Context, j job.Job) (verified bool, err error) {
	s := r.card.session
	// An order that the server did not sign is somebody else's doing, and must not
	// cost the profile: it can be downloaded later. A profile that is not the one
	// of the order is what this reason is for; the server must not give it again.
	why := rsp.CancelPostponed
	if j.Order.JWS != "" {
		if err = orders.VerifySMDP([]byte(j.Order.JWS), s.ServerCertificate); err == nil {
			err = r.View().Memory.replayed(j.Order, j.ID)
		}
	}
	if bound := j.Order.Bound; err == nil && !bound.IsZero() && bound != s.Metadata.ICCID {
		if j.Order.Declared == "" { // else a slip in a file, which must not cost the profile
			why = rsp.CancelMetadataMismatch
		}
		err = fault.New(fault.Fault{Code: codeOtherProfile, Who: fault.Operator,
			Text: fmt.Sprintf("the server offers the profile %s, and the order is for %s", redact.Digits(s.Metadata.ICCID.String()), redact.Digits(bound.String())),
			Next: "send an order for the profile that this activation code stands for"}, nil)
	}
	if err == nil {
		err = unattended(&j.Order, s)
	}
	if err == nil {
		return j.Order.JWS != "", nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), procedure.CancelTimeout)
	defer cancel()
	if cerr := s.Cancel(ctx, why); cerr != nil {
		err = &procedure.CleanupError{First: err, Cleanup: cerr}
	}
	return false, err
}

// sameEID refuses a card that the order is not for: another one may have been
// put in since it was accepted.
func sameEID(o job.Order, eid rsp.EID) error {
	if o.EID.IsZero() || o.EID == eid {
		return nil
	}
	return fault.New(fault.Fault{Code: orders.CodeDevice, Text: "the order is for another card: the EID of this one is " + redact.Digits(eid.String()), Who: fault.Operator,
		Next: "put the card back that the order was signed for, or have another order signed"}, nil)
}
