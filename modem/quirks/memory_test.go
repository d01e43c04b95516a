package quirks_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lpad/modem"
	"lpad/modem/quirks"
)

var (
	eg25   = modem.Identity{Manufacturer: "Quectel", Model: "EG25", Revision: "EG25GGBR07A08M2G", IMEI: "867698040000015"}
	worked = quirks.Learned{Path: quirks.CCHO, BlockSize: 120, Rung: quirks.RungCFUN01, ICCID: "AT+QCCID", ISDR: "A0000005591010FFFFFFFF8900000100"}
	noTime = cmpopts.IgnoreFields(quirks.Learned{}, "At")
)

func put(t *testing.T, m *quirks.Memory, id modem.Identity, l quirks.Learned) {
	t.Helper()
	if err := m.Put(id, func(was *quirks.Learned) { *was = l }); err != nil {
		t.Fatal(err)
	}
}

func TestMemory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "modems.json")
	m := quirks.OpenMemory(file)
	if got := m.Get(eg25); got != (quirks.Learned{}) || m.Damage() != "" {
		t.Errorf("a new memory knows %+v, %q", got, m.Damage())
	}
	before := time.Now().Add(-2 * time.Second)
	put(t, m, eg25, worked)
	if err := m.Put(eg25, func(l *quirks.Learned) { l.BlockSize = 60 }); err != nil {
		t.Fatal(err)
	}
	want := worked
	want.BlockSize = 60

	m = quirks.OpenMemory(file)
	twin := eg25
	twin.IMEI, twin.Manufacturer, twin.Revision = "867698040000023", " QUECTEL", strings.ToLower(eg25.Revision)
	for _, id := range []modem.Identity{eg25, twin} {
		got := m.Get(id)
		if d := cmp.Diff(want, got, noTime); d != "" || got.At.Before(before) || got.At.After(time.Now()) {
			t.Errorf("after a restart: %v\n%s", got.At, d)
		}
	}
	for name, id := range map[string]modem.Identity{
		"other firmware": {Manufacturer: "Quectel", Model: "EG25", Revision: "other"},
		"nobody":         {IMEI: eg25.IMEI},
	} {
		if got := m.Get(id); got != (quirks.Learned{}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), eg25.IMEI) {
		t.Errorf("the IMEI is in the file:\n%s", b)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is for others: %v, %v", info.Mode(), err)
	}
}

// A modem that tells nothing of itself could be any.
func TestMemoryWithoutName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "modems.json")
	m := quirks.OpenMemory(file)
	put(t, m, modem.Identity{IMEI: eg25.IMEI}, worked)
	if got := m.Get(modem.Identity{}); got != (quirks.Learned{}) {
		t.Errorf("got %+v", got)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a file was written")
	}
}

// The flash is not written for nothing.
func TestMemoryWritesOnlyChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "modems.json")
	m := quirks.OpenMemory(file)
	put(t, m, eg25, worked)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	put(t, m, eg25, worked)
	if _, err := os.Stat(file); err == nil {
		t.Error("the same again was written")
	}
	put(t, m, eg25, quirks.Learned{Path: quirks.CSIM})
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a change was not written: %v", err)
	}
}

func TestMemoryInProcess(t *testing.T) {
	m := quirks.OpenMemory("")
	put(t, m, eg25, worked)
	if d := cmp.Diff(worked, m.Get(eg25), noTime); d != "" {
		t.Error(d)
	}
}

func TestMemoryForgetsTheOldest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "modems.json")
	m := quirks.OpenMemory(file)
	id := func(i int) modem.Identity {
		return modem.Identity{Manufacturer: strings.Repeat("ä<", 100), Model: fmt.Sprintf("%03d%s", i, strings.Repeat("&", 200)), Revision: strings.Repeat(`"`, 300)}
	}
	for i := range 70 {
		put(t, m, id(i), worked)
	}
	again := quirks.OpenMemory(file) // the longest names still fit the file
	if again.Damage() != "" {
		t.Fatal(again.Damage())
	}
	kept := 0
	for i := range 70 {
		if again.Get(id(i)).Path != "" {
			kept++
		}
	}
	if kept != 64 || again.Get(id(69)).Path == "" {
		t.Errorf("%d modems are kept, the last one: %+v", kept, again.Get(id(69)))
	}
}

func TestMemoryDamaged(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", "unexpected end"},
		{"cut off", `{"version":1,"modems":{"a|b|c":{"path":"cc`, "unexpected end"},
		{"another version", `{"version":2,"modems":{}}`, "version 2"},
		{"no JSON", "\x00\x00\x00", "invalid character"},
		{"too big", `{"version":1,"x":"` + strings.Repeat("a", 128<<10) + `"}`, "longer than 131072 bytes"},
		{"a long name", `{"version":1,"modems":{"` + strings.Repeat("a", 400) + `":{}}}`, "too long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "modems.json")
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			m := quirks.OpenMemory(file)
			if !strings.Contains(m.Damage(), tc.want) || m.Get(eg25) != (quirks.Learned{}) {
				t.Errorf("damage %q, want %q", m.Damage(), tc.want)
			}
			put(t, m, eg25, worked)
			if again := quirks.OpenMemory(file); again.Damage() != "" || again.Get(eg25).Path != worked.Path {
				t.Errorf("not mended: %q", again.Damage())
			}
		})
	}
}

// What nobody can have learned is not believed: commands of the file are sent to
// the modem.
func TestMemoryDoubts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "modems.json")
	const text = `{"version":1,"modems":{
		"||":{"path":"ccho"},
		"quectel|eg25|eg25ggbr07a08m2g":{"path":"qmi","block_size":4096,"rung":"hammer","iccid":"AT+CFUN=0","isdr":"xyz","at":"2026-01-01T00:00:00Z"}}}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m := quirks.OpenMemory(file)
	if d := cmp.Diff(quirks.Learned{}, m.Get(eg25), noTime); d != "" || m.Damage() != "" {
		t.Errorf("%q %s", m.Damage(), d)
	}
	if got := m.Get(modem.Identity{}); got != (quirks.Learned{}) {
		t.Errorf("a modem without a name is known: %+v", got)
	}
}

func TestMemoryThatCannotBeWritten(t *testing.T) {
	m := quirks.OpenMemory(filepath.Join(t.TempDir(), "absent", "modems.json"))
	err := m.Put(eg25, func(l *quirks.Learned) { *l = worked })
	if err == nil || !strings.HasPrefix(err.Error(), "remember the modem: ") {
		t.Errorf("got %v", err)
	}
	if d := cmp.Diff(worked, m.Get(eg25), noTime); d != "" {
		t.Errorf("what could not be written is not known: %s", d)
	}
}

// An old file stays as it is when the new one cannot take its place.
func TestMemoryIsReplacedWhole(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "modems.json")
	m := quirks.OpenMemory(file)
	put(t, m, eg25, worked)
	if err := os.Mkdir(filepath.Join(dir, ".modems.json.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.Put(eg25, func(l *quirks.Learned) { l.BlockSize = 32 }); err == nil {
		t.Error("no error")
	}
	if d := cmp.Diff(worked, quirks.OpenMemory(file).Get(eg25), noTime); d != "" {
		t.Error(d)
	}
}

func TestMemoryIsShared(t *testing.T) {
	m := quirks.OpenMemory(filepath.Join(t.TempDir(), "modems.json"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 20 {
				id := modem.Identity{Model: fmt.Sprint(i)}
				if err := m.Put(id, func(l *quirks.Learned) { l.BlockSize = n + 1 }); err != nil {
					t.Error(err)
				}
				if got := m.Get(id).BlockSize; got != n+1 {
					t.Errorf("modem %d: %d, want %d", i, got, n+1)
				}
			}
		})
	}
	wg.Wait()
}
