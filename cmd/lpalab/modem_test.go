package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lpad/modem/modemtest"
)

func TestModemNamed(t *testing.T) {
	if d, err := modemNamed(""); err != nil || d.Name != "u-blox" {
		t.Errorf("the usual one: %s, %v", d.Name, err)
	}
	if d, err := modemNamed("sierra-mc7455"); err != nil || d.Model != "MC7455" {
		t.Errorf("%s, %v", d.Model, err)
	}
	if _, err := modemNamed("sierra"); err == nil || !strings.Contains(err.Error(), "sierra-mc7455") {
		t.Errorf("an unknown name does not get the list: %v", err)
	}
	var out bytes.Buffer
	if err := listModems(&out); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Count(out.String(), "\n"), len(modemtest.Dialects())+1; got != want {
		t.Errorf("%d lines, want %d:\n%s", got, want, &out)
	}
}

// page is what a program prints, to be read while it runs.
type page struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *page) has(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Contains(p.text.String(), text)
}

// A modem on two ttys, which prints what it hears, until it is told to end.
func TestRunModem(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	d, err := modemNamed("fibocom-fm350")
	if err != nil {
		t.Fatal(err)
	}
	d.Delays = modemtest.Delays{}
	out := &page{}
	ended := make(chan error, 1)
	go func() { ended <- runModem(ctx, out, d, dir) }()
	wait := func(text string) {
		for !out.has(text) {
			if ctx.Err() != nil {
				t.Fatalf("%q is not in: %s", text, out.text.String())
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	wait("# registration 1")
	tty, err := os.OpenFile(filepath.Join(dir, "ttyUSB1"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	if _, err := io.WriteString(tty, "AT+CGMM\r"); err != nil {
		t.Fatal(err)
	}
	wait("ttyUSB1 < FM350-GL | OK")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}
