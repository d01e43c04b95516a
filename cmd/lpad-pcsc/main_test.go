package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lpad/apdu/pcsc"
)

// maxSize is what the stripped program may take of a device's flash, in bytes.
const maxSize = 2_000_000

// build builds the program as it is shipped, with or without cgo.
func build(t *testing.T, cgo string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lpad-pcsc")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

func run(t *testing.T, path string, args ...string) (status int, stderr string) {
	t.Helper()
	var text strings.Builder
	cmd := exec.Command(path, args...) // its standard input is at its end
	cmd.Stderr = &text
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), text.String()
}

func TestWithPCSC(t *testing.T) {
	path := build(t, "1")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxSize {
		t.Errorf("%d bytes, at most %d are wanted", info.Size(), maxSize)
	}
	if status, text := run(t, path); status != 0 || text != "" {
		t.Errorf("without input: status %d, %s", status, text)
	}
	if status, text := run(t, path, "--help"); status != 1 || !strings.Contains(text, "helper of lpad") {
		t.Errorf("with an argument: status %d, %s", status, text)
	}
}

func TestWithoutPCSC(t *testing.T) {
	if status, text := run(t, build(t, "0")); status != pcsc.ExitNotBuilt || !strings.Contains(text, "built without PC/SC") {
		t.Errorf("status %d, %s", status, text)
	}
}
