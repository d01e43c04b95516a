package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/modem"
)

// ATPort is what [ATOnly] asks of a modem; lpad/modem/atport.Port is one.
type ATPort interface {
	AT
	ICCID(ctx context.Context) (string, error)
	SIM(ctx context.Context) (modem.SIM, error)
	Registration(ctx context.Context) (modem.Registration, error)
}

// ATOnly is the back-end for a device whose network is somebody else's
// business: lpad writes the access point into the modem's context, has the
// modem read the card again and waits for a network. Bringing the interface up
// is left to whoever does it on this device; Link is the zero link, which means
// the device's usual route.
type ATOnly struct {
	at  ATPort
	cid int
}

// NewATOnly makes a back-end over a port; nothing is sent yet.
func NewATOnly(at ATPort) *ATOnly { return &ATOnly{at: at, cid: 1} }

// atSnapshot is the journalled form of [ATOnly.Snapshot].
type atSnapshot struct {
	ICCID    string `json:"iccid,omitempty"` // that the modem showed; empty: none
	Name     string `json:"apn"`
	Type     string `json:"type"`
	Present  bool   `json:"present"` // there was such a context
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
}

// Snapshot reads the context and the SIM that the modem shows. Credentials of
// a context cannot be read over AT and are not in it.
func (s *ATOnly) Snapshot(ctx context.Context) ([]byte, error) {
	contexts, err := s.at.APNs(ctx)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	var snap atSnapshot
	for _, c := range contexts {
		if c.CID == s.cid {
			snap.Present, snap.Name, snap.Type = true, c.APN.Name, string(c.APN.Type)
		}
	}
	if iccid, err := s.at.ICCID(ctx); err == nil { // an empty card shows none
		snap.ICCID = iccid
	}
	return json.Marshal(snap)
}

// Gate takes the modem off its network, where the port knows how ([Attacher]):
// one that follows the card by itself would attach at once, with the old access
// point. A modem that does not want to go attaches again with the new one.
func (s *ATOnly) Gate(ctx context.Context, _ []byte) error {
	if a, ok := s.at.(Attacher); ok {
		bounded, cancel := context.WithTimeout(ctx, detachLimit)
		defer cancel()
		if err := a.Detach(bounded); err != nil && ctx.Err() != nil {
			return fmt.Errorf("gate: %w", ctx.Err())
		}
	}
	return nil
}

// Apply writes the access point into the modem's context.
func (s *ATOnly) Apply(ctx context.Context, _ string, apn modem.APN) ([]string, error) {
	if err := s.at.SetAPN(ctx, s.cid, apn); err != nil {
		return nil, err
	}
	return []string{ViaAT}, nil
}

// Reread makes the modem read the card again, and look for a network.
func (s *ATOnly) Reread(ctx context.Context, iccid string) (string, error) {
	rung, err := s.at.Reread(ctx, iccid)
	if err != nil {
		return rung, err
	}
	return rung, s.attach(ctx)
}

// ResetSIM takes the power from the SIM and gives it back, and closes the gate
// again.
func (s *ATOnly) ResetSIM(ctx context.Context) error {
	c, ok := s.at.(PowerCycler)
	if !ok {
		return ErrNoPowerCycle
	}
	if err := errors.Join(c.PowerCycle(ctx), s.Gate(ctx, nil)); err != nil {
		return fmt.Errorf("reset sim: %w", err)
	}
	return nil
}

// attachTries is how often a modem is told to look for a network that does not.
const attachTries = 3

// attach undoes Gate. What the network answers is seen by Register; that the
// modem asks one at all is seen to here, for a command that got lost would
// leave the device off the air.
func (s *ATOnly) attach(ctx context.Context) error {
	a, ok := s.at.(Attacher)
	if !ok {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, attachLimit)
	defer cancel()
	for range attachTries {
		if err := a.Attach(bounded); err != nil && ctx.Err() != nil {
			return fmt.Errorf("attach: %w", ctx.Err())
		}
		if r, err := s.at.Registration(bounded); err == nil && r.State != modem.NotRegistered {
			return nil
		}
		select {
		case <-bounded.Done():
			return nil
		case <-time.After(retryInterval):
		}
	}
	return nil
}

// SIM is the subscription that the modem shows.
func (s *ATOnly) SIM(ctx context.Context) (modem.SIM, error) { return s.at.SIM(ctx) }

// Register waits for a network.
func (s *ATOnly) Register(ctx context.Context) (modem.Registration, error) {
	var refused refusal
	for {
		r, err := s.at.Registration(ctx)
		switch {
		case err == nil && r.State.Registered():
			return r, nil
		case refused.stays(err == nil && r.State == modem.Denied):
			return r, &notRegisteredError{r, fmt.Errorf("refused for %v", refusalLimit)}
		}
		select {
		case <-ctx.Done():
			return r, &notRegisteredError{r, errors.Join(ctx.Err(), err)}
		case <-time.After(retryInterval):
		}
	}
}

// notRegisteredError says how far the modem came.
type notRegisteredError struct {
	registration modem.Registration
	err          error
}

func (e *notRegisteredError) Error() string {
	return fmt.Sprintf("no network serves the modem (%s): %v", e.registration.State, e.err)
}

func (e *notRegisteredError) Unwrap() error { return e.err }

// Fault explains it to who can look at the antenna.
func (e *notRegisteredError) Fault() fault.Fault {
	if e.registration.State == modem.Denied {
		return fault.Fault{Code: "registration-denied", Text: "the network refuses the modem with this profile", Retry: true, Who: fault.Operator,
			Next: "ask the operator whether the subscription is active here, and which access point it wants"}
	}
	return fault.Fault{Code: "not-registered", Text: "no network serves the modem with this profile", Retry: true, Who: fault.Technician,
		Next: "look at the antenna and the reception, and ask the operator whether the profile is active"}
}

// Connect returns the zero link: the interface is not ours.
func (s *ATOnly) Connect(context.Context, string) (modem.Link, error) { return modem.Link{}, nil }

// Link returns the zero link, as Connect does.
func (s *ATOnly) Link(context.Context, string) (modem.Link, error) { return modem.Link{}, nil }

// Commit has nothing to give up.
func (s *ATOnly) Commit(context.Context, string) error { return nil }

// Restore writes the old context back and has the modem read the card again,
// on which the previous profile is enabled. Whatever fails of that, the modem
// is let back to the networks: off them nobody could ever reach the device.
func (s *ATOnly) Restore(ctx context.Context, snapshot []byte) (modem.Link, error) {
	var snap atSnapshot
	err := json.Unmarshal(snapshot, &snap)
	if err == nil && snap.Present {
		apn := modem.APN{Name: snap.Name, Type: modem.IPType(snap.Type), User: snap.User, Password: redact.NewSecret(snap.Password)}
		err = s.at.SetAPN(ctx, s.cid, apn)
	}
	if err == nil && snap.ICCID != "" {
		_, err = s.at.Reread(ctx, snap.ICCID)
	}
	if err = errors.Join(err, s.attach(ctx)); err != nil {
		return modem.Link{}, fmt.Errorf("restore: %w", err)
	}
	return modem.Link{}, nil
}
