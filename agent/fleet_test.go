package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/rsp/rsptest/world"
	"lpad/agent/switchover"
	"lpad/config"
	"lpad/modem"
)

const (
	fleetOld  = "89330100000000000017"
	fleetNew  = "89358050000000000022"
	fleetIMEI = "490154203237518"
)

var fleetOperator = rsp.Operator{MCCMNC: [3]byte{0x00, 0xF1, 0x10}}

// fleetWorld is a daemon with a folder of declarations, that can be restarted and
// flashed anew.
type fleetWorld struct {
	*world.World
	t     *testing.T
	cfg   config.Config
	agent *Agent
	c     *client.Client
	stop  func()
	flash int
}

func newFleetWorld(t *testing.T, order func(*smdp.Order)) *fleetWorld {
	t.Helper()
	w := &fleetWorld{t: t, stop: func() {}}
	w.World = world.New(t, world.Options{Card: func(c *euicc.Config) {
		c.DefaultSMDP = world.SMDPHost
		c.RAT = []euicc.Rule{{PPR: rsp.PPR2, Operators: []rsp.Operator{fleetOperator}, ConsentRequired: true}}
		c.Profiles = []euicc.Profile{{ICCID: world.ICCID(t, fleetOld), IMSI: "001010123456789", Name: "Old", Enabled: true,
			Notifications: []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: world.SMDPHost}}}}
	}})
	w.Book(t, "M-1", world.ICCID(t, fleetNew), 3000, order)
	dir, err := os.MkdirTemp("", "lpad") // short: the path of a socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	w.cfg = config.Default()
	w.cfg.StateDir, w.cfg.Socket = filepath.Join(dir, "lib"), filepath.Join(dir, "s")
	w.cfg.RSP.TrustDir, w.cfg.RSP.Addresses = w.Trust, w.Addresses
	w.cfg.RSP.NotificationRetry, w.cfg.RSP.NotificationRetryMax = 20*time.Millisecond, 50*time.Millisecond
	w.cfg.Hooks.Dir, w.cfg.Params.OEMDir, w.cfg.Params.ProviderDB = "", dir, filepath.Join(dir, "none.xml")
	w.cfg.Network.Probe = "none"
	w.cfg.Fleet.Dir = filepath.Join(dir, "profiles.d")
	if err := os.Mkdir(w.cfg.Fleet.Dir, 0o750); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.stop(); os.RemoveAll(dir) })
	return w
}

// declare puts a file into the folder; an empty one takes it away.
func (w *fleetWorld) declare(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.cfg.Fleet.Dir, name)
	err := os.Remove(path)
	if text != "" {
		err = os.WriteFile(path, []byte(text), 0o640)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *fleetWorld) start() {
	w.t.Helper()
	w.stop()
	card := soft{w.Card}
	direct := switchover.Direct{Card: card}
	var err error
	if w.agent, err = New(w.cfg, Host{}, []Parts{{Card: card, CardPath: CardPath{Backend: "pcsc"}, Settings: direct, Modem: direct, Network: direct, NetworkBackend: "none",
		Identity: func(context.Context) (modem.Identity, error) { return modem.Identity{IMEI: fleetIMEI}, nil }}}); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.agent.Run(ctx) }()
	w.c = client.New(w.cfg.Socket)
	w.stop = func() {
		w.c.Close()
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		w.stop = func() {}
	}
}

// reflash starts a device that remembers nothing.
func (w *fleetWorld) reflash() {
	w.stop()
	w.flash++
	w.cfg.StateDir = filepath.Join(filepath.Dir(w.cfg.Socket), fmt.Sprintf("lib%d", w.flash))
	w.start()
}

// standing waits until the status says so of the declarations, and no job is
// under way, and returns it.
func (w *fleetWorld) standing(want ...string) api.Status {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		s, err := w.c.Status(w.t.Context())
		if err == nil && s.Job == nil && s.Queued == 0 {
			var lines []string
			if s.Declared != nil {
				lines = s.Declared.Lines
			}
			if slices.EqualFunc(lines, want, strings.HasPrefix) {
				return s
			}
			if time.Now().After(deadline) {
				w.t.Fatalf("it stands as %q, want %q", lines, want)
			}
		} else if time.Now().After(deadline) {
			w.t.Fatalf("%v: %+v", err, s.Job)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// downloads counts the packages that the server has handed out.
func (w *fleetWorld) downloads() (n int) {
	for _, c := range w.SMDP.Calls() {
		if c.Function == smdp.GetBoundProfilePackage && c.Outcome == "ok" {
			n++
		}
	}
	return n
}

// jobs are those of the declarations, the oldest first, as "kind state code".
func (w *fleetWorld) jobs() string {
	w.t.Helper()
	all, err := w.c.Jobs(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for i := range all.Jobs {
		j := all.Jobs[len(all.Jobs)-1-i]
		text := j.Kind + " " + j.State
		if j.Problem != nil {
			text += " " + j.Problem.Code
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func (w *fleetWorld) profile(iccid string) (p euicc.ProfileState) {
	for _, p := range w.Card.Profiles() {
		if p.ICCID == world.ICCID(w.t, iccid) {
			return p
		}
	}
	return p
}

func (w *fleetWorld) check(what, jobs string, downloads int) {
	w.t.Helper()
	if got := w.jobs(); got != jobs || w.downloads() != downloads {
		w.t.Errorf("%s: jobs %q, want %q; %d downloads, want %d", what, got, jobs, w.downloads(), downloads)
	}
}

const declared = "version: 1\ncode: LPA:1$" + world.SMDPHost + "$M-1\nnickname: Meter uplink\nenabled: yes\n"

// The first start converges; the second does nothing; a person's switch stays; a
// device that was flashed anew downloads nothing.
func TestConverge(t *testing.T) {
	w := newFleetWorld(t, nil)
	w.declare("meter.yaml", declared)
	w.start()
	s := w.standing("meter: converged")
	p := w.profile(fleetNew)
	if !p.Enabled || !strings.HasPrefix(p.Nickname, "Meter uplink [") || len(p.Nickname) != len("Meter uplink [12345678]") {
		t.Errorf("on the card: %+v", p)
	}
	if d := s.Declared; d.Total != 1 || d.Converged != 1 || d.Failed != 0 || len(s.Warnings) > 0 {
		t.Errorf("the status says %+v, warnings %q", d, s.Warnings)
	}
	w.check("first start", "install done", 1)
	if jobs, _ := w.agent.units[0].runner.Job(w.agent.units[0].runner.Jobs()[0].ID); jobs.Order.By != "profiles.d/meter" {
		t.Errorf("ordered by %q", jobs.Order.By)
	}

	w.start()
	w.standing("meter: converged")
	w.check("second start", "install done", 1)

	// A person switches back, and that stays, over reload and restart.
	j, err := w.c.Enable(t.Context(), fleetOld, api.EnableRequest{})
	if err == nil {
		j, err = w.c.Follow(t.Context(), j.ID, func(api.Job) {})
	}
	if err != nil || j.State != "done" {
		t.Fatal(j, err)
	}
	if err := w.agent.Reload(t.Context(), w.cfg); err != nil {
		t.Fatal(err)
	}
	w.standing("meter: converged")
	w.start()
	w.standing("meter: converged")
	w.check("after a person's switch", "install done, enable done", 1)
	if !w.profile(fleetOld).Enabled {
		t.Error("the person's switch was taken back")
	}

	// A change of the file counts at the reload, and not before.
	w.declare("meter.yaml", declared+"# again\n")
	if err := w.agent.Reload(t.Context(), w.cfg); err != nil {
		t.Fatal(err)
	}
	w.until("enabled again", func() bool { return w.profile(fleetNew).Enabled })
	w.standing("meter: converged")
	w.check("after a change", "install done, enable done, enable done", 1)

	w.reflash()
	w.standing("meter: converged")
	w.check("flashed anew", "", 1)

	// Its file is taken away: nothing is taken from the card.
	w.declare("meter.yaml", "")
	w.start()
	w.standing()
	if p := w.profile(fleetNew); !p.Enabled {
		t.Errorf("without the file: %+v", p)
	}
}

func (w *fleetWorld) until(what string, is func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatal(what + ": that never comes")
		}
	}
}

// What does not go: each ends once with its reason, is in the status and its
// warnings, and is not tried again, over a restart either, until the file changes.
func TestNotConverged(t *testing.T) {
	for _, tc := range []struct {
		name, text, jobs, line string
		order                  func(*smdp.Order)
	}{
		{"a wrong code", strings.Replace(declared, "M-1", "M-2", 1), "install failed matching-id-refused", "meter: failed: the activation code is wrong", nil},
		{"a confirmation code that is missing", declared, "install failed confirmation-code-missing", "meter: failed: this download needs a confirmation code",
			func(o *smdp.Order) { o.ConfirmationCode = "4711" }},
		{"a wrong confirmation code", declared + "confirmation_code: 1234\n", "install failed confirmation-code-wrong", "meter: failed: ", func(o *smdp.Order) { o.ConfirmationCode = "4711" }},
		{"rules", declared, "install failed rules-not-accepted", "meter: failed: the profile has a rule", func(o *smdp.Order) { o.Metadata.PPR, o.Metadata.Owner = rsp.PPR2, &fleetOperator }},
		{"another profile than was said", declared + "iccid: 8933010000000000009\n", "install failed signed-order-profile", "meter: failed: the server offers the profile", nil},
		{"parameters that are none", declared + "parameters: '{\"version\": 1, \"apns\": 7}'\n", "", "meter.yaml is left out: ", nil},
		{"two to be enabled", declared, "", "meter: failed: it contradicts other.yaml", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newFleetWorld(t, tc.order)
			w.declare("meter.yaml", tc.text)
			want := []string{tc.line}
			if strings.HasPrefix(tc.name, "two") {
				w.declare("other.yaml", strings.Replace(declared, "M-1", "M-9", 1))
				want = append(want, "other: failed: it contradicts meter.yaml")
			}
			w.start()
			s := w.standing(want...)
			if s.Declared.Failed != len(want) || len(s.Warnings) != len(want) || !strings.Contains(s.Warnings[0], tc.line) {
				t.Errorf("the status says %+v, warnings %q", s.Declared, s.Warnings)
			}
			w.start()
			w.standing(want...)
			if err := w.agent.Reload(t.Context(), w.cfg); err != nil {
				t.Fatal(err)
			}
			w.standing(want...)
			w.check("not tried again", tc.jobs, 0)
			if w.profile(fleetNew).Enabled || !w.profile(fleetOld).Enabled {
				t.Error("the card has changed")
			}
			if o, _ := w.SMDP.Order("M-1"); o.State == "Error" {
				t.Errorf("the code is used up: %+v", o)
			}
		})
	}
}

// What a declaration says is enough: the confirmation code is not asked for, and the
// rules are accepted.
func TestConvergeWithCodeAndRules(t *testing.T) {
	w := newFleetWorld(t, func(o *smdp.Order) {
		o.ConfirmationCode, o.Metadata.PPR, o.Metadata.Owner = "4711", rsp.PPR2, &fleetOperator
	})
	w.declare("secret.txt", "4711\n")
	w.declare("code.txt", "LPA:1$"+world.SMDPHost+"$M-1\n")
	w.declare("meter.yaml", "version: 1\ncode: file:code.txt\nconfirmation_code: file:secret.txt\naccept_rules: yes\niccid: "+fleetNew+"\nimei: "+fleetIMEI+"\n"+
		"parameters: '{\"version\": 1, \"apns\": [{\"name\": \"iot.example\"}]}'\n")
	w.start()
	w.standing("meter: converged")
	if p := w.profile(fleetNew); p.Enabled || !strings.HasPrefix(p.Nickname, "meter [") {
		t.Errorf("on the card: %+v", p)
	}
	e, err := w.c.Effective(t.Context(), fleetNew)
	if err != nil || e.Document == nil {
		t.Errorf("its parameters: %+v, %v", e.Document, err)
	}
	w.check("once", "install done", 1)
}

// A server that is away is tried again, with pauses, and nothing is used up by it.
func TestConvergeLater(t *testing.T) {
	w := newFleetWorld(t, nil)
	w.SMDP.Inject(smdp.Fault{Function: smdp.InitiateAuthentication, Kind: smdp.HTTPError, HTTP: 503, Times: 3})
	w.declare("meter.yaml", declared)
	w.start()
	w.standing("meter: converged")
	w.check("in the end", "install failed server-unavailable, install failed server-unavailable, install failed server-unavailable, install done", 1)
}

// What the card makes of the nickname at the installation: it is set later, or not
// at all, and costs no download.
func TestNicknameOfInstallation(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault euicc.Fault
		jobs  string
		named bool
	}{
		{"refused once", euicc.Fault{Do: euicc.AnswerResult, Function: 0xBF29, Result: 127, Times: 1}, "install done, nickname done", true},
		{"the answer is lost", euicc.Fault{Do: euicc.LoseAnswer, Function: 0xBF29, Times: 1}, "install done", true},
		{"never", euicc.Fault{Do: euicc.AnswerResult, Function: 0xBF29, Result: 127, Times: -1}, "install done" + strings.Repeat(", nickname failed card-undefined-error", 5), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newFleetWorld(t, nil)
			w.Card.Inject(tc.fault)
			w.declare("meter.yaml", declared)
			w.start()
			w.standing("meter: converged")
			w.check(tc.name, tc.jobs, 1)
			if p := w.profile(fleetNew); !p.Enabled || strings.HasPrefix(p.Nickname, "Meter uplink [") != tc.named {
				t.Errorf("on the card: %+v", p)
			}
		})
	}
}

// A profile that the card's default SM-DP+ has for this card needs no code.
func TestConvergeFromDefaultServer(t *testing.T) {
	w := newFleetWorld(t, nil)
	w.Book(t, "", world.ICCID(t, "89358050000000000030"), 3000, func(o *smdp.Order) { o.EID = w.Card.EID() })
	w.declare("meter.yaml", "version: 1\nsource: default-smdp\neid: "+w.Card.EID().String()+"\n")
	w.start()
	w.standing("meter: converged")
	w.check("once", "install done", 1)
	w.reflash()
	w.standing("meter: converged")
	w.check("flashed anew", "", 1)
}

// The nickname could not be set with the installation, and is later.
func TestNicknameLater(t *testing.T) {
	w := newFleetWorld(t, nil)
	w.declare("meter.yaml", strings.Replace(declared, "enabled: yes\n", "", 1))
	w.start()
	w.standing("meter: converged")
	mark := w.profile(fleetNew).Nickname
	w.stop()
	// A device whose card has lost the nickname, and which has lost its memory, knows the profile by the ICCID in its file alone.
	w.declare("meter.yaml", strings.Replace(declared, "enabled: yes\n", "iccid: "+fleetNew+"\n", 1))
	w.reflash()
	j, err := w.c.SetNickname(t.Context(), fleetNew, "Bob")
	if err == nil {
		_, err = w.c.Follow(t.Context(), j.ID, func(api.Job) {})
	}
	if err != nil {
		t.Fatal(err)
	}
	w.reflash()
	w.standing("meter: converged")
	if p := w.profile(fleetNew); p.Nickname != mark {
		t.Errorf("nickname %q, want %q", p.Nickname, mark)
	}
	w.check("renamed", "nickname done", 1)
}

// Files that somebody else could have written or could read are not used, and the
// reason names what to do.
func TestDeclarationFiles(t *testing.T) {
	w := newFleetWorld(t, nil)
	w.cfg.Fleet.Dir = filepath.Join(filepath.Dir(w.cfg.Socket), "declared")
	for _, tc := range []struct {
		name string
		set  func(dir string) error
		want string
	}{
		{"no folder", os.Remove, ""},
		{"others may write to the folder", func(dir string) error { return os.Chmod(dir, 0o777) }, "chmod go-w"},
		{"others may write", func(dir string) error { return os.Chmod(filepath.Join(dir, "a.yaml"), 0o666) }, "chmod go-w"},
		{"others may read the code", func(dir string) error { return os.Chmod(filepath.Join(dir, "a.yaml"), 0o644) }, "chmod o-rwx"},
		{"the group may read it", func(dir string) error { return os.Chmod(filepath.Join(dir, "a.yaml"), 0o640) }, ""},
		{"others may read one without a secret", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "b.yaml"), []byte("version: 1\nsource: smds\n"), 0o644)
		}, ""},
		{"others may read the file with the code", func(dir string) error {
			os.WriteFile(filepath.Join(dir, "x"), []byte(declared), 0o644)
			return os.WriteFile(filepath.Join(dir, "b.yaml"), []byte("version: 1\ncode: file:x\n"), 0o644)
		}, "chmod o-rwx"},
		{"a file elsewhere", func(dir string) error {
			os.WriteFile(filepath.Join(filepath.Dir(dir), "x"), []byte("LPA:1$smdp.example$A"), 0o600)
			return os.WriteFile(filepath.Join(dir, "b.yaml"), []byte("version: 1\ncode: file:../x\n"), 0o600)
		}, "b.yaml:2: code: "},
		{"a link to elsewhere", func(dir string) error { return os.Symlink("/etc/hostname", filepath.Join(dir, "b.yaml")) }, "b.yaml is left out"},
		{"a folder", func(dir string) error { return os.Mkdir(filepath.Join(dir, "b.yaml"), 0o700) }, "not a regular file"},
		{"hidden, and other names", func(dir string) error {
			os.WriteFile(filepath.Join(dir, ".a.yaml"), nil, 0o600)
			return os.WriteFile(filepath.Join(dir, "a.yaml~"), nil, 0o600)
		}, ""},
		{"somebody else's", func(dir string) error { return os.Chown(filepath.Join(dir, "a.yaml"), 12345, 0) }, "belongs to the user 12345"},
		{"too long", func(dir string) error { return os.WriteFile(filepath.Join(dir, "b.yaml"), make([]byte, 1<<20), 0o600) }, "longer than"},
		{"too many", func(dir string) error {
			for i := range maxDeclarations {
				os.WriteFile(filepath.Join(dir, fmt.Sprintf("b%03d.yaml", i)), []byte("version: 1\nsource: smds\n"), 0o600)
			}
			return nil
		}, "more than"},
	} {
		if strings.HasPrefix(tc.name, "somebody") && os.Geteuid() != 0 {
			continue
		}
		dir := w.cfg.Fleet.Dir
		os.RemoveAll(dir)
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		if tc.name != "no folder" {
			if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(declared), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := tc.set(dir); err != nil {
			t.Fatal(tc.name, err)
		}
		if w.agent == nil {
			w.start()
			w.stop()
		}
		w.agent.readDeclarations()
		if wrong := strings.Join(w.agent.fleet.wrong, "; "); (wrong == "") != (tc.want == "") || !strings.Contains(wrong, tc.want) || strings.Contains(wrong, "M-1") {
			t.Errorf("%s: %q, want %q", tc.name, wrong, tc.want)
		}
	}
}
