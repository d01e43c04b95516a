package modemtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// TB is the part of testing.TB that the Require functions need; so programs that link
// this package do not link testing.
type TB interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// need is a file or program that something here runs, and Debian's package of it.
type need struct{ file, debian string }

var stackNeeds = []need{
	{"ModemManager", "modemmanager"}, {"NetworkManager", "network-manager"}, {"dbus-daemon", "dbus"},
	{"ip", "iproute2"}, {"nsenter", "util-linux"}, {"mount", "mount"},
}

var pcscdNeeds = []need{{pcscdProgram, "pcscd"}, {vpcdDriver, "vsmartcard-vpcd"}}

// missing says what something lacks on this machine, in plain words; "" is
// nothing. Namespaces need root.
func missing(what string, needs []need) string {
	if os.Geteuid() != 0 {
		return what + " needs root (network and mount namespaces)"
	}
	var packages []string
	for _, n := range needs {
		_, err := os.Stat(n.file)
		if !filepath.IsAbs(n.file) {
			_, err = exec.LookPath(n.file)
		}
		if err != nil {
			packages = append(packages, n.debian)
		}
	}
	if len(packages) > 0 {
		return what + " needs: apt-get install --no-install-recommends " + strings.Join(packages, " ")
	}
	return ""
}

// Missing says what a [Stack] lacks on this machine, in plain words; "" is
// nothing.
func Missing() string { return missing("a stack", stackNeeds) }

func missingPCSCD() string { return missing("a virtual card reader", pcscdNeeds) }

// RequireStack skips the test, saying what is missing, on a machine that cannot
// run a [Stack]. If LPAD_REQUIRE=all is in the environment it fails the test
// instead: in CI nothing is skipped.
func RequireStack(t TB) {
	t.Helper()
	require(t, Missing())
}

// RequirePCSCD is RequireStack for a [PCSCD].
func RequirePCSCD(t TB) {
	t.Helper()
	require(t, missingPCSCD())
}

func require(t TB, missing string) {
	t.Helper()
	switch {
	case missing == "":
	case os.Getenv("LPAD_REQUIRE") == "all":
		t.Fatalf("LPAD_REQUIRE=all, and %s", missing)
	default:
		t.Skipf("%s", missing)
	}
}
