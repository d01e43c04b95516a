package network_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lpad/internal/fault"
	"lpad/modem"
	"lpad/modem/modemtest"
	"lpad/modem/network"
)

// TestManagersRestart: ModemManager, which forgets the inhibition, and
// NetworkManager are killed and started again between the steps of a switch.
func TestManagersRestart(t *testing.T) {
	ctx, d := startDevice(t, options{})
	d.must(d.WaitConnected(ctx, "old"))
	mark := d.Modem.Log().Len()
	snapshot, err := d.back.Snapshot(ctx)
	d.must(err)
	d.must(d.back.Gate(ctx, snapshot))
	d.restart(ctx, modemtest.ModemManager)
	d.card.enable(1)
	_, err = d.back.Apply(ctx, profileB.iccid, modem.Settings{Default: newAPN})
	d.must(err)
	d.step("applied")
	d.restart(ctx, modemtest.NetworkManager)
	d.restart(ctx, modemtest.ModemManager)
	_, err = d.back.Reread(ctx, profileB.iccid)
	d.must(err)
	d.step("reread")
	d.restart(ctx, modemtest.ModemManager)
	_, err = d.back.Register(ctx)
	d.must(err)
	d.step("registered")
	d.restart(ctx, modemtest.NetworkManager)
	d.connected(ctx, mark)
}

// TestNetworkManagerDies: it aborts by itself, and is started again as systemd
// does it, in the moments in which a step needs it most. The steps wait for it
// and what they do is done whole. (Five deaths: one more within ten seconds and
// systemd would not start it again.)
func TestNetworkManagerDies(t *testing.T) {
	ctx, d := startDevice(t, options{})
	d.must(d.WaitConnected(ctx, "old"))
	d.normalise(ctx)
	before := d.keyfiles()
	crashes := 0
	crash := func(when string) {
		d.must(d.CrashManager(modemtest.NetworkManager))
		crashes++
		d.step("NetworkManager dies " + when)
	}
	// during does a step and has NetworkManager die when the modem's log has the text.
	during := func(text string, step func() (modem.Link, error)) modem.Link {
		type outcome struct {
			link modem.Link
			err  error
		}
		mark, done := d.Modem.Log().Len(), make(chan outcome, 1)
		go func() {
			link, err := step()
			done <- outcome{link, err}
		}()
		_, err := d.Modem.Log().WaitFor(ctx, mark, text)
		if err == nil {
			crash("at " + text)
		}
		o := <-done
		d.must(errors.Join(err, o.err))
		return o.link
	}

	snapshot, err := d.back.Snapshot(ctx)
	d.must(err)
	crash("before the gate")
	d.must(d.back.Gate(ctx, snapshot))
	for _, id := range []string{"old", "spare", "loose"} {
		if on, found := d.autoconnect(ctx)[id]; on || !found {
			t.Errorf("behind the gate %s comes up by itself, or is not there", id)
		}
	}
	d.card.enable(1)
	crash("before apply")
	_, err = d.back.Apply(ctx, profileB.iccid, modem.Settings{Default: newAPN})
	d.must(err)
	_, err = d.back.Reread(ctx, profileB.iccid)
	d.must(err)
	_, err = d.back.Register(ctx)
	d.must(err)
	link := during("> AT+CGACT=1", func() (modem.Link, error) { return d.back.Connect(ctx, profileB.iccid) })
	d.step("connected")
	d.isLink(link, 1)
	d.must(d.back.Commit(ctx, profileB.iccid))
	if diff := cmp.Diff(map[string]bool{"old": false, "spare": false, "loose": false, "lpad-000022": true}, d.autoconnect(ctx)); diff != "" {
		t.Errorf("autoconnect after the switch (-want +got):\n%s", diff)
	}

	d.must(d.back.Gate(ctx, snapshot))
	d.card.enable(0)
	crash("before restore")
	link = during("> AT+CGACT=1", func() (modem.Link, error) { return d.back.Restore(ctx, snapshot) })
	d.step("restored")
	d.isLink(link, 0)
	d.must(d.WaitConnected(ctx, "old"))
	if diff := cmp.Diff(before, d.keyfiles()); diff != "" {
		t.Errorf("NetworkManager's files are not what they were (-want +got):\n%s", diff)
	}
	if deaths := d.Deaths(); len(deaths) != crashes {
		t.Errorf("it died %d times, and should have %d times: %v", len(deaths), crashes, deaths)
	}
}

// TestRefusedAPN: a network that does not want the access point is asked a few
// times, not for as long as there is time, and not by NetworkManager in a loop;
// and its words are in the error. NetworkManager dies in the middle of it.
func TestRefusedAPN(t *testing.T) {
	ctx, d := startDevice(t, options{})
	d.must(d.WaitConnected(ctx, "old"))
	d.applied(ctx, d.back, 1, profileB, modem.Settings{Default: modem.APN{Name: "wrong.apn", Type: modem.IPv4}})
	_, err := d.back.Register(ctx)
	d.must(err)
	mark, start := d.Modem.Log().Len(), time.Now()
	done := make(chan error, 1)
	go func() {
		_, err := d.back.Connect(ctx, profileB.iccid)
		done <- err
	}()
	_, err = d.Modem.Log().WaitFor(ctx, mark, `APN "wrong.apn", refused`)
	d.must(err)
	d.must(d.CrashManager(modemtest.NetworkManager))
	err = <-done
	took := time.Since(start)
	f := fault.Of(err)
	var refused *network.RefusedError
	if !errors.As(err, &refused) || !refused.Definite || f.Code != "apn-refused" || f.Who != fault.Operator || f.Next == "" ||
		!strings.Contains(f.Text, `refused the APN "wrong.apn"`) || !strings.Contains(f.Text, "not subscribed") {
		t.Errorf("got %v, explained as %+v", err, f)
	}
	asked := 0
	for _, e := range d.Modem.Log().Entries()[mark:] {
		if strings.Contains(e.Text, `APN "wrong.apn", refused`) {
			asked++
		}
	}
	t.Logf("given up after %.1f s, the network was asked %d times", took.Seconds(), asked)
	if took < 20*time.Second || took > 90*time.Second || asked < 3 || asked > 15 {
		t.Errorf("given up after %v, the network was asked %d times", took, asked)
	}
	if deaths := d.Deaths(); len(deaths) != 1 {
		t.Errorf("deaths: %v", deaths)
	}
}

// restart kills a daemon and starts it again, as systemd would.
func (d *device) restart(ctx context.Context, m modemtest.Manager) {
	d.t.Helper()
	d.must(d.RestartManager(ctx, m, 0))
	d.step(string(m) + " restarted")
}
