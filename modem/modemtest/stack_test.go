package modemtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"lpad/modem/modemtest"
)

// device starts a stack that is ended with the test.
func device(t *testing.T, cfg modemtest.StackConfig) *modemtest.Stack {
	t.Helper()
	modemtest.RequireStack(t)
	if cfg.Modem.Subscriptions == nil {
		cfg.Modem.Subscriptions = subscriptions
	}
	begin := time.Now()
	s, err := modemtest.StartStack(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Modem.Log())
		}
		if err := s.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	t.Logf("up after %v", time.Since(begin).Round(time.Millisecond))
	return s
}

// bounded is the test's context with a limit for waiting.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// server tells every client behind the modem its own address.
func server(t *testing.T, s *modemtest.Stack) string {
	t.Helper()
	l, err := s.Listen("tcp", modemtest.ServerAddr.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, err := net.SplitHostPort(c.RemoteAddr().String())
			if _, werr := io.WriteString(c, host); werr != nil || err != nil {
				t.Error(err, werr)
			}
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// reach connects from the device and returns the address that the server saw.
func reach(ctx context.Context, s *modemtest.Stack, address string) (string, error) {
	c, err := s.Dial(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

// unreachable asserts that no packet comes through.
func unreachable(t *testing.T, s *modemtest.Stack, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if from, err := reach(ctx, s, address); err == nil {
		t.Errorf("packets flow: the server saw %s", from)
	}
}

func connection(id, apn string) map[string]map[string]dbus.Variant {
	v := dbus.MakeVariant
	return map[string]map[string]dbus.Variant{
		"connection": {"id": v(id), "type": v("gsm"), "uuid": v("2b3a0f0e-6f8e-4a0e-9a56-000000000001"), "autoconnect-priority": v(int32(20))},
		"gsm":        {"apn": v(apn), "username": v("u"), "password": v("p")},
		"ipv4":       {"method": v("auto")}, "ipv6": {"method": v("ignore")},
	}
}

func call(t *testing.T, bus *dbus.Conn, name string, path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	t.Helper()
	c := bus.Object(name, path).CallWithContext(bounded(t), method, 0, args...)
	if c.Err != nil {
		t.Fatalf("%s: %v", method, c.Err)
	}
	return c
}

const (
	mm     = "org.freedesktop.ModemManager1"
	mmPath = "/org/freedesktop/ModemManager1"
	nm     = "org.freedesktop.NetworkManager"
	nmPath = "/org/freedesktop/NetworkManager"
)

// The whole of a profile switch with real programs, step by step.
func TestStackSwitchesProfile(t *testing.T) {
	t.Parallel()
	card := newCard(profileA, profileB)
	s := device(t, modemtest.StackConfig{
		Modem:       modemtest.Config{Card: card},
		Hosts:       []string{"smdp.example.com"},
		Connections: []modemtest.Connection{{ID: "old", APN: "old.apn", Priority: 10}},
	})
	ctx := bounded(t)
	address := server(t, s)
	old, err := s.WaitMM(ctx, profileA.iccid)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitConnected(ctx, "old"); err != nil {
		t.Fatal(err)
	}
	if from, err := reach(ctx, s, address); err != nil || from != "10.1.1.2" {
		t.Fatalf("with the old profile the server saw %q, %v", from, err)
	}
	_, portNumber, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Command(ctx, "bash", "-c", `exec 3<>"/dev/tcp/smdp.example.com/$1"; cat <&3`, "bash", portNumber).CombinedOutput()
	if err != nil || string(out) != "10.1.1.2" {
		t.Fatalf("a program on the device: %s %v", out, err)
	}

	bus, err := s.DialBus()
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	mark := s.Modem.Log().Len()
	call(t, bus, mm, mmPath, mm+".InhibitDevice", old.Device, true)
	if _, err := s.Modem.Wait(ctx, func(st modemtest.State) bool { return len(st.Active) == 0 }); err != nil {
		t.Fatal(err)
	}
	unreachable(t, s, address)

	h := openTTY(t, s.OpenAgentPort())
	h.expect("ATE0\r", "ATE0\r\r\nOK\r\n")
	card.enable(1)
	for _, c := range []string{`AT+CGDCONT=1,"IP","new.apn"`, "AT+CFUN=0", "AT+CFUN=1"} {
		if got := h.at(c); got != "OK" {
			t.Fatalf("%s: %s", c, got)
		}
	}
	if err := s.Modem.WaitRegistered(ctx, profileB.iccid); err != nil {
		t.Fatal(err)
	}
	// The new connection is there before ModemManager is, and goes before the old one. (Asking for it only now, while
	// NetworkManager 1.42 is about to fail with the old one, can make NetworkManager abort in an assertion.)
	call(t, bus, nm, nmPath+"/Settings", nm+".Settings.AddConnection", connection("new", "new.apn"))
	released := time.Now()
	call(t, bus, mm, mmPath, mm+".InhibitDevice", old.Device, false)
	now, err := s.WaitMM(ctx, profileB.iccid)
	if err != nil {
		t.Fatal(err)
	}
	if now.Path == old.Path {
		t.Errorf("the modem object is the old one: %s", now.Path)
	}
	t.Logf("ModemManager shows the new SIM %v after the release", time.Since(released).Round(time.Millisecond))
	if err := s.WaitConnected(ctx, "new"); err != nil {
		t.Fatal(err)
	}
	if from, err := reach(ctx, s, "smdp.example.com:"+portNumber); err != nil || from != "10.2.2.2" {
		t.Fatalf("with the new profile the server saw %q, %v", from, err)
	}
	err = s.Modem.Log().InOrder(mark, "# context", `> AT+CGDCONT=1,"IP","new.apn"`, "> AT+CFUN=0", "> AT+CFUN=1",
		"# SIM read: ICCID "+profileB.iccid, "# registration 1", `new.apn`, "active: APN \"new.apn\" address 10.2.2.2")
	if err != nil {
		t.Error(err)
	}
}

// With the access point of another profile nothing flows, however hard
// NetworkManager tries.
func TestStackWrongAPN(t *testing.T) {
	t.Parallel()
	card := newCard(profileA, profileB)
	card.enable(1)
	s := device(t, modemtest.StackConfig{
		Modem:       modemtest.Config{Card: card},
		Connections: []modemtest.Connection{{ID: "old", APN: "old.apn"}},
	})
	ctx := bounded(t)
	address := server(t, s)
	if _, err := s.Modem.Log().WaitFor(ctx, 0, `APN "old.apn", refused`); err != nil {
		t.Fatal(err)
	}
	unreachable(t, s, address)
	// Not even for a device that gives itself the addresses of both profiles.
	out, err := s.Command(ctx, "sh", "-ec", "ip link set wwan0 up; ip addr add 10.2.2.2/24 dev wwan0; ip addr add 10.1.1.2/24 dev wwan0; ip route add default via 10.2.2.1").CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	unreachable(t, s, address)
	if out, err = s.Command(ctx, "ip", "route", "replace", modemtest.ServerAddr.String(), "dev", "wwan0").CombinedOutput(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	unreachable(t, s, address)
}

// ModemManager follows a REFRESH of the card by the u-blox URC alone, with an
// agent that has no port to itself.
func TestStackRefresh(t *testing.T) {
	t.Parallel()
	card := newCard(profileA, profileB)
	s := device(t, modemtest.StackConfig{
		Modem:                 modemtest.Config{Card: card},
		WithoutNetworkManager: true,
		ShareAgentPort:        true,
	})
	ctx := bounded(t)
	before, err := s.WaitMM(ctx, profileA.iccid)
	if err != nil {
		t.Fatal(err)
	}
	if ports := mmPorts(t, s, before.Path); ports["ttyUSB1"] != 3 { // MM_MODEM_PORT_TYPE_AT
		t.Errorf("ports %v: ModemManager has not taken both", ports)
	}
	// The REFRESH is announced in the answer to an APDU, here one of the test's own.
	h := dialUnix(t, s.Modem)
	h.expect("ATE0\r", "ATE0\r\r\nOK\r\n")
	h.at(`AT+CSIM=10,"80EB010900"`)
	if _, err := s.WaitMM(ctx, profileB.iccid); err != nil {
		t.Error(err)
	}
}

func mmPorts(t *testing.T, s *modemtest.Stack, path dbus.ObjectPath) map[string]uint32 {
	t.Helper()
	bus, err := s.DialBus()
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	var v dbus.Variant
	if err := call(t, bus, mm, path, "org.freedesktop.DBus.Properties.Get", mm+".Modem", "Ports").Store(&v); err != nil {
		t.Fatal(err)
	}
	var ports []struct {
		Name string
		Type uint32
	}
	if err := dbus.Store([]any{v.Value()}, &ports); err != nil {
		t.Fatal(err)
	}
	m := map[string]uint32{}
	for _, p := range ports {
		m[p.Name] = p.Type
	}
	return m
}

// The modem re-enumerates and ModemManager finds it again, with the new SIM.
func TestStackReset(t *testing.T) {
	t.Parallel()
	card := newCard(profileA, profileB)
	dialect := modemtest.UBlox
	dialect.ResetHangsUp = true
	s := device(t, modemtest.StackConfig{
		Modem:                 modemtest.Config{Card: card, Dialect: dialect, Delays: modemtest.Delays{Boot: 200 * time.Millisecond}},
		WithoutNetworkManager: true,
	})
	ctx := bounded(t)
	m, err := s.WaitMM(ctx, profileA.iccid)
	if err != nil {
		t.Fatal(err)
	}
	const ignored = 9 // MM_MODEM_PORT_TYPE_IGNORED
	if ports := mmPorts(t, s, m.Path); ports["ttyUSB1"] != ignored || ports["ttyUSB0"] == ignored {
		t.Errorf("ports %v: the agent's is not the one ignored", ports)
	}
	card.enable(1)
	h := openTTY(t, s.OpenAgentPort())
	h.expect("ATE0\r", "ATE0\r\r\nOK\r\n")
	if got := h.at("AT+CFUN=1,1"); got != "OK" {
		t.Fatal(got)
	}
	if _, err := s.WaitMM(ctx, profileB.iccid); err != nil {
		t.Error(err)
	}
}

// Two devices at once, each with its own network, and nothing left after them.
func TestStackLeavesNothing(t *testing.T) {
	modemtest.RequireStack(t)
	before := traces(t)
	dir := t.TempDir()
	type outcome struct {
		from string
		err  error
	}
	results := make(chan outcome)
	for i := range 2 {
		go func() {
			from, err := oneDevice(t, filepath.Join(dir, strconv.Itoa(i)), i)
			results <- outcome{from, err}
		}()
	}
	for range 2 {
		if r := <-results; r.err != nil || r.from != "10.1.1.2" {
			t.Errorf("the server saw %q: %v", r.from, r.err)
		}
	}
	noMoreThan(t, before)
}

func oneDevice(t *testing.T, dir string, n int) (from string, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	ctx := bounded(t)
	s, err := modemtest.StartStack(ctx, modemtest.StackConfig{
		Dir: dir, Modem: modemtest.Config{Card: newCard(profileA), Subscriptions: subscriptions},
		Connections: []modemtest.Connection{{ID: "only", APN: "old.apn"}},
	})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.WaitConnected(ctx, ""); err != nil {
		return "", err
	}
	l, err := s.Listen("tcp", modemtest.ServerAddr.String()+":443")
	if err != nil {
		return "", err
	}
	defer l.Close()
	accepted := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			from, _, err = net.SplitHostPort(c.RemoteAddr().String())
			err = errors.Join(err, c.Close())
		}
		accepted <- err
	}()
	if _, err := reach(ctx, s, l.Addr().String()); err != nil {
		return "", fmt.Errorf("device %d: %w", n, err)
	}
	return from, <-accepted
}

// traces is what a stack could leave on this machine: mounts and interfaces
// here, and processes whose command line or environment names a lab's files.
func traces(t *testing.T) []string {
	t.Helper()
	var b strings.Builder
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	b.Write(mounts)
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		fmt.Fprintln(&b, i.Name)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	self := strconv.Itoa(os.Getpid())
	for _, d := range dirs {
		status, err := os.ReadFile(filepath.Join(d, "status"))
		if err != nil {
			continue // it just ended
		}
		if bytes.Contains(status, []byte("\nPPid:\t"+self+"\n")) {
			name, _, _ := strings.Cut(string(status), "\n")
			fmt.Fprintln(&b, name)
		}
	}
	return strings.Split(b.String(), "\n")
}

// noMoreThan waits until there is nothing that was not there before: the kernel takes a network namespace apart in the background, and
// other tests' programs mount things, too, and take them away.
func noMoreThan(t *testing.T, before []string) {
	t.Helper()
	var more []string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		more = slices.DeleteFunc(traces(t), func(line string) bool { return slices.Contains(before, line) })
		if len(more) == 0 {
			return
		}
	}
	t.Errorf("left behind:\n%s", strings.Join(more, "\n"))
}

// A stack that cannot start says why and leaves nothing either.
func TestStackDoesNotStart(t *testing.T) {
	modemtest.RequireStack(t)
	before := traces(t)
	if _, err := modemtest.StartStack(t.Context(), modemtest.StackConfig{}); err == nil || !strings.Contains(err.Error(), "card") {
		t.Errorf("no card: %v", err)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if _, err := modemtest.StartStack(t.Context(), modemtest.StackConfig{Dir: long}); err == nil || !strings.Contains(err.Error(), "107") {
		t.Errorf("long path: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := modemtest.StartStack(ctx, modemtest.StackConfig{Modem: modemtest.Config{Card: newCard(profileA)}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no time: %v", err)
	}
	noMoreThan(t, before)
}

// requirer is a test that records how it was ended.
type requirer struct{ skipped, failed string }

func (r *requirer) Helper()                        {}
func (r *requirer) Skipf(format string, a ...any)  { r.skipped = fmt.Sprintf(format, a...) }
func (r *requirer) Fatalf(format string, a ...any) { r.failed = fmt.Sprintf(format, a...) }

func TestRequireStack(t *testing.T) {
	t.Setenv("PATH", "/nowhere")
	t.Setenv("LPAD_REQUIRE", "")
	var r requirer
	modemtest.RequireStack(&r)
	if r.failed != "" || r.skipped == "" || os.Geteuid() == 0 && !strings.Contains(r.skipped, "modemmanager network-manager dbus") {
		t.Errorf("%+v", r)
	}
	t.Setenv("LPAD_REQUIRE", "all")
	r = requirer{}
	modemtest.RequireStack(&r)
	if r.failed == "" || r.skipped != "" {
		t.Errorf("%+v", r)
	}
}
