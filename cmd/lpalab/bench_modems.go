package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// Bounds of what lpad adds to a modem's own time, and of how often it may be
// wrong about the size of a block: once for each size above the least.
const (
	overheadBound = 1 // second
	refusalsBound = 4
)

// switchOverhead measures the time from EnableProfile to data, without what the
// modem was told to take for itself. The card is infinitely fast, and no manager
// takes part: what is left is lpad.
func (f *figures) switchOverhead(ctx context.Context, d modemtest.Dialect) (err error) {
	ctx, cancel := context.WithTimeout(ctx, cellLimit)
	defer cancel()
	w, err := lab.New(lab.Options{})
	if err != nil {
		return err
	}
	defer w.Close()
	table, remove, err := oemTable(d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	dev, err := w.StartDevice(ctx, lab.DeviceOptions{Backend: lab.Neither, Config: table,
		Modem: func(m *modemtest.Config) { m.Dialect, m.Delays = d, d.Delays }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	var o outcome
	if err := toNotification(ctx, w, dev, cell{modem: d, backend: lab.Neither}, &o); err != nil {
		return fmt.Errorf("%w\n%s", err, dev.Log())
	}
	f.add("switch-overhead-"+d.Name, (o.online - o.own).Seconds(), "s", overheadBound)
	return nil
}

// secondICCID is of the profile of a second download.
const secondICCID = "89358050000000000030"

// blockSize downloads twice, the second time by another run of lpad: the first
// finds the best block size, the second begins with it.
func (f *figures) blockSize(ctx context.Context, d modemtest.Dialect) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	const size = 3000
	w, err := lab.New(lab.Options{ProfileSize: size})
	if err != nil {
		return err
	}
	defer w.Close()
	second := lab.NewOperator
	second.ICCID = secondICCID
	order, err := lab.NewOrder("SECOND", second, size)
	if err != nil {
		return err
	}
	if err := w.SMDP.AddOrder(order); err != nil {
		return err
	}
	m, err := w.StartModemWith(ctx, lab.ModemOptions{Modem: func(c *modemtest.Config) { c.Dialect = d }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	install := func(code string) (lab.Blocks, error) {
		mark := m.AT.Log().Len()
		res, err := m.Lpactl(ctx, nil, "install", code, "--yes")
		if err != nil || res.Exit != 0 {
			return nil, errors.Join(err, fmt.Errorf("lpactl ended with %d: %s", res.Exit, res.Stderr))
		}
		return lab.BlocksIn(m.AT.Log().Since(mark)), nil
	}
	first, err := install(w.ActivationCode())
	if err != nil {
		return err
	}
	if err := errors.Join(m.Stop(), m.Start(ctx)); err != nil {
		return err
	}
	again, err := install(w.SMDP.ActivationCode("SECOND"))
	if err != nil {
		return err
	}
	learnt := again.Most()
	if learnt != first.Most() {
		return fmt.Errorf("most blocks have %d bytes in the first download and %d in the second", first.Most(), learnt)
	}
	f.add("block-size-"+d.Name, float64(learnt), "bytes", 255)
	f.add("block-refusals-"+d.Name, float64(first.Above(learnt)), "blocks", refusalsBound)
	f.add("block-refusals-again-"+d.Name, float64(again.Above(learnt)), "blocks", 0)
	return nil
}
