package orders_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lpad/agent/orders"
	"lpad/agent/orders/orderstest"
	"lpad/agent/rsp"
	"lpad/internal/fault"
)

const (
	issuer = "fleet-1"
	eid    = "89049032123451234512345678901235"
	imei   = "356938035643809"
	iccid  = "89440000000000000022"
	header = `{"alg":"ES256","typ":"lpad-order+jwt","kid":"fleet-1"}`
)

var (
	now     = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	signer  = newKey(elliptic.P256())
	other   = newKey(elliptic.P256())
	devices = orders.Device{EID: must(rsp.ParseEID(eid)), IMEI: imei, Model: "EG25"}
)

func newKey(c elliptic.Curve) *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(c, rand.Reader)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// keys is a folder with the signer's key, loaded.
func keys(t testing.TB) orders.Keys {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, issuer+".pem", must(orderstest.PublicPEM(signer)))
	write(t, dir, "fleet-2.pem", must(orderstest.PublicPEM(other)))
	k, err := orders.LoadKeys(dir)
	if err != nil || k.Len() != 2 || len(k.Skipped) != 0 {
		t.Fatalf("keys: %v %d %v", err, k.Len(), k.Skipped)
	}
	return k
}

func write(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// usual is an order that is all right.
func usual() orderstest.Payload {
	return orderstest.Payload{Issuer: issuer, Serial: 7, IssuedAt: now.Unix(), Expires: now.Add(time.Hour).Unix(), EID: eid, Action: "install",
		ActivationCode: "LPA:1$smdp.example.com$M-1", ICCID: iccid, Enable: "now", Parameters: json.RawMessage(`{"version":1, "apns":[]}`),
		ReportTo: "https://reports.example/x"}
}

func TestVerify(t *testing.T) {
	k := keys(t)
	o, err := orders.Verify(must(orderstest.Sign(signer, issuer, usual())), k, now, devices)
	if err != nil {
		t.Fatal(err)
	}
	if o.Issuer != issuer || o.Serial != 7 || o.BySMDP || !o.IssuedAt.Equal(now) || !o.Expires.Equal(now.Add(time.Hour)) || o.Device.EID != devices.EID ||
		o.Action != orders.Install || o.ActivationCode.SMDP != "smdp.example.com" || o.ActivationCode.MatchingID != "M-1" || o.ICCID.String() != iccid ||
		!o.Enable || !o.EnableAt.IsZero() || o.DeleteOld || o.Deletes() || o.ReportTo != "https://reports.example/x" {
		t.Errorf("read as %+v", o)
	}
	if want := `{"version":1,"apns":[]}`; string(o.Parameters) != want { // the JSON of the test compacts it
		t.Errorf("parameters %s, want %s", o.Parameters, want)
	}

	for _, tc := range []struct {
		name   string
		change func(*orderstest.Payload)
		ok     func(orders.Order) bool
	}{
		{"on command", func(p *orderstest.Payload) { p.Enable = "on-command" }, func(o orders.Order) bool { return !o.Enable && o.EnableAt.IsZero() }},
		{"nothing said of enabling", func(p *orderstest.Payload) { p.Enable = "" }, func(o orders.Order) bool { return !o.Enable }},
		{"at a time", func(p *orderstest.Payload) { p.Enable = "2026-12-01T03:00:00+01:00" },
			func(o orders.Order) bool {
				return o.Enable && o.EnableAt.Equal(time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC))
			}},
		{"old profile deleted", func(p *orderstest.Payload) { p.DeleteOld = true }, func(o orders.Order) bool { return o.DeleteOld && o.Deletes() }},
		{"enable", func(p *orderstest.Payload) { p.Action, p.ActivationCode, p.Enable = "enable", "", "" },
			func(o orders.Order) bool {
				return o.Action == orders.Enable && o.Enable && o.ICCID.String() == iccid && o.Parameters != nil
			}},
		{"disable", bare("disable"), func(o orders.Order) bool { return o.Action == orders.Disable && !o.Deletes() }},
		{"delete", bare("delete"), func(o orders.Order) bool { return o.Action == orders.Delete && o.Deletes() }},
		{"no device named", func(p *orderstest.Payload) { p.EID = "" }, nil},
		{"all of the device named", func(p *orderstest.Payload) { p.IMEI, p.TAC, p.Model = imei, imei[:8], "eg25" }, nil},
		{"another check digit of the IMEI", func(p *orderstest.Payload) { p.IMEI = imei[:14] + "0" }, nil},
		{"matching id said again", func(p *orderstest.Payload) { p.MatchingID = "M-1" }, nil},
		{"any profile", func(p *orderstest.Payload) { p.ICCID = "" }, func(o orders.Order) bool { return o.ICCID.IsZero() }},
		{"a clock that is ahead by less than the leeway", func(p *orderstest.Payload) { p.IssuedAt = now.Add(orders.Leeway).Unix() }, nil},
		{"not before", func(p *orderstest.Payload) { p.NotBefore = now.Unix() }, func(o orders.Order) bool { return o.NotBefore.Equal(now) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := usual()
			tc.change(&p)
			o, err := orders.Verify(must(orderstest.Sign(signer, issuer, p)), k, now, devices)
			if err != nil || tc.ok != nil && !tc.ok(o) {
				t.Errorf("%v: %+v", err, o)
			}
		})
	}
}

// bare is an order about a profile that is on the card.
func bare(action string) func(*orderstest.Payload) {
	return func(p *orderstest.Payload) {
		p.Action, p.ActivationCode, p.Enable, p.Parameters = action, "", "", nil
	}
}

// raw signs a header and a payload as they are.
func raw(header, payload string) []byte {
	return must(orderstest.SignRaw(signer, []byte(header), []byte(payload)))
}

func parts(header, payload, signature string) []byte {
	enc := base64.RawURLEncoding.EncodeToString
	return []byte(enc([]byte(header)) + "." + enc([]byte(payload)) + "." + enc([]byte(signature)))
}

// text is the usual payload with a replacement.
func text(old, new string) string {
	b := string(must(json.Marshal(usual())))
	if !strings.Contains(b, old) {
		panic(old + " is not in " + b)
	}
	return strings.Replace(b, old, new, 1)
}

// hostile are orders of which nothing may come, each with its fault.
func hostile() []struct {
	name, code, says string
	jws              []byte
} {
	good := must(orderstest.Sign(signer, issuer, usual()))
	plain := text("{", "{")
	cut := bytes.Split(good, []byte("."))
	flip := bytes.Clone(good)
	if at := len(cut[0]) + 10; flip[at] == 'A' {
		flip[at] = 'B'
	} else {
		flip[at] = 'A'
	}
	mac := hmac.New(sha256.New, must(orderstest.PublicPEM(signer))) // the public key as a shared one
	mac.Write(bytes.Join([][]byte{[]byte(base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(header, "ES256", "HS256", 1)))), cut[1]}, []byte(".")))
	change := func(f func(*orderstest.Payload)) []byte {
		p := usual()
		f(&p)
		return must(orderstest.Sign(signer, issuer, p))
	}
	digest := sha256.Sum256(good[:len(cut[0])+1+len(cut[1])])
	der := must(ecdsa.SignASN1(rand.Reader, signer, digest[:]))
	r, s := split(cut[2])
	zero := make([]byte, 32)
	n := elliptic.P256().Params().N.Bytes()
	with := func(signature []byte) []byte {
		return bytes.Join([][]byte{cut[0], cut[1], []byte(base64.RawURLEncoding.EncodeToString(signature))}, []byte("."))
	}
	spare := bytes.Clone(good) // 64 bytes leave 4 bits in the last character, which must be zero
	alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	spare[len(spare)-1] = alphabet[strings.IndexByte(alphabet, spare[len(spare)-1])|1]
	deep := strings.Repeat("[", 40) + strings.Repeat("]", 40)
	return []struct {
		name, code, says string
		jws              []byte
	}{
		{"nothing", orders.CodeMalformed, "three parts", nil},
		{"no JWS", orders.CodeMalformed, "header", []byte("LPA:1$smdp.example.com$M-1")},
		{"two parts", orders.CodeMalformed, "three parts", good[:len(good)-len(cut[2])-1]},
		{"five parts, as an encrypted one", orders.CodeMalformed, "three parts", append(bytes.Clone(good), []byte(".AA.AA")...)},
		{"JSON serialisation", orders.CodeMalformed, "three parts", []byte(`{"payload":"AA","signatures":[]}`)},
		{"empty parts", orders.CodeHeader, "is not JSON", []byte("..")},
		{"padding", orders.CodeMalformed, "signature", append(bytes.Clone(good), '=', '=')},
		{"a line break behind it", orders.CodeMalformed, "signature", append(bytes.Clone(good), '\n')},
		{"a line break within", orders.CodeMalformed, "payload", bytes.Join([][]byte{cut[0], append(append(bytes.Clone(cut[1][:20]), '\n'), cut[1][20:]...), cut[2]}, []byte("."))},
		{"spare bits", orders.CodeMalformed, "signature", spare},
		{"the alphabet of plain base64", orders.CodeMalformed, "header", append([]byte("+/"), good...)},
		{"1 MB", orders.CodeMalformed, "16384 bytes", bytes.Repeat([]byte("A"), 1<<20)},
		{"1 MB of a payload", orders.CodeMalformed, "16384 bytes", raw(header, text(`"https://reports.example/x"`, `"`+strings.Repeat("x", 1<<20)+`"`))},
		{"a huge header", orders.CodeMalformed, "header", raw(`{"alg":"ES256","kid":"`+strings.Repeat("x", 4096)+`"}`, plain)},
		{"many dots", orders.CodeMalformed, "three parts", bytes.Repeat([]byte("."), 10_000)},

		{"alg none", orders.CodeAlgorithm, `"none"`, parts(`{"alg":"none","typ":"lpad-order+jwt","kid":"fleet-1"}`, plain, "")},
		{"alg None", orders.CodeAlgorithm, `"None"`, parts(`{"alg":"None","typ":"lpad-order+jwt","kid":"fleet-1"}`, plain, "x")},
		{"HS256 with the public key", orders.CodeAlgorithm, `"HS256"`, parts(strings.Replace(header, "ES256", "HS256", 1), plain, string(mac.Sum(nil)))},
		{"ES384", orders.CodeAlgorithm, `"ES384"`, raw(strings.Replace(header, "ES256", "ES384", 1), plain)},
		{"no alg", orders.CodeAlgorithm, `""`, raw(`{"typ":"lpad-order+jwt","kid":"fleet-1"}`, plain)},
		{"alg a list", orders.CodeHeader, "/alg", raw(`{"alg":["ES256"],"typ":"lpad-order+jwt","kid":"fleet-1"}`, plain)},
		{"alg twice", orders.CodeHeader, "/alg is there twice", raw(`{"alg":"none",`+header[1:], plain)},
		{"another case of alg", orders.CodeHeader, "ALG", raw(`{"ALG":"none",`+header[1:], plain)},
		{"unknown critical header", orders.CodeHeader, "crit", raw(`{"crit":["exp"],"exp":1,`+header[1:], plain)},
		{"b64 false", orders.CodeHeader, "b64", raw(`{"b64":false,`+header[1:], plain)},
		{"b64 false, critical", orders.CodeHeader, "b64", raw(`{"b64":false,"crit":["b64"],`+header[1:], plain)},
		{"a key of its own", orders.CodeHeader, "jwk", raw(`{"jwk":{"kty":"EC"},`+header[1:], plain)},
		{"a key to be fetched", orders.CodeHeader, "jku", raw(`{"jku":"https://evil.example/",`+header[1:], plain)},
		{"a chain to be fetched", orders.CodeHeader, "x5u", raw(`{"x5u":"https://evil.example/",`+header[1:], plain)},
		{"a chain of its own", orders.CodeHeader, "x5c", raw(`{"x5c":["MIIB"],`+header[1:], plain)},
		{"another type", orders.CodeHeader, `"JWT"`, raw(strings.Replace(header, "lpad-order+jwt", "JWT", 1), plain)},
		{"no kid", orders.CodeHeader, "kid", raw(`{"alg":"ES256","typ":"lpad-order+jwt"}`, plain)},
		{"kid a path", orders.CodeHeader, "kid", raw(strings.Replace(header, "fleet-1", "../trust.d/ci", 1), plain)},
		{"kid null", orders.CodeHeader, "kid", raw(strings.Replace(header, `"fleet-1"`, "null", 1), plain)},
		{"header a list", orders.CodeHeader, "not an object", raw(`[]`, plain)},
		{"header null", orders.CodeHeader, "not an object", raw(`null`, plain)},
		{"header with something behind it", orders.CodeHeader, "behind", raw(header+"{}", plain)},
		{"header not UTF-8", orders.CodeHeader, "UTF-8", raw("{\"kid\":\"\xff\"}", plain)},

		{"a kid that nobody knows", orders.CodeKey, "fleet-9", raw(strings.Replace(header, "fleet-1", "fleet-9", 1), plain)},
		{"the key of another operator", orders.CodeSignature, "does not fit", must(orderstest.Sign(other, issuer, usual()))},
		{"a payload that was changed", orders.CodeSignature, "does not fit", flip},
		{"a header that was written anew", orders.CodeSignature, "does not fit",
			bytes.Join([][]byte{[]byte(base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"lpad-order+jwt","kid":"fleet-1","alg":"ES256"}`))), cut[1], cut[2]}, []byte("."))},
		{"no signature", orders.CodeSignature, "0 bytes", bytes.Join([][]byte{cut[0], cut[1], nil}, []byte("."))},
		{"DER", orders.CodeSignature, "in DER", with(der)},
		{"half a signature", orders.CodeSignature, "32 bytes, not 64", with(r)},
		{"of P-384", orders.CodeSignature, "96 bytes", must(orderstest.Sign(newKey(elliptic.P384()), issuer, usual()))},
		{"r and s zero", orders.CodeSignature, "does not fit", with(append(bytes.Clone(zero), zero...))},
		{"r zero", orders.CodeSignature, "does not fit", with(append(bytes.Clone(zero), s...))},
		{"s the order of the group", orders.CodeSignature, "does not fit", with(append(bytes.Clone(r), n...))},
		{"r the order of the group", orders.CodeSignature, "does not fit", with(append(bytes.Clone(n), s...))},
		{"r and s beyond the group", orders.CodeSignature, "does not fit", with(bytes.Repeat([]byte{0xFF}, 64))},
		{"r and s the other way round", orders.CodeSignature, "does not fit", with(append(bytes.Clone(s), r...))},

		{"payload no JSON", orders.CodeInvalid, "not JSON", raw(header, "hello")},
		{"payload not UTF-8", orders.CodeInvalid, "UTF-8", raw(header, "{\"iss\":\"\xff\"}")},
		{"payload null", orders.CodeInvalid, "not an object", raw(header, "null")},
		{"payload cut off", orders.CodeInvalid, "not JSON", raw(header, plain[:len(plain)-1])},
		{"payload twice", orders.CodeInvalid, "behind", raw(header, plain+plain)},
		{"a member twice", orders.CodeInvalid, "/serial is there twice", raw(header, text(`"serial":7`, `"serial":7,"serial":8`))},
		{"a member twice by an escape", orders.CodeInvalid, "/serial is there twice", raw(header, text(`"serial":7`, `"serial":7,"\u0073erial":8`))},
		{"a member of the parameters twice", orders.CodeInvalid, "/parameters/version is there twice", raw(header, text(`"version":1`, `"version":1,"version":1`))},
		{"nested too deep", orders.CodeInvalid, "deeper", raw(header, text(`"apns":[]`, `"apns":`+deep))},
		{"an unknown member", orders.CodeInvalid, "/profileOwner", raw(header, text(`"serial":7`, `"serial":7,"profileOwner":"x"`))},
		{"another case of a member", orders.CodeInvalid, "/Eid", raw(header, text(`"eid"`, `"Eid"`))},
		{"null", orders.CodeInvalid, "/eid is null", raw(header, text(`"eid":"`+eid+`"`, `"eid":null`))},
		{"serial missing", orders.CodeInvalid, "/serial is missing", raw(header, text(`"serial":7,`, ""))},
		{"serial zero", orders.CodeInvalid, "/serial", raw(header, text(`"serial":7`, `"serial":0`))},
		{"serial negative", orders.CodeInvalid, "/serial", raw(header, text(`"serial":7`, `"serial":-7`))},
		{"serial a text", orders.CodeInvalid, "/serial", raw(header, text(`"serial":7`, `"serial":"7"`))},
		{"serial with an exponent", orders.CodeInvalid, "/serial", raw(header, text(`"serial":7`, `"serial":7e3`))},
		{"serial beyond 2^53", orders.CodeInvalid, "/serial", raw(header, text(`"serial":7`, `"serial":9007199254740993`))},
		{"serial huge", orders.CodeInvalid, "/serial", raw(header, text(`"serial":7`, `"serial":`+strings.Repeat("9", 400)))},
		{"serial 2^63", orders.CodeInvalid, "/serial", raw(header, text(`"serial":7`, `"serial":9223372036854775808`))},
		{"serial beyond floating point", orders.CodeInvalid, "/serial", raw(header, text(`"serial":7`, `"serial":1e400`))},
		{"serial with a fraction", orders.CodeInvalid, "/serial", raw(header, text(`"serial":7`, `"serial":7.0`))},
		{"a time before 1970", orders.CodeInvalid, "/iat", change(func(p *orderstest.Payload) { p.IssuedAt = -1 })},
		{"nbf before 1970", orders.CodeInvalid, "/nbf", change(func(p *orderstest.Payload) { p.NotBefore = -1 })},
		{"exp beyond floating point", orders.CodeInvalid, "/exp", raw(header, text(fmt.Sprintf(`"exp":%d`, now.Add(time.Hour).Unix()), `"exp":1e400`))},
		{"a time with a fraction", orders.CodeInvalid, "/iat", raw(header, text(fmt.Sprintf(`"iat":%d`, now.Unix()), fmt.Sprintf(`"iat":%d.5`, now.Unix())))},
		{"iat missing", orders.CodeInvalid, "/iat is missing", raw(header, text(fmt.Sprintf(`"iat":%d,`, now.Unix()), ""))},
		{"exp missing", orders.CodeInvalid, "/exp is missing", raw(header, text(fmt.Sprintf(`"exp":%d,`, now.Add(time.Hour).Unix()), ""))},
		{"exp not after iat", orders.CodeInvalid, "/exp", change(func(p *orderstest.Payload) { p.Expires = p.IssuedAt })},
		{"exp beyond all calendars", orders.CodeInvalid, "/exp", change(func(p *orderstest.Payload) { p.Expires = 1 << 52 })},
		{"from somebody else than the kid", orders.CodeInvalid, `"fleet-2"`, change(func(p *orderstest.Payload) { p.Issuer = "fleet-2" })},
		{"no issuer", orders.CodeInvalid, "/iss", raw(header, text(`"iss":"fleet-1",`, ""))},
		{"no action", orders.CodeInvalid, "/action", raw(header, text(`"action":"install",`, ""))},
		{"unknown action", orders.CodeInvalid, "/action", change(func(p *orderstest.Payload) { p.Action = "format" })},
		{"no activation code", orders.CodeInvalid, "/activationCode is missing", change(func(p *orderstest.Payload) { p.ActivationCode = "" })},
		{"a wrong activation code", orders.CodeInvalid, "/activationCode", change(func(p *orderstest.Payload) { p.ActivationCode = "LPA:1$localhost" })},
		{"another matching id", orders.CodeInvalid, "/matchingId", change(func(p *orderstest.Payload) { p.MatchingID = "M-2" })},
		{"a wrong ICCID", orders.CodeInvalid, "/iccid", change(func(p *orderstest.Payload) { p.ICCID = "894" })},
		{"enable without a profile", orders.CodeInvalid, "/iccid is missing", change(func(p *orderstest.Payload) { p.Action, p.ActivationCode, p.ICCID = "enable", "", "" })},
		{"enable with an activation code", orders.CodeInvalid, "/activationCode", change(func(p *orderstest.Payload) { p.Action = "enable" })},
		{"enable on command", orders.CodeInvalid, "/enable", change(func(p *orderstest.Payload) { p.Action, p.ActivationCode, p.Enable = "enable", "", "on-command" })},
		{"enable at no time", orders.CodeInvalid, "/enable", change(func(p *orderstest.Payload) { p.Enable = "tomorrow" })},
		{"enable at a time without a zone", orders.CodeInvalid, "/enable", change(func(p *orderstest.Payload) { p.Enable = "2027-01-01T00:00:00" })},
		{"enable in a hundred years", orders.CodeInvalid, "/enable", change(func(p *orderstest.Payload) { p.Enable = "2126-01-01T00:00:00Z" })},
		{"enable true", orders.CodeInvalid, "/enable", raw(header, text(`"enable":"now"`, `"enable":true`))},
		{"delete with parameters", orders.CodeInvalid, "/parameters", change(func(p *orderstest.Payload) { p.Action, p.ActivationCode, p.Enable = "delete", "", "" })},
		{"disable at a time", orders.CodeInvalid, "/enable", change(func(p *orderstest.Payload) { bare("disable")(p); p.Enable = "now" })},
		{"delete the old one where nothing is enabled", orders.CodeInvalid, "/deleteOld", change(func(p *orderstest.Payload) { p.Enable, p.DeleteOld = "on-command", true })},
		{"deleteOld a text", orders.CodeInvalid, "/deleteOld", raw(header, text(`"enable":"now"`, `"deleteOld":"yes"`))},
		{"parameters a text", orders.CodeInvalid, "/parameters", raw(header, text(`{"version":1,"apns":[]}`, `"{}"`))},
		{"reportTo of 60 kB", orders.CodeMalformed, "16384", raw(header, text(`"https://reports.example/x"`, `"`+strings.Repeat("x", 60_000)+`"`))},
		{"reportTo of 3 kB", orders.CodeInvalid, "/reportTo", raw(header, text(`"https://reports.example/x"`, `"`+strings.Repeat("x", 3000)+`"`))},
		{"eid in hexadecimal", orders.CodeInvalid, "/eid", raw(header, text(eid, eid[:31]+"F"))},
		{"imei too short", orders.CodeInvalid, "/imei", change(func(p *orderstest.Payload) { p.IMEI = imei[:14] })},

		{"expired", orders.CodeExpired, "2026-11-22T12:00:00Z", change(func(p *orderstest.Payload) { p.IssuedAt, p.Expires = now.Add(-time.Hour).Unix(), now.Unix() })},
		{"issued in the future", orders.CodeEarly, "not valid before", change(func(p *orderstest.Payload) { p.IssuedAt = now.Add(orders.Leeway).Unix() + 1 })},
		{"not valid yet", orders.CodeEarly, "not valid before", change(func(p *orderstest.Payload) { p.NotBefore = now.Add(time.Minute * 30).Unix() })},

		{"another EID", orders.CodeDevice, "EID", change(func(p *orderstest.Payload) { p.EID = "89049032123451234512345678901234" })},
		{"another IMEI", orders.CodeDevice, "IMEI", change(func(p *orderstest.Payload) { p.IMEI = "356938035643817" })},
		{"another TAC", orders.CodeDevice, "TAC", change(func(p *orderstest.Payload) { p.TAC = "35693804" })},
		{"another model", orders.CodeDevice, "model", change(func(p *orderstest.Payload) { p.Model = "EG21" })},
		{"the right EID and another model", orders.CodeDevice, "model", change(func(p *orderstest.Payload) { p.Model = "EG2" })},

		{"enable by the SM-DP+", orders.CodeInvalid, "only install", must(orderstest.Sign(signer, "smdp", orderstest.Payload{Issuer: "smdp", Serial: 1, IssuedAt: now.Unix(),
			Expires: now.Unix() + 60, Action: "enable", ICCID: iccid}))},
		{"from an operator by the key of the SM-DP+", orders.CodeInvalid, `"fleet-1"`, must(orderstest.Sign(signer, "smdp", usual()))},
	}
}

func split(part []byte) (r, s []byte) {
	b := must(base64.RawURLEncoding.DecodeString(string(part)))
	return b[:32], b[32:]
}

func TestHostile(t *testing.T) {
	k := keys(t)
	for _, tc := range hostile() {
		t.Run(tc.name, func(t *testing.T) {
			o, err := orders.Verify(tc.jws, k, now, devices)
			if err == nil {
				t.Fatalf("believed: %+v", o)
			}
			f := fault.Of(err)
			if f.Code != tc.code || f.Who == "" || f.Next == "" || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("fault %+v (%v), want %s that says %q", f, err, tc.code, tc.says)
			}
			if len(err.Error()) > 600 {
				t.Errorf("a text of %d bytes", len(err.Error()))
			}
			if o.Issuer != "" || o.Action != "" || o.Serial != 0 {
				t.Errorf("something of it is left: %+v", o)
			}
		})
	}
}

// What the device does not know of itself does not fit an order that names it.
func TestUnknownDevice(t *testing.T) {
	k := keys(t)
	for what, change := range map[string]func(*orderstest.Payload){
		"EID":   func(*orderstest.Payload) {},
		"IMEI":  func(p *orderstest.Payload) { p.EID, p.IMEI = "", imei },
		"TAC":   func(p *orderstest.Payload) { p.EID, p.TAC = "", imei[:8] },
		"model": func(p *orderstest.Payload) { p.EID, p.Model = "", "EG25" },
	} {
		p := usual()
		change(&p)
		_, err := orders.Verify(must(orderstest.Sign(signer, issuer, p)), k, now, orders.Device{})
		if f := fault.Of(err); err == nil || f.Code != orders.CodeDevice || !f.Retry || !strings.Contains(f.Text, what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// No identifier of the device is told to whom sends an order for another one.
func TestFaultsHideIdentifiers(t *testing.T) {
	k := keys(t)
	for _, change := range []func(*orderstest.Payload){
		func(p *orderstest.Payload) { p.EID = "89049032123451234512345678901234" },
		func(p *orderstest.Payload) { p.EID, p.IMEI = "", "356938035643817" },
	} {
		p := usual()
		change(&p)
		_, err := orders.Verify(must(orderstest.Sign(signer, issuer, p)), k, now, devices)
		if err == nil || strings.Contains(err.Error(), eid) || strings.Contains(err.Error(), imei) {
			t.Errorf("told: %v", err)
		}
	}
}

// An order of the SM-DP+ waits for its certificate.
func TestSMDP(t *testing.T) {
	p := usual()
	p.Issuer = orders.SMDP
	jws := must(orderstest.Sign(signer, orders.SMDP, p))
	o, err := orders.Verify(jws, keys(t), now, devices)
	if err != nil || !o.BySMDP || o.Issuer != orders.SMDP {
		t.Fatalf("%v: %+v", err, o)
	}
	if err := orders.VerifySMDP(jws, certificate(t, signer)); err != nil {
		t.Errorf("by the right certificate: %v", err)
	}
	tampered := bytes.Replace(jws, []byte("."), []byte(".e"), 1)
	for name, tc := range map[string]struct {
		jws, cert []byte
		code      string
	}{
		"another server":         {jws, certificate(t, other), orders.CodeSignature},
		"a certificate of P-384": {jws, certificate(t, newKey(elliptic.P384())), orders.CodeKey},
		"no certificate":         {jws, []byte("hello"), orders.CodeKey},
		"changed":                {tampered, certificate(t, signer), orders.CodeSignature},
		"an operator's order":    {must(orderstest.Sign(signer, issuer, usual())), certificate(t, signer), orders.CodeKey},
	} {
		if err := orders.VerifySMDP(tc.jws, tc.cert); fault.Of(err).Code != tc.code {
			t.Errorf("%s: %v, want %s", name, err, tc.code)
		}
	}
}

func certificate(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(-time.Minute)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestLoadKeys(t *testing.T) {
	dir := t.TempDir()
	public := must(orderstest.PublicPEM(signer))
	private := must(x509.MarshalPKCS8PrivateKey(signer))
	brainpool := must(asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1},
		Parameters: asn1.RawValue{FullBytes: must(asn1.Marshal(asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 7}))}}, asn1.BitString{Bytes: make([]byte, 65), BitLength: 520}}))
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	write(t, dir, "plain.pem", public)
	write(t, dir, "certificate.pem", block("CERTIFICATE", certificate(t, other)))
	write(t, dir, "explained.pem", append([]byte("the key of the fleet\n"), public...))
	write(t, dir, "README", []byte("not a key, and not said to be one"))
	skipped := map[string][]byte{
		"smdp.pem":       public,
		"with space.pem": public,
		"-dash.pem":      public,
		"empty.pem":      nil,
		"two.pem":        append(bytes.Clone(public), public...),
		"private.pem":    block("PRIVATE KEY", private),
		"p384.pem":       must(orderstest.PublicPEM(newKey(elliptic.P384()))),
		"brainpool.pem":  block("PUBLIC KEY", brainpool),
		"garbage.pem":    block("PUBLIC KEY", []byte("hello")),
		"large.pem":      append(bytes.Repeat([]byte("x"), 20<<10), public...),
	}
	for name, b := range skipped {
		write(t, dir, name, b)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.pem"), 0o700); err != nil {
		t.Fatal(err)
	}
	k, err := orders.LoadKeys(dir)
	if err != nil || k.Len() != 3 || len(k.Skipped) != len(skipped)+1 {
		t.Fatalf("%v: %d keys, skipped %q", err, k.Len(), k.Skipped)
	}
	for name := range skipped {
		if !strings.Contains(strings.Join(k.Skipped, "\n"), name+": ") {
			t.Errorf("%s is not named", name)
		}
	}
	for kid, key := range map[string]*ecdsa.PrivateKey{"plain": signer, "certificate": other, "explained": signer} {
		p := usual()
		p.Issuer = kid
		if _, err := orders.Verify(must(orderstest.Sign(key, kid, p)), k, now, devices); err != nil {
			t.Errorf("%s: %v", kid, err)
		}
	}

	for _, none := range []string{"", filepath.Join(dir, "missing")} {
		if k, err := orders.LoadKeys(none); err != nil || k.Len() != 0 {
			t.Errorf("%q: %v", none, err)
		}
	}
	if _, err := orders.LoadKeys(filepath.Join(dir, "plain.pem")); err == nil {
		t.Error("a file was taken for a folder")
	}
	many := t.TempDir()
	for i := range 70 {
		write(t, many, fmt.Sprintf("k%02d.pem", i), public)
	}
	if k, err := orders.LoadKeys(many); err != nil || k.Len() != 64 || len(k.Skipped) != 6 {
		t.Errorf("%v: %d of 70 keys, %d skipped", err, k.Len(), len(k.Skipped))
	}
}

// Whatever comes: no crash, and nothing is believed that the key has not signed.
func FuzzVerify(f *testing.F) {
	good := must(orderstest.Sign(signer, issuer, usual()))
	f.Add(good)
	for _, tc := range hostile() {
		if len(tc.jws) < 8<<10 {
			f.Add(tc.jws)
		}
	}
	k := keys(f)
	signed := good[:bytes.LastIndexByte(good, '.')]
	f.Fuzz(func(t *testing.T, jws []byte) {
		o, err := orders.Verify(jws, k, now, devices)
		if err == nil && !o.BySMDP && !bytes.HasPrefix(jws, signed) {
			t.Fatalf("believed: %q", jws)
		}
		if err != nil && (fault.Of(err).Code == fault.Internal || o.Action != "") {
			t.Fatalf("not explained, or something is left: %v %+v", err, o)
		}
		if err := orders.VerifySMDP(jws, nil); err == nil {
			t.Fatal("believed without a certificate")
		}
	})
}

// A payload that was signed is hostile too, when the key is not in good hands.
func FuzzPayload(f *testing.F) {
	f.Add([]byte(text("{", "{")))
	for _, tc := range hostile() {
		if p := bytes.Split(tc.jws, []byte(".")); len(p) == 3 && len(p[1]) < 4<<10 {
			if b, err := base64.RawURLEncoding.DecodeString(string(p[1])); err == nil {
				f.Add(b)
			}
		}
	}
	k := keys(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		o, err := orders.Verify(must(orderstest.SignRaw(signer, []byte(header), payload)), k, now, devices)
		if err != nil {
			if fault.Of(err).Code == fault.Internal || o.Action != "" {
				t.Fatalf("not explained, or something is left: %v %+v", err, o)
			}
			return
		}
		switch {
		case o.Issuer != issuer, o.Serial < 1, !o.Expires.After(now), o.Action != orders.Install && o.ICCID.IsZero(),
			o.Action == orders.Install && o.ActivationCode.SMDP == "", len(o.Parameters) > 0 && !json.Valid(o.Parameters), !o.Enable && !o.EnableAt.IsZero():
			t.Fatalf("makes no sense: %+v", o)
		}
	})
}
