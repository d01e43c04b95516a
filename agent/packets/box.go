package packets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lpad/agent/api"
	"lpad/internal/fault"
	"lpad/internal/smallfile"
)

// Limits of a box.
const (
	// DefaultLimit is how long a request waits for its answer at most.
	DefaultLimit = 72 * time.Hour
	// Attempts is how often a session is begun anew in the life of a box, when
	// the card or the server has forgotten it: each costs somebody his way.
	Attempts = 3

	beatInterval = 30 * time.Second
	maxSteps     = 16 // requests of one session, with discovery servers
	maxParting   = 8  // farewells that nobody has carried yet
	maxTaken     = 64 // answers that are remembered, to know one that comes twice
)

// Options of a [Box]. Functions may be nil.
type Options struct {
	Limit   time.Duration // 0: DefaultLimit
	Beat    func()        // is called now and then while a request waits
	Changed func()        // a request waits, or waits no longer
	Log     *slog.Logger  // nil: discards
}

// Box holds the requests that wait to be carried, in a folder. One session at a
// time goes through it, that of the job of [Box.Rewind]. What matters survives a
// restart: the requests, and the answers up to the offer. All methods may be
// called from any goroutine.
type Box struct {
	dir string
	o   Options

	mu       sync.Mutex
	job      string
	steps    []step // of the session, in order
	next     int    // of steps: where the session is
	number   int64  // of the job's last packet
	host     string // that is talked to, in lower case
	answered chan struct{}
	note     string
	anew     int
	parting  []api.Packet // cancelSession: nobody waits for the answers
	taken    []api.Packet // answers, without their bodies; the oldest first
}

type step struct {
	request api.Packet
	answer  *api.Packet // nil: it waits
}

// Open reads what an earlier process has left in the folder, which need not
// exist. What cannot be read there is of no use, and is removed.
func Open(dir string, o Options) *Box {
	if o.Limit <= 0 {
		o.Limit = DefaultLimit
	}
	for _, f := range []*func(){&o.Beat, &o.Changed} {
		if *f == nil {
			*f = func() {}
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Box{dir: dir, o: o}
	b.load()
	return b
}

func (b *Box) load() {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			b.o.Log.Warn("packets of before are not readable", "err", err)
		}
		return
	}
	answers := map[string]api.Packet{}
	for _, e := range entries {
		name := filepath.Join(b.dir, e.Name())
		text, err := smallfile.Read(name, api.MaxPacket)
		var p api.Packet
		if err == nil {
			p, err = Parse(text)
		}
		switch {
		case err != nil || FileName(p) != e.Name() || len(b.steps) == maxSteps:
			b.o.Log.Warn("a packet of before is of no use", "file", e.Name(), "err", err)
			b.remove(e.Name())
		case p.Status != 0:
			answers[p.ID] = p
		case p.Function == Cancel:
			b.parting = append(b.parting, p)
		default:
			b.steps = append(b.steps, step{request: p})
		}
	}
	slices.SortFunc(b.steps, func(a, c step) int { return int(a.request.Number - c.request.Number) })
	lost := false
	for i := range b.steps {
		p := &b.steps[i].request
		b.number = p.Number
		if i == 0 {
			b.job = p.Job
		}
		if p.Job != b.job || i > 0 && b.steps[i-1].answer == nil {
			b.o.Log.Warn("packets of before do not belong together", "job", b.job)
			b.cut(i)
			break
		}
		if a, ok := answers[p.ID]; ok {
			b.steps[i].answer = &a
			delete(answers, p.ID)
		}
		// Whether the card still has the keys that a package was asked for with cannot be found out
		// without spoiling them, and one that it has no keys for would be an installation that failed.
		lost = lost || p.Function == Package
	}
	for id := range answers { // of a request that is gone
		b.remove(id + AnswerFile)
	}
	if lost {
		b.void("lpad was restarted while the profile package was on its way, and the card may have lost its keys for it")
	}
}

func (b *Box) remove(name string) {
	if err := os.Remove(filepath.Join(b.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		b.o.Log.Warn("packet not removed", "file", name, "err", err)
	}
}

// cut drops the steps from i on.
func (b *Box) cut(i int) {
	for _, s := range b.steps[i:] {
		b.remove(s.request.ID + RequestFile)
		b.remove(s.request.ID + AnswerFile)
	}
	b.steps = b.steps[:i]
	b.next = min(b.next, i)
	b.answered = nil
}

func (b *Box) void(why string) {
	b.cut(0)
	b.note = why
}

// Rewind begins the session of a job at its first request. What the box knows of
// this job is gone through again: a request that was made before gets the answer
// that it got, or waits on for it under its old id. It reports whether there is
// anything of before.
func (b *Box) Rewind(job string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.job != job {
		b.cut(0)
		b.job, b.number, b.note, b.anew = job, 0, "", 0
	}
	b.next = 0
	return len(b.steps) > 0
}

// Void forgets the session: card or server have. It reports whether it may be
// begun anew, which has a bound.
func (b *Box) Void(why string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.anew++
	b.void(why)
	return b.anew < Attempts
}

// Keep forgets the session unless its job has not ended.
func (b *Box) Keep(goesOn func(job string) bool) {
	b.mu.Lock()
	job := b.job
	b.mu.Unlock()
	if job != "" && !goesOn(job) {
		b.End(job)
	}
}

// End forgets a job that has ended. Its farewells stay.
func (b *Box) End(job string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.job == job {
		b.cut(0)
		b.job, b.note, b.number, b.anew = "", "", 0, 0
	}
}

// Challenge is what the card has said for the request that comes next, if that
// was made before and nobody is to ask the card again; else nil.
func (b *Box) Challenge() []byte {
	var said struct {
		Challenge []byte `json:"euiccChallenge"`
	}
	b.said(Initiate, &said)
	return said.Challenge
}

// Response is the same for the card's answer to the server's authentication.
func (b *Box) Response() []byte {
	var said struct {
		Response []byte `json:"authenticateServerResponse"`
	}
	b.said(Authenticate, &said)
	return said.Response
}

func (b *Box) said(function string, into any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == len(b.steps) {
		return
	}
	if p := b.steps[b.next].request; p.Function == function && strings.EqualFold(Host(p), b.host) {
		if err := json.Unmarshal([]byte(p.Body), into); err != nil {
			b.o.Log.Debug("packet of before", "err", err)
		}
	}
}

// To is the transport to a server, for one session of package es9p.
func (b *Box) To(address string) http.RoundTripper {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.host = address
	return b
}

var errNotification = fault.New(fault.Fault{Code: "no-network", Text: "the notifications of a device without a network go out as packets", Retry: true,
	Who: fault.Technician, Next: "carry them: lpactl packets get"}, nil)

// RoundTrip writes a request down and waits until it is answered, the box's limit
// is over or the request's context ends. A farewell waits for nobody.
func (b *Box) RoundTrip(r *http.Request) (*http.Response, error) {
	p, err := FromHTTP(r)
	if err != nil {
		return nil, err
	}
	switch p.Function {
	case Notify:
		return nil, errNotification
	case Cancel:
		return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, b.part(p)
	}
	a, err := b.ask(r.Context(), p)
	if err != nil {
		return nil, err
	}
	return Response(a), nil
}

// FromHTTP is a request as a packet without job, number and id.
func FromHTTP(r *http.Request) (api.Packet, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, api.MaxRequestPacket))
	if err = errors.Join(err, r.Body.Close()); err != nil {
		return api.Packet{}, err
	}
	url := "https://" + r.URL.Host + r.URL.Path
	return api.Packet{Function: strings.TrimPrefix(r.URL.Path, path), URL: url, Protocol: r.Header.Get("X-Admin-Protocol"), Body: string(body)}, nil
}

// Response is an answer as HTTP has it.
func Response(a api.Packet) *http.Response {
	r := &http.Response{StatusCode: a.Status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(a.Body)), ContentLength: int64(len(a.Body))}
	if a.RetryAfter > 0 {
		r.Header.Set("Retry-After", strconv.FormatInt(a.RetryAfter, 10))
	}
	return r
}

// part writes a farewell down.
func (b *Box) part(p api.Packet) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.Job, p.Number = b.job, b.number+1
	p = Request(p, "")
	if err := b.write(p); err != nil {
		return err
	}
	b.number++
	if b.parting = append(b.parting, p); len(b.parting) > maxParting {
		b.remove(FileName(b.parting[0]))
		b.parting = b.parting[1:]
	}
	return nil
}

func (b *Box) write(p api.Packet) error {
	err := os.MkdirAll(b.dir, 0o700)
	if err == nil {
		err = Write(b.dir, p)
	}
	if err != nil {
		return fault.New(fault.Fault{Code: "packet-not-written", Text: "a packet could not be written to the disk", Retry: true, Who: fault.Device,
			Next: "look at the disk that the state directory is on"}, err)
	}
	return nil
}

// ask gets the answer to the next request of the session.
func (b *Box) ask(ctx context.Context, p api.Packet) (api.Packet, error) {
	waits, err := b.begin(p)
	if err != nil {
		return p, err
	}
	if waits != nil {
		if err := b.wait(ctx, waits); err != nil {
			return p, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == len(b.steps) { // the box was given to another job meanwhile
		return p, Superseded(b.note)
	}
	s := &b.steps[b.next]
	b.next++
	a := *s.answer
	if p.Function == Package {
		s.answer = &api.Packet{ID: a.ID, Sum: a.Sum} // long, and never asked for again
	}
	return a, nil
}

// begin writes the request down, unless it was there before. The channel is nil
// when the answer is there too.
func (b *Box) begin(p api.Packet) (<-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next < len(b.steps) {
		before := b.steps[b.next].request
		if before.Function == p.Function && before.URL == p.URL && before.Protocol == p.Protocol && before.Body == p.Body {
			if b.steps[b.next].answer != nil {
				return nil, nil
			}
			b.answered = make(chan struct{})
			return b.answered, nil
		}
		b.cut(b.next) // card and server have gone on to something else
	}
	p.Job, p.Number = b.job, b.number+1
	p = Request(p, "")
	if err := b.write(p); err != nil {
		return nil, err
	}
	b.number++
	b.steps = append(b.steps, step{request: p})
	b.answered = make(chan struct{})
	return b.answered, nil
}

func (b *Box) wait(ctx context.Context, answered <-chan struct{}) error {
	b.o.Changed()
	defer b.o.Changed()
	limit := time.NewTimer(b.o.Limit)
	defer limit.Stop()
	beat := time.NewTicker(beatInterval)
	defer beat.Stop()
	for {
		select {
		case <-answered:
			return nil
		case <-ctx.Done():
			return b.giveUp(context.Cause(ctx))
		case <-limit.C:
			return b.giveUp(fault.New(fault.Fault{Code: "packet-timeout", Text: fmt.Sprintf("nobody has brought the answer of the server in %v", b.o.Limit), Retry: true,
				Who: fault.Technician, Next: "order again when somebody can carry packets; the activation code is still good"}, nil))
		case <-beat.C:
			b.o.Beat()
		}
	}
}

// giveUp ends a wait, unless the answer has just come.
func (b *Box) giveUp(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.answered == nil {
		return nil
	}
	b.answered = nil
	return err
}

// Wait is what a job waits for; ok is false when it does not.
func (b *Box) Wait(job string) (w api.PacketWait, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.job != job || b.answered == nil {
		return w, false
	}
	p := b.steps[b.next].request
	left := map[string]int64{Initiate: 2, Authenticate: 1}[p.Function]
	return api.PacketWait{ID: p.ID, Number: p.Number, Of: p.Number + left, Function: p.Function, Note: b.note}, true
}

// List are the requests that wait to be carried.
func (b *Box) List() []api.Packet {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := slices.Clone(b.parting)
	if n := len(b.steps); n > 0 && b.steps[n-1].answer == nil {
		list = append(list, b.steps[n-1].request)
	}
	return list
}

// Put hands an answer in, which was checked ([Check]). Once more the same answer
// is no error. When Put returns, the answer survives a restart, but for that of a
// profile package.
func (b *Box) Put(a api.Packet) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.taken {
		if t.ID == a.ID {
			return again(t, a)
		}
	}
	if i := slices.IndexFunc(b.parting, func(p api.Packet) bool { return p.ID == a.ID }); i >= 0 {
		b.remove(FileName(b.parting[i]))
		b.parting = slices.Delete(b.parting, i, i+1)
		b.take(a)
		return nil
	}
	for i := range b.steps {
		s := &b.steps[i]
		if s.request.ID != a.ID {
			continue
		}
		if s.answer != nil {
			return again(*s.answer, a)
		}
		if a.Function != s.request.Function {
			break
		}
		if a.Function != Package {
			if err := b.write(a); err != nil {
				return err
			}
		}
		s.answer = &a
		b.take(a)
		if i == b.next && b.answered != nil {
			close(b.answered)
			b.answered = nil
		}
		return nil
	}
	return Superseded(b.note)
}

func (b *Box) take(a api.Packet) {
	if b.taken = append(b.taken, api.Packet{ID: a.ID, Sum: a.Sum}); len(b.taken) > maxTaken {
		b.taken = b.taken[1:]
	}
}

// again judges an answer to what was answered before.
func again(before, a api.Packet) error {
	if before.Sum == a.Sum {
		return nil
	}
	return fault.New(fault.Fault{Code: api.CodeConflict, Text: "another answer to this packet was taken before", Who: fault.Nobody, Next: "nothing: the first one counts"}, nil)
}

// Superseded is the error of an answer that nothing waits for; why may be empty.
func Superseded(why string) error {
	var cause error
	if why != "" {
		cause = errors.New(why)
	}
	return fault.New(fault.Fault{Code: api.CodePacketSuperseded, Text: "nothing waits for this answer any more", Who: fault.Technician,
		Next: "get what waits now, and carry that: lpactl packets get"}, cause)
}

// One is the transport of a single call, whose request is completed by request
// and answered by answer.
type One func(p api.Packet) (api.Packet, error)

// RoundTrip asks the function.
func (f One) RoundTrip(r *http.Request) (*http.Response, error) {
	p, err := FromHTTP(r)
	if err != nil {
		return nil, err
	}
	a, err := f(p)
	if err != nil {
		return nil, err
	}
	return Response(a), nil
}
