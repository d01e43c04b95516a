package network_test

import (
	"context"
	"testing"
	"time"

	"lpad/modem/modemtest"
)

// TestManagersRestart: ModemManager, which forgets the inhibition, and
// NetworkManager are killed and started again between the steps of a switch.
func TestManagersRestart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
	defer cancel()
	d := startDevice(ctx, t, options{})
	d.must(d.WaitConnected(ctx, "old"))
	mark := d.Modem.Log().Len()
	snapshot, err := d.back.Snapshot(ctx)
	d.must(err)
	d.must(d.back.Gate(ctx, snapshot))
	d.restart(ctx, modemtest.ModemManager)
	d.card.enable(1)
	_, err = d.back.Apply(ctx, profileB.iccid, newAPN)
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
	link, err := d.back.Connect(ctx, profileB.iccid)
	d.must(err)
	d.step("connected")
	if len(link.Addresses) != 1 || link.Addresses[0] != subscriptions[1].Address {
		t.Errorf("link %+v", link)
	}
	d.noOldAPN(mark)
}

// restart kills a daemon and starts it again, as systemd would.
func (d *device) restart(ctx context.Context, m modemtest.Manager) {
	d.t.Helper()
	d.must(d.RestartManager(ctx, m, 0))
	d.step(string(m) + " restarted")
}
