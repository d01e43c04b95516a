package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lpad/agent/api"
)

// doctorSays runs the doctor in both forms, which must agree.
func doctorSays(t *testing.T, exit int, args ...string) (checkup, string) {
	t.Helper()
	var out, errs bytes.Buffer
	if got := run(t.Context(), append(args, "doctor", "--json"), strings.NewReader(""), &out, &errs); got != exit {
		t.Errorf("--json ended with %d, want %d\n%s%s", got, exit, &out, &errs)
	}
	var c checkup
	if err := json.NewDecoder(&out).Decode(&c); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if got := run(t.Context(), append(args, "doctor"), strings.NewReader(""), &text, &errs); got != exit {
		t.Errorf("ended with %d, want %d\n%s%s", got, exit, &text, &errs)
	}
	if got := strings.Count(text.String(), "\n"); got != len(c.Findings) {
		t.Errorf("%d lines for %d checks\n%s", got, len(c.Findings), &text)
	}
	for _, f := range c.Findings {
		if (f.Verdict == verdictWrong) != (f.Code != "") || f.Text == "" || (f.Verdict == verdictWrong || f.Verdict == verdictWarning) && f.Next == "" {
			t.Errorf("%+v", f)
		}
	}
	return c, text.String()
}

func (c checkup) of(check string) finding {
	for _, f := range c.Findings {
		if f.Check == check {
			return f
		}
	}
	return finding{}
}

// TestDoctorReadsTheStatus: what a daemon says ends up under the check that it
// is about.
func TestDoctorReadsTheStatus(t *testing.T) {
	d := newDaemon(t)
	d.probed = api.Probe{Manufacturer: "Acme", Model: "X1", Usable: true, APDUPath: "ccho", BlockSize: 255,
		Capabilities: []api.Capability{{Name: "alone", Answer: api.AnswerNo, Value: "minicom (pid 7)"}},
		Managers:     api.Managers{Network: "networkmanager", ModemManager: "1.24", Problem: "org.freedesktop.DBus.Error.AccessDenied: Rejected send message"}}
	c, text := doctorSays(t, 16, "--socket", d.path)
	for check, want := range map[string]string{"socket": verdictOK, "daemon": verdictWarning, "clock": verdictWrong, "card": verdictWrong, "port": verdictWrong,
		"modem": verdictOK, "port users": verdictWarning, "managers": verdictWrong, "bus policy": verdictWrong, "notifications": verdictWarning, "reports": verdictWarning,
		"journal": verdictOK, "quarantine": verdictWarning, "lpad warns": verdictWarning, "server": verdictWrong} {
		if check == "server" { // the name in the notification; whether a name server is there is not this test's
			if f := c.of(check); f.Code != "host-unknown" && f.Code != "dns-unavailable" || !strings.Contains(f.Text, "smdp.example.com") {
				t.Errorf("%+v", f)
			}
			continue
		}
		if got := c.of(check).Verdict; got != want {
			t.Errorf("%s is %q, want %q\n%s", check, got, want, text)
		}
	}
	if c.Verdict != verdictWrong || !strings.Contains(text, "minicom (pid 7)") {
		t.Error(text)
	}
}

// TestDoctorWithoutSocket tells a path that is wrong from a daemon that is
// stopped, and that from one that has died.
func TestDoctorWithoutSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "lpad")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "dead.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o755); err != nil {
		t.Fatal(err)
	}
	real, err := net.Listen("unix", filepath.Join(run, "lpad.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	for path, want := range map[string]string{
		filepath.Join(dir, "s"):         "lpad is stopped",
		filepath.Join(dir, "dead.sock"): "was killed or has crashed",
		filepath.Join(dir, "none/s"):    "the path is wrong",
		filepath.Join(run, "lpd.sock"):  "use --socket " + filepath.Join(run, "lpad.sock"),
		filepath.Join(dir, "file"):      "is no socket",
		filepath.Join(dir, "file/s"):    "there is no",
	} {
		c, text := doctorSays(t, 3, "--socket", path)
		if f := c.of("socket"); f.Verdict != verdictWrong || !strings.Contains(text, want) {
			t.Errorf("%s: %s", path, text)
		}
		if c.of("clock").Verdict != verdictOK || c.of("card").Verdict != verdictSkipped {
			t.Errorf("%+v", c)
		}
	}
}

// TestServerOf takes the address out of what people have at hand, and nothing
// secret with it.
func TestServerOf(t *testing.T) {
	for in, want := range map[string]string{
		"smdp.example.com": "smdp.example.com 443", "smdp.example.com:8443": "smdp.example.com 8443", "[::1]:8443": "::1 8443", "192.0.2.1": "192.0.2.1 443",
		"LPA:1$smdp.example.com$SECRET": "smdp.example.com 443", "1$smdp.example.com$SECRET$1.3.6$1": "smdp.example.com 443",
		"": "", "https://smdp.example.com/": "", "LPA:2$smdp.example.com$SECRET": "", "a b": "", "$$": "",
	} {
		host, port, ok := serverOf(in)
		if got := strings.TrimSpace(host + " " + port); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", in, got, ok)
		}
	}
}

func FuzzServerOf(f *testing.F) {
	f.Add("LPA:1$smdp.example.com$SECRET")
	f.Add("[::1]:443")
	plain := regexp.MustCompile(`^[^/ @%?#$]+$`)
	f.Fuzz(func(t *testing.T, s string) {
		if host, _, ok := serverOf(s); ok && !plain.MatchString(host) {
			t.Errorf("%q: %q", s, host)
		}
	})
}
