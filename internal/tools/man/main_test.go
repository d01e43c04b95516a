package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestUpToDate: the pages in the repository are those of the source.
func TestUpToDate(t *testing.T) {
	pages, err := Pages("../../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range pages {
		got, err := os.ReadFile(filepath.Join("../../../packaging/man", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("packaging/man/%s is old: make man (%v)", name, err)
		}
	}
}

func TestRoff(t *testing.T) {
	for in, want := range map[string]string{"--json": `\-\-json`, ".x": `\&.x`, `a\b`: `a\eb`, "'": `\&'`} {
		if got := roff(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
