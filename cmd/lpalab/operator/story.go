package operator

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"lpad/agent/api"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/modem/modemtest"
)

// Story is one provisioning as everybody has written it down by himself: the
// operator server, the SM-DP+, the daemon (the timeline of its jobs, which is
// journalled, and its log), and the modem. All have the same clock.
type Story struct {
	Old, New      Subscriber
	Process       Process
	Record        []Entry             // of the operator server
	Calls         []smdp.Call         // at the SM-DP+
	Notifications []smdp.Notification // the same
	Jobs          []api.Job           // of the daemon
	Hooks         []HookCall          // of the device's maker: how its programs were called
	Modem         []modemtest.Entry
}

// HookCall is one call of a program in lpad's folder of hooks, as the program
// itself has noted it.
type HookCall struct {
	At    time.Time
	Event string // staged, activated, applied, rolled-back
	ICCID string
	APN   string
}

// Subscriber is a profile in its operator's network.
type Subscriber struct {
	ICCID   string
	IMSI    string
	APN     string
	Address netip.Addr // of the device there
}

// Place is where something was seen.
type Place string

// The places.
const (
	AtOperator Place = "operator"
	AtSMDP     Place = "SM-DP+"
	AtDaemon   Place = "lpad"
	AtModem    Place = "modem"
)

// Step is one step of the founding flow, as it was found in the story.
type Step struct {
	Name  string
	Place Place
	At    time.Time
	Peer  netip.Addr // whence it came, where it came over the network
	Text  string
}

// finder looks for a step that comes after a time.
type finder func(s *Story, after time.Time) (Step, error)

// Steps that others are held against.
const (
	stepSigned    = "signature checked"
	stepLoad      = "load"
	stepEnable    = "enable"
	stepConfirmed = "activation notification of the eUICC"
	stepRefresh   = "refresh"
	stepReport    = "parameters report"
)

// founding is the flow that the product is for, in its order, with where each
// step leaves its mark.
var founding = []struct {
	name string
	find finder
}{
	{"request with profile and parameters", entry(OrderSigned)},
	{"staged", mark(install, "queued")},
	{stepSigned, mark(install, "preparing")},
	{stepLoad, onModem(modemtest.Sent, func(*Story) string { return `"[0-9A-F]{2}E2(?:11|91)00[0-9A-F]{2}BF36` })},
	{"loaded notification", notification("install", func(s *Story) Subscriber { return s.New }, func(s *Story) Subscriber { return s.Old })},
	{"activation request", entry(ActivationOrdered)},
	{stepEnable, onModem(modemtest.Sent, func(s *Story) string { return `BF31..A0..5A0A` + swapped(s.New.ICCID) })},
	{stepConfirmed, onModem(modemtest.Answered, func(*Story) string { return `BF3103800100` })},
	{"configuration", onModem(modemtest.Sent, func(s *Story) string { return `^AT\+CGDCONT=1,"[^"]*","` + regexp.QuoteMeta(s.New.APN) + `"` })},
	{stepRefresh, onModem(modemtest.Happened, func(s *Story) string { return `^SIM read: ICCID ` + s.New.ICCID })},
	{"activation procedure with the server over the new network", notification("enable", func(s *Story) Subscriber { return s.New }, func(s *Story) Subscriber { return s.New })},
	{stepReport, report},
}

// Kinds of jobs.
const (
	install = "install"
	enable  = "enable"
)

// Steps finds the steps of the founding flow, each after the one before it. Of
// one that is not there, or stands before its turn, the error says where.
func (s *Story) Steps() (steps []Step, err error) {
	var errs []error
	after := time.Time{}
	for _, f := range founding {
		step, err := f.find(s, after)
		if err != nil {
			if _, early := f.find(s, time.Time{}); early == nil && !after.IsZero() {
				err = fmt.Errorf("it is there, but before %q: %w", steps[len(steps)-1].Name, err)
			}
			errs = append(errs, fmt.Errorf("step %q: %w", f.name, err))
			continue
		}
		step.Name, after = f.name, step.At
		steps = append(steps, step)
	}
	return steps, errors.Join(errs...)
}

// Check holds the story against the founding flow, and against what must never
// be seen beside it: the modem attaching, or a context coming up, with anything
// but the new profile and its own access point once it was enabled; a second
// way round the order.
func (s *Story) Check() ([]Step, error) {
	steps, err := s.Steps()
	return steps, errors.Join(err, s.checkAir(), s.checkStaged(), s.checkHooks(steps), s.checkPackage(steps))
}

// entry is a step in the server's own record.
func entry(what What) finder {
	return func(s *Story, after time.Time) (Step, error) {
		for _, e := range s.Record {
			if e.What == what && e.Process == s.Process.ID && !e.At.Before(after) {
				return Step{Place: AtOperator, At: e.At, Peer: e.Peer, Text: e.Text}, nil
			}
		}
		return Step{}, fmt.Errorf("the server's record has no %q", what)
	}
}

// mark is a step in the timeline of a job.
func mark(kind, state string) finder {
	return func(s *Story, after time.Time) (Step, error) {
		for _, j := range s.Jobs {
			if j.ID != s.job(kind) {
				continue
			}
			for _, m := range j.Timeline {
				if m.State == state && !m.At.Before(after) {
					return Step{Place: AtDaemon, At: m.At, Text: "job " + j.ID + " " + state}, nil
				}
			}
		}
		return Step{}, fmt.Errorf("no job %s of lpad has the state %q in its timeline", kind, state)
	}
}

// job is the daemon's name of one of the two jobs.
func (s *Story) job(kind string) string {
	if kind == install {
		return s.Process.InstallJob
	}
	return s.Process.EnableJob
}

// onModem is a step in the log of the modem.
func onModem(kind modemtest.Kind, pattern func(*Story) string) finder {
	return func(s *Story, after time.Time) (Step, error) {
		re := regexp.MustCompile(pattern(s))
		for _, e := range s.Modem {
			if e.Kind == kind && !e.Time.Before(after) && re.MatchString(e.Text) {
				return Step{Place: AtModem, At: e.Time, Text: e.Text}, nil
			}
		}
		return Step{}, fmt.Errorf("the modem's log has no %s %s", kind, re)
	}
}

// notification is a step at the SM-DP+: a notification of a profile whose
// signature is good, from the network of a subscriber.
func notification(event string, of, from func(*Story) Subscriber) finder {
	return func(s *Story, after time.Time) (Step, error) {
		for _, n := range s.Notifications {
			if n.EventName != event || n.ICCID.String() != of(s).ICCID || n.Time.Before(after) {
				continue
			}
			switch want := from(s).Address; {
			case !n.Verified:
				return Step{}, fmt.Errorf("the notification %q cannot be believed: %s", event, n.Problem)
			case n.Peer != want:
				return Step{}, fmt.Errorf("the notification %q came from %s, not from %s", event, n.Peer, want)
			}
			return Step{Place: AtSMDP, At: n.Time, Peer: n.Peer, Text: fmt.Sprintf("%s of %s, number %d", event, n.ICCID, n.SeqNumber)}, nil
		}
		return Step{}, fmt.Errorf("the SM-DP+ has no notification %q of %s", event, of(s).ICCID)
	}
}

// report is the last step: the report of the switch, from the new network, about
// the activation that the SM-DP+ has heard of.
func report(s *Story, after time.Time) (Step, error) {
	activation := int64(0)
	for _, n := range s.Notifications {
		if n.EventName == enable && n.ICCID.String() == s.New.ICCID {
			activation = n.SeqNumber
		}
	}
	for _, e := range s.Record {
		if e.What != Reported || e.Process != s.Process.ID || e.At.Before(after) || !strings.HasPrefix(e.Text, enable) {
			continue
		}
		switch {
		case e.Peer != s.New.Address:
			return Step{}, fmt.Errorf("the report came from %s, not from %s", e.Peer, s.New.Address)
		case e.Seq != activation:
			return Step{}, fmt.Errorf("the report is of the activation %d, the notification of %d", e.Seq, activation)
		case e.ICCID != s.New.ICCID:
			return Step{}, fmt.Errorf("the report is of %s", e.ICCID)
		}
		return Step{Place: AtOperator, At: e.At, Peer: e.Peer, Text: e.Text}, nil
	}
	return Step{}, errors.New("the server's record has no report of the switch")
}

var (
	simRead = regexp.MustCompile(`^SIM read: ICCID \d+ IMSI (\d+)`)
	// onAir are the lines of the modem's log that tell of an access point that the network was asked for.
	onAir = regexp.MustCompile(`^(?:attach of (\d+)(?: refused)?: |attach of (\d+), |context \d+ active: |context \d+, )APN "([^"]*)"`)
)

// checkAir finds every attempt at the network after the new profile was enabled
// that is not the new profile's with its own access point.
func (s *Story) checkAir() error {
	first, err := onModem(modemtest.Sent, func(s *Story) string { return `BF31..A0..5A0A` + swapped(s.New.ICCID) })(s, time.Time{})
	if err != nil {
		return err
	}
	imsi, seen := "", 0
	for _, e := range s.Modem {
		if e.Kind != modemtest.Happened {
			continue
		}
		if m := simRead.FindStringSubmatch(e.Text); m != nil {
			imsi = m[1]
		}
		m := onAir.FindStringSubmatch(e.Text)
		if m == nil || e.Time.Before(first.At) {
			continue
		}
		seen++
		who := m[1] + m[2]
		if who == "" {
			who = imsi
		}
		if who != s.New.IMSI || m[3] != s.New.APN {
			return fmt.Errorf("after the switch the network was asked with the SIM %s: %s", who, e)
		}
	}
	if seen < 2 {
		return fmt.Errorf("the network was asked %d times, there must be an attach and a context", seen)
	}
	return nil
}

// checkStaged finds the new access point on the modem before the eUICC has
// confirmed the activation: staged is not applied.
func (s *Story) checkStaged() error {
	answer, err := onModem(modemtest.Answered, func(*Story) string { return `BF3103800100` })(s, time.Time{})
	if err != nil {
		return err
	}
	for _, e := range s.Modem {
		if e.Time.Before(answer.At) && e.Kind == modemtest.Sent && strings.Contains(e.Text, `"`+s.New.APN+`"`) {
			return fmt.Errorf("applied before the activation: %s", e)
		}
	}
	return nil
}

// checkHooks finds a hook that was not called once, with the new profile, or not
// at its place among the steps.
func (s *Story) checkHooks(steps []Step) error {
	at := func(name string) time.Time {
		i := slices.IndexFunc(steps, func(s Step) bool { return s.Name == name })
		if i < 0 {
			return time.Time{}
		}
		return steps[i].At
	}
	var errs []error
	expected := 0
	for _, want := range []struct{ event, after, before, apn string }{
		{"staged", stepLoad, stepEnable, ""},
		{"activated", stepConfirmed, stepReport, ""},
		{"applied", stepRefresh, stepReport, s.New.APN},
	} {
		i := slices.IndexFunc(s.Hooks, func(h HookCall) bool { return h.Event == want.event })
		if i < 0 {
			errs = append(errs, fmt.Errorf("the hook %q was not called", want.event))
			continue
		}
		expected++
		switch h := s.Hooks[i]; {
		case h.ICCID != s.New.ICCID:
			errs = append(errs, fmt.Errorf("the hook %q was called for the profile %s", h.Event, h.ICCID))
		case want.apn != "" && h.APN != want.apn:
			errs = append(errs, fmt.Errorf("the hook %q was told the APN %q", h.Event, h.APN))
		case h.At.Before(at(want.after)), h.At.After(at(want.before)):
			errs = append(errs, fmt.Errorf("the hook %q was not called between %q and %q", h.Event, want.after, want.before))
		}
	}
	if len(s.Hooks) > expected {
		errs = append(errs, fmt.Errorf("%d hooks were called, want one for each of three events", len(s.Hooks)))
	}
	return errors.Join(errs...)
}

// checkPackage finds a package that was given before the order's signature was
// known to be good.
func (s *Story) checkPackage(steps []Step) error {
	i := slices.IndexFunc(steps, func(s Step) bool { return s.Name == stepSigned })
	if i < 0 {
		return nil // which is an error already
	}
	for _, c := range s.Calls {
		if c.Function == smdp.GetBoundProfilePackage && c.Time.Before(steps[i].At) {
			return errors.New("the package was asked for before the signature was checked")
		}
	}
	return nil
}

// swapped is an ICCID as a card stores it: its digits in pairs, each swapped.
func swapped(iccid string) string {
	digits := []byte(iccid)
	for i := 0; i+1 < len(digits); i += 2 {
		digits[i], digits[i+1] = digits[i+1], digits[i]
	}
	return strings.ToUpper(string(digits))
}

// line is one line of both logs side by side.
type line struct {
	at             time.Time
	server, device string
}

// worthTelling are the lines of the modem's log that people want to see.
var worthTelling = regexp.MustCompile(`^AT\+CGDCONT=1|^AT\+CFUN=|^SIM (?:read|powered)|^attach of|^context \d+ (?:active|ends)|^registration`)

// lines are the logs of servers and device, in the order of time.
func (s *Story) lines() []line {
	var list []line
	for _, e := range s.Record {
		if e.Process == s.Process.ID && e.What != ProfileLoaded && e.What != ProfileActivated { // those stand at the SM-DP+
			list = append(list, line{at: e.At, server: from(string(AtOperator)+": "+e.Text, e.Peer)})
		}
	}
	for _, c := range s.Calls {
		if c.Function != smdp.HandleNotification {
			list = append(list, line{at: c.Time, server: from(fmt.Sprintf("%s: %s %s", AtSMDP, c.Function, c.Outcome), c.Peer)})
		}
	}
	for _, n := range s.Notifications {
		list = append(list, line{at: n.Time, server: from(fmt.Sprintf("%s: notification %d, %s of %s", AtSMDP, n.SeqNumber, n.EventName, n.ICCID), n.Peer)})
	}
	for _, j := range s.Jobs {
		for _, m := range j.Timeline {
			text := fmt.Sprintf("%s: %s %s", AtDaemon, j.Kind, m.State)
			if m.Note != "" {
				text += " (" + m.Note + ")"
			}
			list = append(list, line{at: m.At, device: text})
		}
	}
	for _, h := range s.Hooks {
		list = append(list, line{at: h.At, device: "hook: " + h.Event})
	}
	load := regexp.MustCompile(`E2(?:11|91)00[0-9A-F]{2}BF36`)
	for _, e := range s.Modem {
		switch {
		case e.Kind == modemtest.Sent && load.MatchString(e.Text):
			list = append(list, line{at: e.Time, device: "modem: to the eUICC, LoadBoundProfilePackage"})
		case e.Kind == modemtest.Sent && strings.Contains(e.Text, `5A0A`+swapped(s.New.ICCID)) && strings.Contains(e.Text, "BF31"):
			list = append(list, line{at: e.Time, device: "modem: to the eUICC, EnableProfile " + s.New.ICCID})
		case e.Kind == modemtest.Answered && strings.Contains(e.Text, "BF3103800100"):
			list = append(list, line{at: e.Time, device: "modem: the eUICC confirms the activation"})
		case e.Kind != modemtest.Answered && worthTelling.MatchString(e.Text):
			list = append(list, line{at: e.Time, device: "modem: " + e.Text})
		}
	}
	slices.SortStableFunc(list, func(a, b line) int { return a.at.Compare(b.at) })
	return list
}

func from(text string, peer netip.Addr) string {
	if peer.IsValid() {
		text += " [from " + peer.String() + "]"
	}
	return text
}

// columnWidth is that of the server's column, in characters.
const columnWidth = 96

// Print writes what servers and device have logged side by side, in the order
// of time, from the first line of the process on.
func (s *Story) Print(w io.Writer) error {
	list := s.lines()
	begin := slices.IndexFunc(list, func(l line) bool { return strings.HasPrefix(l.server, string(AtOperator)) })
	if begin < 0 {
		return errors.New("the server has written nothing down")
	}
	if _, err := fmt.Fprintf(w, "%8s  %-*s  %s\n", "SECONDS", columnWidth, "OPERATOR AND SM-DP+", "DEVICE"); err != nil {
		return err
	}
	for _, l := range list[begin:] {
		if _, err := fmt.Fprintf(w, "%8.3f  %-*s  %s\n", l.at.Sub(list[begin].at).Seconds(), columnWidth, fit(l.server, columnWidth), strings.TrimRight(l.device, " ")); err != nil {
			return err
		}
	}
	return nil
}

// fit shortens a text to so many characters.
func fit(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}
