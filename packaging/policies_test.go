package packaging_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
	"lpad/packaging"
)

// pcscActions declare the two actions of a pcscd that is built with polkit, as
// its package would; Debian 12's is built without.
const pcscActions = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN" "http://www.freedesktop.org/standards/PolicyKit/1.0/policyconfig.dtd">
<policyconfig>
  <action id="org.debian.pcsc-lite.access_pcsc">
    <description>connect</description><message>connect</message>
    <defaults><allow_any>no</allow_any><allow_inactive>no</allow_inactive><allow_active>yes</allow_active></defaults>
  </action>
  <action id="org.debian.pcsc-lite.access_card">
    <description>use</description><message>use</message>
    <defaults><allow_any>no</allow_any><allow_inactive>no</allow_inactive><allow_active>yes</allow_active></defaults>
  </action>
</policyconfig>
`

// stranger is a user of every Debian machine that has nothing to do with lpad.
const stranger = "daemon"

// guarded starts a device with the package installed, real ModemManager,
// NetworkManager and polkitd, and one saved connection. The test becomes parallel.
func guarded(t *testing.T, change func(*modemtest.StackConfig)) (context.Context, *modemtest.Stack) {
	t.Helper()
	modemtest.RequireRoot(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	root := device(t)
	actions := filepath.Join(root, "usr/share/polkit-1/actions/org.debian.pcsc-lite.policy")
	if err := os.MkdirAll(filepath.Dir(actions), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(actions, []byte(pcscActions), 0o644); err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	old := lab.OldOperator
	cfg := modemtest.StackConfig{
		Modem: modemtest.Config{Card: w.Card, Subscriptions: []modemtest.Subscription{old.Subscription()},
			Contexts: []modemtest.Context{{CID: 1, Type: "IP", APN: old.APN}}},
		Connections: []modemtest.Connection{{ID: "altnetz", APN: old.APN, Password: "old", NoAutoconnect: true}},
		Root:        root,
	}
	if change != nil {
		change(&cfg)
	}
	return ctx, startStack(ctx, t, cfg)
}

// ask has a user make the calls of a caller.
func ask(ctx context.Context, t *testing.T, s *modemtest.Stack, user, who string) []answer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(s.Dir(), "caller") // where everybody finds it
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := s.CommandAs(ctx, user, program)
	cmd.Env = append(cmd.Env, callerVariable+"="+who)
	out, err := output(cmd)
	var answers []answer
	if jerr := json.Unmarshal([]byte(out), &answers); err != nil || jerr != nil {
		t.Fatalf("%s as %s: %v, %v\n%s", who, user, err, jerr, out)
	}
	return answers
}

// TestCalls makes every call of lpad on a device, as the user lpad and as
// another one.
func TestCalls(t *testing.T) {
	ctx, s := guarded(t, nil)
	check := func(user, who, want string) (calls []string) {
		for _, a := range ask(ctx, t, s, user, who) {
			calls = append(calls, a.Call)
			// What this modem's plugin cannot do was not refused either.
			if a.Kind != want && (want != "done" || a.Kind != "unsupported" && a.Kind != "unanswered") {
				t.Errorf("%s as %s: %s is %s, want %s: %s", who, user, a.Call, a.Kind, want, a.Text)
			}
		}
		return calls
	}
	check(stranger, "stranger", "denied")
	check(packaging.User, "forbidden", "denied")
	made := check(packaging.User, "lpad", "done")
	for _, call := range policy(t) {
		_, name, found := strings.Cut(call, ": ")
		if !found {
			name = call
		}
		if !slices.Contains(made, name) {
			t.Errorf("the policy allows %s, which was not tried", name)
		}
	}
	if len(s.Deaths()) > 0 {
		t.Errorf("%v", s.Deaths())
	}
}

// TestPolkit asks the real polkitd for every action that is declared on the
// device: lpad may do those six and nothing else that nobody may not.
func TestPolkit(t *testing.T) {
	ctx, s := guarded(t, func(c *modemtest.StackConfig) { c.WithoutNetworkManager, c.WithoutModemManager = true, true })
	may := func(user string) (actions []string) {
		declared := ask(ctx, t, s, user, "actions")
		if len(declared) < 20 {
			t.Fatalf("only %d actions are declared: %+v", len(declared), declared)
		}
		for _, a := range declared {
			if a.Kind == "done" {
				actions = append(actions, a.Call)
			}
		}
		return actions
	}
	others := may(stranger)
	mine := slices.DeleteFunc(may(packaging.User), func(a string) bool { return slices.Contains(others, a) })
	slices.Sort(mine)
	want := []string{
		"org.debian.pcsc-lite.access_card", "org.debian.pcsc-lite.access_pcsc",
		"org.freedesktop.ModemManager1.Control", "org.freedesktop.ModemManager1.Device.Control",
		"org.freedesktop.NetworkManager.network-control", "org.freedesktop.NetworkManager.settings.modify.system",
	}
	if !slices.Equal(mine, want) {
		t.Errorf("lpad may\n  %s\nwant\n  %s", strings.Join(mine, "\n  "), strings.Join(want, "\n  "))
	}
}

// foreign is a connection that belongs to a user, as desktops make them.
const foreign = `[connection]
id=hers
uuid=0b7d8e1e-6f2b-4ccb-9a52-5d6a8f5a0b11
type=gsm
autoconnect=false
permissions=user:` + stranger + `:;

[gsm]
apn=hers.example
`

// TestForeignConnection: NetworkManager keeps a user's own connections from
// lpad, which is no reason to see none.
func TestForeignConnection(t *testing.T) {
	ctx, s := guarded(t, func(c *modemtest.StackConfig) {
		dir, err := os.MkdirTemp("", "lpadpkg")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		c.Dir = dir
		file := filepath.Join(dir, "nm/etc/system-connections/hers.nmconnection")
		if err := errors.Join(os.Chmod(dir, 0o755), os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(foreign), 0o600)); err != nil {
			t.Fatal(err)
		}
	})
	got := ask(ctx, t, s, packaging.User, "connections")
	if want := []answer{{Call: "altnetz", Kind: "done"}}; !slices.Equal(got, want) {
		t.Errorf("lpad sees %+v, want %+v", got, want)
	}
}

// TestWithoutThePolicies is the device before the package: it shows that the
// files are needed, and that the tests above can fail.
func TestWithoutThePolicies(t *testing.T) {
	ctx, s := guarded(t, func(c *modemtest.StackConfig) {
		for _, f := range []string{"usr/share/dbus-1/system.d/lpad.conf", "usr/share/polkit-1/rules.d/lpad.rules"} {
			if err := os.Remove(filepath.Join(c.Root, f)); err != nil {
				t.Fatal(err)
			}
		}
	})
	for _, a := range ask(ctx, t, s, packaging.User, "stranger") {
		if a.Kind != "denied" {
			t.Errorf("%s is %s: %s", a.Call, a.Kind, a.Text)
		}
	}
}

// TestModemManagerIgnoresThePort lets ModemManager's own rule engine read the
// rules: a modem that they know, and one that the device's maker has named by
// the template.
func TestModemManagerIgnoresThePort(t *testing.T) {
	for name, test := range map[string]struct {
		modem modemtest.Dialect
		port  string // the number of the second AT port's interface
		named bool
	}{
		"known": {modem: modemtest.QuectelEG25},
		"named": {modem: modemtest.UBlox, port: "01", named: true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, s := guarded(t, func(c *modemtest.StackConfig) {
				c.Modem.Dialect = test.modem
				c.ShareAgentPort, c.WithoutNetworkManager = true, true // no rule of the stack's own
				if !test.named {
					return
				}
				local := strings.NewReplacer("1234", test.modem.USB.Vendor, "5678", test.modem.USB.Product, `"03"`, `"`+test.port+`"`).Replace(template(t))
				if err := os.WriteFile(filepath.Join(c.Root, "usr/lib/udev/rules.d/77-mm-lpad-local.rules"), []byte(local), 0o644); err != nil {
					t.Fatal(err)
				}
			})
			ports := modemPorts(ctx, t, s)
			if !strings.Contains(ports, "ttyUSB0 (at)") || !strings.Contains(ports, "ttyUSB1 (ignored)") {
				t.Errorf("ModemManager's ports: %s", ports)
			}
		})
	}
}

// modemPorts is what mmcli shows of the modem's ports.
func modemPorts(ctx context.Context, t *testing.T, s *modemtest.Stack) string {
	t.Helper()
	if _, err := exec.LookPath("mmcli"); err != nil {
		missing(t, "mmcli is not installed")
	}
	out, err := output(s.Command(ctx, "mmcli", "-m", "any"))
	if err != nil {
		t.Fatal(err)
	}
	_, ports, _ := strings.Cut(out, "ports: ")
	ports, _, _ = strings.Cut(ports, "\n")
	return ports
}
