package atmodem_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lpad/internal/fault"
	"lpad/modem/at"
	"lpad/modem/at/attest"
	"lpad/modem/atmodem"
	"lpad/modem/quirks"
)

// stubborn is a modem that has read the old profile while the card has the new
// one, and reads it again only by certain means.
type stubborn struct {
	t  *testing.T
	mu sync.Mutex // guards all that follows once the modem answers

	live  bool   // its command for the ICCID reads the card
	needs string // the command that makes it read the card: "AT+CFUN=1" after 0, "AT+CFUN=1,1", "AT!RESET"; "itself" after 1 s
	says  string // when it has read the SIM
	hides bool   // AT+CPIN says READY whatever the SIM does

	refuses []string      // commands that are ERROR
	mute    []string      // commands that are done, without an answer
	drops   []string      // commands at which the port goes away after the answer
	kills   []string      // commands at which the port goes away instead of an answer
	away    time.Duration // how long

	shown    string
	card     string
	fun      int
	dark     bool      // the SIM has no power
	ready    time.Time // when it is read
	restarts int       // of the modem

	conn   *at.Conn
	script *attest.Modem
	modem  *atmodem.Modem
	mem    *atmodem.Memory
	q      quirks.Quirks
	back   time.Time // the port is there from then on
	opened int
	sent   []string
	offs   []bool // what Switched was told
}

const simTime = 2 * time.Second // to read a SIM

func newStubborn(t *testing.T) *stubborn {
	m := &stubborn{t: t, shown: oldICCID, card: newICCID, fun: 1, mem: &atmodem.Memory{}, needs: "AT+CFUN=1"}
	return m
}

var errAway = errors.New("no such port")

// line is the Line of a Ladder.
func (m *stubborn) line(ctx context.Context, anew bool) (*atmodem.Modem, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil && m.conn.Err() == nil && !anew {
		return m.modem, nil
	}
	if time.Now().Before(m.back) {
		return nil, errAway
	}
	if m.conn != nil {
		m.script.Close()
		if err := m.conn.Close(); err != nil {
			m.t.Error(err)
		}
	}
	m.opened++
	m.conn, m.script = attest.Dial(m.t, m.answer)
	m.modem = atmodem.New(m.conn, atmodem.WithQuirks(m.q), atmodem.WithMemory(m.mem))
	return m.modem, nil
}

// goes takes the port away once the answer is out.
func (m *stubborn) goes() {
	m.back = time.Now().Add(m.away)
	script := m.script
	time.AfterFunc(10*time.Millisecond, func() { script.Close() })
}

// read makes the modem read the card.
func (m *stubborn) read() {
	m.ready = time.Now().Add(simTime)
	time.AfterFunc(simTime, m.isRead)
}

func (m *stubborn) isRead() {
	m.mu.Lock()
	m.shown = m.card
	script := m.script
	m.mu.Unlock()
	if m.says != "" {
		script.Say("\r\n" + m.says + "\r\n")
	}
}

func (m *stubborn) busy() bool { return m.dark || time.Now().Before(m.ready) }

func (m *stubborn) answer(cmd string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent = append(m.sent, cmd)
	if slices.Contains(m.refuses, cmd) {
		return "\r\nERROR\r\n"
	}
	if slices.Contains(m.kills, cmd) {
		m.kills = slices.DeleteFunc(m.kills, func(c string) bool { return c == cmd })
		m.do(cmd)
		m.back = time.Now().Add(m.away)
		m.script.Close()
		return ""
	}
	out := m.do(cmd)
	if slices.Contains(m.drops, cmd) {
		m.goes()
	}
	if slices.Contains(m.mute, cmd) {
		return ""
	}
	return out
}

func (m *stubborn) do(cmd string) string {
	wants := m.needs == cmd
	switch cmd {
	case "AT+CMEE?":
		return info("+CMEE: 1")
	case "ATE0", "AT+CMEE=1":
		return info()
	case "AT+CFUN?":
		return info(fmt.Sprintf("+CFUN: %d", m.fun))
	case "AT+CFUN=0", "AT+CFUN=4":
		m.fun = int(cmd[len(cmd)-1] - '0')
		m.dark = m.needs == "AT+CFUN=1" && cmd == "AT+CFUN=0" || m.needs == "AT+CFUN=4" && cmd == m.needs
		return info()
	case "AT+CFUN=1":
		m.fun = 1
		if m.dark {
			m.dark = false
			m.read()
		}
		return info()
	case "AT+CFUN=1,1", "AT!RESET", "AT+CFUN=16":
		if wants {
			m.restarts++
			m.fun = 1
			m.read()
		}
		return info()
	case "AT+CPIN?":
		if m.busy() && !m.hides {
			return "\r\n+CME ERROR: 14\r\n"
		}
		return info("+CPIN: READY")
	case "AT+CIMI":
		if m.busy() {
			return "\r\n+CME ERROR: 14\r\n"
		}
		return info(map[string]string{oldICCID: "001010000000001", newICCID: "001010000000002"}[m.shown])
	case "AT+CCID":
		switch {
		case m.live:
			return info("+CCID: " + m.card)
		case m.busy() && !m.hides:
			return "\r\n+CME ERROR: 14\r\n"
		}
		return info("+CCID: " + m.shown)
	}
	return "\r\nERROR\r\n"
}

func (m *stubborn) ladder() atmodem.Ladder {
	return atmodem.Ladder{Line: m.line, Switched: func(off bool) { m.offs = append(m.offs, off) }}
}

// The rungs, and why the modem is believed on each.
func TestLadder(t *testing.T) {
	reset := quirks.Quirks{Reset: []string{"AT+CFUN=16", "AT!RESET"}}
	for _, tc := range []struct {
		name   string
		m      func(*stubborn)
		best   quirks.Rung
		rung   quirks.Rung
		proof  string
		is     error
		within time.Duration
	}{
		{name: "off and on", rung: quirks.RungCFUN01, proof: "iccid", within: 3 * time.Second},
		{name: "off and on, the command reads the card", m: func(m *stubborn) { m.live = true }, rung: quirks.RungCFUN01, proof: "sim-gone", within: 3 * time.Second},
		{name: "only airplane mode, which takes the power too (EC20)", m: func(m *stubborn) { m.needs, m.refuses = "AT+CFUN=4", []string{"AT+CFUN=0"} },
			rung: quirks.RungCFUN41, proof: "iccid", within: 3 * time.Second},
		{name: "a restart on a line that lives", m: func(m *stubborn) { m.needs = "AT+CFUN=1,1" }, rung: quirks.RungCFUN11, proof: "iccid", within: 6 * time.Second},
		{name: "a restart, the port comes back after 20 s", m: func(m *stubborn) { m.needs, m.drops, m.away = "AT+CFUN=1,1", []string{"AT+CFUN=1,1"}, 20*time.Second },
			rung: quirks.RungCFUN11, proof: "iccid", within: 24 * time.Second},
		{name: "the same, the command reads the card", m: func(m *stubborn) {
			m.live, m.needs, m.drops, m.away = true, "AT+CFUN=1,1", []string{"AT+CFUN=1,1"}, 20*time.Second
			m.hides = true
		}, rung: quirks.RungCFUN11, proof: "restart", within: 30 * time.Second},
		{name: "the vendor's reset", m: func(m *stubborn) {
			m.needs, m.q, m.refuses = "AT!RESET", reset, []string{"AT+CFUN=16", "AT+CFUN=1,1"}
		}, rung: quirks.RungVendorReset, proof: "iccid", within: 6 * time.Second},
		{name: "the answer to the reset is lost", m: func(m *stubborn) {
			m.needs, m.q, m.mute, m.refuses = "AT!RESET", reset, []string{"AT!RESET"}, []string{"AT+CFUN=0", "AT+CFUN=4", "AT+CFUN=1,1", "AT+CFUN=16"}
		}, rung: quirks.RungVendorReset, proof: "iccid", within: 15 * time.Second},
		{name: "the port goes at off, the modem stays off (EG916Q)", m: func(m *stubborn) { m.kills, m.away = []string{"AT+CFUN=0"}, 5*time.Second },
			rung: quirks.RungCFUN01, proof: "iccid", within: 9 * time.Second},
		{name: "the same, the command reads the card", m: func(m *stubborn) { m.kills, m.away, m.live, m.hides = []string{"AT+CFUN=0"}, 5*time.Second, true, true },
			rung: quirks.RungCFUN01, proof: "sim-gone", within: 9 * time.Second},
		{name: "the port goes at on", m: func(m *stubborn) { m.kills, m.away = []string{"AT+CFUN=1"}, 20*time.Second },
			rung: quirks.RungCFUN01, proof: "iccid", within: 23 * time.Second},
		{name: "the port goes at the first question", m: func(m *stubborn) { m.kills, m.away = []string{"AT+CCID"}, 20*time.Second },
			rung: quirks.RungCFUN01, proof: "sim-gone", within: 25 * time.Second},
		{name: "the answer to off is lost", m: func(m *stubborn) { m.mute = []string{"AT+CFUN=0"} }, rung: quirks.RungCFUN01, proof: "iccid", within: 15 * time.Second},
		{name: "the answer to on is lost", m: func(m *stubborn) { m.mute = []string{"AT+CFUN=1"} }, rung: quirks.RungCFUN01, proof: "iccid", within: 15 * time.Second},
		{name: "the best one first", m: func(m *stubborn) { m.needs = "AT+CFUN=1,1" }, best: quirks.RungCFUN11, rung: quirks.RungCFUN11, proof: "iccid", within: 3 * time.Second},
		{name: "the best one is one that is not in the ladder", best: quirks.RungManager, rung: quirks.RungCFUN01, proof: "iccid", within: 3 * time.Second},
		{name: "it follows by itself, where that is known", m: func(m *stubborn) { m.needs = "itself"; m.q.Reread = quirks.DefaultReread() },
			rung: quirks.RungRefresh, proof: "iccid", within: 4 * time.Second},
		{name: "it follows by itself, as it did the last time", m: func(m *stubborn) { m.needs = "itself" }, best: quirks.RungRefresh, rung: quirks.RungRefresh, proof: "iccid", within: 4 * time.Second},
		{name: "it has followed by itself and said so", m: func(m *stubborn) { m.shown, m.needs, m.live = newICCID, "nothing", true; m.mem.Heard("+QUSIM: 1") },
			rung: quirks.RungRefresh, proof: "message"},
		{name: "another message says nothing", m: func(m *stubborn) {
			m.shown = newICCID
			for _, line := range []string{"+CIEV: 3,1", "+UUSIMSTAT: 11", "+CREG: 1", "RDY"} {
				m.mem.Heard(line)
			}
		}, rung: quirks.RungCFUN01, proof: "sim-gone", within: 3 * time.Second},
		{name: "a message from before the card was touched says nothing", m: func(m *stubborn) { m.shown = newICCID; m.mem.Heard("+QUSIM: 1"); m.mem.Touched() },
			rung: quirks.RungCFUN01, proof: "sim-gone", within: 3 * time.Second},
		{name: "no rung does it", m: func(m *stubborn) { m.needs = "a hammer"; m.q = reset }, rung: quirks.RungVendorReset, is: atmodem.ErrOldSIM, within: 5 * time.Minute},
		{name: "every rung is refused", m: func(m *stubborn) { m.refuses = []string{"AT+CFUN=0", "AT+CFUN=4", "AT+CFUN=1,1"} }, rung: quirks.RungRefresh, is: atmodem.ErrOldSIM},
		{name: "nothing can ever be seen: the top of the ladder is believed", m: func(m *stubborn) { m.live, m.hides, m.needs = true, true, "nothing"; m.refuses = []string{"AT+CIMI"} },
			rung: quirks.RungCFUN11, within: time.Minute},
		{name: "airplane mode alone is not believed", m: func(m *stubborn) {
			m.live, m.hides, m.needs, m.refuses = true, true, "nothing", []string{"AT+CFUN=0", "AT+CFUN=1,1"}
		}, rung: quirks.RungCFUN41, is: atmodem.ErrOldSIM, within: time.Minute},
		{name: "the port stays away", m: func(m *stubborn) { m.kills, m.away = []string{"AT+CFUN=0"}, time.Hour }, rung: quirks.RungCFUN11, is: errAway, within: 5 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newStubborn(t)
				if tc.m != nil {
					tc.m(m)
				}
				if m.needs == "itself" {
					time.AfterFunc(time.Second, m.isRead)
				}
				begin := time.Now()
				l := m.ladder()
				l.Best = tc.best
				c, err := l.Reread(t.Context(), newICCID)
				took := time.Since(begin)
				if c.Rung != tc.rung || c.Proof != tc.proof || !errors.Is(err, tc.is) {
					t.Errorf("rung %q, proof %q, error %v, want %q, %q, %v", c.Rung, c.Proof, err, tc.rung, tc.proof, tc.is)
				}
				if took > tc.within {
					t.Errorf("took %v, want %v at most", took, tc.within)
				}
				if err != nil && fault.Of(err).Code == fault.Internal {
					t.Errorf("%v does not explain itself", err)
				}
				if off := len(m.offs) > 0 && m.offs[len(m.offs)-1]; off != (m.fun != 1) {
					t.Errorf("functionality %d, and it was said that off is %v", m.fun, off)
				}
				if m.fun != 1 && !errors.Is(tc.is, errAway) {
					t.Errorf("functionality %d", m.fun)
				}
				if err == nil && m.needs != "nothing" && m.shown != newICCID {
					t.Errorf("believed, but the modem has read %s", m.shown)
				}
				if len(c.Tried) == 0 || c.Tried[0].Rung != quirks.RungRefresh {
					t.Errorf("tried %v", c.Tried)
				}
			})
		})
	}
}

// A subscription that was noted before the switch is a proof, and so is that
// there was none; the same one is none.
func TestLadderByIMSI(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before string // that the modem showed
		now    string // that it shows, by itself
		rung   quirks.Rung
	}{
		{"another one", oldICCID, newICCID, quirks.RungRefresh},
		{"the same one", oldICCID, oldICCID, quirks.RungCFUN01},
		{"none before", "", newICCID, quirks.RungRefresh},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newStubborn(t)
				m.live, m.shown, m.dark = true, tc.before, tc.before == ""
				on, err := m.line(t.Context(), false)
				if err != nil {
					t.Fatal(err)
				}
				on.Note(t.Context())
				m.mem.Touched()
				m.shown, m.dark = tc.now, false
				c, err := m.ladder().Reread(t.Context(), newICCID)
				if err != nil || c.Rung != tc.rung || c.Rung == quirks.RungRefresh && c.Proof != "imsi" {
					t.Errorf("rung %q, proof %q, %v", c.Rung, c.Proof, err)
				}
				// Who asks again, with the card as it was, gets the same answer at once.
				m.mu.Lock()
				m.sent = nil
				m.mu.Unlock()
				if c, err = m.ladder().Reread(t.Context(), newICCID); err != nil || c.Rung != quirks.RungRefresh || c.Proof != "known" || c.Learnt {
					t.Errorf("again: %+v, %v", c, err)
				}
				if i := slices.IndexFunc(m.sent, func(s string) bool { return strings.HasPrefix(s, "AT+CFUN=") }); i >= 0 {
					t.Errorf("again: the modem got %q", m.sent)
				}
				// A channel to the card alone changes nothing; a modem that went its own way meanwhile does,
				// and so does another profile that was to be read.
				m.mem.Touched()
				if c, err = m.ladder().Reread(t.Context(), newICCID); err != nil || c.Proof != "known" {
					t.Errorf("after a channel: %+v, %v", c, err)
				}
				m.mu.Lock()
				m.shown = oldICCID
				m.mu.Unlock()
				if c, err = m.ladder().Reread(t.Context(), newICCID); err != nil || c.Rung == quirks.RungRefresh {
					t.Errorf("the IMSI of another profile: %+v, %v", c, err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err = m.ladder().Reread(ctx, "89330100000000000033"); err == nil {
					t.Fatal("a profile that is not there was read")
				}
				m.mem.Touched()
				if c, err = m.ladder().Reread(t.Context(), newICCID); err != nil || c.Proof == "known" {
					t.Errorf("after a re-read in vain: %+v, %v", c, err)
				}
				// Back to a profile that was seen before: its IMSI is the proof, and no other one is.
				on.Note(t.Context())
				m.mu.Lock()
				m.card = oldICCID
				m.mu.Unlock()
				m.mem.Touched()
				if c, err = m.ladder().Reread(t.Context(), oldICCID); err != nil || c.Rung != quirks.RungCFUN01 || m.shown != oldICCID {
					t.Errorf("back: %+v, %v", c, err)
				}
				m.mem.Touched()
				m.mu.Lock()
				m.card, m.shown = newICCID, newICCID
				m.mu.Unlock()
				if c, err = m.ladder().Reread(t.Context(), newICCID); err != nil || c.Rung != quirks.RungRefresh || c.Proof != "imsi" {
					t.Errorf("forth: %+v, %v", c, err)
				}
			})
		})
	}
}

// A profile that waits for its PIN ends the climb: no rung knows the PIN.
func TestLadderLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newStubborn(t)
		locked := "\r\n+CME ERROR: 11\r\n"
		conn, _ := attest.Dial(t, func(cmd string) string {
			if m.restarts > 0 && (cmd == "AT+CCID" || cmd == "AT+CPIN?") {
				return locked
			}
			if cmd == "AT+CFUN=1" {
				m.restarts++
			}
			return m.answer(cmd)
		})
		begin := time.Now()
		rung, err := atmodem.New(conn).Reread(t.Context(), newICCID)
		if rung != atmodem.RungCFUN01 || !errors.Is(err, at.ErrLocked) || time.Since(begin) > time.Second || m.fun != 1 {
			t.Errorf("rung %q, %v after %v, functionality %d", rung, err, time.Since(begin), m.fun)
		}
	})
}

// A context that ends does not leave the modem off while its port is there, and
// does not wait for one that is not.
func TestLadderCancelled(t *testing.T) {
	for _, tc := range []struct {
		name   string
		m      func(*stubborn)
		fun    int
		within time.Duration
	}{
		{"the answer to off is late", func(m *stubborn) { m.mute = []string{"AT+CFUN=0"} }, 1, 20 * time.Second},
		{"the port is away", func(m *stubborn) { m.kills, m.away = []string{"AT+CFUN=0"}, time.Hour }, 0, 2 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newStubborn(t)
				tc.m(m)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				begin := time.Now()
				if _, err := m.ladder().Reread(ctx, newICCID); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v", err)
				}
				if m.fun != tc.fun || time.Since(begin) > tc.within {
					t.Errorf("functionality %d after %v", m.fun, time.Since(begin))
				}
				if off := m.offs[len(m.offs)-1]; off != (tc.fun == 0) {
					t.Errorf("it was said that off is %v", off)
				}
			})
		})
	}
}

// Where the port goes away at AT+CFUN=0, both commands leave at once.
func TestOffAndOnInOneGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newStubborn(t)
		m.q.CFUN0HangsUp = true
		m.drops, m.away = []string{"AT+CFUN=0"}, 3*time.Second
		c, err := m.ladder().Reread(t.Context(), newICCID)
		if err != nil || c.Rung != quirks.RungCFUN01 {
			t.Fatalf("rung %q, %v", c.Rung, err)
		}
		i := slices.Index(m.sent, "AT+CFUN=0")
		if i < 0 || m.sent[i+1] != "AT+CFUN=1" {
			t.Errorf("the modem got %q", m.sent)
		}
	})
}

// What a modem needs after a switch is sent, and a restart among it is waited for.
func TestAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newStubborn(t)
		m.shown, m.needs, m.drops, m.away = newICCID, "AT+CFUN=1,1", []string{"AT+CFUN=1,1"}, 10*time.Second
		begin := time.Now()
		err := m.ladder().After(t.Context(), newICCID, []string{`AT+QMBNCFG="Select","ROW_Generic_3GPP"`, "AT+CFUN=1,1"})
		if err != nil || m.restarts != 1 || time.Since(begin) < 10*time.Second || time.Since(begin) > 14*time.Second {
			t.Errorf("%v, %d restarts, %v", err, m.restarts, time.Since(begin))
		}
		if m.sent[0] != `AT+QMBNCFG="Select","ROW_Generic_3GPP"` {
			t.Errorf("the modem got %q", m.sent)
		}
	})
}

// Slots are read and set by the vendor's words.
func TestSlot(t *testing.T) {
	for _, tc := range []struct {
		query, raw string
		want       int
		is         error
	}{
		{"AT+QUIMSLOT?", info("+QUIMSLOT: 2"), 2, nil},
		{"AT^SWITCH_SLOT?", info("^SWITCH_SLOT: 0"), 0, nil},
		{"AT+GTDUALSIM?", info(`+GTDUALSIM : 1,"SUB2","L"`), 1, nil},
		{`AT^SCFG="SIM/CS"`, info(`^SCFG: "SIM/CS","SIM2"`), 2, nil},
		{"AT!UIMS?", info("!UIMS: 1"), 1, nil},
		{"AT+QUIMSLOT?", info(), 0, atmodem.ErrUnreadable},
		{"AT+QUIMSLOT?", info("+QUIMSLOT: 89330100000000000017"), 0, atmodem.ErrUnreadable},
		{"AT+QUIMSLOT?", "\r\nERROR\r\n", 0, at.ErrError},
		{"", "", 0, atmodem.ErrNoSlots},
	} {
		conn, _ := attest.Dial(t, replies{tc.query: tc.raw}.answer)
		var q quirks.Quirks
		q.Slots.Query = tc.query
		got, _, err := atmodem.New(conn, atmodem.WithQuirks(q)).Slot(t.Context())
		if got != tc.want || !errors.Is(err, tc.is) {
			t.Errorf("%s: %d, %v, want %d, %v", tc.query, got, err, tc.want, tc.is)
		}
	}
}

func TestSetSlot(t *testing.T) {
	for _, tc := range []struct {
		name    string
		set     string
		answers []string // to the query, the last one for ever
		slot    int
		is      error
	}{
		{"at once", "AT+QUIMSLOT=%d", []string{"2"}, 2, nil},
		{"a little later", "AT+QUIMSLOT=%d", []string{"1", "1", "2"}, 2, nil},
		{"never", "AT+QUIMSLOT=%d", []string{"1"}, 2, atmodem.ErrNotTaken},
		{"refused", "AT+OTHER=%d", []string{"1"}, 2, at.ErrError},
		{"no command", "", nil, 2, atmodem.ErrNoSlots},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				conn, _ := attest.Dial(t, func(cmd string) string {
					switch cmd {
					case "AT+QUIMSLOT=2":
						return info()
					case "AT+QUIMSLOT?":
						n++
						return info("+QUIMSLOT: " + tc.answers[min(n, len(tc.answers))-1])
					}
					return "\r\nERROR\r\n"
				})
				var q quirks.Quirks
				q.Slots.Set, q.Slots.Query = tc.set, "AT+QUIMSLOT?"
				if err := atmodem.New(conn, atmodem.WithQuirks(q)).SetSlot(t.Context(), tc.slot); !errors.Is(err, tc.is) {
					t.Errorf("%v, want %v", err, tc.is)
				}
			})
		})
	}
}
