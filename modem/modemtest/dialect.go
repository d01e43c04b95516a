package modemtest

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

	// Has names the vendor commands that it understands, Lacks the commands of
	// 3GPP TS 27.007 that it does not: "+CCID", "+CCHO". All other commands of
	// 27.007 that this package implements are there.
	Has, Lacks []string

	// Answers gives whole command lines a fixed answer: the key is the command
	// after AT in upper case, the value its information lines parted by \n. A
	// last line of ERROR or +CME ERROR is the final code, OK is added otherwise.
	// They come before the commands that are implemented.
	Answers map[string]string

	// URCs are the lines it says by itself.
	URCs []Unsolicited

	SessionFormat string // of the handle in "+CCHO: ": fmt verb for a uint64; "" is "%d"
	SessionBase   uint64 // added to the number of the logical channel in the handle
	BareCCHO      bool   // the answer to AT+CCHO is the handle alone, without "+CCHO: "
	ICCIDPadded   bool   // ICCID commands show the F that pads 19 digits

	InlineResponse bool // the modem follows 61xx itself: data come at once, with 9000
	NoCSIMChannels bool // AT+CSIM refuses every CLA but those of the basic channel
	MaxLine        int  // characters of a command line, longer ones are ERROR; 0: 4096
	ResetHangsUp   bool // AT+CFUN=1,1 hangs up the ptys, which come back under their links
	SIMBusyText    bool // AT+CPIN? of a SIM not yet read is "+CPIN: NOT READY" instead of +CME ERROR: 14
}

// USB is the identity of the device in sysfs.
type USB struct {
	Vendor, Product             string // four hexadecimal digits
	Manufacturer, ProductString string

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
)

// Unsolicited is a line that a modem says by itself.
type Unsolicited struct {
	At   Moment
	Text string
	// Needs is the beginning of a command that switches it on, for the port on
	// which it was given last: "+CMER=1". "" is always, on every port.
	Needs string
}

// ublox commands beyond 27.007 that are implemented here.
var ubloxCommands = []string{"+CCID", "+UAUTHREQ", "+UIPADDR", "+USIMSTAT"}

// UBlox is a SARA-R4 class modem in its bridge mode: the one AT modem to which
// ModemManager 1.20 gives a network interface with a static address.
var UBlox = Dialect{
	Name: "u-blox", Manufacturer: "u-blox", Model: "SARA-R410M-02B", Revision: "1.0.0", IMEI: "356938035643809",
	// Product id 11ff is in none of ModemManager's rules: the plugin claims it by its vendor id alone and probes at once.
	USB: USB{Vendor: "1546", Product: "11ff", Manufacturer: "u-blox", ProductString: "SARA"},
	Has: ubloxCommands,
	Answers: map[string]string{
		// ModemManager finds "simind" at position 3 here and re-probes on "+CIEV: 3,n" (lab README, section F).
		"+CIND=?":     `+CIND: ("signal",(0-5)),("service",(0,1)),("simind",(0,1))`,
		"+UUSBCONF?":  `+UUSBCONF: 3,"RNDIS",,"0x1146"`,
		"+UBMCONF?":   `+UBMCONF: 2`,
		"+UAUTHREQ=?": `+UAUTHREQ: (1-16),(0-2),,`,
	},
	URCs: []Unsolicited{
		{At: RefreshStart, Text: "+CIEV: 3,0", Needs: "+CMER=1"},
		{At: RefreshEnd, Text: "+CIEV: 3,1", Needs: "+CMER=1"},
		{At: RefreshEnd, Text: "+UUSIMSTAT: 9", Needs: "+USIMSTAT=1"},
	},
}

// Generic knows 3GPP TS 27.007 and nothing else, and never tells of a changed SIM.
var Generic = Dialect{
	Name: "generic", Manufacturer: "Simulated Inc.", Model: "SIM-1", Revision: "1.0.0", IMEI: "356938035643809",
	USB: USB{Vendor: "1234", Product: "5678", Manufacturer: "Simulated Inc.", ProductString: "SIM-1"},
	Has: []string{"+CCID"},
	// ModemManager asks every unknown modem for an Icera chip, three times with 3 s between if it hears an error.
	Answers: map[string]string{"%IPSYS?": "OK"},
}

// Dialects lists all dialects.
func Dialects() []Dialect { return []Dialect{UBlox, Generic} }
