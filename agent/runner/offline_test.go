package runner_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lpad/agent/api"
	"lpad/agent/job"
	"lpad/agent/packets"
	"lpad/agent/procedure"
	"lpad/agent/rsp/es9p"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/runner"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// courier is whoever carries packets in a world whose daemon has no network.
type courier struct {
	w   *world
	box *packets.Box
	dir string
}

// noServers is what a device without a network finds.
type noServers struct{}

func (noServers) OpenServer(address string, _ runner.Way) (procedure.Server, error) {
	return nil, &es9p.TransportError{Function: "any", Host: address, Err: syscall.ENETUNREACH}
}

// newCourier cuts a world's network off.
func newCourier(w *world) *courier {
	c := &courier{w: w, dir: filepath.Join(w.t.TempDir(), "packets")}
	w.change = func(cfg *runner.Config) {
		box := packets.Open(c.dir, packets.Options{})
		c.box = box
		cfg.Servers = noServers{}
		cfg.Offline = &runner.Offline{Box: box, Open: func(address string) (procedure.Server, error) {
			return (&es9p.Client{Transport: box.To(address)}).Open(address)
		}}
	}
	return c
}

// waits is the one packet that waits, of a function.
func (c *courier) waits(function string) (p api.Packet) {
	c.w.t.Helper()
	eventually(c.w.t, "a packet "+function, func() bool {
		for _, p = range c.box.List() {
			if p.Function == function && (c.box.Wait(p.Job) != nil || function == packets.Cancel) {
				return true
			}
		}
		return false
	})
	return p
}

// carry takes a packet to its server.
func (c *courier) carry(p api.Packet) api.Packet {
	c.w.t.Helper()
	s, err := c.w.client.Open(packets.Host(&p))
	if err != nil {
		c.w.t.Fatal(err)
	}
	defer s.Close()
	a, _, err := s.Forward(c.w.t.Context(), p.Function, []byte(p.Body))
	if err != nil {
		c.w.t.Fatal(err)
	}
	return packets.Answer(&p, a.Status, 0, a.Body)
}

func (c *courier) put(a api.Packet) {
	c.w.t.Helper()
	if err := c.box.Put(&a); err != nil {
		c.w.t.Fatal(err)
	}
}

// trips makes the three of a session.
func (c *courier) trips() {
	c.w.t.Helper()
	for _, function := range session {
		c.put(c.carry(c.waits(function)))
	}
}

var session = []string{packets.Initiate, packets.Authenticate, packets.Package}

func byPackets(o *job.Order) { o.Offline = true }

// A download by packets, with the daemon stopped or the card reset, or both, while
// each of them waits, before or after it was carried. What can go on goes on with
// the packet that waited, the rest begins anew, and the profile is there once.
func TestOffline(t *testing.T) {
	for at, function := range session {
		for _, stop := range []bool{false, true} {
			for _, reset := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/stopped=%v/reset=%v", function, stop, reset), func(t *testing.T) {
					w := newWorld(t, options{})
					c := newCourier(w)
					l := w.live()
					j := l.submit(order(byPackets))
					for _, before := range session[:at] {
						c.put(c.carry(c.waits(before)))
					}
					p := c.waits(function)
					if wait := c.box.Wait(j.ID); wait == nil || wait.Number != int64(at+1) || wait.Of != 3 {
						t.Errorf("waits for %+v", wait)
					}
					a := c.carry(p)
					if stop {
						begun := time.Now()
						l.stop()
						if took := time.Since(begun); took > 5*time.Second {
							t.Errorf("stopping took %v", took)
						}
					}
					if reset {
						w.card.Reset()
					}
					if stop {
						l = w.live()
					}
					lost := stop && function == packets.Package // nobody can ask the card for it
					if lost {
						c.waits(packets.Initiate)
						if err := c.box.Put(&a); err == nil || fault.Of(err).Code != api.CodePacketSuperseded {
							t.Errorf("the package of before: %v", err)
						}
					} else {
						if got := c.waits(function); got != p {
							t.Fatalf("another packet: %+v", got)
						}
						c.put(a)
						c.put(a)
					}
					rest := session[at+1:]
					if reset || lost {
						rest = session
					}
					if reset && at == 1 && !lost {
						// the card is asked again only with the offer in hand
						l.until(j.ID, "begun anew", func(j job.Job) bool { return strings.Contains(states(j), "begun anew") })
					}
					for _, after := range rest {
						c.put(c.carry(c.waits(after)))
					}
					j = l.ends(j.ID, job.Done)
					if want := oldICCID + " " + newICCID; w.profiles() != want {
						t.Errorf("profiles %s, want %s; %s", w.profiles(), want, states(j))
					}
					results := 0
					for _, n := range w.card.Notifications() {
						if bytes.HasPrefix(n.Raw, []byte{0xBF, 0x37}) {
							results++
						}
					}
					if results != 1 || j.Undelivered == 0 {
						t.Errorf("%d results of installations on the card, %d undelivered", results, j.Undelivered)
					}
					for _, left := range c.box.List() {
						if left.Function != packets.Cancel {
							t.Errorf("left: %+v", left)
						}
					}
				})
			}
		}
	}
}

// Notifications go out as packets too, in their order, and leave the card when
// the server's word has come, and not before.
func TestOfflineNotifications(t *testing.T) {
	w := newWorld(t, options{})
	c := newCourier(w)
	l := w.live()
	j := l.submit(order(byPackets, enabling))
	c.waits(packets.Initiate)
	if _, err := l.Pending(t.Context()); fault.Of(err).Code != api.CodeConflict {
		t.Errorf("while a job has the card: %v", err)
	}
	c.trips()
	l.ends(j.ID, job.Done)
	pending, err := l.Pending(t.Context())
	if err != nil || len(pending) != 3 {
		t.Fatalf("%d wait, %v", len(pending), err)
	}
	open := func(a func(api.Packet) api.Packet) procedure.Opener {
		return func(address string) (procedure.Server, error) {
			return (&es9p.Client{Transport: packets.One(func(p *api.Packet) (*api.Packet, error) {
				packets.Request(p, packets.Notification)
				answer := a(*p)
				return &answer, nil
			})}).Open(address)
		}
	}
	first := pending[0].SeqNumber
	err = l.Carried(t.Context(), first, open(func(p api.Packet) api.Packet { return packets.Answer(&p, 500, 0, nil) }))
	if fault.Of(err).Code != "server-unavailable" || len(w.card.Notifications()) != 3 {
		t.Errorf("a server that cannot: %v, %d on the card", err, len(w.card.Notifications()))
	}
	for i, n := range pending {
		if err := l.Carried(t.Context(), n.SeqNumber, open(c.carry)); err != nil {
			t.Error(err)
		}
		if left := len(w.card.Notifications()); left != len(pending)-i-1 || len(l.View().Notifications) != left {
			t.Errorf("%d on the card after %d, %d shown", left, i+1, len(l.View().Notifications))
		}
	}
	if err := l.Carried(t.Context(), first, open(c.carry)); err != nil {
		t.Errorf("one that is gone: %v", err)
	}
	if got := w.received(); got != "install 358, disable 341, enable 358" {
		t.Errorf("received %s", got)
	}
}

// A job that waits for a packet can be aborted, and what the server is to hear
// of a session that ended is a packet that waits for nobody.
func TestOfflineAbort(t *testing.T) {
	for _, function := range session {
		w := newWorld(t, options{})
		c := newCourier(w)
		l := w.live()
		j := l.submit(order(byPackets))
		for _, f := range session {
			if c.waits(f); f == function {
				break
			}
			c.put(c.carry(c.waits(f)))
		}
		if _, err := l.Abort(t.Context(), j.ID); err != nil {
			t.Fatal(err)
		}
		l.ends(j.ID, job.Cancelled)
		if state := w.card.SessionState(); function != packets.Initiate && state != "idle" {
			t.Errorf("%s: the card's session is %s", function, state)
		}
		if list := c.box.List(); len(list) != 0 {
			t.Errorf("%s: still waits: %+v", function, list)
		}
		l.stop()
	}

	w := newWorld(t, options{})
	c := newCourier(w)
	l := w.live()
	j := l.submit(order(byPackets, asking))
	for _, f := range session[:2] {
		c.put(c.carry(c.waits(f)))
	}
	l.state(j.ID, job.Consent)
	if err := l.answer(j.ID, false, ""); err != nil {
		t.Fatal(err)
	}
	l.fails(j.ID, "consent-refused")
	p := c.waits(packets.Cancel)
	if a := c.carry(p); a.Status != 204 && !strings.Contains(a.Body, "Executed-Success") {
		t.Errorf("%+v", a)
	} else {
		c.put(a)
	}
	if len(c.box.List()) != 0 {
		t.Error("the farewell still waits")
	}
}

// A server that always forgets is not asked for ever, one that refuses is
// believed at once.
func TestOfflineRefused(t *testing.T) {
	w := newWorld(t, options{})
	c := newCourier(w)
	l := w.live()
	j := l.submit(order(byPackets))
	forgotten := []byte(`{"header":{"functionExecutionStatus":{"status":"Failed","statusCodeData":{"subjectCode":"8.10.1","reasonCode":"3.9"}}}}`)
	for range packets.Attempts {
		c.put(c.carry(c.waits(packets.Initiate)))
		p := c.waits(packets.Authenticate)
		c.put(packets.Answer(&p, 200, 0, forgotten))
	}
	l.fails(j.ID, "session-unknown")

	j = l.submit(order(byPackets, func(o *job.Order) { o.MatchingID = "WRONG" }))
	for _, f := range session[:2] {
		c.put(c.carry(c.waits(f)))
	}
	l.fails(j.ID, "matching-id-refused")
}

// Without a box such an order is refused; with a discovery it goes through more
// packets, and goes on after a restart in the middle.
func TestOfflineDiscovery(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	if _, err := l.Submit(t.Context(), order(byPackets), redact.Secret{}); fault.Of(err).Code != api.CodeConflict {
		t.Errorf("without a box: %v", err)
	}
	l.stop()
	w.smds.AddEvent(smdp.Event{EID: w.card.EID(), ID: matching, Address: host})
	c := newCourier(w)
	l = w.live()
	j := l.submit(job.Order{Kind: job.Install, Source: job.SourceSMDS, Consent: true, Offline: true})
	for _, f := range []string{packets.Initiate, packets.Authenticate, packets.Initiate} {
		c.put(c.carry(c.waits(f)))
	}
	p := c.waits(packets.Authenticate)
	l.stop()
	l = w.live()
	if got := c.waits(packets.Authenticate); got != p {
		t.Errorf("another packet after the restart: %+v", got)
	}
	c.put(c.carry(p))
	c.put(c.carry(c.waits(packets.Package)))
	l.ends(j.ID, job.Done)
}
