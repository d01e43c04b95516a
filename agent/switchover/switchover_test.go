package switchover_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"lpad/agent/rsp"
	"lpad/agent/switchover"
	"lpad/internal/fault"
	"lpad/modem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend is a device that notes what is done to it. Names in fail make a call
// go wrong, names in hang make it last until its context ends.
type backend struct {
	mu         sync.Mutex // Link is called beside the others
	calls      []string
	fail, hang map[string]bool
	apn        string
	attaches   []string // the access points of the attach that Apply was told
	probes     int      // that go wrong first
}

var errRefused = fault.New(fault.Fault{Code: "refused-by-test"}, nil)

func (b *backend) do(ctx context.Context, call string) error {
	b.mu.Lock()
	b.calls = append(b.calls, call)
	b.mu.Unlock()
	if b.hang[call] {
		<-ctx.Done()
		return fault.New(fault.Fault{Code: "hung-in-test"}, ctx.Err())
	}
	if b.fail[call] {
		return errRefused
	}
	return ctx.Err()
}

func (b *backend) Snapshot(ctx context.Context) ([]byte, error) {
	return []byte("{}"), b.do(ctx, "snapshot")
}
func (b *backend) Gate(ctx context.Context, s []byte) error { return b.do(ctx, "gate "+string(s)) }
func (b *backend) Apply(ctx context.Context, iccid string, settings modem.Settings) ([]string, error) {
	b.apn = settings.Default.Name
	b.attaches = append(b.attaches, settings.AttachAPN().Name)
	return []string{"at"}, b.do(ctx, "apply "+settings.Default.Name)
}
func (b *backend) Reread(ctx context.Context, iccid string) (string, error) {
	return "cfun-0-1", b.do(ctx, "reread "+b.apn)
}
func (b *backend) Register(ctx context.Context) (modem.Registration, error) {
	return modem.Registration{PLMN: "00101"}, b.do(ctx, "register "+b.apn)
}
func (b *backend) Connect(ctx context.Context, iccid string) (modem.Link, error) {
	return modem.Link{Interface: "wwan0"}, b.do(ctx, "connect "+b.apn)
}
func (b *backend) Link(ctx context.Context, iccid string) (modem.Link, error) {
	return modem.Link{Interface: "wwan0"}, b.do(ctx, "link "+iccid)
}
func (b *backend) Commit(ctx context.Context, iccid string) error { return b.do(ctx, "commit "+iccid) }
func (b *backend) Restore(ctx context.Context, s []byte) (modem.Link, error) {
	return modem.Link{Interface: "old0"}, b.do(ctx, "restore "+string(s))
}
func (b *backend) Probe(ctx context.Context, l modem.Link, target string) error {
	if b.probes > 0 {
		b.probes--
		return errors.New("no route yet")
	}
	return b.do(ctx, "probe "+l.Interface+" "+target+" "+b.apn)
}

func set(names ...string) map[string]bool {
	out := map[string]bool{}
	for _, n := range names {
		out[n] = true
	}
	return out
}

const digits = "89440200000000000022"

func target(t *testing.T, probe string, apns ...string) switchover.Target {
	t.Helper()
	iccid, err := rsp.ParseICCID(digits)
	if err != nil {
		t.Fatal(err)
	}
	out := switchover.Target{ICCID: iccid, Probe: probe}
	for _, a := range apns {
		out.Candidates = append(out.Candidates, switchover.Candidate{APN: modem.APN{Name: a}, Source: "src-" + a})
	}
	return out
}

func newSwitch(b *backend) *switchover.Switch {
	return &switchover.Switch{Settings: b, Modem: b, Network: b, Prober: b}
}

// run makes the steps of a switch up to Verify.
func run(ctx context.Context, s *switchover.Switch, t switchover.Target) (switchover.Online, error) {
	snapshot, err := s.Snapshot(ctx)
	if err != nil {
		return switchover.Online{}, err
	}
	if err := s.Gate(ctx, snapshot); err != nil {
		return switchover.Online{}, err
	}
	if _, err := s.Apply(ctx, t); err != nil {
		return switchover.Online{}, err
	}
	if _, err := s.Reread(ctx, t); err != nil {
		return switchover.Online{}, err
	}
	return s.Verify(ctx, snapshot, t)
}

func TestVerify(t *testing.T) {
	for _, tc := range []struct {
		name       string
		apns       []string
		probe      string
		fail, hang map[string]bool
		calls      string // after the first re-read, joined by ", "
		apn        string // that did; empty with code set: none
		code       string
		attempts   string // stages
	}{
		{"first does", []string{"a", "b"}, "", nil, nil, "register a, connect a", "a", "", ""},
		{"no candidates: the empty APN", nil, "", nil, nil, "register , connect ", "", "", ""},
		{"probed", []string{"a"}, "tls://x", nil, nil, "register a, connect a, probe wwan0 tls://x a", "a", "", ""},
		{"not registered, next does", []string{"a", "b"}, "", set("register a"), nil,
			"register a, gate {}, apply b, reread b, register b, connect b", "b", "", "register"},
		{"no bearer, refused, next does", []string{"a", "b", "c"}, "", set("connect a", "apply b"), nil,
			"register a, connect a, gate {}, apply b, gate {}, apply c, reread c, register c, connect c", "c", "", "connect apply"},
		{"hangs, next does", []string{"a", "b"}, "", nil, set("connect a"),
			"register a, connect a, gate {}, apply b, reread b, register b, connect b", "b", "", "connect"},
		{"dead path, next does", []string{"a", "b"}, "x", set("probe wwan0 x a"), nil, "", "b", "", "probe"},
		{"none does", []string{"a", "b"}, "", set("register b"), set("connect a"),
			"register a, connect a, gate {}, apply b, reread b, register b", "", "hung-in-test", "connect register"},
		{"gate and reread go wrong", []string{"a", "b", "c"}, "", set("register a", "reread b", "reread c"), nil,
			"register a, gate {}, apply b, reread b, gate {}, apply c, reread c", "", "refused-by-test", "register reread reread"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				b := &backend{fail: tc.fail, hang: tc.hang}
				online, err := run(ctx, newSwitch(b), target(t, tc.probe, tc.apns...))
				var stages []string
				attempts := online.Attempts
				var ve *switchover.VerifyError
				if errors.As(err, &ve) {
					attempts = ve.Attempts
				}
				for _, a := range attempts {
					stages = append(stages, a.Stage.String())
				}
				if got := strings.Join(stages, " "); got != tc.attempts {
					t.Errorf("attempts %q, want %q", got, tc.attempts)
				}
				if fault.Of(err).Code != tc.code || online.APN.Name != tc.apn {
					t.Errorf("online with %q, %v, want %q, %q", online.APN.Name, err, tc.apn, tc.code)
				}
				if err == nil && (online.Link.Interface != "wwan0" || online.Registration.PLMN != "00101" || strings.Join(online.Where, "") != "at") {
					t.Errorf("online %+v", online)
				}
				if got := strings.Join(b.calls[4:], ", "); tc.calls != "" && got != tc.calls {
					t.Errorf("calls\n%s, want\n%s", got, tc.calls)
				}
			})
		})
	}
}

// TestVerifyShares: a candidate that hangs leaves the others their share, and
// the whole ends with ctx.
func TestVerifyShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		b := &backend{hang: set("register a", "register b", "register c")}
		begin := time.Now()
		_, err := run(ctx, newSwitch(b), target(t, "", "a", "b", "c"))
		if took := time.Since(begin); took != 90*time.Second || fault.Of(err).Code != "hung-in-test" {
			t.Errorf("took %v: %v", took, err)
		}
		if !strings.Contains(strings.Join(b.calls, ","), "register c") {
			t.Errorf("the last candidate was not tried: %v", b.calls)
		}
	})
	synctest.Test(t, func(t *testing.T) { // no deadline
		b := &backend{hang: set("register a")}
		begin := time.Now()
		if _, err := run(t.Context(), newSwitch(b), target(t, "", "a", "b")); err != nil || time.Since(begin) != 4*time.Minute {
			t.Errorf("took %v: %v", time.Since(begin), err)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newSwitch(&backend{}).Verify(ctx, nil, target(t, "")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestVerifyAfterRestart: another process does not know which candidate was
// applied, and begins anew.
// What the configuration grants bounds each candidate, however much time is
// left.
func TestConfiguredLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		s    switchover.Switch
		hang string
		want time.Duration
	}{
		"register":         {switchover.Switch{RegisterTimeout: time.Minute}, "register a", time.Minute},
		"probe":            {switchover.Switch{ProbeTimeout: 5 * time.Second}, "probe wwan0 tcp://x:1 a", 5 * time.Second},
		"probe by default": {switchover.Switch{}, "probe wwan0 tcp://x:1 a", 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{hang: set(tc.hang)}
				s := tc.s
				s.Settings, s.Modem, s.Network, s.Prober = b, b, b, b
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				start := time.Now()
				if _, err := run(ctx, &s, target(t, "tcp://x:1", "a")); err == nil || time.Since(start) != tc.want {
					t.Errorf("%v after %v, want an error after %v", err, time.Since(start), tc.want)
				}
			})
		})
	}
}

// An access point of the attach that no network takes does not spoil the other
// candidates; one with which a network was found stays. What else is wanted may
// change until Verify.
func TestAttach(t *testing.T) {
	for _, tc := range []struct {
		fail     string
		late     bool
		attaches string
	}{
		{"", false, "ia"},
		{"", true, "ia ia"},
		{"register a", false, "ia b"},
		{"connect a", false, "ia ia"},
	} {
		b := &backend{fail: set(tc.fail)}
		s, w := newSwitch(b), target(t, "", "a", "b")
		w.Attach = &modem.APN{Name: "ia"}
		snapshot, err := s.Snapshot(t.Context())
		if err == nil {
			_, err = s.Apply(t.Context(), w)
		}
		if err == nil {
			_, err = s.Reread(t.Context(), w)
		}
		if tc.late {
			w.Radio.SMSC = "+49171"
		}
		if err == nil {
			_, err = s.Verify(t.Context(), snapshot, w)
		}
		if got := strings.Join(b.attaches, " "); err != nil || got != tc.attaches {
			t.Errorf("%q: attached with %s, %v, want %s", tc.fail, got, err, tc.attaches)
		}
	}
}

func TestVerifyAfterRestart(t *testing.T) {
	b := &backend{}
	online, err := newSwitch(b).Verify(t.Context(), []byte("{}"), target(t, "", "a", "b"))
	if err != nil || online.APN.Name != "a" {
		t.Errorf("online %+v, %v", online, err)
	}
	if diff := cmp.Diff([]string{"gate {}", "apply a", "reread a", "register a", "connect a"}, b.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestProbe(t *testing.T) {
	for _, tc := range []struct {
		name   string
		probes int
		target string
		limit  time.Duration
		took   time.Duration
		failed bool
	}{
		{"nothing to probe", 1, "", time.Hour, 0, false},
		{"at once", 0, "x", time.Hour, 0, false},
		{"after a while", 3, "x", time.Hour, 3 * time.Second, false},
		{"never", 1000, "x", time.Hour, 30 * time.Second, true},
		{"ctx ends", 1000, "x", 2500 * time.Millisecond, 2500 * time.Millisecond, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), tc.limit)
				defer cancel()
				begin := time.Now()
				err := newSwitch(&backend{probes: tc.probes}).Probe(ctx, modem.Link{}, tc.target)
				if took := time.Since(begin); took != tc.took || (err != nil) != tc.failed {
					t.Errorf("took %v, %v, want %v", took, err, tc.took)
				}
				if tc.failed && err.Error() != "no route yet" {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func TestRollback(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fail   map[string]bool
		hang   map[string]bool
		enable string // "ok", "fail", "" for nil
		calls  string
		code   string
	}{
		{"all well", nil, nil, "ok", "gate {}, enable, restore {}", ""},
		{"the card never switched", nil, nil, "", "gate {}, restore {}", ""},
		{"no gate", set("gate {}"), nil, "ok", "gate {}, enable, restore {}", ""},
		{"the gate hangs", nil, set("gate {}"), "ok", "gate {}, enable, restore {}", ""},
		{"the card refuses", nil, nil, "fail", "gate {}, enable", "refused-by-test"},
		{"settings stay", set("restore {}"), nil, "ok", "gate {}, enable, restore {}", "refused-by-test"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{fail: tc.fail, hang: tc.hang}
				var enable func(context.Context) error
				if tc.enable != "" {
					enable = func(context.Context) error {
						b.calls = append(b.calls, "enable")
						if tc.enable == "fail" {
							return errRefused
						}
						return nil
					}
				}
				link, err := newSwitch(b).Rollback(t.Context(), []byte("{}"), enable)
				if got := strings.Join(b.calls, ", "); got != tc.calls || fault.Of(err).Code != tc.code {
					t.Errorf("calls %s, %v, want %s, %q", got, err, tc.calls, tc.code)
				}
				if err == nil && link.Interface != "old0" {
					t.Errorf("link %+v", link)
				}
			})
		})
	}
}

func TestCommitAndLink(t *testing.T) {
	b := &backend{fail: set("apply a")}
	s := newSwitch(b)
	if _, err := s.Apply(t.Context(), target(t, "", "a")); fault.Of(err).Code != "refused-by-test" || !strings.Contains(err.Error(), "src-a") {
		t.Errorf("apply: %v", err)
	}
	link, err := s.Link(t.Context(), target(t, "").ICCID)
	if err != nil || link.Interface != "wwan0" {
		t.Errorf("link %+v, %v", link, err)
	}
	if err := s.Commit(t.Context(), target(t, "")); err != nil {
		t.Error(err)
	}
	b.fail = set("commit " + digits)
	if err := s.Commit(t.Context(), target(t, "")); !errors.Is(err, errRefused) {
		t.Errorf("commit: %v", err)
	}
}

type reader struct {
	resets int
	err    error
}

func (r *reader) Reset(context.Context) error { r.resets++; return r.err }

// TestDirect: a card in a reader goes through the same steps.
func TestDirect(t *testing.T) {
	r := &reader{}
	d := switchover.Direct{Card: r}
	s := &switchover.Switch{Settings: d, Modem: d, Network: d}
	tt := target(t, "", "a")
	online, err := run(t.Context(), s, tt)
	if err != nil || !online.Link.IsZero() || online.Where != nil || r.resets != 1 {
		t.Errorf("online %+v after %d resets, %v", online, r.resets, err)
	}
	if link, err := s.Link(t.Context(), tt.ICCID); err != nil || !link.IsZero() {
		t.Errorf("link %+v, %v", link, err)
	}
	if err := s.Commit(t.Context(), tt); err != nil {
		t.Error(err)
	}
	if _, err := s.Rollback(t.Context(), []byte("{}"), func(context.Context) error { return nil }); err != nil || r.resets != 2 {
		t.Errorf("rollback after %d resets, %v", r.resets, err)
	}
	r.err = errRefused
	if _, err := s.Reread(t.Context(), tt); !errors.Is(err, errRefused) {
		t.Errorf("reset refused: %v", err)
	}
}

// flapping is a device whose link is down after the first time that it came up.
type flapping struct {
	*backend
	connects int
}

func (f *flapping) Connect(ctx context.Context, iccid string) (modem.Link, error) {
	f.connects++
	return f.backend.Connect(ctx, iccid)
}

func (f *flapping) Link(context.Context, string) (modem.Link, error) {
	if f.connects == 1 {
		return modem.Link{}, fault.New(fault.Fault{Code: "no-link"}, nil)
	}
	return modem.Link{Interface: "wwan0"}, nil
}

// Probe is silent as long as the link is down.
func (f *flapping) Probe(ctx context.Context, l modem.Link, target string) error {
	if f.connects == 1 {
		<-ctx.Done()
		return ctx.Err()
	}
	return f.backend.Probe(ctx, l, target)
}

// TestLinkLostWhileProbed: a link that goes down while it is probed is brought
// up again, and is not held against the access point.
func TestLinkLostWhileProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		f := &flapping{backend: &backend{}}
		s := &switchover.Switch{Settings: f, Modem: f, Network: f, Prober: f}
		begin := time.Now()
		online, err := run(ctx, s, target(t, "tls://x", "a", "b"))
		if took := time.Since(begin); err != nil || online.APN.Name != "a" || len(online.Attempts) != 0 || f.connects != 2 || took != 4*time.Second {
			t.Errorf("online with %q after %v and %d connects, attempts %v: %v", online.APN.Name, took, f.connects, online.Attempts, err)
		}
	})
}

// TestVerifyErrorExplains: the attempt that came furthest, and of two that came
// as far the one that knows more than that its time was up.
func TestVerifyErrorExplains(t *testing.T) {
	late := context.DeadlineExceeded
	for name, test := range map[string]struct {
		attempts []switchover.Attempt
		code     string
	}{
		"furthest":              {[]switchover.Attempt{{Stage: switchover.StageConnect, Err: late}, {Stage: switchover.StageRegister, Err: errRefused}}, "timeout"},
		"late, then refused":    {[]switchover.Attempt{{Stage: switchover.StageRegister, Err: late}, {Stage: switchover.StageRegister, Err: errRefused}}, "refused-by-test"},
		"refused, then late":    {[]switchover.Attempt{{Stage: switchover.StageRegister, Err: errRefused}, {Stage: switchover.StageRegister, Err: late}}, "refused-by-test"},
		"nothing but late":      {[]switchover.Attempt{{Stage: switchover.StageRegister, Err: late}, {Stage: switchover.StageApply, Err: late}}, "timeout"},
		"late with its reasons": {[]switchover.Attempt{{Stage: switchover.StageProbe, Err: errors.Join(late, errRefused)}}, "refused-by-test"},
	} {
		t.Run(name, func(t *testing.T) {
			err := &switchover.VerifyError{Attempts: test.attempts}
			if got := fault.Of(err).Code; got != test.code {
				t.Errorf("explained by %s, want %s", got, test.code)
			}
		})
	}
}
