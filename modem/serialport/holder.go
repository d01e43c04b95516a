package serialport

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Holder is a process that has a port open.
type Holder struct {
	PID  int
	Name string // of the program, "ModemManager"; at most 15 characters, as the kernel keeps it
}

// String is for people: "ModemManager (pid 812)".
func (h Holder) String() string { return fmt.Sprintf("%s (pid %d)", h.Name, h.PID) }

// Limits of the search for holders.
const (
	maxProcesses   = 32768
	maxDescriptors = 4096 // of one process
	maxName        = 64   // bytes of /proc/PID/comm; the kernel has 16
)

// Holders lists the processes, other than this one, that have the port open. A
// program without the right to look into the others (CAP_SYS_PTRACE, or the same
// user) sees less than there is; complete is false then. The process that plays
// a modem on a pseudo terminal does not count, it is the modem.
func Holders(path string) (holders []Holder, complete bool) {
	return holdersIn("/proc", path, os.Getpid())
}

func holdersIn(proc, path string, self int) (holders []Holder, complete bool) {
	var want unix.Stat_t
	if err := unix.Stat(path, &want); err != nil || want.Mode&unix.S_IFMT != unix.S_IFCHR {
		return nil, true
	}
	complete = true
	for _, name := range names(proc, maxProcesses) {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == self {
			continue
		}
		fds := filepath.Join(proc, name, "fd")
		dir, err := os.Open(fds)
		if err != nil {
			complete = complete && gone(err) // it may have ended meanwhile
			continue
		}
		_ = dir.Close() // nothing was written
		if opens(fds, &want) {
			holders = append(holders, Holder{pid, command(proc, name)})
		}
	}
	return holders, complete
}

// opens reports whether one of the descriptors is the device, and none the
// master side of a pseudo terminal: who has that is the modem.
func opens(fds string, device *unix.Stat_t) bool { // not its number alone: the type of that differs between processors
	found := false
	for _, fd := range names(fds, maxDescriptors) {
		to, err := os.Readlink(filepath.Join(fds, fd))
		// The name first: a stat of a file on a dead network disk may never return.
		if err != nil || !strings.HasPrefix(to, "/dev/") {
			continue
		}
		if to == "/dev/ptmx" || to == "/dev/pts/ptmx" {
			return false
		}
		var st unix.Stat_t
		if unix.Stat(filepath.Join(fds, fd), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == device.Rdev {
			found = true
		}
	}
	return found
}

// suspect is a program that is known to take serial ports and runs here: the
// best that can be said without the right to look.
func suspect(proc string) (Holder, bool) {
	for _, name := range names(proc, maxProcesses) {
		if pid, err := strconv.Atoi(name); err == nil && command(proc, name) == "ModemManager" {
			return Holder{pid, "ModemManager"}, true
		}
	}
	return Holder{}, false
}

func names(dir string, limit int) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	list, _ := d.Readdirnames(limit) // as many as can be read
	return list
}

func command(proc, pid string) string {
	f, err := os.Open(filepath.Join(proc, pid, "comm"))
	if err != nil {
		return "a program"
	}
	defer f.Close()
	b := make([]byte, maxName)
	n, _ := f.Read(b)
	// Anybody may give himself any name: it goes into our log and our errors.
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(b[:n]))
	if clean == "" {
		return "a program"
	}
	return clean
}
