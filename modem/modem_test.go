package modem_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"lpad/internal/redact"
	"lpad/modem"
)

func TestPDP(t *testing.T) {
	for _, want := range []modem.IPType{modem.IPv4, modem.IPv6, modem.IPv4v6} {
		if got, ok := modem.ParsePDP(strings.ToLower(want.PDP())); !ok || got != want {
			t.Errorf("ParsePDP(%q) = %q, %v, want %q", want.PDP(), got, ok, want)
		}
	}
	if got := modem.IPType("").PDP(); got != "IPV4V6" {
		t.Errorf("the empty type is written %q, want IPV4V6", got)
	}
	if got, ok := modem.ParsePDP("PPP"); ok {
		t.Errorf("ParsePDP(PPP) = %q, want none", got)
	}
}

func TestAuthMethod(t *testing.T) {
	for _, tc := range []struct {
		name string
		apn  modem.APN
		want modem.Auth
	}{
		{"nothing", modem.APN{Name: "internet"}, modem.AuthNone},
		{"user only", modem.APN{User: "web"}, modem.AuthPAPOrCHAP},
		{"password only", modem.APN{Password: redact.NewSecret("web")}, modem.AuthPAPOrCHAP},
		{"told", modem.APN{User: "web", Auth: modem.AuthCHAP}, modem.AuthCHAP},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.apn.AuthMethod(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestNothingPrivateIsLogged(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	log.Info("x", "modem", modem.Identity{Manufacturer: "Quectel", IMEI: "356938035643809"},
		"sim", modem.SIM{ICCID: "89330100000000000017", IMSI: "001010123456789", PLMN: "00101"},
		"apn", fmt.Sprintf("%+v", modem.APN{Name: "internet", Password: redact.NewSecret("hunter2")}))
	for _, secret := range []string{"356938035643809", "89330100000000000017", "001010123456789", "hunter2"} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("%q is in the log: %s", secret, &b)
		}
	}
	if got := (modem.APN{}).String(); got != "(network default)" {
		t.Errorf("the empty APN prints as %q", got)
	}
	if !modem.RegisteredRoaming.Registered() || modem.Denied.Registered() || !(modem.Link{}).IsZero() {
		t.Error("Registered or IsZero is wrong")
	}
}
