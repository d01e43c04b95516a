package procedure

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"lpad/agent/rsp"
	"lpad/agent/rsp/es9p"
	"lpad/internal/fault"
)

// MaxCascade is how many SM-DSs may refer to one another before the SM-DP+.
const MaxCascade = 3

// Discover asks the root SM-DS, r.Address, for events of this eUICC (SGP.22 v2.5, section
// 3.6.2). That nothing is pending is an empty list and no error. Fetch each
// event by [AuthenticateEvent].
func Discover(ctx context.Context, card Card, open Opener, r Request) ([]rsp.EventEntry, error) {
	r.MatchingID, r.OID, r.Facts = "", "", Facts{}
	events, err := discover(ctx, card, open, &r)
	if err != nil {
		return nil, fmt.Errorf("discover at %s: %w", r.Address, err)
	}
	return events, nil
}

func discover(ctx context.Context, card Card, open Opener, r *Request) ([]rsp.EventEntry, error) {
	server, err := open(r.Address)
	if err != nil {
		return nil, err
	}
	defer server.Close() // nothing hangs on how an idle connection ends
	a, err := authenticate(ctx, card, server, r)
	if errors.Is(err, es9p.ErrNoEvent) {
		return []rsp.EventEntry{}, nil
	}
	if err != nil {
		return nil, err
	}
	if a.answer.Offer != nil {
		s := &Session{TransactionID: a.server.TransactionID, card: card, server: server, serverKnows: true}
		return nil, s.abort(ctx, rsp.CancelPostponed, refusal("server-is-smdp", "the server has a profile: it is an SM-DP+, not an SM-DS", fault.Configuration, "configure it as default SM-DP+ instead"))
	}
	return a.answer.Events, nil
}

// AuthenticateEvent fetches an event of [Discover]: it is [Authenticate] with
// the server that the event names, or with the one that this server refers to
// if it is another SM-DS (to the first, if it has
// several), and so on up to [MaxCascade]. r.Address and
// r.MatchingID are replaced. The caller closes the returned server.
func AuthenticateEvent(ctx context.Context, card Card, open Opener, event rsp.EventEntry, r Request) (*Session, Server, error) {
	visited := map[string]bool{}
	for range MaxCascade {
		r.Address, r.MatchingID, r.OID = event.RSPServerAddress, event.EventID, ""
		key := strings.ToLower(r.Address) + "$" + r.MatchingID
		if visited[key] {
			break
		}
		visited[key] = true
		server, err := open(r.Address)
		if err != nil {
			return nil, nil, err
		}
		s, err := Authenticate(ctx, card, server, r)
		if err == nil {
			return s, server, nil
		}
		var cascade *EventsError
		more := errors.As(err, &cascade)
		if cerr := server.Close(); cerr != nil {
			return nil, nil, fmt.Errorf("%w (and then, closing: %v)", err, cerr)
		}
		if !more {
			return nil, nil, err
		}
		if len(cascade.Events) == 0 {
			return nil, nil, fmt.Errorf("event at %s: %w", r.Address, es9p.ErrNoEvent)
		}
		event = cascade.Events[0]
	}
	return nil, nil, refusal("discovery-cascade", "the discovery servers refer to one another without end", fault.Operator, "tell the operator")
}
