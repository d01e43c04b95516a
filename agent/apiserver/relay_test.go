package apiserver_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"lpad/agent/api"
	"lpad/agent/apiserver"
	"lpad/internal/fault"
)

// upgrade asks for a relay, and returns the connection with what has come.
func upgrade(t *testing.T, path, header, rest string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "POST /v1/relay HTTP/1.1\r\nHost: lpad.local\r\n"+header+"\r\n"+rest); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, in, resp
}

const wantsRelay = "Connection: keep-alive, Upgrade\r\nUpgrade: lpad-relay/1\r\n"

// TestRelay: the connection is handed over, nothing of the
// socket ends it, and the end of the daemon waits for whoever has it.
func TestRelay(t *testing.T) {
	t.Parallel() // it waits
	ended := make(chan struct{})
	b := &backend{carries: func(ctx context.Context, c net.Conn) error {
		defer close(ended)
		defer context.AfterFunc(ctx, func() { c.Close() })()
		_, err := io.Copy(c, c)
		return err
	}}
	s := serve(t, b, apiserver.Options{})
	c, in, resp := upgrade(t, s.path, wantsRelay, "")
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != api.RelayProtocol || !strings.HasPrefix(b.last(), "relay by uid ") {
		t.Fatalf("%s %v, asked %q", resp.Status, resp.Header, b.last())
	}
	echo := func(text string) {
		t.Helper()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(in, got); err != nil || string(got) != text {
			t.Fatalf("%q came back, %v", got, err)
		}
	}
	echo("early")
	// Longer than a request may take.
	select {
	case <-ended:
		t.Fatal("it ended")
	case <-time.After(apiserver.BodyTimeout + time.Second):
	}
	echo("late")
	s.stop()
	select {
	case <-ended:
	default:
		t.Error("the daemon did not wait for it")
	}
	if _, err := in.ReadByte(); err == nil {
		t.Error("the connection is still open")
	}
}

// TestNoRelay: what is no relay is an answer as any other.
func TestNoRelay(t *testing.T) {
	b := &backend{err: fault.New(fault.Fault{Code: "relay-attached", Text: "taken", Retry: true, Who: fault.Technician, Next: "wait"}, nil)}
	s := serve(t, b, apiserver.Options{})
	if _, _, resp := upgrade(t, s.path, wantsRelay, ""); resp.StatusCode != http.StatusConflict || resp.Header.Get("Content-Type") != api.ProblemType {
		t.Errorf("a refusal: %s", resp.Status)
	}
	for _, header := range []string{"", "Upgrade: lpad-relay/1\r\n", "Connection: Upgrade\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: lpad-relay/2\r\n"} {
		if _, _, resp := upgrade(t, s.path, header, ""); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %s", header, resp.Status)
		}
	}
}
