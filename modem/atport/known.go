package atport

import (
	"context"
	"errors"
	"runtime/debug"

	"lpad/modem"
	"lpad/modem/at"
	"lpad/modem/atcard"
	"lpad/modem/atmodem"
	"lpad/modem/quirks"
)

// meet finds out which modem this is and what is known of it. A modem that was
// met before is recognised by its IMEI and firmware, which spares half the
// questions at each opening.
func (p *Port) meet(ctx context.Context, m *atmodem.Modem) error {
	id, err := m.Recognise(ctx, p.id)
	if err != nil {
		if !at.Refused(err) && !errors.Is(err, atmodem.ErrUnreadable) {
			return err
		}
		// It does not say what it is: then it is tried out like any other.
		p.cfg.Log.Debug("the modem does not say what it is", "err", err)
	}
	if id != p.id || len(p.quirks.Names) == 0 {
		p.quirks = p.cfg.Quirks.Find(id)
		debug.FreeOSMemory() // reading the table leaves more behind than all else that an idle lpad does
		if id != p.id {
			if p.id != (modem.Identity{}) {
				p.seen.Forget()
			}
			p.cfg.Log.Info("modem", "modem", id, "quirks", p.quirks.Names)
		}
		p.id = id
	}
	m.Learn(p.quirks)
	p.seen.Remember(p.cfg.Learned.Get(id).ICCID)
	return m.Subscribe(ctx)
}

// cardOptions are what was configured, then what has worked, then what is known
// of such modems.
func (p *Port) cardOptions() atcard.Options {
	opt, q, was := p.cfg.Card, p.quirks, p.cfg.Learned.Get(p.id)
	paths := q.APDU.Paths
	if was.Path != "" {
		paths = append([]quirks.Path{was.Path}, append(paths, quirks.CCHO, quirks.CSIM)...)
	}
	if len(opt.Paths) == 0 {
		opt.Paths = cardPaths(paths)
	}
	if opt.Start == 0 {
		opt.Start = was.BlockSize
	}
	if opt.Start == 0 {
		opt.Start = q.APDU.BlockSize
	}
	if opt.Command == 0 {
		opt.Command = q.APDU.Command
	}
	if opt.LastBlock == 0 {
		opt.LastBlock = q.APDU.LastBlock
	}
	if opt.ChannelLe == 0 {
		const zero = 256 // how atcard writes Le 00
		if opt.ChannelLe = q.APDU.ChannelLe; opt.ChannelLe == 0 && len(q.Names) > 0 {
			opt.ChannelLe = zero
		}
	}
	if opt.Channels == 0 {
		opt.Channels = q.APDU.Channels
	}
	if opt.OpenRetries == 0 {
		opt.OpenRetries = q.APDU.OpenRetries
	}
	opt.TerminalCapability = opt.TerminalCapability || q.APDU.TerminalCapability
	return opt
}

// cardPaths are the paths of the quirks as atcard names them, each once.
func cardPaths(list []quirks.Path) []atcard.Path {
	var out []atcard.Path
	seen := map[quirks.Path]bool{}
	for _, path := range list {
		if seen[path] {
			continue
		}
		seen[path] = true
		switch path {
		case quirks.CCHO:
			out = append(out, atcard.CCHO)
		case quirks.CSIM:
			out = append(out, atcard.CSIM)
		}
	}
	return out
}

// learnCard remembers which path and block size worked. Under p.mu.
func (p *Port) learnCard() {
	if p.card == nil {
		return
	}
	path, size := p.card.Learned()
	p.learn(func(l *quirks.Learned) {
		switch path {
		case atcard.CCHO:
			l.Path = quirks.CCHO
		case atcard.CSIM:
			l.Path = quirks.CSIM
		}
		if size > 0 && p.cfg.Card.BlockSize == 0 { // a size that was ordered is none that was found out
			l.BlockSize = size
		}
	})
}

// learn changes what is remembered of the modem. Under p.mu.
func (p *Port) learn(change func(*quirks.Learned)) {
	if err := p.cfg.Learned.Put(p.id, change); err != nil {
		p.cfg.Log.Warn("what was learnt of the modem is not written down", "err", err)
	}
}

// Known is what is known of the modem: the quirks of its kind, and what it has
// shown here. Both are empty before the port is opened.
func (p *Port) Known() (quirks.Quirks, quirks.Learned) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.quirks, p.cfg.Learned.Get(p.id)
}
