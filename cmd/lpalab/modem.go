package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// modemFlag lets a command take the name of a modem.
func modemFlag(cmd *cobra.Command, usage string) *string {
	name := cmd.Flags().String("modem", "", usage+": one of "+strings.Join(modemNames(), ", "))
	// Cobra asks a shell's completion only; a failure here is a mistake in this line.
	if err := cmd.RegisterFlagCompletionFunc("modem", cobra.FixedCompletions(modemNames(), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err)
	}
	return name
}

func modemNames() []string {
	var names []string
	for _, d := range modemtest.Dialects() {
		names = append(names, d.Name)
	}
	return names
}

// modemNamed finds a modem; "" is the lab's usual one.
func modemNamed(name string) (modemtest.Dialect, error) {
	if name == "" {
		return modemtest.UBlox, nil
	}
	d, ok := modemtest.DialectNamed(name)
	if !ok {
		return d, fmt.Errorf("no modem is called %q; there are: %s", name, strings.Join(modemNames(), ", "))
	}
	return d, nil
}

func modemCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "modem", Short: "the simulated modems; with --modem, one of them on two ttys until interrupted", Args: cobra.NoArgs,
	}
	name := modemFlag(cmd, "start this modem")
	cmd.Flags().StringVar(&dir, "dir", "", "folder for the ttys; a temporary one if it is not given")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *name == "" {
			return listModems(cmd.OutOrStdout())
		}
		d, err := modemNamed(*name)
		if err != nil {
			return err
		}
		return runModem(cmd.Context(), cmd.OutOrStdout(), d, dir)
	}
	return cmd
}

// listModems prints a line for each modem.
func listModems(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%-16s %-30s %-28s %-14s %s\n", "NAME", "MANUFACTURER", "MODEL", "PLUGIN", "PACKETS")
	for _, d := range modemtest.Dialects() {
		packets := "PPP only"
		if d.Name == modemtest.UBlox.Name {
			packets = "network interface"
		}
		fmt.Fprintf(out, "%-16s %-30s %-28s %-14s %s\n", d.Name, d.Manufacturer, d.Model, d.Plugin, packets)
	}
	return out.Flush()
}

// runModem has the modem on two ttys, with the old operator's profile on a
// software eUICC, until ctx ends. What it hears and says goes to w.
func runModem(ctx context.Context, w io.Writer, d modemtest.Dialect, dir string) (err error) {
	world, err := lab.New(lab.Options{})
	if err != nil {
		return err
	}
	defer world.Close()
	if dir == "" {
		if dir, err = os.MkdirTemp("", "lpalab-modem-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	m, err := modemtest.New(modemtest.Config{Card: world.Card, Dialect: d, Delays: d.Delays,
		Subscriptions: []modemtest.Subscription{lab.OldOperator.Subscription(), lab.NewOperator.Subscription()}})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := m.Close(); err == nil {
			err = cerr
		}
	}()
	for _, tty := range []string{"ttyUSB0", "ttyUSB1"} {
		path := filepath.Join(dir, tty)
		if _, err := m.OpenPTY(path); err != nil {
			return err
		}
		fmt.Fprintln(w, path)
	}
	for next := 0; ; {
		if _, err := m.Log().WaitFor(ctx, next, ""); err != nil {
			return nil // interrupted
		}
		for _, e := range m.Log().Since(next) {
			fmt.Fprintln(w, e)
			next++
		}
	}
}

// enableProfile is the beginning of ES10c.EnableProfile (SGP.22 v2.5, section
// 5.7.16) as it stands in an AT command: a STORE DATA of one block, in which the
// tag comes first. (The digits of the tag alone may be anywhere.)
var enableProfile = regexp.MustCompile(`"[0-9A-F]{2}E29100[0-9A-F]{2}BF31`)

// isEnable finds the line with which a switch begins.
func isEnable(e modemtest.Entry) bool {
	return e.Kind == modemtest.Sent && enableProfile.MatchString(e.Text)
}

// demoModem is the demo on a modem to which ModemManager gives no network
// interface: lpad has it to itself, and the SM-DP+ is on this machine.
func demoModem(ctx context.Context, d modemtest.Dialect) (err error) {
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	say("A %s of %s, with neither ModemManager nor NetworkManager; the SM-DP+ is on this machine.", d.Model, d.Manufacturer)
	w, err := lab.New(lab.Options{Timing: demoTiming})
	if err != nil {
		return err
	}
	defer w.Close()
	m, err := w.StartModemWith(ctx, lab.ModemOptions{Modem: func(c *modemtest.Config) { c.Dialect, c.Delays = d, d.Delays }})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := m.Close(); err == nil {
			err = cerr
		}
	}()
	if err := m.AT.WaitRegistered(ctx, lab.OldOperator.ICCID); err != nil {
		return err
	}
	say("")
	say("$ lpactl install '%s' --enable --yes", w.ActivationCode())
	mark := m.AT.Log().Len()
	res, err := m.Lpactl(ctx, os.Stdout, "install", w.ActivationCode(), "--enable", "--yes")
	if err != nil {
		return err
	}
	if res.Exit != 0 {
		return fmt.Errorf("lpactl ended with %d; the daemon's log:\n%s", res.Exit, m.Log())
	}
	if err := m.AT.WaitRegistered(ctx, lab.NewOperator.ICCID); err != nil {
		return err
	}
	all := m.AT.Log().Since(mark)
	first := slices.IndexFunc(all, isEnable)
	if first < 0 {
		return errors.New("no EnableProfile in the log of the modem")
	}
	say("")
	say("The modem is registered with the new profile. What it was told, and what it did, from EnableProfile on:")
	last := first
	for i, e := range all {
		if i > first && telling(e) {
			last = i
			say("  %s", e)
		}
	}
	from, to := all[first].Time, all[last].Time
	say("That took %.1f s, of which %.1f s were the modem's own.", to.Sub(from).Seconds(), m.AT.DelayBetween(from, to).Seconds())
	return checkAddress(w, netip.MustParseAddr("127.0.0.1"))
}

// checkAddress holds the notifications against what must have come.
func checkAddress(w *lab.World, from netip.Addr) error {
	for _, n := range w.SMDP.Notifications() {
		if !n.Verified || n.Peer != from {
			return fmt.Errorf("notification %s of %s, from %s: %s", n.EventName, n.ICCID, n.Peer, n.Problem)
		}
	}
	return nil
}

// telling are the lines of the modem's log that belong to its reading the SIM again.
func telling(e modemtest.Entry) bool {
	if e.Kind == modemtest.Happened {
		return !strings.HasPrefix(e.Text, "attach")
	}
	if e.Kind != modemtest.Sent {
		return false
	}
	for _, c := range []string{"+CFUN=", "+QPOWD", "#REBOOT", "!RESET", "+CRESET", "^SMSO"} {
		if strings.Contains(e.Text, c) {
			return true
		}
	}
	return false
}
