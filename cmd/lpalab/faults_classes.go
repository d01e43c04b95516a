package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"time"

	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/cmd/lpalab/lab"
)

// fault is one thing that goes wrong at one place.
type fault struct {
	class    string // "kill-before-apdu.switch"
	index    int
	at       touch
	n        int           // the touch that it meets, from 1
	lasting  bool          // that one and all that follow, until the order has ended
	block    int           // bytes of a STORE DATA block; 0: the daemon's choice
	patience time.Duration // more time to converge, for the waits that the product is meant to have
	told     time.Duration // how long a disk stays bad at most until the daemon says so; 0: toldLimit

	apduDo     func(r *rig, transmit func() ([]byte, error)) ([]byte, error)
	commandDo  func(r *rig, text string) *spoil
	requestDo  func(r *rig, w http.ResponseWriter, req *http.Request)
	appendDo   func(r *rig)
	prepare    func(r *rig) error // before the order
	afterwards func(r *rig) error // when the order has been carried out
	resetAfter int                // bytes of the server on connection n, until it is reset
	managed    func(ctx context.Context, d *lab.Device) error
	disk       string // a disk of this kind for the state directory
	watchPower bool   // the card's own fault takes its power: the modem is switched off and on then
}

func (f *fault) name() string { return fmt.Sprintf("%s/%d", f.class, f.index) }

func (f *fault) apdu(r *rig, transmit func() ([]byte, error)) ([]byte, error) {
	if f == nil || f.apduDo == nil {
		return transmit()
	}
	return f.apduDo(r, transmit)
}

func (f *fault) command(r *rig, text string) *spoil {
	if f == nil || f.commandDo == nil {
		return nil
	}
	return f.commandDo(r, text)
}

func (f *fault) request(r *rig, w http.ResponseWriter, req *http.Request) {
	if f == nil || f.requestDo == nil {
		r.server(req).ServeHTTP(w, req)
		return
	}
	f.requestDo(r, w, req)
}

func (f *fault) appended(r *rig) {
	if f != nil && f.appendDo != nil {
		f.appendDo(r)
	}
}

// kind is a kind of fault: a class of the report once it is done to a scenario.
type kind struct {
	name      string
	what      string
	scenarios []string               // that it is done to
	points    func(b baseline) []int // the indices that a full run takes
	make      func(f *fault, g rng)  // fills f in for f.index
}

// rng is the source of what is arbitrary in a fault, the same for a seed.
type rng = *rand.Rand

// baseline is what a scenario does without a fault.
type baseline struct {
	counts  [touches]int
	journal int64
}

// upTo are the places 1 to n of a touch.
func upTo(t touch) func(baseline) []int {
	return func(b baseline) []int { return steps(1, b.counts[t], 1) }
}

// every are the places of a touch, each step-th of them.
func every(t touch, step int) func(baseline) []int {
	return func(b baseline) []int { return steps(1, b.counts[t], step) }
}

func steps(from, to, step int) []int {
	var out []int
	for i := from; i <= to; i += step {
		out = append(out, i)
	}
	return out
}

// quick are the scenarios that do not wait for anything.
var quick = []string{"install", "install-enable", "first", "switch", "switch-csim", "replace", "rollback", "disable", "delete", "notifications"}

// withoutDownload are those that are about the switch.
var withoutDownload = []string{"switch", "switch-csim", "replace", "rollback", "disable", "delete"}

func atAPDU(do func(r *rig, transmit func() ([]byte, error)) ([]byte, error)) func(*fault, rng) {
	return func(f *fault, _ rng) { f.at, f.n, f.apduDo = onAPDU, f.index, do }
}

func atCommand(do func(r *rig, text string) *spoil) func(*fault, rng) {
	return func(f *fault, _ rng) { f.at, f.n, f.commandDo = onAT, f.index, do }
}

func atRequest(do func(r *rig, w http.ResponseWriter, req *http.Request)) func(*fault, rng) {
	return func(f *fault, _ rng) { f.at, f.n, f.requestDo = onRequest, f.index, do }
}

// atServer lets the server's own fault strike at the n-th request.
func atServer(sf smdp.Fault) func(*fault, rng) {
	return func(f *fault, _ rng) {
		f.at, f.n = onRequest, f.index
		f.requestDo = func(r *rig, w http.ResponseWriter, req *http.Request) {
			sf := sf
			sf.Times = 1
			r.server(req).Inject(sf)
			defer r.server(req).ClearFaults()
			r.server(req).ServeHTTP(w, req)
		}
	}
}

// kinds are the classes of the issue.
var kinds = append([]kind{
	{"kill-append", "kill -9 of the daemon when the journal has grown", append([]string{"no-service"}, quick...), upTo(onAppend),
		func(f *fault, _ rng) { f.at, f.n, f.appendDo = onAppend, f.index, (*rig).kill }},
	{"kill-compact", "kill -9 while the journal is made anew, smaller", []string{"notifications"}, upTo(onCompact),
		func(f *fault, _ rng) { f.at, f.n, f.appendDo = onCompact, f.index, (*rig).kill }},
	{"kill-torn", "kill -9 in the middle of a write of the journal, which stays torn", []string{"install-enable", "switch", "rollback"}, journalPlaces(37),
		func(f *fault, _ rng) { f.prepare = tornAt(f.index, true) }},
	{"disk-limit", "no file may grow beyond a place in the journal (EFBIG), for a while", []string{"install-enable", "switch"}, journalPlaces(8),
		func(f *fault, _ rng) { f.prepare, f.patience = tornAt(f.index, false), 20*time.Second }},

	{"kill-before-apdu", "kill -9 when an APDU has reached the card, which does not execute it", quick, upTo(onAPDU),
		atAPDU(func(r *rig, _ func() ([]byte, error)) ([]byte, error) { r.kill(); return nil, euicc.ErrLinkBroken })},
	{"kill-after-apdu", "kill -9 when the card has executed an APDU, before its answer", quick, upTo(onAPDU),
		atAPDU(func(r *rig, transmit func() ([]byte, error)) ([]byte, error) {
			answer, err := transmit()
			r.kill()
			return answer, err
		})},
	{"kill-again", "kill -9 at an APDU, and twice more some APDUs after the restart", quick, every(onAPDU, 2),
		func(f *fault, g rng) {
			gaps := []int{1 + g.IntN(30), 1 + g.IntN(30)}
			f.at, f.n, f.apduDo = onAPDU, f.index, func(r *rig, transmit func() ([]byte, error)) ([]byte, error) {
				answer, err := transmit()
				r.kill()
				r.mu.Lock()
				defer r.mu.Unlock()
				if len(gaps) > 0 {
					f.n, gaps = r.counts[onAPDU]+gaps[0], gaps[1:]
				}
				return answer, err
			}
		}},
	{"kill-in-vain", "kill -9 at an APDU of a switch that no network serves", []string{"no-service"}, every(onAPDU, 3),
		atAPDU(func(r *rig, transmit func() ([]byte, error)) ([]byte, error) {
			answer, err := transmit()
			r.kill()
			return answer, err
		})},
	{"blackout-in-vain", "power cut of daemon, modem and card at an AT command of a switch that no network serves", []string{"no-service"}, every(onAT, 5),
		atCommand(func(r *rig, _ string) *spoil { return &spoil{before: func() bool { r.blackout(); return false }} })},
	{"blackout-before-apdu", "power cut of daemon, modem and card when an APDU has reached the card", quick, upTo(onAPDU),
		atAPDU(func(r *rig, _ func() ([]byte, error)) ([]byte, error) { r.blackout(); return nil, euicc.ErrNoPower })},
	{"blackout-after-apdu", "power cut of daemon, modem and card when the card has executed an APDU", quick, upTo(onAPDU),
		atAPDU(func(r *rig, transmit func() ([]byte, error)) ([]byte, error) {
			if _, err := transmit(); err != nil {
				return nil, err
			}
			r.blackout()
			return nil, euicc.ErrNoPower
		})},
	{"cut-before-apdu", "power cut of the card before an APDU; the modem is switched off and on", quick, upTo(onAPDU),
		atAPDU(func(r *rig, _ func() ([]byte, error)) ([]byte, error) {
			r.world.Card.CutPower()
			r.powerCycle()
			return nil, euicc.ErrNoPower
		})},
	{"cut-after-apdu", "power cut of the card after an APDU; the modem is switched off and on", quick, upTo(onAPDU),
		atAPDU(func(r *rig, transmit func() ([]byte, error)) ([]byte, error) {
			if _, err := transmit(); err != nil {
				return nil, err
			}
			r.world.Card.CutPower()
			r.powerCycle()
			return nil, euicc.ErrNoPower
		})},
	{"cut-bpp", "power cut of the card at a byte of the profile package, in blocks of 16 bytes", []string{"install"},
		func(baseline) []int { return steps(1, faultProfileSize+600, 24) },
		func(f *fault, _ rng) {
			f.block = 16
			f.prepare = func(r *rig) error {
				r.world.Card.Inject(euicc.Fault{Do: euicc.CutPower, BPPByte: f.index})
				return nil
			}
			f.watchPower = true
		}},
	{"cut-commit", "power cut of the card at a write of its memory", quick,
		func(baseline) []int { return steps(1, 12, 1) },
		func(f *fault, _ rng) {
			do := euicc.CutPower
			if f.index%2 == 0 {
				do = euicc.CutPowerAfter
			}
			f.prepare = func(r *rig) error {
				r.world.Card.Inject(euicc.Fault{Do: do, Commit: (f.index + 1) / 2})
				return nil
			}
			f.watchPower = true
		}},
	{"lose-command", "an APDU does not arrive at the card", quick, upTo(onAPDU),
		atAPDU(func(*rig, func() ([]byte, error)) ([]byte, error) { return nil, euicc.ErrLinkBroken })},
	{"lose-answer", "an APDU is executed and its answer dropped", quick, upTo(onAPDU),
		atAPDU(func(_ *rig, transmit func() ([]byte, error)) ([]byte, error) {
			if _, err := transmit(); err != nil {
				return nil, err
			}
			return nil, euicc.ErrAnswerLost
		})},
	{"card-busy", "the card answers 9300, its toolkit is busy", withoutDownload, upTo(onAPDU),
		atAPDU(func(*rig, func() ([]byte, error)) ([]byte, error) { return []byte{0x93, 0x00}, nil })},

	{"kill-before-at", "kill -9 when an AT command is on the line, which the modem does not get", withoutDownload, upTo(onAT),
		atCommand(func(r *rig, _ string) *spoil { return &spoil{before: func() bool { r.kill(); return false }} })},
	{"kill-after-at", "kill -9 when the modem has carried an AT command out, before its answer", withoutDownload, upTo(onAT),
		atCommand(func(r *rig, _ string) *spoil { return &spoil{after: func() bool { r.kill(); return false }} })},
	{"hangup-before-at", "the port hangs up instead of an AT command and comes back", withoutDownload, upTo(onAT),
		atCommand(func(r *rig, _ string) *spoil { return &spoil{before: func() bool { r.line.tear(); return false }} })},
	{"hangup-after-at", "the port hangs up when the modem has carried an AT command out, and comes back", withoutDownload, upTo(onAT),
		atCommand(func(r *rig, _ string) *spoil { return &spoil{after: func() bool { r.line.tear(); return false }} })},
	{"at-garbage", "garbage on the line before the answer to an AT command", withoutDownload, upTo(onAT),
		func(f *fault, g rng) {
			noise := make([]byte, 1+g.IntN(40))
			for i := range noise {
				noise[i] = byte(g.IntN(256))
			}
			f.at, f.n, f.commandDo = onAT, f.index, func(*rig, string) *spoil {
				return &spoil{answer: func(b []byte) []byte { return append(append(append([]byte{}, noise...), '\r', '\n'), b...) }}
			}
		}},
	{"at-cut-answer", "a byte of the modem's answer with one of the card is missing", withoutDownload, every(onAT, 2),
		func(f *fault, g rng) {
			f.patience = 40 * time.Second
			f.at, f.n, f.commandDo = onAT, f.index, func(_ *rig, text string) *spoil {
				if !strings.HasPrefix(text, "AT+CGLA") && !strings.HasPrefix(text, "AT+CSIM") { // names of access points and the like have no length to hold them against
					return nil
				}
				return &spoil{answer: func(b []byte) []byte {
					i := g.IntN(max(1, len(b)-6)) // the final code stays: its loss is silence, which is another class
					return append(append([]byte{}, b[:i]...), b[i+1:]...)
				}}
			}
		}},
	{"at-urc-glued", "an unsolicited line glued to the answer of an AT command", withoutDownload, upTo(onAT),
		atCommand(func(*rig, string) *spoil {
			return &spoil{answer: func(b []byte) []byte { return append([]byte("\r\n+CEREG: 1"), b...) }}
		})},
	{"at-urc-between", "an unsolicited line between the answer of an AT command and its OK", withoutDownload, upTo(onAT),
		atCommand(func(*rig, string) *spoil {
			return &spoil{answer: func(b []byte) []byte {
				return []byte(strings.Replace(string(b), "\r\nOK\r\n", "\r\n+CIEV: 2,3\r\n\r\n+CREG: 2\r\nOK\r\n", 1))
			}}
		})},
	{"at-echo", "the modem echoes from an AT command on", withoutDownload, upTo(onAT),
		func(f *fault, _ rng) {
			f.at, f.n, f.lasting, f.commandDo = onAT, f.index, true, func(*rig, string) *spoil { return &spoil{echo: true} }
		}},
	{"at-error", "the modem answers ERROR to an AT command, which it has not carried out", withoutDownload, upTo(onAT),
		atCommand(func(r *rig, text string) *spoil {
			if strings.HasPrefix(text, "AT+CCHC") || strings.HasPrefix(text, `AT+CSIM=10,"007080`) { // a modem that does not close a channel keeps it
				return nil
			}
			return &spoil{before: func() bool { r.line.say([]byte("\r\nERROR\r\n")); return false }}
		})},
	{"at-silent", "the modem carries an AT command out and never answers", []string{"switch"}, every(onAT, 13),
		func(f *fault, _ rng) {
			f.patience = 4 * time.Minute // an APDU may take a card minutes, and the daemon waits for it
			f.at, f.n, f.commandDo = onAT, f.index, func(*rig, string) *spoil { return &spoil{after: func() bool { return false }} }
		}},
	{"at-reboot", "the modem restarts in the middle of an AT command, and its port with it", withoutDownload, upTo(onAT),
		atCommand(func(r *rig, _ string) *spoil {
			return &spoil{before: func() bool { r.line.tear(); r.powerCycle(); return false }}
		})},

	{"kill-before-request", "kill -9 when a request has reached the server, which does not handle it", downloads, upTo(onRequest),
		atRequest(func(r *rig, _ http.ResponseWriter, _ *http.Request) { r.kill(); panic(http.ErrAbortHandler) })},
	{"kill-after-request", "kill -9 when the server has handled a request, before its answer", downloads, upTo(onRequest),
		atRequest(func(r *rig, _ http.ResponseWriter, req *http.Request) {
			r.server(req).ServeHTTP(httptest.NewRecorder(), req)
			r.kill()
			panic(http.ErrAbortHandler)
		})},
	{"request-reset", "the connection is reset when a request has arrived", downloads, upTo(onRequest), atRequest(reset)},
	{"request-drop", "the connection is closed instead of an answer; nothing is done", downloads, upTo(onRequest), atServer(smdp.Fault{Kind: smdp.Drop})},
	{"answer-drop", "a request is handled and its answer lost", downloads, upTo(onRequest), atServer(smdp.Fault{Kind: smdp.DropAnswer})},
	{"answer-cut", "half of an answer, then the connection is closed", downloads, upTo(onRequest), atServer(smdp.Fault{Kind: smdp.CutAnswer})},
	{"answer-stall", "no answer to a request", downloads, upTo(onRequest), atServer(smdp.Fault{Kind: smdp.Stall})},
	{"answer-500", "HTTP 500 instead of an answer", downloads, upTo(onRequest), atServer(smdp.Fault{Kind: smdp.HTTPError, HTTP: 500})},
	{"answer-503", "HTTP 503 instead of an answer", downloads, upTo(onRequest), atServer(smdp.Fault{Kind: smdp.HTTPError, HTTP: 503})},
	{"answer-html", "the page of a captive portal instead of an answer", downloads, upTo(onRequest), atServer(smdp.Fault{Kind: smdp.NotJSON})},
	{"tls-reset", "the connection is reset after so many bytes of the server; INDEX is connection × 100000 + bytes", []string{"install-enable"},
		func(baseline) []int {
			return append(append(steps(100_001, 101_500, 61), steps(100_000+1_501, 107_500, 400)...), steps(200_001, 201_500, 150)...)
		},
		func(f *fault, _ rng) { f.n, f.resetAfter = f.index/100_000, f.index%100_000 }},

	{"journal-cut", "the journal is cut at a byte offset when the order has been carried out", []string{"install-enable", "switch", "rollback", "delete"}, journalPlaces(60),
		func(f *fault, _ rng) { f.afterwards = cutJournal(f.index) }},
	{"journal-cut-live", "kill -9 at an APDU, and the journal is cut by so many bytes", []string{"install-enable", "switch", "rollback"},
		func(b baseline) []int { return steps(1, b.counts[onAPDU], 1) },
		func(f *fault, g rng) {
			cut := 1 + g.IntN(600)
			f.at, f.n, f.apduDo = onAPDU, f.index, func(r *rig, transmit func() ([]byte, error)) ([]byte, error) {
				answer, err := transmit()
				r.kill()
				size := r.journalSize() - int64(cut)
				r.note("journal cut by %d bytes to %d", cut, max(0, size))
				return answer, errors.Join(err, os.Truncate(r.journalPath(), max(0, size)))
			}
		}},
}, append(diskKinds, managedFaults()...)...)

// downloads are the scenarios with requests.
var downloads = []string{"install-enable", "first", "switch", "delete", "notifications"}

// journalPlaces are n places in the journal, from its beginning to its end.
func journalPlaces(n int) func(baseline) []int {
	return func(b baseline) []int {
		var out []int
		for i := range n {
			out = append(out, int(b.journal)*i/n)
		}
		return out
	}
}

// reset closes a connection so that the other side gets a reset.
func reset(r *rig, w http.ResponseWriter, _ *http.Request) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		r.note("hijack: %v", err)
		panic(http.ErrAbortHandler)
	}
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			r.note("linger: %v", err)
		}
	}
	_ = c.Close() // that is the fault
}

// diskPause is how long a disk stays full.
const diskPause = 300 * time.Millisecond

// tornAt makes the disk full at a byte of the journal. Then the daemon is
// killed, or the disk has room again after a while.
func tornAt(offset int, kill bool) func(*rig) error {
	return func(r *rig) error {
		limit := max(int64(offset), r.journalSize())
		if err := r.limitFiles(limit); err != nil {
			return err
		}
		r.served.Go(func() {
			for range 4000 {
				if r.dead() {
					return
				}
				if r.journalSize() >= limit {
					break
				}
				time.Sleep(2 * time.Millisecond)
			}
			if r.journalSize() < limit {
				return
			}
			time.Sleep(20 * time.Millisecond) // the daemon finds out when it writes more
			r.strike(fmt.Sprintf("the journal ends at byte %d", limit))
			if kill {
				r.kill()
				return
			}
			if err := r.limitFiles(1); err != nil {
				r.note("limit: %v", err)
			}
			time.Sleep(diskPause)
			if err := r.limitFiles(-1); err != nil {
				r.note("limit: %v", err)
			}
			r.note("there is room on the disk again")
		})
		return nil
	}
}

// cutJournal stops the daemon and cuts its journal.
func cutJournal(offset int) func(*rig) error {
	return func(r *rig) error {
		if problem := r.terminate(); problem != "" {
			return errors.New(problem)
		}
		size := r.journalSize()
		if int64(offset) >= size {
			return nil
		}
		r.strike(fmt.Sprintf("journal of %d bytes cut at byte %d", size, offset))
		if err := os.Truncate(r.journalPath(), int64(offset)); err != nil {
			return err
		}
		return r.start(context.Background())
	}
}

// managedFaults are the kinds that need a device with managers.
func managedFaults() []kind {
	var out []kind
	for _, m := range managedKinds {
		out = append(out, kind{m.name, m.what, []string{managedScenario.name},
			func(baseline) []int { return steps(1, len(managedStates), 1) },
			func(f *fault, _ rng) { f.managed = m.do }})
	}
	return out
}

// newFault makes the fault of a class at an index.
func newFault(class string, index int, seed uint64) (*fault, *scenario, error) {
	name, where, _ := strings.Cut(class, ".")
	sc := scenarioNamed(where)
	for _, k := range kinds {
		if k.name == name && sc != nil {
			f := &fault{class: class, index: index}
			h := fnv.New64a()
			fmt.Fprintf(h, "%s/%d", class, index)
			k.make(f, rand.New(rand.NewPCG(seed, h.Sum64())))
			return f, sc, nil
		}
	}
	return nil, nil, fmt.Errorf("there is no class %q: it is KIND.SCENARIO, see --list", class)
}

// parsePlace reads CLASS/INDEX.
func parsePlace(text string) (class string, index int, err error) {
	class, number, ok := strings.Cut(text, "/")
	if index, err = strconv.Atoi(number); err != nil || !ok {
		return "", 0, fmt.Errorf("%q is not CLASS/INDEX", text)
	}
	return class, index, nil
}
