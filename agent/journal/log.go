package journal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The format of the file; see the package comment.
const (
	magic          = "lpadjrnl"
	formatVersion  = 1
	recordVersion  = 1
	headerSize     = 16
	frameSize      = 12
	maxPayload     = 1 << 20  // a job with its snapshot is some 10 KiB
	maxJournalRead = 64 << 20 // a file larger than this is not ours: Options.MaxBytes is far below
)

type kind byte

const (
	kindJob       kind = 1
	kindForgetJob kind = 2
	kindSetting   kind = 3
)

func (k kind) known() bool { return k >= kindJob && k <= kindSetting }

// record is one frame of the file.
type record struct {
	kind    kind
	payload []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// NewerError means that a newer lpad has written the journal. It is left
// alone: going back would lose what only the newer one understands.
type NewerError struct {
	Path    string
	Version int // of the file
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("%s has format version %d, this lpad knows up to %d: install a newer lpad, or move the file away to begin anew", e.Path, e.Version, formatVersion)
}

func fileHeader() []byte {
	b := make([]byte, headerSize)
	copy(b, magic)
	binary.LittleEndian.PutUint16(b[8:], formatVersion)
	binary.LittleEndian.PutUint32(b[12:], crc32.Checksum(b[:12], castagnoli))
	return b
}

// appendFrame adds the frame of a record to b.
func appendFrame(b []byte, r record) []byte {
	at := len(b)
	b = append(b, make([]byte, frameSize)...)
	binary.LittleEndian.PutUint32(b[at:], uint32(len(r.payload)))
	b[at+4], b[at+5] = recordVersion, byte(r.kind)
	crc := crc32.Update(crc32.Checksum(b[at:at+8], castagnoli), castagnoli, r.payload)
	binary.LittleEndian.PutUint32(b[at+8:], crc)
	return append(b, r.payload...)
}

// parseFrame reads the frame at the head of b. ok is false when it is
// incomplete or wrong, whatever the reason.
func parseFrame(b []byte) (r record, size int, ok bool) {
	if len(b) < frameSize {
		return record{}, 0, false
	}
	n := binary.LittleEndian.Uint32(b)
	if n > maxPayload || int(n) > len(b)-frameSize || b[6] != 0 || b[7] != 0 {
		return record{}, 0, false
	}
	payload := b[frameSize : frameSize+int(n)]
	crc := crc32.Update(crc32.Checksum(b[:8], castagnoli), castagnoli, payload)
	if crc != binary.LittleEndian.Uint32(b[8:]) {
		return record{}, 0, false
	}
	if b[4] > recordVersion { // written by a newer lpad within the same format: its CRC is right, so keep it as unknown
		return record{kind: 0, payload: payload}, frameSize + int(n), true
	}
	return record{kind(b[5]), payload}, frameSize + int(n), true
}

// contents is what was found in a file.
type contents struct {
	records []record
	good    int    // bytes from the start that are whole
	torn    int    // bytes cut off behind them
	damage  string // not empty: something durable was lost, and what
}

// scan reads a whole file. It fails only for a newer format.
func scan(path string, b []byte) (contents, error) {
	if len(b) == 0 {
		return contents{}, nil
	}
	if len(b) < headerSize { // the very first write did not finish
		if isPrefixOfHeader(b) {
			return contents{torn: len(b)}, nil
		}
		return contents{damage: "the file does not begin as a journal does"}, nil
	}
	if string(b[:8]) != magic || crc32.Checksum(b[:12], castagnoli) != binary.LittleEndian.Uint32(b[12:]) {
		if allZero(b) { // blocks that were allocated and never written
			return contents{torn: len(b)}, nil
		}
		// Each record vouches for itself: what a header that is damaged had
		// behind it is not lost.
		c := contents{}.endOrDamage(b)
		c.torn, c.damage = 0, cmp.Or(c.damage, "the file does not begin as a journal does")
		return c, nil
	}
	if v := int(binary.LittleEndian.Uint16(b[8:])); v > formatVersion {
		return contents{}, &NewerError{path, v}
	}
	c := contents{good: headerSize}
	for c.good < len(b) {
		r, size, ok := parseFrame(b[c.good:])
		if !ok {
			return c.endOrDamage(b), nil
		}
		c.records = append(c.records, r)
		c.good += size
	}
	return c, nil
}

// endOrDamage decides what a bad frame means: the end that a power cut tore
// off, or damage in the middle, which it is when a valid record lies behind.
// All valid records behind it are taken, however many places are damaged: the
// last ones matter most.
func (c contents) endOrDamage(b []byte) contents {
	rest := b[c.good:]
	from, places := 0, 0 // where the bad bytes begin
	for off := 0; off+frameSize <= len(rest); {
		if rest[off+4] != recordVersion || !kind(rest[off+5]).known() {
			off++ // cheap look before the CRC
			continue
		}
		r, size, ok := parseFrame(rest[off:])
		if !ok {
			off++
			continue
		}
		if off > from {
			if places++; places == 1 {
				c.damage = fmt.Sprintf("%d bytes at offset %d are damaged", off-from, c.good+from)
			}
		}
		c.records = append(c.records, r)
		off += size
		from = off
	}
	if places > 1 {
		c.damage += fmt.Sprintf(", and %d more places", places-1)
	}
	if places == 0 {
		c.torn = len(rest)
	}
	return c
}

func isPrefixOfHeader(b []byte) bool {
	h := fileHeader()
	return string(b) == string(h[:len(b)]) || allZero(b)
}

func allZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// readAll reads a file that may be missing, bounded. damage is not empty when
// the file is there and cannot be read to its end: b is what could be.
func readAll(path string) (b []byte, damage string, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, "", nil
	}
	if err == nil {
		defer f.Close()
		b, err = io.ReadAll(io.LimitReader(f, maxJournalRead+1))
	}
	switch {
	case err != nil && unreadable(err):
		return b, fmt.Sprintf("the file cannot be read: %v", err), nil
	case err != nil:
		return nil, "", fmt.Errorf("read %s: %w", path, err)
	case len(b) > maxJournalRead:
		return b[:maxJournalRead], fmt.Sprintf("the file is larger than %d MiB", maxJournalRead>>20), nil
	}
	return b, "", nil
}

// unreadable reports whether an error is one of what lies on the disk, which
// trying again will not mend. That somebody may not read it is another matter.
func unreadable(err error) bool {
	for _, e := range []error{unix.EIO, unix.EUCLEAN, unix.EBADMSG, unix.EISDIR, unix.ELOOP, unix.ENXIO, unix.EOVERFLOW} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// replace writes a file durably under its name: a new file, synced, renamed
// over the old one, and the directory synced.
func replace(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, removeIfThere(tmp))
	}
	return syncDir(filepath.Dir(path))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
