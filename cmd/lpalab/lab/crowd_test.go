package lab_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lpad/cmd/lpalab/lab"
)

// TestCrowd has many clients of every kind at the socket while a profile is
// installed: it is, everybody who asks well is answered, nobody who does not is
// believed, and nothing is left behind. ("make bench" has more of them for longer,
// and measures.)
func TestCrowd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	m, err := w.StartModem(ctx, programs, "log: {level: info}\napi: {read: users}\n")
	must(t, err)
	defer func() { must(t, m.Close()) }()
	must(t, os.Chmod(m.Dir, 0o755))
	must(t, os.Chmod(m.Socket, 0o666))
	pid, descriptors := m.PID(), openFiles(t, m.PID())
	crowd := lab.Crowd{Socket: m.Socket, Fair: 24, Streams: 6, Bad: 2 * len(lab.BadClients), Reader: 100}
	const each = 5 * time.Second
	over, stop := context.WithTimeout(ctx, each)
	defer stop()
	seen := make(chan lab.CrowdResult, 1)
	go func() { seen <- crowd.Run(over) }()
	lpactl(ctx, t, m.Daemon, 0, "install", w.ActivationCode(), "--yes")
	r := <-seen
	if r.Asked < crowd.Fair || r.Answered != r.Asked || r.Opened != crowd.Streams || r.Events < crowd.Streams || r.Believed != 0 || len(r.Bad) != len(lab.BadClients) {
		t.Errorf("%+v", r)
	}
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	must(t, err)
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	if kib, err := strconv.Atoi(strings.Fields(peak)[0]); err != nil || kib > 32<<10 {
		t.Errorf("%d KiB of memory at most, %v", kib, err)
	}
	for until := time.Now().Add(limit / 4); openFiles(t, pid) > descriptors+2 && time.Now().Before(until); { // each connection is noticed on its own
		time.Sleep(50 * time.Millisecond)
	}
	if now := openFiles(t, pid); now > descriptors+2 || m.PID() != pid || strings.Contains(m.Log(), "panic") {
		t.Errorf("%d descriptors before, %d after\n%s", descriptors, now, m.Log())
	}
}

// TestCrowdSees: the crowd notices a socket at which bad requests are believed
// and good ones are not answered.
func TestCrowdSees(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "lpad-crowd-")
	must(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chmod(path, 0o666))
	var talks sync.WaitGroup
	done := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				done <- err
				return
			}
			talks.Go(func() {
				defer c.Close()
				b := make([]byte, 512)
				n, _ := c.Read(b)
				status := "500 No"
				if strings.Contains(string(b[:n]), "Origin") {
					status = "200 OK"
				}
				io.WriteString(c, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			})
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	r := lab.Crowd{Socket: path, Fair: 2, Streams: 1, Bad: len(lab.BadClients)}.Run(ctx)
	if r.Answered != 0 || r.Asked == 0 || len(r.Failed) == 0 || r.Opened != 0 || r.Believed == 0 {
		t.Errorf("%+v", r)
	}
	must(t, l.Close())
	talks.Wait()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func openFiles(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	must(t, err)
	return len(list)
}
