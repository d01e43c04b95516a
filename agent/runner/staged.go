package runner

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"lpad/agent/job"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/switchover"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// Terminal parameters belong to a profile: those that came with its
// installation wait for it to be enabled, those that a switch has proven stay
// for the next one, and all of them leave with the profile. Each profile has
// one document, in a setting of the journal of its own, for it may be large and
// hold passwords.

// Staged is the document of a profile.
type Staged struct {
	ICCID      rsp.ICCID       `json:"iccid"`
	EID        rsp.EID         `json:"eid,omitzero"` // of the card; zero: not known
	Document   json.RawMessage `json:"document"`
	Generation int64           `json:"generation,omitempty"`
	Source     string          `json:"source"`              // "order", or who set it
	Serial     int64           `json:"serial,omitempty"`    // of the signed order that brought it
	ReportTo   string          `json:"report_to,omitempty"` // who is to hear that it was applied, once; it may hold a token
	At         time.Time       `json:"at"`                  // when it came
}

// Bounds of what is staged. The largest sensible document has 3 kB.
const (
	maxStaged      = 16
	maxStagedBytes = 256 << 10
)

// stagedPrefix begins the keys of the journal's settings that hold documents.
const stagedPrefix = "parameters/"

func stagedKey(iccid rsp.ICCID) string { return stagedPrefix + iccid.String() }

// Document finds the document of a profile.
func (m Memory) Document(iccid rsp.ICCID) (Staged, bool) {
	at := slices.IndexFunc(m.Staged, func(s Staged) bool { return s.ICCID == iccid })
	if at < 0 {
		return Staged{}, false
	}
	return m.Staged[at], true
}

// The reasons for which a document does not take the place of another one.
const (
	outdated    = "the profile has terminal parameters of a higher generation already"
	conflicting = "the profile has other terminal parameters of the same generation already"
)

// supersedes says why a document does not take the place of s; empty: it does.
// One without a generation replaces another without.
func (s Staged) supersedes(document json.RawMessage, generation int64) (not string) {
	switch {
	case generation < s.Generation:
		return outdated
	case generation == s.Generation && generation > 0 && !bytes.Equal(compact(document), s.Document):
		return conflicting
	}
	return ""
}

// compact is a document without white space between its members: two that say
// the same in the same order are equal.
func compact(document json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, document) != nil {
		return document
	}
	return b.Bytes()
}

// stage files the document of a profile, unless the profile has a newer one.
// Where there is no room, the oldest goes that is not of this profile.
func (m Memory) stage(s Staged) Memory {
	s.Document = compact(s.Document)
	if old, found := m.Document(s.ICCID); found && (old.supersedes(s.Document, s.Generation) != "" || bytes.Equal(old.Document, s.Document)) {
		return m
	}
	m = m.unstage(s.ICCID)
	m.Staged = append(m.Staged, s)
	for len(m.Staged) > 1 && !m.room() {
		m.Staged = m.Staged[1:]
	}
	return m
}

func (m Memory) room() bool {
	size := 0
	for _, s := range m.Staged {
		size += len(s.Document)
	}
	return len(m.Staged) <= maxStaged && size <= maxStagedBytes
}

// unstage drops the document of a profile.
func (m Memory) unstage(iccid rsp.ICCID) Memory {
	m.Staged = slices.DeleteFunc(slices.Clone(m.Staged), func(s Staged) bool { return s.ICCID == iccid })
	return m
}

// forget drops all that belongs to a profile which has been deleted.
func (m Memory) forget(iccid rsp.ICCID) Memory {
	m = m.release(iccid).unlearn(iccid).unstage(iccid).resume(iccid, "")
	if m.Applied.ICCID == iccid {
		m.Applied = AppliedSet{}
	}
	return m
}

// AppliedSet is what the device was set to when it came online with a profile.
type AppliedSet struct {
	ICCID      rsp.ICCID       `json:"iccid"`
	At         time.Time       `json:"at"`
	Parameters []job.Parameter `json:"parameters,omitempty"`
}

// Suspension is a source whose values have kept the modem from its network, for
// one profile. It is not used until its generation is another one; one that has
// none, until it says something else.
type Suspension struct {
	ICCID rsp.ICCID `json:"iccid"`
	Origin
	Code string    `json:"code,omitempty"` // of the problem
	At   time.Time `json:"at"`
	Job  string    `json:"job"` // in which it failed
}

// maxSuspended bounds the list: the oldest entry goes.
const maxSuspended = 32

// suspend remembers that sources have failed their trial.
func (m Memory) suspend(j job.Job, origins []Origin, p *job.Problem, at time.Time) Memory {
	for _, o := range origins {
		s := Suspension{ICCID: j.ICCID(), Origin: o, At: at, Job: j.ID}
		if p != nil {
			s.Code = p.Code
		}
		m = m.resume(s.ICCID, o.Source)
		m.Suspended = append(m.Suspended, s)
		if over := len(m.Suspended) - maxSuspended; over > 0 {
			m.Suspended = m.Suspended[over:]
		}
	}
	return m
}

// resume gives a source another chance with a profile; without a name, all.
func (m Memory) resume(iccid rsp.ICCID, source string) Memory {
	m.Suspended = slices.DeleteFunc(slices.Clone(m.Suspended), func(s Suspension) bool {
		return s.ICCID == iccid && (source == "" || s.Source == source)
	})
	return m
}

// acquit ends the suspension of sources whose values the device has come online
// with after all.
func (m Memory) acquit(a AppliedSet) Memory {
	m.Suspended = slices.DeleteFunc(slices.Clone(m.Suspended), func(s Suspension) bool {
		return s.ICCID == a.ICCID && slices.ContainsFunc(a.Parameters, func(p job.Parameter) bool {
			return p.Source == s.Source && p.Generation == s.Generation && p.State == job.ParameterApplied
		})
	})
	return m
}

// suspended reports whether a source has failed its trial with a profile. A
// document that the order of job j itself brings is on a new trial, until it
// fails in that job.
func (m Memory) suspended(j job.Job, fresh bool) func(Origin) bool {
	return func(o Origin) bool {
		return slices.ContainsFunc(m.Suspended, func(s Suspension) bool {
			return s.ICCID == j.ICCID() && s.Origin.same(o) && (!fresh || s.Source != orderSource(j.Order) || s.Job == j.ID)
		})
	}
}

// orderSource is the source of the document of an order: "order", or with its
// issuer, if it is signed.
func orderSource(o job.Order) string {
	if o.Issuer == "" {
		return sourceOrder
	}
	return sourceOrder + ": " + o.Issuer
}

const sourceOrder = "order"

// stagedOf is the document that an order brings, for the profile of its job.
func stagedOf(j job.Job, generation int64, eid rsp.EID, at time.Time) Staged {
	return Staged{ICCID: j.ICCID(), EID: eid, Document: j.Order.Parameters, Generation: generation, Source: orderSource(j.Order), Serial: j.Order.Serial,
		ReportTo: j.Order.ReportTo, At: at}
}

// question asks what the profile of a job wants: by the document of the order,
// unless the profile has a newer one, else by that which was staged for it.
func (m Memory) question(j job.Job, p rsp.Profile, generation func(json.RawMessage) int64) (q Question, note string) {
	q = Question{Profile: p, Good: m.good(p.ICCID)}
	staged, found := m.Document(p.ICCID)
	own := j.Order.Parameters
	if own != nil && found {
		note = staged.supersedes(own, generation(own))
	}
	fresh := own != nil && note == ""
	switch {
	case fresh:
		q.Document, q.Source = own, orderSource(j.Order)
	case found:
		q.Document, q.Source, q.Kept = staged.Document, staged.Source, true
	}
	q.Suspended = m.suspended(j, fresh)
	return q, note
}

// judge remembers what was applied, and what has failed its trial.
func (m Memory) judge(next job.Job, e job.Event) Memory {
	if e.Kind == job.Online && e.Source != "" { // there is something on this device that has an APN
		m.Applied = AppliedSet{ICCID: next.ICCID(), At: e.At, Parameters: next.Parameters}
		m = m.acquit(m.Applied)
	}
	var v verdict
	if len(e.Trial) > 0 && json.Unmarshal(e.Trial, &v) == nil {
		for _, o := range v.Gone {
			m = m.resume(next.ICCID(), o.Source)
		}
		m = m.suspend(next, v.Failed, e.Problem, e.At)
	}
	return m
}

// verdict is what an event says of sources on trial.
type verdict struct {
	Failed []Origin `json:"failed,omitempty"`
	Gone   []Origin `json:"gone,omitempty"` // that had failed, and are there no more as they were
}

// staging files the document of an order under its profile: once the profile is
// installed, and once a switch has proven it.
func (r *Runner) staging(m Memory, before, next job.Job, e job.Event) Memory {
	proven := before.State == job.Committing && next.State == job.Confirming && next.Problem == nil
	if e.Kind == job.Loaded { // a card takes no profile that it has: what there is belongs to one that was deleted
		m = m.unstage(next.ICCID())
	}
	if own := before.Order.Parameters; len(own) > 0 && (proven || e.Kind == job.Loaded) {
		s := stagedOf(next, r.cfg.Settings.Generation(own), r.View().eid(), e.At)
		if old, found := m.Document(s.ICCID); found {
			if not := old.supersedes(s.Document, s.Generation); not != "" {
				r.log.Warn("the terminal parameters of the order are not kept", "job", next.ID, "iccid", s.ICCID, "why", not)
			}
		}
		m = m.stage(s)
	}
	if s, found := m.Document(next.ICCID()); found && proven && s.ReportTo != "" { // who was to hear of it hears of this one
		m = m.unstage(s.ICCID)
		s.ReportTo = ""
		m.Staged = append(m.Staged, s)
	}
	return m
}

// rememberStaged makes what is staged durable, each document in a setting of
// its own.
func (r *Runner) rememberStaged(m Memory) error {
	was := r.View().Memory
	for _, s := range m.Staged {
		if old, found := was.Document(s.ICCID); found && old.same(s) {
			continue
		}
		if err := r.cfg.Journal.PutSetting(stagedKey(s.ICCID), s); err != nil {
			return err
		}
	}
	for _, s := range was.Staged {
		if _, kept := m.Document(s.ICCID); kept {
			continue
		}
		if err := r.cfg.Journal.ForgetSetting(stagedKey(s.ICCID)); err != nil {
			return err
		}
		r.log.Info("the terminal parameters of a profile are dropped", "iccid", s.ICCID, "source", s.Source)
	}
	return nil
}

func (s Staged) same(o Staged) bool {
	return s.At.Equal(o.At) && s.EID == o.EID && s.Generation == o.Generation && s.Source == o.Source && s.Serial == o.Serial && s.ReportTo == o.ReportTo &&
		bytes.Equal(s.Document, o.Document)
}

// recallStaged reads what is staged from the journal, the oldest first.
func (r *Runner) recallStaged() []Staged {
	var list []Staged
	for _, key := range r.cfg.Journal.SettingKeys(stagedPrefix) {
		var s Staged
		if _, err := r.cfg.Journal.Setting(key, &s); err != nil || key != stagedKey(s.ICCID) {
			r.log.Warn("terminal parameters of a profile are not readable", "key", key, "err", err)
			continue
		}
		list = append(list, s)
		for at := len(list) - 1; at > 0 && list[at-1].At.After(s.At); at-- {
			list[at-1], list[at] = s, list[at-1]
		}
	}
	return list
}

// absentFor is for how long a profile must be missing from its card before what
// belongs to it is dropped. A card that was just reset, or a modem that starts,
// may leave profiles out for a while.
const absentFor = time.Hour

// prune drops the documents of profiles that somebody else has deleted from the
// card. One reading is no proof of that: a profile must be missing each time, at
// first and again absentFor later, from lists of its own card with other profiles
// in them. An empty list says nothing, and how long a restart took does not
// count. What is kept too long is bounded, and goes with the profile's next
// installation.
func (r *Runner) prune(f procedure.Facts) {
	if len(f.Profiles) == 0 {
		return
	}
	m, now := r.View().Memory, time.Now()
	for _, s := range m.Staged {
		if s.EID != f.EID {
			continue
		}
		if slices.ContainsFunc(f.Profiles, func(p rsp.Profile) bool { return p.ICCID == s.ICCID }) {
			delete(r.absent, s.ICCID)
			continue
		}
		switch since, noted := r.absent[s.ICCID]; {
		case !noted:
			r.absent[s.ICCID] = now
			r.log.Info("a profile is missing from its card; its terminal parameters are kept for now", "iccid", s.ICCID)
		case now.Sub(since) >= absentFor:
			m = m.forget(s.ICCID)
		}
	}
	if len(m.Staged) == len(r.View().Memory.Staged) {
		return
	}
	if err := r.remember(m); err != nil { // it will be tried at the next look
		r.log.Warn("terminal parameters of a deleted profile stay", "err", err)
	}
}

// suspensionWarnings tell of the sources that are not used.
func (m Memory) suspensionWarnings() []string {
	var out []string
	for _, s := range m.Suspended {
		out = append(out, fmt.Sprintf("the terminal parameters from %q (generation %d) are suspended for the profile %s: with them the modem found no network; they are used again when their generation changes",
			s.Source, s.Generation, redact.Digits(s.ICCID.String())))
	}
	return out
}

var errNoRoom = fault.New(fault.Fault{Code: "parameters-full", Text: fmt.Sprintf("terminal parameters of %d profiles, or %d kB of them, are kept already", maxStaged, maxStagedBytes>>10),
	Who: fault.Technician, Next: "clear those of a profile that needs none (lpactl params clear ICCID), or delete the profile"}, nil)

// takes refuses an order whose document could not be kept, or has been replaced
// by a newer one of the profile.
func (m Memory) takes(o job.Order, generation func(json.RawMessage) int64) error {
	if len(o.Parameters) == 0 {
		return nil
	}
	if s, found := m.Document(o.ICCID); found && o.Kind == job.Enable {
		if not := s.supersedes(o.Parameters, generation(o.Parameters)); not != "" {
			return errOutdated(not)
		}
	}
	return m.roomFor(o.ICCID, o.Parameters)
}

func errOutdated(why string) error {
	return fault.New(fault.Fault{Code: "parameters-outdated", Text: why, Who: fault.Technician,
		Next: "give the document a higher generation, or clear what the profile has first (lpactl params clear ICCID)"}, nil)
}

// inherit has the end of a switch that uses a profile's own document reported to
// whoever has sent that.
func (m Memory) inherit(o job.Order) job.Order {
	if s, found := m.Document(o.ICCID); found && o.Kind == job.Enable && len(o.Parameters) == 0 && o.ReportTo == "" {
		o.ReportTo = s.ReportTo
	}
	return o
}

// roomFor refuses a document for which there would be no room.
func (m Memory) roomFor(iccid rsp.ICCID, document json.RawMessage) error {
	m = m.unstage(iccid)
	m.Staged = append(m.Staged, Staged{Document: compact(document)})
	if !m.room() {
		return errNoRoom
	}
	return nil
}

// note keeps what the switch of a job sets, and logs what a person should hear
// of it, once.
func (r *Runner) note(j job.Job, e Effective) {
	r.card.effective = e
	told := j.ID + strings.Join(e.Notes, "\n")
	if told == r.card.told {
		return
	}
	r.card.told = told
	for _, n := range e.Notes {
		r.log.Info("terminal parameters", "job", j.ID, "iccid", j.ICCID(), "note", n)
	}
}

// leafDefault is the leaf of the access point for the device's data. Those that
// are tried after the first have a number behind it.
const leafDefault = "apns.default"

func isDefault(leaf string) bool {
	return leaf == leafDefault || strings.HasPrefix(leaf, leafDefault+".")
}

// stateUnsupported is the state of what this modem, or who manages it, could not
// be set to.
const (
	stateUnsupported = "unsupported"
	stateSuspended   = "suspended" // it has failed its trial
)

// set is the set of which the access point of a candidate was applied, and the
// rest as far as it could be.
func (e Effective) set(a switchover.Applied) []job.Parameter {
	want := leafDefault
	if a.Index > 0 {
		want += "." + strconv.Itoa(a.Index+1)
	}
	var out []job.Parameter
	for _, p := range e.Parameters {
		switch {
		case p.Leaf == want:
			p.Leaf = leafDefault
		case isDefault(p.Leaf):
			continue
		}
		if lacks(a.NotApplied, p.Leaf) {
			p.State = stateUnsupported
		}
		out = append(out, p)
	}
	return out
}

// suspend says of a leaf that it is not used.
func suspend(list []job.Parameter, leaf string) {
	for i := range list {
		if list[i].Leaf == leaf {
			list[i].State = stateSuspended
		}
	}
}

// lacks reports whether a leaf is among the settings that could not be made: by
// its name, by that of its group, or an access point by one of its purposes.
func lacks(notApplied []string, leaf string) bool {
	for _, text := range notApplied {
		what, _, _ := strings.Cut(text, ": ")
		if leaf == what || strings.HasPrefix(leaf, what+".") {
			return true
		}
		if purpose, ok := strings.CutPrefix(leaf, "apns."); ok && slices.Contains(strings.Split(what, ","), purpose) {
			return true
		}
	}
	return false
}

// leafAttach is the leaf of the access point of the initial attach. Package
// switchover leaves it out when the first candidate finds no network with it.
const leafAttach = "apns.ia"

// failed names the sources of what did not pass: of all that is on trial, when no
// attempt found a network; of the attach, when one did without it. An attempt
// that failed because the modem was away has tried nothing.
func (e Effective) failed(attempts []switchover.Attempt, online bool) []Origin {
	none, found := 0, online
	for _, a := range attempts {
		switch {
		case a.Stage > switchover.StageRegister:
			found = true
		case a.Stage == switchover.StageRegister && !lineLost(a.Err) && !starting(a.Err):
			none++
		}
	}
	if none == 0 || !found && none < len(attempts) {
		return nil
	}
	var origins []Origin
	for _, t := range e.Trial {
		if (!found || t.Leaf == leafAttach) && !slices.Contains(origins, t.Origin) {
			origins = append(origins, t.Origin)
		}
	}
	return origins
}

// verdict is what the event of a job says of its sources on trial; nil: nothing.
func (r *Runner) verdict(j job.Job, failed []Origin) (json.RawMessage, error) {
	v := verdict{Failed: failed}
	for _, s := range r.View().Memory.Suspended {
		if s.ICCID == j.ICCID() && !slices.ContainsFunc(r.card.effective.Given, s.Origin.same) {
			v.Gone = append(v.Gone, s.Origin)
		}
	}
	if len(v.Failed)+len(v.Gone) == 0 {
		return nil, nil
	}
	return json.Marshal(v)
}

// failedTrial is what err tells of it.
func (r *Runner) failedTrial(j job.Job, err error) json.RawMessage {
	var verify *switchover.VerifyError
	if !errors.As(err, &verify) {
		return nil
	}
	raw, err := r.verdict(j, r.card.effective.failed(verify.Attempts, false))
	if err != nil {
		return nil // it is tried once more
	}
	return raw
}
