package network

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"lpad/internal/fault"
	"lpad/modem/nm"
)

// A network that refuses an access point means it. The same refusal
// refusedRounds times, over at least refusedTime, is not asked for once more:
// the time belongs to the other access points, or to the way back. In between
// the network is left alone for a while (3GPP TS 24.301, 6.5.1.4.3, has modems
// wait too).
const (
	refusedRounds   = 3
	refusedTime     = 20 * time.Second
	refusedInterval = 5 * time.Second
)

// RefusedError says that the network does not want an access point, and with
// which words.
type RefusedError struct {
	APN  string // empty: the network's own
	Text string // "Requested service option not subscribed"
	// Definite: of a kind that asking again does not change.
	Definite bool
	cause    error // NetworkManager's
}

// Error has the network's words, and what NetworkManager made of them.
func (e *RefusedError) Error() string { return e.what() + ": " + e.Text + " (" + e.cause.Error() + ")" }

func (e *RefusedError) what() string {
	if e.Definite {
		return fmt.Sprintf("the network refused the APN %q", e.APN)
	}
	return fmt.Sprintf("the network gave no data connection for the APN %q", e.APN)
}

// Unwrap returns NetworkManager's error.
func (e *RefusedError) Unwrap() error { return e.cause }

// Fault explains it; "apn-refused" if it is definite, else "no-bearer".
func (e *RefusedError) Fault() fault.Fault {
	f := fault.Fault{Code: "no-bearer", Text: e.what() + ": " + e.Text, Retry: true, Who: fault.Operator,
		Next: "check the APN, user name and password with the operator; look at the logs of NetworkManager and ModemManager"}
	if e.Definite {
		f.Code, f.Next = "apn-refused", "check the APN, user name and password with the operator, and that the subscription has data"
	}
	return f
}

// definite are the refusals that ModemManager tells apart and that asking again
// does not change: the last parts of its D-Bus error names (ESM and SM causes 8,
// 27, 28, 29, 30, 32, 33, 50 to 52 of 3GPP TS 24.301 and 24.008, and 149 of TS
// 27.007).
var definite = []string{"OperatorDeterminedBarring", "MissingOrUnknownApn", "UnknownPdpAddressOrType", "UserAuthenticationFailed",
	"ActivationRejectedByGgsnOrGw", "ServiceOptionNotSupported", "ServiceOptionNotSubscribed", "PdpTypeIpv4OnlyAllowed", "PdpTypeIpv6OnlyAllowed",
	"PdpAuthFailure"}

// whyNot adds what the network said, as ModemManager has kept it, to an
// activation that has failed.
func (s *ManagerStack) whyNot(ctx context.Context, con nm.Connection, err error) error {
	var failed *nm.ActivationError
	if !errors.As(err, &failed) {
		return err
	}
	m, merr := s.mm.Modem(ctx, s.known())
	if merr != nil {
		return err
	}
	apn := con.Settings.Text("gsm", "apn")
	said, merr := s.mm.Failure(ctx, m, apn)
	if merr != nil || said.Text == "" {
		return err
	}
	return &RefusedError{APN: apn, Text: said.Text, Definite: isDefinite(said.Name), cause: err}
}

// isDefinite looks at the older names too ("GprsServiceOptionNotSubscribed").
func isDefinite(failure string) bool {
	for _, d := range definite {
		if strings.EqualFold(strings.TrimPrefix(failure, "Gprs"), d) {
			return true
		}
	}
	return false
}

// refusals counts definite refusals with the same words.
type refusals struct {
	n     int
	text  string
	since time.Time
}

// stays takes how an attempt ended, and reports whether that is final. What says
// nothing about the network (a manager was restarted) does not count.
func (r *refusals) stays(err error) bool {
	var e *RefusedError
	switch {
	case !errors.As(err, &e):
		return false
	case !e.Definite:
		r.n = 0
	case r.n == 0 || r.text != e.Text:
		*r = refusals{n: 1, text: e.Text, since: time.Now()}
	default:
		r.n++
	}
	return r.n >= refusedRounds && time.Since(r.since) >= refusedTime
}

// outweigh reports that an error says nothing about the network, which has
// refused before: that remains the reason.
func (r *refusals) outweigh(err error) bool {
	var e *RefusedError
	return r.n > 0 && !errors.As(err, &e)
}
