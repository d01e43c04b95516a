package main

import (
	"strings"
	"testing"

	"lpad/agent/api"
)

func TestTrust(t *testing.T) {
	d := newDaemon(t)
	d.trust = api.Trust{CardKnown: true, Dir: "/etc/lpad/trust.d", CardOnly: []string{"CAFE"}, Skipped: []string{"x.pem: holds no PEM certificate"}, Roots: []api.TrustRoot{
		{Name: "CI of the world", KeyID: "ABCD", Until: "2052-01-01", Source: "built-in", OnCard: true},
		{Name: "Test CI", KeyID: "EF01", Source: "/etc/lpad/trust.d/t.pem", Test: true}}}
	const want = `AUTHORITY        UNTIL       CARD  KEY   FROM
CI of the world  2052-01-01  yes   ABCD  built-in
Test CI          ?           no    EF01  /etc/lpad/trust.d/t.pem, TEST: anybody can be a server under it
the card lists CAFE too, which lpad does not know
not believed: x.pem: holds no PEM certificate
others are believed when their certificates are in /etc/lpad/trust.d (reload lpad then)
`
	if exit, out, errs := d.lpactl("", "trust"); exit != 0 || out != want {
		t.Errorf("exit %d\n%s%s", exit, out, errs)
	}
	d.trust.CardKnown = false
	if _, out, _ := d.lpactl("", "trust"); !strings.Contains(out, "2052-01-01  ?     ABCD") {
		t.Errorf("an unknown card: %s", out)
	}
	if exit, out, _ := d.lpactl("", "trust", "--json"); exit != 0 || !strings.Contains(out, `"card_only"`) {
		t.Errorf("--json: exit %d\n%s", exit, out)
	}
}

func TestAPDU(t *testing.T) {
	d := newDaemon(t)
	d.apdus = api.APDUs{Responses: []string{"BF3E009000", "6A88"}}
	exit, out, errs := d.lpactl("", "apdu", "80 e2 91 00", "80F20000", "80F20001", "--force")
	if exit != 0 || out != "BF3E009000\n6A88\n" || !strings.Contains(errs, "1 were not sent") || d.last() != "apdu [80E29100 80F20000 80F20001] force=true" {
		t.Errorf("exit %d; asked %s\n%s%s", exit, d.last(), out, errs)
	}
	if exit, _, _ := d.lpactl("", "apdu"); exit != 2 {
		t.Errorf("no command: exit %d", exit)
	}
}
