package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/apdu/apdutest"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// otherEID is that of a second eUICC, whose certificates are its own.
var otherEID = rsp.EID{0x89, 0x04, 0x90, 0x32, 0x12, 0x34, 0x51, 0x23, 0x45, 0x12, 0x34, 0x56, 0x78, 0x90, 0x13, 0x32}

// rack is a device with several cards, each with a world of its own under one
// authority: lpad, and how its cards are reached.
type rack struct {
	*lab.Daemon
	dir    string
	client *client.Client
	hosts  []string // addresses of the servers, for lpad's configuration
}

// twoWorlds are two cards with a server each.
func twoWorlds(t *testing.T, timing euicc.Timing) [2]*lab.World {
	t.Helper()
	p, err := lab.NewPKI()
	if err != nil {
		t.Fatal(err)
	}
	var worlds [2]*lab.World
	for i := range worlds {
		worlds[i] = newWorld(t, lab.Options{PKI: p, Timing: timing, Card: func(c *euicc.Config) {
			if i == 0 {
				return
			}
			id, err := euicc.NewIdentity(p.CI, otherEID)
			if err != nil {
				t.Fatal(err)
			}
			c.EID, c.Identities = otherEID, []euicc.Identity{id}
		}})
	}
	return worlds
}

// newRack makes the folder and lets the first world's server serve both cards:
// what is ordered tells them apart.
func newRack(t *testing.T, w *lab.World) *rack {
	t.Helper()
	dir, err := os.MkdirTemp("", "lpad-cards-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	second, err := lab.NewOrder("SECOND", lab.NewOperator, 12_000)
	if err == nil {
		err = w.SMDP.AddOrder(second)
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.Serve(l)
	trust := filepath.Join(dir, "trust.d")
	if err := os.MkdirAll(trust, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(trust, "lab.pem"), w.PKI.CI.Certificate.PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	return &rack{dir: dir, hosts: []string{fmt.Sprintf("rsp: {trust_dir: %s, notification_retry: 1s, addresses: {%s: %q}}\nlog: {level: debug}\n", trust, lab.Host, l.Addr())}}
}

// start starts lpad with the cards of this YAML.
func (r *rack) start(ctx context.Context, t *testing.T, cards string, env ...string) {
	t.Helper()
	var err error
	r.Daemon, err = lab.StartDaemon(ctx, r.dir, programs, r.hosts[0]+cards, "", func(ctx context.Context, name string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), env...)
		return cmd
	})
	if r.Daemon != nil {
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("lpad:\n%s", r.Log())
			}
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	r.client = client.New(r.Socket)
	t.Cleanup(r.client.Close)
}

// cards waits until the cards are as they should be, by their names.
func (r *rack) cards(ctx context.Context, t *testing.T, what string, ok func(map[string]api.CardStatus) bool) map[string]api.CardStatus {
	t.Helper()
	var cards map[string]api.CardStatus
	eventually(ctx, t, what, func() bool {
		all, err := r.client.Cards(ctx)
		if err != nil {
			return false
		}
		cards = map[string]api.CardStatus{}
		for _, c := range all.Cards {
			cards[c.Name] = c
		}
		return ok(cards)
	})
	return cards
}

// install downloads by a card and follows the job to its end.
func (r *rack) install(ctx context.Context, card, code string, enable bool) (api.Job, error) {
	c := r.client.For(card)
	j, err := c.Install(ctx, api.InstallRequest{ActivationCode: code, Enable: enable, Consent: true})
	if err != nil {
		return j, err
	}
	return c.Follow(ctx, j.ID, func(api.Job) {})
}

// both installs by two cards at once and returns the jobs.
func (r *rack) both(ctx context.Context, t *testing.T, w *lab.World, enable bool, one, two string) (jobs [2]api.Job) {
	t.Helper()
	codes := [2]string{w.ActivationCode(), w.SMDP.ActivationCode("SECOND")}
	var errs [2]error
	var running sync.WaitGroup
	for i, card := range []string{one, two} {
		running.Go(func() { jobs[i], errs[i] = r.install(ctx, card, codes[i], enable) })
	}
	running.Wait()
	for i, j := range jobs {
		if errs[i] != nil || j.State != "done" || j.Card != [2]string{one, two}[i] {
			t.Errorf("job of %s: %+v, %v", j.Card, j, errs[i])
		}
	}
	if jobs[0].ID == jobs[1].ID {
		t.Errorf("both jobs are %s", jobs[0].ID)
	}
	return jobs
}

// overlap reports whether both jobs were at work at the same time.
func overlap(a, b api.Job) bool {
	span := func(j api.Job) (from, to time.Time) { return j.Timeline[0].At, j.Timeline[len(j.Timeline)-1].At }
	fromA, toA := span(a)
	fromB, toB := span(b)
	return fromA.Before(toB) && fromB.Before(toA)
}

func has(w *lab.World, s lab.Subscriber) bool {
	for _, p := range w.Card.Profiles() {
		if p.ICCID.String() == s.ICCID {
			return true
		}
	}
	return false
}

func problem(err error) string {
	var p *api.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return fmt.Sprint(err)
}

// TestTwoReadersOneDaemon: two cards in the readers of one pcscd, in one lpad.
func TestTwoReadersOneDaemon(t *testing.T) {
	modemtest.RequirePCSCD(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	worlds := twoWorlds(t, euicc.Timing{})
	r := newRack(t, worlds[0])
	pcscd, err := modemtest.StartPCSCD(ctx, r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer pcscd.Close()
	var inserted sync.WaitGroup
	defer inserted.Wait()
	insert := func(addr string, card *euicc.Card) (remove func()) {
		in, pull := context.WithCancel(context.Background())
		done := make(chan struct{})
		inserted.Go(func() { defer close(done); _ = apdutest.ServeVPCD(in, addr, card) })
		return func() { pull(); <-done }
	}
	removeFirst := insert(pcscd.Addr(), worlds[0].Card)
	defer func() { removeFirst() }()
	removeSecond := insert(pcscd.SecondAddr(), worlds[1].Card)
	defer func() { removeSecond() }()

	reader := func(n int) string {
		return fmt.Sprintf("{backend: pcsc, pcsc_helper: %s, reader: PCD 00 0%d}", filepath.Join(programs, "lpad-pcsc"), n)
	}
	r.start(ctx, t, fmt.Sprintf("cards:\n  main: {default: true, card: %s}\n  spare: {card: %s}\n", reader(0), reader(1)), pcscd.Env()...)
	cards := r.cards(ctx, t, "both cards are read", func(c map[string]api.CardStatus) bool {
		return c["main"].State == "ready" && c["spare"].State == "ready"
	})
	if cards["main"].EID != euicc.TestEID.String() || cards["spare"].EID != otherEID.String() || !cards["main"].Default || !strings.HasSuffix(cards["spare"].Path, "00 01") {
		t.Errorf("cards %+v", cards)
	}

	// Who is meant.
	if _, err := r.client.Install(ctx, api.InstallRequest{ActivationCode: worlds[0].ActivationCode()}); problem(err) != api.CodeCardAmbiguous {
		t.Errorf("an order without a card: %v", err)
	}
	if _, err := r.client.For("third").Profiles(ctx); problem(err) != api.CodeCardUnknown {
		t.Errorf("a card that there is not: %v", err)
	}
	for name, eid := range map[string]string{"": euicc.TestEID.String(), "spare": otherEID.String(), otherEID.String(): otherEID.String()} {
		if e, err := r.client.For(name).EUICC(ctx); err != nil || e.EID != eid {
			t.Errorf("asked for card %q: %s, %v", name, e.EID, err)
		}
	}
	if s, err := r.client.Status(ctx); err != nil || len(s.Cards) != 2 || s.Card.Name != "main" {
		t.Errorf("status %+v, %v", s, err)
	}

	r.both(ctx, t, worlds[0], false, "main", "spare")
	for i, w := range worlds {
		if !has(w, lab.NewOperator) {
			t.Errorf("card %d has not got its profile", i)
		}
	}

	// pcscd dies with both cards in use; both are there again when they are asked for.
	if err := pcscd.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"main", "spare"} {
		eventually(ctx, t, name+" after a restart of pcscd", func() bool {
			p, err := r.client.For(name).Profiles(ctx)
			return err == nil && len(p.Profiles) == 2
		})
		j, err := r.client.For(name).SetNickname(ctx, lab.NewOperator.ICCID, "after")
		if err == nil {
			j, err = r.client.For(name).Follow(ctx, j.ID, func(api.Job) {})
		}
		if err != nil || j.State != "done" {
			t.Errorf("a job of %s after a restart of pcscd: %+v, %v", name, j, err)
		}
	}

	// One card is taken out: the other one does not mind.
	removeSecond()
	eventually(ctx, t, "the second card is missed", func() bool {
		_, err := r.client.For("spare").Profiles(ctx)
		return problem(err) == "pcsc-no-card"
	})
	j, err := r.client.For("main").SetNickname(ctx, lab.NewOperator.ICCID, "alone")
	if err == nil {
		j, err = r.client.Follow(ctx, j.ID, func(api.Job) {})
	}
	if err != nil || j.State != "done" || j.Card != "main" {
		t.Errorf("a job beside a card that is missing: %+v, %v", j, err)
	}

	// The first card, by another path as well: one owner, and the other path says so.
	removeSecond = insert(pcscd.SecondAddr(), worlds[0].Card)
	r.cards(ctx, t, "the second path to the card is refused", func(c map[string]api.CardStatus) bool {
		return c["spare"].Problem != nil && c["spare"].Problem.Code == "card-twice" && c["main"].State == "ready"
	})
	if j, err := r.client.For("spare").SetNickname(ctx, lab.NewOperator.ICCID, "twice"); err != nil {
		t.Error(err)
	} else if j, err = r.client.Follow(ctx, j.ID, func(api.Job) {}); err != nil || j.State != "failed" || j.Problem.Code != "card-twice" {
		t.Errorf("a job by the second path: %+v, %v", j, err)
	}
	removeFirst() // it was moved
	r.cards(ctx, t, "the card is found where it was moved to", func(c map[string]api.CardStatus) bool {
		return c["spare"].State == "ready" && c["spare"].EID == euicc.TestEID.String() && c["main"].State == "card-missing"
	})
	removeFirst = func() {}
}

// TestTwoModemsOneDaemon: two modems, each with a card and an AT port, in one
// lpad: switches at the same time, and a modem that dies does not touch the other.
func TestTwoModemsOneDaemon(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	worlds := twoWorlds(t, euicc.Timing{})
	r := newRack(t, worlds[0])
	var modems [2]*modemtest.Modem
	config := "network: {backend: none, dead_man: 60s}\nmodem: {manage: none}\ncards:\n"
	for i, w := range worlds {
		var err error
		if modems[i], err = modemtest.New(modemtest.Config{Card: w.Card, Subscriptions: []modemtest.Subscription{lab.OldOperator.Subscription(), lab.NewOperator.Subscription()},
			Contexts: []modemtest.Context{{CID: 1, Type: "IP", APN: lab.OldOperator.APN}}}); err != nil {
			t.Fatal(err)
		}
		defer modems[i].Close()
		port := filepath.Join(r.dir, fmt.Sprintf("ttyLAB%d", i))
		if _, err := modems[i].OpenPTY(port); err != nil {
			t.Fatal(err)
		}
		config += fmt.Sprintf("  modem%d: {card: {backend: at, at_port: %s}}\n", i, port)
	}
	r.start(ctx, t, config)
	r.cards(ctx, t, "both cards are read", func(c map[string]api.CardStatus) bool {
		return c["modem0"].EID == euicc.TestEID.String() && c["modem1"].EID == otherEID.String()
	})
	var heard []api.Event
	end := make(chan struct{})
	listening, stopListening := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- r.client.For("modem1").Watch(listening, client.WatchOptions{}, func(e api.Event) error {
			heard = append(heard, e)
			if e.Job != nil && e.Job.Ended {
				close(end)
			}
			return nil
		})
	}()
	jobs := r.both(ctx, t, worlds[0], true, "modem0", "modem1")
	if !overlap(jobs[0], jobs[1]) {
		t.Errorf("one job waited for the other: %v, %v", jobs[0].Timeline, jobs[1].Timeline)
	}
	for i, w := range worlds {
		if iccid, ok := w.Card.EnabledICCID(); !ok || iccid.String() != lab.NewOperator.ICCID {
			t.Errorf("card %d is on %s", i, iccid)
		}
	}
	select {
	case <-end:
	case <-ctx.Done():
		t.Error("no event of the end of the job")
	}
	stopListening()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, e := range heard {
		if e.Card != "modem1" || e.Job != nil && (e.Job.Card != "modem1" || e.Job.ID == jobs[0].ID) {
			t.Errorf("an event of another card: %+v", e)
		}
	}
	for _, file := range []string{"journal", "modems.json"} {
		for i := range worlds {
			if _, err := os.Stat(filepath.Join(r.dir, "var", "cards", fmt.Sprintf("modem%d", i), file)); err != nil {
				t.Error(err)
			}
		}
	}
	if all, err := r.client.Jobs(ctx); err != nil || len(all.Jobs) != 2 {
		t.Errorf("jobs of both: %+v, %v", all, err)
	}
	if own, err := r.client.For("modem0").Jobs(ctx); err != nil || len(own.Jobs) != 1 || own.Jobs[0].ID != jobs[0].ID {
		t.Errorf("jobs of one: %+v, %v", own, err)
	}

	time.Sleep(time.Second) // what the jobs needed is given back
	// With one card it is 13.5 MB after a job; a second one must not cost as much again.
	if rss := resident(t, r.PID()); rss > 16_000 {
		t.Errorf("lpad with two cards holds %d kB", rss)
	} else {
		t.Logf("lpad with two cards holds %d kB", rss)
	}

	// One modem dies; the other one switches back, and a restart finds both jobs.
	if err := modems[1].Close(); err != nil {
		t.Error(err)
	}
	j, err := r.client.For("modem0").Enable(ctx, lab.OldOperator.ICCID, api.EnableRequest{})
	if err == nil {
		j, err = r.client.Follow(ctx, j.ID, func(api.Job) {})
	}
	if err != nil || j.State != "done" {
		t.Errorf("a switch beside a dead modem: %+v, %v", j, err)
	}
	eventually(ctx, t, "the dead modem is missed", func() bool { // what was read in the last two seconds is told without it
		_, err := r.client.For("modem1").Profiles(ctx)
		return err != nil
	})
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if one, err := r.client.Job(ctx, jobs[1].ID); err != nil || one.Card != "modem1" || one.State != "done" {
		t.Errorf("a job of the other card, by its id: %+v, %v", one, err)
	}
}

// resident is the memory of a process, in kB.
func resident(t *testing.T, pid int) (kB int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(text), "VmRSS:")
	if _, err := fmt.Sscan(line, &kB); err != nil {
		t.Fatal(err)
	}
	return kB
}

// TestSlots: a card in a slot that is not active is said to be there, nothing is
// switched for it but by order, and an order that finds no eUICC is undone.
func TestSlots(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	worlds := twoWorlds(t, euicc.Timing{})
	for _, c := range []struct {
		name   string
		second bool // there is a card in the second slot
	}{{"two cards", true}, {"an empty slot", false}} {
		r := newRack(t, newWorld(t, lab.Options{PKI: worlds[0].PKI}))
		config := modemtest.Config{Card: worlds[0].Card, Dialect: modemtest.QuectelRM5xx, Subscriptions: []modemtest.Subscription{lab.OldOperator.Subscription()}}
		if c.second {
			config.SecondCard = worlds[1].Card
		}
		modem, err := modemtest.New(config)
		if err != nil {
			t.Fatal(err)
		}
		defer modem.Close()
		port := filepath.Join(r.dir, "ttyLAB0")
		if _, err := modem.OpenPTY(port); err != nil {
			t.Fatal(err)
		}
		top := fmt.Sprintf("card: {backend: at, at_port: %s}\nnetwork: {backend: none}\n", port)
		switches := func() int {
			n := 0
			for _, e := range modem.Log().Entries() {
				if e.Kind == modemtest.Sent && strings.HasPrefix(e.Text, "AT+QUIMSLOT=") {
					n++
				}
			}
			return n
		}
		if !c.second {
			r.start(ctx, t, top+"modem: {manage: none}\n")
			lpactl(ctx, t, r.Daemon, 0, "slot")
			got := lpactl(ctx, t, r.Daemon, 50, "slot", "set", "2")
			if n := modem.State().Slot; n != 1 || switches() != 2 {
				t.Errorf("%s: slot %d after %d switches: %s", c.name, n, switches(), got.Stderr)
			}
			r.cards(ctx, t, "the card of before is read", func(c map[string]api.CardStatus) bool {
				return c["main"].EID == euicc.TestEID.String() && c["main"].Problem == nil
			})
			continue
		}
		r.start(ctx, t, top+"modem: {manage: none, slot: \"2\"}\n")
		r.cards(ctx, t, "the slot is wrong", func(c map[string]api.CardStatus) bool {
			p := c["main"].Problem
			return p != nil && p.Code == "wrong-slot" && strings.Contains(p.Next, "lpactl slot set 2") && c["main"].Slot == "2"
		})
		if switches() != 0 {
			t.Errorf("%s: switched without an order", c.name)
		}
		lpactl(ctx, t, r.Daemon, 6, "slot", "set", "1") // against the configuration
		lpactl(ctx, t, r.Daemon, 0, "slot", "set", "2")
		r.cards(ctx, t, "the other card is read", func(c map[string]api.CardStatus) bool {
			return c["main"].EID == otherEID.String() && c["main"].Problem == nil
		})
		if n := modem.State().Slot; n != 2 || switches() != 1 {
			t.Errorf("%s: slot %d after %d switches", c.name, n, switches())
		}
	}
}
