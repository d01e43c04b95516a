package nm_test

import (
	"encoding/json"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"lpad/internal/redact"
	"lpad/modem"
	"lpad/modem/nm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// example has a value of every type that a setting can have, as godbus decodes
// it: structs are []any.
var example = nm.Settings{
	"connection": {"id": dbus.MakeVariant("x"), "autoconnect-priority": dbus.MakeVariant(int32(-3)), "timestamp": dbus.MakeVariant(uint64(math.MaxUint64)),
		"permissions": dbus.MakeVariant([]string{})},
	"gsm":  {"mtu": dbus.MakeVariant(uint32(1400)), "home-only": dbus.MakeVariant(true), "b": dbus.MakeVariant(byte(7))},
	"ipv4": {"addresses": dbus.MakeVariant([][]uint32{{1, 24, 0}}), "address-data": dbus.MakeVariant([]map[string]dbus.Variant{{"address": dbus.MakeVariant("10.0.0.1"), "prefix": dbus.MakeVariant(uint32(24))}})},
	"ipv6": {"dns": dbus.MakeVariant([][]byte{{0xFE, 0x80}}),
		"addresses": dbus.MakeVariantWithSignature([][]any{{[]byte{1, 2}, uint32(64), []byte{}}}, dbus.ParseSignatureMust("a(ayuay)")),
		"routes":    dbus.MakeVariantWithSignature([][]any{}, dbus.ParseSignatureMust("a(ayuayu)"))},
	"odd": {"double": dbus.MakeVariant(math.Inf(-1)), "int64": dbus.MakeVariant(int64(math.MinInt64)), "path": dbus.MakeVariant(dbus.ObjectPath("/a")),
		"dict": dbus.MakeVariant(map[string]string{"k": "v"}), "variant": dbus.MakeVariant(dbus.MakeVariant(int16(-1))), "q": dbus.MakeVariant(uint16(65535))},
}

func TestSettingsRoundTrip(t *testing.T) {
	first, err := json.Marshal(example)
	if err != nil {
		t.Fatal(err)
	}
	var back nm.Settings
	if err := json.Unmarshal(first, &back); err != nil {
		t.Fatalf("%s: %v", first, err)
	}
	again, err := json.Marshal(back)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(first), string(again)); diff != "" {
		t.Errorf("not the same bytes (-first +again):\n%s", diff)
	}
	for setting, properties := range example {
		for property, v := range properties {
			got := back[setting][property]
			if got.Signature() != v.Signature() {
				t.Errorf("%s.%s has type %s, want %s", setting, property, got.Signature(), v.Signature())
			}
			if !strings.Contains(v.Signature().String(), "(") && !reflect.DeepEqual(got.Value(), v.Value()) {
				t.Errorf("%s.%s is %#v, want %#v", setting, property, got.Value(), v.Value())
			}
		}
	}
	if !example.Equal(back) {
		t.Error("not equal to itself")
	}
	changed := back.Clone()
	changed["gsm"]["mtu"] = dbus.MakeVariant(int32(1400))
	if example.Equal(changed) {
		t.Error("another type is equal")
	}
	delete(back["connection"], "timestamp")
	if !example.Equal(back) {
		t.Error("the time of the last activation counts")
	}
}

func TestSettingsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no type":          `{"a":{"b":{}}}`,
		"two types":        `{"a":{"b":{"s":"x","u":1}}}`,
		"not a type":       `{"a":{"b":{"Z":1}}}`,
		"two in one":       `{"a":{"b":{"ss":"x"}}}`,
		"open struct":      `{"a":{"b":{"(s":["x"]}}}`,
		"null":             `{"a":{"b":{"s":null}}}`,
		"too few fields":   `{"a":{"b":{"(su)":["x"]}}}`,
		"too many fields":  `{"a":{"b":{"(s)":["x",1]}}}`,
		"number too large": `{"a":{"b":{"y":256}}}`,
		"not a number":     `{"a":{"b":{"t":"-1"}}}`,
		"not a path":       `{"a":{"b":{"o":"a//b"}}}`,
		"file descriptor":  `{"a":{"b":{"h":0}}}`,
		"dict of numbers":  `{"a":{"b":{"a{us}":{}}}}`,
		"deep":             `{"a":{"b":{"v":` + strings.Repeat(`{"v":`, 30) + `{"s":"x"}` + strings.Repeat(`}`, 31) + `}}`,
		"deep arrays":      `{"a":{"b":{"` + strings.Repeat("a", 30) + `s":[]}}}`,
		"large":            `{"a":{"b":{"s":"` + strings.Repeat("x", 1<<20) + `"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			var s nm.Settings
			if err := json.Unmarshal([]byte(text), &s); err == nil {
				t.Errorf("accepted as %v", s)
			}
		})
	}
}

func FuzzSettings(f *testing.F) {
	seed, err := json.Marshal(example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"a":{"b":{"a(ayuay)":[["AQ==",1,""]]}}}`))
	f.Add([]byte(`{"a":{"b":{"aa{sv}":[{"x":{"v":{"d":"NaN"}}}]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s nm.Settings
		if err := json.Unmarshal(b, &s); err != nil {
			return
		}
		once, err := json.Marshal(s)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		var again nm.Settings
		if err := json.Unmarshal(once, &again); err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		twice, err := json.Marshal(again)
		if err != nil || string(once) != string(twice) {
			t.Errorf("%s became %s, %v", once, twice, err)
		}
	})
}

func TestUUID(t *testing.T) {
	a, b := nm.UUID("89440200000000000022"), nm.UUID("89440200000000000023")
	if want := "95a73976-9ba1-5f13-bc6f-87a6174af1ee"; a != want {
		t.Errorf("UUID %s, want %s: connections on devices would not be found again", a, want)
	}
	if a == b || len(a) != 36 || a[14] != '5' || !strings.ContainsRune("89ab", rune(a[19])) {
		t.Errorf("UUIDs %s and %s", a, b)
	}
	if nm.UUID("8944020000000000002F") != nm.UUID("8944020000000000002f") || nm.UUID("8944020000000000002F") != nm.UUID("8944020000000000002") {
		t.Error("the filler counts")
	}
}

func TestForProfile(t *testing.T) {
	no := false
	for _, tc := range []struct {
		name string
		apn  modem.APN
		want string // all settings but connection
	}{
		{"default", modem.APN{}, `{"gsm":{},"ipv4":{"method":{"s":"auto"}},"ipv6":{"method":{"s":"auto"}}}`},
		{"plain", modem.APN{Name: "internet"}, `{"gsm":{"apn":{"s":"internet"}},"ipv4":{"method":{"s":"auto"}},"ipv6":{"method":{"s":"auto"}}}`},
		{"everything", modem.APN{Name: "iot", Type: modem.IPv4, Auth: modem.AuthCHAP, User: "u", Password: redact.NewSecret("p"), MTU: 1400,
			DNS: []netip.Addr{netip.MustParseAddr("2001:db8::1")}, Routes: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8")}, AllowRoaming: &no},
			`{"gsm":{"apn":{"s":"iot"},"home-only":{"b":true},"mtu":{"u":1400},"password":{"s":"p"},"username":{"s":"u"}},` +
				`"ipv4":{"method":{"s":"auto"},"never-default":{"b":true},"route-data":{"aa{sv}":[{"dest":{"s":"10.0.0.0"},"prefix":{"u":8}}]}},` +
				`"ipv6":{"method":{"s":"disabled"}},"ppp":{"refuse-eap":{"b":true},"refuse-mschap":{"b":true},"refuse-mschapv2":{"b":true},"refuse-pap":{"b":true}}}`},
		{"v6, pap", modem.APN{Name: "six", Type: modem.IPv6, Auth: modem.AuthPAP, DNS: []netip.Addr{netip.MustParseAddr("2001:db8::1")}},
			`{"gsm":{"apn":{"s":"six"}},"ipv4":{"method":{"s":"disabled"}},` +
				`"ipv6":{"dns":{"aay":["IAENuAAAAAAAAAAAAAAAAQ=="]},"ignore-auto-dns":{"b":true},"method":{"s":"auto"}},` +
				`"ppp":{"refuse-chap":{"b":true},"refuse-eap":{"b":true},"refuse-mschap":{"b":true},"refuse-mschapv2":{"b":true}}}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := nm.ForProfile("89440200000000000022", tc.apn)
			if s.Text("connection", "id") != "lpad-000022" || s.Text("connection", "uuid") != nm.UUID("89440200000000000022") || !s.Autoconnect() {
				t.Errorf("connection %v", s["connection"])
			}
			if !s.OfProfile("89440200000000000022") || s.OfProfile("8944020000000000002") {
				t.Errorf("marked as %v", s["user"])
			}
			delete(s, "connection")
			delete(s, "user")
			got, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

// A connection for another purpose is from nothing too, never comes up by itself
// and never has the default route.
func TestForPurpose(t *testing.T) {
	const iccid = "89440200000000000022"
	s := nm.ForPurpose(iccid, modem.APN{Name: "m", Type: modem.IPv4, User: "u", Password: redact.NewSecret("p"), Purposes: []string{"mms", "supl"},
		Routes: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}})
	uuid := s.Text("connection", "uuid")
	other := nm.ForPurpose("89440200000000000033", modem.APN{Purposes: []string{"mms", "supl"}}).Text("connection", "uuid")
	if uuid == nm.UUID(iccid) || uuid == other || s.Autoconnect() || !s.OfProfile(iccid) || s.OfProfile("89440200000000000033") {
		t.Errorf("connection %v, %v", s["connection"], s["user"])
	}
	delete(s["connection"], "uuid")
	got, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"connection":{"autoconnect":{"b":false},"id":{"s":"lpad-000022-mms-supl"},"type":{"s":"gsm"}},` +
		`"gsm":{"apn":{"s":"m"},"password":{"s":"p"},"username":{"s":"u"}},` +
		`"ipv4":{"method":{"s":"auto"},"never-default":{"b":true},"route-data":{"aa{sv}":[{"dest":{"s":"10.9.0.0"},"prefix":{"u":16}}]},"route-metric":{"x":"2000"}},` +
		`"ipv6":{"method":{"s":"disabled"}},"user":{"data":{"a{ss}":{"lpad.iccid":"89440200000000000022","lpad.purposes":"mms,supl"}}}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}
