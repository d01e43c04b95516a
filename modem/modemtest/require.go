package modemtest

import (
	"os"
	"os/exec"
	"strings"
)

// TB is the part of testing.TB that RequireStack needs; so programs that link
// this package do not link testing.
type TB interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// stackPrograms are the programs of a stack, and Debian's packages of them.
var stackPrograms = []struct{ program, debian string }{
	{"ModemManager", "modemmanager"}, {"NetworkManager", "network-manager"}, {"dbus-daemon", "dbus"},
	{"ip", "iproute2"}, {"nsenter", "util-linux"}, {"mount", "mount"},
}

// Missing says what a stack lacks on this machine, in plain words; "" is nothing.
func Missing() string {
	if os.Geteuid() != 0 {
		return "a stack needs root (network and mount namespaces)"
	}
	var packages []string
	for _, p := range stackPrograms {
		if _, err := exec.LookPath(p.program); err != nil {
			packages = append(packages, p.debian)
		}
	}
	if len(packages) > 0 {
		return "a stack needs: apt-get install --no-install-recommends " + strings.Join(packages, " ")
	}
	return ""
}

// RequireStack skips the test, saying what is missing, on a machine that cannot
// run a [Stack]. If LPAD_REQUIRE=all is in the environment it fails the test
// instead: in CI nothing is skipped.
func RequireStack(t TB) {
	t.Helper()
	missing := Missing()
	switch {
	case missing == "":
	case os.Getenv("LPAD_REQUIRE") == "all":
		t.Fatalf("LPAD_REQUIRE=all, and %s", missing)
	default:
		t.Skipf("%s", missing)
	}
}
