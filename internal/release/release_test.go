package release

import (
	"bytes"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// What is unmapped comes back: the program goes on, and has less of its file
// mapped than before.
func TestMemory(t *testing.T) {
	before := mapped(t)
	Memory()
	after := mapped(t)
	if after >= before*3/4 {
		t.Errorf("%d KiB of files mapped before, %d after", before, after)
	}
	if got := strings.Repeat("ab", 3); got != "ababab" {
		t.Errorf("the program is broken: %q", got)
	}
}

// mapped are the pages of files that this process has, in KiB.
func mapped(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("no /proc here: ", err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

func TestClean(t *testing.T) {
	part := func(head, anonymous string) string {
		return head + "\nSize:               4524 kB\nRss:                 100 kB\nAnonymous:" + anonymous + "\nVmFlags: rd ex mr mw me\n"
	}
	const path = "                           /usr/sbin/lpad"
	for _, tc := range []struct {
		name, smaps string
		want        []mapping
	}{
		{"text and constants", part("00400000-0086b000 r-xp 00000000 fe:00 101"+path, "             0 kB") +
			part("0086b000-00cc3000 r--p 0046b000 fe:00 101"+path, "             0 kB"), []mapping{{0x400000, 0x86b000}, {0x86b000, 0xcc3000}}},
		{"data", part("00cc3000-00d28000 rw-p 008c3000 fe:00 101"+path, "             0 kB"), nil},
		{"tables that the loader has adjusted", part("0086b000-00cc3000 r--p 0046b000 fe:00 101"+path, "            64 kB"), nil},
		{"shared", part("0086b000-00cc3000 r--s 0046b000 fe:00 101"+path, "             0 kB"), nil},
		{"another file", part("0086b000-00cc3000 r-xp 0046b000 fe:00 101   /usr/lib/libc.so.6", "             0 kB"), nil},
		{"a path with a space", part("0086b000-00cc3000 r-xp 0046b000 fe:00 101   /opt/a b/usr/sbin/lpad", "             0 kB"), nil},
		{"nobody's", part("7fb5bcc70000-7fb5bccd0000 r--p 00000000 00:00 0", "             0 kB"), nil},
		{"the wrong way round", part("0086b000-00400000 r-xp 00000000 fe:00 101"+path, "             0 kB"), nil},
		{"no number", part("xyz-00400000 r-xp 00000000 fe:00 101"+path, "             0 kB"), nil},
		{"nothing said of what was written", "00400000-0086b000 r-xp 00000000 fe:00 101" + path + "\nSize: 4 kB\n", nil},
		{"nothing", "", nil},
	} {
		if got := clean(strings.NewReader(tc.smaps), "/usr/sbin/lpad"); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %x, want %x", tc.name, got, tc.want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add([]byte("00400000-0086b000 r-xp 00000000 fe:00 101 /usr/sbin/lpad\nAnonymous: 0 kB\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range clean(bytes.NewReader(b), "/usr/sbin/lpad") {
			if m.from >= m.to {
				t.Errorf("%x", m)
			}
		}
	})
}
