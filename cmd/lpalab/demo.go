package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// demoTiming makes the card of the demo as slow as a quick real one.
var demoTiming = euicc.Timing{PerAPDU: 10 * time.Millisecond, PerByte: 20 * time.Microsecond, Clock: euicc.RealTime{}}

// demoDelays make the modem take its time.
var demoDelays = modemtest.Delays{SIM: 300 * time.Millisecond, Registration: 700 * time.Millisecond, Activation: 100 * time.Millisecond}

// demoLimit is what the demo may take at the most.
const demoLimit = 2 * time.Minute

func demoCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{Use: "demo", Short: "the main job, from an activation code to a connected device", Args: cobra.NoArgs}
	name := modemFlag(cmd, "the demo on this modem alone")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the device up until interrupted")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := modemNamed(*name)
		if err != nil {
			return err
		}
		start := time.Now()
		if d.Name == modemtest.UBlox.Name {
			if missing := modemtest.Missing(); missing != "" {
				return errors.New(missing)
			}
			err = demoDevice(cmd.Context(), keep)
		} else if keep {
			return fmt.Errorf("--keep needs a modem with a network interface: %s", modemtest.UBlox.Name)
		} else {
			err = demoModem(cmd.Context(), d)
		}
		if err != nil {
			return fmt.Errorf("demo on a device with a modem: %w", err)
		}
		if *name == "" {
			if err := demoReader(cmd.Context()); err != nil {
				return fmt.Errorf("demo on a card reader: %w", err)
			}
		}
		fmt.Printf("demo: ok in %.1f s\n", time.Since(start).Seconds())
		return nil
	}
	return cmd
}

func demoDevice(ctx context.Context, keep bool) (err error) {
	limited, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	say("A device with an AT modem, ModemManager and NetworkManager; the SM-DP+ can be reached through the modem alone.")
	w, err := lab.New(lab.Options{Timing: demoTiming})
	if err != nil {
		return err
	}
	defer w.Close()
	dev, err := w.StartDevice(limited, lab.DeviceOptions{Modem: func(c *modemtest.Config) { c.Delays = demoDelays }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	old, operator := lab.OldOperator, lab.NewOperator
	say("It is on line with %s, APN %s, address %s.", old.Operator, old.APN, old.Address.Addr())
	say("")
	say("$ lpactl install '%s' --enable --yes", w.ActivationCode())
	res, err := dev.Lpactl(limited, os.Stdout, "install", w.ActivationCode(), "--enable", "--yes")
	if err != nil {
		return err
	}
	if res.Exit != 0 {
		return fmt.Errorf("lpactl ended with %d; the daemon's log:\n%s", res.Exit, dev.Log())
	}
	say("")
	say("$ lpactl status")
	if res, err = dev.Lpactl(limited, nil, "status"); err != nil {
		return err
	}
	fmt.Print(res.Stdout)
	say("")
	if err := proveOrder(limited, w, dev, operator); err != nil {
		return fmt.Errorf("%w; the daemon's log:\n%s", err, dev.Log())
	}
	if keep {
		say("The device stays up until you interrupt this. Try:")
		say("  lpactl --socket %s profiles", dev.Socket)
		say("  lpactl --socket %s enable %s", dev.Socket, old.ICCID)
		<-ctx.Done()
	}
	return nil
}

// proveOrder shows what the server and the modem saw, and holds it against the
// product's order.
func proveOrder(ctx context.Context, w *lab.World, dev *lab.Device, operator lab.Subscriber) error {
	enabled, err := w.SMDP.WaitNotification(ctx, func(n smdp.Notification) bool {
		return n.Event == rsp.EventEnable && n.ICCID.String() == operator.ICCID
	})
	if err != nil {
		return err
	}
	say("What the SM-DP+ received:")
	for _, n := range w.SMDP.Notifications() {
		good := "signature good"
		if !n.Verified {
			good = "NOT VERIFIED: " + n.Problem
		}
		say("  %-8s of %s, from %s, %s", n.EventName, n.ICCID, n.Peer, good)
	}
	if enabled.Peer != operator.Address.Addr() {
		return fmt.Errorf("the enable notification came from %s, not from the new profile's address %s", enabled.Peer, operator.Address.Addr())
	}
	log := dev.Stack.Modem.Log()
	if err := log.InOrder(0, `+CGDCONT=1,"`, operator.APN, "> AT+CFUN=0"); err != nil {
		return fmt.Errorf("the APN was not on the modem before the SIM was read again: %w", err)
	}
	say("What the modem saw: the APN %s before AT+CFUN=0 made it read the SIM again.", operator.APN)
	return nil
}

func demoReader(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	say("")
	say("The same download through a card reader: real pcscd, virtual reader, lpad-pcsc.")
	w, err := lab.New(lab.Options{Timing: demoTiming})
	if err != nil {
		return err
	}
	defer w.Close()
	r, err := w.StartReader(ctx, "", "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	say("$ lpactl install '%s' --enable --yes", w.ActivationCode())
	res, err := r.Lpactl(ctx, os.Stdout, "install", w.ActivationCode(), "--enable", "--yes")
	if err != nil {
		return err
	}
	if res.Exit != 0 {
		return fmt.Errorf("lpactl ended with %d; the daemon's log:\n%s", res.Exit, r.Log())
	}
	if res, err = r.Lpactl(ctx, nil, "profiles"); err != nil {
		return err
	}
	fmt.Print(res.Stdout)
	if !strings.Contains(res.Stdout, lab.NewOperator.ICCID+"  enabled") {
		return errors.New("the new profile is not enabled")
	}
	return nil
}

func say(format string, a ...any) { fmt.Printf(format+"\n", a...) }
