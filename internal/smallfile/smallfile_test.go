package smallfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lpad/internal/smallfile"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("file"), []byte("12345"), 0o600), os.WriteFile(at("empty"), nil, 0o600),
		syscall.Mkfifo(at("pipe"), 0o600), os.Symlink("file", at("link")), os.Mkdir(at("folder"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		limit int64
		want  string
		err   string // empty: none
	}{
		{"file", 5, "12345", ""},
		{"link", 5, "12345", ""},
		{"empty", 5, "", ""},
		{"file", 4, "", "longer than 4 bytes"},
		{"pipe", 5, "", "not a regular file"},
		{"folder", 5, "", "not a regular file"},
		{"nothing", 5, "", "no such file"},
	} {
		got, err := smallfile.Read(at(tc.name), tc.limit)
		if string(got) != tc.want || (err == nil) != (tc.err == "") || err != nil && !(strings.Contains(err.Error(), tc.err) && strings.Contains(err.Error(), at(tc.name))) {
			t.Errorf("%s: %q, %v", tc.name, got, err)
		}
	}
	if _, err := smallfile.Read("/dev/zero", 5); err == nil {
		t.Error("a device is read")
	}
	if _, err := smallfile.Read(at("nothing"), 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not say that there is none", err)
	}
}
