package packets

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lpad/agent/api"
	"lpad/internal/fault"
)

const job = "20261122-061500"

// call sends a request through a box and tells what came of it.
func call(ctx context.Context, b http.RoundTripper, function, body string) <-chan string {
	out := make(chan string, 1)
	go func() {
		r, err := http.NewRequestWithContext(ctx, "POST", "https://smdp.example.com"+path+function, strings.NewReader(body))
		if err != nil {
			panic(err)
		}
		r.Header.Set("X-Admin-Protocol", "gsma/rsp/v2.2.2")
		resp, err := b.RoundTrip(r)
		if err != nil {
			out <- fault.Of(err).Code + " " + err.Error()
			return
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			panic(err)
		}
		out <- resp.Status + string(got)
	}()
	return out
}

// waiting is the one request that waits.
func waiting(t *testing.T, b *Box) api.Packet {
	t.Helper()
	list := b.List()
	if len(list) != 1 {
		t.Fatalf("%d packets wait: %+v", len(list), list)
	}
	return list[0]
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return fault.Of(err).Code
}

// A session goes through a box and, after each of its requests, through another
// box in its place: what was asked and answered stays so, under the same ids.
func TestBoxRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "packets")
		b := Open(dir, Options{})
		first := `{"euiccChallenge":"AQI=","euiccInfo1":"vyAA","smdpAddress":"smdp.example.com"}`
		second := `{"transactionId":"AA","authenticateServerResponse":"vzgA"}`
		if b.Rewind(job) || b.Said(Initiate) != nil {
			t.Fatal("something of before")
		}
		lost := call(t.Context(), b.To("smdp.example.com"), Initiate, first)
		synctest.Wait()
		one := waiting(t, b)
		if w := b.Wait(job); w == nil || w.Number != 1 || w.Of != 3 || w.ID != one.ID || w.Function != Initiate {
			t.Fatalf("%+v", w)
		}
		if b.Wait("another") != nil {
			t.Error("another job waits")
		}

		// The process is killed while it waits.
		b = Open(dir, Options{})
		if got := waiting(t, b); got != one {
			t.Fatalf("%+v, before %+v", got, one)
		}
		if !b.Rewind(job) {
			t.Fatal("nothing of before")
		}
		b.To("SMDP.example.com")
		if got := b.Said(Initiate); !bytes.Equal(got, []byte{1, 2}) {
			t.Fatalf("challenge %X", got)
		}
		if b.Said(Authenticate) != nil {
			t.Error("a response before there is one")
		}
		// The answer comes before the session goes on, twice.
		a := Answer(&one, 200, 0, []byte("one"))
		for range 2 {
			if err := b.Put(&a); err != nil {
				t.Fatal(err)
			}
		}
		if err := put(b, Answer(&one, 200, 0, []byte("other"))); code(err) != api.CodeConflict {
			t.Errorf("another answer: %v", err)
		}
		b = Open(dir, Options{}) // killed again
		if err := b.Put(&a); err != nil {
			t.Errorf("the same answer after a restart: %v", err)
		}
		b.Rewind(job)
		b.To("smdp.example.com")
		b.Said(Initiate)
		if got := <-call(t.Context(), b, Initiate, first); got != "one" {
			t.Fatalf("%q", got)
		}
		again := call(t.Context(), b, Authenticate, second)
		synctest.Wait()
		two := waiting(t, b)
		if w := b.Wait(job); w.Number != 2 || w.Of != 3 {
			t.Errorf("%+v", w)
		}

		b = Open(dir, Options{})
		b.Rewind(job)
		b.To("smdp.example.com")
		if b.Said(Initiate) == nil || b.Said(Authenticate) != nil {
			t.Error("the order of what was said")
		}
		if got := <-call(t.Context(), b, Initiate, first); got != "one" {
			t.Fatalf("%q", got)
		}
		if !bytes.Equal(b.Said(Authenticate), []byte{0xBF, 0x38, 0}) {
			t.Errorf("%X", b.Said(Authenticate))
		}
		now := call(t.Context(), b, Authenticate, second)
		synctest.Wait()
		if waiting(t, b) != two {
			t.Error("another request than before the restart")
		}
		if err := put(b, Answer(&two, 200, 0, []byte("two"))); err != nil {
			t.Fatal(err)
		}
		if got := <-now; got != "two" {
			t.Fatalf("%q", got)
		}
		three := call(t.Context(), b, Package, "{}")
		synctest.Wait()
		pkg := waiting(t, b)

		// With the package on its way there is no going on.
		after := Open(dir, Options{})
		if after.Rewind(job) || len(after.List()) != 0 {
			t.Error("the session goes on")
		}
		err := put(after, Answer(&pkg, 200, 0, []byte("three")))
		if code(err) != api.CodePacketSuperseded || !strings.Contains(err.Error(), "restarted") {
			t.Errorf("the package after a restart: %v", err)
		}
		fresh := call(t.Context(), after.To("smdp.example.com"), Initiate, first)
		synctest.Wait()
		if p := waiting(t, after); p.ID == one.ID {
			t.Error("the id of before")
		}
		if w := after.Wait(job); w.Number != 4 || w.Note == "" {
			t.Errorf("%+v", w)
		}

		if err := put(b, Answer(&pkg, 200, 0, []byte("three"))); err != nil {
			t.Fatal(err)
		}
		if got := <-three; got != "three" {
			t.Errorf("%q", got)
		}
		if err := put(b, Answer(&pkg, 200, 0, []byte("three"))); err != nil {
			t.Errorf("the same package twice: %v", err)
		}
		after.End(job)
		if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
			t.Errorf("left behind: %v %v", list, err)
		}
		for _, abandoned := range []<-chan string{lost, again, fresh} {
			select {
			case got := <-abandoned:
				t.Errorf("%q", got)
			default:
			}
		}
	})
}

func TestBoxEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		beats, changes := 0, 0
		b := Open(t.TempDir(), Options{Limit: time.Hour, Beat: func() { beats++ }, Changed: func(id string) {
			if id == job {
				changes++
			}
		}})
		b.Rewind(job)
		if got := <-call(t.Context(), b, Initiate, "{}"); !strings.HasPrefix(got, "packet-timeout ") {
			t.Errorf("%q", got)
		}
		if beats < 100 || changes != 2 {
			t.Errorf("%d signs of life in an hour, %d changes", beats, changes)
		}
		why := errors.New("aborted")
		ctx, cancel := context.WithCancelCause(t.Context())
		got := call(ctx, b, Initiate, "{}")
		synctest.Wait()
		id := waiting(t, b).ID
		cancel(why)
		if text := <-got; !strings.HasSuffix(text, "aborted") {
			t.Errorf("%q", text)
		}
		if waiting(t, b).ID != id {
			t.Error("the request is another one")
		}
		if b.Wait(job) != nil {
			t.Error("it still waits")
		}
		if !b.Void("the card was reset") || !b.Void("again") || b.Void("and again") {
			t.Error("no bound, or too early")
		}
		if text := <-call(t.Context(), b, Notify, "{}"); !strings.HasPrefix(text, "no-network ") {
			t.Errorf("%q", text)
		}
	})
}

// A farewell waits for nobody, stays when its job has ended, and is bounded.
func TestBoxFarewell(t *testing.T) {
	dir := t.TempDir()
	b := Open(dir, Options{})
	for range maxParting + 2 {
		b.Rewind(job)
		if got := <-call(t.Context(), b, Cancel, "{}"); got != "" {
			t.Fatalf("%q", got)
		}
	}
	b.End(job)
	b = Open(dir, Options{})
	list := b.List()
	if len(list) != maxParting || list[0].Function != Cancel {
		t.Fatalf("%d wait", len(list))
	}
	for range 2 {
		if err := put(b, Answer(&list[3], 200, 0, nil)); err != nil {
			t.Error(err)
		}
	}
	if got := len(Open(dir, Options{}).List()); got != maxParting-1 {
		t.Errorf("%d wait after an answer", got)
	}
}

// A disk that takes nothing, and a folder with what is no packet.
func TestBoxDisk(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	stray := []string{"x.request.json", "y.answer.json", ".packet-123"}
	for _, name := range append(stray, "file") {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := Open(filepath.Join(file, "packets"), Options{})
	b.Rewind(job)
	if got := <-call(t.Context(), b, Initiate, "{}"); !strings.HasPrefix(got, "packet-not-written ") {
		t.Errorf("%q", got)
	}
	if len(b.List()) != 0 {
		t.Error("it waits without being written")
	}
	Open(dir, Options{})
	for _, name := range stray {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The packets of a job that has ended, or of another one, are forgotten.
func TestBoxKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		b := Open(dir, Options{})
		b.Rewind(job)
		ctx, cancel := context.WithCancel(t.Context())
		got := call(ctx, b, Initiate, "{}")
		synctest.Wait()
		cancel()
		<-got
		b = Open(dir, Options{})
		b.Keep(func(id string) bool { return id == job })
		waiting(t, b)
		b.Keep(func(string) bool { return false })
		if len(b.List()) != 0 {
			t.Error("still there")
		}
		b.Rewind(job)
		ctx, cancel = context.WithCancel(t.Context())
		got = call(ctx, b, Initiate, "{}")
		synctest.Wait()
		if b.Rewind("another"); len(b.List()) != 0 {
			t.Error("the other job has the request")
		}
		cancel()
		<-got
	})
}

func put(b *Box, a api.Packet) error { return b.Put(&a) }
