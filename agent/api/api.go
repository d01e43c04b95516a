// Package api holds the messages of lpad's local socket: plain structs with
// JSON members, and the kinds of errors. It imports nothing of lpad, so that a
// client links nothing but this.
//
// The protocol is HTTP/1.1 over a unix socket, every path under [Prefix]:
//
//	GET    /metrics                          OpenMetrics text
//	GET    /v1/status                        Status
//	GET    /v1/cards                         Cards
//	GET    /v1/euicc                         EUICC
//	POST   /v1/probe                                         -> 200 Probe
//	GET    /v1/trust                         Trust
//	POST   /v1/apdu                          APDURequest     -> 200 APDUs
//	GET    /v1/profiles                      Profiles
//	POST   /v1/install                       InstallRequest  -> 202 Job
//	POST   /v1/orders                        a signed order  -> 202 Job; application/jose, at most 16 KiB
//	POST   /v1/profiles/{iccid}/enable       EnableRequest   -> 202 Job
//	POST   /v1/profiles/{iccid}/disable                      -> 202 Job
//	DELETE /v1/profiles/{iccid}                              -> 202 Job
//	PUT    /v1/profiles/{iccid}/nickname     NicknameRequest -> 202 Job
//	GET    /v1/parameters/effective[?iccid=] Effective; of the enabled profile
//	PUT    /v1/profiles/{iccid}/parameters   the document    -> 200 Effective
//	DELETE /v1/profiles/{iccid}/parameters                   -> 200 Effective
//	GET    /v1/slot                          Slot
//	PUT    /v1/slot                          SlotRequest     -> 200 Slot
//	GET    /v1/notifications                 Notifications
//	POST   /v1/notifications/deliver                         -> 200 Notifications
//	POST   /v1/notifications/{seq}/replay                    -> 200 Notifications
//	DELETE /v1/notifications/{seq}                           -> 200 Notifications
//	POST   /v1/reports/{job}/replay                          -> 200 Notifications
//	DELETE /v1/reports/{job}                                 -> 200 Notifications
//	GET    /v1/packets                       Packets
//	POST   /v1/packets                       Packet          -> 204
//	GET    /v1/jobs                          Jobs
//	GET    /v1/jobs/{id}[?wait=30s]          Job; wait returns at its next change
//	POST   /v1/jobs/{id}/answer              AnswerRequest   -> 200 Job
//	POST   /v1/jobs/{id}/abort                               -> 200 Job
//	POST   /v1/relay[?connection=N]                          -> 101 [RelayProtocol]
//	GET    /v1/events[?job=ID]               server-sent events, each an Event;
//	                                         Last-Event-ID resumes
//
// Every path takes ?card=NAME, or an EID, where the device has several cards.
// Without it a question is about the default card, except that jobs and events
// are those of all cards, and a job is found by its id; an order is refused then
// ([CodeCardAmbiguous]), but for a signed one, which is for the one card that
// fits what it says of its device.
//
// What takes long is a job: the request is answered at once with 202, and the
// job goes on whether anybody listens or not. An error is [Problem] as
// application/problem+json (RFC 9457). Requests must carry the Host [Host] and
// neither Origin nor Referer: no browser is to be talked into using a socket
// of root.
package api

import (
	"encoding/json"
	"time"
)

// Prefix is the version of the protocol, and Host the name that a request must
// be addressed to.
const (
	Prefix = "/v1"
	Host   = "lpad.local"
)

// ProblemType is the media type of a [Problem].
const ProblemType = "application/problem+json"

// OrderType is the media type of a signed order, and MaxOrder bounds one, in
// bytes. What it says is in the comment of package agent/orders.
const (
	OrderType = "application/jose"
	MaxOrder  = 16 << 10
)

// RelayProtocol is what POST /v1/relay upgrades a connection to. Its lines are
// described in the comment of package agent/relay.
const RelayProtocol = "lpad-relay/1"

// Problem is an error as the socket tells it (RFC 9457, with members of ours).
type Problem struct {
	Type   string `json:"type"`             // "urn:lpad:problem:" + Code
	Status int    `json:"status,omitempty"` // HTTP status, 0 inside a job
	Code   string `json:"code"`             // stable, kebab-case
	Title  string `json:"title"`            // plain words
	Detail string `json:"detail,omitempty"` // the whole chain of causes
	Retry  bool   `json:"retry"`            // the same request may succeed later
	Who    string `json:"who,omitempty"`    // who can mend it
	Next   string `json:"next,omitempty"`   // what to do next
	State  string `json:"state,omitempty"`  // of the job, when it happened
}

// Error makes a Problem an error for Go clients.
func (p *Problem) Error() string {
	if p.Detail != "" && p.Detail != p.Title {
		return p.Title + " (" + p.Detail + ")"
	}
	return p.Title
}

// Codes of problems of the socket itself; those of jobs come from the parts
// that explain them.
const (
	CodeNotFound     = "not-found"
	CodeBadRequest   = "bad-request"
	CodeForbidden    = "forbidden"
	CodeNotLocal     = "not-local"
	CodeConflict     = "conflict"
	CodeStopping     = "stopping"
	CodeNotRunning   = "daemon-not-running" // made by the client
	CodeNoPermission = "no-permission"      // made by the client
	CodeTooLarge     = "request-too-large"
	CodeTooMany      = "too-many-requests" // of one user, or connections

	CodeCardAmbiguous = "card-ambiguous" // an order that does not say for which of several cards
	CodeCardUnknown   = "card-unknown"
)

// Status is the one-screen answer to "how is it going".
type Status struct {
	Version       string       `json:"version"`
	Since         time.Time    `json:"since"`
	State         string       `json:"state"` // ready, busy, needs-provisioning, card-missing, starting
	Card          CardStatus   `json:"card"`
	Cards         []CardStatus `json:"cards,omitempty"`   // all of them, where there are several
	Profile       *Profile     `json:"profile,omitempty"` // the enabled one
	Network       Network      `json:"network"`
	Job           *Job         `json:"job,omitempty"` // the running one
	Queued        int          `json:"queued"`        // jobs waiting
	Notifications NoteStatus   `json:"notifications"`
	Reports       NoteStatus   `json:"reports"`
	Relay         *Relay       `json:"relay,omitempty"`    // a laptop through which servers are reached
	Declared      *Declared    `json:"declared,omitempty"` // of fleet.dir, for this card
	Trust         []TrustRoot  `json:"trust"`
	Clock         Clock        `json:"clock"`
	Journal       *Problem     `json:"journal,omitempty"`  // why the disk does not take the journal: jobs stand still until it does
	Warnings      []string     `json:"warnings,omitempty"` // shown loudly: test CIs, damaged journal …
	Next          string       `json:"next,omitempty"`     // what to do next, if anything
	LastEvent     uint64       `json:"last_event"`         // id of the newest event
	Goroutines    int          `json:"goroutines"`         // of the daemon: a figure that must not grow
}

// CardStatus says which card, by which path, and how it is.
type CardStatus struct {
	Name    string   `json:"name"`
	EID     string   `json:"eid,omitempty"`
	Backend string   `json:"backend"`           // pcsc, at
	Path    string   `json:"path"`              // reader or port
	Slot    string   `json:"slot,omitempty"`    // that the configuration names
	State   string   `json:"state"`             // as in Status
	Default bool     `json:"default,omitempty"` // meant by a question that names none
	Job     string   `json:"job,omitempty"`     // the running one
	Queued  int      `json:"queued,omitempty"`  // jobs waiting
	Problem *Problem `json:"problem,omitempty"`
}

// Relay tells of a laptop that carries connections to servers.
type Relay struct {
	By    string    `json:"by"` // who has attached it, by the kernel's word
	Since time.Time `json:"since"`
}

// Slot is the SIM slot that a modem uses, by its maker's number.
type Slot struct {
	Card       string `json:"card"`
	Active     int    `json:"active"`
	Configured string `json:"configured,omitempty"` // modem.slot; empty: any
}

// SlotRequest orders another slot, which must have an eUICC in it.
type SlotRequest struct {
	Slot *int `json:"slot"` // needed: some makers count from 0
}

// Cards lists the cards of the device, by name.
type Cards struct {
	Cards []CardStatus `json:"cards"`
}

// Network says what carries data.
type Network struct {
	Backend   string   `json:"backend"` // networkmanager, none
	Interface string   `json:"interface,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	APN       string   `json:"apn,omitempty"`
}

// NoteStatus counts notifications that wait on the card, or reports of jobs.
type NoteStatus struct {
	Pending   int       `json:"pending"`
	Oldest    time.Time `json:"oldest,omitzero"` // since when the oldest waits; zero when that is not known
	LastError *Problem  `json:"last_error,omitempty"`
	NextTry   time.Time `json:"next_try,omitzero"`
	Lost      int       `json:"lost,omitempty"` // reports that were given up because too many waited
}

// Declared says how far the profiles are that files of fleet.dir declare.
type Declared struct {
	Total     int      `json:"total"` // files for this card, and those that cannot be read
	Converged int      `json:"converged"`
	Failed    int      `json:"failed"` // until the file changes; also files that contradict each other, and those that cannot be read
	Lines     []string `json:"lines"`  // how it stands with each, for people
}

// TrustRoot is one certificate authority that is believed.
type TrustRoot struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"` // SHA-256, upper-case hex
	Source      string `json:"source"`      // built-in, file, test
	Test        bool   `json:"test,omitempty"`

	// In Trust alone.
	KeyID  string `json:"key_id,omitempty"`  // subject key identifier, upper-case hex: how a card names it
	Until  string `json:"until,omitempty"`   // last day of the certificate, as 2006-01-02
	OnCard bool   `json:"on_card,omitempty"` // the card lists it too: servers under it can be used with this card
}

// Trust lists the authorities that are believed. A server is used when both
// lpad and the card believe its authority.
type Trust struct {
	Roots     []TrustRoot `json:"roots"`
	Dir       string      `json:"dir,omitempty"`       // folder of further ones (rsp.trust_dir)
	Skipped   []string    `json:"skipped,omitempty"`   // files of it that vouch for nobody, and why
	CardKnown bool        `json:"card_known"`          // the card's list was read
	CardOnly  []string    `json:"card_only,omitempty"` // key identifiers that only the card lists
}

// MaxAPDUs bounds the commands of one [APDURequest].
const MaxAPDUs = 32

// APDURequest are commands for the ISD-R, sent one after another on a channel of
// their own. Enabling, disabling and deleting profiles, memory reset, dropping
// notifications and loading packages are refused: they are orders.
type APDURequest struct {
	Commands []string `json:"commands"`        // short APDUs in hexadecimal, with class bytes for channel 0; at most MaxAPDUs
	Force    bool     `json:"force,omitempty"` // also those that may change something
}

// APDUs are the answers of the card, each with its status word; fewer than the
// commands when the card has refused one.
type APDUs struct {
	Responses []string `json:"responses"` // hexadecimal
}

// Clock says whether the time can be believed.
type Clock struct {
	Now time.Time `json:"now"`
	Set bool      `json:"set"`
	// Source is whose time it is: the system's, or, when that is not set, the
	// modem's, by which certificates are judged then. Empty when nobody knows.
	Source string `json:"source,omitempty"` // system, modem
}

// EUICC is what the card says of itself.
type EUICC struct {
	EID              string    `json:"eid"`
	SVN              string    `json:"svn"` // highest SGP.22 version
	ProfileVersion   string    `json:"profile_version,omitempty"`
	Firmware         string    `json:"firmware,omitempty"`
	FreeMemory       int64     `json:"free_memory"` // bytes, non-volatile; a hint
	DefaultSMDP      string    `json:"default_smdp,omitempty"`
	RootSMDS         string    `json:"root_smds,omitempty"`
	CIVerification   []string  `json:"ci_verification"` // subject key identifiers, upper-case hex
	CISigning        []string  `json:"ci_signing"`
	Category         string    `json:"category,omitempty"`
	SASAccreditation string    `json:"sas_accreditation,omitempty"`
	AsOf             time.Time `json:"as_of"`
}

// Probe is what the way to the card can do, as was found out by doing it, and
// what lpad makes of it. It can be shown to anybody: identifiers are shortened.
type Probe struct {
	Version string    `json:"version"` // of lpad
	At      time.Time `json:"at"`
	Backend string    `json:"backend"`         // pcsc, at
	Path    string    `json:"path"`            // reader or port, by its present name
	Place   string    `json:"place,omitempty"` // in the USB tree

	Manufacturer string `json:"manufacturer,omitempty"` // of the modem, and so on
	Model        string `json:"model,omitempty"`
	Revision     string `json:"revision,omitempty"`
	IMEI         string `json:"imei,omitempty"` // shortened

	Capabilities []Capability `json:"capabilities"`

	// Usable says that there is a way to an eUICC. Problem says why not, or what
	// ended the probe.
	Usable  bool     `json:"usable"`
	Problem *Problem `json:"problem,omitempty"`

	// What lpad uses from now on.
	APDUPath  string   `json:"apdu_path,omitempty"`  // ccho, csim, pcsc
	BlockSize int      `json:"block_size,omitempty"` // bytes in one command; not less than what works, before that is found out
	ISDR      string   `json:"isdr,omitempty"`       // AID that answered
	Enable    []string `json:"enable,omitempty"`     // ways of enabling, in the order to try; empty: the usual
	Ladder    []string `json:"ladder,omitempty"`     // of reading the SIM again, cheapest first

	Lines   []string `json:"lines,omitempty"`   // of the table of modems that fit, general first
	Notes   []string `json:"notes,omitempty"`   // what people should know of such modems
	Sources []string `json:"sources,omitempty"` // where that is from
	Learned *Learned `json:"learned,omitempty"` // what this device had found out before

	Managers Managers `json:"managers"`
}

// Answers to whether something can be done.
const (
	AnswerYes     = "yes"
	AnswerNo      = "no"
	AnswerUnknown = "unknown" // it could not be tried, or what came says neither
)

// Capability is one thing that a modem or reader may be able to do.
type Capability struct {
	Name     string `json:"name"`
	Answer   string `json:"answer"`          // yes, no, unknown
	Value    string `json:"value,omitempty"` // for programs: the command that works, a state, a number
	Evidence string `json:"evidence"`        // for people: what was done and what came of it
	Code     string `json:"code,omitempty"`  // of the problem, where there is one
	Next     string `json:"next,omitempty"`
	Millis   int64  `json:"ms"` // how long it took
}

// Learned is what a modem has shown by doing, on this device.
type Learned struct {
	APDUPath  string    `json:"apdu_path,omitempty"`
	BlockSize int       `json:"block_size,omitempty"`
	Rung      string    `json:"rung,omitempty"`          // that made it read its SIM again
	ICCID     string    `json:"iccid_command,omitempty"` // never the ICCID
	ISDR      string    `json:"isdr,omitempty"`
	At        time.Time `json:"at"`
}

// Managers says who else manages the modem.
type Managers struct {
	Network        string   `json:"network"`                   // back-end of lpad
	ModemManager   string   `json:"modemmanager,omitempty"`    // its version; empty: it does not run
	NetworkManager string   `json:"networkmanager,omitempty"`  // the same
	Plugin         string   `json:"plugin,omitempty"`          // of ModemManager, for the modem
	Device         string   `json:"device,omitempty"`          // of the modem, in ModemManager's words
	State          string   `json:"state,omitempty"`           // the same
	Ports          []string `json:"ports,omitempty"`           // that ModemManager uses
	Problem        string   `json:"manager_problem,omitempty"` // why ModemManager does not show the modem
}

// Profile is one profile on the card.
type Profile struct {
	ICCID           string   `json:"iccid"`
	AID             string   `json:"aid,omitempty"`
	State           string   `json:"state"` // enabled, disabled
	Nickname        string   `json:"nickname,omitempty"`
	ServiceProvider string   `json:"service_provider,omitempty"`
	Name            string   `json:"name,omitempty"`
	Class           string   `json:"class"`           // test, provisioning, operational
	Rules           []string `json:"rules,omitempty"` // profile policy rules in plain words

	LastKnownGood bool        `json:"last_known_good,omitempty"` // the device was online with it the last time that a switch was proven
	Quarantine    *Quarantine `json:"quarantine,omitempty"`
}

// Quarantine says why no automatic order may switch to a profile: the last
// switch to it was taken back. A proven switch ends it.
type Quarantine struct {
	Code     string    `json:"code"`  // of the problem
	Title    string    `json:"title"` // plain words
	Since    time.Time `json:"since"` // the last attempt
	Attempts int       `json:"attempts"`
}

// Profiles is a list with its age: while a job has the card, the last list
// that was read is given.
type Profiles struct {
	Profiles []Profile `json:"profiles"`
	AsOf     time.Time `json:"as_of"`
}

// Notification is one signed receipt that waits on the card, or one report.
type Notification struct {
	SeqNumber int64  `json:"seq"`
	Event     string `json:"event"` // install, enable, disable, delete
	Address   string `json:"address"`
	ICCID     string `json:"iccid,omitempty"`

	Since     time.Time `json:"since,omitzero"`       // when it was first seen; zero when the clock was not set
	Failures  int       `json:"failures,omitempty"`   // of its server, in a row
	LastError *Problem  `json:"last_error,omitempty"` // of the last try with its server
	NextTry   time.Time `json:"next_try,omitzero"`    // not before

	// Of the report of a job, whose Event is the kind of the job, whose number
	// counts the reports to this receiver, and whose Address is the receiver's
	// host.
	Job     string `json:"job,omitempty"`
	Outcome string `json:"outcome,omitempty"` // done, failed, rolled-back, cancelled, given-up, rollback-failed
}

// DroppedNotification is one that somebody has taken off the card without its
// being delivered.
type DroppedNotification struct {
	Notification
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Outcome string    `json:"outcome,omitempty"` // "dropped", or why it was not; empty when the daemon was killed in between
}

// Notifications lists what waits.
type Notifications struct {
	Notifications []Notification        `json:"notifications"`
	Dropped       []DroppedNotification `json:"dropped,omitempty"` // the latest of them, the oldest first
	Reports       []Notification        `json:"reports,omitempty"` // of jobs, the oldest first
	LostReports   int                   `json:"lost_reports,omitempty"`
	AsOf          time.Time             `json:"as_of"`
}

// InstallRequest orders a download.
type InstallRequest struct {
	ActivationCode   string          `json:"activation_code,omitempty"` // LPA:1$…; empty with Source
	Source           string          `json:"source,omitempty"`          // default-smdp or smds instead of a code
	ConfirmationCode string          `json:"confirmation_code,omitempty"`
	Enable           bool            `json:"enable"`
	Consent          bool            `json:"consent"`     // consented beforehand
	PPRConsent       bool            `json:"ppr_consent"` // also to profile policy rules
	DeleteOld        bool            `json:"delete_old,omitempty"`
	DryRun           bool            `json:"dry_run,omitempty"`    // go as far as what the server offers, and cancel; the code stays good
	Automatic        bool            `json:"automatic,omitempty"`  // no person stands behind it: no switch to a profile in quarantine
	Parameters       json.RawMessage `json:"parameters,omitempty"` // terminal parameters document
	ReportTo         string          `json:"report_to,omitempty"`  // https address that gets a report of the job's end; empty: the configuration's
	Offline          bool            `json:"offline,omitempty"`    // there is no network: requests are carried as packets
}

// EnableRequest orders a switch.
type EnableRequest struct {
	Parameters json.RawMessage `json:"parameters,omitempty"`
	DeleteOld  bool            `json:"delete_old,omitempty"`
	Automatic  bool            `json:"automatic,omitempty"` // no person stands behind it: refused for a profile in quarantine
	ReportTo   string          `json:"report_to,omitempty"` // as in InstallRequest
}

// Effective is what is wanted of the device for a profile: every value with who
// says so. It holds no password.
type Effective struct {
	ICCID      string      `json:"iccid"`
	Enabled    bool        `json:"enabled"` // the profile is in use
	Parameters []Parameter `json:"parameters"`
	Document   *Document   `json:"document,omitempty"` // that the profile has from an order, or was given
	Suspended  []Suspended `json:"suspended,omitempty"`
	Notes      []string    `json:"notes,omitempty"` // what is left out, and why; conflicts
}

// Parameter is one value of the terminal parameters.
type Parameter struct {
	Leaf       string          `json:"leaf"`            // "apns.default", "radio.rats"; access points that are tried after the first: "apns.default.2" …
	Value      json.RawMessage `json:"value,omitempty"` // as a document writes it, but for passwords; none: unset on purpose
	Source     string          `json:"source"`          // profile, order, set by hand, oem: FILE, last-good, provider-database: NAME, network default
	Rank       int             `json:"rank"`            // of the source, 1 to 5; the lower wins
	Scope      string          `json:"scope,omitempty"` // how narrow the source is: iccid, imsi, plmn, any
	Generation int64           `json:"generation,omitempty"`
	State      string          `json:"state,omitempty"` // staged, trial, applied, suspended, limited; empty: it is tried when those before it do not do
}

// Document says which document of terminal parameters a profile has.
type Document struct {
	Source     string    `json:"source"`
	Generation int64     `json:"generation,omitempty"`
	At         time.Time `json:"at"` // when it came
	Bytes      int       `json:"bytes"`
}

// Suspended is a source that is not used for the profile, since the modem found
// no network with its values, until its generation changes.
type Suspended struct {
	Source     string    `json:"source"`
	Generation int64     `json:"generation,omitempty"`
	Code       string    `json:"code,omitempty"` // of the problem
	At         time.Time `json:"at"`
	Job        string    `json:"job"` // in which it failed
}

// NicknameRequest names a profile; empty removes the name.
type NicknameRequest struct {
	Nickname string `json:"nickname"`
}

// AnswerRequest answers a job that waits in state "consent".
type AnswerRequest struct {
	Accept           bool   `json:"accept"`
	ConfirmationCode string `json:"confirmation_code,omitempty"`
}

// Job is one order on its way.
type Job struct {
	ID       string    `json:"id"`
	Card     string    `json:"card,omitempty"` // name of the card
	Kind     string    `json:"kind"`
	State    string    `json:"state"`
	Step     int       `json:"step"` // of the ten, 0 outside them
	Ended    bool      `json:"ended"`
	Created  time.Time `json:"created"`
	Progress *Progress `json:"progress,omitempty"` // while loading

	SMDP         string   `json:"smdp,omitempty"`
	ICCID        string   `json:"iccid,omitempty"`
	Profile      *Profile `json:"profile,omitempty"` // from the server's metadata
	CodeRequired bool     `json:"code_required,omitempty"`
	DryRun       bool     `json:"dry_run,omitempty"`  // as ordered: it ends as cancelled, with what is offered in Profile
	Previous     string   `json:"previous,omitempty"` // ICCID enabled before
	APN          string   `json:"apn,omitempty"`
	APNSource    string   `json:"apn_source,omitempty"`
	Rung         string   `json:"rung,omitempty"` // how the SIM was read again
	Network      *Network `json:"network,omitempty"`
	Undelivered  int      `json:"undelivered,omitempty"`
	Problem      *Problem `json:"problem,omitempty"`
	Timeline     []Mark   `json:"timeline,omitempty"`

	Packet *PacketWait `json:"packet,omitempty"` // that the job waits for; it has the card for so long

	SignedBy string    `json:"signed_by,omitempty"` // of a signed order: the name of the key, or "smdp:" and the server
	Serial   int64     `json:"serial,omitempty"`    // of that order
	EnableAt time.Time `json:"enable_at,omitzero"`  // when the switch may begin

	Parameters []Parameter `json:"parameters,omitempty"` // what is wanted, or set; after a rollback what was not
	AppliedAt  time.Time   `json:"applied_at,omitzero"`  // when the device had come online with them
	Activation int64       `json:"activation,omitempty"` // sequence number of the enable notification
	Hooks      []HookRun   `json:"hooks,omitempty"`
}

// HookRun is what became of a program of the device's maker.
type HookRun struct {
	Event   string `json:"event"` // staged, activated, applied, rolled-back
	Name    string `json:"name"`
	Millis  int64  `json:"ms"`
	Problem string `json:"problem,omitempty"` // empty: it did what it should
}

// Mark is one line of a job's timeline.
type Mark struct {
	State string    `json:"state"`
	Step  int       `json:"step"`
	At    time.Time `json:"at"`
	Note  string    `json:"note,omitempty"`
}

// Progress counts the segments of the profile package, and their bytes.
type Progress struct {
	Done  int `json:"done"`
	Total int `json:"total"`
	Bytes int `json:"bytes,omitempty"` // of Size
	Size  int `json:"size,omitempty"`
}

// Jobs lists jobs, the newest first.
type Jobs struct {
	Jobs []Job `json:"jobs"`
}

// Event is one line of the event stream.
type Event struct {
	ID   uint64    `json:"id"`
	At   time.Time `json:"at"`
	Type string    `json:"type"`           // job, progress, notification, report, card, state, apdu
	Card string    `json:"card,omitempty"` // name of the card
	Job  *Job      `json:"job,omitempty"`
	Text string    `json:"text,omitempty"`
}

// Types of events.
const (
	EventJob          = "job"
	EventProgress     = "progress"
	EventNotification = "notification"
	EventReport       = "report" // a report was delivered, or not, or was given up
	EventState        = "state"  // the state of the status has become another; Text says which
	EventAPDU         = "apdu"   // somebody has sent commands to the card by hand; Text says who and which, by instruction and length
	EventCard         = "card"   // the card is on another profile than it was left on; Text says which
)
