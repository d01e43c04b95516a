package params

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"lpad/internal/redact"
	"lpad/modem"
)

// apns reads the list. Every purpose belongs to one entry at most.
func (r *reader) apns(n *node, o Options) []APN {
	var taken []Purpose
	return list(r, n, maxAPNs, func(n *node) APN {
		a := r.apn(n, o)
		for _, p := range a.Purposes {
			if slices.Contains(taken, p) {
				r.fail(n, "is a second access point for the purpose %s", p)
			}
			taken = append(taken, p)
		}
		return a
	})
}

func (r *reader) apn(n *node, o Options) APN {
	var a APN
	if _, ok := n.value.(*object); !ok {
		r.fail(n, "is not an object")
		return a
	}
	pdn := []string{pdnV4, pdnV6, pdnV4V6, pdnNonIP}
	r.members(n, map[string]func(*node){
		"name":           func(n *node) { a.Name = r.apnName(n) },
		"purposes":       func(n *node) { set(n, &a.Purposes, r.purposes) },
		"pdnType":        func(n *node) { set(n, &a.PDNType, func(n *node) string { return r.word(n, pdn...) }) },
		"pdnTypeRoaming": func(n *node) { set(n, &a.PDNTypeRoaming, func(n *node) string { return r.word(n, pdn...) }) },
		"auth": func(n *node) {
			set(n, &a.Auth, func(n *node) string { return r.word(n, "none", "pap", "chap", "pap-or-chap") })
		},
		"user":      func(n *node) { set(n, &a.User, r.credential) },
		"secret":    func(n *node) { set(n, &a.Secret, func(n *node) redact.Secret { return r.secret(n, o) }) },
		"secretRef": func(n *node) { set(n, &a.SecretRef, r.secretRef) },
		"mtu":       func(n *node) { set(n, &a.MTU, func(n *node) int { return int(r.int(n, minMTUv4, maxMTU)) }) },
		"dns":       func(n *node) { set(n, &a.DNS, func(n *node) []netip.Addr { return list(r, n, maxServers, r.addr) }) },
		"routes": func(n *node) {
			set(n, &a.Routes, func(n *node) []netip.Prefix { return list(r, n, maxRoutes, r.prefix) })
		},
	})
	if a.Purposes == nil {
		a.Purposes = []Purpose{PurposeDefault}
	}
	switch {
	case a.Name == "":
		r.fail(n, "has no name")
	case a.MTU > 0 && a.MTU < minMTU && a.PDNType != pdnV4:
		r.fail(n, "has an mtu of %d; less than %d is for pdnType v4 only", a.MTU, minMTU)
	case !a.Secret.IsZero() && a.SecretRef != "":
		r.fail(n, "has both secret and secretRef")
	case a.Auth == "none" && (a.User != "" || !a.Secret.IsZero() || a.SecretRef != ""):
		r.fail(n, "has credentials, but auth is none")
	}
	return a
}

func (r *reader) purposes(n *node) []Purpose {
	items := list(r, n, maxAPNs, func(n *node) Purpose {
		return Purpose(r.word(n, string(PurposeDefault), string(PurposeAttach), string(PurposeIMS), string(PurposeMMS),
			string(PurposeSUPL), string(PurposeDM), string(PurposeFOTA), string(PurposeBootstrap)))
	})
	if len(items) == 0 {
		r.fail(n, "is empty")
	}
	return items
}

func (r *reader) apnName(n *node) string {
	s := r.text(n)
	if err := CheckAPN(s); err != nil {
		r.fail(n, "%v", err)
	}
	return s
}

// CheckAPN reports what is wrong with the name of an access point (TS 23.003,
// section 9.1): 1 to 100 letters, digits, dots and hyphens; not ending in
// .gprs; not beginning with rac, lac, sgsn or rnc, which name parts of the
// network.
func CheckAPN(name string) error {
	lower := strings.ToLower(name)
	switch {
	case name == "" || len(name) > maxName:
		return fmt.Errorf("is not an APN: %d characters, 1 to %d are allowed", len(name), maxName)
	case strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "":
		return fmt.Errorf("is not an APN: only letters, digits, dots and hyphens are allowed")
	case strings.HasSuffix(lower, ".gprs"):
		return fmt.Errorf("is not an APN: it ends in .gprs")
	}
	for _, reserved := range []string{"rac", "lac", "sgsn", "rnc"} {
		if strings.HasPrefix(lower, reserved) {
			return fmt.Errorf("is not an APN: it begins with %s", reserved)
		}
	}
	for label := range strings.SplitSeq(lower, ".") {
		if label == "" || len(label) > maxLabel {
			return fmt.Errorf("is not an APN: a part between dots is empty or longer than %d", maxLabel)
		}
	}
	return nil
}

// credential is a user name or password: printable ASCII without the quotation
// mark, which no AT command can carry.
func (r *reader) credential(n *node) string {
	s := r.text(n)
	if s == "" || len(s) > maxCredential {
		r.fail(n, "is not of 1 to %d characters", maxCredential)
	}
	for _, c := range s {
		if c < ' ' || c > '~' || c == '"' {
			r.fail(n, "holds a character that modems do not take")
			return ""
		}
	}
	return s
}

func (r *reader) secret(n *node, o Options) redact.Secret {
	if !o.Confidential {
		r.fail(n, "is a password in a document that others can read; use secretRef")
		return redact.Secret{}
	}
	return redact.NewSecret(r.credential(n))
}

func (r *reader) addr(n *node) netip.Addr {
	a, err := netip.ParseAddr(r.text(n))
	if err != nil || a.Zone() != "" {
		r.fail(n, "is not an IP address")
	}
	return a
}

func (r *reader) prefix(n *node) netip.Prefix {
	p, err := netip.ParsePrefix(r.text(n))
	if err != nil || p != p.Masked() {
		r.fail(n, "is not a network such as 10.0.0.0/8")
	}
	return p
}

// ipTypes translates the types that carry IP.
var ipTypes = map[string]modem.IPType{"": "", pdnV4: modem.IPv4, pdnV6: modem.IPv6, pdnV4V6: modem.IPv4v6}

// usable says whether a modem's data connection can be made of the entry, and
// why not.
func (a APN) usable(secrets map[string]redact.Secret) (reason string) {
	if _, ok := ipTypes[a.PDNType]; !ok {
		return "the type " + a.PDNType + " carries no IP"
	}
	if _, ok := secrets[a.SecretRef]; a.SecretRef != "" && !ok {
		return "the password " + a.SecretRef + " cannot be read"
	}
	return ""
}

// modem translates the entry into the words of the modem.
func (a APN) modem(secrets map[string]redact.Secret, allowRoaming *bool) modem.APN {
	m := modem.APN{Name: a.Name, Type: ipTypes[a.PDNType], RoamingType: ipTypes[a.PDNTypeRoaming], Auth: modem.Auth(a.Auth),
		User: a.User, Password: a.Secret, MTU: a.MTU, DNS: a.DNS, Routes: a.Routes, AllowRoaming: allowRoaming}
	if a.SecretRef != "" {
		m.Password = secrets[a.SecretRef]
	}
	return m
}
