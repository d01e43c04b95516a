package quirks

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"lpad/internal/smallfile"
	"lpad/modem"
)

// Learned is what a modem has shown by doing. The zero value is nothing.
type Learned struct {
	Path      Path      `json:"path,omitempty"`       // that APDUs went through
	BlockSize int       `json:"block_size,omitempty"` // most data bytes of a command that went through; 0: unknown
	Rung      Rung      `json:"rung,omitempty"`       // that made the modem read its SIM again
	ICCID     string    `json:"iccid,omitempty"`      // the command that reads the ICCID, never the ICCID
	ISDR      string    `json:"isdr,omitempty"`       // AID that the ISD-R answered to last, hexadecimal
	At        time.Time `json:"at"`                   // of the last change
}

const (
	maxModems     = 64        // in the memory; the one that changed longest ago goes
	maxMemoryFile = 128 << 10 // bytes: 64 modems of the longest names, and some
	maxWord       = 128       // bytes of a maker, model or firmware
	maxKey        = 3*maxWord + 2
)

// Memory keeps what was learned per manufacturer, model and firmware: what one
// EG25 does, its twin does too. Of the device itself nothing is kept, so the
// file may be shown to anybody. It is a shortcut and not the truth: whatever it
// says is tried first, and everything still works without it.
type Memory struct {
	file string // empty: in this process only

	mu     sync.Mutex
	modems map[string]Learned
	damage string
}

// OpenMemory reads a memory's file; "" means none. A file that is damaged or
// cannot be read is an empty memory, and [Memory.Damage] says why; the next Put
// replaces it.
func OpenMemory(file string) *Memory {
	m := &Memory{file: file, modems: map[string]Learned{}}
	if file == "" {
		return m
	}
	b, err := smallfile.Read(file, maxMemoryFile)
	if errors.Is(err, fs.ErrNotExist) {
		return m
	}
	if err == nil {
		m.modems, err = parseMemory(b)
	}
	if err != nil {
		m.modems, m.damage = map[string]Learned{}, err.Error()
	}
	return m
}

// Damage says what was wrong with the file; "" is nothing. It is for the log.
func (m *Memory) Damage() string { return m.damage }

// document is the form of the file.
type document struct {
	Version int                `json:"version"`
	Modems  map[string]Learned `json:"modems"`
}

func parseMemory(b []byte) (map[string]Learned, error) {
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, err
	}
	if d.Version != version {
		return nil, fmt.Errorf("version %d, %d is wanted", d.Version, version)
	}
	if len(d.Modems) > maxModems {
		return nil, fmt.Errorf("%d modems, at most %d are kept", len(d.Modems), maxModems)
	}
	out := make(map[string]Learned, len(d.Modems))
	for k, l := range d.Modems {
		if len(k) > maxKey {
			return nil, errors.New("the name of a modem is too long")
		}
		if strings.Trim(k, "|") != "" {
			out[k] = l.checked()
		}
	}
	return out, nil
}

// checked is l without what nobody could have learned. A command of the file is
// sent to the modem, so it must be one that reads an ICCID.
func (l Learned) checked() Learned {
	if l.Path != CCHO && l.Path != CSIM {
		l.Path = ""
	}
	if l.BlockSize < 0 || l.BlockSize > maxBlock {
		l.BlockSize = 0
	}
	if !slices.Contains(rungNames(), string(l.Rung)) {
		l.Rung = ""
	}
	if !isCommand(l.ICCID) || !strings.Contains(l.ICCID, "CID") && !strings.HasPrefix(l.ICCID, "AT+CRSM=176,") {
		l.ICCID = ""
	}
	if b, err := hex.DecodeString(l.ISDR); err != nil || len(b) < 5 || len(b) > 16 { // ISO 7816-4: an AID
		l.ISDR = ""
	}
	return l
}

// key is the modem's name in the file, in printable ASCII.
func key(id modem.Identity) string {
	words := []string{id.Manufacturer, id.Model, id.Revision}
	for i, w := range words {
		w = strings.Map(func(c rune) rune {
			if c < 0x20 || c > 0x7E || strings.ContainsRune(`|"\\<>&`, c) { // what JSON writes longer
				return '?'
			}
			return c
		}, strings.ToLower(strings.TrimSpace(w)))
		words[i] = w[:min(len(w), maxWord)]
	}
	return strings.Join(words, "|")
}

// Get is what is known of a modem; nothing is known of one without a name.
func (m *Memory) Get(id modem.Identity) Learned {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.modems[key(id)]
}

// Put changes what is known of a modem and writes the file if that makes a
// difference. The error is of writing: the memory holds the change all the same.
// A modem without a name is not remembered, since it could be any.
func (m *Memory) Put(id modem.Identity, change func(*Learned)) error {
	k := key(id)
	if strings.Trim(k, "|") == "" {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.modems[k]
	l := old
	change(&l)
	l = l.checked()
	if l.At = old.At; l == old {
		return nil
	}
	l.At = time.Now().UTC().Truncate(time.Second)
	m.modems[k] = l
	m.forget(k)
	if m.file == "" {
		return nil
	}
	if err := m.save(); err != nil {
		return fmt.Errorf("remember the modem: %w", err)
	}
	return nil
}

// forget drops the oldest modem beyond the limit, but not the one just learned
// of: the clock may be wrong.
func (m *Memory) forget(but string) {
	if len(m.modems) <= maxModems {
		return
	}
	oldest := ""
	for k, l := range m.modems {
		if k != but && (oldest == "" || l.At.Before(m.modems[oldest].At) || l.At.Equal(m.modems[oldest].At) && k < oldest) {
			oldest = k
		}
	}
	delete(m.modems, oldest)
}

// save replaces the file. It is not synced: after a power cut the old one, or a
// damaged one that is taken for none, costs a few tries.
func (m *Memory) save() error {
	b, err := json.MarshalIndent(document{version, m.modems}, "", " ")
	if err != nil {
		return err
	}
	next := filepath.Join(filepath.Dir(m.file), "."+filepath.Base(m.file)+".new")
	const ownerOnly = 0o600
	if err := os.WriteFile(next, append(b, '\n'), ownerOnly); err != nil {
		return err
	}
	if err := os.Rename(next, m.file); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return nil
}
