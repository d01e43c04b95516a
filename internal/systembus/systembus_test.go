package systembus_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"go.uber.org/goleak"

	"lpad/internal/fault"
	"lpad/internal/systembus"
	"lpad/internal/systembus/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var echo = systembus.Service{Name: "Echo", Bus: "org.example.Echo", Code: "echo"}

const (
	path  = dbus.ObjectPath("/org/example/Echo")
	iface = "org.example.Echo"
)

// echoService is a service to talk to.
type echoService struct {
	conn *dbus.Conn
	n    atomic.Int64
	hang chan struct{}
}

func (e *echoService) Echo(s string) (string, *dbus.Error) { return s, nil }

func (e *echoService) Fail(name, text string) *dbus.Error {
	return dbus.NewError(name, []any{text})
}

func (e *echoService) Hang() *dbus.Error { <-e.hang; return nil }

// Get is org.freedesktop.DBus.Properties.Get.
func (e *echoService) Get(_, name string) (dbus.Variant, *dbus.Error) {
	if name != "N" {
		return dbus.Variant{}, dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", []any{name})
	}
	return dbus.MakeVariant(e.n.Load()), nil
}

func (e *echoService) GetAll(string) (map[string]dbus.Variant, *dbus.Error) {
	return map[string]dbus.Variant{"N": dbus.MakeVariant(e.n.Load()), "S": dbus.MakeVariant("s"), "None": dbus.MakeVariant(dbus.ObjectPath("/"))}, nil
}

func serve(t *testing.T, b *bustest.Bus) *echoService {
	t.Helper()
	e := &echoService{conn: b.Dial(t), hang: make(chan struct{})}
	t.Cleanup(func() { close(e.hang) })
	for _, i := range []string{iface, "org.freedesktop.DBus.Properties"} {
		if err := e.conn.Export(e, path, i); err != nil {
			t.Fatal(err)
		}
	}
	b.Own(t, e.conn, echo.Bus)
	return e
}

func client(t *testing.T, b *bustest.Bus) *systembus.Bus {
	t.Helper()
	c := systembus.New(b.Address)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestErrors(t *testing.T) {
	b := bustest.Start(t)
	serve(t, b)
	c := client(t, b)
	for _, tc := range []struct {
		name string // D-Bus error
		want error
		code string
	}{
		{"org.freedesktop.DBus.Error.ServiceUnknown", systembus.ErrAbsent, "echo-absent"},
		{"org.freedesktop.DBus.Error.UnknownMethod", systembus.ErrGone, "echo-object-gone"},
		{"org.freedesktop.DBus.Error.AccessDenied", systembus.ErrDenied, "echo-not-authorized"},
		{"org.freedesktop.ModemManager1.Error.Core.Unauthorized", systembus.ErrDenied, "echo-not-authorized"},
		{"org.freedesktop.NetworkManager.PermissionDenied", systembus.ErrDenied, "echo-not-authorized"},
		{"org.freedesktop.ModemManager1.Error.Core.Unsupported", systembus.ErrUnsupported, "echo-unsupported"},
		{"org.freedesktop.ModemManager1.Error.Core.WrongState", systembus.ErrBusy, "echo-busy"},
		{"org.freedesktop.DBus.Error.Timeout", systembus.ErrSilent, "echo-silent"},
		{"org.example.Unheard", systembus.ErrRefused, "echo-refused"},
	} {
		t.Run(tc.code, func(t *testing.T) {
			err := c.Call(t.Context(), echo, path, iface+".Fail", tc.name, "because").Err()
			var e *systembus.Error
			if !errors.Is(err, tc.want) || !errors.As(err, &e) || e.Name != tc.name || e.Text != "because" {
				t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
			}
			if f := fault.Of(err); f.Code != tc.code || f.Next == "" || f.Who == "" {
				t.Errorf("fault %+v, want code %s", f, tc.code)
			}
		})
	}
}

func TestCall(t *testing.T) {
	b := bustest.Start(t)
	e := serve(t, b)
	c := client(t, b)
	var s string
	if err := c.Call(t.Context(), echo, path, iface+".Echo", "hello").Store(&s); err != nil || s != "hello" {
		t.Errorf("echo: %q, %v", s, err)
	}
	e.n.Store(7)
	var n int64
	if err := c.Property(t.Context(), echo, path, iface, "N").Store(&n); err != nil || n != 7 {
		t.Errorf("property: %d, %v", n, err)
	}
	var list []string
	if err := c.Property(t.Context(), echo, path, iface, "N").Store(&list); err == nil {
		t.Error("a number was stored in a list")
	}
	p, err := c.Properties(t.Context(), echo, path, iface)
	if err != nil || p.Int("N") != 7 || p.String("S") != "s" || p.Path("None") != "" || p.String("absent") != "" || p.Bool("S") || p.Paths("S") != nil {
		t.Errorf("properties: %v, %v", p, err)
	}
	if on, err := c.Running(t.Context(), echo); err != nil || !on {
		t.Errorf("running: %v, %v", on, err)
	}
	nobody := systembus.Service{Name: "Nobody", Bus: "org.example.Nobody", Code: "nobody"}
	if err := c.Call(t.Context(), nobody, "/", "org.example.Nobody.X").Err(); fault.Of(err).Code != "nobody-absent" {
		t.Errorf("absent service: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := c.Call(ctx, echo, path, iface+".Hang").Err(); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled call: %v", err)
	}
}

func TestReconnect(t *testing.T) {
	b := bustest.Start(t)
	serve(t, b)
	c := client(t, b)
	first, err := c.Connection(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.Down(t)
	if err := c.Call(t.Context(), echo, path, iface+".Echo", "x").Err(); fault.Of(err).Code != "system-bus-down" || !systembus.Transient(err) {
		t.Errorf("call without a bus: %v", err)
	}
	b.Up(t)
	serve(t, b)
	var s string
	if err := c.Call(t.Context(), echo, path, iface+".Echo", "again").Store(&s); err != nil || s != "again" {
		t.Errorf("after the bus is back: %q, %v", s, err)
	}
	if first.Alive() {
		t.Error("the lost connection says that it stands")
	}
	if err := first.Call(t.Context(), echo, path, iface+".Echo", "x").Err(); !errors.Is(err, systembus.ErrBusDown) {
		t.Errorf("call on the lost connection: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Call(t.Context(), echo, path, iface+".Echo", "x").Err(); !errors.Is(err, systembus.ErrBusDown) {
		t.Errorf("call after Close: %v", err)
	}
}

func TestWait(t *testing.T) {
	b := bustest.Start(t)
	e := serve(t, b)
	c := client(t, b)
	reached := func(ctx context.Context, want int64) func(context.Context) (bool, error) {
		return func(context.Context) (bool, error) {
			var n int64
			if err := c.Property(ctx, echo, path, iface, "N").Store(&n); err != nil {
				return !systembus.Transient(err), err
			}
			return n >= want, nil
		}
	}
	t.Run("signals", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		go func() {
			for range 5 {
				e.n.Add(1)
				if err := e.conn.Emit(path, iface+".Changed"); err != nil {
					t.Error(err)
				}
			}
		}()
		if err := c.Wait(ctx, []systembus.Service{echo}, reached(ctx, 5)); err != nil {
			t.Error(err)
		}
	})
	t.Run("listen", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var sum atomic.Int64
		emitted := false
		heard := func(s *dbus.Signal) {
			if n, ok := s.Body[0].(int64); s.Name == iface+".Told" && ok {
				sum.Add(n)
			}
		}
		err := c.Listen(ctx, []systembus.Service{echo}, heard, func(context.Context) (bool, error) {
			if !emitted { // nothing that is sent from the first check on is missed
				emitted = true
				for n := range int64(4) {
					if err := e.conn.Emit(path, iface+".Told", n+1); err != nil {
						return true, err
					}
				}
			}
			return sum.Load() == 10, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("no signal, read again", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		time.AfterFunc(50*time.Millisecond, func() { e.n.Store(10) })
		if err := c.Wait(ctx, []systembus.Service{echo}, reached(ctx, 10)); err != nil {
			t.Error(err)
		}
	})
	t.Run("the bus goes and comes", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		waited := make(chan error, 1)
		go func() { waited <- c.Wait(ctx, []systembus.Service{echo}, reached(ctx, 20)) }()
		b.Down(t)
		b.Up(t)
		serve(t, b).n.Store(20)
		if err := <-waited; err != nil {
			t.Error(err)
		}
	})
	t.Run("ctx ends, with the reason", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		reason := errors.New("not yet")
		err := c.Wait(ctx, []systembus.Service{echo}, func(context.Context) (bool, error) { return false, reason })
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, reason) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("done with an error", func(t *testing.T) {
		final := errors.New("never")
		if err := c.Wait(t.Context(), []systembus.Service{echo}, func(context.Context) (bool, error) { return true, final }); !errors.Is(err, final) {
			t.Errorf("got %v", err)
		}
	})
}
