package lab_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// TestWrongSIM has connections for both profiles in NetworkManager, which both
// come up by themselves. From the moment at which the job takes the network
// down, no profile may do anything with what belongs to the other: proved from
// the log of the modem and the log of the data link.
func TestWrongSIM(t *testing.T) {
	t.Parallel()
	type variant struct {
		follows  bool // the modem follows the card by itself, at once; else it needs the ladder
		newFirst bool // by the priority of the connections
		simID    bool // the connections name their SIM
		back     bool // the new network carries no data: the switch is taken back
		drops    bool // the network ends contexts, and others bring them up again
		sampled  bool // also without LPAD_FULL
	}
	var all []variant
	for bits := range 1 << 5 {
		on := func(bit int) bool { return bits>>bit&1 == 1 }
		v := variant{follows: on(0), newFirst: on(1), simID: on(2), back: on(3), drops: on(4)}
		v.sampled = slices.Contains([]variant{
			{follows: true, newFirst: true}, // what is worst for the way there
			{newFirst: true, back: true},    // and for the way back
			{simID: true, drops: true},
		}, v)
		all = append(all, v)
	}
	for _, v := range all {
		// Once all is as it was, NetworkManager may choose what its owner ranked first, without regard to the SIM.
		ownersChoice := v.back && v.newFirst && !v.simID
		if !v.sampled && !full || ownersChoice && v.drops {
			continue
		}
		name := fmt.Sprintf("%s, %s first, %s, %s, %s", pick(v.follows, "follows", "ladder"), pick(v.newFirst, "new", "old"), pick(v.simID, "sim-id", "no sim-id"),
			pick(v.back, "taken back", "proven"), pick(v.drops, "contexts drop", "contexts stay"))
		t.Run(name, func(t *testing.T) {
			o := lab.Options{}
			if v.follows {
				o.Card = func(c *euicc.Config) { c.Quirks.RefuseNoRefresh = true }
			}
			w := newWorld(t, o)
			ctx, d := startDevice(t, w, lab.DeviceOptions{Stack: withBoth(v.newFirst, v.simID), Config: "network: {dead_man: " + pick(v.back, "10s", "60s") + "}\n",
				Modem: func(c *modemtest.Config) { c.Subscriptions[1].NoData = v.back }})
			traffic := watchTraffic(t, d)
			log := d.Stack.Modem.Log()
			if v.drops {
				go dropContexts(ctx, d, log.Len(), 2, lab.NewOperator.Address.Addr())
				if v.back {
					go dropContexts(ctx, d, log.Len(), 2, lab.OldOperator.Address.Addr())
				}
			}
			lpactl(ctx, t, d.Daemon, pick(v.back, 40, 0), "install", w.ActivationCode(), "--enable", "--yes")

			was, is := lab.OldOperator, lab.NewOperator
			up, want := "lpad-000022", "altnetz:no\nlpad-000022:yes\nneunetz:no\n"
			if v.back {
				was, is = is, was
				up, want = "altnetz", "altnetz:yes\nneunetz:yes\n"
			}
			if err := d.Stack.WaitConnected(ctx, up); err != nil {
				t.Error(err)
			}
			notification(ctx, t, w, rsp.EventEnable, lab.NewOperator)
			notification(ctx, t, w, rsp.EventDisable, was)
			eventually(ctx, t, "the card's notifications are delivered", func() bool { return len(w.Card.Notifications()) == 0 })
			if v.drops { // once more when lpad is done: NetworkManager must choose the right one
				mark := log.Len()
				d.Stack.Modem.DropContexts()
				if _, err := log.WaitFor(ctx, mark, fmt.Sprintf("# context 1 active: APN %q address %s", is.APN, is.Address.Addr())); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(time.Second) // for whoever has something wrong in mind
			trace := log.Entries()
			enable := find(t, trace, 0, enableProfile(lab.NewOperator))
			gate := find(t, trace[:enable], last, "^# context 1 ends")
			seen := checkAir(t, trace, gate, traffic.Packets())
			if seen.attaches == 0 || seen.contexts == 0 || seen.orders == 0 || seen.packets[is.Address.Addr().String()] == 0 {
				t.Errorf("%+v was seen: this is not the case to be tested", seen)
			}
			if follows := log.Index(enable, "# REFRESH") >= 0; follows != v.follows {
				t.Errorf("the modem follows the card: %t, want %t", follows, v.follows)
			}
			if got := autoconnect(ctx, t, d); got != want {
				t.Errorf("connections and autoconnect:\n%swant\n%s", got, want)
			}
			if got, err := d.Stack.ActiveConnections(ctx); err != nil || !slices.Equal(got, []string{up}) {
				t.Errorf("connections %q are up, %v, want %s", got, err, up)
			}
			t.Logf("seen: %+v", seen)
		})
	}
}

// pick is one of two.
func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}
