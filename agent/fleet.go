package agent

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"lpad/agent/api"
	"lpad/agent/desired"
	"lpad/agent/job"
	"lpad/agent/rsp"
	"lpad/agent/runner"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// Bounds of the declarations (docs/fleet.md).
const (
	maxDeclarations = 256              // files of the folder
	fleetRetry      = 30 * time.Second // before something is asked again that cannot be answered just now
	modemRetry      = 10 * time.Minute // before a modem is asked again who it is: that may take its link down
)

// fleet holds the declarations, and how it stands with them.
type fleet struct {
	kick  chan struct{} // something may have changed
	stale atomic.Bool   // the files too

	mu    sync.Mutex
	list  []*desired.Declaration // replaced, never changed
	wrong []string               // about files that cannot be read
	lines map[*unit][]desired.Line

	// of the goroutine of converge alone
	waits map[string]*wait // by mark
	asked time.Time        // when the modem may be asked again who it is
}

// wait is a declaration whose job has failed for a while.
type wait struct {
	tries int // that the pause is for; those of before the files were read do not count
	until time.Time
}

// look has the declarations looked at.
func (f *fleet) look() {
	select {
	case f.kick <- struct{}{}:
	default: // they are about to be
	}
}

// reread has the files read again, and what has failed for a while tried again.
func (f *fleet) reread() {
	f.stale.Store(true)
	f.look()
}

// converge brings the cards to what is declared, by ordinary jobs, until ctx ends.
func (a *Agent) converge(ctx context.Context) {
	f := &a.fleet
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-f.kick:
		}
		if f.stale.Swap(false) {
			a.readDeclarations()
		}
		next := time.Duration(0)
		for _, u := range a.units {
			if pause := a.approach(ctx, u); pause > 0 && (next == 0 || pause < next) {
				next = pause
			}
		}
		timer.Stop()
		if next > 0 {
			timer.Reset(next)
		}
	}
}

// readDeclarations reads the folder. What is wrong with a file leaves that file
// out.
func (a *Agent) readDeclarations() {
	a.reloaded.mu.Lock()
	dir := a.reloaded.running.Fleet.Dir
	a.reloaded.mu.Unlock()
	var list []*desired.Declaration
	var wrong []string
	skip := func(name string, err error) {
		a.main.Warn("a declaration is left out", "file", name, "err", err)
		wrong = append(wrong, name+" is left out: "+err.Error())
	}
	root, names, err := openFolder(dir, ".yaml")
	if err != nil && dir != "" {
		skip(dir, err)
	}
	if len(names) > maxDeclarations {
		skip(dir, fmt.Errorf("more than %d files", maxDeclarations))
		names = names[:maxDeclarations]
	}
	for _, name := range names {
		d, err := readDeclaration(root, name)
		if err == nil {
			err = a.units[0].settings.CheckDocument(d.Parameters)
		}
		if err != nil {
			skip(name, err)
			continue
		}
		list = append(list, d)
	}
	if root != nil {
		root.Close()
	}
	f := &a.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list, f.wrong, f.lines, f.waits, f.asked = list, wrong, map[*unit][]desired.Line{}, map[string]*wait{}, time.Time{}
}

// readDeclaration reads one file and those that it names. What holds a secret must
// not be readable for everybody, wherever its folder is copied to.
func readDeclaration(root *os.Root, name string) (*desired.Declaration, error) {
	closed := func(mode fs.FileMode) error {
		if mode&0o007 != 0 {
			return fmt.Errorf("it holds a secret, and everybody may read it (mode %04o): chmod o-rwx", mode)
		}
		return nil
	}
	text, mode, err := readTrusted(root, name, desired.MaxFile)
	if err != nil {
		return nil, err
	}
	d, secret, err := desired.Parse(name, text, func(other string) ([]byte, error) {
		text, mode, err := readTrusted(root, other, desired.MaxFile) // which leads to no other folder
		if err == nil {
			err = closed(mode)
		}
		return text, err
	})
	if err == nil && secret {
		err = closed(mode)
	}
	return d, err
}

// approach does what is next for one card, and says after which time to look again;
// 0: when something happens.
func (a *Agent) approach(ctx context.Context, u *unit) time.Duration {
	f := &a.fleet
	for fresh := false; ; {
		v := u.runner.View()
		if len(f.list) == 0 || v.CardErr != nil || v.FactsAt.IsZero() || ctx.Err() != nil {
			return 0
		}
		for i := range v.Jobs {
			if j := &v.Jobs[i]; !j.Ended() && j.State != job.Scheduled { // who is at the device goes first
				return 0
			}
		}
		on := desired.Device{Card: u.cfg.Name, First: u == a.units[0], EID: v.Facts.EID, IMEI: u.device.heard().IMEI, Profiles: v.Facts.Profiles,
			Wait:        func(e *desired.Entry) time.Duration { return f.wait(u, e) },
			Quarantined: func(iccid rsp.ICCID) bool { _, is := v.Memory.Quarantined(iccid); return is }}
		ask := time.Duration(0)
		if on.IMEI == "" && u.device.identity != nil && f.names() {
			if ask = time.Until(f.asked); ask <= 0 {
				f.asked, ask = time.Now().Add(modemRetry), modemRetry
				(&backend{a, u, false}).lookWho(ctx)
				continue
			}
		}
		lines, step, pause := desired.Decide(f.list, &on, v.Memory.Declared)
		f.note(u, lines)
		if step == nil {
			if pause == 0 || ask > 0 && ask < pause {
				pause = ask
			}
			return pause
		}
		var err error
		if fresh { // the card may have changed since it was read, and an error of its must not cost a code
			err = u.take(ctx, step)
		} else if v, err = u.runner.Refresh(ctx, 0); err == nil {
			err = v.CardErr
		}
		if err != nil {
			u.log.Info("a declaration waits", "name", step.Declaration.Name, "err", err)
			return fleetRetry
		}
		fresh = !fresh
	}
}

// names reports whether a declaration names modems.
func (f *fleet) names() bool {
	for _, d := range f.list {
		if len(d.IMEIs) > 0 {
			return true
		}
	}
	return false
}

// wait is how long a declaration waits after jobs that failed.
func (f *fleet) wait(u *unit, e *desired.Entry) time.Duration {
	w := f.waits[e.Mark]
	if w == nil {
		w = &wait{tries: e.Tries}
		f.waits[e.Mark] = w
	}
	if w.tries != e.Tries {
		w.tries, w.until = e.Tries, time.Time{}
		if e.Tries > 0 {
			w.until = time.Now().Add(runner.Backoff{First: u.cfg.RSP.NotificationRetry, Most: u.cfg.RSP.NotificationRetryMax}.Pause(e.Tries))
		}
	}
	return time.Until(w.until)
}

// note keeps how it stands with a card, and logs what is new.
func (f *fleet) note(u *unit, lines []desired.Line) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range lines {
		if i >= len(f.lines[u]) || f.lines[u][i] != lines[i] {
			u.log.Info("declared profile", "standing", lines[i].String())
		}
	}
	f.lines[u] = lines
}

// take does one step. An error is one that may not be there the next time.
func (u *unit) take(ctx context.Context, s *desired.Step) (err error) {
	d := s.Declaration
	switch {
	case s.Order.Kind != "":
		code := d.ConfirmationCode
		if s.Order.Kind != job.Install {
			code = redact.Secret{}
		}
		if _, err = u.runner.Submit(ctx, s.Order, code); err == nil {
			return nil
		}
	case s.Parameters:
		err = u.runner.SetParameters(ctx, s.Entry.ICCID, d.Parameters, s.Order.By)
	}
	if err != nil {
		why := fault.Of(err)
		if desired.Transient(why.Code, why.Retry) {
			return err
		}
		s.Entry.Fail(why.Code, why.Text)
	}
	return u.runner.Declare(ctx, s.Entry)
}

// codeOf is the confirmation code of a declaration's job; see runner.Config.Code.
func (f *fleet) codeOf(o *job.Order) redact.Secret {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.list {
		if d.Tag() == o.Declared {
			return d.ConfirmationCode
		}
	}
	return redact.Secret{}
}

// report tells in a status how it stands with a card, and what is wrong.
func (f *fleet) report(u *unit, s *api.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &api.Declared{Total: len(f.lines[u]) + len(f.wrong), Failed: len(f.wrong), Lines: append([]string{}, f.wrong...)}
	for i := range f.lines[u] {
		l := &f.lines[u][i]
		text := l.String()
		switch out.Lines = append(out.Lines, text); l.State {
		case desired.Converged:
			out.Converged++
		case desired.Failed:
			out.Failed++
			s.Warnings = append(s.Warnings, "declared profile (fleet.dir): "+text)
		}
	}
	for _, text := range f.wrong {
		s.Warnings = append(s.Warnings, "declared profile (fleet.dir): "+text)
	}
	if out.Total > 0 {
		s.Declared = out
	}
}
