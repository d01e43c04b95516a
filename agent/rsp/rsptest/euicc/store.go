package euicc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"lpad/agent/rsp"
)

// Store is the persistent memory of a card. Save must be atomic: after a crash
// Load gives what was saved before or what was being saved, never a mixture.
type Store interface {
	Load() ([]byte, error) // nil, nil when nothing was ever saved
	Save(state []byte) error
}

// MemoryStore keeps the state in this process, so that another Card can go on
// from it. The zero value is empty and ready.
type MemoryStore struct {
	mu    sync.Mutex
	state []byte
}

// Load implements Store.
func (s *MemoryStore) Load() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.state), nil
}

// Save implements Store.
func (s *MemoryStore) Save(state []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = slices.Clone(state)
	return nil
}

// FileStore keeps the state in a file of JSON, replaced by rename. The
// directory must exist.
type FileStore string

// Load implements Store.
func (s FileStore) Load() ([]byte, error) {
	b, err := os.ReadFile(string(s))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// Save implements Store. The file is synced before it replaces the old one.
func (s FileStore) Save(state []byte) error {
	f, err := os.CreateTemp(filepath.Dir(string(s)), ".euicc-*")
	if err != nil {
		return err
	}
	_, err = f.Write(state)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), string(s))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// memory is the persistent state.
type memory struct {
	Profiles      []*profile
	Notifications []notification
	NextSequence  int64
	NextISDP      int // number of the next ISD-P; its AID is made of it
	DefaultSMDP   string
	Previous      rsp.ICCID      // the operational profile that a test profile has put aside
	Loading       *interrupted   // a package is being loaded
	OneTimeKeys   []savedKey     // of downloads that were not finished
	Revoked       []revokedEntry // by LoadCRL
	CRLNumbers    map[string]int64
	UsedMemory    int // bytes, of profiles that were loaded
}

// interrupted is what the card must know to tell about a load that a power cut
// ended.
type interrupted struct {
	TransactionID []byte
	Address       string
	OID           []byte
	ICCID         *rsp.ICCID
	CI            []byte
	Command       int // bppCommandId that was in progress
}

// savedKey is a one-time key that may be used again by the same server.
type savedKey struct {
	OID    []byte
	Curve  int
	Scalar []byte
}

type revokedEntry struct{ CI, Serial []byte }

func (m *memory) enabled() *profile {
	for _, p := range m.Profiles {
		if p.Enabled {
			return p
		}
	}
	return nil
}

func (m *memory) byICCID(id rsp.ICCID) *profile {
	for _, p := range m.Profiles {
		if p.ICCID == id {
			return p
		}
	}
	return nil
}

func (m *memory) byAID(aid rsp.AID) *profile {
	for _, p := range m.Profiles {
		if p.AID.Equal(aid) {
			return p
		}
	}
	return nil
}

// firstISDP is the number of the first ISD-P; real cards begin at …1100.
const firstISDP = 0x11

// format writes the factory state when the store is empty.
func (c *Card) format() error {
	b, err := c.store.Load()
	if err != nil || b != nil {
		return err
	}
	m := &memory{NextSequence: c.config.FirstSequence, NextISDP: firstISDP, DefaultSMDP: c.config.DefaultSMDP}
	for _, spec := range c.config.Profiles {
		p, err := spec.manufacture()
		if err != nil {
			return fmt.Errorf("profile %v: %w", spec.ICCID, err)
		}
		if m.byICCID(p.ICCID) != nil || p.Enabled && m.enabled() != nil {
			return fmt.Errorf("profile %v: a second one with this ICCID, or a second enabled one", spec.ICCID)
		}
		p.AID = m.newISDP()
		p.CI = c.config.Identities[0].CI()
		m.Profiles = append(m.Profiles, p)
	}
	return c.write(m)
}

// newISDP gives the AID of a new ISD-P (SGP.02, section 2.2.3).
func (m *memory) newISDP() rsp.AID {
	aid := slices.Clone(rsp.ISDR)
	aid[13], aid[14], aid[15] = byte(m.NextISDP>>8), byte(m.NextISDP), 0
	m.NextISDP++
	return aid
}

// load reads the persistent state.
func (c *Card) load() (*memory, error) {
	b, err := c.store.Load()
	if err != nil {
		return nil, err
	}
	m := new(memory)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("stored state: %w", err)
	}
	return m, nil
}

func (c *Card) write(m *memory) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return c.store.Save(b)
}

// commit makes what a function has changed persistent, as a whole. When it
// cannot, or a fault cuts the power here, the card goes dark and wakes up with
// the state of the last commit.
func (c *Card) commit() {
	if !c.on {
		return
	}
	fault := c.commitFault()
	if fault != nil && fault.Do != CutPowerAfter {
		c.cutPower()
		return
	}
	if err := c.write(c.mem); err != nil {
		c.cutPower()
		c.outcome.err = fmt.Errorf("%w: %w", ErrNoPower, err)
		return
	}
	if fault != nil {
		c.cutPower()
	}
}
