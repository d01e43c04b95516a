package modemtest

import (
	"slices"
	"time"
)

// The dialects. Where a line comes from stands beside it: "lpac#N" is a thread
// of github.com/estkme-group/lpac, "openpilot" is commaai/openpilot,
// "agnos#N" commaai/agnos-builder, "VoCat" MengMengCode/VoCat, "MM" the sources
// of ModemManager 1.20.4 (mm-plugin files), "manual" the vendor's AT manual.
// "Ours" is a choice made here where nothing public says how it is, so that
// each way to behave is there at least once; such a line proves nothing about
// the real modem.

// quick are the delays of modems that are asked for by name: a tenth or less of
// what real ones take, with the same order: registration is the longest, and a
// reset is longer than reading the SIM.
var quick = Delays{SIM: 300 * time.Millisecond, Registration: 700 * time.Millisecond, Activation: 100 * time.Millisecond,
	Refresh: 100 * time.Millisecond, Boot: 1500 * time.Millisecond}

// slower is quick with another time from a reset to the ports.
func slower(boot time.Duration) Delays {
	d := quick
	d.Boot = boot
	return d
}

// UBlox is a SARA-R4 class modem in its bridge mode: the one AT modem to which
// ModemManager 1.20 gives a network interface with a static address.
var UBlox = Dialect{
	Name: "u-blox", Manufacturer: "u-blox", Model: "SARA-R410M-02B", Revision: "1.0.0", IMEI: "356938035643809", Plugin: "u-blox",
	// Product id 11ff is in none of ModemManager's rules: the plugin claims it by its vendor id alone and probes at once.
	USB: USB{Vendor: "1546", Product: "11ff", Manufacturer: "u-blox", ProductString: "SARA"},
	Has: []string{"+CCID", "+UAUTHREQ", "+UIPADDR", "+USIMSTAT"},
	Answers: map[string]string{
		// ModemManager finds "simind" at position 3 here and re-probes on "+CIEV: 3,n".
		"+CIND=?":     `+CIND: ("signal",(0-5)),("service",(0,1)),("simind",(0,1))`,
		"+UUSBCONF?":  `+UUSBCONF: 3,"RNDIS",,"0x1146"`,
		"+UBMCONF?":   `+UBMCONF: 2`,
		"+UAUTHREQ=?": `+UAUTHREQ: (1-16),(0-2),,`,
	},
	URCs: []Unsolicited{
		{At: RefreshStart, Text: "+CIEV: 3,0", Needs: "+CMER=1"},
		{At: RefreshEnd, Text: "+CIEV: 3,1", Needs: "+CMER=1"},
		{At: RefreshEnd, Text: "+UUSIMSTAT: 9", Needs: "+USIMSTAT=1"}, // manual: REFRESH done
	},
	ResetFun: 16, // manual: silent reset; MM plugins/ublox
	Delays:   quick,
}

// Generic knows 3GPP TS 27.007 and nothing else, and never tells of a changed SIM.
var Generic = Dialect{
	Name: "generic", Manufacturer: "Simulated Inc.", Model: "SIM-1", Revision: "1.0.0", IMEI: "356938035643809", Plugin: "generic",
	USB: USB{Vendor: "1234", Product: "5678", Manufacturer: "Simulated Inc.", ProductString: "SIM-1"},
	Has: []string{"+CCID"},
	// ModemManager asks every unknown modem for an Icera chip, three times with 3 s between if it hears an error.
	Answers: map[string]string{"%IPSYS?": "OK"},
	Delays:  quick,
}

// The USB interfaces of Quectel's LTE modems: 0 diag, 1 GPS, 2 and 3 AT, 4 net
// (MM 77-mm-quectel-port-types.rules). The network interface speaks QMI, which
// nobody does here, so there is none.
func quectelUSB(product, name string) USB {
	return USB{Vendor: "2c7c", Product: product, Manufacturer: "Quectel", ProductString: name, Interfaces: [3]int{2, 3, 4}, NoNet: true}
}

// quectelURCs are what Quectel's manuals say of a SIM that is read again; MM
// takes "+QUSIM: 1" for a changed SIM (plugins/quectel/mm-shared-quectel.c).
var quectelURCs = []Unsolicited{
	{At: RefreshStart, Text: "+CPIN: NOT READY"},
	{At: RefreshEnd, Text: "+CPIN: READY"}, {At: RefreshEnd, Text: "+QUSIM: 1"},
	{At: SIMOn, Text: "+CPIN: READY"}, {At: SIMOn, Text: "+QUSIM: 1"}, {At: SIMOn, Text: "PB DONE"},
	{At: SIMGone, Text: "+CPIN: NOT READY"},
	{At: ModemReady, Text: "RDY"},
}

// QuectelEC20 has no way to its card but AT+CSIM, with one logical channel,
// and says nothing when the card changes its profile.
var QuectelEC20 = Dialect{
	Name: "quectel-ec20", Manufacturer: "Quectel", Model: "EC20F", Revision: "EC20CEHDLGR06A07M1G", IMEI: "861107030000017", Plugin: "quectel",
	USB: quectelUSB("0125", "EC20"),
	Has: []string{"+QCCID", "+QPOWD"},
	// VoCat: CCHO is dead on some firmware; lpac#186: a bare ERROR.
	Refuses:     map[string]int{"+CCHO": BareError, "+CGLA": BareError, "+CCHC": BareError},
	Channels:    1,    // VoCat: one MANAGE CHANNEL slot, an orphan is 6A81 until it is closed
	ChannelLe01: true, // VoCat: with Le 00 the channel opens and SELECT fails
	// lpac#186: blocks of more than 120 bytes end in ERROR. The line of such a block is +CSIM=250,"…" with 263 characters.
	MaxLine:        270,
	ICCIDPadded:    true, // manual of AT+QCCID: 20 digits
	SIMBusyText:    true,
	NoRefresh:      true, // Ours: VoCat powers the SIM down and up after each switch, so nothing is lost by it
	CFUN4DropsSIM:  true, // VoCat: AT+CFUN=0 and 1, or 4 and 1
	CFUN0HangsUp:   true, // VoCat#109: AT+CFUN may take the port away before it has answered
	CFUNUnanswered: true,
	ResetHangsUp:   true,
	URCs:           quectelURCs[3:],
	Delays:         quick,
}

// QuectelEC20MBN is an EC20 that keeps the old operator's carrier
// configuration after a switch (VoCat#110), and needs to be told better.
var QuectelEC20MBN = func() Dialect {
	d := QuectelEC20
	d.Name, d.CarrierConfig = "quectel-ec20-mbn", true
	d.Has = append(slices.Clone(d.Has), "+QMBNCFG")
	return d
}()

// QuectelEG25 does everything by AT+CCHO and nothing on logical channels by
// AT+CSIM. It follows a switch by itself; a REFRESH makes it leave the USB for a
// moment.
var QuectelEG25 = Dialect{
	Name: "quectel-eg25", Manufacturer: "Quectel", Model: "EG25-G", Revision: "EG25GGBR07A08M2G", IMEI: "867698040000015", Plugin: "quectel",
	USB:            quectelUSB("0125", "EG25-G"),
	Has:            []string{"+QCCID", "+QPOWD", "+QUIMSLOT"},
	NoCSIMChannels: true, // lpac#164: channels open, but a command on them fails
	ICCIDPadded:    true,
	SIMBusyText:    true,
	Follows:        true, // openpilot#37771: in about 2 s, with or without the refresh flag
	RefreshHangsUp: true, // agnos#556: refreshFlag 1 may re-enumerate the USB device
	ResetHangsUp:   true,
	URCs:           quectelURCs,
	Delays:         quick,
}

// QuectelEG9x is an EG916Q-GL: it never sees that the card changed, and
// AT+CFUN=0, which would help, drops its serial port.
var QuectelEG9x = Dialect{
	Name: "quectel-eg9x", Manufacturer: "Quectel", Model: "EG916Q-GL", Revision: "EG916QGLLGR01A01M08", IMEI: "861076080000013", Plugin: "quectel",
	USB:            quectelUSB("6007", "EG916Q"),
	Has:            []string{"+QCCID", "+QPOWD", "+QUIMSLOT"},
	NoCRSM:         []int{efICCID}, // openpilot: AT+CRSM cannot read the ICCID
	ICCIDPadded:    true,
	SIMBusyText:    true,
	NoRefresh:      true, // openpilot: no SIM presence pin, CFUN 0 and 1 is needed after a switch
	CFUN0HangsUp:   true, // openpilot writes CFUN=0 and CFUN=1 in one go and opens the port again
	CFUNUnanswered: true, // Ours
	ResetHangsUp:   true,
	Renames:        true, // Ours
	URCs:           quectelURCs[3:],
	Delays:         quick,
}

// QuectelRM5xx is an RM520N-GL: AT+CCHO and AT+CSIM work, it follows a REFRESH
// and says so; AT+CFUN=0 restarts it, and it comes back under other names.
var QuectelRM5xx = Dialect{
	Name: "quectel-rm5xx", Manufacturer: "Quectel", Model: "RM520N-GL", Revision: "RM520NGLAAR03A03M4G", IMEI: "868371050000011", Plugin: "quectel",
	USB:          quectelUSB("0801", "RM520N-GL"),
	Has:          []string{"+QCCID", "+QPOWD", "+QUIMSLOT"},
	ICCIDPadded:  true,
	ICCIDLive:    true, // Ours
	SIMBusyText:  true,
	CFUN0Resets:  true, // a report of RM530N in the vendor's forum
	ResetHangsUp: true,
	Renames:      true, // Ours
	URCs:         quectelURCs,
	Delays:       slower(2500 * time.Millisecond), // 5G modems start slowly
}

// FibocomFM350 answers no test command of the card's, and AT+CCHO with the
// handle alone.
var FibocomFM350 = Dialect{
	Name: "fibocom-fm350", Manufacturer: "Fibocom Wireless Inc.", Model: "FM350-GL", Revision: "81600.0000.00.29.23.06", IMEI: "862146050000010", Plugin: "fibocom",
	// In life it sits on PCIe, or on USB under MediaTek's vendor id, which ModemManager knows with MBIM only: this is the id
	// of Fibocom's, with a product that no rule knows. The plugin chooses by the driver of the network interface, and then
	// dials PPP all the same, as there is no AT+GTRNDIS here.
	USB: USB{Vendor: "2cb7", Product: "01ff", Manufacturer: "Fibocom", ProductString: "FM350-GL", Interfaces: [3]int{2, 3, 4}},
	Has: []string{"+ICCID", "+CPWROFF", "+GTDUALSIM"},
	Answers: map[string]string{ // lpac#442, #300: "=?" is silent
		"+CCHO=?": Silence, "+CGLA=?": Silence, "+CCHC=?": Silence, "+CSIM=?": Silence,
		"%IPSYS?": "OK", // see Generic
	},
	BareCCHO:     true, // lpac#179, #209, #445
	MaxLine:      400,  // Ours, as is the silence: the thread lpac#448 tells of downloads that hang
	Overlong:     OverlongSilent,
	ResetFun:     15, // MM plugins/fibocom
	ResetHangsUp: true,
	URCs: []Unsolicited{ // MM HEAD takes them for a changed SIM, 1.20.4 knows only the second and ignores it
		{At: RefreshStart, Text: "+SIM DROP"}, {At: RefreshEnd, Text: "+SIM READY"}, {At: SIMOn, Text: "+SIM READY"},
	},
	Delays: slower(2 * time.Second),
}

// SIMComSIM7600 refuses AT+CCHO and ignores whatever the card wants; only its
// vendor's reset makes it read the SIM again.
var SIMComSIM7600 = Dialect{
	Name: "simcom-sim7600", Manufacturer: "SIMCOM INCORPORATED", Model: "SIMCOM_SIM7600G-H", Revision: "LE20B04SIM7600G22", IMEI: "868822040000018", Plugin: "simtech",
	// 0 diag, 1 GPS, 2 and 3 AT, 4 audio, 5 net (MM 77-mm-simtech-port-types.rules)
	USB: USB{Vendor: "1e0e", Product: "9001", Manufacturer: "SimTech, Incorporated", ProductString: "SimTech SIM7600", Interfaces: [3]int{2, 3, 5}, NoNet: true},
	Has: []string{"+ICCID", "+CRESET"},
	// lpac#221: opening a channel is denied; lpac#168: there are no eSIM commands.
	Refuses:       map[string]int{"+CCHO": int(cmeNotAllowed), "+CGLA": int(cmeNotAllowed), "+CCHC": int(cmeNotAllowed)},
	MaxLine:       559,  // manual: the command line buffer
	NoRefresh:     true, // lpac#236: it ignores a SIM that changes
	CFUN0KeepsSIM: true, // Ours: so that one modem needs its vendor's command
	ResetHangsUp:  true,
	URCs: []Unsolicited{ // manual; none of them moves MM 1.20.4
		{At: SIMOn, Text: "+CPIN: READY"}, {At: SIMOn, Text: "SMS DONE"}, {At: SIMOn, Text: "PB DONE"}, {At: ModemReady, Text: "RDY"},
	},
	Delays: quick,
}

// SierraMC7455 gives handles of 64 bits in hexadecimal and data without a GET
// RESPONSE; it forgets a SIM only when it is reset.
var SierraMC7455 = Dialect{
	Name: "sierra-mc7455", Manufacturer: "Sierra Wireless, Incorporated", Model: "MC7455", Revision: "SWI9X30C_02.33.03.00", IMEI: "359072060000012", Plugin: "sierra-legacy",
	// 0 diag, 2 NMEA, 3 AT (MM 77-mm-sierra.rules). The real one has a single AT port; the agent's is one more, with no rule.
	// ModemManager's plugin for AT wants the driver sierra; with the real qcserial and qmi_wwan it would talk QMI.
	USB: USB{Vendor: "1199", Product: "9071", Manufacturer: "Sierra Wireless, Incorporated", ProductString: "MC7455", Interfaces: [3]int{3, 4, 8},
		Driver: "sierra", NoNet: true},
	Has:            []string{"!ICCID", "!RESET", "!UIMS", "$QCPDPP"},
	Answers:        map[string]string{"+CGLA=?": "ERROR", "%IPSYS?": "OK"}, // lpac#139; see Generic
	SessionFormat:  "%016x",                                                // lpac#138, #139
	SessionBase:    0x38aa32e,
	InlineResponse: true, // lpac#138: the answer to SELECT comes with its data
	NoRefresh:      true, // Ours, with the next line: the modem for which only a reset helps
	CFUN0KeepsSIM:  true,
	ResetHangsUp:   true,
	Delays:         quick,
}

// TelitLE910 tells of its SIM by #QSS, once asked to, and reads the ICCID from
// the card each time.
var TelitLE910 = Dialect{
	Name: "telit-le910", Manufacturer: "Telit", Model: "LE910C4-EU", Revision: "25.21.660", IMEI: "354658090000016", Plugin: "telit",
	// 0 diag, 3 GPS, 4 and 5 AT (MM 77-mm-telit-port-types.rules)
	USB:       USB{Vendor: "1bc7", Product: "1201", Manufacturer: "Telit", ProductString: "LE910", Interfaces: [3]int{4, 5, 2}, NoNet: true},
	Has:       []string{"#CCID", "#QSS", "#REBOOT", "#BND"},
	CSIMLocks: true, // manual; MM plugins/telit locks for the PIN counters
	ICCIDLive: true, // manual of #CCID: reads the ICCID on the SIM
	// Ours, both: there is no public figure.
	MaxLine: 400, Overlong: OverlongTruncated,
	ResetHangsUp: true,
	URCs: []Unsolicited{ // manual, and MM plugins/telit: a change between 0 and another is a changed SIM
		{At: RefreshStart, Text: "#QSS: 0", Needs: "#QSS=1"}, {At: RefreshStart, Text: "#QSS: 0", Needs: "#QSS=2"},
		{At: RefreshEnd, Text: "#QSS: 1", Needs: "#QSS=1"}, {At: RefreshEnd, Text: "#QSS: 3", Needs: "#QSS=2"},
		{At: SIMGone, Text: "#QSS: 0", Needs: "#QSS=1"}, {At: SIMGone, Text: "#QSS: 0", Needs: "#QSS=2"},
		{At: SIMOn, Text: "#QSS: 1", Needs: "#QSS=1"}, {At: SIMOn, Text: "#QSS: 3", Needs: "#QSS=2"},
		{At: Locked, Text: "#QSS: 0", Needs: "#QSS=1"}, {At: Locked, Text: "#QSS: 0", Needs: "#QSS=2"},
		{At: Unlocked, Text: "#QSS: 1", Needs: "#QSS=1"}, {At: Unlocked, Text: "#QSS: 3", Needs: "#QSS=2"},
	},
	Delays: quick,
}

// Cinterion is a PLS8-E of Thales: it tells of its SIM by ^SCKS, once asked to.
var Cinterion = Dialect{
	Name: "cinterion", Manufacturer: "Cinterion", Model: "PLS8-E", Revision: "REVISION 03.017", IMEI: "356278070000014", Plugin: "cinterion",
	// 0 and 2 AT, 4 GPS (MM 77-mm-cinterion-port-types.rules)
	USB: USB{Vendor: "1e2d", Product: "0061", Manufacturer: "Cinterion", ProductString: "PLS8-E", Interfaces: [3]int{0, 2, 10}, NoNet: true},
	Has: []string{"^SCID", "^SCKS", "^SGAUTH", "^SMSO"},
	URCs: []Unsolicited{ // manual; MM plugins/cinterion probes again at each of them
		{At: RefreshStart, Text: "^SCKS: 0", Needs: "^SCKS=1"}, {At: RefreshEnd, Text: "^SCKS: 1", Needs: "^SCKS=1"},
		{At: SIMGone, Text: "^SCKS: 0", Needs: "^SCKS=1"}, {At: SIMOn, Text: "^SCKS: 1", Needs: "^SCKS=1"},
		{At: ModemReady, Text: "^SYSSTART"},
	},
	ResetHangsUp: true,
	Delays:       quick,
}

// DellDW5821e knows no AT+CCHO, and its eUICC is behind the second slot.
var DellDW5821e = Dialect{
	Name: "dell-dw5821e", Manufacturer: "Dell Inc.", Model: "DW5821e-eSIM Snapdragon X20 LTE", Revision: "T77W968.F1.0.0.5.2.GC.013", IMEI: "862146040000018", Plugin: "dell",
	// 2 and 3 AT, 4 GPS, 5 diag (MM 77-mm-dell-port-types.rules)
	USB:          USB{Vendor: "413c", Product: "81e0", Manufacturer: "Dell Inc.", ProductString: "DW5821e-eSIM", Interfaces: [3]int{2, 3, 0}, NoNet: true},
	Has:          []string{"+ICCID", "^SWITCH_SLOT"},  // lpac#182, #184
	Lacks:        []string{"+CCHO", "+CGLA", "+CCHC"}, // lpac#164
	ResetHangsUp: true,
	Delays:       quick,
}
