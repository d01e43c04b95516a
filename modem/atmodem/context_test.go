package atmodem_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"lpad/modem/at"
	"lpad/modem/at/attest"
	"lpad/modem/atmodem"
)

func TestActivate(t *testing.T) {
	const address = `+CGCONTRDP: 1,5,"iot","10.1.1.2.255.255.255.0","10.1.1.1","10.9.9.9","10.9.9.8"`
	for _, tc := range []struct {
		name string
		r    replies
		want string // addresses, gateways, DNS
		sent string // the activation
		is   error
	}{
		{"up already", replies{"AT+CGACT?": info("+CGACT: 1,1"), "AT+CGCONTRDP=1": info(address)}, "[10.1.1.2/24] [10.1.1.1] [10.9.9.9 10.9.9.8]", "", nil},
		{"down", replies{"AT+CGACT?": info("+CGACT: 1,0", "+CGACT: 2,1"), "AT+CGACT=1,1": info(), "AT+CGCONTRDP=1": info(address)},
			"[10.1.1.2/24] [10.1.1.1] [10.9.9.9 10.9.9.8]", "AT+CGACT=1,1", nil},
		{"address alone", replies{"AT+CGACT?": info("+CGACT: 1,1"), "AT+CGPADDR=1": info(`+CGPADDR: 1,"10.1.1.2"`)}, "[10.1.1.2/32] [] []", "", nil},
		{"IPv6 in bytes", replies{"AT+CGACT?": info("+CGACT: 1,1"), "AT+CGCONTRDP=1": info(`+CGCONTRDP: 1,5,iot,"32.1.13.184.0.0.0.0.0.0.0.0.0.0.0.2.255.255.255.255.255.255.255.255.0.0.0.0.0.0.0.0","254.128.0.0.0.0.0.0.0.0.0.0.0.0.0.1"`)},
			"[2001:db8::2/64] [fe80::1] []", "", nil},
		{"refused, but there", replies{"AT+CGACT?": info("+CGACT: 1,0"), "AT+CGPADDR=1": info(`+CGPADDR: 1,10.1.1.2,"0.0.0.0"`)}, "[10.1.1.2/32] [] []", "AT+CGACT=1,1", nil},
		{"refused", replies{"AT+CGACT?": info("+CGACT: 1,0")}, "[] [] []", "AT+CGACT=1,1", at.ErrError},
		{"another context's", replies{"AT+CGACT?": info("+CGACT: 1,1"), "AT+CGCONTRDP=1": info(strings.Replace(address, " 1,", " 2,", 1))}, "[] [] []", "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent := ""
				conn, _ := attest.Dial(t, func(cmd string) string {
					if strings.HasPrefix(cmd, "AT+CGACT=") {
						sent += cmd
					}
					return tc.r.answer(cmd)
				})
				p, err := atmodem.New(conn).Activate(t.Context(), 1)
				if got := fmt.Sprint(p.Addresses, p.Gateways, p.DNS); got != tc.want || sent != tc.sent {
					t.Errorf("%s after %q, want %s after %q", got, sent, tc.want, tc.sent)
				}
				if (err == nil) != (tc.is == nil) || tc.is != nil && !at.Refused(err) {
					t.Errorf("error %v, want %v", err, tc.is)
				}
			})
		})
	}
}

// FuzzParameters: what comes out are addresses, whatever the modem says.
func FuzzParameters(f *testing.F) {
	for _, s := range []string{`1,5,"iot","10.1.1.2.255.255.255.0","10.1.1.1","10.9.9.9"`, `1,"10.1.1.2"`, `1,5,,"1.2.3.4.255.0.255.0"`, `1,5,,,"::1%eth0"`, "1,", ",,,,,,", "1,0::%0", `1,5,,"` + strings.Repeat("1.", 31) + `1"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := atmodem.ParseParameters([]string{s}, 1)
		for _, a := range append(p.Addresses, atmodem.ParseAddresses([]string{s}, 1)...) {
			if !a.IsValid() || a.Addr().IsUnspecified() {
				t.Errorf("address %v of %q", a, s)
			}
		}
		for _, a := range append(p.Gateways, p.DNS...) {
			if again, err := netip.ParseAddr(a.String()); err != nil || again != a || a.Zone() != "" {
				t.Errorf("address %v of %q", a, s)
			}
		}
	})
}
