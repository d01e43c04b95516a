package runner

import (
	"context"
	"time"

	"lpad/agent/desired"
	"lpad/agent/job"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// declaredKey is the setting of the journal that holds what was done for the
// declarations.
const declaredKey = "declared"

// Declare remembers what is known of a declaration that needed no job.
func (r *Runner) Declare(ctx context.Context, e *desired.Entry) error {
	return r.changeMemory(ctx, func(m Memory, _ rsp.EID) (Memory, error) {
		m.Declared = desired.Put(m.Declared, e)
		return m, nil
	})
}

// Pause is how long to wait after n failures in a row, n from 1.
func (b Backoff) Pause(n int) time.Duration { return b.orDefault().after(n) }

// code is the confirmation code of a job: the one that came with the order, or for
// a declaration the one on the device, which a restart does not lose.
func (r *Runner) code(j *job.Job) redact.Secret {
	code := r.codes[j.ID]
	if code.IsZero() && j.Order.Declared != "" && r.cfg.Code != nil {
		code = r.cfg.Code(&j.Order)
	}
	return code
}

// nameNew gives the profile that has just been installed the nickname of the
// order, as the next command after its installation: by the mark in it a device
// that loses its memory in the next moment knows the profile. Where that fails the
// profile is as good without, and the declaration renames it later.
func (r *Runner) nameNew(ctx context.Context, j *job.Job) bool {
	iccid := j.ICCID()
	if j.Order.Nickname == "" || iccid.IsZero() {
		return false
	}
	err := r.onCard(ctx, func(card Card) error { return procedure.SetNickname(ctx, card, iccid, j.Order.Nickname) })
	if err != nil {
		r.log.Warn("the new profile did not get its nickname", "job", j.ID, "iccid", iccid, "err", err)
	}
	return err == nil
}

// What a declaration does not answer, and nobody is asked for.
var (
	errRules = fault.New(fault.Fault{Code: "rules-not-accepted", Text: "the profile has a rule that its declaration does not accept: it cannot be disabled, or not be deleted",
		Who: fault.Configuration, Next: "write accept_rules: yes into the file if that is wanted"}, nil)
	errNoCode = fault.New(fault.Fault{Code: "confirmation-code-missing", Text: "this download needs a confirmation code, and its declaration has none",
		Who: fault.Configuration, Next: "write confirmation_code into the file"}, nil)
)

// unattended refuses, for a declaration, what only a person can answer.
func unattended(o *job.Order, s *procedure.Session) error {
	switch {
	case o.Declared == "":
	case s.PPRConsent != 0 && !o.PPRConsent:
		return errRules
	case s.ConfirmationCodeRequired && !o.HasCode:
		return errNoCode
	}
	return nil
}
