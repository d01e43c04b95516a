package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A number is of somebody else's table: a status word of the card, a code of the
// modem or of a server. It means more than the words of an error say, to who
// knows the table; these are the tables.
type number struct {
	Kind   string `json:"kind"`   // sgp22, bpp, es10, sw, cme, http
	Number string `json:"number"` // "8.2.6/3.8", "5/12", "EnableProfile/5", "6A82", "13", "503"
	Means  string `json:"means"`  // in plain words
}

// String returns "SW 6A82: the card has no such file or application".
func (n number) String() string { return tables[n.Kind].short + " " + n.Number + ": " + n.Means }

// tables are the tables: how a line begins that is about one, whose it is, how a
// number of it is written, how a cause quotes one, and what a number means; no
// words for one that is not in the table.
var tables = map[string]struct {
	short, whose string
	form, quoted *regexp.Regexp
	means        func(parts []string) string // of the form
}{
	"sgp22": {"server", "subject and reason of a server (SGP.22, section 5.2.6)",
		regexp.MustCompile(`^([0-9]{1,2}(?:\.[0-9]{1,2}){0,3})/([0-9]{1,2}(?:\.[0-9]{1,2}){0,2})$`),
		regexp.MustCompile(`\(([0-9]{1,2}(?:\.[0-9]{1,2}){0,3})/([0-9]{1,2}(?:\.[0-9]{1,2}){0,2})\)`),
		func(p []string) string { return serverMeans(p[0], p[1]) }},
	"bpp": {"installation", "bppCommandId and errorReason of the card (SGP.22, section 2.5.6)",
		regexp.MustCompile(`^([0-9]{1,3})/([0-9]{1,3})$`),
		regexp.MustCompile(`card: (initialiseSecureChannel|configureISDP|storeMetadata2?|replaceSessionKeys|loadProfileElements) failed: \w+(?:\([0-9]+\))? \(([0-9]{1,3})\)`),
		func(p []string) string { return installationMeans(p[0], p[1]) }},
	"es10": {"card", "result of a function of the card (SGP.22, section 5.7)",
		regexp.MustCompile(`^(?:ES10[abc]\.)?([A-Z][A-Za-z]+|eUICCMemoryReset)/([0-9]{1,3})$`),
		regexp.MustCompile(`ES10[abc]\.(\w+): card: \w+(?:\([0-9]+\))? \(([0-9]{1,3})\)`),
		func(p []string) string { return resultMeans(p[0], p[1]) }},
	"sw": {"SW", "status word of the card (ISO 7816-4, ETSI TS 102 221)",
		regexp.MustCompile(`^([0-9A-Fa-f]{4})$`),
		regexp.MustCompile(`card: ([0-9A-F]{4}) `),
		func(p []string) string { return statusMeans(p[0]) }},
	"cme": {"CME", "+CME ERROR of the modem (3GPP TS 27.007, section 9.2)",
		regexp.MustCompile(`^([0-9]{1,4})$`),
		regexp.MustCompile(`CME ERROR:? ([0-9]{1,4})`),
		func(p []string) string { return modemMeans(p[0]) }},
	"http": {"HTTP", "status of a server that is none of SGP.22",
		regexp.MustCompile(`^([1-5][0-9]{2})$`),
		regexp.MustCompile(`HTTP status ([1-5][0-9]{2})`),
		func(p []string) string { return httpMeans(p[0]) }},
}

// tableOrder is the order of the lines about one error.
var tableOrder = []string{"sgp22", "bpp", "es10", "sw", "cme", "http"}

// maxNumbers are explained of one error.
const maxNumbers = 4

// numbersIn finds the numbers that the chain of causes of a problem quotes.
func numbersIn(detail string) (found []number) {
	seen := map[string]bool{}
	for _, kind := range tableOrder {
		for _, m := range tables[kind].quoted.FindAllStringSubmatch(detail, -1) {
			parts := m[1:]
			if kind == "bpp" {
				parts[0] = commandID(parts[0])
			}
			n := number{kind, strings.Join(parts, "/"), tables[kind].means(parts)}
			if n.Means != "" && !seen[n.String()] && len(found) < maxNumbers {
				seen[n.String()] = true
				found = append(found, n)
			}
		}
	}
	return found
}

// lookUp reads what somebody has typed: a number with the name of its table before
// it, or one whose form tells. One that fits several tables is of all of them.
func lookUp(words []string) (found []number) {
	kind := ""
	if len(words) > 1 {
		if _, ok := tables[strings.ToLower(words[0])]; ok {
			kind, words = strings.ToLower(words[0]), words[1:]
		}
	}
	text := strings.TrimPrefix(strings.TrimPrefix(strings.Join(words, "/"), "0x"), "0X")
	for _, k := range tableOrder {
		if kind != "" && k != kind {
			continue
		}
		if m := tables[k].form.FindStringSubmatch(text); m != nil {
			if k == "cme" && kind == "" && len(text) > 3 {
				continue // a code of some maker, or rather not
			}
			if k == "sw" {
				text = strings.ToUpper(text)
			}
			if means := tables[k].means(m[1:]); means != "" {
				found = append(found, number{k, text, means})
			}
		}
	}
	return found
}

// subjects and reasons of SGP.22, section 5.2.6: together they say what a server
// has against a request. The server's own words are not shown: they may quote a
// matching id.
var (
	subjects = map[string]string{
		"1": "the request", "1.1": "who sends the request", "1.2": "the header of the request", "1.2.1": "the content type of the request",
		"1.2.2": "the protocol version of the request", "1.6": "the function that was called",
		"8": "remote provisioning", "8.1": "the eUICC", "8.1.1": "the EID", "8.1.2": "the certificate of the eUICC's maker",
		"8.1.3": "the certificate of the eUICC", "8.1.4": "the range of EIDs of the eUICC's maker",
		"8.2": "the profile", "8.2.1": "the profile's ICCID", "8.2.5": "the type of profile", "8.2.6": "the matching id (of the activation code)",
		"8.2.7": "the confirmation code", "8.2.8": "the profile's policy rules", "8.2.9": "the profile's description", "8.2.10": "the profile package",
		"8.8": "the SM-DP+", "8.8.1": "the SM-DP+'s address", "8.8.2": "the SM-DP+'s security configuration", "8.8.3": "the version of the specification, at the SM-DP+",
		"8.8.4": "the SM-DP+'s certificate", "8.8.5": "the download order",
		"8.9": "the SM-DS", "8.9.1": "the SM-DS's address", "8.9.2": "the SM-DS's security configuration", "8.9.3": "the version of the specification, at the SM-DS",
		"8.9.4": "the SM-DS's certificate", "8.9.5": "the event record",
		"8.10": "the operation", "8.10.1": "the session (transaction id)", "8.11": "the certificate authority", "8.11.1": "the authority's key",
	}
	reasons = map[string]string{
		"1.1": "unknown", "1.2": "not allowed", "2.1": "malformed", "2.2": "missing, though it must be there", "2.3": "missing, though it must be there in this case",
		"3.1": "not supported", "3.3": "already in use", "3.5": "cannot change to this state", "3.7": "not available", "3.8": "refused", "3.9": "unknown",
		"3.10": "belongs to another one", "3.11": "has changed", "3.12": "does not match",
		"4.2": "failed while it was carried out", "4.3": "stopped with a warning", "4.8": "not enough memory", "4.10": "its time is over",
		"5.1": "cannot be reached", "6.1": "not verified", "6.3": "expired", "6.4": "tried too often",
	}
	// reasonClasses say what can be said of a reason that is in no table.
	reasonClasses = map[string]string{"1": "no access", "2": "form", "3": "a condition is not met", "4": "processing failed", "5": "transport failed", "6": "security"}
)

func serverMeans(subject, reason string) string {
	about, ok := subjects[subject]
	if !ok {
		for s := subject; !ok && strings.Contains(s, "."); about, ok = subjects[s] { // the group that it is of
			s = s[:strings.LastIndexByte(s, '.')]
		}
		if !ok {
			return ""
		}
		about = "something about " + about
	}
	what, ok := reasons[reason]
	if !ok {
		class, _, _ := strings.Cut(reason, ".")
		if what, ok = reasonClasses[class]; !ok {
			return ""
		}
	}
	return about + ": " + what
}

// The steps of an installation and why one fails (SGP.22, section 2.5.6).
var (
	commands = []struct{ name, words string }{
		{"initialiseSecureChannel", "opening the profile package"}, {"configureISDP", "making room for the profile"},
		{"storeMetadata", "storing the profile's description"}, {"storeMetadata2", "storing the profile's description (second part)"},
		{"replaceSessionKeys", "changing to the profile's own keys"}, {"loadProfileElements", "loading the profile itself"},
	}
	installationReasons = map[int]string{
		1: "the card cannot read the package", 2: "the server's signature is wrong", 3: "the package is of another session", 4: "the card does not support the kind of keys",
		5: "the card does not support the kind of operation", 6: "the card does not take profiles of this class (test, provisioning, operational)",
		7: "the structure of a part is wrong, or a part was lost", 8: "a part cannot be decrypted or proven: damaged, lost, twice or in the wrong order",
		9: "a profile with this ICCID is on the card already", 10: "the card has not enough memory", 11: "power or the link to the card was lost",
		12: "the card cannot process an element of the profile", 13: "the profile is not the one that its description announces",
		14: "the key of the test profile is not one for tests", 15: "the card does not allow the profile's policy rules",
		17: "the card takes no enterprise profiles", 18: "the card does not allow the enterprise's rules", 19: "an enterprise profile is not allowed here",
		20: "the enterprise is another one than the card's", 21: "the enterprise's rules are wrong", 22: "the card takes enterprise profiles only", 23: "the card has no local proxy (LPR)",
		26: "the profile's description has a part that the card does not know", 127: "the card does not say why",
	}
)

func commandID(name string) string {
	for i, c := range commands {
		if c.name == name {
			return strconv.Itoa(i)
		}
	}
	return name
}

func installationMeans(command, reason string) string {
	c, err := strconv.Atoi(command)
	r, rerr := strconv.Atoi(reason)
	if err != nil || rerr != nil || c >= len(commands) {
		return ""
	}
	why, ok := installationReasons[r]
	if !ok {
		why = "a reason of a later version of the specification"
	}
	return commands[c].words + ": " + why
}

// Results of the functions of the card, beside 127, which is the same for all.
var (
	functions = map[string]map[int]string{
		"EnableProfile": {1: noProfile, 2: "the profile is enabled already", 3: "a policy rule of the profile in use forbids it", 4: "a test profile is in use: only another one, or the one before it, can be enabled",
			5: catBusy, 6: "a rule of the enterprise forbids it", 7: badCommand, 9: "remote management forbids it", 10: "the card has no free port for it"},
		"DisableProfile":   {1: noProfile, 2: "the profile is disabled already", 3: "a policy rule of the profile forbids it", 5: catBusy, 7: badCommand},
		"DeleteProfile":    {1: noProfile, 2: "the profile is in use: disable it first", 3: "a policy rule of the profile forbids it", 7: badCommand},
		"eUICCMemoryReset": {1: "there is nothing to delete", 5: catBusy},
		"SetNickname":      {1: noProfile},
		"AuthenticateServer": {1: "the server's certificate is not accepted", 2: "the server's signature is wrong", 3: "the card does not support the curve of the server's key", 4: noSession,
			5: "the server's identifier is not accepted", 6: "the server answers another challenge", 7: "no certificate authority in common with the server", 8: "the session is another one",
			9: "a revocation list is missing", 10: "the signature of the revocation list is wrong", 11: "the server's certificate is revoked", 12: "certificate or revocation list is out of date",
			13: "certificate or revocation list is not made as it must be", 14: noProfile},
		"PrepareDownload": {1: "the certificate for the profile package is not accepted", 2: "the server's signature on the offer is wrong", 3: "the card does not support the curve of the server's key",
			4: noSession, 5: "the session is another one"},
		"CancelSession": {5: "the card has no such session any more"},
		"LoadCRL": {1: "the signature of the revocation list is wrong", 2: "the card cannot read the revocation list", 3: "the card has not enough memory", 4: "the card does not know who has issued the revocation list",
			5: "the card has a newer one", 6: "the list that this one adds to is missing"},
		"RemoveNotificationFromList": {1: "there is no such notification"}, "RetrieveNotificationsList": {1: badCommand}, "ListNotification": {1: badCommand},
		"GetProfilesInfo": {1: badCommand}, "SetDefaultDpAddress": {1: badCommand},
	}
)

const (
	noProfile  = "there is no such profile on the card"
	catBusy    = "the card is in a toolkit session with the modem; try again in some seconds"
	badCommand = "the card does not understand the command"
	noSession  = "the card has forgotten the session"
)

func resultMeans(function, result string) string {
	r, err := strconv.Atoi(result)
	if err != nil {
		return ""
	}
	known, ok := functions[function]
	switch {
	case !ok:
		return ""
	case r == 0:
		return function + ": done"
	case r == 127:
		return function + ": the card does not say why"
	case known[r] == "":
		return function + ": a result of a later version of the specification"
	}
	return function + ": " + known[r]
}

// statusWords are looked through from the top: value, under mask.
var statusWords = []struct {
	mask, value uint16
	words       string
}{
	{0xFFFF, 0x9000, "done"},
	{0xFF00, 0x9100, "done, and the card has a command for the modem"},
	{0xFF00, 0x9200, "done, after some tries of its own"},
	{0xFFFF, 0x9300, "the card is busy with the modem (SIM toolkit); try again"},
	{0xFFFF, 0x9862, "authentication error: a key or a check sum is wrong"},
	{0xFF00, 0x9800, "a refusal of old SIM cards"},
	{0xFF00, 0x6100, "done, and the answer is waiting to be fetched"},
	{0xFFFF, 0x6283, "what was selected is switched off"},
	{0xFF00, 0x6200, "a warning; nothing was changed"},
	{0xFFF0, 0x63C0, "wrong; the last digit is the number of tries that are left"},
	{0xFF00, 0x6300, "a warning; something was changed"},
	{0xFF00, 0x6400, "failed; nothing was changed"},
	{0xFFFF, 0x6581, "the card's memory has failed"},
	{0xFF00, 0x6500, "failed; something was changed"},
	{0xFFFF, 0x6601, "the command came damaged: the link to the card is bad, or its blocks are too long"},
	{0xFF00, 0x6600, "a security problem of the card"},
	{0xFFFF, 0x6700, "the length of the command is wrong"},
	{0xFFFF, 0x6881, "the card does not know this channel: it was reset, or the profile was switched"},
	{0xFFFF, 0x6882, "the card has no secure messaging"},
	{0xFFFF, 0x6883, "the card wants the last command of a chain first"},
	{0xFFFF, 0x6884, "the card takes no chains of commands"},
	{0xFF00, 0x6800, "the card has no such function"},
	{0xFFFF, 0x6981, "the command does not fit this kind of file"},
	{0xFFFF, 0x6982, "access is forbidden"},
	{0xFFFF, 0x6983, "the PIN or key is blocked"},
	{0xFFFF, 0x6984, "what was referred to is blocked, or there is no challenge"},
	{0xFFFF, 0x6985, "not now: the card's state does not allow it (after a switch it may want a reset)"},
	{0xFFFF, 0x6986, "not allowed: nothing is selected"},
	{0xFF00, 0x6900, "not allowed"},
	{0xFFFF, 0x6A80, "the data of the command are malformed"},
	{0xFFFF, 0x6A81, "the card does not support it, or no logical channel is left"},
	{0xFFFF, 0x6A82, "the card has no such file or application (for the ISD-R: this is no eUICC)"},
	{0xFFFF, 0x6A83, "the file has no such record"},
	{0xFFFF, 0x6A84, "the card has not enough memory"},
	{0xFFFF, 0x6A86, "the parameters of the command are wrong"},
	{0xFFFF, 0x6A87, "length and parameters of the command do not fit"},
	{0xFFFF, 0x6A88, "the card does not find what was referred to, or the function makes no sense now"},
	{0xFFFF, 0x6A89, "there is one already"},
	{0xFF00, 0x6A00, "the parameters of the command are wrong"},
	{0xFFFF, 0x6B00, "the parameters of the command are wrong"},
	{0xFF00, 0x6C00, "the answer has another length; the last two digits are the right one"},
	{0xFFFF, 0x6D00, "the card does not know the command"},
	{0xFFFF, 0x6E00, "the card does not know this class of commands"},
	{0xFF00, 0x6F00, "the card does not say why (straight after a switch: it was probably reset by it)"},
}

func statusMeans(text string) string {
	sw, err := strconv.ParseUint(text, 16, 16)
	if err != nil {
		return ""
	}
	for _, s := range statusWords {
		if uint16(sw)&s.mask == s.value {
			return s.words
		}
	}
	return ""
}

// modemErrors are the codes of 3GPP TS 27.007, sections 9.2.1 to 9.2.3, in plain words.
// From 101 on they are what the network has refused with.
var modemErrors = map[int]string{
	0: "an internal failure of the modem (after a change of SIM: it has lost the card)", 1: "the modem's phone part does not answer", 2: "the link within the modem is taken",
	3: "the modem does not allow it (for the ISD-R: its firmware keeps eUICCs to itself)", 4: "the modem does not support it",
	5: "the modem is locked to a SIM and wants its code", 6: "the modem is locked to its first SIM and wants its code", 7: "the code of the lock to the first SIM is blocked",
	10: "there is no SIM in the slot", 11: "the SIM wants its PIN", 12: "the PIN is blocked: the SIM wants its PUK", 13: "the SIM failed, or does not answer",
	14: "the SIM is busy", 15: "the modem does not accept this SIM", 16: "the PIN or password is wrong", 17: "the SIM wants its PIN2", 18: "the PIN2 is blocked: the SIM wants its PUK2",
	20: "the memory is full", 21: "there is no such index, context or session", 22: "not found (for a channel: no such application on the card)", 23: "the memory failed",
	24: "a text is too long", 25: "a text has characters that are not allowed", 26: "the number to dial is too long", 27: "the number to dial has characters that are not allowed",
	30: "no network service", 31: "the network did not answer in time", 32: "the network allows emergency calls only",
	40: "the modem is locked to an operator and wants the code", 41: "the code of the operator lock is blocked", 42: "the modem is locked to a part of an operator's network and wants the code",
	43: "the code of that lock is blocked", 44: "the modem is locked to a service provider and wants the code", 45: "the code of the service provider lock is blocked",
	46: "the modem is locked to a company and wants the code", 47: "the code of the company lock is blocked", 48: "the key of hidden entries is wanted",
	49: "the kind of authentication (EAP) is not supported", 50: "the parameters of the command are wrong", 51: "the command is there, but switched off",
	52: "the command was broken off", 53: "the modem is not attached, for its functions are restricted (AT+CFUN)", 54: "the modem may make emergency calls only",
	55: "the modem's functions are restricted (AT+CFUN)", 56: "only numbers of the fixed list may be dialled", 57: "the modem is busy with something else for the moment",
	58: "the language or alphabet is not supported", 59: "a value is not one of those expected", 60: "a system failure of the modem", 61: "data are missing", 62: "calls are barred",
	63: "the message waiting indication could not be subscribed", 100: "the modem does not say why",
	102: "the network does not know this subscription", 103: "the network does not accept this SIM", 104: "the network does not know this subscription here",
	105: "the network does not accept this IMEI", 106: "the network does not accept this device", 107: "no data service for this subscription", 108: "no service at all for this subscription",
	109: "the network has lost the device's identity", 110: "the network has detached the device", 111: "this network is not allowed", 112: "this place is not allowed",
	113: "no roaming at this place", 114: "no data service in this network", 115: "no suitable cell at this place", 116: "a part of the network cannot be reached for the moment",
	117: "the network failed", 118: "no calls in this network", 119: "the network refused the data session with the attach (look at the APN)", 122: "the network is congested",
	124: "broadcast is not possible as asked for", 125: "this closed cell is not allowed", 126: "the network has not enough resources", 127: "the network does not know the APN, or it is missing",
	128: "the network does not know this kind of address (IP type)", 129: "user name or password of the APN is wrong", 130: "the operator's gateway refused the data session",
	131: "the network refused the data session without a reason", 132: "the network does not offer this service (often: the IP type)", 133: "the subscription does not have this service (often: the APN)",
	134: "the service is out of order for the moment", 135: "the number of the data session is in use already", 136: "the data session was ended as asked", 137: "the quality of service was not accepted",
	138: "the call cannot be identified", 139: "calls are out of order for the moment", 140: "the network has no such feature", 141: "a traffic filter makes no sense", 142: "a traffic filter is malformed",
	143: "there is no such data session", 144: "a packet filter makes no sense", 145: "a packet filter is malformed", 146: "there is a data session without filters already", 147: "nobody is in the group any more",
	148: "the network refused the data session and does not say why", 149: "user name or password of the APN is wrong", 150: "the mobile class does not fit", 151: "the last data session must stay",
	171: "the last data session must stay", 172: "a message made no sense", 173: "a part of a message that must be there is wrong", 174: "a kind of message is not known", 175: "a part of a message is wrong",
	176: "an error of the protocol", 177: "the operator has barred the subscription", 178: "no more data sessions are possible", 179: "the APN is not offered in this network or over this radio",
	180: "the way of making sessions is not allowed", 181: "the quality of service is not known", 182: "data over the control plane is congested", 183: "text messages come over data here",
	184: "a transaction has a wrong number", 185: "no data session is up", 186: "a message does not fit the state", 187: "a timer has run out", 188: "a transaction has a wrong number",
	189: "the service is not authorised in this network", 190: "the network failed", 191: "the network wants the session to be made anew", 192: "only IPv4 is allowed", 193: "only IPv6 is allowed",
	194: "only sessions with one kind of address are allowed", 195: "the network asked for the same at once", 196: "only IPv4 and IPv6 together are allowed", 197: "only data without IP are allowed",
	198: "this kind of session is not supported", 199: "the APN does not go with another one that is up", 200: "only one session to this APN's network is allowed", 201: "the network did not get the data of the session",
	202: "there is no such session", 203: "only one session with this APN is allowed", 204: "the network failed badly", 205: "the slice has no resources for this APN (DNN)", 206: "the way of session continuity is not supported",
	207: "the slice has no resources", 208: "a kind of message does not fit the state", 209: "a part of a message is not known", 210: "5G is not allowed", 211: "the area is restricted", 212: "the local network is not available",
	213: "the slice does not know the APN (DNN), or it is missing", 214: "the key set is in use already", 215: "the payload was not forwarded", 216: "5G over Wi-Fi is not allowed", 217: "this network is not authorised",
	218: "the slice does not offer the APN (DNN)", 219: "not enough resources for data", 220: "outside of the area of the local network", 221: "the numbers of a transaction differ", 222: "the data rate for integrity protection is too low",
	223: "a rule of quality makes no sense", 224: "a rule of quality is malformed", 225: "the number of a session of 4G is wrong", 226: "the device is to go to 5G", 227: "the device is to go to 4G",
	228: "not authorised for this private network for the moment", 229: "not authorised for this private network", 230: "only Ethernet is allowed", 231: "not authorised for this closed group", 232: "no slice is available",
	233: "this place is not allowed for a wired line",
}

func modemMeans(text string) string {
	n, err := strconv.Atoi(text)
	if err != nil {
		return ""
	}
	words := modemErrors[n]
	if words == "" && n > 255 {
		words = "a code of the maker of the modem: see its manual"
	}
	return words
}

func httpMeans(text string) string {
	switch text {
	case "401", "403":
		return "the server does not let this device in"
	case "404", "405", "410":
		return "the server does not have this function: it is no server for eSIMs, or the address is wrong"
	case "408", "425", "429", "503":
		return "the server is overloaded or out of order: try again later"
	}
	return map[byte]string{'1': "the server has not answered yet", '2': "done", '3': "the server points to another one, which is not allowed",
		'4': "the server does not accept the request", '5': "the server has failed: try again later"}[text[0]]
}

// stages are the states of a job as a person reads them: what was being done when
// it went wrong.
var stages = map[string]string{
	"queued": "the job was waiting", "authenticating": "card and server were proving themselves to each other", "consent": "the job was waiting for consent",
	"preparing": "the server was packing the profile for this card", "loading": "the profile was being loaded into the card", "reporting": "the installation was being notified over the old network",
	"scheduled": "the switch was waiting for its time", "snapshotting": "the network's settings were being written down", "gating": "the old network was being held",
	"enabling": "the card was being told to enable the profile", "applying": "the network's new settings were being written", "rereading": "the modem was being made to read the SIM again",
	"verifying": "the new network was being proven", "retrying": "the first profile was looking for its network", "committing": "the switch was being made final", "confirming": "the switch was being notified over the new network",
	"rolling-back": "the previous profile was being brought back", "disabling": "the profile was being disabled", "deleting": "the profile was being deleted", "renaming": "the profile was being renamed",
	"cancelling": "the download was being cancelled on both sides", "notifying": "notifications were being sent", "done": "the job had ended", "failed": "the job had ended", "cancelled": "the job had ended",
}

// exitText says by which status lpactl ends with a problem of this code.
func exitText(code string) (string, bool) {
	for _, row := range exitCodes {
		for _, c := range row.codes {
			if c == code {
				return fmt.Sprintf("lpactl ends with %d", row.exit), true
			}
		}
	}
	return "", false
}
