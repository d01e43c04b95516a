package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of values, with their reasons.
const (
	minDeadMan    = 5 * time.Second // the quickest modem on a lab bench
	maxDeadMan    = 24 * time.Hour  // a device that stays dark for longer has no dead man
	minWait       = time.Second
	maxTimeout    = 10 * time.Minute // a server that needs longer is gone, and the card's session with it
	maxWait       = 24 * time.Hour
	maxHook       = 5 * time.Minute // a job waits for its hooks
	minBlock      = 16              // below, a download takes thousands of APDUs
	maxBlock      = 255
	minJournal    = 64 << 10 // holds the jobs of one switch
	maxJournal    = 64 << 20
	imeiLength    = 15
	minAID        = 5 // ISO 7816-4
	maxAID        = 16
	maxAIDs       = 16
	maxOIDs       = 8
	maxOID        = 64  // characters; one of 14 bytes has fewer
	maxSocketPath = 107 // sockaddr_un
)

// besideSocket are the files that lpad writes beside its socket.
var besideSocket = []string{"state", "state.new", "channels", "parameters.json"}

var (
	bauds    = []int{9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600}
	atr      = regexp.MustCompile(`^([0-9A-Fa-f?]{2}[ :]?){0,33}[0-9A-Fa-f?]?\*$|^([0-9A-Fa-f?]{2}[ :]?){0,33}$`)
	protocol = regexp.MustCompile(`^gsma/rsp/v[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$`)
	group    = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	// the first arc of an OID is 0 to 2
	dottedOID = regexp.MustCompile(`^[0-2](\.(0|[1-9][0-9]{0,9})){1,20}$`)
	hostName  = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]*[a-z][a-z0-9-]*$`)
)

// Validate reports every value that cannot be right, all at once, as an
// [*Error].
func (c Config) Validate() error { return c.validate(nil) }

func (c Config) validate(origins Origins) error {
	v := validator{origins: origins}
	if c.Version != Version {
		v.fault("version", fmt.Sprintf("%d, want %d", c.Version, Version))
	}
	v.path("state_dir", c.StateDir)
	v.path("socket", c.Socket)
	if len(c.Socket) > maxSocketPath {
		v.fault("socket", fmt.Sprintf("longer than %d bytes, which no socket can be", maxSocketPath))
	}
	for _, name := range besideSocket {
		file := filepath.Join(filepath.Dir(c.Socket), name)
		if dir := filepath.Clean(c.StateDir); dir == file || strings.HasPrefix(dir, file+"/") {
			v.fault("state_dir", fmt.Sprintf("%q is where lpad writes a file beside its socket; choose another folder", cut(c.StateDir)))
		}
	}
	v.oneOf("log.level", c.Log.Level, "error", "warn", "info", "debug", "trace")
	v.oneOf("log.format", c.Log.Format, "text", "json")
	c.validateCards(&v)
	v.oneOf("clock.from_modem", c.Clock.FromModem, "auto", "never")
	v.path("params.provider_db", c.Params.ProviderDB)
	v.path("params.oem_dir", c.Params.OEMDir)
	if len(c.Params.ProfileOIDs) > maxOIDs {
		v.fault("params.profile_oids", fmt.Sprintf("%d entries, at most %d are looked for", len(c.Params.ProfileOIDs), maxOIDs))
	}
	for _, oid := range c.Params.ProfileOIDs {
		if len(oid) > maxOID || !dottedOID.MatchString(oid) {
			v.fault("params.profile_oids", fmt.Sprintf("%q is not an OID such as 1.3.6.1.4.1.99999.1.1", cut(oid)))
		}
	}
	if c.Orders.KeysDir != "" {
		v.path("orders.keys_dir", c.Orders.KeysDir)
	}
	v.oneOf("orders.require", c.Orders.Require, "none", "parameters", "all")
	c.RSP.validate(&v)
	v.group("api.read", c.API.Read)
	v.group("api.operate", c.API.Operate)
	v.group("api.admin", c.API.Admin)
	if c.Reports.URL != "" {
		if err := CheckReportURL(c.Reports.URL); err != nil {
			v.fault("reports.url", err.Error())
		}
	}
	if c.Reports.CA != "" {
		v.path("reports.ca", c.Reports.CA)
	}
	if c.Hooks.Dir != "" {
		v.path("hooks.dir", c.Hooks.Dir)
	}
	if c.Fleet.Dir != "" {
		v.path("fleet.dir", c.Fleet.Dir)
	}
	v.between("hooks.timeout", c.Hooks.Timeout, minWait, maxHook)
	if n := c.Journal.MaxBytes; n < minJournal || n > maxJournal {
		v.fault("journal.max_bytes", fmt.Sprintf("%d is not between %d and %d", n, minJournal, maxJournal))
	}
	return v.faults.err()
}

func (c Card) validate(v *validator) {
	v.oneOf("card.backend", c.Backend, "auto", "pcsc", "at")
	v.oneOf("card.apdu_path", c.APDUPath, "auto", "ccho", "csim")
	if c.PCSCHelper == "" {
		v.fault("card.pcsc_helper", "is empty")
	}
	switch {
	case c.ATPort != "":
		v.path("card.at_port", c.ATPort)
	case c.Backend == "at":
		v.fault("card.at_port", "is empty, but card.backend is at")
	}
	if !atr.MatchString(c.ATR) {
		v.fault("card.atr", "is no answer to reset: hexadecimal, ? for any digit, * at the end for the rest")
	}
	if !slices.Contains(bauds, c.Baud) {
		v.fault("card.baud", fmt.Sprintf("%d is not one of %v", c.Baud, bauds))
	}
	if n := c.BlockSize; n != 0 && (n < minBlock || n > maxBlock) {
		v.fault("card.block_size", fmt.Sprintf("%d is neither 0 nor between %d and %d", n, minBlock, maxBlock))
	}
}

func (n Network) validate(v *validator) {
	v.oneOf("network.backend", n.Backend, "auto", "networkmanager", "modemmanager", "none")
	if n.Hook != "" {
		v.path("network.hook", n.Hook)
	}
	v.between("network.dead_man", n.DeadMan, minDeadMan, maxDeadMan)
	v.between("network.register_timeout", n.RegisterTimeout, minWait, maxWait)
	v.between("network.probe_timeout", n.ProbeTimeout, minWait, maxWait)
	if n.Probe != "" && !validProbe(n.Probe) {
		v.fault("network.probe", "is none of tcp://host:port, tls://host:port, https://host/path, mqtt://host, mqtts://host, dns:name")
	}
}

// validProbe reads the forms of a probe.
func validProbe(s string) bool {
	if name, ok := strings.CutPrefix(s, "dns:"); ok {
		return hostName.MatchString(strings.ToLower(name))
	}
	u, err := url.Parse(s)
	if err != nil || u.User != nil || u.Fragment != "" || u.Hostname() == "" || !validPort(u.Port(), u.Scheme != "tcp") {
		return false
	}
	switch u.Scheme {
	case "tcp", "tls", "mqtt", "mqtts":
		return u.Path == "" && u.RawQuery == ""
	case "https":
		return true
	}
	return false
}

// maxReportURL bounds the address of a receiver of reports, in bytes.
const maxReportURL = 1024

// CheckReportURL refuses what cannot be the address of a receiver of reports.
// The error does not quote it: its path may hold a token.
func CheckReportURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case len(s) > maxReportURL:
		return fmt.Errorf("is longer than %d bytes", maxReportURL)
	case err != nil, u.Opaque != "", strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7F }):
		return errors.New("is no address of the form https://host/path")
	case u.Scheme != "https":
		return errors.New("is not an https address")
	case u.User != nil:
		return errors.New("holds a user name; put a token into the path")
	case u.Fragment != "", !validPort(u.Port(), true), !validReportHost(u.Hostname()):
		return errors.New("is no address of the form https://host/path")
	}
	return nil
}

func validReportHost(h string) bool {
	_, err := netip.ParseAddr(h)
	return err == nil || h == "localhost" || hostName.MatchString(strings.ToLower(h))
}

func validPort(s string, optional bool) bool {
	if s == "" {
		return optional
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

func (r RSP) validate(v *validator) {
	if r.TrustDir != "" {
		v.path("rsp.trust_dir", r.TrustDir)
	}
	if !protocol.MatchString(r.Protocol) {
		v.fault("rsp.protocol", "is not of the form gsma/rsp/v2.2.2")
	}
	switch r.SendIMEI {
	case "auto", "tac-only", "off":
	default:
		if len(r.SendIMEI) != imeiLength || strings.Trim(r.SendIMEI, "0123456789") != "" {
			v.fault("rsp.send_imei", "is none of auto, tac-only, off, nor 15 digits")
		}
	}
	v.oneOf("rsp.consent", r.Consent, "ask", "auto")
	v.between("rsp.consent_timeout", r.ConsentTimeout, minWait, maxWait)
	v.between("rsp.timeout", r.Timeout, minWait, maxTimeout)
	v.between("rsp.notification_retry", r.NotificationRetry, minWait, maxWait)
	v.between("rsp.notification_retry_max", r.NotificationRetryMax, minWait, 7*maxWait)
	v.between("rsp.packet_timeout", r.PacketTimeout, minWait, 90*maxWait)
	if r.NotificationRetry > r.NotificationRetryMax {
		v.fault("rsp.notification_retry", "is longer than rsp.notification_retry_max")
	}
	if len(r.ISDRAIDs) > maxAIDs {
		v.fault("rsp.isdr_aids", fmt.Sprintf("%d entries, at most %d are tried", len(r.ISDRAIDs), maxAIDs))
	}
	for _, aid := range r.ISDRAIDs {
		if b, err := hex.DecodeString(aid); err != nil || len(b) < minAID || len(b) > maxAID {
			v.fault("rsp.isdr_aids", fmt.Sprintf("%q is not hexadecimal of %d to %d bytes", cut(aid), minAID, maxAID))
		}
	}
	for host, to := range r.Addresses {
		if !hostName.MatchString(host) {
			v.fault("rsp.addresses", fmt.Sprintf("%q is not a domain name", cut(host)))
		}
		if !validTarget(to) {
			v.fault("rsp.addresses", fmt.Sprintf("%q is not an address with a port", cut(to)))
		}
	}
}

// validTarget accepts ip:port and host:port.
func validTarget(s string) bool {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Port() > 0
	}
	host, port, err := net.SplitHostPort(s)
	return err == nil && validPort(port, false) && (host == "localhost" || hostName.MatchString(strings.ToLower(host)))
}

// validator collects faults with the origin of each value.
type validator struct {
	origins Origins
	base    string // of the keys: "cards.NAME."
	faults  problems
}

func (v *validator) fault(key, text string) {
	origin, own := v.origins[v.base+key]
	if !own { // of a card: taken over from the top
		origin = v.origins[key]
	}
	if origin == OriginDefault {
		origin = ""
	}
	v.faults.add(v.base+key, origin, text)
}

func (v *validator) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.fault(key, fmt.Sprintf("%q is not one of %s", cut(value), strings.Join(allowed, ", ")))
	}
}

func (v *validator) path(key, value string) {
	if !filepath.IsAbs(value) || strings.ContainsRune(value, 0) {
		v.fault(key, fmt.Sprintf("%q is not an absolute path", cut(value)))
	}
}

func (v *validator) group(key, value string) {
	if value != "" && !group.MatchString(value) {
		v.fault(key, fmt.Sprintf("%q is not the name of a group", cut(value)))
	}
}

func (v *validator) between(key string, value, low, high time.Duration) {
	if value < low || value > high {
		v.fault(key, fmt.Sprintf("%v is not between %v and %v", value, low, high))
	}
}
