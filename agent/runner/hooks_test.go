package runner_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"lpad/agent/hooks"
	"lpad/agent/job"
	"lpad/agent/rsp"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/internal/redact"
	"lpad/modem"
)

// hookDir gives the world hooks: programs by "event.d/name". Each of them also
// writes its event into the file that is returned.
func hookDir(t *testing.T, w *world, d *desk, programs map[string]string) (dir hooks.Dir, diary string) {
	t.Helper()
	dir = hooks.Dir{Path: filepath.Join(t.TempDir(), "hooks.d"), Timeout: 30 * time.Second, File: filepath.Join(t.TempDir(), "parameters.json")}
	diary = filepath.Join(t.TempDir(), "diary")
	for name, text := range programs {
		path := filepath.Join(dir.Path, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		text = "#!/bin/sh\necho \"$LPAD_EVENT begins\" >>" + diary + "\n" + text + "\necho \"$LPAD_EVENT\" >>" + diary + "\n"
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.change = func(c *runner.Config) {
		if d != nil {
			c.Reporter, c.ReportTo = d, deskOne
		}
		c.Hooks, c.Settings, c.Name = dir, knowing{}, "main"
		c.Switch.Modem = writing{c.Switch.Modem.(switchover.Direct)}
	}
	return dir, diary
}

// all has a hook for each event.
func allEvents() map[string]string {
	out := map[string]string{}
	for _, e := range hooks.Events() {
		out[e.Folder()+"/10-tell"] = ""
	}
	return out
}

// knowing is a runner.SettingsSource with an access point that has a password.
type knowing struct{ settings }

func (knowing) Wanted(runner.Question) (switchover.Wanted, runner.Effective, error) {
	apn := modem.APN{Name: "iot.example", User: "u", Password: redact.NewSecret("geheim")}
	return switchover.Wanted{Candidates: []switchover.Candidate{{APN: apn, Source: "order"}, {Source: "network default"}}},
		runner.Effective{Parameters: []job.Parameter{
			{Leaf: "apns.default", Value: json.RawMessage(`{"name":"iot.example","user":"u"}`), Source: "order", Rank: 2},
			{Leaf: "apns.default.2", Source: "network default", Rank: 5},
			{Leaf: "servers.cmp", Value: json.RawMessage(`"cmp.example"`), Source: "oem: a.json", Rank: 3}}}, nil
}

// writing is a modem that has a place for an access point.
type writing struct{ switchover.Direct }

func (writing) Apply(context.Context, string, modem.Settings) ([]string, error) {
	return []string{"at"}, nil
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(strings.ReplaceAll(string(b), " ", "-")), " ")
}

func hookRuns(j []job.HookRun) string {
	var out []string
	for _, h := range j {
		s := h.Event + "/" + h.Name
		if h.Problem != "" {
			s += " (" + h.Problem + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

// Each hook runs once for what the job comes to, knows what it is about, and the
// report tells of it, of what was applied, and of the activation.
func TestHooksAndReport(t *testing.T) {
	w := newWorld(t, options{})
	d := newDesk(w)
	programs := allEvents()
	env := filepath.Join(t.TempDir(), "env")
	for name := range programs {
		programs[name] = `env | grep ^LPAD_ | sort >` + env + `.$LPAD_EVENT; cat "$LPAD_PARAMETERS" >` + env + `.$LPAD_EVENT.json`
	}
	programs["applied.d/20-fails"] = "echo no logo here; exit 1"
	dir, diary := hookDir(t, w, d, programs)
	l := w.live()
	begin := time.Now()
	j := l.ends(l.submit(order(enabling)).ID, job.Done)
	if got, want := read(t, diary), "staged-begins staged activated-begins activated applied-begins applied applied-begins"; got != want {
		t.Errorf("ran %s, want %s", got, want)
	}
	const want = "staged/10-tell, activated/10-tell, applied/10-tell, applied/20-fails (exit status 1: no logo here)"
	if got := hookRuns(j.Hooks); got != want {
		t.Errorf("job tells %s", got)
	}
	r := d.reports(t, 1)[0]
	if got := hookRuns(r.Hooks); got != want {
		t.Errorf("report tells %s", got)
	}
	var said []string
	for _, p := range r.Parameters {
		said = append(said, fmt.Sprintf("%s=%s %s %d %s", p.Leaf, p.Value, p.Source, p.Rank, p.State))
	}
	if got := strings.Join(said, "; "); got != `apns.default={"name":"iot.example","user":"u"} order 2 applied; servers.cmp="cmp.example" oem: a.json 3 applied` {
		t.Errorf("report tells %s", got)
	}
	if r.Outcome != job.OutcomeDone || r.ICCID != newICCID || r.AppliedAt.Before(begin.Add(-time.Second)) || r.AppliedAt.After(r.Ended) || r.APN != "iot.example" {
		t.Errorf("report %+v", r)
	}
	enable := int64(-1) // as the server was told of it
	for _, n := range w.smdp.Notifications() {
		if n.Event == rsp.EventEnable && n.ICCID.String() == newICCID {
			enable = n.SeqNumber
		}
	}
	if r.Activation != enable {
		t.Errorf("activation %d, the server has %d", r.Activation, enable)
	}
	eid := l.View().Facts.EID.String()
	for event, want := range map[string]string{
		"staged": "LPAD_APN= LPAD_CARD=main LPAD_EID=" + eid + " LPAD_EVENT=staged LPAD_FAULT= LPAD_ICCID=" + newICCID + " LPAD_INTERFACE= LPAD_JOB=" + j.ID +
			" LPAD_PARAMETERS=" + dir.File + " LPAD_PREVIOUS_ICCID= LPAD_PROVIDER=Test-Operator LPAD_P_SERVERS_CMP=cmp.example LPAD_SOURCE=",
		"applied": "LPAD_APN=iot.example LPAD_CARD=main LPAD_EID=" + eid + " LPAD_EVENT=applied LPAD_FAULT= LPAD_ICCID=" + newICCID + " LPAD_INTERFACE= LPAD_JOB=" + j.ID +
			" LPAD_PARAMETERS=" + dir.File + " LPAD_PREVIOUS_ICCID=" + oldICCID + " LPAD_PROVIDER=Test-Operator LPAD_P_SERVERS_CMP=cmp.example LPAD_SOURCE=order",
	} {
		if got := read(t, env+"."+event); got != want {
			t.Errorf("%s was told\n  %s\nwant\n  %s", event, got, want)
		}
	}
	if got := read(t, env+".applied.json"); !strings.Contains(got, `"leaf":"apns.default","value":{"name":"iot.example","user":"u"},"source":"order","rank":2,"state":"applied"`) {
		t.Errorf("the file has %s", got)
	}
	// The password is nowhere but where the switch needs it.
	all, err := json.Marshal([]any{j, r})
	if err != nil || bytes.Contains(all, []byte("geheim")) || strings.Contains(read(t, env+".applied")+read(t, env+".applied.json"), "geheim") {
		t.Errorf("%v: a password in %s", err, all)
	}
	if _, err := os.Stat(dir.File); !os.IsNotExist(err) {
		t.Errorf("the file stays: %v", err)
	}
}

// A switch that is taken back tells hooks and receiver so, with the reason.
func TestHooksAndReportOfARollback(t *testing.T) {
	w := newWorld(t, options{})
	d := newDesk(w)
	w.network = noNetwork{}
	programs := allEvents()
	env := filepath.Join(t.TempDir(), "env")
	programs["rolled-back.d/20-env"] = `echo "$LPAD_FAULT $LPAD_ICCID $LPAD_PREVIOUS_ICCID" >` + env
	_, diary := hookDir(t, w, d, programs)
	l := w.live()
	l.fails(l.submit(order(enabling)).ID, "no-bearer")
	if got, want := read(t, diary), "staged-begins staged activated-begins activated rolled-back-begins rolled-back rolled-back-begins rolled-back"; got != want {
		t.Errorf("ran %s, want %s", got, want)
	}
	if got, want := read(t, env), "no-bearer-"+newICCID+"-"+oldICCID; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
	r := d.reports(t, 1)[0]
	if r.Outcome != job.OutcomeRolledBack || r.Fault.Code != "no-bearer" || !r.AppliedAt.IsZero() || len(r.Parameters) != 2 || r.Parameters[0].State != job.ParameterNotApplied ||
		r.Parameters[1].State != job.ParameterNotApplied || r.Activation != 0 || hookRuns(r.Hooks) != "staged/10-tell, activated/10-tell, rolled-back/10-tell, rolled-back/20-env" {
		t.Errorf("report %+v", r)
	}
}

// A profile that is only to be installed has its parameters staged.
func TestHooksAndReportOfAnInstallation(t *testing.T) {
	w := newWorld(t, options{})
	d := newDesk(w)
	_, diary := hookDir(t, w, d, allEvents())
	l := w.live()
	l.ends(l.submit(order()).ID, job.Done)
	if got := read(t, diary); got != "staged-begins staged" {
		t.Errorf("ran %s", got)
	}
	if r := d.reports(t, 1)[0]; len(r.Parameters) != 3 || r.Parameters[0].State != job.ParameterStaged || !r.AppliedAt.IsZero() || hookRuns(r.Hooks) != "staged/10-tell" {
		t.Errorf("report %+v", r)
	}
}

// No other job has hooks, and a download that fails has none.
func TestJobsWithoutHooks(t *testing.T) {
	w := newWorld(t, options{})
	_, diary := hookDir(t, w, nil, allEvents())
	l := w.live()
	l.fails(l.submit(order(func(o *job.Order) { o.MatchingID = "OTHER" })).ID, "matching-id-refused")
	l.ends(l.submit(about(t, job.Nickname, oldICCID)).ID, job.Done)
	l.ends(l.submit(about(t, job.Disable, oldICCID)).ID, job.Done)
	l.ends(l.submit(about(t, job.Delete, oldICCID)).ID, job.Done)
	if got := read(t, diary); got != "" {
		t.Errorf("ran %s", got)
	}
}

// Hooks of an activation that take their time do not hold the switch up, and no
// channel to the card is open while a hook runs that the job waits for.
func TestSlowHooks(t *testing.T) {
	w := newWorld(t, options{})
	gate := filepath.Join(t.TempDir(), "gate")
	slow := `while ! [ -e ` + gate + `.$LPAD_EVENT ]; do sleep 0.01; done`
	_, diary := hookDir(t, w, nil, map[string]string{"staged.d/a": slow, "activated.d/a": slow, "applied.d/a": slow})
	release := func(event hooks.Event) {
		if err := os.WriteFile(gate+"."+string(event), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := w.live()
	id := l.submit(order(enabling)).ID
	quiet := func(event hooks.Event) {
		t.Helper()
		eventually(t, string(event)+" begins", func() bool { return strings.Contains(read(t, diary), string(event)+"-begins") })
		if open := w.card.OpenChannels(); len(open) > 0 {
			t.Errorf("%s: channels %v are open", event, open)
		}
	}
	l.state(id, job.Reporting)
	quiet(hooks.Staged)
	if got := w.received(); got != "install 358" { // the server was told first
		t.Errorf("received %s", got)
	}
	release(hooks.Staged)
	l.state(id, job.Confirming) // proven, while the hook of the activation still runs
	if got := read(t, diary); !strings.HasSuffix(got, "activated-begins") {
		t.Errorf("ran %s", got)
	}
	eventually(t, "the server is told of the activation", func() bool { return strings.HasSuffix(w.received(), "enable 358") })
	release(hooks.Activated)
	quiet(hooks.Applied)
	release(hooks.Applied)
	j := l.ends(id, job.Done)
	if got := hookRuns(j.Hooks); got != "staged/a, activated/a, applied/a" {
		t.Errorf("told %s", got)
	}
}

// The end of the daemon ends a hook at once; after the restart it runs again, as
// does one that a crash cut off. Then the job goes on.
func TestHooksAreCutOff(t *testing.T) {
	for _, event := range []hooks.Event{hooks.Staged, hooks.Activated, hooks.Applied, hooks.RolledBack} {
		t.Run(string(event), func(t *testing.T) {
			w := newWorld(t, options{})
			end := job.Done
			if event == hooks.RolledBack {
				w.network, end = noNetwork{}, job.Failed
			}
			gate := filepath.Join(t.TempDir(), "gate")
			dir, diary := hookDir(t, w, nil, map[string]string{event.Folder() + "/a": `echo $$ >>"$0.pid"; while ! [ -e ` + gate + ` ]; do sleep 0.01; done`})
			l := w.live()
			id := l.submit(order(enabling)).ID
			eventually(t, "the hook begins", func() bool { return strings.Contains(read(t, diary), "begins") })
			begin := time.Now()
			l.stop()
			if took := time.Since(begin); took > runner.StopTimeout {
				t.Errorf("stopped after %v", took)
			}
			pids, err := os.ReadFile(filepath.Join(dir.Path, event.Folder(), "a.pid"))
			if err != nil {
				t.Fatal(err)
			}
			for _, pid := range strings.Fields(string(pids)) {
				if n, err := strconv.Atoi(pid); err != nil || alive(n) {
					t.Errorf("%s (%v) still runs", pid, err)
				}
			}
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			l = w.live()
			j := l.ends(id, end)
			if got, want := read(t, diary), fmt.Sprintf("%s-begins %s-begins %s", event, event, event); got != want {
				t.Errorf("ran %s, want %s", got, want)
			}
			if got, want := hookRuns(j.Hooks), string(event)+"/a"; got != want {
				t.Errorf("told %s, want %s", got, want)
			}
		})
	}
}

// A crash between a hook and the record of it runs it once more, and no more.
func TestHooksAfterACrash(t *testing.T) {
	w := newWorld(t, options{})
	_, diary := hookDir(t, w, nil, allEvents())
	crashed := false
	w.now = func() time.Time {
		if !crashed && inLoop() && strings.HasSuffix(read(t, diary), "applied") {
			crashed = true
			crash()
		}
		return time.Now()
	}
	l := w.live()
	id := l.submit(order(enabling)).ID
	l.wait()
	if !crashed {
		t.Fatal("it did not crash")
	}
	l = w.live()
	j := l.ends(id, job.Done)
	ran := " " + read(t, diary) + " " // of the activation's, what the journal did not know is run again too
	for event, want := range map[string]int{"staged": 1, "applied": 2} {
		if got := strings.Count(ran, " "+event+" "); got != want {
			t.Errorf("%s ran %d times: %s", event, got, ran)
		}
	}
	if got := hookRuns(j.Hooks); got != "staged/10-tell, activated/10-tell, applied/10-tell" {
		t.Errorf("told %s", got)
	}
}

// A first profile that stays enabled without coming online is on trial, and has
// no hooks for what has not come about.
func TestHooksOfAFirstProfileOffline(t *testing.T) {
	w := newWorld(t, options{empty: true})
	d := newDesk(w)
	w.network = noNetwork{}
	_, diary := hookDir(t, w, d, allEvents())
	l := w.live()
	id := l.submit(order(enabling)).ID
	l.state(id, job.Retrying)
	if _, err := l.Abort(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	l.fails(id, "first-profile-offline")
	if got := read(t, diary); got != "staged-begins staged activated-begins activated" {
		t.Errorf("ran %s", got)
	}
	if r := d.reports(t, 1)[0]; r.Outcome != job.OutcomeGivenUp || r.Parameters[0].State != job.ParameterTrial || !r.AppliedAt.IsZero() || r.Activation == 0 {
		t.Errorf("report %+v", r)
	}
}

// All that can be told of parameters and hooks costs little flash.
func TestJournalOfManyParameters(t *testing.T) {
	w := newWorld(t, options{})
	d := newDesk(w)
	programs := map[string]string{}
	for i := range 16 {
		for _, e := range hooks.Events() {
			programs[fmt.Sprintf("%s/%02d", e.Folder(), i)] = "yes failed | head -c 200 | tr -d '\\n'; exit 1"
		}
	}
	hookDir(t, w, d, programs)
	change := w.change
	w.change = func(c *runner.Config) { change(c); c.Settings = verbose{} }
	l := w.live()
	j := l.ends(l.submit(order(enabling)).ID, job.Done)
	d.reports(t, 1)
	if len(j.Hooks) != 48 || len(j.Parameters) != 64 {
		t.Errorf("%d hooks, %d parameters", len(j.Hooks), len(j.Parameters))
	}
	l.stop()
	info, err := os.Stat(w.path)
	if err != nil || info.Size() > 200<<10 {
		t.Errorf("%v, %d bytes of journal", err, info.Size())
	}
	t.Logf("%d bytes", info.Size())
}

// verbose is a runner.SettingsSource that says as much as there can be.
type verbose struct{ knowing }

func (verbose) Wanted(q runner.Question) (switchover.Wanted, runner.Effective, error) {
	wanted, e, err := knowing{}.Wanted(q)
	for i := range 100 {
		e.Parameters = append(e.Parameters, job.Parameter{Leaf: fmt.Sprintf("connectivity.check%d", i), Value: json.RawMessage(`"` + strings.Repeat("x", 200) + `"`), Source: "order"})
	}
	return wanted, e, err
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !strings.Contains(string(b), ") Z ")
}
