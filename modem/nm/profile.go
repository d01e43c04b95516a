package nm

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
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
	v := dbus.MakeVariant
	s := Settings{
		user: {"data": v(map[string]string{markICCID: d, markPurposes: cmp.Or(strings.Join(apn.Purposes, ","), modem.PurposeDefault)})},
		"connection": {"id": v(IDPrefix + d[max(0, len(d)-idDigits):]), "uuid": v(UUID(iccid)), "type": v(gsm),
			"autoconnect-priority": v(priority),
			retries:                v(keptRetries)},
		gsm:    {},
		"ipv4": {"method": v("auto")},
		"ipv6": {"method": v("auto")},
	}
	g := s[gsm]
	if apn.Name != "" {
		g["apn"] = v(apn.Name)
	}
	if apn.User != "" {
		g["username"] = v(apn.User)
	}
	if !apn.Password.IsZero() {
		g["password"] = v(apn.Password.Reveal())
	}
	if apn.AllowRoaming != nil && !*apn.AllowRoaming {
		g["home-only"] = v(true)
	}
	if apn.MTU > 0 {
		g["mtu"] = v(uint32(apn.MTU))
	}
	// No sim-id: it is compared as text with what ModemManager makes of the
	// ICCID, and guards nothing when it would have to.
	switch apn.Type {
	case modem.IPv4:
		s["ipv6"]["method"] = v("disabled")
	case modem.IPv6:
		s["ipv4"]["method"] = v("disabled")
	}
	addAuth(s, apn)
	addDNS(s, apn)
	addRoutes(s, apn)
	return s
}

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
	c, v := s["connection"], dbus.MakeVariant
	name := strings.Join(apn.Purposes, "-")
	c["id"], c["uuid"] = v(s.Text("connection", "id")+"-"+name), v(UUID(digits(iccid)+"/"+name))
	c["autoconnect"] = v(false)
	delete(c, "autoconnect-priority")
	delete(c, retries)
	for _, family := range []string{"ipv4", "ipv6"} {
		if s[family]["method"].Value() == "auto" {
			s[family]["never-default"], s[family]["route-metric"] = v(true), v(secondMetric)
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

// addAuth names the one method that is allowed; NetworkManager takes it from
// the PPP setting also for modems that need no PPP.
func addAuth(s Settings, apn modem.APN) {
	refuse := []string{"refuse-eap", "refuse-mschap", "refuse-mschapv2"}
	switch apn.Auth {
	case modem.AuthPAP:
		refuse = append(refuse, "refuse-chap")
	case modem.AuthCHAP:
		refuse = append(refuse, "refuse-pap")
	case modem.AuthPAPOrCHAP:
	default:
		return
	}
	s["ppp"] = map[string]dbus.Variant{}
	for _, r := range refuse {
		s["ppp"][r] = dbus.MakeVariant(true)
	}
}

// addDNS gives our resolvers instead of the network's.
func addDNS(s Settings, apn modem.APN) {
	var v4 []uint32
	var v6 [][]byte
	for _, a := range apn.DNS {
		if a = a.Unmap(); a.Is4() {
			b := a.As4()
			// in network byte order, whatever the machine's
			v4 = append(v4, nativeUint32(b))
		} else {
			v6 = append(v6, a.AsSlice())
		}
	}
	if len(v4) > 0 && s["ipv4"]["method"].Value() == "auto" {
		s["ipv4"]["dns"], s["ipv4"]["ignore-auto-dns"] = dbus.MakeVariant(v4), dbus.MakeVariant(true)
	}
	if len(v6) > 0 && s["ipv6"]["method"].Value() == "auto" {
		s["ipv6"]["dns"], s["ipv6"]["ignore-auto-dns"] = dbus.MakeVariant(v6), dbus.MakeVariant(true)
	}
}

// addRoutes sends only certain networks over the link, and never the default.
func addRoutes(s Settings, apn modem.APN) {
	var routes = map[string][]map[string]dbus.Variant{}
	for _, r := range apn.Routes {
		family := "ipv6"
		if r.Addr().Is4() {
			family = "ipv4"
		}
		routes[family] = append(routes[family], map[string]dbus.Variant{"dest": dbus.MakeVariant(r.Masked().Addr().String()),
			"prefix": dbus.MakeVariant(uint32(r.Bits()))})
	}
	if len(apn.Routes) == 0 {
		return
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		if s[family]["method"].Value() != "auto" {
			continue
		}
		s[family]["never-default"] = dbus.MakeVariant(true)
		if len(routes[family]) > 0 {
			s[family]["route-data"] = dbus.MakeVariant(routes[family])
		}
	}
}

// nativeUint32 is an IPv4 address as NetworkManager's older properties have
// it: the bytes of the address in memory, read as a number of this machine.
func nativeUint32(b [4]byte) uint32 { return binary.NativeEndian.Uint32(b[:]) }
