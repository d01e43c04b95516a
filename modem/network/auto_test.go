package network_test

import (
	"context"
	"testing"
	"time"

	"lpad/internal/systembus"
	"lpad/internal/systembus/bustest"
	"lpad/modem/mm"
	"lpad/modem/modemtest"
	"lpad/modem/network"
	"lpad/modem/nm"
)

// The back-end is what runs; a service that ran before is waited for when it is
// away for a moment.
func TestDetect(t *testing.T) {
	b := bustest.Start(t)
	bus := systembus.New(b.Address)
	defer func() {
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	}()
	var seen network.Expected
	want := func(name string) {
		t.Helper()
		if got, err := network.Detect(t.Context(), bus, &seen); err != nil || got != name {
			t.Errorf("%q, %v, want %q", got, err, name)
		}
	}
	want(network.BackendNone)
	b.Own(t, b.Dial(t), mm.Service.Bus)
	want(network.BackendModemManager)
	nms := b.Dial(t)
	b.Own(t, nms, nm.Service.Bus)
	want(network.BackendNetworkManager)
	if _, err := nms.ReleaseName(nm.Service.Bus); err != nil {
		t.Fatal(err)
	}
	back := time.AfterFunc(200*time.Millisecond, func() {
		if _, err := nms.RequestName(nm.Service.Bus, 0); err != nil {
			t.Error(err)
		}
	})
	defer back.Stop()
	want(network.BackendNetworkManager)
	if _, err := nms.ReleaseName(nm.Service.Bus); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if name, err := network.Detect(ended, bus, &seen); err == nil {
		t.Errorf("%q without waiting", name)
	}
	gone := systembus.New("unix:path=/nonexistent")
	defer func() {
		if err := gone.Close(); err != nil {
			t.Error(err)
		}
	}()
	if name, err := network.Detect(t.Context(), gone, nil); err != nil || name != network.BackendNone {
		t.Errorf("without a bus: %q, %v", name, err)
	}
}

// A lpad that started before ModemManager finds it when a switch begins, and
// carries the switch out by the back-end that it began with, over a restart too.
func TestAutoFollows(t *testing.T) {
	ctx, d := startBare(t, bareOptions{})
	bus := systembus.New(d.BusAddress())
	t.Cleanup(func() {
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	})
	d.must(d.StopManager(ctx, modemtest.ModemManager))
	auto := network.NewAuto(network.BackendAuto, bus, d.port, d.config)
	snapshot, err := auto.Snapshot(ctx)
	d.must(err)
	if auto.Name() != network.BackendNone {
		t.Errorf("back-end %q without ModemManager", auto.Name())
	}
	d.must(d.port.Release(ctx))
	d.must(d.StartManager(ctx, modemtest.ModemManager))
	_, err = d.WaitMM(ctx, profileA.iccid)
	d.must(err)
	again, err := auto.Snapshot(ctx)
	d.must(err)
	if auto.Name() != network.BackendModemManager {
		t.Errorf("back-end %q with ModemManager", auto.Name())
	}
	// The switch that began without goes on without.
	d.must(auto.Gate(ctx, snapshot))
	if auto.Name() != network.BackendNone {
		t.Errorf("back-end %q of the first snapshot", auto.Name())
	}
	next := network.NewAuto(network.BackendAuto, bus, d.port, d.config)
	d.must(next.Gate(ctx, again))
	if next.Name() != network.BackendModemManager {
		t.Errorf("back-end %q of the second snapshot after a restart", next.Name())
	}
	_, err = next.Restore(ctx, again)
	d.must(err)
	d.must(next.Close(ctx))
	d.step("restored")
}
