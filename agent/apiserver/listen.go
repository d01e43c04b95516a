package apiserver

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// SocketOptions say who may connect to a socket that we make ourselves.
type SocketOptions struct {
	GID  int         // group of the socket; -1: leave it
	Mode fs.FileMode // 0: 0660
}

// Listen makes the socket at path. A stale one is replaced; one that somebody
// answers on is an error, and so is anything that is not a socket. (Between
// looking and replacing another daemon could start; the journal's lock decides
// then.)
func Listen(path string, o SocketOptions) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	old := unix.Umask(0o177) // closed to others from the first moment
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	if o.Mode == 0 {
		o.Mode = 0o660
	}
	err = os.Chown(path, -1, o.GID)
	if err == nil {
		err = os.Chmod(path, o.Mode)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStale removes a socket that nobody listens on any more.
func removeStale(path string) error {
	switch st, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s is not a socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("%s: another lpad answers there", path), c.Close())
	case !errors.Is(err, unix.ECONNREFUSED): // a queue that is full has somebody behind it
		return fmt.Errorf("is another lpad there? %w", err)
	}
	return os.Remove(path)
}
