package lab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// declaration puts a file into a folder of its own, and returns lpad's
// configuration of the folder.
func declaration(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "meter.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("fleet: {dir: %s}\n", dir)
}

func meter(code string) string {
	return "version: 1\ncode: " + code + "\nnickname: Meter uplink\nenabled: yes\n"
}

// packages counts those that the server has handed out, and the installations that
// it has heard of.
func packages(w *lab.World) (handed, installed int) {
	for _, c := range w.SMDP.Calls() {
		if c.Function == smdp.GetBoundProfilePackage && c.Outcome == "ok" {
			handed++
		}
	}
	for _, n := range w.SMDP.Notifications() {
		if n.Result == "installed" && !n.Duplicate {
			installed++
		}
	}
	return handed, installed
}

// fleetStands waits until no job is under way and the status begins so for the
// only declaration, and returns the jobs as "kind state code", the oldest first.
func fleetStands(ctx context.Context, t *testing.T, d *lab.Daemon, want string) string {
	t.Helper()
	c := d.Client()
	defer c.Close()
	for {
		s, err := c.Status(ctx)
		if err == nil && s.Job == nil && s.Queued == 0 && s.Declared != nil && len(s.Declared.Lines) == 1 && strings.HasPrefix(s.Declared.Lines[0], want) {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%v: it stands as %+v, job %+v", err, s.Declared, s.Job)
		case <-time.After(20 * time.Millisecond):
		}
	}
	all, err := c.Jobs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i := range all.Jobs {
		j := all.Jobs[len(all.Jobs)-1-i]
		text := j.Kind + " " + j.State
		if j.Problem != nil {
			text += " " + j.Problem.Code
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// wipe takes the state away, as flashing anew does.
func wipe(t *testing.T, d *lab.Daemon) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(d.Dir, "var")); err != nil {
		t.Fatal(err)
	}
}

// TestFleet: a device that finds a file at its first start is online with the
// profile, nothing more happens at the second, and nothing is downloaded again when it was
// flashed anew.
func TestFleet(t *testing.T) {
	w := newWorld(t, lab.Options{})
	ctx, d := startDevice(t, w, lab.DeviceOptions{Config: declaration(t, meter(w.ActivationCode()))})
	expect := func(what, jobs string) {
		t.Helper()
		if got := fleetStands(ctx, t, d.Daemon, "meter: converged"); got != jobs {
			t.Errorf("%s: jobs %q, want %q", what, got, jobs)
		}
		if handed, _ := packages(w); handed != 1 {
			t.Errorf("%s: %d packages were handed out", what, handed)
		}
		if id, _ := w.Card.EnabledICCID(); id.String() != lab.NewOperator.ICCID {
			t.Errorf("%s: enabled is %s", what, id)
		}
	}
	expect("first start", "install done")
	c := d.Client()
	s, err := c.Status(ctx)
	c.Close()
	if err != nil || s.Network.APN != lab.NewOperator.APN || len(s.Network.Addresses) == 0 || s.Network.Addresses[0] != lab.NewOperator.Address.Addr().String() {
		t.Errorf("%v: the network is %+v", err, s.Network)
	}
	for _, p := range w.Card.Profiles() {
		if p.Enabled && !strings.HasPrefix(p.Nickname, "Meter uplink [") {
			t.Errorf("its nickname is %q", p.Nickname)
		}
	}

	if err := errors.Join(d.Stop(), d.Start(ctx)); err != nil {
		t.Fatal(err)
	}
	expect("second start", "install done")

	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	wipe(t, d.Daemon)
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	expect("flashed anew", "")
}

// fleetReader is lpad on a reader, with a file in its folder.
func fleetReader(t *testing.T, w *lab.World, text string) (context.Context, *lab.Reader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	r, err := w.StartReader(ctx, programs, declaration(t, text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.Log())
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, r
}

// TestFleetKilled: kill -9 in each step. In the end there is one installation, by one job, and the
// profile is enabled; also where the state is lost at the same time, for steps in
// which the profile is not on the card yet, or is there with its mark.
func TestFleetKilled(t *testing.T) {
	modemtest.RequirePCSCD(t)
	t.Parallel()
	for _, tc := range []struct {
		state string
		lost  bool // the state too
	}{
		{"authenticating", false}, {"preparing", false}, {"loading", false}, {"reporting", false}, {"snapshotting", false}, {"gating", false},
		{"enabling", false}, {"applying", false}, {"rereading", false}, {"verifying", false}, {"committing", false}, {"confirming", false},
		{"authenticating", true}, {"preparing", true}, {"reporting", true}, {"enabling", true}, {"committing", true}, {"confirming", true},
	} {
		t.Run(fmt.Sprintf("%s lost=%v", tc.state, tc.lost), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lab.Options{Timing: euicc.Timing{PerAPDU: 5 * time.Millisecond, Clock: euicc.RealTime{}}})
			ctx, r := fleetReader(t, w, meter(w.ActivationCode()))
			for !strings.Contains(r.Log(), "state="+tc.state) {
				select {
				case <-ctx.Done():
					t.Fatal("it never comes there")
				case <-time.After(time.Millisecond):
				}
			}
			if err := r.Kill(); err != nil {
				t.Fatal(err)
			}
			killed := r.Log()
			if tc.lost {
				wipe(t, r.Daemon)
			}
			if err := r.Start(ctx); err != nil {
				t.Fatal(err)
			}
			jobs := fleetStands(ctx, t, r.Daemon, "meter: converged")
			if !tc.lost && tc.state != "confirming" && !strings.Contains(r.Log()[len(killed):], "msg=resuming") {
				t.Error("it was killed in the middle of nothing")
			}
			if want := "install done"; jobs != want && !tc.lost {
				t.Errorf("jobs %q, want %q", jobs, want)
			}
			if n := len(w.Card.Profiles()); n != 2 {
				t.Errorf("%d profiles on the card", n)
			}
			if id, _ := w.Card.EnabledICCID(); id.String() != lab.NewOperator.ICCID {
				t.Errorf("enabled is %s", id)
			}
			handed, installed := packages(w)
			again := strings.Contains(killed, "state=preparing") && !strings.Contains(killed, "state=reporting") // the package may have to be asked for again
			if handed != 1 && !(again && handed == 2) || installed > 1 {
				t.Errorf("%d packages were handed out, %d installations reported", handed, installed)
			}
		})
	}
}

// TestFleetWrongCode: a code that the server refuses is tried once, is told with its reason, and not
// tried again.
func TestFleetWrongCode(t *testing.T) {
	modemtest.RequirePCSCD(t)
	t.Parallel()
	w := newWorld(t, lab.Options{})
	ctx, r := fleetReader(t, w, meter("LPA:1$"+lab.Host+"$WRONG-1"))
	const jobs = "install failed matching-id-refused"
	if got := fleetStands(ctx, t, r.Daemon, "meter: failed: "); got != jobs {
		t.Errorf("jobs %q, want %q", got, jobs)
	}
	calls := len(w.SMDP.Calls())
	if err := errors.Join(r.Stop(), r.Start(ctx)); err != nil {
		t.Fatal(err)
	}
	if got := fleetStands(ctx, t, r.Daemon, "meter: failed: "); got != jobs || len(w.SMDP.Calls()) != calls {
		t.Errorf("jobs %q, and %d calls of the server after %d", got, len(w.SMDP.Calls()), calls)
	}
	out := lpactl(ctx, t, r.Daemon, 0, "status")
	if !strings.Contains(out.Stdout+out.Stderr, "declared profile (fleet.dir): meter: failed") || strings.Contains(out.Stdout+out.Stderr+r.Log(), "WRONG-1") {
		t.Errorf("status:\n%s%s", out.Stdout, out.Stderr)
	}
}
