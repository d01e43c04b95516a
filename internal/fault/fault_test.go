package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"lpad/internal/fault"
)

func TestOf(t *testing.T) {
	full := fault.Fault{Code: "card-full", Text: "no room on the card", Who: fault.Technician, Next: "delete a profile"}
	inner := fault.New(full, errors.New("reason 10"))
	for _, tc := range []struct {
		name string
		err  error
		code string
	}{
		{"nil", nil, ""},
		{"explained", inner, "card-full"},
		{"wrapped", fmt.Errorf("install profile: %w", inner), "card-full"},
		{"outermost wins", fault.New(fault.Fault{Code: "outer"}, inner), "outer"},
		{"cancelled", fmt.Errorf("load: %w", context.Canceled), "cancelled"},
		{"deadline", context.DeadlineExceeded, "timeout"},
		{"unknown", errors.New("boom"), fault.Internal},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := fault.Of(tc.err); got.Code != tc.code {
				t.Errorf("code %q, want %q", got.Code, tc.code)
			}
		})
	}
	if got, want := inner.Error(), "no room on the card: reason 10"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	if errors.Unwrap(inner) == nil {
		t.Error("the cause is lost")
	}
}
