package lab_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// programs is the folder with lpad, lpactl and lpad-pcsc, built for this run.
var programs string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	// Most of these tests wait most of the time; for those that do not see devices.
	if err := flag.Set("test.parallel", "8"); err != nil {
		return failed(err)
	}
	dir, err := os.MkdirTemp("", "lpad-test-")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // lpad may run as another user
		return failed(err)
	}
	if err := lab.BuildPrograms(context.Background(), "../../..", dir); err != nil {
		return failed(err)
	}
	programs = dir
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		return failed(err)
	}
	return code
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// limit is the longest that anything in these tests may take.
const limit = 4 * time.Minute

// devices lets two tests at once have a whole device: each keeps a bus,
// ModemManager and NetworkManager busy.
var devices = make(chan struct{}, 2)

// newWorld makes a world that ends with the test.
func newWorld(t *testing.T, o lab.Options) *lab.World {
	t.Helper()
	w, err := lab.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// startDevice starts a device that ends with the test, which becomes parallel.
// A test that fails shows what lpad and the modem have logged.
func startDevice(t *testing.T, w *lab.World, o lab.DeviceOptions) (context.Context, *lab.Device) {
	t.Helper()
	modemtest.RequireStack(t)
	t.Parallel()
	devices <- struct{}{}
	t.Cleanup(func() { <-devices })
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	o.Programs = programs
	d, err := w.StartDevice(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("lpad:\n%s\nmodem:\n%s", d.Log(), d.Stack.Modem.Log())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, d
}

// lpactl runs a command, which must end with this exit status.
func lpactl(ctx context.Context, t *testing.T, d *lab.Daemon, exit int, args ...string) lab.Result {
	t.Helper()
	r, err := d.Lpactl(ctx, nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	if r.Exit != exit {
		t.Fatalf("lpactl %q ended with %d, want %d\n%s%s", args, r.Exit, exit, r.Stdout, r.Stderr)
	}
	return r
}
