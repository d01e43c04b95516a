package network

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"lpad/modem"
)

// How a link that has dropped is brought up again, where nobody but lpad does.
const (
	keepInterval    = 5 * time.Second  // between looks
	keepIntervalMax = 2 * time.Minute  // while it cannot be had
	keepLimit       = 90 * time.Second // one try
	keepSoon        = time.Second      // after the card was used: it may be used again at once
)

// keeper keeps the link of the profile that was committed last: it is what
// autoconnect is in NetworkManager. Its file outlives lpad. It is gone while a
// switch is under way, so that a lpad that was killed in the middle brings
// nothing up before it has looked at its journal. A nil keeper keeps nothing.
type keeper struct {
	file    string // "": in this process only
	log     *slog.Logger
	isUp    func(context.Context, access) (up, possible bool) // possible: the modem shows the profile
	connect func(context.Context, access) error

	mu     sync.Mutex
	loaded bool
	now    access // guarded by mu; zero: nothing to keep
	lent   access // guarded by mu; what went down for the card, zero: nothing; comes up first
	paused bool
	wake   chan struct{}      // has room for one
	cancel context.CancelFunc // guarded by mu; of the try that is under way, nil: none
	done   chan struct{}
}

// kept is the file: it has a password, and mode 0600.
type kept struct {
	ICCID   string
	Context savedContext
}

// keep makes this the link that is kept, from now on.
func (k *keeper) keep(a access) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now, k.lent, k.loaded, k.paused = a, access{}, true, false
	if k.file == "" {
		return
	}
	b, err := json.Marshal(kept{a.iccid, save(modem.Context{APN: a.apn})})
	if err == nil {
		err = replace(k.file, b)
	}
	if err != nil {
		k.log.Warn("the link will not come up by itself after a restart", "err", err)
	}
}

// replace writes a file as a whole. It is on the disk then, as the modem is about
// to be reset, and the whole device may be.
func replace(file string, b []byte) error {
	const ownerOnly = 0o600
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, ownerOnly)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// drop ends keeping: a switch has begun. It waits for a try that is under way.
func (k *keeper) drop() {
	if k == nil {
		return
	}
	k.pause()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now, k.lent, k.loaded = access{}, access{}, true
	if k.file == "" {
		return
	}
	if err := os.Remove(k.file); err != nil && !errors.Is(err, os.ErrNotExist) {
		k.log.Warn("the link of before is still kept", "err", err)
	}
}

// forget ends keeping the link of a profile that is deleted.
func (k *keeper) forget(iccid string) {
	if k != nil && k.what().iccid == iccid {
		k.drop()
	}
}

// pause keeps it from bringing anything up until resume.
func (k *keeper) pause() {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.paused = true
	cancel, done := k.cancel, k.done
	k.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

func (k *keeper) resume() { k.lend(access{}) }

// lend ends a pause, and has what went down for it brought up soon.
func (k *keeper) lend(a access) {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.lent, k.paused = a, false
	k.mu.Unlock()
	if a.iccid != "" {
		select {
		case k.wake <- struct{}{}:
		default: // it is awake already
		}
	}
}

// what is kept, read from the file at the first time.
func (k *keeper) what() access {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.loaded && k.file != "" {
		var f kept
		if b, err := os.ReadFile(k.file); err == nil && json.Unmarshal(b, &f) == nil {
			k.now = access{f.ICCID, f.Context.apn()}
		}
	}
	k.loaded = true
	if k.lent.iccid != "" {
		return k.lent
	}
	return k.now
}

// run looks after the link until ctx ends.
func (k *keeper) run(ctx context.Context) {
	pause := keepInterval
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		case <-k.wake:
			pause = keepSoon
			continue
		}
		if k.look(ctx) {
			pause = keepInterval
		} else {
			pause = min(2*pause, keepIntervalMax)
		}
	}
}

// look brings the link up if it is down, and reports whether all is well.
func (k *keeper) look(ctx context.Context) bool {
	a := k.what()
	if a.iccid == "" {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, keepLimit)
	defer cancel()
	k.mu.Lock()
	if k.paused {
		k.mu.Unlock()
		return true
	}
	done := make(chan struct{})
	k.cancel, k.done = cancel, done
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		k.cancel, k.done = nil, nil
		k.mu.Unlock()
		close(done)
	}()
	up, possible := k.isUp(ctx, a)
	if up {
		k.returned(a)
	}
	if up || !possible {
		return true
	}
	k.log.Info("the link is down and is brought up again")
	err := k.connect(ctx, a)
	if err != nil && ctx.Err() == nil {
		k.log.Warn("the link is not up again", "err", err)
	}
	if err == nil {
		k.returned(a)
	}
	return err == nil
}

// returned notes that what was lent is back.
func (k *keeper) returned(a access) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lent.iccid == a.iccid {
		k.lent = access{}
	}
}
