package nm

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/godbus/dbus/v5"

	"lpad/modem"
)

// IDPrefix begins the names of lpad's own connections.
const IDPrefix = "lpad-"

// namespace is lpad's own for name-based UUIDs (RFC 9562, section 5.5). It
// must never change: connections on devices are found again by it.
var namespace = [16]byte{0x6c, 0x70, 0x61, 0x64, 0x5e, 0x51, 0x4d, 0x00, 0x90, 0x49, 0x89, 0x01, 0x2f, 0xe2, 0x31, 0x06}

// priority puts lpad's connections before any that somebody left at 0.
const priority = int32(100)

// UUID is that of lpad's own connection for a profile.
func UUID(iccid string) string {
	h := sha1.New() // an identifier, not a protection: version 5 is defined with SHA-1
	h.Write(namespace[:])
	h.Write([]byte(digits(iccid)))
	u := h.Sum(nil)[:16]
	u[6] = u[6]&0x0F | 0x50
	u[8] = u[8]&0x3F | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

func digits(iccid string) string { return strings.TrimRight(strings.ToUpper(iccid), "F") }

// idDigits of the end of the ICCID are in the name of a connection: enough for
// a person to tell the profiles of one card apart.
const idDigits = 6

// retries is how often NetworkManager tries in a row by itself. 0 is "for ever":
// a device in the field has nobody to try again for it.
const (
	retries     = "autoconnect-retries"
	keptRetries = int32(0)
)

// ForProfile makes the settings of lpad's own connection for a profile, from
// nothing: no field of an earlier profile or of a hand-made connection can
// survive in it. NetworkManager may activate it by itself.
func ForProfile(iccid string, apn modem.APN) Settings {
	d := digits(iccid)
	s := Settings{}
	s.put("connection", "id", IDPrefix+d[max(0, len(d)-idDigits):])
	s.put("connection", "uuid", UUID(iccid))
	s.put("connection", "type", gsm)
	s.put("connection", "autoconnect-priority", priority)
	s.put("connection", retries, keptRetries)
	s.put(user, "data", map[string]string{markICCID: d, markPurposes: cmp.Or(strings.Join(apn.Purposes, ","), modem.PurposeDefault)})
	s[gsm] = map[string]dbus.Variant{}
	for _, p := range []struct{ property, value string }{{"apn", apn.Name}, {"username", apn.User}, {"password", apn.Password.Reveal()}} {
		if p.value != "" {
			s.put(gsm, p.property, p.value)
		}
	}
	if apn.AllowRoaming != nil && !*apn.AllowRoaming {
		s.put(gsm, "home-only", true)
	}
	if apn.MTU > 0 {
		s.put(gsm, "mtu", uint32(apn.MTU))
	}
	// No sim-id: it is compared as text with what ModemManager makes of the
	// ICCID, and guards nothing when it would have to.
	for family, other := range map[string]modem.IPType{"ipv4": modem.IPv6, "ipv6": modem.IPv4} {
		method := "auto"
		if apn.Type == other {
			method = "disabled"
		}
		s.put(family, "method", method)
	}
	addAuth(s, apn.Auth)
	addDNS(s, apn.DNS)
	addRoutes(s, apn.Routes)
	return s
}

// put sets a property of settings that are being made.
func (s Settings) put(setting, property string, value any) {
	if s[setting] == nil {
		s[setting] = map[string]dbus.Variant{}
	}
	s[setting][property] = dbus.MakeVariant(value)
}

// auto reports whether the settings have this IP version.
func (s Settings) auto(family string) bool { return s.Text(family, "method") == "auto" }

// The mark of lpad's own connections: user data of a connection (setting "user")
// that NetworkManager keeps and does not look at.
const (
	user         = "user"
	markICCID    = "lpad.iccid"
	markPurposes = "lpad.purposes"
)

// OfProfile reports whether this is a connection of lpad's own for a profile.
func (s Settings) OfProfile(iccid string) bool {
	data, ok := s[user]["data"].Value().(map[string]string)
	return s.Text("connection", "uuid") == UUID(iccid) || ok && data[markICCID] == digits(iccid)
}

// secondMetric is for routes over a connection for other purposes: behind those
// of any that carries the device's data (700 is a modem's).
const secondMetric = int64(2000)

// ForPurpose makes the settings of lpad's own connection for another purpose of
// a profile than the device's data: it never comes up by itself, and never has
// the default route.
func ForPurpose(iccid string, apn modem.APN) Settings {
	s := ForProfile(iccid, apn)
	name := strings.Join(apn.Purposes, "-")
	s.put("connection", "id", s.Text("connection", "id")+"-"+name)
	s.put("connection", "uuid", UUID(digits(iccid)+"/"+name))
	s.put("connection", "autoconnect", false)
	delete(s["connection"], "autoconnect-priority")
	delete(s["connection"], retries)
	for _, family := range families {
		if s.auto(family) {
			s.put(family, "never-default", true)
			s.put(family, "route-metric", secondMetric)
		}
	}
	return s
}

// trialRetries of a connection on trial: NetworkManager brings it back once
// after it was up and went down, and otherwise leaves trying to lpad. One that
// the network refuses would be tried a hundred times a second.
const trialRetries = int32(1)

// OnTrial returns the settings as they are until lpad knows that the connection
// does; see [Client.Keep].
func (s Settings) OnTrial() Settings { return s.with("connection", retries, trialRetries) }

// Keep ends the trial: NetworkManager brings the connection up by itself, for
// ever. Nothing is written if it is so already.
func (c *Client) Keep(ctx context.Context, con Connection) error {
	if con.Settings["connection"][retries].Value() == keptRetries {
		return nil
	}
	return c.update(ctx, con, con.Settings.with("connection", retries, keptRetries), OnDisk)
}

// families are the settings of the IP versions.
var families = []string{"ipv4", "ipv6"}

// addAuth names the one method that is allowed; NetworkManager takes it from
// the PPP setting also for modems that need no PPP.
func addAuth(s Settings, auth modem.Auth) {
	refuse := []string{"refuse-eap", "refuse-mschap", "refuse-mschapv2"}
	switch auth {
	case modem.AuthPAP:
		refuse = append(refuse, "refuse-chap")
	case modem.AuthCHAP:
		refuse = append(refuse, "refuse-pap")
	case modem.AuthPAPOrCHAP:
	default:
		return
	}
	for _, r := range refuse {
		s.put("ppp", r, true)
	}
}

// addDNS gives our resolvers instead of the network's.
func addDNS(s Settings, servers []netip.Addr) {
	var v4 []uint32
	var v6 [][]byte
	for _, a := range servers {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, nativeUint32(a.As4())) // in network byte order, whatever the machine's
		} else {
			v6 = append(v6, a.AsSlice())
		}
	}
	add := func(family string, servers any, n int) {
		if n > 0 && s.auto(family) {
			s.put(family, "dns", servers)
			s.put(family, "ignore-auto-dns", true)
		}
	}
	add("ipv4", v4, len(v4))
	add("ipv6", v6, len(v6))
}

// addRoutes sends only certain networks over the link, and never the default.
func addRoutes(s Settings, list []netip.Prefix) {
	for _, family := range families {
		if len(list) == 0 || !s.auto(family) {
			continue
		}
		s.put(family, "never-default", true)
		var routes []map[string]dbus.Variant
		for _, r := range list {
			if r.Addr().Is4() == (family == "ipv4") {
				routes = append(routes, map[string]dbus.Variant{"dest": dbus.MakeVariant(r.Masked().Addr().String()), "prefix": dbus.MakeVariant(uint32(r.Bits()))})
			}
		}
		if len(routes) > 0 {
			s.put(family, "route-data", routes)
		}
	}
}

// nativeUint32 is an IPv4 address as NetworkManager's older properties have
// it: the bytes of the address in memory, read as a number of this machine.
func nativeUint32(b [4]byte) uint32 { return binary.NativeEndian.Uint32(b[:]) }
