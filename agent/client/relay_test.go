package client_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"lpad/agent/client"
	"lpad/internal/fault"
)

// TestRelay: the connection of a relay carries bytes in both directions, a
// refusal is the daemon's problem, and a context ends the asking.
func TestRelay(t *testing.T) {
	d := newDaemon()
	s := socketPath(t)
	d.serve(t, s, anyone)
	c := client.New(s)
	defer c.Close()
	conn, err := c.Relay(t.Context(), "7")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	conn.Close()
	if !strings.HasPrefix(d.asked[len(d.asked)-1], "relay 7by uid ") {
		t.Errorf("asked %q", d.asked)
	}

	d.err = fault.New(fault.Fault{Code: "relay-attached", Text: "taken", Retry: true, Who: fault.Technician, Next: "wait"}, nil)
	if conn, err := c.Relay(t.Context(), ""); code(err) != "relay-attached" {
		t.Errorf("a refusal: %v %v", conn, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if conn, err := c.Relay(ended, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("without a caller: %v %v", conn, err)
	}
	if conn, err := client.New(s+"-none").Relay(t.Context(), ""); code(err) != "daemon-not-running" {
		t.Errorf("without a daemon: %v %v", conn, err)
	}
}
