package modemtest

import "slices"

// Dialect is what a kind of modem does in its own way, as data. A new modem is
// a new value of this type and, only if it knows a command that nobody knew
// before, one entry in the table of command.go.
type Dialect struct {
	Name         string // "u-blox", "generic": for logs and options
	Manufacturer string // AT+CGMI
	Model        string // AT+CGMM
	Revision     string // AT+CGMR
	IMEI         string // AT+CGSN, 15 digits
	USB          USB    // how it shows itself to Linux
	Plugin       string // the plugin of ModemManager 1.20 that claims it

	// Has names the vendor commands that it understands, Lacks the commands of
	// 3GPP TS 27.007 that it does not: "+CCID", "+CCHO". All other commands of
	// 27.007 that this package implements are there.
	Has, Lacks []string

	// Answers gives whole command lines a fixed answer: the key is the command
	// after AT in upper case, the value its information lines parted by \n. A
	// last line of ERROR or +CME ERROR is the final code, OK is added otherwise;
	// [Silence] is no answer at all. They come before the commands that are
	// implemented.
	Answers map[string]string

	// Refuses names commands that it knows and never carries out, whatever their
	// parameters, with the code of the +CME ERROR, or [BareError].
	Refuses map[string]int

	// URCs are the lines it says by itself.
	URCs []Unsolicited

	// How a host reaches the card.

	SessionFormat string // of the handle in "+CCHO: ": fmt verb for a uint64; "" is "%d"
	SessionBase   uint64 // added to the number of the logical channel in the handle
	BareCCHO      bool   // the answer to AT+CCHO is the handle alone, without "+CCHO: "
	Channels      int    // logical channels that may be open at a time, more are 6A81; 0: as many as the card has
	ChannelLe01   bool   // MANAGE CHANNEL needs Le 01: with 00 it opens a channel on which every SELECT fails

	InlineResponse bool     // the modem follows 61xx itself: data come at once, with 9000
	NoCSIMChannels bool     // AT+CSIM refuses every CLA but those of the basic channel
	CSIMLocks      bool     // AT+CSIM=1 and 0 take the card from the modem and give it back
	MaxLine        int      // characters of a command line, 0: 4096
	Overlong       Overlong // what becomes of a longer one

	// What it shows of the SIM.

	ICCIDPadded bool  // ICCID commands show the F that pads 19 digits
	ICCIDLive   bool  // ICCID commands read the card; else they show what was read at the last initialisation
	NoCRSM      []int // files that AT+CRSM refuses with "operation not allowed"
	SIMBusyText bool  // AT+CPIN? of a SIM not yet read is "+CPIN: NOT READY" instead of +CME ERROR: 14

	// What makes it read the SIM again.

	Follows       bool // it reads the SIM again Delays.Refresh after the channel is closed in which the card got another profile, without being asked to
	NoRefresh     bool // proactive commands of the card (SW 91xx) are left alone: its toolkit is off
	CFUN0KeepsSIM bool // AT+CFUN=0 takes only the radio, as 4 does
	CFUN4DropsSIM bool // AT+CFUN=4 takes the power from the SIM, as 0 does
	CFUN0Resets   bool // AT+CFUN=0 restarts the whole modem
	ResetFun      int  // a further AT+CFUN=n that resets: 15 or 16; 0: none

	// When its ptys hang up and come back after Delays.Boot.

	ResetHangsUp   bool // at a reset
	CFUN0HangsUp   bool // at AT+CFUN=0, which the modem survives with its radio off
	RefreshHangsUp bool // at a REFRESH of the card: the device re-enumerates
	CFUNUnanswered bool // when AT+CFUN hangs up, it does so before its OK
	Renames        bool // they come back under other names after a reset: the ones after theirs, at the next reset their first ones

	// CarrierConfig is a modem that chooses a configuration for the operator of
	// its first SIM, and then searches for ever with the SIM of another one: until
	// it is told AT+QMBNCFG="Select","ROW_Generic_3GPP" and reset.
	CarrierConfig bool

	Delays Delays // how long it takes, in small: see Config.Delays
}

// hidesICCID reports whether ModemManager 1.20, which knows no way but AT+CRSM
// with most plugins, shows a SIM without its ICCID.
func (d Dialect) hidesICCID() bool { return slices.Contains(d.NoCRSM, efICCID) }

// BareError in Dialect.Refuses is ERROR without a code, whatever AT+CMEE says.
const BareError = -1

// Silence in Dialect.Answers is no answer at all, not even a final code.
const Silence = "\x00"

// Overlong is what a modem does with a command line longer than it takes.
type Overlong string

// The ways to treat a line that is too long.
const (
	OverlongError     Overlong = ""          // ERROR
	OverlongTruncated Overlong = "truncated" // the beginning is executed; APDUs reach the card cut off
	OverlongSilent    Overlong = "silent"    // no answer at all
)

// USB is the identity of the device in sysfs.
type USB struct {
	Vendor, Product             string // four hexadecimal digits
	Manufacturer, ProductString string

	// Interfaces are the numbers of the USB interfaces of ModemManager's AT port,
	// the agent's AT port and the network interface; all zero: 0, 1, 2.
	Interfaces [3]int
	// Driver is the kernel's for the ttys, by which some plugins of ModemManager
	// choose; "" is option.
	Driver string
	// NoNet is a modem without a network interface: packets go over PPP on a tty.
	NoNet bool

	// Rules are lines of a udev rules file for ModemManager, beyond those that it
	// is installed with: a port type that spares it probing, for example.
	Rules []string
}

// Moment is when a modem speaks by itself.
type Moment string

// The moments at which a [Dialect] may have something to say.
const (
	SIMOn        Moment = "sim-on"        // the SIM is read after power up or a reset
	SIMGone      Moment = "sim-gone"      // powered down by AT+CFUN=0
	RefreshStart Moment = "refresh-start" // the card asked for REFRESH, the SIM is being read anew
	RefreshEnd   Moment = "refresh-end"   // and now it has been
	ModemReady   Moment = "modem-ready"   // after a reset of the modem itself
	Locked       Moment = "locked"        // AT+CSIM=1 took the card from the modem
	Unlocked     Moment = "unlocked"      // AT+CSIM=0 gave it back
)

// Unsolicited is a line that a modem says by itself.
type Unsolicited struct {
	At   Moment
	Text string
	// Needs is the beginning of a command that switches it on, for the port on
	// which it was given last: "+CMER=1". "" is always, on every port.
	Needs string
}

// Dialects lists all dialects, those with an interface that needs no PPP first.
func Dialects() []Dialect {
	return []Dialect{
		UBlox, Generic,
		QuectelEC20, QuectelEC20MBN, QuectelEG25, QuectelEG9x, QuectelRM5xx,
		FibocomFM350, SIMComSIM7600, SierraMC7455, TelitLE910, Cinterion, DellDW5821e,
	}
}

// DialectNamed finds a dialect by its name.
func DialectNamed(name string) (Dialect, bool) {
	all := Dialects()
	i := slices.IndexFunc(all, func(d Dialect) bool { return d.Name == name })
	if i < 0 {
		return Dialect{}, false
	}
	return all[i], true
}
