package lab_test

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// full says that every case is to be tried, which takes minutes; CI does. Else a
// few are, chosen so that each kind is there.
var full = os.Getenv("LPAD_FULL") != ""

// What the modem's log says of the network, of its SIM, and of its orders.
var (
	airSIM      = regexp.MustCompile(`^SIM read: ICCID \d+ IMSI (\d+)`)
	airGone     = regexp.MustCompile(`^SIM powered down`)
	airAttach   = regexp.MustCompile(`^attach of (\d+)(?: refused: APN|, APN) "([^"]*)"`)
	airContext  = regexp.MustCompile(`^context (\d+)(?: active: APN|, APN) "([^"]*)"(?:, refused.*| address (\S+))?`)
	airResets   = regexp.MustCompile(`^modem resets`)
	airEnds     = regexp.MustCompile(`^context \d+ ends`)
	airDefine   = regexp.MustCompile(`^AT\+CGDCONT=(\d+),"[^"]*","([^"]*)"`)
	airActivate = regexp.MustCompile(`^(?:AT\+CGACT=1,(\d+)|ATD\*99(?:\*\*\*(\d+))?#)`)
)

// air is what went over the air, as the modem and the operator have seen it.
type air struct {
	attaches, contexts, orders int            // that were looked at
	unasked                    int            // attaches with the other one's APN, of a modem that nobody could tell better
	packets                    map[string]int // that a context carried, by whose address they had
}

// checkAir follows the log of the modem from its beginning, and the log of the
// data link, and finds everything from a line on that one profile does with what
// belongs to the other: an attach, an order to bring a context up, a context, or
// a packet.
//
// A modem that was unplugged attaches when it has power again, with what was
// written to it last, before any program finds it: nobody is to blame for that
// attach, only for what comes of it.
func checkAir(t *testing.T, trace []modemtest.Entry, from int, packets []modemtest.Packet) air {
	t.Helper()
	sum := air{packets: map[string]int{}}
	sim := lab.OldOperator // that the modem has read
	alone := false         // it was reset, and has no APN from anybody since
	apns := map[string]string{"1": lab.OldOperator.APN}
	type spell struct {
		begin time.Time
		up    netip.Addr // of the context that is active; zero: none is
	}
	spells := []spell{}
	// The empty access point, which lpad tries when no other does, is nobody's.
	wrong := func(i int, who lab.Subscriber, apn string) {
		if i >= from && apn != "" && !strings.EqualFold(who.APN, apn) {
			t.Errorf("wrong SIM: line %d, %s of %s with APN %q: %s", i, who.Operator, who.IMSI, apn, trace[i])
		}
	}
	for i, e := range trace {
		switch e.Kind {
		case modemtest.Sent:
			if m := airDefine.FindStringSubmatch(e.Text); m != nil {
				apns[m[1]], alone = m[2], false
			}
			if m := airActivate.FindStringSubmatch(e.Text); m != nil {
				wrong(i, sim, apns[cmp.Or(m[1], m[2], "1")])
				if i >= from {
					sum.orders++
				}
			}
		case modemtest.Happened:
			if m := airSIM.FindStringSubmatch(e.Text); m != nil {
				sim = subscriber(t, m[1])
			}
			if airResets.MatchString(e.Text) {
				alone = true
			}
			if m := airAttach.FindStringSubmatch(e.Text); m != nil {
				if who := subscriber(t, m[1]); !alone {
					wrong(i, who, m[2])
				} else if !strings.EqualFold(who.APN, m[2]) {
					sum.unasked++
				}
				if i >= from {
					sum.attaches++
				}
			}
			if m := airContext.FindStringSubmatch(e.Text); m != nil {
				wrong(i, sim, m[2])
				if i >= from {
					sum.contexts++
				}
				if m[3] != "" {
					up := netip.MustParseAddr(m[3])
					spells = append(spells, spell{e.Time, up})
					if i >= from && up != sim.Address.Addr() {
						t.Errorf("wrong SIM: line %d, the address of another subscription than %s: %s", i, sim.IMSI, e)
					}
				}
			}
			if airEnds.MatchString(e.Text) || airGone.MatchString(e.Text) {
				spells = append(spells, spell{begin: e.Time})
			}
		}
	}
	for _, p := range packets {
		at, _ := slices.BinarySearchFunc(spells, p.Time, func(s spell, t time.Time) int { return s.begin.Compare(t) })
		if at == 0 || p.Time.Before(trace[from].Time) || !spells[at-1].up.IsValid() {
			continue // no context carries it: it ends in the modem
		}
		if p.From != spells[at-1].up {
			t.Errorf("wrong SIM: a packet of %s to %s at %s, while the context has the address %s", p.From, p.To, p.Time.Format("15:04:05.000000"), spells[at-1].up)
		}
		sum.packets[p.From.String()]++
	}
	return sum
}

func subscriber(t *testing.T, imsi string) lab.Subscriber {
	t.Helper()
	for _, s := range []lab.Subscriber{lab.OldOperator, lab.NewOperator} {
		if s.IMSI == imsi {
			return s
		}
	}
	t.Fatalf("a SIM with the IMSI %s is not of this lab", imsi)
	return lab.Subscriber{}
}

// watchTraffic records the data link until the test ends.
func watchTraffic(t *testing.T, d *lab.Device) *modemtest.Traffic {
	t.Helper()
	traffic, err := d.Stack.WatchTraffic()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := traffic.Close(); err != nil {
			t.Error(err)
		}
	})
	return traffic
}

// neighbour is a connection for the new profile that somebody has made by hand.
const neighbour = "neunetz"

// withBoth has connections for both profiles, that come up by themselves.
func withBoth(newFirst, simID bool) func(*modemtest.StackConfig) {
	return func(c *modemtest.StackConfig) {
		old := modemtest.Connection{ID: "altnetz", APN: lab.OldOperator.APN, Priority: 10}
		other := modemtest.Connection{ID: neighbour, APN: lab.NewOperator.APN, Priority: 5}
		if newFirst {
			old.Priority, other.Priority = other.Priority, old.Priority
		}
		if simID {
			old.SIMID, other.SIMID = lab.OldOperator.ICCID, lab.NewOperator.ICCID
		}
		c.Connections = []modemtest.Connection{old, other}
	}
}

// dropContexts lets the network end every context as soon as it is up, n times,
// so that all who bring contexts up again by themselves do.
func dropContexts(ctx context.Context, d *lab.Device, from, n int, address netip.Addr) {
	log := d.Stack.Modem.Log()
	for range n {
		at, err := log.WaitFor(ctx, from, fmt.Sprintf("# context 1 active: APN %q address %s", apnOf(address), address))
		if err != nil {
			return // the test is over
		}
		time.Sleep(50 * time.Millisecond) // who asked for it has heard of it
		d.Stack.Modem.DropContexts()
		from = at + 1
	}
}

func apnOf(address netip.Addr) string {
	if address == lab.NewOperator.Address.Addr() {
		return lab.NewOperator.APN
	}
	return lab.OldOperator.APN
}
