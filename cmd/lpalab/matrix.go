package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// cellLimit is what one cell may take at the most.
const cellLimit = 90 * time.Second

// cell is one line of the matrix: a modem, the commands that carry APDUs, and
// who has the network.
type cell struct {
	modem   modemtest.Dialect
	path    string // ccho, csim: card.apdu_path
	backend lab.Backend
}

func (c cell) String() string { return fmt.Sprintf("%s %s %s", c.modem.Name, c.path, c.backend) }

// apduPaths are the commands by which APDUs get to the card of this modem.
func apduPaths(d modemtest.Dialect) []string {
	usable := func(command string) bool {
		_, refused := d.Refuses[command]
		return !refused && !slices.Contains(d.Lacks, command)
	}
	var paths []string
	if usable("+CCHO") {
		paths = append(paths, "ccho")
	}
	if usable("+CSIM") && !d.NoCSIMChannels {
		paths = append(paths, "csim")
	}
	return paths
}

// cells are all of the matrix, or those of one modem, path or back-end where
// these are given.
func cells(modem, path string, backend lab.Backend) []cell {
	var all []cell
	for _, d := range modemtest.Dialects() {
		for _, p := range apduPaths(d) {
			for _, b := range lab.Backends() {
				if (modem == "" || d.Name == modem) && (path == "" || p == path) && (backend == "" || b == backend) {
					all = append(all, cell{d, p, b})
				}
			}
		}
	}
	return all
}

// outcome is what became of a cell.
type outcome struct {
	rung   string
	online time.Duration // from EnableProfile on the wire to data, or to the bearer where the cell ends there
	own    time.Duration // of that, in delays that the simulated modem was told to have
	bearer bool          // it ends there
	err    error
	log    string // of lpad and of the modem
}

// verdict is the last column.
func (o outcome) verdict() string {
	switch {
	case o.err != nil:
		return "FAILED: " + strings.Join(strings.Fields(o.err.Error()), " ")
	case o.bearer:
		return "ends at the bearer: PPP"
	}
	return "ok"
}

func matrixCommand() *cobra.Command {
	var path, backend, logs string
	var jobs int
	cmd := &cobra.Command{Use: "matrix", Short: "install, switch, online and notification on every modem, by every path, with every back-end", Args: cobra.NoArgs}
	name := modemFlag(cmd, "this modem alone")
	cmd.Flags().StringVar(&path, "path", "", "this way to the card alone: ccho, csim")
	cmd.Flags().StringVar(&backend, "backend", "", "this back-end alone: networkmanager, modemmanager, none")
	cmd.Flags().IntVar(&jobs, "jobs", max(2, runtime.NumCPU()), "cells at a time")
	cmd.Flags().StringVar(&logs, "logs", "", "file for what lpad, the hook and the modem have logged")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if missing := modemtest.Missing(); missing != "" {
			return errors.New(missing)
		}
		if *name != "" {
			if _, err := modemNamed(*name); err != nil {
				return err
			}
		}
		all := cells(*name, path, lab.Backend(backend))
		if len(all) == 0 {
			return errors.New("no such cell: the path is ccho or csim, where the modem has it, the back-end networkmanager, modemmanager or none")
		}
		results, err := runMatrix(cmd.Context(), "", all, jobs, cmd.OutOrStdout())
		if err != nil {
			return err
		}
		if logs != "" {
			return errors.Join(writeLogs(logs, all, results), lost(results))
		}
		return lost(results)
	}
	return cmd
}

// errLost of a matrix: the table has been printed.
func lost(results []outcome) error {
	if slices.ContainsFunc(results, func(o outcome) bool { return o.err != nil }) {
		return errLost
	}
	return nil
}

func writeLogs(file string, all []cell, results []outcome) error {
	var b strings.Builder
	for i, o := range results {
		fmt.Fprintf(&b, "==== %s: %s\n%s\n", all[i], o.verdict(), o.log)
	}
	const everybody = 0o644
	return os.WriteFile(file, []byte(b.String()), everybody)
}

// runMatrix runs cells, some at a time, and prints the table as they end, in
// their order.
func runMatrix(ctx context.Context, programs string, all []cell, jobs int, w io.Writer) ([]outcome, error) {
	p, err := lab.NewPKI()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	fmt.Fprintf(w, "%-16s %-4s %-14s %-12s %7s %7s %7s  %s\n", "MODEM", "PATH", "BACK-END", "RUNG", "ONLINE", "MODEM'S", "REST", "VERDICT")
	results := make([]outcome, len(all))
	var mu sync.Mutex
	printed, done := 0, make([]bool, len(all))
	ended := func(i int, o outcome) {
		mu.Lock()
		defer mu.Unlock()
		results[i], done[i] = o, true
		for ; printed < len(all) && done[printed]; printed++ {
			printCell(w, all[printed], results[printed])
		}
	}
	turn := make(chan struct{}, jobs)
	var wg sync.WaitGroup
	for i, c := range all {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			ended(i, runCell(ctx, p, programs, c))
		})
	}
	wg.Wait()
	var good, bearer, failed int
	for _, o := range results {
		switch {
		case o.err != nil:
			failed++
		case o.bearer:
			bearer++
		default:
			good++
		}
	}
	fmt.Fprintf(w, "Times are seconds from EnableProfile to data; MODEM'S are delays that the simulated modem was told to have; the rest is the card's, the managers' and lpad's.\n")
	if bearer > 0 {
		fmt.Fprintf(w, "Ends at the bearer: ModemManager 1.20 offers PPP on a tty for these modems, and NetworkManager's pppd needs PPP in the kernel and at the modem's "+
			"other end, which are not here.\nSeen is that the switch goes as far as that: the new ICCID in ModemManager, registered, the bearer dialled with the new APN and never with the old.\n")
	}
	fmt.Fprintf(w, "matrix: %d cells, %d ok, %d end at the bearer, %d failed in %.0f s\n", len(all), good, bearer, failed, time.Since(begin).Seconds())
	return results, ctx.Err()
}

func printCell(w io.Writer, c cell, o outcome) {
	seconds := func(d time.Duration) string {
		if d <= 0 {
			return "-"
		}
		return fmt.Sprintf("%.1f", d.Seconds())
	}
	rung := o.rung
	if rung == "" {
		rung = "-"
	}
	fmt.Fprintf(w, "%-16s %-4s %-14s %-12s %7s %7s %7s  %s\n", c.modem.Name, c.path, c.backend, rung, seconds(o.online), seconds(o.own), seconds(o.online-o.own), o.verdict())
}

// runCell does the main job on one modem.
func runCell(ctx context.Context, p *pki.PKI, programs string, c cell) (o outcome) {
	ctx, cancel := context.WithTimeout(ctx, cellLimit)
	defer cancel()
	o.bearer = c.backend.EndsAtBearer(c.modem)
	w, err := lab.New(lab.Options{PKI: p, Timing: demoTiming})
	if err != nil {
		o.err = err
		return o
	}
	defer w.Close()
	table, remove, err := oemTable(c.modem)
	if err != nil {
		o.err = err
		return o
	}
	defer func() { o.err = errors.Join(o.err, remove()) }()
	d, err := w.StartDevice(ctx, lab.DeviceOptions{
		Programs: programs, Backend: c.backend, Config: fmt.Sprintf("card: {apdu_path: %s}\n", c.path) + table,
		Modem: func(m *modemtest.Config) { m.Dialect, m.Delays = c.modem, c.modem.Delays },
	})
	if err != nil {
		o.err = fmt.Errorf("start the device: %w", err)
		return o
	}
	defer func() {
		o.log = fmt.Sprintf("lpad:\n%s\nhook:\n%s\nmodem:\n%s", d.Log(), d.HookLog(), d.Stack.Modem.Log())
		o.err = errors.Join(o.err, d.Close())
	}()
	if o.bearer {
		o.err = toBearer(ctx, w, d, c, &o)
	} else {
		o.err = toNotification(ctx, w, d, c, &o)
	}
	return o
}

// toNotification is the whole job, and what must have been seen of it.
func toNotification(ctx context.Context, w *lab.World, d *lab.Device, c cell, o *outcome) error {
	res, err := d.Lpactl(ctx, nil, "install", w.ActivationCode(), "--enable", "--yes")
	if err != nil {
		return err
	}
	if res.Exit != 0 {
		return fmt.Errorf("lpactl ended with %d: %s", res.Exit, res.Stderr)
	}
	j, err := lastJob(ctx, d)
	if err != nil {
		return err
	}
	o.rung = j.Rung
	online := slices.IndexFunc(j.Timeline, func(m api.Mark) bool { return m.State == "committing" })
	if online < 0 {
		return fmt.Errorf("the job was never proven: %v", j.Timeline)
	}
	if err := o.measure(d, j.Timeline[online].At); err != nil {
		return err
	}
	operator := lab.NewOperator
	n, err := w.SMDP.WaitNotification(ctx, func(n smdp.Notification) bool {
		return n.Event == rsp.EventEnable && n.ICCID.String() == operator.ICCID
	})
	if err != nil {
		return fmt.Errorf("the enable notification: %w", err)
	}
	if n.Peer != operator.Address.Addr() || !n.Verified {
		return fmt.Errorf("the enable notification came from %s, not from %s: verified %v %s", n.Peer, operator.Address.Addr(), n.Verified, n.Problem)
	}
	return errors.Join(checkSwitch(d), checkSIM(ctx, w, d, c), checkHook(d, c))
}

// toBearer is the job as far as it goes without PPP.
func toBearer(ctx context.Context, w *lab.World, d *lab.Device, c cell, o *outcome) error {
	res, err := d.Lpactl(ctx, nil, "install", w.ActivationCode(), "--yes")
	if err != nil {
		return err
	}
	if res.Exit != 0 {
		return fmt.Errorf("lpactl install ended with %d: %s", res.Exit, res.Stderr)
	}
	client := d.Client()
	defer client.Close()
	operator := lab.NewOperator
	mark := d.Stack.Modem.Log().Len()
	if _, err := client.Enable(ctx, operator.ICCID, api.EnableRequest{}); err != nil {
		return err
	}
	log := d.Stack.Modem.Log()
	dialled, err := log.WaitFor(ctx, mark, fmt.Sprintf("context 1 active: APN %q", operator.APN))
	if err != nil {
		return fmt.Errorf("the new bearer: %w", err)
	}
	if err := o.measure(d, log.Entries()[dialled].Time); err != nil {
		return err
	}
	if err := log.InOrder(mark, "SIM read: ICCID "+operator.ICCID, "registration 1", "> ATD*99***1#"); err != nil {
		return fmt.Errorf("ModemManager has not dialled: %w", err)
	}
	j, err := lastJob(ctx, d)
	if err != nil {
		return err
	}
	o.rung = j.Rung
	return errors.Join(checkSwitch(d), checkSIM(ctx, w, d, c))
}

// lastJob is the newest job of the daemon.
func lastJob(ctx context.Context, d *lab.Device) (api.Job, error) {
	c := d.Client()
	defer c.Close()
	jobs, err := c.Jobs(ctx)
	if err != nil {
		return api.Job{}, err
	}
	if len(jobs.Jobs) == 0 {
		return api.Job{}, errors.New("lpad knows of no job")
	}
	return slices.MaxFunc(jobs.Jobs, func(a, b api.Job) int { return a.Created.Compare(b.Created) }), nil
}

// measure takes the times from EnableProfile on the wire to an end.
func (o *outcome) measure(d *lab.Device, end time.Time) error {
	all := d.Stack.Modem.Log().Entries()
	first := slices.IndexFunc(all, isEnable)
	if first < 0 {
		return errors.New("no EnableProfile in the log of the modem")
	}
	o.online = end.Sub(all[first].Time)
	o.own = d.Stack.Modem.DelayBetween(all[first].Time, end)
	return nil
}

var (
	simRead = regexp.MustCompile(`^SIM read: ICCID \d+ IMSI (\d+)`)
	// onAir are the lines of the modem's log that tell of an access point that the network was asked for.
	onAir = regexp.MustCompile(`^(?:attach of (\d+)(?: refused)?: |attach of (\d+), |context \d+ active: |context \d+, )APN "([^"]*)"`)
)

// checkSwitch reads off the modem's log that the network saw the new profile
// with its own access point and no other.
func checkSwitch(d *lab.Device) error {
	all := d.Stack.Modem.Log().Entries()
	first := slices.IndexFunc(all, isEnable)
	imsi, active := "", false
	for _, e := range all[max(first, 0):] {
		if e.Kind != modemtest.Happened {
			continue
		}
		if m := simRead.FindStringSubmatch(e.Text); m != nil {
			imsi = m[1]
		}
		m := onAir.FindStringSubmatch(e.Text)
		if m == nil {
			continue
		}
		who := m[1] + m[2]
		if who == "" {
			who = imsi
		}
		if who != lab.NewOperator.IMSI || m[3] != lab.NewOperator.APN {
			return fmt.Errorf("with the SIM %s the network was asked: %s", imsi, e)
		}
		active = active || strings.HasPrefix(e.Text, "context") && strings.Contains(e.Text, "active")
	}
	if !active {
		return errors.New("no context came up")
	}
	return nil
}

// checkSIM looks at what card, modem and ModemManager show in the end.
func checkSIM(ctx context.Context, w *lab.World, d *lab.Device, c cell) error {
	want := lab.NewOperator.ICCID
	if iccid, ok := w.Card.EnabledICCID(); !ok || iccid.String() != want {
		return fmt.Errorf("the card has %s enabled", iccid)
	}
	if got := d.Stack.Modem.State().SIM.ICCID; got != want {
		return fmt.Errorf("the modem has read %s", got)
	}
	if c.backend == lab.Neither || slices.Contains(c.modem.NoCRSM, efICCID) { // ModemManager 1.20 cannot read it there
		return nil
	}
	if _, err := d.Stack.WaitMM(ctx, want); err != nil {
		return err
	}
	return nil
}

// efICCID is the file of the ICCID.
const efICCID = 0x2FE2

// checkHook looks at how the hook was called last.
func checkHook(d *lab.Device, c cell) error {
	if c.backend == lab.NetworkManager {
		return nil
	}
	method := "unknown"
	switch {
	case c.backend == lab.Neither:
	case c.modem.Name == modemtest.UBlox.Name:
		method = "static"
	default:
		method = "ppp"
	}
	calls := d.HookLog()
	for _, want := range []string{"LPAD_EVENT=up ", "LPAD_METHOD=" + method + " ", "LPAD_APN=" + lab.NewOperator.APN + " ", "LPAD_ICCID=" + lab.NewOperator.ICCID + " ", "LPAD_BACKEND=" + string(c.backend) + " "} {
		found := false
		for line := range strings.Lines(calls) {
			found = found || strings.Contains(line, "LPAD_ICCID="+lab.NewOperator.ICCID) && strings.Contains(line, want)
		}
		if !found {
			return fmt.Errorf("the hook was not told %q: %s", want, calls)
		}
	}
	return nil
}

// carrierCure is what the maker of a device with an EC20 that keeps the old
// operator's carrier configuration writes into a table of his own (docs/modems.md).
const carrierCure = `version: 1
modems:
- name: our-ec20
  model: EC20*
  after_switch: ['AT+QMBNCFG="Select","ROW_Generic_3GPP"', 'AT+CFUN=1,1']
  source: https://github.com/MengMengCode/VoCat/pull/110
`

// oemTable makes a folder with the cure for a modem that needs one, and lpad's
// configuration of it.
func oemTable(d modemtest.Dialect) (config string, remove func() error, err error) {
	if !d.CarrierConfig {
		return "", func() error { return nil }, nil
	}
	dir, err := os.MkdirTemp("", "lpad-oem-")
	if err != nil {
		return "", nil, err
	}
	remove = func() error { return os.RemoveAll(dir) }
	const everybody = 0o644
	if err := os.WriteFile(filepath.Join(dir, "ec20.yaml"), []byte(carrierCure), everybody); err != nil {
		return "", nil, errors.Join(err, remove())
	}
	return fmt.Sprintf("modem: {quirks_dir: %s}\n", dir), remove, nil
}
