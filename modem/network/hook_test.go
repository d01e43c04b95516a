package network_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/modem"
	"lpad/modem/network"
)

// script makes a hook.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHook(t *testing.T) {
	static := network.Carrier{Backend: "modemmanager", Method: network.MethodStatic, MTU: 1430, ICCID: "8933", Port: "/dev/ttyUSB2",
		Link: modem.Link{Interface: "none0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.1.2/24"), netip.MustParsePrefix("2001:db8::2/64")},
			DNS: []netip.Addr{netip.MustParseAddr("10.1.1.1")}},
		Gateways: []netip.Addr{netip.MustParseAddr("10.1.1.1")},
		APN:      modem.APN{Name: "iot", User: "u", Password: redact.NewSecret("geheim")}}
	ppp := static
	ppp.Method, ppp.Link = network.MethodPPP, modem.Link{}
	for _, tc := range []struct {
		name, script string
		carrier      network.Carrier
		link         string // interface and number of addresses
		code         string
		said         string // in the error
	}{
		{"environment", `env | grep ^LPAD_ | sort | tr '\n' '|' >"$0.env"`, static, "none0/2", "", ""},
		{"names the interface", "echo interface=lo", ppp, "lo/1", "", ""},
		{"its own interface again", "echo interface=none0", static, "none0/2", "", ""},
		{"a name that is none", "echo interface=../../x", static, "none0/2", "", ""},
		{"fails", "echo starting; echo no carrier >&2; exit 3", static, "", "network-hook-failed", "exit status 3: no carrier"},
		{"talks much", "yes | head -c 1000000; echo interface=lo", static, "none0/2", "", ""},
		{"leaves somebody behind", "sleep 5 & echo $! >\"$0.pid\"; echo interface=none0", static, "none0/2", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("LPAD_LOG_LEVEL", "debug") // lpad's own
			var log bytes.Buffer
			h := &network.Hook{Path: script(t, tc.script), Log: slog.New(slog.NewTextHandler(&log, nil))}
			link, err := h.Run(t.Context(), network.HookUp, tc.carrier)
			if pid, e := os.ReadFile(h.Path + ".pid"); e == nil {
				n, e := strconv.Atoi(strings.TrimSpace(string(pid)))
				if e = errors.Join(e, syscall.Kill(n, syscall.SIGKILL)); e != nil {
					t.Errorf("what was left behind is gone: %v", e)
				}
			}
			got := ""
			if err == nil {
				got = link.Interface + "/" + strconv.Itoa(min(len(link.Addresses), 2))
				if tc.link == "lo/1" && len(link.Addresses) > 0 { // whether there is IPv6 does not matter
					got = "lo/1"
				}
			}
			if got != tc.link || fault.Of(err).Code != tc.code && err != nil || (err == nil) != (tc.code == "") {
				t.Errorf("link %+v, %v", link, err)
			}
			if tc.said != "" && !strings.Contains(err.Error(), tc.said) {
				t.Errorf("error %v", err)
			}
			if log.Len() > 10_000 {
				t.Errorf("%d bytes of log", log.Len())
			}
			if env, e := os.ReadFile(h.Path + ".env"); e == nil {
				const want = "LPAD_ADDRESS=10.1.1.2/24 2001:db8::2/64|LPAD_APN=iot|LPAD_BACKEND=modemmanager|LPAD_DNS=10.1.1.1|LPAD_EVENT=up|LPAD_GATEWAY=10.1.1.1|" +
					"LPAD_ICCID=8933|LPAD_INTERFACE=none0|LPAD_METHOD=static|LPAD_MTU=1430|LPAD_PORT=/dev/ttyUSB2|LPAD_USER=u|"
				if string(env) != want {
					t.Errorf("environment\n  %s\nwant\n  %s", env, want)
				}
			} else if tc.name == "environment" {
				t.Error(e)
			}
		})
	}
}

// The password is for PPP alone, and never in the log.
func TestHookPassword(t *testing.T) {
	var log bytes.Buffer
	h := &network.Hook{Path: script(t, `echo "dialling with $LPAD_PASSWORD"; exit 1`), Log: slog.New(slog.NewTextHandler(&log, nil))}
	_, err := h.Run(t.Context(), network.HookUp, network.Carrier{Method: network.MethodPPP, APN: modem.APN{User: "u", Password: redact.NewSecret("geheim")}})
	if err == nil || strings.Contains(err.Error()+log.String(), "geheim") || !strings.Contains(log.String(), "dialling with (password)") {
		t.Errorf("%v, log %s", err, &log)
	}
}

// A hook that does not end is killed with all that it has started.
func TestHookTimeout(t *testing.T) {
	h := &network.Hook{Path: script(t, `sleep 60 & echo $! >"$0.pid"; wait`), Timeout: 2 * time.Second}
	begin := time.Now()
	_, err := h.Run(t.Context(), network.HookUp, network.Carrier{})
	if fault.Of(err).Code != "network-hook-failed" || !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 40*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	pid, err := os.ReadFile(h.Path + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); alive(n); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what the hook started still runs")
		}
	}
}

// alive reports whether a process runs; a zombie, whose parent has died, does not.
func alive(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestHookThatIsNoProgram(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{plain, plain + ".absent"} {
		_, err := (&network.Hook{Path: path}).Run(t.Context(), network.HookDown, network.Carrier{})
		if f := fault.Of(err); f.Code != "network-hook-failed" || f.Who != fault.Configuration || f.Retry {
			t.Errorf("%s: %+v, %v", path, f, err)
		}
	}
}
