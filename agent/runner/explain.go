package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"lpad/agent/job"
	"lpad/agent/rsp"
	"lpad/modem"
)

// askSIM bounds asking the modem whose subscription it shows, for who only
// wants to know what is in force.
const askSIM = 5 * time.Second

// Explain says what is wanted of the device for a profile, and what has become
// of it; the zero ICCID is the enabled profile. Nothing is changed.
func (r *Runner) Explain(ctx context.Context, iccid rsp.ICCID) (rsp.Profile, Effective, error) {
	p, err := r.onTheCard(ctx, iccid)
	if err != nil {
		return p, Effective{}, err
	}
	var sim modem.SIM
	if p.State == rsp.Enabled {
		// While a job has the card, what is known without the modem must do.
		_ = r.WithCard(ctx, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, askSIM)
			defer cancel()
			if shown := r.cfg.Switch.SIM(ctx); shown.ICCID == p.ICCID.String() {
				sim = shown
			}
			return nil
		})
	}
	v := r.View()
	j := v.about(p.ICCID)
	q, note := v.Memory.question(j, p, r.cfg.Settings.Generation)
	q.SIM = sim
	_, e, err := r.cfg.Settings.Wanted(q)
	if err != nil {
		return p, Effective{}, err
	}
	if note != "" {
		e.Notes = append(e.Notes, "the parameters of the order are not used: "+note)
	}
	for i := range e.Parameters {
		e.Parameters[i].State = v.stateOf(&e.Parameters[i], p, j)
	}
	return p, e, nil
}

// onTheCard finds a profile, by what is known of the card; the zero ICCID is the
// enabled one.
func (r *Runner) onTheCard(ctx context.Context, iccid rsp.ICCID) (rsp.Profile, error) {
	v := r.View()
	if v.FactsAt.IsZero() || v.CardErr != nil {
		var err error
		if v, err = r.Refresh(ctx, 0); err != nil {
			return rsp.Profile{}, err
		}
		if v.FactsAt.IsZero() && v.CardErr != nil {
			return rsp.Profile{}, v.CardErr
		}
	}
	for _, p := range v.Facts.Profiles {
		if p.ICCID == iccid || iccid.IsZero() && p.State == rsp.Enabled {
			return p, nil
		}
	}
	if iccid.IsZero() {
		return rsp.Profile{}, notFound("enabled profile on the card: name one by its ICCID")
	}
	return rsp.Profile{}, noProfile(iccid)
}

// about is the job that switches to a profile just now, else one that stands for
// none.
func (v *View) about(iccid rsp.ICCID) job.Job {
	for _, j := range v.Jobs {
		if j.ID == v.Active && j.ICCID() == iccid && !j.Switch.Started.IsZero() {
			return j
		}
	}
	return job.Job{Order: job.Order{ICCID: iccid}}
}

// stateOf is what has become of a value.
func (v *View) stateOf(p *job.Parameter, profile rsp.Profile, j job.Job) string {
	switch {
	case p.State != "": // limited, suspended
		return p.State
	case j.ID != "" && j.Switch.Enabled && slices.ContainsFunc(j.Parameters, func(q job.Parameter) bool { return q.State == job.ParameterTrial && sameValue(&q, p) }):
		return job.ParameterTrial
	}
	if a := &v.Memory.Applied; profile.State == rsp.Enabled && a.ICCID == profile.ICCID {
		if at := slices.IndexFunc(a.Parameters, func(q job.Parameter) bool { return sameValue(&q, p) }); at >= 0 {
			return a.Parameters[at].State
		}
	}
	if p.Rank <= maxStagedRank {
		return job.ParameterStaged
	}
	return ""
}

// maxStagedRank is the lowest rank of documents; what is below is only tried.
const maxStagedRank = 3

// sameValue reports whether two values are one, whoever says so; that of an
// access point may have been the first to be tried, or a later one.
func sameValue(a, b *job.Parameter) bool {
	return bytes.Equal(a.Value, b.Value) && (a.Leaf == b.Leaf || isDefault(a.Leaf) && isDefault(b.Leaf))
}

// SetParameters gives a profile on the card the document that it is to be
// switched to with, in place of one of a lower generation.
func (r *Runner) SetParameters(ctx context.Context, iccid rsp.ICCID, document json.RawMessage, source string) error {
	if err := r.cfg.Settings.CheckDocument(document); err != nil {
		return err
	}
	if _, err := r.onTheCard(ctx, iccid); err != nil {
		return err
	}
	return r.changeMemory(ctx, func(m Memory, eid rsp.EID) (Memory, error) {
		if err := r.permitted(job.Order{Parameters: document}); err != nil {
			return m, err
		}
		s := Staged{ICCID: iccid, EID: eid, Document: document, Generation: r.cfg.Settings.Generation(document), Source: source, At: r.cfg.Now().UTC()}
		if old, found := m.Document(iccid); found {
			if not := old.supersedes(s.Document, s.Generation); not != "" {
				return m, errOutdated(not)
			}
		}
		if err := m.roomFor(iccid, document); err != nil {
			return m, err
		}
		return m.stage(s).resume(iccid, source), nil
	})
}

// ClearParameters takes a profile's document away. What the device is set to
// stays so until the next switch.
func (r *Runner) ClearParameters(ctx context.Context, iccid rsp.ICCID) error {
	return r.changeMemory(ctx, func(m Memory, _ rsp.EID) (Memory, error) {
		s, found := m.Document(iccid)
		if !found {
			return m, notFound("document of terminal parameters for this profile")
		}
		return m.unstage(iccid).resume(iccid, s.Source), nil
	})
}

// changeMemory changes what is remembered, in the loop.
func (r *Runner) changeMemory(ctx context.Context, change func(Memory, rsp.EID) (Memory, error)) error {
	var err error
	if derr := r.do(ctx, func(context.Context) {
		v := r.View()
		var m Memory
		if m, err = change(v.Memory, v.eid()); err == nil {
			err = r.remember(m)
		}
	}); derr != nil {
		return derr
	}
	return err
}
