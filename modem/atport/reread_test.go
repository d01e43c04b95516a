package atport_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lpad/modem/atcard"
	"lpad/modem/atmodem"
	"lpad/modem/modemtest"
	"lpad/modem/quirks"
	"lpad/modem/serialport"
)

// A profile that is enabled with REFRESH ends well on every modem, whether it
// follows the card, leaves the USB for it, or does not care.
func TestRereadAfterREFRESH(t *testing.T) {
	for _, d := range modemtest.Dialects() {
		t.Run(d.Name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, d, func(c *modemtest.Config) { c.Delays.Refresh = 50 * time.Millisecond })
			p := open(t, b.config(nil))
			enable(t, p, iccidB, true)
			rung, err := p.Reread(t.Context(), iccidB)
			if err != nil {
				t.Fatalf("rung %q, %v\n%s", rung, err, logOf(b))
			}
			t.Log(rung)
			if s := b.State(); s.CFUN != 1 || s.SIM.State != modemtest.SIMReady || s.SIM.ICCID != iccidB {
				t.Errorf("after %s: CFUN %d, SIM %+v\n%s", rung, s.CFUN, s.SIM, logOf(b))
			}
			if strings.HasPrefix(d.Name, "u-blox") && rung != atmodem.RungRefresh {
				t.Errorf("rung %q although it says that it has followed", rung)
			}
		})
	}
}

// Whatever command the port hangs up at, before or after it is carried out, and
// whatever name it has then: the modem ends with the new profile, and on.
func TestHangupAtEveryCommand(t *testing.T) {
	for _, command := range []string{"+CCID", "+CFUN?", "+CFUN=0", "+CFUN=1", "+CPIN?", "+CIMI"} {
		for _, executed := range []bool{false, true} {
			name := command
			if executed {
				name += " carried out"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := newBench(t, modemtest.Generic)
				p := open(t, b.config(nil))
				enable(t, p, iccidB, false)
				struck := b.Log().Len()
				b.AddFault(modemtest.Fault{Command: command, Hangup: true, Executed: executed, Times: 1})
				done := make(chan struct{})
				go func() { // the port comes back under another name
					defer close(done)
					if _, err := b.Log().WaitFor(t.Context(), struck, "hangs up instead of"); err != nil {
						t.Error(err)
						return
					}
					time.Sleep(100 * time.Millisecond)
					if _, err := b.OpenPTY(filepath.Join(b.dir, "ttyUSB7")); err != nil {
						t.Error(err)
					}
				}()
				rung, err := p.Reread(t.Context(), iccidB)
				<-done
				if s := b.State(); err != nil || s.CFUN != 1 || s.SIM.ICCID != iccidB {
					t.Fatalf("rung %q, %v, CFUN %d, SIM %+v\n%s", rung, err, s.CFUN, s.SIM, logOf(b))
				}
				if p.Path() != filepath.Join(b.dir, "ttyUSB7") && !strings.HasSuffix(p.Path(), "ttyUSB0") {
					t.Errorf("the port is %s", p.Path())
				}
				if _, err := os.Stat(b.mark); err == nil {
					t.Error("the mark is still there")
				}
			})
		}
	}
}

// A port of another modem is not taken for ours.
func TestAnotherModemsPort(t *testing.T) {
	stranger := modemtest.Generic
	stranger.IMEI = "490154203237518"
	b, other := newBench(t, modemtest.Generic), newBench(t, stranger)
	var asked []string
	cfg := b.config(nil)
	cfg.Find = func() []string {
		asked = append(asked, "x")
		return []string{filepath.Join(other.dir, "ttyUSB1"), filepath.Join(b.dir, "ttyUSB9")}
	}
	p := open(t, cfg)
	if _, err := p.ICCID(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Port("ttyUSB1").Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 100 { // until the hang-up is noticed
		if _, err = p.ICCID(t.Context()); errors.Is(err, serialport.ErrMissing) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !errors.Is(err, serialport.ErrMissing) || len(asked) == 0 {
		t.Errorf("%v after %d searches", err, len(asked))
	}
	if _, err := b.OpenPTY(filepath.Join(b.dir, "ttyUSB9")); err != nil {
		t.Fatal(err)
	}
	if id, err := p.Identity(t.Context()); err != nil || id.IMEI != modemtest.Generic.IMEI || !strings.HasSuffix(p.Path(), "ttyUSB9") {
		t.Errorf("%v, %v at %s", id, err, p.Path())
	}
}

// What was configured wins over what was learnt, and that over the table.
func TestWhoseWord(t *testing.T) {
	d, _ := modemtest.DialectNamed("quectel-ec20")
	for _, tc := range []struct {
		name    string
		card    atcard.Options
		learned quirks.Learned
		path    string // of the commands that the modem gets first
		size    int
	}{
		{"the table", atcard.Options{}, quirks.Learned{}, "+CSIM", 120},
		{"what was learnt", atcard.Options{}, quirks.Learned{Path: quirks.CCHO, BlockSize: 60}, "+CCHO", 60},
		{"what was configured", atcard.Options{Path: atcard.CSIM, BlockSize: 32}, quirks.Learned{Path: quirks.CCHO, BlockSize: 60}, "+CSIM", 32},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, d)
			learned := quirks.OpenMemory("")
			cfg := b.config(learned)
			cfg.Card = tc.card
			p := open(t, cfg)
			id, err := p.Identity(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := learned.Put(id, func(l *quirks.Learned) { *l = tc.learned }); err != nil {
				t.Fatal(err)
			}
			if err := p.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := learned.Put(id, func(l *quirks.Learned) { *l = tc.learned }); err != nil {
				t.Fatal(err)
			}
			mark := b.Log().Len()
			ch, err := p.OpenChannel(t.Context(), aid)
			if err != nil {
				t.Fatal(err)
			}
			if p.BlockSize() != tc.size {
				t.Errorf("block size %d, want %d", p.BlockSize(), tc.size)
			}
			if err := ch.Close(t.Context()); err != nil {
				t.Error(err)
			}
			for _, e := range b.Log().Entries()[mark:] {
				if e.Kind == modemtest.Sent && (strings.HasPrefix(e.Text, "AT+CCHO") || strings.HasPrefix(e.Text, "AT+CSIM")) {
					if !strings.HasPrefix(e.Text, "AT"+tc.path) {
						t.Errorf("the modem got %.12s first, want %s", e.Text, tc.path)
					}
					break
				}
			}
			if _, was := p.Known(); was.Path != quirks.CSIM { // the only one that works on it
				t.Errorf("learnt %+v", was)
			}
			if _, was := p.Known(); tc.card.BlockSize != 0 && was.BlockSize != tc.learned.BlockSize {
				t.Errorf("a size that was ordered was taken for learnt: %+v", was)
			}
		})
	}
}

// What a modem needs after a switch is sent once for each switch.
func TestAfterSwitch(t *testing.T) {
	d, _ := modemtest.DialectNamed("quectel-ec20")
	oem := t.TempDir()
	if err := os.WriteFile(filepath.Join(oem, "mine.yaml"), []byte(`version: 1
modems:
- name: mine
  manufacturer: Quectel*
  model: EC20*
  example: [Quectel, EC20F, EC20CEHCLGR06A07M1G]
  after_switch: ['AT+QMBNCFG="Select","ROW_Generic_3GPP"', 'AT+CFUN=1,1']
  source: https://github.com/MengMengCode/VoCat/issues/110
`), 0o600); err != nil {
		t.Fatal(err)
	}
	table, err := quirks.Load(oem)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, d)
	cfg := b.config(nil)
	cfg.Quirks = table
	p := open(t, cfg)
	sent := func() int {
		n := 0
		for _, e := range b.Log().Entries() {
			if e.Kind == modemtest.Sent && strings.HasPrefix(e.Text, "AT+QMBNCFG") {
				n++
			}
		}
		return n
	}
	for i, target := range []string{iccidB, iccidA} {
		enable(t, p, target, false)
		for range 2 {
			if _, err := p.Reread(t.Context(), target); err != nil {
				t.Fatal(err)
			}
		}
		if n := sent(); n != i+1 {
			t.Errorf("sent %d times after %d switches", n, i+1)
		}
		if s := b.State(); s.SIM.ICCID != target || s.CFUN != 1 {
			t.Errorf("CFUN %d, SIM %+v", s.CFUN, s.SIM)
		}
	}
}

// The next opening asks only for what may have changed, and who the modem is shows
// in the log, shortened.
func TestRecognised(t *testing.T) {
	var log strings.Builder
	b := newBench(t, modemtest.Generic)
	cfg := b.config(nil)
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	p := open(t, cfg)
	for turn := range 2 {
		mark := b.Log().Len()
		if _, err := p.ICCID(t.Context()); err != nil {
			t.Fatal(err)
		}
		asked := false
		for _, e := range b.Log().Entries()[mark:] {
			asked = asked || e.Text == "AT+CGMM"
		}
		if asked != (turn == 0) {
			t.Errorf("turn %d: asked for the model: %v", turn, asked)
		}
		if err := p.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(log.String(), "SIM-1") || strings.Contains(log.String(), modemtest.Generic.IMEI) {
		t.Error(log.String())
	}
}

// A power cycle that is cut off leaves its mark too, and the next one ends it.
func TestPowerCycleCutOff(t *testing.T) {
	b := newBench(t, modemtest.Generic)
	p := open(t, b.config(nil))
	if _, err := p.ICCID(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.AddFault(modemtest.Fault{Command: "+CFUN=0", Hangup: true, Executed: true, Times: 1})
	if err := b.Port("ttyUSB0").Close(); err != nil { // or it would be found there
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := p.PowerCycle(ctx); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(b.mark); err != nil || b.State().CFUN != 0 {
		t.Fatalf("functionality %d, %v", b.State().CFUN, err)
	}
	if _, err := b.OpenPTY(filepath.Join(b.dir, "ttyUSB3")); err != nil {
		t.Fatal(err)
	}
	if err := p.PowerCycle(t.Context()); err != nil || b.State().CFUN != 1 {
		t.Errorf("functionality %d, %v", b.State().CFUN, err)
	}
	if _, err := os.Stat(b.mark); err == nil {
		t.Error("the mark is still there")
	}
}
