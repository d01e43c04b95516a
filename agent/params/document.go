package params

import (
	"encoding/hex"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"lpad/agent/rsp"
	"lpad/internal/redact"
)

// Version is the version of the document's form that is read.
const Version = 1

// Opt is a member of a document: absent (the zero value, no opinion), null
// (unset, stops lower sources), or a value.
type Opt[T any] struct {
	Value T
	State State
}

// State says whether a member is there.
type State uint8

// The states of a member.
const (
	Absent State = iota
	Null
	Set
)

// Document is one document of terminal parameters.
type Document struct {
	Generation int64 // the higher replaces the lower, within one source
	Scope      Scope

	APNs           Opt[[]APN]
	DataRoaming    Opt[bool]     // roaming.data
	HomeOnly       Opt[bool]     // roaming.homeOnly
	PreferredPLMNs Opt[[]string] // roaming.preferredPlmns
	RATs           Opt[[]string] // radio.rats
	LTEBands       Opt[[]int]    // radio.lteBands
	EDRXLTE        Opt[EDRX]     // radio.edrx.lte
	EDRXNBIoT      Opt[EDRX]     // radio.edrx.nb-iot
	PSM            Opt[PSM]      // radio.psm
	SMSC           Opt[string]   // sms.smsc
	ECS            Opt[string]   // servers.ecs
	CMP            Opt[string]   // servers.cmp
	SMDS           Opt[string]   // servers.smds
	Bootstrap      Opt[[]string] // servers.bootstrap
	Checks         Opt[[]string] // connectivity.checks
	Retry          Opt[[]int]    // connectivity.retry, seconds

	Limits *Limits // nil: none; only the maker's count

	Ignored []string // JSON pointers to members that are not known
}

// Purpose is what an access point is for.
type Purpose string

// The purposes.
const (
	PurposeDefault   Purpose = "default"
	PurposeAttach    Purpose = "ia" // initial attach
	PurposeIMS       Purpose = "ims"
	PurposeMMS       Purpose = "mms"
	PurposeSUPL      Purpose = "supl"
	PurposeDM        Purpose = "dm"
	PurposeFOTA      Purpose = "fota"
	PurposeBootstrap Purpose = "bootstrap"
)

// PDN types of a document.
const (
	pdnNonIP = "non-ip"
	pdnV4    = "v4"
	pdnV6    = "v6"
	pdnV4V6  = "v4v6"
)

// APN is an access point of a document.
type APN struct {
	Name           string         `json:"name"`
	Purposes       []Purpose      `json:"purposes"`
	PDNType        string         `json:"pdnType,omitempty"`        // "non-ip", "v4", "v6", "v4v6"; empty: the device's choice
	PDNTypeRoaming string         `json:"pdnTypeRoaming,omitempty"` // empty: as at home
	Auth           string         `json:"auth,omitempty"`           // "none", "pap", "chap", "pap-or-chap"; empty: by the presence of a user
	User           string         `json:"user,omitempty"`
	Secret         redact.Secret  `json:"secret,omitzero"`     // only in a confidential document
	SecretRef      string         `json:"secretRef,omitempty"` // "file:/path"
	MTU            int            `json:"mtu,omitempty"`       // bytes; 0: the network's
	DNS            []netip.Addr   `json:"dns,omitempty"`
	Routes         []netip.Prefix `json:"routes,omitempty"`
}

// EDRX is a cycle of extended discontinuous reception, as +CEDRXS and TS
// 24.008, section 10.5.5.32 count it.
type EDRX struct {
	Value int  `json:"value"`         // 0 to 15
	PTW   *int `json:"ptw,omitempty"` // paging time window, 0 to 15; nil: the network's
}

// PSM is power saving mode.
type PSM struct {
	TAUSeconds    int64 `json:"tauSeconds"`    // T3412 extended
	ActiveSeconds int64 `json:"activeSeconds"` // T3324
}

// Bounds of values, with their reasons.
const (
	maxAPNs       = 8
	maxName       = 100 // TS 23.003, section 9.1
	maxLabel      = 63
	maxCredential = 127 // what modems take in +CGAUTH
	minMTU        = 1280
	minMTUv4      = 576
	maxMTU        = 9000
	maxServers    = 4
	maxRoutes     = 16
	maxPLMNs      = 32
	maxBands      = 96 // what the TLV form can name
	maxBand       = 255
	maxChecks     = 8
	maxRetries    = 16
	maxRetry      = 86400
	maxGeneration = 1<<31 - 1
	maxTAU        = 31 * 320 * 3600 // GPRS timer 3: 31 units of 320 hours
	maxActive     = 31 * 360        // GPRS timer 2: 31 units of 6 minutes
	maxIMSI       = 15
	maxICCID      = 20
	maxGID        = 32 // hexadecimal digits
	maxHost       = 253
	maxPath       = 255
)

// Options say how a document came.
type Options struct {
	// Confidential allows passwords in it: the way it came is read by nobody
	// else.
	Confidential bool
	// Limit bounds the document, in bytes; 0: 64 KiB.
	Limit int
}

// Parse reads a document. The error is a [*DocumentError].
func Parse(text []byte, o Options) (*Document, error) {
	if o.Limit > 0 && len(text) > o.Limit {
		return nil, refuse("", "longer than %d bytes", o.Limit)
	}
	root, err := parseJSON(text)
	if err != nil {
		return nil, err
	}
	if _, ok := root.value.(*object); !ok {
		return nil, refuse("", "is not an object")
	}
	r := &reader{}
	d := &Document{}
	version := int64(0)
	r.members(root, map[string]func(*node){
		"version":    func(n *node) { version = r.int(n, 1, Version) },
		"generation": func(n *node) { set(n, &d.Generation, func(n *node) int64 { return r.int(n, 0, maxGeneration) }) },
		"scope":      func(n *node) { r.scope(n, &d.Scope) },
		"apns":       func(n *node) { opt(r, n, &d.APNs, func(n *node) []APN { return r.apns(n, o) }) },
		"roaming":    func(n *node) { r.roaming(n, d) },
		"radio":      func(n *node) { r.radio(n, d) },
		"sms": func(n *node) {
			r.members(n, map[string]func(*node){"smsc": func(n *node) { opt(r, n, &d.SMSC, r.smsc) }})
		},
		"servers":      func(n *node) { r.servers(n, d) },
		"connectivity": func(n *node) { r.connectivity(n, d) },
		"limits":       func(n *node) { set(n, &d.Limits, r.limits) },
	})
	if r.err == nil && version == 0 {
		r.err = refuse("/version", "is missing")
	}
	if r.err != nil {
		return nil, r.err
	}
	d.Ignored = r.ignored
	return d, nil
}

// opt reads a member that may be null.
func opt[T any](r *reader, n *node, to *Opt[T], read func(*node) T) {
	if n.value == nil {
		*to = Opt[T]{State: Null}
		return
	}
	*to = Opt[T]{Value: read(n), State: Set}
}

// set reads a member for which null means the same as absent.
func set[T any](n *node, to *T, read func(*node) T) {
	if n.value != nil {
		*to = read(n)
	}
}

func (r *reader) iccid(n *node) rsp.ICCID {
	c, err := rsp.ParseICCID(r.text(n))
	if err != nil {
		r.fail(n, "is not an ICCID")
	}
	return c
}

func (r *reader) gid(n *node) string {
	s := strings.ToLower(r.text(n))
	if _, err := hex.DecodeString(s); err != nil || s == "" || len(s) > maxGID {
		r.fail(n, "is not hexadecimal of 1 to %d bytes", maxGID/2)
	}
	return s
}

func (r *reader) digits(n *node, low, high int) string {
	s := r.text(n)
	if len(s) < low || len(s) > high || strings.Trim(s, "0123456789") != "" {
		r.fail(n, "is not a text of %d to %d digits", low, high)
	}
	return s
}

func (r *reader) plmn(n *node) string { return r.digits(n, 5, 6) }

func (r *reader) roaming(n *node, d *Document) {
	r.members(n, map[string]func(*node){
		"data":     func(n *node) { opt(r, n, &d.DataRoaming, r.bool) },
		"homeOnly": func(n *node) { opt(r, n, &d.HomeOnly, r.bool) },
		"preferredPlmns": func(n *node) {
			opt(r, n, &d.PreferredPLMNs, func(n *node) []string { return list(r, n, maxPLMNs, r.plmn) })
		},
	})
}

var rats = []string{"gsm", "umts", "lte", "lte-m", "nb-iot", "nr"}

func (r *reader) radio(n *node, d *Document) {
	r.members(n, map[string]func(*node){
		"rats":     func(n *node) { opt(r, n, &d.RATs, r.rats) },
		"lteBands": func(n *node) { opt(r, n, &d.LTEBands, r.bands) },
		"edrx": func(n *node) {
			r.members(n, map[string]func(*node){
				"lte":    func(n *node) { opt(r, n, &d.EDRXLTE, r.edrx) },
				"nb-iot": func(n *node) { opt(r, n, &d.EDRXNBIoT, r.edrx) },
			})
		},
		"psm": func(n *node) { opt(r, n, &d.PSM, r.psm) },
	})
}

func (r *reader) rats(n *node) []string {
	return unique(r, n, list(r, n, len(rats), func(n *node) string { return r.word(n, rats...) }))
}

func (r *reader) bands(n *node) []int {
	return unique(r, n, list(r, n, maxBands, func(n *node) int { return int(r.int(n, 1, maxBand)) }))
}

// unique refuses a list that says something twice, and an empty one: no band
// at all would lock the device out.
func unique[T comparable](r *reader, n *node, items []T) []T {
	if len(items) == 0 {
		r.fail(n, "is empty; write null for no opinion of any source")
	}
	for i, item := range items {
		if slices.Contains(items[:i], item) {
			r.fail(n, "says %v twice", item)
		}
	}
	return items
}

func (r *reader) edrx(n *node) EDRX {
	e := EDRX{Value: -1}
	r.members(n, map[string]func(*node){
		"value": func(n *node) { e.Value = int(r.int(n, 0, 15)) },
		"ptw": func(n *node) {
			ptw := int(r.int(n, 0, 15))
			e.PTW = &ptw
		},
	})
	if e.Value < 0 {
		r.fail(n, "has no value")
	}
	return e
}

func (r *reader) psm(n *node) PSM {
	p := PSM{-1, -1}
	r.members(n, map[string]func(*node){
		"tauSeconds":    func(n *node) { p.TAUSeconds = r.int(n, 0, maxTAU) },
		"activeSeconds": func(n *node) { p.ActiveSeconds = r.int(n, 0, maxActive) },
	})
	if p.TAUSeconds < 0 || p.ActiveSeconds < 0 {
		r.fail(n, "needs tauSeconds and activeSeconds")
	}
	return p
}

func (r *reader) smsc(n *node) string {
	s := r.text(n)
	if digits := strings.TrimPrefix(s, "+"); len(digits) < 3 || len(digits) > 20 || strings.Trim(digits, "0123456789") != "" {
		r.fail(n, "is not a telephone number")
	}
	return s
}

func (r *reader) servers(n *node, d *Document) {
	r.members(n, map[string]func(*node){
		"ecs":  func(n *node) { opt(r, n, &d.ECS, r.host) },
		"cmp":  func(n *node) { opt(r, n, &d.CMP, r.host) },
		"smds": func(n *node) { opt(r, n, &d.SMDS, r.host) },
		"bootstrap": func(n *node) {
			opt(r, n, &d.Bootstrap, func(n *node) []string { return list(r, n, maxServers, r.host) })
		},
	})
}

func (r *reader) host(n *node) string {
	s := r.text(n)
	if len(s) > maxHost || rsp.CheckAddress(s) != nil {
		r.fail(n, "is not a full domain name")
	}
	return s
}

func (r *reader) connectivity(n *node, d *Document) {
	r.members(n, map[string]func(*node){
		"checks": func(n *node) {
			opt(r, n, &d.Checks, func(n *node) []string { return list(r, n, maxChecks, r.check) })
		},
		"retry": func(n *node) {
			opt(r, n, &d.Retry, func(n *node) []int {
				return list(r, n, maxRetries, func(n *node) int { return int(r.int(n, 1, maxRetry)) })
			})
		},
	})
}

// check is a target of a probe: https://host/path, tcp://host:port, mqtt://host,
// mqtts://host or dns:name.
func (r *reader) check(n *node) string {
	s := r.text(n)
	if len(s) > maxPath {
		r.fail(n, "is longer than %d bytes", maxPath)
		return ""
	}
	if name, ok := strings.CutPrefix(s, "dns:"); ok {
		if rsp.CheckAddress(name) != nil {
			r.fail(n, "does not name a domain")
		}
		return s
	}
	u, err := url.Parse(s)
	ok := err == nil && u.User == nil && u.Hostname() != ""
	switch {
	case !ok:
	case u.Scheme == "https", u.Scheme == "mqtt", u.Scheme == "mqtts":
	case u.Scheme == "tcp":
		_, port, err := net.SplitHostPort(u.Host)
		number, portErr := strconv.ParseUint(port, 10, 16)
		ok = err == nil && portErr == nil && number > 0 && u.Path == "" && u.RawQuery == ""
	default:
		ok = false
	}
	if !ok {
		r.fail(n, "is none of https://host/path, tcp://host:port, mqtt://host, mqtts://host, dns:name")
	}
	return s
}

// SecretRefs lists the references to passwords, each once.
func (d *Document) SecretRefs() []string {
	var refs []string
	for _, a := range d.APNs.Value {
		if a.SecretRef != "" && !slices.Contains(refs, a.SecretRef) {
			refs = append(refs, a.SecretRef)
		}
	}
	return refs
}

// secretRef accepts a file by its absolute, clean path.
func (r *reader) secretRef(n *node) string {
	s := r.text(n)
	file, ok := strings.CutPrefix(s, "file:")
	if !ok || len(file) > maxPath || !path.IsAbs(file) || path.Clean(file) != file || strings.ContainsRune(file, 0) {
		r.fail(n, "is not of the form file:/path")
	}
	return s
}
