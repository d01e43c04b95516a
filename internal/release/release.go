// Package release gives memory back to the system when a program has nothing to
// do for a while:
//
//	release.Memory()
//
// Whoever calls it has just ended something large and expects to wait.
package release

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// Memory collects garbage, returns free memory to the system, and unmaps the
// pages of the program's own file. Those are clean, and the system could drop
// them; but it goes by what is mapped, and a program that has started has touched
// nearly all of itself, most of it for the only time. What is needed again is
// mapped again, as a rule from the page cache and 16 pages at a time.
//
// A system that does not allow it keeps what it has.
func Memory() {
	debug.FreeOSMemory()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range clean(f, program) {
		// It is advice: where the pages are locked, they stay.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// mapping is a part of the address space.
type mapping struct{ from, to uintptr }

// clean reads /proc/PID/smaps: the mappings of a file that can be read from it
// again. What cannot be written to now may have been before, as the tables that
// a loader adjusts and then protects: the system counts such pages as anonymous.
func clean(smaps io.Reader, program string) []mapping {
	var out []mapping
	var at mapping
	ours := false
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		line := lines.Bytes()
		if field, value, ok := bytes.Cut(line, []byte(":")); ok && !bytes.ContainsAny(field, " -") {
			if ours && string(field) == "Anonymous" && string(bytes.TrimSpace(value)) == "0 kB" {
				out = append(out, at)
			}
			continue
		}
		at, ours = ofFile(line, program)
	}
	return out
}

// ofFile reads the first line of a mapping, and reports whether it is a part of
// the program that nobody can write to.
//
//	00400000-0086b000 r-xp 00000000 fe:00 10133511     /usr/sbin/lpad
func ofFile(line []byte, program string) (mapping, bool) {
	fields := bytes.Fields(line)
	if len(fields) < 6 || !bytes.HasSuffix(line, []byte(" "+program)) || len(fields[1]) != 4 || fields[1][1] != '-' || fields[1][3] != 'p' {
		return mapping{}, false
	}
	a, b, _ := bytes.Cut(fields[0], []byte("-"))
	from, err := strconv.ParseUint(string(a), 16, strconv.IntSize)
	to, err2 := strconv.ParseUint(string(b), 16, strconv.IntSize)
	return mapping{uintptr(from), uintptr(to)}, err == nil && err2 == nil && from < to
}
