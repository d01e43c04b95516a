// Package modem holds the words in which lpad talks about modems: who a modem
// is, which SIM it shows, where it is registered, which access points it is
// told to use, and the link that comes of it.
//
// There is nothing to start here. The words are used by the AT side
// (modem/at, modem/atmodem), by ModemManager and NetworkManager (modem/mm,
// modem/nm), by the back-ends that put those together (modem/network), and by
// the agent, which declares its own small interfaces in these words. The
// package imports nothing but internal/*, does no I/O and cannot fail.
package modem

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"lpad/internal/redact"
)

// Identity says which modem this is, in its own words (3GPP TS 27.007, +CGMI,
// +CGMM, +CGMR, +CGSN). Any member may be empty.
type Identity struct {
	Manufacturer string // "Quectel"
	Model        string // "EG25"
	Revision     string // of the firmware
	IMEI         string // 15 digits
}

// LogValue prints the IMEI shortened.
func (i Identity) LogValue() slog.Value {
	imei := i.IMEI
	if imei != "" {
		imei = redact.Digits(imei)
	}
	return slog.GroupValue(slog.String("manufacturer", i.Manufacturer), slog.String("model", i.Model),
		slog.String("revision", i.Revision), slog.String("imei", imei))
}

// SIM is the subscription that a modem (not the card) shows at the moment. A
// modem goes on showing the old one after the card has switched, until it
// reads the card again. Any member may be empty: a SIM that waits for its PIN
// hides its IMSI.
type SIM struct {
	ICCID string // digits, without the filler F
	IMSI  string // digits
	PLMN  string // home network: MCC and MNC, 5 or 6 digits
	GID1  string // group identifier level 1, hexadecimal
	SPN   string // service provider name
}

// LogValue prints the identifiers shortened.
func (s SIM) LogValue() slog.Value {
	short := func(id string) string {
		if id == "" {
			return ""
		}
		return redact.Digits(id)
	}
	return slog.GroupValue(slog.String("iccid", short(s.ICCID)), slog.String("imsi", short(s.IMSI)), slog.String("plmn", s.PLMN))
}

// RegistrationState says whether a network has accepted the modem.
type RegistrationState string

// The registration states (3GPP TS 27.007, +CREG, +CEREG, in words).
const (
	RegistrationUnknown RegistrationState = "unknown"
	NotRegistered       RegistrationState = "idle" // and not looking for a network
	Searching           RegistrationState = "searching"
	Denied              RegistrationState = "denied" // the network refuses this subscription
	RegisteredHome      RegistrationState = "home"
	RegisteredRoaming   RegistrationState = "roaming"
)

// Registered reports whether the network serves the modem, at home or roaming.
func (s RegistrationState) Registered() bool { return s == RegisteredHome || s == RegisteredRoaming }

// Registration is what the modem knows of its network.
type Registration struct {
	State    RegistrationState
	PLMN     string // serving network: MCC and MNC, 5 or 6 digits; empty if unknown
	Operator string // its name, as the modem tells it; may be empty
	Access   string // access technology in words: "gsm", "umts", "lte", "5gnr"; may be empty
}

// IPType says which IP versions a context carries. The empty type leaves the
// choice to whoever applies it.
type IPType string

// The types of a context.
const (
	IPv4   IPType = "ipv4"
	IPv6   IPType = "ipv6"
	IPv4v6 IPType = "ipv4v6"
)

// PDP is the type as +CGDCONT writes it (3GPP TS 27.007, section 10.1.1):
// "IP", "IPV6" or "IPV4V6". The empty type is written as IPV4V6, which every
// network may narrow down.
func (t IPType) PDP() string {
	switch t {
	case IPv4:
		return "IP"
	case IPv6:
		return "IPV6"
	}
	return "IPV4V6"
}

// ParsePDP reads the type as +CGDCONT writes it; ok is false for a type that
// carries no IP (PPP, Non-IP, Ethernet).
func ParsePDP(s string) (t IPType, ok bool) {
	switch strings.ToUpper(s) {
	case "IP":
		return IPv4, true
	case "IPV6":
		return IPv6, true
	case "IPV4V6":
		return IPv4v6, true
	}
	return "", false
}

// Auth is the way of proving a user name and password to the network. The
// empty Auth means: PAP or CHAP if there is a user name, none if there is not.
type Auth string

// The ways of authentication.
const (
	AuthNone      Auth = "none"
	AuthPAP       Auth = "pap"
	AuthCHAP      Auth = "chap"
	AuthPAPOrCHAP Auth = "pap-or-chap"
)

// APN is an access point with everything that its operator wants set with it.
// The zero value is the empty APN: the network chooses its default.
type APN struct {
	Name        string         // "internet"; empty: the subscription's default
	Type        IPType         // at home
	RoamingType IPType         // when roaming; empty: as at home
	Auth        Auth           // empty: by the presence of a user name
	User        string         // may be empty
	Password    redact.Secret  // may be zero
	MTU         int            // bytes; 0: what the network says
	DNS         []netip.Addr   // instead of the network's; empty: the network's
	Routes      []netip.Prefix // through this link only; empty: the default route
	// AllowRoaming forbids or allows data on a foreign network; nil leaves the
	// device's own rule alone.
	AllowRoaming *bool
	// Purposes are what it is for (Purpose…); none: [PurposeDefault].
	Purposes []string
}

// The purposes of an access point, in the words of the operator's document.
const (
	PurposeDefault   = "default" // the device's data
	PurposeAttach    = "ia"      // the initial attach
	PurposeIMS       = "ims"
	PurposeMMS       = "mms"
	PurposeSUPL      = "supl"
	PurposeDM        = "dm"
	PurposeFOTA      = "fota"
	PurposeBootstrap = "bootstrap"
)

// For reports whether the access point is for this purpose.
func (a APN) For(purpose string) bool {
	return len(a.Purposes) == 0 && purpose == PurposeDefault || slices.Contains(a.Purposes, purpose)
}

// Radio is what an operator wants of the radio. The zero value, and each zero
// member, is no wish: the modem stays as it is.
type Radio struct {
	RATs           []string // "gsm", "umts", "lte", "lte-m", "nb-iot", "nr"
	LTEBands       []int    // 3GPP TS 36.101: 1, 3, 20, …
	EDRX           []EDRX
	PSM            *PSM
	SMSC           string   // "+491710760000"
	PreferredPLMNs []string // MCC and MNC, 5 or 6 digits, best first
}

// IsZero reports that nothing is wanted.
func (r Radio) IsZero() bool {
	return len(r.RATs)+len(r.LTEBands)+len(r.EDRX)+len(r.PreferredPLMNs) == 0 && r.PSM == nil && r.SMSC == ""
}

// EDRX is extended discontinuous reception on one access technology (3GPP TS
// 24.008, section 10.5.5.32).
type EDRX struct {
	AcT   int  // as +CEDRXS has it: 4 LTE, 5 NB-IoT
	Value int  // of the cycle, 0 to 15
	PTW   *int // of the paging time window, 0 to 15; nil: the modem's
}

// PSM is the power saving mode, in the octets of 3GPP TS 24.008.
type PSM struct {
	TAU    byte // T3412 extended (section 10.5.7.4a)
	Active byte // T3324 (section 10.5.7.3)
}

// Settings are all that an operator wants of a modem for one profile.
type Settings struct {
	Default APN
	Attach  *APN  // of the initial attach; nil: Default
	Others  []APN // of other purposes, best first
	Radio   Radio
}

// AttachAPN is the access point of the initial attach.
func (s *Settings) AttachAPN() *APN {
	if s.Attach != nil {
		return s.Attach
	}
	return &s.Default
}

// NotApplied begins what the back-ends say of a setting that could not be made,
// among the places of those that were: "not applied: mms: no context to spare".
const NotApplied = "not applied: "

// AuthMethod is a.Auth with the empty value resolved.
func (a APN) AuthMethod() Auth {
	if a.Auth != "" {
		return a.Auth
	}
	if a.User == "" && a.Password.IsZero() {
		return AuthNone
	}
	return AuthPAPOrCHAP
}

// String is the name, or "(network default)" for the empty APN.
func (a APN) String() string {
	if a.Name == "" {
		return "(network default)"
	}
	return a.Name
}

// Context is one entry of the modem's own list of packet data contexts
// (+CGDCONT). A modem does not tell the credentials that it holds, so a
// context that was read has none.
type Context struct {
	CID int // 1.., 1 is the context of the initial attach on almost every LTE modem
	APN APN
}

// Link is a network interface that carries the modem's data.
type Link struct {
	Interface string         // "wwan0"; empty: there is no link
	Addresses []netip.Prefix // ours
	DNS       []netip.Addr   // resolvers to be used over it
}

// IsZero reports whether there is no link.
func (l Link) IsZero() bool { return l.Interface == "" }
