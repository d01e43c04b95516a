package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestParams: documents to TLVs and back, without a daemon.
func TestParams(t *testing.T) {
	const (
		document = `{"version":1,"generation":1,"apns":[{"name":"iot.example","purposes":["default","ia"],"pdnType":"v4v6","pdnTypeRoaming":"v4","auth":"none"}]}`
		e1       = "E11AC003100001E213C10B696F742E6578616D706C65C20103C30131"
		b8       = "B828060A2B06010401868D1F0101" + e1
	)
	file := filepath.Join(t.TempDir(), "document.json")
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	lpactl := func(exit int, in string, args ...string) (string, string) {
		t.Helper()
		var out, errs bytes.Buffer
		args = append([]string{"--socket", "/nonexistent", "params"}, args...)
		if got := run(t.Context(), args, strings.NewReader(in), &out, &errs); got != exit {
			t.Errorf("%q ended with %d, want %d: %s%s", args, got, exit, out.String(), errs.String())
		}
		return out.String(), errs.String()
	}
	for _, tc := range []struct {
		name, in string
		args     []string
		want     string // of standard output
	}{
		{"file", "", []string{"encode", file}, e1 + "\n"},
		{"standard input", document, []string{"encode", "-"}, e1 + "\n"},
		{"B8", document, []string{"encode", "--oid", "1.3.6.1.4.1.99999.1.1"}, b8 + "\n"},
	} {
		if out, errs := lpactl(0, tc.in, tc.args...); out != tc.want || errs != "" {
			t.Errorf("%s: %q, %q", tc.name, out, errs)
		}
	}
	var encoded struct {
		TLV   string
		Bytes int
		OID   string
	}
	out, _ := lpactl(0, document, "encode", "--json", "--oid", "1.3.6.1.4.1.99999.1.1")
	if err := json.Unmarshal([]byte(out), &encoded); err != nil || encoded.TLV != b8 || encoded.Bytes != 42 || encoded.OID == "" {
		t.Errorf("%s, %v", out, err)
	}

	var want bytes.Buffer
	if err := json.Indent(&want, []byte(document), "", "  "); err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]string{"E1": e1, "spaces": e1[:10] + " \n" + strings.ToLower(e1[10:])} {
		if out, errs := lpactl(0, in, "decode"); out != want.String()+"\n" || errs != "" {
			t.Errorf("%s: %q, %q", name, out, errs)
		}
	}
	if out, errs := lpactl(0, "", "decode", b8); out != want.String()+"\n" || !strings.Contains(errs, "1.3.6.1.4.1.99999.1.1") {
		t.Errorf("B8: %q, %q", out, errs)
	}
	if _, errs := lpactl(0, "E107C003100001D000", "decode", "-"); !strings.Contains(errs, "E1/D0 is not known") {
		t.Errorf("unknown element: %q", errs)
	}

	for _, tc := range []struct {
		name, in string
		args     []string
		exit     int
		text     string
	}{
		{"no document", "", []string{"encode"}, 7, "not JSON"},
		{"a bad document", `{"version":1,"apns":[{"name":"a b"}]}`, []string{"encode"}, 7, "/apns/0/name"},
		{"more than a TLV carries", `{"version":1,"servers":{"smds":"a.example.com"}}`, []string{"encode"}, 7, "/servers/smds"},
		{"a bad OID", document, []string{"encode", "--oid", "1.2.x"}, 7, "object identifier"},
		{"too large", strings.Repeat(" ", 70000), []string{"encode"}, 1, "64 KiB"},
		{"no such file", "", []string{"encode", file + "x"}, 1, "no such file"},
		{"two files", "", []string{"encode", file, file}, 2, "--help"},
		{"no hexadecimal", "E1x", []string{"decode"}, 7, "not hexadecimal"},
		{"no object", "C000", []string{"decode"}, 7, "missing"},
		{"a broken object", "", []string{"decode", e1[:20]}, 7, "announced"},
		{"nothing in the B8", "", []string{"decode", "B805800388370A"}, 7, "no terminal parameters"},
		{"no word for it", "", []string{"decode", "E109C003100001E202C100"}, 7, "cannot be written in JSON"},
		{"no such command", "", []string{"frobnicate"}, 2, "frobnicate"},
	} {
		out, errs := lpactl(tc.exit, tc.in, tc.args...)
		if out != "" || !strings.Contains(errs, tc.text) || !strings.Contains(errs, "error: ") {
			t.Errorf("%s: %q, %q", tc.name, out, errs)
		}
	}
	secret := `{"version":1,"apns":[{"name":"a","auth":"pap","user":"u","secret":"sesame"}]}`
	out, errs := lpactl(0, secret, "encode")
	if !strings.Contains(errs, "password") || strings.Contains(errs, "sesame") {
		t.Errorf("a password: %q", errs)
	}
	if back, _ := lpactl(0, out, "decode"); !strings.Contains(back, `"secret": "sesame"`) {
		t.Errorf("a password comes back as %q", back)
	}
}
