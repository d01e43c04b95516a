// Package quirks knows how modems and card readers differ from the standards:
// a table, as data, of what the field has found out, and a memory of what this
// device has found out by itself.
//
//	table, err := quirks.Load("/etc/lpad/quirks.d") // or quirks.Builtin()
//	q := table.Find(identity)                       // of AT+CGMI, +CGMM, +CGMR
//	was := memory.Get(identity)                     // what worked the last time
//
// A line of the table says of which modems it speaks (patterns of manufacturer,
// model and firmware, or of a reader's name), where that is known from (public
// addresses, at least one), and what it says. Everything else is left open.
// [Table.Find] merges all lines that fit, general ones first, so that a line on
// one firmware wins over a line on its maker. A modem of which nothing is known
// gets the defaults: it works by trying.
//
// Nothing in the table is a promise. It gives the order in which things are
// tried, the bounds of waiting, and words that only the vendor has; whoever uses
// it still looks at what the modem does. What worked comes before it the next
// time ([Memory]).
//
// The table is YAML in table.yaml, built in. An OEM adds files of the same form
// in a folder: a line with the name of a built-in one takes its place, any other
// is merged over the built-in lines. The reader is strict, since a key that is
// not understood is a modem that behaves differently from what its file says:
// unknown keys, rungs, roles and durations are errors with file and line. Files
// are bounded in size, number and length, and YAML's anchors and aliases are
// refused, so that no file can grow in memory. docs/modems.md is the table for
// people; a test holds it against this one.
//
// A Table is immutable. Table and Memory are safe for concurrent use.
package quirks

import (
	"slices"
	"strings"
	"time"

	"lpad/modem"
)

// Path is a way for APDUs through a modem's AT port.
type Path string

// The paths (3GPP TS 27.007).
const (
	CCHO Path = "ccho" // +CCHO, +CGLA, +CCHC: the modem opens the logical channel
	CSIM Path = "csim" // +CSIM: we open it with MANAGE CHANNEL
)

// Rung is one means of making a modem read its SIM again. A ladder of them is
// climbed cheapest first.
type Rung string

// The rungs.
const (
	RungRefresh     Rung = "refresh"      // nothing: the modem follows the card by itself; wait for its URC, or poll the ICCID
	RungCFUN01      Rung = "cfun-0-1"     // AT+CFUN=0, AT+CFUN=1: the SIM loses its power on most modems
	RungCFUN41      Rung = "cfun-4-1"     // AT+CFUN=4, AT+CFUN=1: airplane mode; most modems leave the SIM on
	RungCFUN11      Rung = "cfun-1-1"     // AT+CFUN=1,1: the modem restarts
	RungVendorReset Rung = "vendor-reset" // the vendor's own command ([Quirks.Reset])
	RungManager     Rung = "mm-cycle"     // ModemManager: Enable(false), Enable(true)
)

// DefaultReread is the ladder of a modem of which nothing else is known.
func DefaultReread() []Rung {
	return []Rung{RungRefresh, RungCFUN01, RungCFUN41, RungCFUN11, RungVendorReset}
}

// Ways of EnableProfile and DisableProfile: which name the profile is called by,
// and whether the card asks the modem for REFRESH (SGP.22, section 5.7.16).
const (
	EnableICCID        = "iccid"
	EnableICCIDRefresh = "iccid-refresh"
	EnableAID          = "aid"
	EnableAIDRefresh   = "aid-refresh"
)

// Role is what a serial port of a modem is for.
type Role string

// The roles.
const (
	RoleAT    Role = "at"    // AT commands; the port that managers take first
	RoleAT2   Role = "at2"   // AT commands; usually free for lpad
	RoleModem Role = "modem" // AT commands and PPP
	RoleGPS   Role = "gps"   // NMEA
	RoleDiag  Role = "diag"  // Qualcomm diagnostics; never to be written to
)

// Port gives one USB interface its role.
type Port struct {
	Interface int // bInterfaceNumber
	Role      Role
}

// Quirks is what is known of one modem or reader: all lines that fit, merged.
// Members that nobody knows are zero, except APDU.ChannelLe.
type Quirks struct {
	Names []string // of the lines that fit, general first

	APDU struct {
		Known              string        // what others have found of APDUs over AT: "works", "partly" or "fails"; "": nothing; never a reason not to try
		Paths              []Path        // in the order to try; empty: unknown, try all
		BlockSize          int           // most data bytes of one command that are known to work; 0: unknown
		ChannelLe          int           // Le of MANAGE CHANNEL (open) on the CSIM path; -1: none; 1 if nothing is known
		Channels           int           // logical channels beside the basic one; 0: unknown
		Handle             string        // form of the answer to +CCHO: "", "decimal", "hex" or "bare"; information, a reader takes all
		Command            time.Duration // bound of an APDU; 0: default
		LastBlock          time.Duration // bound of the APDU that ends a STORE DATA, when the card works; 0: default
		TerminalCapability bool          // TERMINAL CAPABILITY before the ISD-R is selected
		OpenRetries        int           // tries of opening a channel; 0: default
	}

	Enable []string // ways of enabling, in the order to try (EnableICCID...); empty: default

	SIM struct {
		URCs      []string      // beginnings of lines that tell of a changed SIM
		Subscribe []string      // commands that switch them on
		ICCID     []string      // commands that read the ICCID, in the order to try
		Settle    time.Duration // wait after the SIM is ready
	}

	Reread       []Rung                 // the ladder; empty: DefaultReread. RungRefresh in it: the modem is known to follow by itself
	RungTime     map[Rung]time.Duration // bound of a rung; absent: default
	Reset        []string               // the vendor's reset commands: the first that is accepted; empty: none
	ResetHangsUp bool                   // a reset takes the port away; it comes back, perhaps under another name
	CFUN0HangsUp bool                   // so does AT+CFUN=0: it and AT+CFUN=1 must be written in one go
	AfterSwitch  []string               // commands after every switch, when the modem shows the new profile; AT+CFUN=1,1 among them restarts it

	Ports []Port // by interface number
	Slots struct {
		Query string // command that says which slot is in use
		Set   string // command that chooses one; %d is the number
	}

	Notes   []string // what people should know, a short sentence each
	Sources []string // public addresses
}

// Ladder is q.Reread, or the default one.
func (q Quirks) Ladder() []Rung {
	if len(q.Reread) > 0 {
		return slices.Clone(q.Reread)
	}
	return DefaultReread()
}

// Role is what the port at a USB interface is for; "" is unknown.
func (q Quirks) Role(usbInterface int) Role {
	for _, p := range q.Ports {
		if p.Interface == usbInterface {
			return p.Role
		}
	}
	return ""
}

// unknown is what is said of a modem that no line fits.
func unknown() Quirks {
	var q Quirks
	q.APDU.ChannelLe = 1
	return q
}

// Match says of whom a line speaks: every member that is not empty must fit,
// by one of its patterns. In a pattern, * is any text and ? any character; case
// does not count.
type Match struct {
	Manufacturer, Model, Revision []string // AT+CGMI, +CGMM, +CGMR
	USB                           []string // "2c7c:0125": vendor and product; only for Table.Ports
	Reader                        []string // name of a PC/SC reader
}

// Example is an identity that a line fits, as the modem itself gives it.
type Example struct{ Manufacturer, Model, Revision, Reader string }

// Line is one line of the table.
type Line struct {
	Name     string
	Match    Match
	Example  Example
	Facts    []Fact   // in the order of the file
	Inferred []string // keys of what only follows from the sources, or from the habits of the maker; "*": all
	Notes    []string
	Sources  []string // public addresses, at least one

	layer int // 0: built in, 1: of the OEM
}

// Fact is one thing that a line says.
type Fact struct {
	Key  string // as in the file: "block_size"
	Text string // its value, for people

	set func(*Quirks)
}

// Table is the built-in lines and those of the OEM. The zero Table has the
// built-in ones alone. Tables are read anew each time they are asked: a few
// milliseconds whenever a port is opened, where the lines would take half a
// megabyte for as long as lpad runs.
type Table struct{ oem []oemFile }

// Lines are the lines in the order in which they are merged within their kind:
// the built-in ones as they stand in table.yaml, then those of the OEM.
func (t *Table) Lines() []Line {
	lines, _ := t.parse(func(*Match) bool { return true }) // Load has refused what is wrong
	return lines
}

// Find is what is known of a modem.
func (t *Table) Find(id modem.Identity) Quirks {
	return t.find(func(m *Match) []criterion {
		return []criterion{{m.Revision, id.Revision}, {m.Model, id.Model}, {m.Manufacturer, id.Manufacturer}}
	})
}

// FindReader is what is known of a card reader, by its PC/SC name.
func (t *Table) FindReader(name string) Quirks {
	return t.find(func(m *Match) []criterion { return []criterion{{m.Reader, name}} })
}

// Ports is what is known of a device before anybody has spoken to it: which of
// its serial ports is for what, by its USB vendor and product (four hexadecimal
// digits each). Nothing else follows from these numbers, since makers reuse them.
func (t *Table) Ports(vendor, product string) []Port {
	return t.find(func(m *Match) []criterion { return []criterion{{m.USB, vendor + ":" + product}} }).Ports
}

// criterion is a value, and the patterns of a line for it.
type criterion struct {
	patterns []string
	value    string
}

// find merges the lines that have a criterion at all and that fit by each one
// that they have. Criteria are given most telling first: firmware before model
// before maker; among lines that are equal in that the longer pattern is the more
// specific one.
func (t *Table) find(of func(*Match) []criterion) Quirks {
	var lines []*Line // ordered by weight; a handful, so they are inserted where they belong
	var weights [][]int
	weigh := func(layer int, m *Match) []int { // nil: it does not fit
		weight := []int{layer}
		asked := false
		for _, c := range of(m) {
			n := c.fit()
			if n < 0 {
				return nil
			}
			asked = asked || len(c.patterns) > 0
			weight = append(weight, n)
		}
		if !asked {
			return nil
		}
		return weight
	}
	all, _ := t.parse(func(m *Match) bool { return weigh(0, m) != nil })
	for i := range all {
		l := &all[i]
		weight := weigh(l.layer, &l.Match)
		if weight == nil {
			continue
		}
		lines, weights = append(lines, l), append(weights, weight)
		for j := len(lines) - 1; j > 0 && slices.Compare(weights[j-1], weights[j]) > 0; j-- {
			lines[j-1], lines[j] = lines[j], lines[j-1]
			weights[j-1], weights[j] = weights[j], weights[j-1]
		}
	}
	q := unknown()
	for _, l := range lines {
		l.apply(&q)
	}
	return q
}

// apply merges what the line says over q.
func (l *Line) apply(q *Quirks) {
	q.Names = append(q.Names, l.Name)
	for _, f := range l.Facts {
		f.set(q)
	}
	q.Notes = append(q.Notes, l.Notes...)
	for _, s := range l.Sources {
		if !slices.Contains(q.Sources, s) {
			q.Sources = append(q.Sources, s)
		}
	}
}

// fit is how much of the value the best pattern names, -1 if none fits; 0 if
// there is none.
func (c criterion) fit() int {
	if len(c.patterns) == 0 {
		return 0
	}
	best := -1
	for _, p := range c.patterns {
		if glob(strings.ToLower(p), strings.ToLower(strings.TrimSpace(c.value))) {
			best = max(best, len(p)-strings.Count(p, "*")-strings.Count(p, "?"))
		}
	}
	return best
}

// glob matches * and ?. It goes back to the last * only, so its time is at most
// the product of the two lengths.
func glob(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
