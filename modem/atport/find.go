package atport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"lpad/modem"
	"lpad/modem/at"
	"lpad/modem/atmodem"
	"lpad/modem/quirks"
	"lpad/modem/serialport"
)

// strangerTime bounds the first words with a port that may be no AT port at all.
const strangerTime = 3 * time.Second

// maxStrangers is how many ports are asked whose they are: a modem has six or so.
const maxStrangers = 12

// place is where the port may be now.
type place struct {
	path     string
	stranger bool // not where it was: only the IMEI tells whether it is our modem
}

// places are the paths under which the port may be found, best first: where its
// socket is now, the path that was configured, and then ports of the same USB
// device, or that were not there when our port was, which have to prove
// themselves. Ports that belonged to something else then are never spoken to.
func (p *Port) places() []place {
	var out []place
	add := func(path string, stranger bool) {
		for _, have := range out {
			if have.path == path {
				return
			}
		}
		out = append(out, place{path, stranger})
	}
	if p.cfg.Find != nil {
		add(p.path, false)
		if p.id.IMEI == "" {
			return out
		}
		for _, path := range p.cfg.Find() {
			add(path, true)
		}
		return out
	}
	if p.where == (serialport.Where{}) {
		p.where = p.lastPlace()
	}
	if p.where.USB != "" {
		if path, err := serialport.Locate(p.cfg.Sysfs, p.where); err == nil {
			if now, err := serialport.WhereIs(p.cfg.Sysfs, p.path); err == nil && now.Name == filepath.Base(path) {
				path = p.path // by whatever link it was configured
			}
			add(path, false)
		}
	}
	if p.fresh || p.where.USB == "" { // never opened in this life: somebody may have moved the modem
		add(p.cfg.Path, false)
		// A link of /dev/serial/by-path names a place, even while udev is not done.
		if where, err := serialport.WhereIs(p.cfg.Sysfs, p.cfg.Path); err == nil && where.USB != "" {
			add("/dev/"+where.Name, false)
		}
	}
	if p.id.IMEI == "" {
		return out
	}
	for _, w := range serialport.Ports(p.cfg.Sysfs) {
		role := p.quirks.Role(w.Interface)
		if w.USB != "" && (w.USB == p.where.USB || !p.others[w]) && role != quirks.RoleGPS && role != quirks.RoleDiag {
			add("/dev/"+w.Name, true)
		}
	}
	add(p.cfg.Path, true)
	return out
}

// dial opens the line to the modem, wherever it is, and brings it into a known
// state. The error is that of the likeliest place.
func (p *Port) dial(ctx context.Context) (*at.Conn, *atmodem.Modem, error) {
	var first error
	strangers := 0
	for _, place := range p.places() {
		if place.stranger {
			if strangers++; strangers > maxStrangers || ctx.Err() != nil {
				break
			}
		}
		conn, m, err := p.try(ctx, place)
		if err == nil {
			if place.path != p.path {
				p.cfg.Log.Info("the modem's port has another name", "was", p.path, "is", place.path)
			}
			p.path = place.path
			p.note()
			return conn, m, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil { // its place in the USB tree is empty
		first = fmt.Errorf("modem at %s (%v): %w", p.path, p.where, serialport.ErrMissing)
	}
	return nil, nil, first
}

// try opens one port.
func (p *Port) try(ctx context.Context, place place) (*at.Conn, *atmodem.Modem, error) {
	line, err := serialport.Open(place.path, p.cfg.Baud)
	if err != nil {
		return nil, nil, err
	}
	limit := initTimeout
	if place.stranger {
		limit = strangerTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn := at.New(line, at.WithLogger(p.cfg.Log), at.WithOwner(func() string { return serialport.Owner(place.path) }),
		at.WithURC(func(line string) { p.seen.Heard(line) }))
	m := atmodem.New(conn, atmodem.WithMemory(p.seen))
	err = m.Init(ctx)
	if err == nil && place.stranger {
		var id modem.Identity
		if id, err = m.Identity(ctx); err == nil && id.IMEI != p.id.IMEI {
			err = errors.New("it is a port of another modem")
		}
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("modem at %s: %w", place.path, err), conn.Close())
	}
	return conn, m, nil
}

// mark is the form of Config.PlaceMark.
type mark struct {
	Path  string           `json:"path"`  // that was configured
	Place serialport.Where `json:"place"` // where that was found to be
}

// maxMark bounds the file of a mark, in bytes.
const maxMark = 4096

// lastPlace is where an earlier process had the port, if it was of this
// configuration. The modem may have been renamed by a reset since the names were
// given.
func (p *Port) lastPlace() serialport.Where {
	if p.cfg.PlaceMark == "" {
		return serialport.Where{}
	}
	f, err := os.Open(p.cfg.PlaceMark)
	if err != nil {
		return serialport.Where{} // none yet
	}
	defer f.Close()
	var m mark
	if err := json.NewDecoder(io.LimitReader(f, maxMark)).Decode(&m); err != nil || m.Path != p.cfg.Path {
		return serialport.Where{}
	}
	return m.Place
}

// note remembers where the port is, and which others there are.
func (p *Port) note() {
	p.fresh = false
	where, err := serialport.WhereIs(p.cfg.Sysfs, p.path)
	if err != nil {
		return // no port that sysfs knows: it keeps its name
	}
	if where != p.where && where.USB != "" && p.cfg.PlaceMark != "" {
		b, err := json.Marshal(mark{p.cfg.Path, where})
		const ownerOnly = 0o600
		if err == nil {
			err = os.WriteFile(p.cfg.PlaceMark, b, ownerOnly)
		}
		if err != nil { // it counts when we are killed before the modem has its old name again
			p.cfg.Log.Warn("the place of the modem is not written down", "err", err)
		}
	}
	p.where = where
	p.others = map[serialport.Where]bool{}
	for _, w := range serialport.Ports(p.cfg.Sysfs) {
		p.others[w] = true
	}
}
