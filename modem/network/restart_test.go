package network_test

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	modemManager   = "org.freedesktop.ModemManager1"
	networkManager = "org.freedesktop.NetworkManager"
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
	d.restart(ctx, modemManager)
	d.card.enable(1)
	_, err = d.back.Apply(ctx, profileB.iccid, newAPN)
	d.must(err)
	d.step("applied")
	d.restart(ctx, networkManager)
	d.restart(ctx, modemManager)
	_, err = d.back.Reread(ctx, profileB.iccid)
	d.must(err)
	d.step("reread")
	d.restart(ctx, modemManager)
	_, err = d.back.Register(ctx)
	d.must(err)
	d.step("registered")
	d.restart(ctx, networkManager)
	link, err := d.back.Connect(ctx, profileB.iccid)
	d.must(err)
	d.step("connected")
	if len(link.Addresses) != 1 || link.Addresses[0] != subscriptions[1].Address {
		t.Errorf("link %+v", link)
	}
	d.noOldAPN(mark)
}

// restart kills a daemon and starts it again, as systemd would.
func (d *device) restart(ctx context.Context, name string) {
	d.t.Helper()
	conn, err := d.DialBus()
	d.must(err)
	defer func() { d.must(conn.Close()) }()
	var pid uint32
	d.must(conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixProcessID", 0, name).Store(&pid))
	d.must(unix.Kill(int(pid), unix.SIGKILL))
	owned := func() (owned bool) {
		d.must(conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, name).Store(&owned))
		return owned
	}
	for owned() {
		time.Sleep(time.Millisecond)
	}
	cmd := d.Command(ctx, "ModemManager", "--no-auto-scan", "--test-no-udev", "--test-no-suspend-resume", "--test-no-qrtr")
	if name == networkManager {
		cmd = d.Command(ctx, "unshare", "-m", "--propagation", "private", "sh", "-ec", `umount -l /sys; mount -t sysfs -o ro sysfs /sys; exec NetworkManager --debug`)
	}
	d.must(cmd.Start())
	d.t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil && cmd.ProcessState == nil {
			d.t.Log(err) // it was killed by another restart
		}
		if err := cmd.Wait(); err == nil {
			d.t.Error("a daemon ended by itself")
		}
	})
	for !owned() {
		time.Sleep(time.Millisecond)
	}
	if name == modemManager {
		d.must(d.ReportPorts(ctx, true))
	}
	d.step(name + " restarted")
}
