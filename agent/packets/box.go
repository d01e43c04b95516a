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
	Limit   time.Duration    // 0: DefaultLimit
	Beat    func()           // is called now and then while a request waits
	Changed func(job string) // a request of the job waits, or waits no longer
	Log     *slog.Logger     // nil: discards
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
	steps    []*step // of the session, in order
	next     int     // of steps: where the session is
	number   int64   // of the job's last packet
	host     string  // that is talked to, in lower case
	answered chan struct{}
	note     string
	anew     int
	parting  []*step // cancelSession: nobody waits for the answers
	taken    []mark  // answers; the oldest first
}

type step struct {
	request *api.Packet
	answer  *api.Packet // nil: it waits
}

// mark is what is kept of an answer to know it again.
type mark struct{ id, sum string }

// Open reads what an earlier process has left in the folder, which need not
// exist. What cannot be read there is of no use, and is removed.
func Open(dir string, o Options) *Box {
	if o.Limit <= 0 {
		o.Limit = DefaultLimit
	}
	if o.Beat == nil {
		o.Beat = func() {}
	}
	if o.Changed == nil {
		o.Changed = func(string) {}
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
	var answers []*api.Packet
	for _, e := range entries {
		name := e.Name()
		text, err := smallfile.Read(filepath.Join(b.dir, name), api.MaxPacket)
		s := &step{}
		if err == nil {
			s.request, err = Parse(text)
		}
		switch p := s.request; {
		case err != nil || FileName(p) != name || len(b.steps) == maxSteps:
			b.o.Log.Warn("a packet of before is of no use", "file", name, "err", err)
			b.remove(name)
		case p.Status != 0:
			answers = append(answers, p)
		case p.Function == Cancel:
			b.parting = append(b.parting, s)
		default:
			b.steps = append(b.steps, s)
			for i := len(b.steps) - 1; i > 0 && b.steps[i-1].request.Number > p.Number; i-- {
				b.steps[i], b.steps[i-1] = b.steps[i-1], s
			}
		}
	}
	for _, a := range answers {
		if s := b.find(a.ID); s != nil {
			s.answer = a
		} else {
			b.remove(FileName(a)) // of a request that is gone
		}
	}
	lost := false
	for i, s := range b.steps {
		p := s.request
		b.number = p.Number
		if i == 0 {
			b.job = p.Job
		}
		if p.Job != b.job || i > 0 && b.steps[i-1].answer == nil {
			b.o.Log.Warn("packets of before do not belong together", "job", b.job)
			b.cut(i)
			break
		}
		// Whether the card still has the keys that a package was asked for with cannot be found out
		// without spoiling them, and one that it has no keys for would be an installation that failed.
		lost = lost || p.Function == Package
	}
	if lost {
		b.void("lpad was restarted while the profile package was on its way, and the card may have lost its keys for it")
	}
}

// find is the step of the session with an id, or nil.
func (b *Box) find(id string) *step {
	for _, s := range b.steps {
		if s.request.ID == id {
			return s
		}
	}
	return nil
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

// Said is what the card has said for the request that comes next, if that was
// made before, of a function, and nobody is to ask the card again; else nil. It is
// the challenge of the first, the response of the second request of a session.
func (b *Box) Said(function string) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	var said struct {
		Challenge []byte `json:"euiccChallenge"`
		Response  []byte `json:"authenticateServerResponse"`
	}
	if b.next < len(b.steps) {
		p := b.steps[b.next].request
		if p.Function == function && strings.EqualFold(Host(p), b.host) && json.Unmarshal([]byte(p.Body), &said) == nil {
			return append(said.Challenge, said.Response...)
		}
	}
	return nil
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
	p, err := fromHTTP(r)
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
	return response(a), nil
}

// fromHTTP is a request as a packet without job, number and id.
func fromHTTP(r *http.Request) (*api.Packet, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, api.MaxRequestPacket))
	if err = errors.Join(err, r.Body.Close()); err != nil {
		return nil, err
	}
	url := "https://" + r.URL.Host + r.URL.Path
	return &api.Packet{Function: strings.TrimPrefix(r.URL.Path, path), URL: url, Protocol: r.Header.Get("X-Admin-Protocol"), Body: string(body)}, nil
}

// response is an answer as HTTP has it.
func response(a *api.Packet) *http.Response {
	r := &http.Response{StatusCode: a.Status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(a.Body)), ContentLength: int64(len(a.Body))}
	if a.RetryAfter > 0 {
		r.Header.Set("Retry-After", strconv.FormatInt(a.RetryAfter, 10))
	}
	return r
}

// part writes a farewell down.
func (b *Box) part(p *api.Packet) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.add(p); err != nil {
		return err
	}
	if b.parting = append(b.parting, &step{request: p}); len(b.parting) > maxParting {
		b.remove(FileName(b.parting[0].request))
		b.parting = b.parting[1:]
	}
	return nil
}

// add completes a request of the job and writes it down.
func (b *Box) add(p *api.Packet) error {
	p.Job, p.Number = b.job, b.number+1
	Request(p, "")
	err := b.write(p)
	if err == nil {
		b.number++
	}
	return err
}

func (b *Box) write(p *api.Packet) error {
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
func (b *Box) ask(ctx context.Context, p *api.Packet) (*api.Packet, error) {
	waits, err := b.begin(p)
	if err == nil && waits != nil {
		err = b.wait(ctx, p.Job, waits)
	}
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == len(b.steps) { // the box was given to another job meanwhile
		return nil, Superseded(b.note)
	}
	s := b.steps[b.next]
	b.next++
	a := s.answer
	if p.Function == Package {
		s.answer = &api.Packet{ID: a.ID, Sum: a.Sum} // it is long, and never asked for again
	}
	return a, nil
}

// begin writes the request down, unless it was there before. The channel is nil
// when the answer is there too.
func (b *Box) begin(p *api.Packet) (<-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.Job = b.job
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
	if err := b.add(p); err != nil {
		return nil, err
	}
	b.steps = append(b.steps, &step{request: p})
	b.answered = make(chan struct{})
	return b.answered, nil
}

func (b *Box) wait(ctx context.Context, job string, answered <-chan struct{}) error {
	b.o.Changed(job)
	defer b.o.Changed(job)
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

// Wait is what a job waits for, or nil.
func (b *Box) Wait(job string) *api.PacketWait {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.job != job || b.answered == nil {
		return nil
	}
	p := b.steps[b.next].request
	w := &api.PacketWait{ID: p.ID, Number: p.Number, Of: p.Number, Function: p.Function, Note: b.note}
	switch p.Function {
	case Initiate:
		w.Of += 2
	case Authenticate:
		w.Of++
	}
	return w
}

// List are the requests that wait to be carried.
func (b *Box) List() []api.Packet {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []api.Packet
	for _, s := range append(b.parting[:len(b.parting):len(b.parting)], b.steps...) {
		if s.answer == nil {
			list = append(list, *s.request)
		}
	}
	return list
}

// Put hands an answer in, which was checked ([Check]). Once more the same answer
// is no error. When Put returns, the answer survives a restart, but for that of a
// profile package.
func (b *Box) Put(a *api.Packet) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.taken {
		if t.id == a.ID {
			return again(t.sum, a)
		}
	}
	for i, s := range b.parting {
		if s.request.ID == a.ID {
			b.remove(FileName(s.request))
			b.parting = append(b.parting[:i], b.parting[i+1:]...)
			b.take(a)
			return nil
		}
	}
	s := b.find(a.ID)
	switch {
	case s == nil || a.Function != s.request.Function:
		return Superseded(b.note)
	case s.answer != nil:
		return again(s.answer.Sum, a)
	case a.Function != Package:
		if err := b.write(a); err != nil {
			return err
		}
	}
	s.answer = a
	b.take(a)
	if b.answered != nil && b.steps[b.next] == s {
		close(b.answered)
		b.answered = nil
	}
	return nil
}

func (b *Box) take(a *api.Packet) {
	if b.taken = append(b.taken, mark{a.ID, a.Sum}); len(b.taken) > maxTaken {
		b.taken = b.taken[1:]
	}
}

// again judges an answer to what was answered before.
func again(before string, a *api.Packet) error {
	if before == a.Sum {
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
type One func(p *api.Packet) (*api.Packet, error)

// RoundTrip asks the function.
func (f One) RoundTrip(r *http.Request) (*http.Response, error) {
	p, err := fromHTTP(r)
	if err != nil {
		return nil, err
	}
	a, err := f(p)
	if err != nil {
		return nil, err
	}
	return response(a), nil
}
