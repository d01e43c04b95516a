package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"lpad/agent/api"
	"lpad/apdu/pcsc"
	"lpad/internal/fault"
	"lpad/internal/systembus"
	"lpad/modem/atport"
	"lpad/modem/mm"
	"lpad/modem/nm"
	"lpad/modem/quirks"
)

// managersTimeout bounds asking who else manages the modem: a bus that hangs is
// no reason to have no probe.
const managersTimeout = 5 * time.Second

// probeModem tells what a modem can do, in the words of the socket.
func probeModem(ctx context.Context, port *atport.Port, p *api.Probe) error {
	v, err := port.Probe(ctx)
	p.At, p.Path, p.Place, p.Manufacturer, p.Model, p.Revision, p.IMEI = v.At, v.Port, v.Place, v.Manufacturer, v.Model, v.Revision, v.IMEI
	p.APDUPath, p.Lines, p.Notes, p.Sources = string(v.Path), v.Quirks, v.Notes, v.Sources
	for _, rung := range v.Ladder {
		p.Ladder = append(p.Ladder, string(rung))
	}
	learned(p, &v.Learned)
	p.Capabilities = make([]api.Capability, len(v.Capabilities))
	for i := range v.Capabilities {
		c := &v.Capabilities[i]
		p.Capabilities[i] = api.Capability{Name: c.Name, Answer: string(c.Answer), Value: c.Value, Evidence: c.Evidence, Code: c.Code, Next: c.Next, Millis: c.Millis}
	}
	return err
}

// learned tells what had been learnt before.
func learned(p *api.Probe, l *quirks.Learned) {
	if !l.At.IsZero() {
		p.Learned = &api.Learned{APDUPath: string(l.Path), BlockSize: l.BlockSize, Rung: string(l.Rung), ICCID: l.ICCID, ISDR: l.ISDR, At: l.At}
	}
}

// managers tells who else manages the modem with this port. What does not answer
// is left out.
func managers(ctx context.Context, bus *systembus.Bus, port string, m *api.Managers) {
	ctx, cancel := context.WithTimeout(ctx, managersTimeout)
	defer cancel()
	// Nobody is started for being asked.
	if running, err := bus.Running(ctx, nm.Service); err == nil && running {
		m.NetworkManager = textOf(bus.Property(ctx, nm.Service, "/org/freedesktop/NetworkManager", nm.Service.Bus, "Version"))
	}
	if running, err := bus.Running(ctx, mm.Service); err != nil || !running {
		return
	}
	m.ModemManager = textOf(bus.Property(ctx, mm.Service, "/org/freedesktop/ModemManager1", mm.Service.Bus, "Version"))
	modems, err := mm.New(bus).Modems(ctx)
	name := filepath.Base(port)
	if to, linked := filepath.EvalSymlinks(port); linked == nil {
		name = filepath.Base(to)
	}
	i := slices.IndexFunc(modems, func(one mm.Modem) bool { return len(modems) == 1 || one.Uses(name) })
	switch {
	case err != nil:
		m.Problem = fault.Of(err).Text
	case i < 0:
		m.Problem = "it shows no modem with this port"
	default:
		found := &modems[i]
		m.Device, m.State, m.Ports = found.Device, found.State.String(), slices.Concat(found.ATPorts, found.OtherPorts, found.NetPorts)
		m.Plugin = textOf(bus.Property(ctx, mm.Service, found.Path, mm.Service.Bus+".Modem", "Plugin"))
	}
}

// textOf is a property of text, as a service answers.
func textOf(a systembus.Answer) string {
	var text string
	if a.Store(&text) != nil || text == "" {
		return "unknown"
	}
	return text
}

// probe tells what there is at the readers.
func (r *reader) probe(ctx context.Context, p *api.Probe) error {
	p.APDUPath = "pcsc"
	begin := time.Now()
	add := func(name, answer, value, evidence string, err error) {
		c := api.Capability{Name: name, Answer: answer, Value: value, Evidence: evidence, Millis: time.Since(begin).Milliseconds()}
		if err != nil {
			f := fault.Of(err)
			c.Answer, c.Code, c.Next, c.Evidence = api.AnswerNo, f.Code, f.Next, evidence+": "+err.Error()
		}
		p.Capabilities = append(p.Capabilities, c)
		begin = time.Now()
	}
	list, err := pcsc.Readers(ctx, r.cfg)
	var names []string
	for _, one := range list {
		state := "empty"
		switch {
		case one.Mute:
			state = "with a card that is mute"
		case one.CardPresent:
			state = "with a card"
		}
		if one.InUse {
			state += ", in use"
		}
		names = append(names, one.Name+" ("+state+")")
	}
	if len(names) == 0 {
		names = []string{"pcscd shows no reader"}
	}
	add("readers", api.AnswerYes, strconv.Itoa(len(list)), strings.Join(names, "; "), err)
	card, err := r.open(ctx)
	if err != nil {
		add("reader", api.AnswerNo, "", "connect to the card", err)
		return err
	}
	p.Path = card.Reader()
	add("reader", api.AnswerYes, p.Path, "connected to the card in "+p.Path, nil)
	add("atr", api.AnswerYes, fmt.Sprintf("% x", card.ATR()), "answer to reset of the card", nil)
	q := r.table.FindReader(p.Path)
	p.Lines, p.Notes, p.Sources = q.Names, q.Notes, q.Sources
	before := r.learned.Get(readerIdentity(p.Path))
	learned(p, &before)
	return nil
}
