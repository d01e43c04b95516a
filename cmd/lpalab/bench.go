package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/rsp/rsptest/euicc"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// benchTiming is the card of the measurements: 10 ms for each APDU and 87 µs
// for each byte, as a removable eUICC in a slow reader has it.
var benchTiming = euicc.Timing{PerAPDU: 10 * time.Millisecond, PerByte: 87 * time.Microsecond, Clock: euicc.RealTime{}}

// benchSize is the profile of the measurements, in bytes: that of the generic
// test profiles of GSMA TS.48.
const benchSize = 11_768

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "figures with their bounds", Args: cobra.NoArgs}
	name := modemFlag(cmd, "the figures of this modem alone")
	load := cmd.Flags().Bool("load", false, "the figures of the socket under load alone")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var f figures
		if *load {
			return errors.Join(f.load(cmd.Context()), f.err())
		}
		dialects := modemtest.Dialects()
		if *name != "" {
			d, err := modemNamed(*name)
			if err != nil {
				return err
			}
			dialects = []modemtest.Dialect{d}
		} else if err := f.device(cmd.Context()); err != nil {
			return err
		}
		for _, d := range dialects {
			if err := errors.Join(f.switchOverhead(cmd.Context(), d), f.blockSize(cmd.Context(), d)); err != nil {
				return fmt.Errorf("modem %s: %w", d.Name, err)
			}
		}
		return f.err()
	}
	return cmd
}

// device measures what does not depend on the modem.
func (f *figures) device(ctx context.Context) error {
	dir, err := lab.FindPrograms("")
	if err != nil {
		return err
	}
	if err := errors.Join(f.sizes(dir), f.resolve()); err != nil {
		return err
	}
	for _, b := range []struct {
		block int
		bound float64
	}{{255, 90}, {120, 146}} {
		if err := f.download(ctx, b.block, b.bound); err != nil {
			return fmt.Errorf("download with block %d: %w", b.block, err)
		}
	}
	if err := f.stateWritten(ctx, dir); err != nil {
		return fmt.Errorf("what an install and switch writes: %w", err)
	}
	if err := f.load(ctx); err != nil {
		return fmt.Errorf("the socket under load: %w", err)
	}
	return nil
}

// download measures one download by a warm daemon over AT+CGLA.
func (f *figures) download(ctx context.Context, block int, bound float64) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w, err := lab.New(lab.Options{Timing: benchTiming, ProfileSize: benchSize})
	if err != nil {
		return err
	}
	defer w.Close()
	m, err := w.StartModem(ctx, "", fmt.Sprintf("card: {block_size: %d}\nlog: {level: info}\n", block))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	time.Sleep(time.Second) // idle
	rss, err := memory(m.PID(), "VmRSS")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(m.PID()), "clear_refs"), []byte("5"), 0); err != nil {
		return err
	}
	connections := w.SMDP.Accepted()
	w.Card.ResetStats()
	res, err := m.Lpactl(ctx, nil, "install", w.ActivationCode(), "--yes", "--json")
	if err != nil || res.Exit != 0 {
		return errors.Join(err, fmt.Errorf("lpactl ended with %d: %s", res.Exit, res.Stderr))
	}
	stats := w.Card.Stats()
	peak, err := memory(m.PID(), "VmHWM")
	if err != nil {
		return err
	}
	c := m.Client()
	defer c.Close()
	jobs, err := c.Jobs(ctx)
	if err != nil {
		return err
	}
	timeline := jobs.Jobs[0].Timeline
	took := timeline[len(timeline)-1].At.Sub(timeline[0].At)
	name := fmt.Sprintf("-block-%d", block)
	f.add("apdus"+name, float64(stats.APDUs), "APDUs", bound)
	f.add("wall-over-card"+name, took.Seconds()/stats.CardTime.Seconds(), "ratio", 1.05)
	f.add("tls-connections"+name, float64(w.SMDP.Accepted()-connections), "connections", 1)
	f.add("rss-idle"+name, rss, "MB", 12)
	f.add("rss-peak"+name, peak, "MB", 20)
	return nil
}

// stateWritten measures what one install and switch writes to the state
// directory. The log is not in it: it goes into a pipe.
func (f *figures) stateWritten(ctx context.Context, programs string) (err error) {
	p, err := lab.NewPKI()
	if err != nil {
		return err
	}
	sc := *scenarioNamed("install-enable")
	if canMount() == "" {
		sc.disk = brokenDisk // a block device, whatever holds the machine's temporary files
	}
	r, err := newRig(ctx, p, programs, &sc, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.start(ctx); err != nil {
		return err
	}
	before := r.stateWritten()
	id, ordered := r.orderOnce(ctx, &sc)
	if err := r.converge(ctx, &sc, id, ordered); err != nil {
		return err
	}
	written := r.stateWritten() - before
	if !sc.reached(r) || written <= 0 {
		return fmt.Errorf("the card has %v, and %g KiB were written", iccidsOf(r), written)
	}
	f.add("state-written", written, "KiB", soakStateBound)
	return nil
}

// memory reads a figure of /proc/PID/status, in megabytes of 10^6 bytes.
func memory(pid int, field string) (float64, error) {
	file, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), field+":"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("no %s for process %d", field, pid)
}
