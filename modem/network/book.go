package network

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"lpad/modem"
	"lpad/modem/atmodem"
	"lpad/modem/mm"
)

// bookName is the file of a book, beside [Config.KeepFile].
const bookName = "changed.json"

// book is what lpad has changed on the modem for the profile that is enabled:
// so that the next profile does not find it, and a rollback takes it back. What
// is to be changed is written down first. It holds no credentials.
type book struct {
	file string // "": in this process only
	log  *slog.Logger

	mu     sync.Mutex
	kept   []byte       // guarded by mu; the entry, if there is no file, or the file could not be written
	radio  *modem.Radio // guarded by mu; what is to be set when the SIM has been read; nil: nothing
	undo   bool         // guarded by mu; or everything is to be put back then
	report []string     // guarded by mu; what became of it
}

type entry struct {
	Data   int                 `json:",omitempty"` // context of the device's data; 0: that of the attach
	CIDs   []int               `json:",omitempty"` // contexts for other purposes that lpad has made
	Before map[string][]string `json:",omitempty"` // settings of the radio before any profile wanted others

	// Of the switch that is under way.
	Switching bool                `json:",omitempty"` // CIDs are its own already
	Old       []int               `json:",omitempty"` // contexts of the profile of before
	Undo      map[string][]string `json:",omitempty"` // settings of the radio before it

	Junk []int `json:",omitempty"` // contexts that nobody needs, to be cleared when the modem can be asked
}

func newBook(keepFile string, log *slog.Logger) *book {
	b := &book{log: log}
	if keepFile != "" {
		b.file = filepath.Join(filepath.Dir(keepFile), bookName)
	}
	return b
}

// read is the present entry. A file that cannot be read is as none.
func (b *book) read() *entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := &entry{}
	raw := b.kept
	if raw == nil && b.file != "" {
		raw, _ = os.ReadFile(b.file)
	}
	if json.Unmarshal(raw, e) != nil {
		return &entry{}
	}
	return e
}

func (b *book) write(e *entry) { _ = b.save(e) }

// save does so before something is changed that could not be taken back else.
func (b *book) save(e *entry) error {
	raw, err := json.Marshal(e)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kept = raw; b.file != "" && err == nil {
		if err = replace(b.file, raw); err == nil {
			b.kept = nil
		}
	}
	if err != nil {
		b.log.Warn("what is changed on the modem is not written down", "err", err)
	}
	return err
}

// begin is the beginning of a switch, and the end of one that stays: from here
// on there is nothing to undo.
func (b *book) begin() *entry {
	e := b.read()
	if e.Switching || len(e.Undo) > 0 {
		e.Switching, e.Undo, e.Junk, e.Old = false, nil, append(e.Junk, e.Old...), nil
		b.write(e)
	}
	return e
}

// plan says what [book.tune] is to do when the SIM has been read.
func (b *book) plan(radio *modem.Radio, undo bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.radio, b.undo, b.report = radio, undo, nil
}

func (b *book) told(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.report = append(b.report, line)
}

// Late is what became of the settings that could be made only when the SIM had
// been read, as in the answer of Apply.
func (b *book) Late() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.report
}

// notApplied reports what could not be set, and why.
func notApplied(what, why string) string { return modem.NotApplied + what + ": " + why }

// Setter is an [AT] that can also set the modem's radio, as
// lpad/modem/atport.Port can.
type Setter interface {
	Setting(ctx context.Context, name string) ([]string, error)
	Set(ctx context.Context, name string, want []string) error
}

// tuner makes settings of the radio, known by their names.
type tuner interface {
	Setter
	wanted(ctx context.Context, name string, r *modem.Radio, now []string) (want []string, lacking string, err error)
}

// atTuner makes those that have a standard command.
type atTuner struct{ Setter }

func (atTuner) wanted(_ context.Context, name string, r *modem.Radio, now []string) ([]string, string, error) {
	return atmodem.WantedSetting(name, r, now), "", nil
}

// mmTuner makes those that ModemManager's plugins know.
type mmTuner struct {
	c *mm.Client
	m *mm.Modem
}

func (t mmTuner) wanted(ctx context.Context, name string, r *modem.Radio, now []string) ([]string, string, error) {
	return t.c.WantedSetting(ctx, t.m, name, r, now)
}

func (t mmTuner) Setting(ctx context.Context, name string) ([]string, error) {
	return t.c.Setting(ctx, t.m, name)
}

func (t mmTuner) Set(ctx context.Context, name string, want []string) error {
	return t.c.Set(ctx, t.m, name, want)
}

// knob is one setting of the radio.
type knob struct {
	name, leaf string // and as the operator's document has it
	via        string
	ofCard     bool // it is on the card: each profile has its own
}

var knobs = [...]knob{
	{atmodem.EDRX, leafEDRX, ViaAT, false}, {atmodem.PSM, leafPSM, ViaAT, false}, {atmodem.SMSC, leafSMSC, ViaAT, true},
	{mm.Modes, leafRATs, ViaBearer, false}, {mm.Bands, leafBands, ViaBearer, false}, {mm.Preferred, leafPLMNs, ViaBearer, true},
}

// tuneAT makes the settings that the port has, tuneMM those that ModemManager
// has.
func (b *book) tuneAT(ctx context.Context, port AT) {
	if s, ok := port.(Setter); ok {
		b.tune(ctx, ViaAT, atTuner{s})
	}
}

func (b *book) tuneMM(ctx context.Context, c *mm.Client, m *mm.Modem) {
	b.tune(ctx, ViaBearer, mmTuner{c, m})
}

// Names in the operator's document.
const (
	leafEDRX  = "radio.edrx"
	leafPSM   = "radio.psm"
	leafSMSC  = "sms.smsc"
	leafRATs  = "radio.rats"
	leafBands = "radio.lteBands"
	leafPLMNs = "roaming.preferredPlmns"
)

// knobLimit bounds one setting. ModemManager 1.20 never answers a modem's bands
// being set of which its plugin has no command.
const knobLimit = 15 * time.Second

// tune makes the settings that were planned, as far as this way goes. What an
// earlier profile wanted and this one does not is put back as it was. Nothing of
// it is fatal.
func (b *book) tune(ctx context.Context, via string, t tuner) {
	b.mu.Lock()
	radio, undo := b.radio, b.undo
	b.mu.Unlock()
	for i := range knobs {
		if k := &knobs[i]; k.via == via && (undo || radio != nil) {
			bounded, cancel := context.WithTimeout(ctx, knobLimit)
			b.turn(bounded, t, k, radio, undo)
			cancel()
		}
	}
}

func (b *book) turn(ctx context.Context, t tuner, k *knob, radio *modem.Radio, undo bool) {
	e := b.read()
	want, planned := e.Undo[k.name]
	wish := false
	if !undo {
		if want, planned = e.Before[k.name]; k.wished(radio) {
			wish, planned = true, true
		}
	}
	if !planned { // a modem is not asked for what nobody wants: some are silent about what they do not know
		return
	}
	now, err := t.Setting(ctx, k.name)
	lacking := ""
	if wish && err == nil {
		want, lacking, err = t.wanted(ctx, k.name, radio, now)
	}
	if err == nil && (want != nil || !wish) && !slices.Equal(now, want) {
		if !undo {
			err = b.remember(k, e, now)
		}
		if err == nil {
			err = t.Set(ctx, k.name, want)
		}
	}
	if err != nil {
		lacking = err.Error()
	}
	if lacking != "" {
		b.told(notApplied(k.leaf, lacking))
		b.log.Warn("a setting of the radio was not made", "setting", k.leaf, "why", lacking)
	}
	switch {
	case err != nil:
	case undo:
		delete(e.Undo, k.name)
		b.write(e)
	case wish && want != nil:
		b.told(k.via + ": " + k.leaf)
	case !wish:
		delete(e.Before, k.name)
		b.write(e)
	}
}

// remember writes down what a setting is before it is changed.
func (b *book) remember(k *knob, e *entry, now []string) error {
	if e.Before == nil {
		e.Before = map[string][]string{}
	}
	if e.Undo == nil {
		e.Undo = map[string][]string{}
	}
	if _, there := e.Before[k.name]; !there && !k.ofCard {
		e.Before[k.name] = now
	}
	if _, there := e.Undo[k.name]; !there {
		e.Undo[k.name] = now
	}
	return b.save(e)
}

// wished reports whether anything is wished of it.
func (k *knob) wished(r *modem.Radio) bool {
	switch k.leaf {
	case leafEDRX:
		return len(r.EDRX) > 0
	case leafPSM:
		return r.PSM != nil
	case leafSMSC:
		return r.SMSC != ""
	case leafRATs:
		return len(r.RATs) > 0
	case leafBands:
		return len(r.LTEBands) > 0
	}
	return len(r.PreferredPLMNs) > 0
}

// beyond reports the wishes that nothing here can fulfil.
func beyond(want *modem.Settings, byAT, byMM bool) (where []string) {
	r := &want.Radio
	for _, w := range []struct {
		there     bool
		leaf, why string
	}{
		{len(r.EDRX) > 0 && !byAT, leafEDRX, noPort}, {r.PSM != nil && !byAT, leafPSM, noPort}, {r.SMSC != "" && !byAT, leafSMSC, noPort},
		{slices.ContainsFunc(r.EDRX, func(e modem.EDRX) bool { return e.PTW != nil }), leafEDRX + ".ptw", "the command has no place for it"},
		{len(r.RATs) > 0 && !byMM, leafRATs, noManager}, {len(r.LTEBands) > 0 && !byMM, leafBands, noManager}, {len(r.PreferredPLMNs) > 0 && !byMM, leafPLMNs, noManager},
		{want.Default.RoamingType != "" && want.Default.RoamingType != want.Default.Type, "apns.pdnTypeRoaming", "a connection has one type"},
	} {
		if w.there {
			where = append(where, notApplied(w.leaf, w.why))
		}
	}
	return where
}

const (
	noPort    = "lpad has no AT port for it"
	noManager = "there is no ModemManager, which would know how"
)

// A modem's list of contexts, as place uses it.
type contextList interface {
	// APNs reads it.
	APNs(ctx context.Context) ([]modem.Context, error)
	// put writes one and says which it is: cid, or a free one for 0.
	put(ctx context.Context, cid int, apn *modem.APN) (int, error)
	ClearAPN(ctx context.Context, cid int) error
}

// lastCID is the last context that is taken for another purpose. A modem that
// has fewer refuses it.
const lastCID = 16

// place writes access points into contexts of their own, beside that of the
// attach. Those of the profile of before stay until the switch is: a modem does
// not tell their credentials. cids are those it got, 0 for one that could not be
// had.
func (b *book) place(ctx context.Context, list contextList, attach int, via string, apns []modem.APN) (cids []int, where []string) {
	cids = make([]int, len(apns))
	e := b.read()
	if len(apns)+len(e.CIDs)+len(e.Junk) == 0 {
		return cids, nil
	}
	e.Junk = clearAll(ctx, list, e.Junk)
	if !e.Switching {
		e.Switching, e.Old, e.CIDs = true, e.CIDs, nil
	}
	have, err := list.APNs(ctx)
	mine, taken := e.CIDs, []int{attach}
	for _, c := range have {
		if !slices.Contains(mine, c.CID) {
			taken = append(taken, c.CID)
		}
	}
	var made []int
	for i := range apns {
		name, cid := purposesOf(&apns[i]), 2
		for slices.Contains(taken, cid) {
			cid++
		}
		failed := err
		if failed == nil && cid <= lastCID {
			e.CIDs = append(e.CIDs, cid)
			b.write(e)
			taken = append(taken, cid)
			cids[i], failed = list.put(ctx, cid, &apns[i])
		}
		switch {
		case failed != nil:
			where = append(where, notApplied(name, failed.Error()))
		case cids[i] == 0:
			where = append(where, notApplied(name, "the modem has no context to spare"))
		default:
			made = append(made, cids[i])
			where = append(where, via+": "+name)
		}
	}
	for _, cid := range mine {
		if !slices.Contains(made, cid) {
			e.Junk = append(e.Junk, cid)
		}
	}
	e.CIDs, e.Junk = made, clearAll(ctx, list, e.Junk)
	b.write(e)
	return cids, where
}

// clearAll clears contexts and returns those that it could not.
func clearAll(ctx context.Context, list contextList, cids []int) (left []int) {
	for _, cid := range cids {
		if list.ClearAPN(ctx, cid) != nil {
			left = append(left, cid)
		}
	}
	return left
}

// tidy clears the contexts that nobody needs any more.
func (b *book) tidy(ctx context.Context, list contextList) {
	if e := b.read(); len(e.Junk) > 0 {
		e.Junk = clearAll(ctx, list, e.Junk)
		b.write(e)
	}
}

// rollback clears the contexts of the switch that is undone.
func (b *book) rollback(ctx context.Context, list contextList) {
	if e := b.read(); e.Switching {
		e.Junk, e.CIDs, e.Switching = clearAll(ctx, list, append(e.Junk, e.CIDs...)), e.Old, false
		e.Old = nil
		b.write(e)
	}
}

// finish ends a rollback: what the snapshot has of the book counts again. What
// could not be put back is left to the next switch.
func (b *book) finish(was entry) {
	e := b.read()
	for name := range e.Undo {
		before, changed := e.Before[name]
		if _, there := was.Before[name]; changed && !there {
			if was.Before == nil {
				was.Before = map[string][]string{}
			}
			was.Before[name] = before
		}
	}
	was.Undo, was.Switching, was.Old, was.Junk = nil, false, nil, e.Junk
	b.write(&was)
	b.plan(nil, false)
}

func purposesOf(apn *modem.APN) string { return strings.Join(apn.Purposes, ",") }

// atContexts is the list over a port of our own.
type atContexts struct{ AT }

func (l atContexts) put(ctx context.Context, cid int, apn *modem.APN) (int, error) {
	return cid, l.SetAPN(ctx, cid, *apn)
}

// ClearAPN takes a context off the list, if the port knows how.
func (l atContexts) ClearAPN(ctx context.Context, cid int) error {
	if c, ok := l.AT.(ContextClearer); ok {
		return c.ClearAPN(ctx, cid)
	}
	return nil
}

// mmContexts is the list that ModemManager shows.
type mmContexts struct {
	c *mm.Client
	m mm.Modem
}

// APNs reads it.
func (l *mmContexts) APNs(ctx context.Context) ([]modem.Context, error) {
	return l.c.Profiles(ctx, l.m)
}

// put writes one. ModemManager writes those that are there, and finds the others a number itself.
func (l *mmContexts) put(ctx context.Context, cid int, apn *modem.APN) (int, error) {
	got, err := l.c.SetProfile(ctx, l.m, cid, *apn)
	if err != nil && ctx.Err() == nil {
		got, err = l.c.SetProfile(ctx, l.m, 0, *apn)
	}
	return got, err
}

// ClearAPN deletes one.
func (l *mmContexts) ClearAPN(ctx context.Context, cid int) error {
	return l.c.DeleteProfile(ctx, l.m, cid)
}
