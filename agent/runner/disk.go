package runner

import (
	"errors"

	"lpad/agent/journal"
	"lpad/internal/fault"
)

// watchDisk makes visible whether the disk takes the journal. The loop calls it
// when it has done something, whatever was written then: what was not written
// is tried again by a timer, so that room on the disk is found also by a daemon
// that has nothing to do.
func (r *Runner) watchDisk() {
	r.mu.Lock()
	r.view.JournalSize, r.view.JournalWritten, r.view.JournalWrites = r.cfg.Journal.Size(), r.cfg.Journal.Written(), r.cfg.Journal.Writes()
	r.mu.Unlock()
	err := r.cfg.Journal.Broken()
	if was := r.View().JournalErr; err == nil && was == nil || err != nil && was != nil && err.Error() == was.Error() {
		return
	}
	r.change(func(v *View) { v.JournalErr = err })
	if err == nil {
		r.warn("journal", "")
		r.log.Info("the disk takes the journal again")
		return
	}
	f := fault.Of(err)
	r.warn("journal", f.Text+": "+f.Next)
	r.log.Error("the disk does not take the journal; waiting", "job", r.active, "code", f.Code, "err", err)
	r.mend.Reset(r.retries.journal)
}

// mendJournal tries to write what the disk did not take.
func (r *Runner) mendJournal() {
	if err := r.cfg.Journal.Mend(); err != nil {
		r.log.Debug("the disk still does not take the journal", "err", err)
		r.mend.Reset(r.retries.journal)
	}
}

// leftToNext is what is wrong with a stop. That the disk does not take the last
// step is not: it is as after a crash at that place, and the next start finds
// out what has happened.
func (r *Runner) leftToNext(err error) error {
	var w *journal.WriteError
	if errors.As(err, &w) {
		r.log.Warn("stopping without a record of the last step; the next start finds out", "err", err)
		return nil
	}
	return err
}
