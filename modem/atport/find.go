package atport

import (
	"context"
	"errors"
	"fmt"
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
	if p.where.USB != "" {
		if path, err := serialport.Locate(p.cfg.Sysfs, p.where); err == nil {
			if filepath.Base(path) == p.where.Name {
				path = p.path // as it was, by whatever link it was configured
			}
			add(path, false)
		}
	} else {
		add(p.cfg.Path, false)
		// A link of /dev/serial/by-path names a place, even while udev is not done.
		if where, err := serialport.WhereIs(p.cfg.Sysfs, p.cfg.Path); err == nil && where.USB != "" {
			add("/dev/"+where.Name, false)
		}
	}
	if p.id.IMEI == "" {
		return out
	}
	for _, path := range serialport.Candidates(p.cfg.Sysfs, p.where.USB) {
		add(path, true)
	}
	for _, w := range serialport.Ports(p.cfg.Sysfs) {
		if w.USB != "" && !p.others[w] && w.USB != p.where.USB {
			switch p.quirks.Role(w.Interface) {
			case quirks.RoleGPS, quirks.RoleDiag:
			default:
				add("/dev/"+w.Name, true)
			}
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

// note remembers where the port is, and which others there are.
func (p *Port) note() {
	where, err := serialport.WhereIs(p.cfg.Sysfs, p.path)
	if err != nil {
		return // no port that sysfs knows: it keeps its name
	}
	p.where = where
	p.others = map[serialport.Where]bool{}
	for _, w := range serialport.Ports(p.cfg.Sysfs) {
		p.others[w] = true
	}
}
