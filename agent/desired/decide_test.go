package desired_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lpad/agent/desired"
	"lpad/agent/job"
	"lpad/agent/rsp"
)

// device is a device to decide for, with the outcomes of its jobs.
type device struct {
	desired.Device
	t       *testing.T
	list    []*desired.Declaration
	entries []*desired.Entry
	log     []string // what was done

	fail       map[job.Kind]*job.Problem // of the jobs of a kind; nil: they are done
	outcome    job.State                 // of those that fail
	noNickname bool                      // the card says that it takes nicknames, and does not
	quarantine map[rsp.ICCID]bool
	wait       bool // jobs that failed wait
	downloads  int
}

func newDevice(t *testing.T, files ...string) *device {
	d := &device{t: t, quarantine: map[rsp.ICCID]bool{}, fail: map[job.Kind]*job.Problem{}, outcome: job.Failed}
	d.EID, _ = rsp.ParseEID(eid)
	d.Card, d.First = "main", true
	d.Quarantined = func(id rsp.ICCID) bool { return d.quarantine[id] }
	d.Wait = func(e *desired.Entry) time.Duration {
		if d.wait && e.Tries > 0 {
			return time.Duration(e.Tries) * time.Minute
		}
		return 0
	}
	d.declare(files...)
	return d
}

func (d *device) declare(files ...string) {
	d.list = nil
	for i, text := range files {
		d.list = append(d.list, parse(d.t, string(rune('a'+i))+".yaml", "version: 1\n"+text))
	}
}

func numbered(t testing.TB, n int) rsp.ICCID {
	id, err := rsp.ParseICCID(fmt.Sprintf("89000123456789%05d", n))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// have puts a profile on the card.
func (d *device) have(n int, nickname string, enabled bool) {
	p := rsp.Profile{ICCID: numbered(d.t, n), Nickname: nickname}
	if enabled {
		p.State = rsp.Enabled
	}
	d.Profiles = append(d.Profiles, p)
}

// run does what is decided until nothing is left to be done.
func (d *device) run() []desired.Line {
	d.t.Helper()
	for range 50 {
		lines, step, _ := desired.Decide(d.list, &d.Device, d.entries)
		if step == nil {
			return lines
		}
		d.do(step)
	}
	d.t.Fatalf("it never ends: %s", d.log)
	return nil
}

func (d *device) do(s *desired.Step) {
	name, o := s.Declaration.Name, s.Order
	if o.Kind == "" {
		what := "remember"
		if s.Parameters {
			what = "parameters"
		}
		d.log = append(d.log, what+" "+name)
		d.entries = desired.Put(d.entries, s.Entry)
		return
	}
	d.log = append(d.log, string(o.Kind)+" "+name)
	if !o.Automatic || o.By != "profiles.d/"+name || o.Declared != s.Declaration.Tag() || o.Kind == job.Install && (!o.Consent || o.EID != d.EID) {
		d.t.Errorf("the order %+v", o)
	}
	j := job.Job{ID: "j", Order: o, State: job.Done}
	if p := d.fail[o.Kind]; p != nil {
		j.State, j.Problem = d.outcome, p
		d.entries = desired.After(d.entries, &j, false, d.EID)
		return
	}
	switch o.Kind {
	case job.Install:
		d.downloads++
		d.have(100+d.downloads, o.Nickname, false)
		if d.noNickname {
			d.Profiles[len(d.Profiles)-1].Nickname = ""
		}
		j.Profile = &job.ProfileFacts{ICCID: numbered(d.t, 100+d.downloads)}
		loaded := j
		loaded.State = job.Reporting
		d.entries = desired.After(d.entries, &loaded, true, d.EID)
		if o.Enable {
			d.enable(j.Profile.ICCID)
		}
	case job.Enable:
		d.enable(o.ICCID)
	case job.Nickname:
		for i := range d.Profiles {
			if d.Profiles[i].ICCID == o.ICCID && !d.noNickname {
				d.Profiles[i].Nickname = o.Nickname
			}
		}
	}
	d.entries = desired.After(d.entries, &j, false, d.EID)
}

func (d *device) enable(id rsp.ICCID) {
	for i := range d.Profiles {
		d.Profiles[i].State = rsp.Disabled
		if d.Profiles[i].ICCID == id {
			d.Profiles[i].State = rsp.Enabled
		}
	}
}

// standing is how it stands with all, in short.
func standing(lines []desired.Line) string {
	var out []string
	for _, l := range lines {
		s := l.Name + " " + l.State
		if l.Code != "" {
			s += " " + l.Code
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

const (
	one = "code: 1$smdp.example.com$ONE\nnickname: uplink\n"
	two = "code: 1$smdp.example.com$TWO\n"
)

func TestDecide(t *testing.T) {
	refused := &job.Problem{Code: "matching-id-refused", Text: "used", State: job.Authenticating}
	mark := func(t *testing.T, text string) string { return parse(t, "a.yaml", "version: 1\n"+text).Mark }
	for _, tc := range []struct {
		name  string
		files []string
		set   func(*device)
		done  string // what was done
		want  string // how it stands
	}{
		{"nothing declared", nil, nil, "", ""},
		{"a new profile", []string{one}, nil, "install a, remember a", "a converged"},
		{"a new profile that is enabled", []string{one + "enabled: yes\n"}, nil, "install a, remember a", "a converged"},
		{"the one to be enabled comes last", []string{one + "enabled: yes\n", two}, nil, "install b, remember b, install a, remember a", "b converged, a converged"},
		{"its mark is on the card", []string{one}, func(d *device) { d.have(1, "uplink ["+mark(d.t, one)+"]", false) }, "remember a", "a converged"},
		{"its mark is there under another name", []string{one}, func(d *device) { d.have(1, "Bob ["+mark(d.t, one)+"]", false) }, "nickname a, remember a", "a converged"},
		{"it is there and not enabled", []string{one + "enabled: yes\n"}, func(d *device) { d.have(1, "uplink ["+mark(d.t, one)+"]", false) }, "enable a, remember a", "a converged"},
		{"it is there and enabled", []string{one + "enabled: yes\n"}, func(d *device) { d.have(1, "uplink ["+mark(d.t, one)+"]", true) }, "remember a", "a converged"},
		{"its ICCID is on the card", []string{one + "iccid: '8900012345678900001'\n"}, func(d *device) { d.have(1, "", true) }, "nickname a, remember a", "a converged"},
		{"a nickname like a mark", []string{one}, func(d *device) { d.have(1, "[abcdefgh]", true); d.have(2, "x", false) }, "install a, remember a", "a converged"},
		{"two with the mark", []string{one}, func(d *device) {
			d.have(1, "uplink ["+mark(d.t, one)+"]", false)
			d.have(2, "uplink ["+mark(d.t, one)+"]", true)
		}, "remember a", "a converged"},
		{"the card takes no nickname", []string{one + "enabled: yes\n"}, func(d *device) { d.noNickname = true }, "install a, nickname a, remember a", "a converged"},
		{"the card refuses the nickname", []string{one}, func(d *device) {
			d.have(1, "Bob ["+mark(d.t, one)+"]", false)
			d.fail[job.Nickname] = &job.Problem{Code: "nickname-refused", State: job.Renaming}
		}, "nickname a, remember a", "a converged nickname-refused"},
		{"parameters of a profile that is there", []string{one + "parameters: '{}'\n"}, func(d *device) { d.have(1, "uplink ["+mark(d.t, one)+"]", false) }, "parameters a", "a converged"},
		{"parameters go with the switch", []string{one + "parameters: '{}'\nenabled: yes\n"}, func(d *device) { d.have(1, "uplink ["+mark(d.t, one)+"]", false) }, "enable a, remember a", "a converged"},
		{"a code that is used up", []string{one}, func(d *device) { d.fail[job.Install] = refused }, "install a", "a failed matching-id-refused"},
		{"one that fails does not hold the others up", []string{one, two}, func(d *device) { d.wait = true; d.fail[job.Install] = refused }, "install a, install b",
			"a failed matching-id-refused, b failed matching-id-refused"},
		{"no network", []string{one, two}, func(d *device) {
			d.wait = true
			d.fail[job.Install] = &job.Problem{Code: "no-network", Retry: true, State: job.Authenticating}
		}, "install a, install b", "a pending, b pending"},
		{"nobody answered", []string{one}, func(d *device) {
			d.fail[job.Install] = &job.Problem{Code: "consent-timeout", Retry: true, State: job.Consent}
		}, "install a", "a failed consent-timeout"},
		{"broken off again and again", []string{one}, func(d *device) {
			d.fail[job.Install] = &job.Problem{Code: "connection-lost", Retry: true, State: job.Preparing}
		}, "install a, install a, install a, install a, install a", "a failed connection-lost"},
		{"aborted", []string{one}, func(d *device) {
			d.fail[job.Install] = &job.Problem{}
			d.outcome = job.Cancelled
		}, "install a", "a failed cancelled"},
		{"quarantined", []string{one + "enabled: yes\n"}, func(d *device) {
			d.have(1, "uplink ["+mark(d.t, one)+"]", false)
			d.quarantine[numbered(d.t, 1)] = true
		}, "", "a failed profile-quarantined"},
		{"two to be enabled", []string{one + "enabled: yes\n", two + "enabled: yes\n"}, nil, "", "a failed declarations-conflict, b failed declarations-conflict"},
		{"a conflict stops the others", []string{one + "enabled: yes\n", two + "enabled: yes\n", "source: smds\n"}, nil, "", "c pending, a failed declarations-conflict, b failed declarations-conflict"},
		{"one code twice", []string{one, one}, nil, "", "a failed declarations-conflict, b failed declarations-conflict"},
		{"one name twice", []string{one + "name: x\n", two + "name: x\n"}, nil, "", "x failed declarations-conflict, x failed declarations-conflict"},
		{"one profile twice", []string{one + "iccid: " + iccid + "\n", two + "iccid: " + iccid + "\n"}, nil, "", "a failed declarations-conflict, b failed declarations-conflict"},
		{"one of two to be enabled is another device's", []string{one + "enabled: yes\n", two + "enabled: yes\nimei: 490154203237518\n"}, nil, "install a, remember a", "a converged"},
		{"for this EID", []string{one + "eid: " + eid + "\n"}, func(d *device) { d.First = false }, "install a, remember a", "a converged"},
		{"for another EID", []string{one + "eid: 89049032000000000000000000000001\n"}, nil, "", ""},
		{"for this card", []string{one + "card: [spare, main]\n"}, func(d *device) { d.First = false }, "install a, remember a", "a converged"},
		{"for another card", []string{one + "card: spare\n"}, nil, "", ""},
		{"for the first card", []string{one}, func(d *device) { d.First = false }, "", ""},
		{"for this modem", []string{one + "imei: 490154203237518\neid: " + eid + "\n"}, func(d *device) { d.IMEI = "490154203237518" }, "install a, remember a", "a converged"},
		{"the modem has not told", []string{one + "imei: 490154203237518\n"}, nil, "", ""},
		{"a code that another card has used", []string{one}, func(d *device) {
			other, _ := rsp.ParseEID("89049032000000000000000000000001")
			d.entries = []*desired.Entry{{Mark: mark(d.t, one), EID: other, ICCID: numbered(d.t, 9), Generation: d.list[0].Generation, End: desired.Converged}}
		}, "install a, remember a", "a converged"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDevice(t, tc.files...)
			if tc.set != nil {
				tc.set(d)
			}
			lines := d.run()
			if done := strings.Join(d.log, ", "); done != tc.done || standing(lines) != tc.want {
				t.Errorf("\ndone %q\nwant %q\n standing %q\n     want %q", done, tc.done, standing(lines), tc.want)
			}
			if d.log = nil; d.wait { // time passes
				return
			}
			if again := standing(d.run()); again != tc.want || len(d.log) > 0 {
				t.Errorf("the second time %q, %s", d.log, again)
			}
			// A device that was flashed anew has lost its memory, and downloads nothing that is there.
			d.entries, d.log = nil, nil
			before := d.downloads
			if d.noNickname || len(d.fail) > 0 {
				return
			}
			if again := standing(d.run()); again != tc.want || d.downloads != before {
				t.Errorf("flashed anew: %q, %s", d.log, again)
			}
		})
	}
}

// What happens to a declaration that has been converged to.
func TestLater(t *testing.T) {
	for _, tc := range []struct {
		name string
		file string // that it becomes; empty: it stays
		then func(*device)
		done string
		want string
	}{
		{"a person has switched away", "", func(d *device) { d.have(1, "", false); d.enable(numbered(d.t, 1)) }, "", "a converged"},
		{"a person has renamed it", "", func(d *device) { d.Profiles[0].Nickname = "Bob" }, "", "a converged"},
		{"a person has deleted it", "", func(d *device) { d.Profiles = nil }, "", "a converged"},
		{"the file has changed", one + "enabled: yes\n# x\n", nil, "remember a", "a converged"},
		{"changed after a switch by hand", one + "enabled: yes\n# x\n", func(d *device) { d.have(1, "", false); d.enable(numbered(d.t, 1)) }, "enable a, remember a", "a converged"},
		{"changed after it was renamed", one + "enabled: yes\n# x\n", func(d *device) { d.Profiles[0].Nickname = "Bob" }, "nickname a, remember a", "a converged"},
		{"changed after it was deleted", one + "enabled: yes\n# x\n", func(d *device) { d.Profiles = nil }, "", "a failed profile-gone"},
		{"left out of the list once", one + "enabled: yes\n# x\n", func(d *device) {
			all := d.Profiles
			d.Profiles = nil
			if lines := d.run(); standing(lines) != "a failed profile-gone" {
				d.t.Errorf("%v", lines)
			}
			d.Profiles = all
		}, "remember a", "a converged"},
		{"another nickname", strings.Replace(one, "uplink", "Uplink 2", 1) + "enabled: yes\n", nil, "nickname a, remember a", "a converged"},
		{"new parameters", one + "enabled: yes\nparameters: '{}'\n", nil, "parameters a", "a converged"},
		{"another code", strings.Replace(one, "ONE", "THREE", 1) + "enabled: yes\n", nil, "install a, remember a", "a converged"},
		{"quarantined, and proven by a person", one + "enabled: yes\n# x\n", func(d *device) {
			d.have(1, "", false)
			d.enable(numbered(d.t, 1))
			d.quarantine[d.Profiles[0].ICCID] = true
			if lines := d.run(); standing(lines) != "a failed profile-quarantined" {
				d.t.Errorf("%v", lines)
			}
			d.quarantine = map[rsp.ICCID]bool{}
			d.enable(d.Profiles[0].ICCID)
		}, "remember a", "a converged"},
		{"the file is gone", "-", nil, "", ""},
		{"failed, then mended", one + "enabled: yes\n# mended\n", func(d *device) {
			d.Profiles, d.entries = nil, []*desired.Entry{{Mark: d.list[0].Mark, EID: d.EID, Generation: "0123456789abcdef", End: desired.Failed, Code: "x"}}
		}, "install a, remember a", "a converged"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDevice(t, one+"enabled: yes\n")
			if lines := d.run(); standing(lines) != "a converged" || d.downloads != 1 {
				t.Fatalf("%v", lines)
			}
			switch tc.file {
			case "":
			case "-":
				d.declare()
			default:
				d.declare(tc.file)
			}
			if tc.then != nil {
				tc.then(d)
			}
			d.log = nil
			lines := d.run()
			if done := strings.Join(d.log, ", "); done != tc.done || standing(lines) != tc.want {
				t.Errorf("\ndone %q\nwant %q\n standing %q\n     want %q", done, tc.done, standing(lines), tc.want)
			}
		})
	}
}

// A switch that was taken back is not tried again, and the profile stays.
func TestRolledBack(t *testing.T) {
	d := newDevice(t, one+"enabled: yes\n")
	_, step, _ := desired.Decide(d.list, &d.Device, d.entries)
	j := job.Job{ID: "j", Order: step.Order, State: job.Reporting, Profile: &job.ProfileFacts{ICCID: numbered(t, 7)}}
	d.entries = desired.After(d.entries, &j, true, d.EID)
	d.have(7, step.Order.Nickname, false)
	j.State, j.Problem = job.Failed, &job.Problem{Code: "no-registration", Retry: true, State: job.Verifying}
	j.Switch.Started = time.Unix(1, 0)
	d.entries = desired.After(d.entries, &j, false, d.EID)
	if lines := d.run(); standing(lines) != "a failed no-registration" || len(d.log) > 0 || lines[0].String() == "" {
		t.Errorf("%v, done %v", lines, d.log)
	}
}

// Of several that wait, the shortest pause counts.
func TestPause(t *testing.T) {
	d := newDevice(t, one, two)
	d.wait = true
	d.fail[job.Install] = &job.Problem{Code: "no-network", Retry: true}
	d.run()
	more := *d.entries[0]
	more.Tries = 5
	d.entries = desired.Put(d.entries, &more)
	if _, step, pause := desired.Decide(d.list, &d.Device, d.entries); step != nil || pause != time.Minute {
		t.Errorf("%v, pause %v", step, pause)
	}
}

func TestEntriesAreBounded(t *testing.T) {
	var entries []*desired.Entry
	for i := range 3 * desired.MaxEntries {
		entries = desired.Put(entries, &desired.Entry{Mark: fmt.Sprintf("%08d", i)})
	}
	if len(entries) != desired.MaxEntries || entries[0].Mark != fmt.Sprintf("%08d", 2*desired.MaxEntries) {
		t.Errorf("%d entries, the first is %s", len(entries), entries[0].Mark)
	}
	other := &job.Job{State: job.Done, Order: job.Order{Kind: job.Install}}
	if after := desired.After(entries, other, false, rsp.EID{}); len(after) != len(entries) || after[0] != entries[0] {
		t.Error("a job that nobody declared changes what is remembered")
	}
}
