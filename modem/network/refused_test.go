package network

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"lpad/internal/fault"
	"lpad/modem/nm"
)

// TestRefusals counts: only definite refusals with the same words, three and for
// twenty seconds.
func TestRefusals(t *testing.T) {
	cause := &nm.ActivationError{ID: "lpad-000022"}
	no := &RefusedError{APN: "wrong", Text: "not subscribed", Definite: true, cause: cause}
	other := &RefusedError{APN: "wrong", Text: "unknown APN", Definite: true, cause: cause}
	maybe := &RefusedError{APN: "wrong", Text: "operation was cancelled", cause: cause}
	away := errors.New("the modem has gone")
	for name, test := range map[string]struct {
		errs  []error
		pause time.Duration
		final int // the index of the error that is final, -1: none
	}{
		"three, slowly":                {[]error{no, no, no}, 10 * time.Second, 2},
		"three are too fast":           {[]error{no, no, no, no, no}, 5 * time.Second, 4},
		"other words begin anew":       {[]error{no, no, other, other, other}, 10 * time.Second, 4},
		"not definite begins anew":     {[]error{no, no, maybe, no, no, no}, 10 * time.Second, 5},
		"a manager away does not":      {[]error{no, away, no, away, no}, 5 * time.Second, 4},
		"nothing about the network":    {[]error{away, away, away, away}, time.Minute, -1},
		"what may pass is no end":      {[]error{maybe, maybe, maybe, maybe}, time.Minute, -1},
		"two in a long time are a few": {[]error{no, away, no}, time.Minute, -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r refusals
				for i, err := range test.errs {
					if got := r.stays(err); got != (i == test.final) {
						t.Fatalf("after %d: %v", i, got)
					}
					time.Sleep(test.pause)
				}
			})
		})
	}
	r := refusals{n: 1}
	if !r.outweigh(away) || r.outweigh(other) || (&refusals{}).outweigh(away) {
		t.Error("the network's no is not the reason that is told")
	}
	if f := fault.Of(maybe); f.Code != "no-bearer" || f.Who != fault.Operator || f.Next == "" || !errors.Is(maybe, error(cause)) {
		t.Errorf("what may pass is explained as %+v", f)
	}
}

func TestDefinite(t *testing.T) {
	for failure, want := range map[string]bool{"MissingOrUnknownApn": true, "ServiceOptionNotSubscribed": true, "GprsServiceOptionNotSubscribed": true,
		"UserAuthenticationFailed": true, "Cancelled": false, "NoCarrier": false, "": false, "NetworkTimeout": false} {
		if got := isDefinite(failure); got != want {
			t.Errorf("%q: %v", failure, got)
		}
	}
}
