package job

import (
	"encoding/json"
	"log/slog"
	"slices"
	"time"

	"lpad/agent/rsp"
	"lpad/internal/fault"
)

// Kind is what is asked for.
type Kind string

// The kinds of jobs.
const (
	Install  Kind = "install"  // download and install a profile, and enable it when Order.Enable says so
	Enable   Kind = "enable"   // switch to an installed profile: steps 5 to 10
	Disable  Kind = "disable"  // disable the enabled profile; the device may lose its network
	Delete   Kind = "delete"   // delete a disabled profile for ever
	Nickname Kind = "nickname" // set or remove the user's name of a profile
)

// Source says where the download order comes from (SGP.22 v2.5, section 3.1.3).
type Source string

// The sources of a download.
const (
	SourceActivationCode Source = "activation-code" // typed or scanned
	SourceDefaultSMDP    Source = "default-smdp"    // the card's default SM-DP+ address, empty matching id
	SourceSMDS           Source = "smds"            // an event registered at the SM-DS
)

// Order is what somebody asked for. It is journalled, in a file that only the
// daemon may read; it logs without its secrets.
type Order struct {
	Kind   Kind   `json:"kind"`
	Source Source `json:"source,omitempty"`

	// For Install. SMDP is empty until it is known for the sources other than
	// an activation code.
	SMDP       string `json:"smdp,omitempty"`
	MatchingID string `json:"matching_id,omitempty"` // secret: whoever knows it can take the profile
	OID        string `json:"oid,omitempty"`         // SM-DP+ OID demanded by the activation code, dotted
	Enable     bool   `json:"enable,omitempty"`      // switch to the profile once it is installed
	Consent    bool   `json:"consent,omitempty"`     // the technician or the policy has consented beforehand
	PPRConsent bool   `json:"ppr_consent,omitempty"` // also to profile policy rules (cannot be disabled or deleted)
	Offline    bool   `json:"offline,omitempty"`     // there is no network: requests to servers are packets that somebody carries
	HasCode    bool   `json:"has_code,omitempty"`    // a confirmation code came with the order; it is held in memory only
	DryRun     bool   `json:"dry_run,omitempty"`     // see what is offered, then tell the server "postponed"; nothing is loaded

	// For the others.
	ICCID    rsp.ICCID `json:"iccid,omitzero"`
	Nickname string    `json:"nickname,omitempty"` // of Install too: the new profile gets it

	// For Install with Enable and for Enable.
	Parameters json.RawMessage `json:"parameters,omitempty"` // the order's terminal parameters document
	DeleteOld  bool            `json:"delete_old,omitempty"` // delete the previous profile after a proven switch

	// Automatic means that no person stands behind the order, but a rule or a
	// schedule: it must not switch to a profile that is quarantined.
	Automatic bool `json:"automatic,omitempty"`

	// ReportTo is where a report of the job's end goes (an https address); empty:
	// where the configuration says. It may hold a token, and is forgotten at the
	// end as the other secrets are.
	ReportTo string `json:"report_to,omitempty"`

	By string `json:"by,omitempty"` // who ordered: "uid 1000 (pid 4711)", "profiles.d/NAME"

	// Declared tells for which declaration it is done (agent/desired), and for what
	// its file said; nobody is asked for consent then. Empty: for none.
	Declared string `json:"declared,omitempty"`

	// Of a signed order (agent/orders). An order without an Issuer is not signed.
	Issuer   string `json:"issuer,omitempty"`   // whose signature it is: the name of a key, or "smdp:HOST"
	Serial   int64  `json:"serial,omitempty"`   // grows from order to order of the issuer
	Verified bool   `json:"verified,omitempty"` // the signature is good. Else the certificate of the download's SM-DP+ must say so before anything is loaded
	JWS      string `json:"jws,omitempty"`      // while it is not verified: the order as it came; secret, for it holds the matching id

	EID      rsp.EID   `json:"eid,omitzero"`       // of Install: the card that the order is for; zero: any
	Bound    rsp.ICCID `json:"bound,omitzero"`     // of Install: the profile that the server must offer; zero: any
	EnableAt time.Time `json:"enable_at,omitzero"` // the switch does not begin before; zero: at once
}

// LogValue shows an order without matching id and with a shortened ICCID.
func (o Order) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("kind", string(o.Kind))}
	if o.SMDP != "" {
		attrs = append(attrs, slog.String("smdp", o.SMDP))
	}
	if o.ICCID != (rsp.ICCID{}) {
		attrs = append(attrs, slog.Any("iccid", o.ICCID))
	}
	if o.By != "" {
		attrs = append(attrs, slog.String("by", o.By))
	}
	if o.Issuer != "" {
		attrs = append(attrs, slog.String("issuer", o.Issuer), slog.Int64("serial", o.Serial))
	}
	return slog.GroupValue(attrs...)
}

// Problem is why a job went wrong: an explained error and its full text.
type Problem struct {
	Code   string    `json:"code"`   // stable, kebab-case
	Text   string    `json:"text"`   // plain words
	Retry  bool      `json:"retry"`  // the same order may succeed later
	Who    fault.Who `json:"who"`    // who can mend it
	Next   string    `json:"next"`   // what to do next
	Detail string    `json:"detail"` // the whole chain of causes
	State  State     `json:"state"`  // in which state it happened
}

// maxDetail bounds the text of causes in a record, in bytes: what a service or a
// server says can be long, and each step of a job writes it again.
const maxDetail = 4 << 10

// ProblemOf explains err.
func ProblemOf(err error) *Problem {
	f := fault.Of(err)
	return &Problem{Code: f.Code, Text: f.Text, Retry: f.Retry, Who: f.Who, Next: f.Next, Detail: rsp.CutText(err.Error(), maxDetail)}
}

// ProfileFacts is what the server's metadata says of the profile, for people.
type ProfileFacts struct {
	ICCID           rsp.ICCID `json:"iccid"`
	ServiceProvider string    `json:"service_provider,omitempty"`
	Name            string    `json:"name,omitempty"`
	Class           string    `json:"class,omitempty"`
	Rules           []string  `json:"rules,omitempty"` // profile policy rules in plain words
}

// Switch is what a profile switch must know to go on or to go back after a
// power cut.
type Switch struct {
	Previous rsp.ICCID       `json:"previous,omitzero"`  // enabled before; zero on an empty card
	Snapshot json.RawMessage `json:"snapshot,omitempty"` // settings before the switch, opaque to us (agent/switchover)
	Started  time.Time       `json:"started,omitzero"`   // the dead-man time counts from here
	APN      string          `json:"apn,omitempty"`      // the one that is in use
	Source   string          `json:"source,omitempty"`   // where the APN came from
	Rung     string          `json:"rung,omitempty"`     // how the SIM was read again
	Link     json.RawMessage `json:"link,omitempty"`     // the new network, opaque to us (modem.Link)
	Enabled  bool            `json:"enabled,omitempty"`  // the eUICC confirmed the activation
	Restarts int             `json:"restarts,omitempty"` // of the daemon or the device, before the switch was proven; see MaxRestarts
}

// Mark is one line of a job's timeline: when it entered a state.
type Mark struct {
	State State     `json:"state"`
	At    time.Time `json:"at"`
	Note  string    `json:"note,omitempty"`
}

// maxMarks bounds the timeline: a job has some twenty states, and two of
// them may repeat many times.
const maxMarks = 64

// Job is one order on its way. It is a value: Step never changes its argument.
type Job struct {
	ID      string    `json:"id"`
	Order   Order     `json:"order"`
	State   State     `json:"state"`
	Created time.Time `json:"created"`

	TransactionID string        `json:"transaction_id,omitempty"` // of the RSP session, upper-case hex
	CodeRequired  bool          `json:"code_required,omitempty"`  // the server wants a confirmation code
	Profile       *ProfileFacts `json:"profile,omitempty"`
	Switch        Switch        `json:"switch,omitzero"`
	Parameters    []Parameter   `json:"parameters,omitempty"` // bounded, without passwords
	AppliedAt     time.Time     `json:"applied_at,omitzero"`  // when the network had proven them
	Activation    int64         `json:"activation,omitempty"` // sequence number of the enable notification
	Hooks         []HookRun     `json:"hooks,omitempty"`      // in the order in which they ended
	RollbackTries int           `json:"rollback_tries,omitempty"`
	Retries       int           `json:"retries,omitempty"`     // of the first profile, see Retrying
	Undelivered   int           `json:"undelivered,omitempty"` // notifications still waiting for their server
	Problem       *Problem      `json:"problem,omitempty"`
	Aborted       bool          `json:"aborted,omitempty"` // somebody asked to stop it
	Timeline      []Mark        `json:"timeline,omitempty"`
}

// New makes a queued job. now is journalled, never compared with a clock that
// may jump.
func New(id string, o Order, now time.Time) Job {
	return Job{ID: id, Order: o, State: Queued, Created: now, Timeline: []Mark{{State: Queued, At: now}}}
}

// Ended reports whether nothing more will happen to the job.
func (j Job) Ended() bool { return j.State.Ended() }

// Waits reports whether the job waits for its turn or its time: nothing of it is
// under way, and others may have the card.
func (j Job) Waits() bool { return j.State == Queued || j.State == Scheduled }

// Due reports whether the job may have the card now, as far as its time is
// concerned.
func (j Job) Due(now time.Time) bool { return j.State != Scheduled || !j.Order.EnableAt.After(now) }

// Begun reports whether the job's turn had come: one that was cancelled before
// never began.
func (j Job) Begun() bool {
	for _, m := range j.Timeline {
		if m.State != Queued && !m.State.Ended() {
			return true
		}
	}
	return false
}

// First reports whether the job has enabled a profile where none was enabled:
// there is nothing to go back to.
func (j Job) First() bool { return j.Switch.Enabled && j.Switch.Previous.IsZero() }

// ICCID is the profile that the job is about; zero while it is not known.
func (j Job) ICCID() rsp.ICCID {
	if j.Profile != nil {
		return j.Profile.ICCID
	}
	return j.Order.ICCID
}

// WithoutSecrets is a job as it is kept: one that has ended needs neither
// settings nor parameters any more, which hold passwords, nor the matching id,
// nor the address of its report, which may hold a token.
func (j Job) WithoutSecrets() Job {
	if j.Ended() {
		j.Switch.Snapshot, j.Order.Parameters, j.Order.MatchingID, j.Order.ReportTo = nil, nil, "", ""
		j.Order.JWS = ""
	}
	return j
}

// Outcome is how a job has ended, for reports.
type Outcome string

// The outcomes.
const (
	OutcomeDone       Outcome = "done"
	OutcomeFailed     Outcome = "failed"          // nothing was changed
	OutcomeRolledBack Outcome = "rolled-back"     // the switch was taken back
	OutcomeCancelled  Outcome = "cancelled"       // somebody asked to stop it, in time
	OutcomeGivenUp    Outcome = "given-up"        // a first profile stays enabled and did not come online
	OutcomeStranded   Outcome = "rollback-failed" // the device is between two profiles
)

// Stranded reports whether the switch was given up between two profiles.
func (j Job) Stranded() bool { return j.Problem != nil && j.Problem.Code == codeStranded }

// Outcome is empty for a job that has not ended.
func (j Job) Outcome() Outcome {
	switch {
	case !j.Ended():
		return ""
	case j.State == Done:
		return OutcomeDone
	case j.State == Cancelled:
		return OutcomeCancelled
	case j.Problem != nil && j.Problem.Code == codeOffline:
		return OutcomeGivenUp
	case j.Stranded():
		return OutcomeStranded
	case !j.Switch.Started.IsZero():
		return OutcomeRolledBack
	}
	return OutcomeFailed
}

// enter moves a job to a state and notes the time.
func (j Job) enter(s State, e Event) Job {
	j.State = s
	j = j.WithoutSecrets()
	mark := Mark{State: s, At: e.At, Note: e.Note}
	if len(j.Timeline) >= maxMarks { // keep the beginning, which tells the story
		j.Timeline = append(slices.Clone(j.Timeline[:maxMarks-1]), mark)
		return j
	}
	j.Timeline = append(slices.Clone(j.Timeline), mark)
	return j
}
