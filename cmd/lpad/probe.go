package main

import (
	"context"
	"fmt"
	"path/filepath"
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
)

// managersTimeout bounds asking who else manages the modem: a bus that hangs is
// no reason to have no probe.
const managersTimeout = 5 * time.Second

// probeModem tells what a modem can do, in the words of the socket.
func probeModem(ctx context.Context, port *atport.Port) (api.Probe, error) {
	v, err := port.Probe(ctx)
	p := api.Probe{
		At: v.At, Path: v.Port, Place: v.Place, Manufacturer: v.Manufacturer, Model: v.Model, Revision: v.Revision, IMEI: v.IMEI,
		APDUPath: string(v.Path), Lines: v.Quirks, Notes: v.Notes, Sources: v.Sources,
	}
	for _, rung := range v.Ladder {
		p.Ladder = append(p.Ladder, string(rung))
	}
	if l := v.Learned; !l.At.IsZero() {
		p.Learned = &api.Learned{APDUPath: string(l.Path), BlockSize: l.BlockSize, Rung: string(l.Rung), ICCID: l.ICCID, ISDR: l.ISDR, At: l.At}
	}
	for _, c := range v.Capabilities {
		p.Capabilities = append(p.Capabilities, api.Capability{Name: c.Name, Answer: string(c.Answer), Value: c.Value, Evidence: c.Evidence, Code: c.Code, Next: c.Next, Millis: c.Millis})
	}
	return p, err
}

// managers tells who else manages the modem with this port. What does not answer
// is left out.
func managers(ctx context.Context, bus *systembus.Bus, port string) api.Managers {
	ctx, cancel := context.WithTimeout(ctx, managersTimeout)
	defer cancel()
	var m api.Managers
	// Nobody is started for being asked.
	if running, err := bus.Running(ctx, nm.Service); err == nil && running {
		m.NetworkManager = versionOf(bus.Property(ctx, nm.Service, "/org/freedesktop/NetworkManager", nm.Service.Bus, "Version"))
	}
	if running, err := bus.Running(ctx, mm.Service); err != nil || !running {
		return m
	}
	m.ModemManager = versionOf(bus.Property(ctx, mm.Service, "/org/freedesktop/ModemManager1", mm.Service.Bus, "Version"))
	names := []string{filepath.Base(port)}
	if to, err := filepath.EvalSymlinks(port); err == nil {
		names = append(names, filepath.Base(to))
	}
	modems, err := mm.New(bus).Modems(ctx)
	if err != nil {
		m.Problem = fault.Of(err).Text
		return m
	}
	for i := range modems {
		found := &modems[i]
		if !found.Uses(names...) && len(modems) > 1 {
			continue
		}
		m.Device, m.State, m.Ports = found.Device, found.State.String(), append(found.ATPorts, append(found.OtherPorts, found.NetPorts...)...)
		if err := bus.Property(ctx, mm.Service, found.Path, mm.Service.Bus+".Modem", "Plugin").Store(&m.Plugin); err != nil {
			m.Problem = fault.Of(err).Text
		}
		return m
	}
	m.Problem = "it shows no modem with this port"
	return m
}

// versionOf is that of a service, as it answers.
func versionOf(a systembus.Answer) string {
	var text string
	if a.Store(&text) != nil || text == "" {
		return "unknown"
	}
	return text
}

// probe tells what there is at the readers.
func (r *reader) probe(ctx context.Context) (api.Probe, error) {
	p := api.Probe{APDUPath: "pcsc"}
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
		return p, err
	}
	p.Path = card.Reader()
	add("reader", api.AnswerYes, p.Path, "connected to the card in "+p.Path, nil)
	add("atr", api.AnswerYes, fmt.Sprintf("% x", card.ATR()), "answer to reset of the card", nil)
	q := r.table.FindReader(p.Path)
	p.Lines, p.Notes, p.Sources = q.Names, q.Notes, q.Sources
	if l := r.learned.Get(readerIdentity(p.Path)); !l.At.IsZero() {
		p.Learned = &api.Learned{ISDR: l.ISDR, At: l.At}
	}
	return p, nil
}
