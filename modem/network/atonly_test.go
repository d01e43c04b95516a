package network_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lpad/internal/fault"
	"lpad/modem"
	"lpad/modem/network"
)

// scripted is a modem that notes what is done to it.
type scripted struct {
	calls    []string
	contexts []modem.Context
	iccid    string
	states   []modem.RegistrationState // one a question, the last stays
	fail     string
}

func (m *scripted) do(call string) error {
	m.calls = append(m.calls, call)
	if call == m.fail {
		return fault.New(fault.Fault{Code: "refused-by-test"}, nil)
	}
	return nil
}

func (m *scripted) SetAPN(_ context.Context, cid int, apn modem.APN) error {
	return m.do("set " + apn.Name)
}
func (m *scripted) APNs(context.Context) ([]modem.Context, error) { return m.contexts, m.do("apns") }
func (m *scripted) Reread(_ context.Context, iccid string) (string, error) {
	m.iccid = iccid
	return "cfun-0-1", m.do("reread " + iccid)
}
func (m *scripted) ICCID(context.Context) (string, error) {
	if m.iccid == "" {
		return "", errors.New("no SIM")
	}
	return m.iccid, nil
}
func (m *scripted) SIM(context.Context) (modem.SIM, error) { return modem.SIM{ICCID: m.iccid}, nil }
func (m *scripted) Registration(context.Context) (modem.Registration, error) {
	if len(m.states) == 0 {
		return modem.Registration{State: modem.Searching}, nil
	}
	r := modem.Registration{State: m.states[0]}
	if len(m.states) > 1 {
		m.states = m.states[1:]
	}
	return r, nil
}
func (m *scripted) PowerCycle(context.Context) error { return m.do("power-cycle") }
func (m *scripted) Detach(context.Context) error     { return m.do("detach") }
func (m *scripted) Attach(context.Context) error     { return m.do("attach") }

func TestATOnly(t *testing.T) {
	for _, tc := range []struct {
		name, fail string
		contexts   []modem.Context
		iccid      string
		calls      string
		code       string // of the first error
	}{
		{"there and back", "", []modem.Context{{CID: 1, APN: modem.APN{Name: "old"}}, {CID: 2}}, "1", "apns, detach, set new, reread 2, attach, set old, reread 1, attach", ""},
		{"no profile before", "", nil, "", "apns, detach, set new, reread 2, attach, attach", ""},
		{"the modem stays on its network", "detach", nil, "", "apns, detach, set new, reread 2, attach, attach", ""},
		{"the network is slow", "attach", nil, "", "apns, detach, set new, reread 2, attach, attach", ""},
		{"contexts unknown", "apns", nil, "1", "apns", "refused-by-test"},
		{"apn refused", "set new", nil, "1", "apns, detach, set new", "refused-by-test"},
		{"old apn refused", "set old", []modem.Context{{CID: 1, APN: modem.APN{Name: "old"}}}, "1", "apns, detach, set new, reread 2, attach, set old, attach", "refused-by-test"},
		{"old sim not followed", "reread 1", nil, "1", "apns, detach, set new, reread 2, attach, reread 1, attach", "refused-by-test"},
		{"sim not followed", "reread 2", nil, "1", "apns, detach, set new, reread 2", "refused-by-test"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &scripted{fail: tc.fail, contexts: tc.contexts, iccid: tc.iccid}
			err := thereAndBack(t.Context(), network.NewATOnly(m, network.Config{}))
			if got := strings.Join(m.calls, ", "); got != tc.calls || fault.Of(err).Code != tc.code {
				t.Errorf("calls %s, %v, want %s, %q", got, err, tc.calls, tc.code)
			}
		})
	}
}

// thereAndBack makes a switch to profile 2 and rolls it back.
func thereAndBack(ctx context.Context, back *network.ATOnly) error {
	snapshot, err := back.Snapshot(ctx)
	if err != nil {
		return err
	}
	if err := back.Gate(ctx, snapshot); err != nil {
		return err
	}
	if _, err := back.Apply(ctx, "2", modem.Settings{Default: modem.APN{Name: "new"}}); err != nil {
		return err
	}
	if _, err := back.Reread(ctx, "2"); err != nil {
		return err
	}
	if err := back.Commit(ctx, "2"); err != nil {
		return err
	}
	_, err = back.Restore(ctx, snapshot)
	return err
}

// A modem that was told to look for a network and does not is told again.
func TestATOnlyAttachesAgain(t *testing.T) {
	for _, tc := range []struct {
		states []modem.RegistrationState
		calls  string
	}{
		{[]modem.RegistrationState{modem.Denied}, "reread 2, attach"},
		{[]modem.RegistrationState{modem.NotRegistered, modem.Searching}, "reread 2, attach, attach"},
		{[]modem.RegistrationState{modem.NotRegistered}, "reread 2, attach, attach, attach"},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := &scripted{states: tc.states}
			if _, err := network.NewATOnly(m, network.Config{}).Reread(t.Context(), "2"); err != nil {
				t.Error(err)
			}
			if got := strings.Join(m.calls, ", "); got != tc.calls {
				t.Errorf("%v: calls %s, want %s", tc.states, got, tc.calls)
			}
		})
	}
}

// A card that stays busy is reset behind the gate.
func TestATOnlyResetSIM(t *testing.T) {
	m := &scripted{}
	if err := network.NewATOnly(m, network.Config{}).ResetSIM(t.Context()); err != nil || strings.Join(m.calls, ", ") != "power-cycle, detach" {
		t.Errorf("calls %q, %v", m.calls, err)
	}
	m.fail = "power-cycle"
	if err := network.NewATOnly(m, network.Config{}).ResetSIM(t.Context()); fault.Of(err).Code != "refused-by-test" {
		t.Errorf("got %v", err)
	}
}

func TestATOnlyRegister(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		m := &scripted{states: []modem.RegistrationState{modem.Searching, modem.Searching, modem.RegisteredHome}}
		if r, err := network.NewATOnly(m, network.Config{}).Register(ctx); err != nil || r.State != modem.RegisteredHome {
			t.Errorf("got %+v, %v", r, err)
		}
		m.states = []modem.RegistrationState{modem.Denied}
		if _, err := network.NewATOnly(m, network.Config{}).Register(ctx); fault.Of(err).Code != "registration-denied" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		m.states = []modem.RegistrationState{modem.Searching}
		if _, err := network.NewATOnly(m, network.Config{}).Register(ctx); fault.Of(err).Code != "not-registered" {
			t.Errorf("got %v", err)
		}
		// A no that stays is an answer; one in between is none.
		begin := time.Now()
		m.states = []modem.RegistrationState{modem.Denied, modem.Denied, modem.Searching, modem.Denied}
		if _, err := network.NewATOnly(m, network.Config{}).Register(t.Context()); fault.Of(err).Code != "registration-denied" || time.Since(begin) < 30*time.Second || time.Since(begin) > 40*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
	if _, err := network.NewATOnly(&scripted{}, network.Config{}).Restore(t.Context(), []byte("nonsense")); err == nil {
		t.Error("a broken snapshot was taken")
	}
	link, err := network.NewATOnly(&scripted{}, network.Config{}).Connect(t.Context(), "1")
	again, err2 := network.NewATOnly(&scripted{}, network.Config{}).Link(t.Context(), "1")
	if err != nil || err2 != nil || !link.IsZero() || !again.IsZero() {
		t.Errorf("links %+v, %+v, %v, %v", link, again, err, err2)
	}
}
