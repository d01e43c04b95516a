package agent

import (
	"context"
	"encoding/json"

	"lpad/agent/api"
	"lpad/agent/rsp"
	"lpad/internal/fault"
)

// sourceByHand is the source of a document that was given to a profile over the
// socket, without an order.
const sourceByHand = "set by hand"

// Effective explains the parameters of a profile.
func (b *backend) Effective(ctx context.Context, iccid string) (api.Effective, error) {
	var id rsp.ICCID
	if iccid != "" {
		var err error
		if id, err = rsp.ParseICCID(iccid); err != nil {
			return api.Effective{}, badRequest("this is no ICCID", err)
		}
	}
	return b.effective(ctx, id)
}

// SetParameters gives a profile the document that it is to be switched to with.
func (b *backend) SetParameters(ctx context.Context, by, iccid string, document json.RawMessage) (api.Effective, error) {
	id, err := rsp.ParseICCID(iccid)
	if err != nil {
		return api.Effective{}, badRequest("this is no ICCID", err)
	}
	if scope := b.settings.scope(document); !scope.IsZero() && scope != id {
		return api.Effective{}, fault.New(fault.Fault{Code: "parameters-invalid", Text: "the document is for another profile, by the ICCID in its scope", Who: fault.Technician,
			Next: "give it to that profile, or correct the document"}, nil)
	}
	if err := b.runner.SetParameters(ctx, id, document, sourceByHand); err != nil {
		return api.Effective{}, err
	}
	b.log.Info("terminal parameters are set", "iccid", id, "by", by)
	return b.effective(ctx, id)
}

// ClearParameters takes the document of a profile away.
func (b *backend) ClearParameters(ctx context.Context, by, iccid string) (api.Effective, error) {
	id, err := rsp.ParseICCID(iccid)
	if err != nil {
		return api.Effective{}, badRequest("this is no ICCID", err)
	}
	if err := b.runner.ClearParameters(ctx, id); err != nil {
		return api.Effective{}, err
	}
	b.log.Info("terminal parameters are cleared", "iccid", id, "by", by)
	return b.effective(ctx, id)
}

func (b *backend) effective(ctx context.Context, iccid rsp.ICCID) (api.Effective, error) {
	p, e, err := b.runner.Explain(ctx, iccid)
	if err != nil {
		return api.Effective{}, err
	}
	out := api.Effective{ICCID: p.ICCID.String(), Enabled: p.State == rsp.Enabled, Parameters: make([]api.Parameter, len(e.Parameters)), Notes: e.Notes}
	for i := range e.Parameters {
		q := &e.Parameters[i]
		out.Parameters[i] = api.Parameter{Leaf: q.Leaf, Value: q.Value, Source: q.Source, Rank: q.Rank, Scope: q.Scope, Generation: q.Generation, State: q.State}
	}
	m := b.runner.View().Memory
	if s, found := m.Document(p.ICCID); found {
		out.Document = &api.Document{Source: s.Source, Generation: s.Generation, At: s.At, Bytes: len(s.Document)}
	}
	for _, s := range m.Suspended {
		if s.ICCID == p.ICCID {
			out.Suspended = append(out.Suspended, api.Suspended{Source: s.Source, Generation: s.Generation, Code: s.Code, At: s.At, Job: s.Job})
		}
	}
	return out, nil
}
