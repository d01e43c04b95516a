package runner

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"lpad/agent/desired"
	"lpad/agent/job"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/modem"
)

// Memory is what outlives the jobs: which profile the device can rely on, which
// ones it cannot, and what the last job left on the card. It is a value: what
// it holds is never changed, only replaced.
type Memory struct {
	Proven     Proven       `json:"proven,omitzero"`
	Quarantine []Quarantine `json:"quarantine,omitempty"` // the oldest first
	Left       Left         `json:"left,omitzero"`
	Good       []GoodAPN    `json:"good,omitempty"` // the oldest first

	Serials []Serial `json:"serials,omitempty"` // of issuers of signed orders, the oldest first

	Applied   AppliedSet   `json:"applied,omitzero"`
	Suspended []Suspension `json:"suspended,omitempty"` // the oldest first
	Staged    []Staged     `json:"-"`                   // the oldest first; each in a setting of its own

	Declared []*desired.Entry `json:"-"` // in a setting of its own
}

// GoodAPN is an access point that carried data with a profile: the first to be
// tried when the device comes back to it. It holds a password, as the journal
// may and a log may not.
type GoodAPN struct {
	ICCID       rsp.ICCID    `json:"iccid"`
	Name        string       `json:"name"`
	Type        modem.IPType `json:"type,omitempty"`
	RoamingType modem.IPType `json:"roaming_type,omitempty"`
	Auth        modem.Auth   `json:"auth,omitempty"`
	User        string       `json:"user,omitempty"`
	Password    string       `json:"password,omitempty"`
	MTU         int          `json:"mtu,omitempty"`
}

// maxGood bounds the list: the one that was used the longest ago goes.
const maxGood = 32

func goodAPN(iccid rsp.ICCID, a modem.APN) (json.RawMessage, error) {
	return json.Marshal(GoodAPN{ICCID: iccid, Name: a.Name, Type: a.Type, RoamingType: a.RoamingType, Auth: a.Auth, User: a.User,
		Password: a.Password.Reveal(), MTU: a.MTU})
}

// good is what carried data with a profile, nil if nothing is known to have.
func (m Memory) good(iccid rsp.ICCID) *modem.APN {
	for _, g := range m.Good {
		if g.ICCID == iccid {
			return &modem.APN{Name: g.Name, Type: g.Type, RoamingType: g.RoamingType, Auth: g.Auth, User: g.User,
				Password: redact.NewSecret(g.Password), MTU: g.MTU}
		}
	}
	return nil
}

// learn remembers what carried data.
func (m Memory) learn(raw json.RawMessage) Memory {
	var g GoodAPN
	if json.Unmarshal(raw, &g) != nil || g.ICCID.IsZero() || g.Name == "" {
		return m
	}
	m = m.unlearn(g.ICCID)
	m.Good = append(m.Good, g)
	if over := len(m.Good) - maxGood; over > 0 {
		m.Good = m.Good[over:]
	}
	return m
}

func (m Memory) unlearn(iccid rsp.ICCID) Memory {
	m.Good = slices.DeleteFunc(slices.Clone(m.Good), func(g GoodAPN) bool { return g.ICCID == iccid })
	return m
}

// Proven is the last known-good profile: the device has been online with it.
type Proven struct {
	EID    rsp.EID   `json:"eid,omitzero"` // of the card; zero: not known
	ICCID  rsp.ICCID `json:"iccid"`
	At     time.Time `json:"at"`
	APN    string    `json:"apn,omitempty"`
	Source string    `json:"source,omitempty"` // of the settings
}

// Quarantine is a profile whose switch was taken back. No automatic order may
// switch to it until a switch that a person ordered has proven it.
type Quarantine struct {
	ICCID    rsp.ICCID `json:"iccid"`
	Code     string    `json:"code"` // of the problem
	Text     string    `json:"text"`
	At       time.Time `json:"at"`       // of the last attempt
	Attempts int       `json:"attempts"` // switches that were taken back
	Job      string    `json:"job"`      // the last of them
}

// Left is how the last job left the card. When another profile is found there,
// it was none of our doing.
type Left struct {
	Known bool      `json:"known,omitempty"`
	EID   rsp.EID   `json:"eid,omitzero"`
	ICCID rsp.ICCID `json:"iccid,omitzero"` // the enabled profile; zero: none
	Told  rsp.ICCID `json:"told,omitzero"`  // the other profile that was found and reported
}

// memoryKey is the setting of the journal that holds the memory.
const memoryKey = "profiles"

// maxQuarantine bounds the list: the oldest entry goes.
const maxQuarantine = 32

// Quarantined finds a profile in the list.
func (m Memory) Quarantined(iccid rsp.ICCID) (Quarantine, bool) {
	at := slices.IndexFunc(m.Quarantine, func(q Quarantine) bool { return q.ICCID == iccid })
	if at < 0 {
		return Quarantine{}, false
	}
	return m.Quarantine[at], true
}

// IsProven reports whether a profile is the last known-good one of a card. A
// card that is not known yet is taken to be the same one.
func (m Memory) IsProven(eid rsp.EID, iccid rsp.ICCID) bool {
	return !iccid.IsZero() && m.Proven.ICCID == iccid && sameCard(m.Proven.EID, eid)
}

func sameCard(a, b rsp.EID) bool { return a.IsZero() || b.IsZero() || a == b }

// after is what is remembered when an event has moved a job. It is made durable
// before the job's new value: after a crash in between, the event comes again
// and changes nothing more.
func (m Memory) after(before, next job.Job, e job.Event, eid rsp.EID) Memory {
	if len(e.Good) > 0 {
		m = m.learn(e.Good)
	}
	m = m.judge(next, e)
	m.Declared = desired.After(m.Declared, &next, e.Kind == job.Loaded, eid)
	if e.Verified {
		m = m.took(next.Order, next.ID, e.At)
	}
	switch {
	case before.State == job.Committing && next.State == job.Confirming && next.Problem == nil:
		s := next.Switch
		m.Proven = Proven{EID: eid, ICCID: next.ICCID(), At: e.At, APN: s.APN, Source: s.Source}
		m = m.release(next.ICCID()).left(eid, next.ICCID())
	case before.State == job.Committing && next.State == job.Confirming: // a first profile that was given up stays enabled
		m = m.left(eid, next.ICCID())
	case before.State == job.RollingBack && next.State == job.Notifying:
		if next.Switch.Enabled {
			m = m.blame(before, e.At)
		}
		// Where no profile was enabled before, one may be enabled now.
		if m.Left = (Left{}); e.Kind == job.RolledBack && !next.Switch.Previous.IsZero() {
			m = m.left(eid, next.Switch.Previous)
		}
	case e.Kind == job.Disabled:
		m = m.left(eid, rsp.ICCID{})
	case e.Kind == job.Deleted && next.Order.Kind == job.Delete:
		m = m.forget(next.Order.ICCID)
	case e.Kind == job.Deleted:
		m = m.forget(next.Switch.Previous)
	}
	return m
}

func (m Memory) left(eid rsp.EID, iccid rsp.ICCID) Memory {
	m.Left = Left{Known: true, EID: eid, ICCID: iccid}
	return m
}

// release takes a profile out of the quarantine.
func (m Memory) release(iccid rsp.ICCID) Memory {
	m.Quarantine = slices.DeleteFunc(slices.Clone(m.Quarantine), func(q Quarantine) bool { return q.ICCID == iccid })
	return m
}

// blame puts a profile into the quarantine, or counts one more attempt. j is
// the job as it was while it rolled back: its problem is what had led to that.
func (m Memory) blame(j job.Job, at time.Time) Memory {
	q, _ := m.Quarantined(j.ICCID())
	if q.Job == j.ID {
		return m
	}
	q.ICCID, q.At, q.Job, q.Attempts = j.ICCID(), at, j.ID, q.Attempts+1
	if p := j.Problem; p != nil {
		q.Code, q.Text = p.Code, p.Text
	}
	m = m.release(q.ICCID)
	m.Quarantine = append(m.Quarantine, q)
	if over := len(m.Quarantine) - maxQuarantine; over > 0 {
		m.Quarantine = m.Quarantine[over:]
	}
	return m
}

// allowed refuses what would leave the device without the one profile that is
// known to work, and what nobody but a person may order.
func (m Memory) allowed(o job.Order, eid rsp.EID) error {
	switch o.Kind {
	case job.Disable, job.Delete:
		return m.dispensable(eid, o.ICCID)
	case job.Enable:
		return m.trusted(o, o.ICCID)
	}
	return nil
}

// dispensable refuses to give up the last known-good profile.
func (m Memory) dispensable(eid rsp.EID, iccid rsp.ICCID) error {
	if !m.IsProven(eid, iccid) {
		return nil
	}
	return fault.New(fault.Fault{Code: "last-known-good", Text: "this is the last profile that the device was online with", Who: fault.Technician,
		Next: "switch to another profile; when the device is online with that one, this one can go"}, nil)
}

// trusted refuses an automatic switch to a profile that is quarantined.
func (m Memory) trusted(o job.Order, iccid rsp.ICCID) error {
	q, found := m.Quarantined(iccid)
	if !found || !o.Automatic {
		return nil
	}
	return fault.New(fault.Fault{Code: "profile-quarantined", Text: "the last switch to this profile was taken back: " + q.Text, Who: fault.Technician,
		Next: "mend the cause and enable the profile by hand, or delete it"}, nil)
}

// recall reads the memory from the journal. One that cannot be read is begun
// anew: it protects the device, which must work without it too.
func (r *Runner) recall() {
	var m Memory
	if _, err := r.cfg.Journal.Setting(memoryKey, &m); err != nil {
		r.log.Warn("what was known of the profiles is lost", "err", err)
		m = Memory{}
	}
	m = r.recallSerials(m)
	m.Staged = r.recallStaged()
	if _, err := r.cfg.Journal.Setting(declaredKey, &m.Declared); err != nil {
		r.log.Warn("what was done for the declarations is lost", "err", err)
		m.Declared = nil
	}
	r.change(func(v *View) { v.Memory = m })
}

// keep makes a job's new value durable, and what is remembered because of it.
func (r *Runner) keep(before, next job.Job, e job.Event) error {
	v := r.View()
	m := r.staging(v.Memory.after(before, next, e, v.eid()), before, next, e)
	if err := r.remember(m); err != nil {
		return err
	}
	if m.Left.Told.IsZero() {
		r.warn("fallback", "")
	}
	if err := r.putReport(before, next, e.At); err != nil {
		return err
	}
	if err := r.cfg.Journal.PutJob(next); err != nil {
		return err
	}
	if next.Ended() {
		r.boundReports()
		if r.cfg.OnEnd != nil {
			r.cfg.OnEnd(next)
		}
	}
	return nil
}

func (r *Runner) remember(m Memory) error {
	if err := r.rememberStaged(m); err != nil {
		return err
	}
	if len(m.Declared) > 0 {
		if err := r.cfg.Journal.PutSetting(declaredKey, m.Declared); err != nil {
			return err
		}
	}
	if err := r.cfg.Journal.PutSetting(memoryKey, m); err != nil {
		return err
	}
	r.change(func(v *View) { v.Memory = m })
	return nil
}

// eid is the card's, zero while it was not read.
func (v View) eid() rsp.EID {
	if v.FactsAt.IsZero() {
		return rsp.EID{}
	}
	return v.Facts.EID
}

// compare looks whether the card is as the last job left it. Cards are known
// that go back to a profile of their own at a reset; that is told once, shown
// for as long as it is so, and never undone: the card would do it again.
func (r *Runner) compare(f procedure.Facts) {
	r.prune(f)
	m := r.View().Memory
	if !m.Left.Known || m.Left.EID != f.EID {
		r.warn("fallback", "")
		return
	}
	now := enabledProfile(f.Profiles)
	if now.IsZero() || now == m.Left.ICCID {
		r.warn("fallback", "")
		return
	}
	text := fmt.Sprintf("the card went back to the profile %s by itself; lpad had left it with %s", redact.Digits(now.String()), leftName(m.Left.ICCID))
	r.warn("fallback", text+": look at the card's own fallback rules, or for another program that switches profiles")
	if m.Left.Told == now {
		return
	}
	r.log.Warn("the card is on another profile than it was left on", "iccid", now, "left", m.Left.ICCID)
	r.hub.publish(Event{At: r.cfg.Now().UTC(), Type: "card", Text: text})
	m.Left.Told = now
	if err := r.remember(m); err != nil { // it will be told again
		r.log.Warn("not remembered that the card's change was told", "err", err)
	}
}

func leftName(iccid rsp.ICCID) string {
	if iccid.IsZero() {
		return "none enabled"
	}
	return redact.Digits(iccid.String())
}
