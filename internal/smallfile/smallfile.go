// Package smallfile reads files that people write: configuration, keys, tables.
//
//	text, err := smallfile.Read("/etc/lpad/operators.d/acme.pem", 16<<10)
package smallfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Read reads a regular file of at most limit bytes. Anything else is refused
// without waiting for it: a pipe may never begin, a device never end. Errors name
// the file.
func Read(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadOpen(f, limit)
}

// ReadOpen does so with a file that was opened already, as it must be where the
// way to it matters; without waiting, if it was opened with O_NONBLOCK.
func ReadOpen(f *os.File, limit int64) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: f.Name(), Err: errors.New("not a regular file")}
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, &fs.PathError{Op: "read", Path: f.Name(), Err: fmt.Errorf("longer than %d bytes", limit)}
	}
	return b, nil
}
