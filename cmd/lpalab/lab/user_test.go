package lab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// TestUnprivileged switches profiles with a lpad that runs as its own user,
// without a capability, and may do what the package's policies say.
func TestUnprivileged(t *testing.T) {
	t.Parallel()
	for name, shared := range map[string]bool{
		"own port": false,
		// lpad holds the modem (InhibitDevice), again and again.
		"shared port": true,
	} {
		t.Run(name, func(t *testing.T) {
			modemtest.RequireRoot(t)
			w := newWorld(t, lab.Options{})
			ctx, d := startDevice(t, w, lab.DeviceOptions{Shared: shared, Unprivileged: true})
			lpactl(ctx, t, d.Daemon, 0, "install", w.ActivationCode(), "--enable", "--yes")

			operator := lab.NewOperator
			enabled := func(n smdp.Notification) bool {
				return n.Event == rsp.EventEnable && n.ICCID.String() == operator.ICCID && n.Peer == operator.Address.Addr()
			}
			if _, err := w.SMDP.WaitNotification(ctx, enabled); err != nil {
				t.Errorf("the server was not told over the new network: %v", err)
			}
			// With a shared port, what was up comes back after the last notification.
			want := "lpad-" + operator.ICCID[len(operator.ICCID)-6:]
			if err := d.Stack.WaitConnected(ctx, want); err != nil {
				t.Error(err)
			}
			if up, err := d.Stack.ActiveConnections(ctx); err != nil || !slices.Equal(up, []string{want}) {
				t.Errorf("connections %q are up, want %q, %v", up, want, err)
			}
			if m, err := d.Stack.WaitMM(ctx, operator.ICCID); err != nil {
				t.Errorf("ModemManager shows %+v, %v", m, err)
			}
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
			if err != nil {
				t.Fatal(err)
			}
			dir, err := os.Stat(d.Dir)
			if err != nil {
				t.Fatal(err)
			}
			uid := dir.Sys().(*syscall.Stat_t).Uid
			for field, want := range map[string]string{"Uid": fmt.Sprintf(`%[1]d\s+%[1]d\s+%[1]d\s+%[1]d`, uid), "CapEff": "0+", "CapBnd": "0+", "NoNewPrivs": "1"} {
				if uid == 0 || !regexp.MustCompile(`(?m)^`+field+`:\s+`+want+`$`).Match(status) {
					t.Errorf("%s is not %s:\n%s", field, want, status)
				}
			}
			for path, want := range map[string]os.FileMode{d.Socket: os.ModeSocket | 0o660, filepath.Join(d.Dir, "var"): os.ModeDir | 0o700, filepath.Join(d.Dir, "var/journal"): 0o600} {
				info, err := os.Stat(path)
				if err != nil {
					t.Error(err)
				} else if st := info.Sys().(*syscall.Stat_t); info.Mode() != want || st.Uid != uid {
					t.Errorf("%s: %v of %d, want %v of %d", path, info.Mode(), st.Uid, want, uid)
				}
			}
			for _, bad := range []string{"not allowed", "permission denied", "not permitted", "not-authorized"} {
				if i := strings.Index(strings.ToLower(d.Log()), bad); i >= 0 {
					t.Errorf("lpad was refused something: %s", d.Log()[max(0, i-200):min(len(d.Log()), i+100)])
				}
			}
		})
	}
}
