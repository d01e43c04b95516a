package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// safeBuffer is read while a command writes.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal(what)
		}
	}
}

// TestRelay: a relay shows each connection, refuses what is not allowed, attaches
// again, and ends when it is interrupted, which is no failure.
func TestRelay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c) // its end is the test's
			c.Close()
		}
	}()
	defer func() { l.Close(); <-served }()
	d := newDaemon(t)
	there := l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs safeBuffer
	exit := make(chan int, 1)
	go func() {
		exit <- run(ctx, []string{"--socket", d.path, "relay", "--allow", there}, strings.NewReader(""), &out, &errs)
	}()
	attached := func() bool { _, ok := d.station.Attached(); return ok }
	eventually(t, "it does not attach", attached)

	c, err := d.station.Dial(t.Context(), there)
	if err != nil {
		t.Fatal(err)
	}
	record, got := []byte{23, 3, 3, 0, 2, 'h', 'i'}, make([]byte, 7)
	if _, err := c.Write(record); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, record) {
		t.Errorf("%x, %v", got, err)
	}
	c.Close()
	if c, err := d.station.Dial(t.Context(), "smdp.example.com:443"); err == nil {
		c.Close()
		t.Error("it connects to what was not allowed")
	}
	for _, want := range []string{there + "  connected to " + there + "\n", there + "  closed, 7 bytes sent, 7 received\n", "smdp.example.com:443  not connected: not allowed by the rules of this relay"} {
		eventually(t, "it does not show "+want, func() bool { return strings.Contains(out.String(), want) })
	}

	d.mu.Lock()
	end := d.detach
	d.mu.Unlock()
	var second safeBuffer
	if got := run(t.Context(), []string{"--socket", d.path, "relay"}, strings.NewReader(""), io.Discard, &second); got != 6 || !strings.Contains(second.String(), "[relay-attached]") {
		t.Errorf("a second one ends with %d: %s", got, second.String())
	}
	end() // as a daemon's
	eventually(t, "it does not see the end", func() bool { return strings.Contains(errs.String(), "detached: ") })
	eventually(t, "it does not attach again", attached)
	cancel()
	if got := <-exit; got != 0 {
		t.Errorf("it ends with %d: %s", got, errs.String())
	}
}

// TestRelayRefused: what makes no sense, and a daemon that is not there.
func TestRelayRefused(t *testing.T) {
	for _, tc := range []struct {
		args string
		exit int
	}{{"relay --allow http://smdp.example.com", 2}, {"relay now", 2}, {"relay", 3}} {
		var errs safeBuffer
		if got := run(t.Context(), append([]string{"--socket", t.TempDir() + "/none"}, strings.Fields(tc.args)...), strings.NewReader(""), io.Discard, &errs); got != tc.exit {
			t.Errorf("%s ends with %d: %s", tc.args, got, errs.String())
		}
	}
}
