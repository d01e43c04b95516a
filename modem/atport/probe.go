package atport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"lpad/apdu"
	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/modem"
	"lpad/modem/at"
	"lpad/modem/atcard"
	"lpad/modem/atmodem"
	"lpad/modem/quirks"
	"lpad/modem/serialport"
)

// Answer is what a probe found out about one capability.
type Answer string

// The answers.
const (
	Yes     Answer = "yes"     // it was done, and it worked
	No      Answer = "no"      // it was done, and it did not
	Unknown Answer = "unknown" // it could not be tried, or what came says neither
)

// Verdict is what a modem can do, as was found out by doing it. It can be shown to
// anybody: identifiers are shortened.
type Verdict struct {
	Port  string    `json:"port"`  // its present name
	Place string    `json:"place"` // in the USB tree; empty: not on USB
	At    time.Time `json:"at"`

	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Revision     string `json:"revision"`
	IMEI         string `json:"imei"` // shortened

	Quirks  []string       `json:"quirks"`  // lines of the table that fit, general first
	Notes   []string       `json:"notes"`   // what people should know of such modems
	Sources []string       `json:"sources"` // where that is from
	Ladder  []quirks.Rung  `json:"ladder"`  // of re-reading the SIM, cheapest first
	Learned quirks.Learned `json:"learned"` // what this device found out before

	Capabilities []Capability `json:"capabilities"`

	// Usable says that there is a way to an eUICC; Path is the best one.
	Usable bool        `json:"usable"`
	Path   quirks.Path `json:"path,omitempty"`
}

// Capability is one thing that a modem may be able to do.
type Capability struct {
	Name     string `json:"name"`            // "port", "echo", "identity", "errors", "sim", "iccid", "imsi", "ccho", "csim", "euicc", "block-size", "cfun", "registration", "clock", "slots", "alone", "foreign-lines"
	Answer   Answer `json:"answer"`          // yes, no, unknown
	Value    string `json:"value,omitempty"` // for programs: the command that works, a state, a number
	Evidence string `json:"evidence"`        // for people: what was done and what came of it
	Code     string `json:"code,omitempty"`  // of the fault, where there is one
	Next     string `json:"next,omitempty"`  // what can be done about it
	Millis   int64  `json:"ms"`              // how long it took
}

// Of finds a capability by its name.
func (v Verdict) Of(name string) (Capability, bool) {
	for _, c := range v.Capabilities {
		if c.Name == name {
			return c, true
		}
	}
	return Capability{}, false
}

const (
	probeLimit = 2 * time.Minute  // a modem that is silent to everything takes its time
	closeLimit = 10 * time.Second // for a channel, whatever happened before
)

// isdr is the AID of the ISD-R (SGP.02, section 2.2.3), for the probe alone: who
// works with the card says which application is meant.
var isdr = []byte{0xA0, 0x00, 0x00, 0x05, 0x59, 0x10, 0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x89, 0x00, 0x00, 0x01, 0x00}

// Probe finds out what the modem can do, by doing it: no test command (AT+X=?) is
// asked, for many modems answer those wrongly. It opens the port, reads what can
// be read, and opens a channel to the eUICC in both ways that there are, which it
// closes again. Nothing is changed: neither in the modem nor on the card. Nobody
// else may use the card meanwhile. When ctx ends, the probe ends after what it is
// looking at, so that nothing is left open.
//
// The verdict is complete as far as it goes, also with an error, which says that
// the port could not be used (to its end).
func (p *Port) Probe(ctx context.Context) (Verdict, error) {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeLimit)
	defer cancel()
	r := &probe{p: p, v: Verdict{Port: p.Path(), At: time.Now().UTC().Truncate(time.Second),
		Quirks: []string{}, Notes: []string{}, Sources: []string{}, Ladder: quirks.DefaultReread()}} // lists, never null
	err := r.run(work, ctx.Err)
	return r.v, err
}

// probe is one run. One goroutine.
type probe struct {
	p     *Port
	v     Verdict
	begin time.Time // of the capability that is being looked at
}

// add notes an answer.
func (r *probe) add(name string, a Answer, value, evidence string, err error) {
	c := Capability{Name: name, Answer: a, Value: value, Evidence: evidence, Millis: time.Since(r.begin).Milliseconds()}
	if err != nil {
		f := fault.Of(err)
		c.Code, c.Next = f.Code, f.Next
		c.Evidence = strings.TrimPrefix(evidence+": "+err.Error(), ": ")
	}
	r.v.Capabilities = append(r.v.Capabilities, c)
	r.begin = time.Now()
}

// said is No for a refusal and Unknown for anything else that went wrong.
func said(err error) Answer {
	switch {
	case err == nil:
		return Yes
	case at.Refused(err):
		return No
	}
	return Unknown
}

// run looks at one thing after the other until ended says that nobody wants to
// know any more.
func (r *probe) run(ctx context.Context, ended func() error) error {
	r.begin = time.Now()
	_, m, err := r.p.parts(ctx)
	r.v.Port = r.p.Path()
	if err != nil {
		r.add("port", No, "", "open the port and say AT", err)
		r.alone(err)
		return fmt.Errorf("probe: %w", err)
	}
	r.add("port", Yes, r.v.Port, "the port answers", nil)
	r.who()
	conn := r.p.connection()
	if conn == nil {
		return fmt.Errorf("probe: %w", at.ErrHangup)
	}
	for _, look := range []func(){
		func() { r.words(ctx, conn) },
		func() { r.sim(ctx, m) },
		func() { r.euicc(ctx, conn) },
		func() { r.network(ctx, m) },
		func() { r.slots(ctx, m) },
		func() { r.alone(nil) },
	} {
		if err := ended(); err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		look()
	}
	if conn.Contended() {
		r.add("foreign-lines", Yes, "", "answers came that nobody here asked for", at.ErrContended)
	} else {
		r.add("foreign-lines", No, "", "every line was an answer to a question of ours, or a message", nil)
	}
	if err := conn.Err(); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("probe: %w", ctx.Err())
	}
	return nil
}

func (p *Port) connection() *at.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn
}

// who is what opening has found out.
func (r *probe) who() {
	p := r.p
	p.mu.Lock()
	id, q, where := p.id, p.quirks, p.where
	p.mu.Unlock()
	r.v.Manufacturer, r.v.Model, r.v.Revision = id.Manufacturer, id.Model, id.Revision
	if id.IMEI != "" {
		r.v.IMEI = redact.Digits(id.IMEI)
	}
	if where.USB != "" {
		r.v.Place = where.String()
	}
	r.v.Quirks, r.v.Notes, r.v.Sources = append(r.v.Quirks, q.Names...), append(r.v.Notes, q.Notes...), append(r.v.Sources, q.Sources...)
	r.v.Ladder = q.Ladder()
	r.v.Learned = p.cfg.Learned.Get(id)
	a, evidence := Yes, fmt.Sprintf("it is a %s %s with firmware %s", id.Manufacturer, id.Model, id.Revision)
	if id == (modem.Identity{}) {
		a, evidence = No, "it does not say what it is"
	}
	if len(q.Names) == 0 {
		evidence += "; nothing is known of it beforehand"
	} else {
		evidence += "; known as " + strings.Join(q.Names, ", ")
	}
	r.add("identity", a, id.Model, evidence, nil)
}

// words are how the modem speaks.
func (r *probe) words(ctx context.Context, conn *at.Conn) {
	_, err := conn.Command(ctx, "ATE0")
	r.add("echo", said(err), "off", "ATE0 switches the echo off", err)
	lines, err := conn.Command(ctx, "AT+CMEE?")
	value := ""
	if err == nil && len(lines) > 0 {
		value = strings.TrimSpace(strings.TrimPrefix(lines[len(lines)-1], "+CMEE:"))
	}
	r.add("errors", said(err), value, map[string]string{"0": "errors come without a reason", "1": "errors come with numbers", "2": "errors come in words"}[value], err)
}

func (r *probe) sim(ctx context.Context, m *atmodem.Modem) {
	level, err := m.Functionality(ctx)
	value := ""
	if err == nil {
		value = strconv.Itoa(level)
	}
	r.add("cfun", said(err), value, "AT+CFUN? tells the level of functionality", err)
	waiting, cancel := context.WithTimeout(ctx, strangerTime)
	err = m.WaitSIM(waiting)
	cancel()
	switch {
	case err == nil:
		r.add("sim", Yes, "ready", "AT+CPIN? says that the SIM is ready", nil)
	case errors.Is(err, at.ErrLocked):
		r.add("sim", Yes, "locked", "AT+CPIN?", err)
	default: // an eUICC without a profile is no SIM
		r.add("sim", No, "", "AT+CPIN?", err)
	}
	iccid, err := m.ICCID(ctx)
	if err == nil {
		r.add("iccid", Yes, r.p.seen.ICCIDCommand(), "the modem shows "+redact.Digits(iccid), nil)
	} else {
		r.add("iccid", said(err), "", "no command for the ICCID", err)
	}
	imsi, err := m.IMSI(ctx)
	if err == nil {
		r.add("imsi", Yes, "AT+CIMI", "the modem shows "+redact.Digits(imsi), nil)
	} else {
		r.add("imsi", said(err), "", "AT+CIMI", err)
	}
}

// euicc opens the ISD-R by both paths.
func (r *probe) euicc(ctx context.Context, conn *at.Conn) {
	r.p.mu.Lock()
	opt := r.p.cardOptions()
	r.p.mu.Unlock()
	eid, found := "", Unknown
	works := map[quirks.Path]bool{}
	for _, way := range []struct {
		name quirks.Path
		path atcard.Path
		what string
	}{
		{quirks.CCHO, atcard.CCHO, "AT+CCHO, AT+CGLA, AT+CCHC"},
		{quirks.CSIM, atcard.CSIM, "MANAGE CHANNEL and SELECT by AT+CSIM"},
	} {
		opt.Path, opt.Paths, opt.OpenRetries = way.path, []atcard.Path{way.path}, 0
		got, err := r.p.askEID(ctx, conn, opt)
		switch {
		case err == nil:
			eid, found, works[way.name] = got, Yes, true
			r.add(string(way.name), Yes, string(way.name), way.what+" reach the ISD-R", nil)
		case errors.Is(err, apdu.ErrNotFound):
			if found == Unknown {
				found = No
			}
			r.add(string(way.name), Yes, string(way.name), way.what+" reach the card, which has no ISD-R", nil)
		default:
			r.add(string(way.name), said(err), "", way.what, err)
		}
	}
	switch {
	case found == Yes:
		r.v.Usable, r.v.Path = true, r.best(works)
		r.add("euicc", Yes, string(r.v.Path), "the ISD-R gives the EID "+redact.Digits(eid), nil)
	case found == No:
		r.add("euicc", No, "", "the card has no ISD-R: it is an ordinary SIM, or the eUICC is in another slot", nil)
	default:
		r.add("euicc", Unknown, "", "no way to the card works", nil)
	}
	size, from := opt.BlockSize, "the configuration"
	if size == 0 {
		size, from = r.v.Learned.BlockSize, "what worked before"
	}
	if size == 0 {
		size, from = opt.Start, "what is known of such modems"
	}
	if size == 0 {
		r.add("block-size", Unknown, "", "it is found out by the first download", nil)
	} else {
		r.add("block-size", Yes, strconv.Itoa(size), "bytes in one command, by "+from, nil)
	}
}

// best is the first path that works, in the order in which they would be tried.
func (r *probe) best(works map[quirks.Path]bool) quirks.Path {
	q, was := r.p.Known()
	ordered := map[atcard.Path]quirks.Path{atcard.CCHO: quirks.CCHO, atcard.CSIM: quirks.CSIM}[r.p.cfg.Card.Path]
	for _, path := range append(append([]quirks.Path{ordered, was.Path}, q.APDU.Paths...), quirks.CCHO, quirks.CSIM) {
		if works[path] {
			return path
		}
	}
	return ""
}

// askEID opens the ISD-R, asks for the EID and closes the channel again.
func (p *Port) askEID(ctx context.Context, conn *at.Conn, opt atcard.Options) (eid string, err error) {
	card, err := atcard.Open(ctx, conn, opt)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, card.Close()) }()
	var ch *apdu.Channel
	for _, aid := range append([][]byte{isdr}, p.cfg.ISDRs...) {
		if ch, err = card.OpenChannel(ctx, aid); !errors.Is(err, apdu.ErrNotFound) {
			break
		}
	}
	if err != nil {
		return "", err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
		defer cancel()
		err = errors.Join(err, ch.Close(ending))
	}()
	// ES10c.GetEID (SGP.22 v2.5, section 5.7.20) in one block of STORE DATA.
	r, err := ch.Transmit(ctx, apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: []byte{0xBF, 0x3E, 0x03, 0x5C, 0x01, 0x5A}})
	if err != nil {
		return "", err
	}
	head := []byte{0xBF, 0x3E, 0x12, 0x5A, 0x10}
	if len(r.Data) != len(head)+16 || !bytes.HasPrefix(r.Data, head) {
		return "", fmt.Errorf("EID: %w", atcard.ErrMalformed)
	}
	return fmt.Sprintf("%X", r.Data[len(head):]), nil
}

func (r *probe) network(ctx context.Context, m *atmodem.Modem) {
	reg, err := m.Registration(ctx)
	evidence := "AT+CEREG? and its like"
	if err == nil {
		evidence = strings.TrimSpace(fmt.Sprintf("%s %s %s", reg.Operator, reg.PLMN, reg.Access))
	}
	r.add("registration", said(err), string(reg.State), evidence, err)
	clock, err := m.Clock(ctx)
	switch {
	case err == nil:
		r.add("clock", Yes, clock.UTC().Format(time.RFC3339), "AT+CCLK? tells the time", nil)
	case errors.Is(err, atmodem.ErrNoTime):
		r.add("clock", Yes, "", "AT+CCLK?", err)
	default:
		r.add("clock", said(err), "", "AT+CCLK?", err)
	}
}

func (r *probe) slots(ctx context.Context, m *atmodem.Modem) {
	active, _, err := m.Slot(ctx)
	switch {
	case err == nil:
		r.add("slots", Yes, strconv.Itoa(active), "the slot in use, by the maker's number", nil)
	case errors.Is(err, atmodem.ErrNoSlots):
		r.add("slots", Unknown, "", "no slot command of this modem is known", nil)
	default:
		r.add("slots", said(err), "", "ask for the slot in use", err)
	}
}

// alone tells whether somebody else uses the port.
func (r *probe) alone(err error) {
	if errors.Is(err, serialport.ErrBusy) {
		r.add("alone", No, serialport.Owner(r.v.Port), "the port", err)
		return
	}
	holders, complete := serialport.Holders(r.v.Port)
	names := make([]string, len(holders))
	for i, h := range holders {
		names[i] = h.String()
	}
	switch {
	case len(names) > 0:
		r.add("alone", No, strings.Join(names, ", "), "others have the port open: each takes answers from the other", serialport.ErrBusy)
	case complete:
		r.add("alone", Yes, "", "nobody else has the port open", nil)
	default:
		r.add("alone", Unknown, "", "this user may not see who has the port open", nil)
	}
}
