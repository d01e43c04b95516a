package lab_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// longGone is how long a manager is away that does not come back at once.
const longGone = 3 * time.Second

// disturbance is what befalls a device, once, at one step of a switch.
type disturbance struct {
	name string
	do   func(context.Context, *lab.Device) error
}

var (
	modemManagerCrashes = disturbance{"ModemManager crashes", func(ctx context.Context, d *lab.Device) error {
		return d.Stack.CrashManager(modemtest.ModemManager)
	}}
	modemManagerAway = disturbance{"ModemManager is away", func(ctx context.Context, d *lab.Device) error {
		return d.Stack.RestartManager(ctx, modemtest.ModemManager, longGone)
	}}
	networkManagerCrashes = disturbance{"NetworkManager crashes", func(ctx context.Context, d *lab.Device) error {
		return d.Stack.CrashManager(modemtest.NetworkManager)
	}}
	networkManagerAway = disturbance{"NetworkManager is away", func(ctx context.Context, d *lab.Device) error {
		return d.Stack.RestartManager(ctx, modemtest.NetworkManager, longGone)
	}}
	replugged = disturbance{"replugged", func(ctx context.Context, d *lab.Device) error {
		d.Stack.Modem.Reboot()
		return nil
	}}
)

// moment is a step of a switch: a state that the job has just come to, or a call
// that lpad has just sent to a manager.
type moment struct {
	state string
	call  string // "ModemManager1.InhibitDevice", as often as skip+1
	skip  int
}

func (m moment) String() string {
	if m.state != "" {
		return m.state
	}
	return fmt.Sprintf("%s #%d", m.call, m.skip+1)
}

// strike is a disturbance at a moment.
type strike struct {
	disturbance
	at moment
}

// switchStates are those of a switch from the order to its end.
var switchStates = []string{"snapshotting", "gating", "enabling", "applying", "rereading", "verifying", "committing", "confirming"}

// TestManagersDie kills ModemManager and NetworkManager at the steps of a
// switch. The device switches to and fro, with one death each time, and must be
// on line with the new profile in the end, each time.
func TestManagersDie(t *testing.T) {
	t.Parallel()
	kinds := []disturbance{modemManagerCrashes, modemManagerAway, networkManagerCrashes, networkManagerAway}
	var strikes []strike
	for i, state := range switchStates {
		for k, kind := range kinds {
			if full || k == i%len(kinds) && i < 2*len(kinds) && i%3 != 0 {
				strikes = append(strikes, strike{kind, moment{state: state}})
			}
		}
	}
	// One that dies with a connection up leaves its address on the interface.
	calls := []strike{{networkManagerCrashes, moment{call: "ModemManager1.InhibitDevice"}}}
	if full {
		for _, m := range callsOfASwitch(t) {
			for k, kind := range kinds {
				if k%2 == 0 { // it comes back at once: what was asked is lost
					calls = append(calls, strike{kind, m})
				}
			}
		}
	}
	strikes = append(strikes, calls...)
	strikeAll(t, strikes, lab.DeviceOptions{})
}

// TestReplugged takes the modem out of its socket at the steps of a switch, and
// plugs it in again: its ports come back under other names.
func TestReplugged(t *testing.T) {
	t.Parallel()
	var strikes []strike
	for i, state := range switchStates {
		if full || i%4 == 2 {
			strikes = append(strikes, strike{replugged, moment{state: state}})
		}
	}
	if full {
		for _, m := range callsOfASwitch(t) {
			strikes = append(strikes, strike{replugged, m})
		}
	}
	strikeAll(t, strikes, lab.DeviceOptions{Modem: func(c *modemtest.Config) {
		c.Dialect = modemtest.UBlox
		c.Dialect.ResetHangsUp, c.Dialect.Renames = true, true
		c.Delays.Boot = 500 * time.Millisecond
	}})
}

// perDevice is how many switches one device makes: what goes wrong once must not
// be the end of all that come after.
const perDevice = 8

// strikeAll tries all strikes, on several devices beside each other.
func strikeAll(t *testing.T, strikes []strike, o lab.DeviceOptions) {
	t.Helper()
	var table strikeTable
	t.Cleanup(func() { t.Log(table.String()) })
	each := perDevice
	if !full {
		each = (len(strikes) + 1) / 2
	}
	for chunk := range slices.Chunk(strikes, max(each, 1)) {
		t.Run("from "+chunk[0].name+" at "+chunk[0].at.String(), func(t *testing.T) {
			w := newWorld(t, lab.Options{})
			ctx, d := startDevice(t, w, o)
			lpactl(ctx, t, d.Daemon, 0, "install", w.ActivationCode(), "--yes")
			traffic := watchTraffic(t, d)
			mark := d.Stack.Modem.Log().Len()
			for i, s := range chunk {
				target, other := lab.NewOperator, lab.OldOperator
				if i%2 == 1 {
					target, other = other, target
				}
				row := strikeOnce(ctx, t, w, d, s, target, other)
				table.add(row)
				if t.Failed() {
					t.Fatalf("%s at %s", s.name, s.at)
				}
			}
			t.Logf("seen: %+v", checkAir(t, d.Stack.Modem.Log().Entries(), mark, traffic.Packets()))
		})
	}
}

// strikeOnce switches to the target, disturbed, and holds what must be true
// after it.
func strikeOnce(ctx context.Context, t *testing.T, w *lab.World, d *lab.Device, s strike, target, other lab.Subscriber) strikeRow {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := d.Client()
	defer c.Close()
	heard := len(w.SMDP.Notifications())
	begin := time.Now()
	struck := make(chan error, 1)
	var once sync.Once
	hit := func() { once.Do(func() { go func() { struck <- s.do(ctx, d) }() }) }
	stop, err := watchMoment(ctx, d, s.at, hit)
	if err != nil {
		t.Fatal(err)
	}
	j, err := followSwitch(ctx, c, target, func(state string) {
		if state == s.at.state {
			hit()
		}
	})
	if err := errors.Join(err, stop()); err != nil {
		t.Fatalf("%s at %s: %v", s.name, s.at, err)
	}
	took := time.Since(begin)
	row := strikeRow{strike: s, state: j.State, took: took}
	once.Do(func() { row.missed = true; struck <- nil })
	if err := <-struck; err != nil {
		t.Errorf("%s at %s: %v", s.name, s.at, err)
	}
	if j.Problem != nil {
		row.code = j.Problem.Code
	}
	if j.State != "done" {
		t.Errorf("%s at %s: the job is %s: %+v", s.name, s.at, j.State, j.Problem)
		return row
	}

	if iccid, ok := w.Card.EnabledICCID(); !ok || iccid.String() != target.ICCID {
		t.Errorf("%s at %s: enabled on the card: %s", s.name, s.at, iccid)
	}
	own := "lpad-" + target.ICCID[len(target.ICCID)-6:]
	// What struck after the last step may still be on its way.
	eventually(ctx, t, s.name+" at "+s.at.String()+": "+own+" is up, alone", func() bool {
		m, err := d.Stack.MMModem(ctx) // a modem that is held is not shown
		if err != nil || m.ICCID != target.ICCID {
			return false
		}
		up, err := d.Stack.ActiveConnections(ctx)
		return err == nil && slices.Equal(up, []string{own})
	})
	row.online = time.Since(begin)
	for line := range strings.Lines(autoconnect(ctx, t, d)) {
		if name, yes := strings.CutSuffix(strings.TrimSpace(line), ":yes"); yes != (name == own) && yes {
			t.Errorf("%s at %s: autoconnect of %s", s.name, s.at, line)
		}
	}
	if !strings.Contains(autoconnect(ctx, t, d), own+":yes\n") {
		t.Errorf("%s at %s: %s does not come up by itself:\n%s", s.name, s.at, own, autoconnect(ctx, t, d))
	}
	eventually(ctx, t, s.name+" at "+s.at.String()+": the card's notifications are delivered", func() bool { return len(w.Card.Notifications()) == 0 })
	// One that is not taken off the card before the modem goes is delivered again.
	var got []string
	var seq []int64
	for _, n := range w.SMDP.Notifications()[heard:] {
		if !slices.Contains(seq, n.SeqNumber) {
			seq, got = append(seq, n.SeqNumber), append(got, n.EventName+" "+n.ICCID.String())
		}
	}
	want := []string{"disable " + other.ICCID, "enable " + target.ICCID}
	if !slices.Equal(got, want) {
		t.Errorf("%s at %s: the server heard %q, want %q", s.name, s.at, got, want)
	}
	eventually(ctx, t, s.name+" at "+s.at.String()+": no logical channel is open", func() bool {
		return len(w.Card.OpenChannels()) == 0 && len(d.Stack.Modem.State().Sessions) == 0
	})
	return row
}

// followSwitch orders a switch and follows it to its end.
func followSwitch(ctx context.Context, c *client.Client, target lab.Subscriber, seen func(state string)) (api.Job, error) {
	j, err := c.Enable(ctx, target.ICCID, api.EnableRequest{})
	if err != nil {
		return j, err
	}
	return c.Follow(ctx, j.ID, func(j api.Job) { seen(j.State) })
}

// watchMoment calls hit when lpad makes a certain call.
func watchMoment(ctx context.Context, d *lab.Device, at moment, hit func()) (stop func() error, err error) {
	if at.call == "" {
		return func() error { return nil }, nil
	}
	left := at.skip
	return watchLpad(ctx, d, func(name string) {
		if name != at.call {
			return
		}
		if left == 0 {
			hit()
		}
		left--
	})
}

// watchLpad tells the calls that lpad makes to the managers.
func watchLpad(ctx context.Context, d *lab.Device, fn func(name string)) (stop func() error, err error) {
	pid := uint32(d.PID())
	return d.Stack.WatchCalls(ctx, func(c modemtest.BusCall) {
		if c.PID == pid {
			fn(strings.TrimPrefix(c.Method, "org.freedesktop."))
		}
	})
}

// mostOfACall is how often one call is taken for a moment: those that ask again
// and again are all alike.
const mostOfACall = 3

// callsOfASwitch are the calls that lpad makes in a switch that nothing disturbs.
func callsOfASwitch(t *testing.T) []moment {
	t.Helper()
	var all []moment
	t.Run("calls", func(t *testing.T) {
		modemtest.RequireStack(t)
		w := newWorld(t, lab.Options{})
		devices <- struct{}{}
		defer func() { <-devices }()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		d, err := w.StartDevice(ctx, lab.DeviceOptions{Programs: programs})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		lpactl(ctx, t, d.Daemon, 0, "install", w.ActivationCode(), "--yes")
		var mu sync.Mutex
		count := map[string]int{}
		stop, err := watchLpad(ctx, d, func(name string) {
			mu.Lock()
			defer mu.Unlock()
			if count[name]++; count[name] <= mostOfACall {
				all = append(all, moment{call: name, skip: count[name] - 1})
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		lpactl(ctx, t, d.Daemon, 0, "enable", lab.NewOperator.ICCID)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if len(all) < len(switchStates) {
			t.Fatalf("lpad makes only the calls %v", all)
		}
		t.Logf("calls of a switch: %v", count)
	})
	return all
}

// strikeRow is how one switch went.
type strikeRow struct {
	strike
	state, code  string
	took, online time.Duration
	missed       bool // the moment did not come
}

// strikeTable collects the rows of devices beside each other.
type strikeTable struct {
	mu   sync.Mutex
	rows []strikeRow
}

func (s *strikeTable) add(r strikeRow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = append(s.rows, r)
}

// String is the table.
func (s *strikeTable) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d switches:\n", len(s.rows))
	for _, r := range s.rows {
		how := r.state + " " + r.code
		if r.missed {
			how += " (did not come to it)"
		}
		fmt.Fprintf(&b, "%-24s at %-40s job %6s on line %6s %s\n", r.name, r.at, seconds(r.took), seconds(r.online), how)
	}
	return b.String()
}
