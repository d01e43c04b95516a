package params_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lpad/agent/params"
	"lpad/agent/rsp"
	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/modem"
	"lpad/modem/carrierdb"
)

var secrets = cmp.Comparer(func(a, b redact.Secret) bool { return a == b })

func iccid(t testing.TB, s string) rsp.ICCID {
	t.Helper()
	c, err := rsp.ParseICCID(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parse(t *testing.T, text string) *params.Document {
	t.Helper()
	d, err := params.Parse([]byte(text), params.Options{Confidential: true})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// order is a document as that of an order.
func order(d *params.Document) []params.Given {
	return []params.Given{{Document: d, Rank: params.RankOrder, Source: params.SourceOrder}}
}

func has[T any](v T) params.Opt[T] { return params.Opt[T]{Value: v, State: params.Set} }

func TestParseFull(t *testing.T) {
	text, err := os.ReadFile("testdata/full.json")
	if err != nil {
		t.Fatal(err)
	}
	ptw := 3
	want := &params.Document{
		Generation: 7,
		Scope:      params.Scope{ICCID: iccid(t, "89001012012341234012"), MCCMNC: []string{"26201"}, GID1: "ff", ICCIDPrefix: "8900", SPN: "Test Fleet"},
		APNs: has([]params.APN{
			{Name: "iot.example", Purposes: []params.Purpose{"default", "ia"}, PDNType: "v4v6", PDNTypeRoaming: "v4", Auth: "none"},
			{Name: "fleet.private.example", Purposes: []params.Purpose{"dm"}, PDNType: "v4", Auth: "chap", User: "dev", SecretRef: "file:/etc/lpad/fleet",
				MTU: 1428, DNS: []netip.Addr{netip.MustParseAddr("10.0.0.53")}, Routes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		}),
		DataRoaming: has(true), HomeOnly: has(false), PreferredPLMNs: has([]string{"20801", "26202"}),
		RATs: has([]string{"lte", "lte-m", "nb-iot"}), LTEBands: has([]int{3, 8, 20}),
		EDRXLTE: has(params.EDRX{Value: 5, PTW: &ptw}), PSM: has(params.PSM{TAUSeconds: 3600, ActiveSeconds: 10}),
		SMSC: has("+491710760000"), ECS: has("aes.example.com"), CMP: has("cmp.example.com"),
		SMDS: params.Opt[string]{State: params.Null}, Bootstrap: has([]string{}),
		Checks: has([]string{"https://cmp.example.com/ping"}), Retry: has([]int{10, 60, 600, 3600}),
		Limits: &params.Limits{LTEBands: []int{3, 8}, RATs: []string{"lte", "lte-m"}, RoamingForbidden: true,
			ServerHosts: []string{"cmp.example.com", "*.ops.example.com"}, AllowProfileServer: true},
	}
	got := parse(t, string(text))
	if d := cmp.Diff(want, got, secrets, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if refs := got.SecretRefs(); len(refs) != 1 || refs[0] != "file:/etc/lpad/fleet" {
		t.Errorf("references %v", refs)
	}
}

func TestAbsentAndNull(t *testing.T) {
	d := parse(t, `{"version":1,"scope":null,"apns":null,"radio":null,"sms":{"smsc":null},"servers":{}}`)
	for name, got := range map[string]params.State{"apns": d.APNs.State, "rats": d.RATs.State, "edrx": d.EDRXLTE.State, "psm": d.PSM.State, "smsc": d.SMSC.State} {
		if got != params.Null {
			t.Errorf("%s: state %d, want null", name, got)
		}
	}
	for name, got := range map[string]params.State{"data": d.DataRoaming.State, "ecs": d.ECS.State, "retry": d.Retry.State} {
		if got != params.Absent {
			t.Errorf("%s: state %d, want absent", name, got)
		}
	}
}

func TestIgnored(t *testing.T) {
	d := parse(t, `{"version":1,"new":{"x":1},"apns":[{"name":"a","colour":"red"}],"radio":{"a/b~c":null,"edrx":{"nr":{}}}}`)
	want := []string{"/new", "/apns/0/colour", "/radio/a~1b~0c", "/radio/edrx/nr"}
	if diff := cmp.Diff(want, d.Ignored); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	e, err := params.Resolve(params.Input{Given: order(d)})
	if err != nil || len(e.Notes) != len(want) || e.Notes[1].Pointer != "/apns/0/colour" {
		t.Errorf("notes %+v, %v", e.Notes, err)
	}
	many := parse(t, `{"version":1`+unknown(100)+`}`)
	if len(many.Ignored) != 32 {
		t.Errorf("%d ignored members are listed, want the limit", len(many.Ignored))
	}
}

func unknown(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"x` + strings.Repeat("y", i) + `":0`)
	}
	return b.String()
}

func TestRefused(t *testing.T) {
	apn := func(members string) string { return `{"version":1,"apns":[{"name":"a",` + members + `}]}` }
	for _, tc := range []struct{ name, text, pointer, problem string }{
		{"empty", "", "", "not JSON"},
		{"list", "[]", "", "not an object"},
		{"null", "null", "", "not an object"},
		{"cut", `{"version":1,"apns":[`, "/apns", "not JSON"},
		{"cut in a name", `{"vers`, "", "not JSON"},
		{"bare name", `{version:1}`, "", "not JSON"},
		{"comma", `{"version":1,}`, "", "not JSON"},
		{"more", `{"version":1}{}`, "", "follows"},
		{"rubbish behind", `{"version":1}]`, "", "follows"},
		{"latin-1", "{\"version\":1,\"x\":\"\xe4\"}", "", "UTF-8"},
		{"too long", strings.Repeat(" ", 64<<10) + `{"version":1}`, "", "longer"},
		{"deep", `{"version":1,"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "/x" + strings.Repeat("/0", 7), "deeper"},
		{"twice", `{"version":1,"sms":{"smsc":"+491","smsc":"+492"}}`, "/sms/smsc", "twice"},
		{"twice unknown", `{"version":1,"x":1,"x":1}`, "/x", "twice"},
		{"no version", `{}`, "/version", "missing"},
		{"version 2", `{"version":2}`, "/version", "whole number"},
		{"version as text", `{"version":"1"}`, "/version", "number"},
		{"half a version", `{"version":1.5}`, "/version", "whole number"},
		{"generation", `{"version":1,"generation":-1}`, "/generation", "whole number"},
		{"scope", `{"version":1,"scope":5}`, "/scope", "not an object"},
		{"iccid", `{"version":1,"scope":{"iccid":"89x"}}`, "/scope/iccid", "ICCID"},
		{"mccmnc", `{"version":1,"scope":{"mccmnc":["2620"]}}`, "/scope/mccmnc/0", "digits"},
		{"mccmnc as text", `{"version":1,"scope":{"mccmnc":"26201"}}`, "/scope/mccmnc", "list"},
		{"gid1", `{"version":1,"scope":{"gid1":"f"}}`, "/scope/gid1", "hexadecimal"},
		{"imsi", `{"version":1,"scope":{"imsiPrefix":"26 201"}}`, "/scope/imsiPrefix", "digits"},
		{"apns", `{"version":1,"apns":{}}`, "/apns", "list"},
		{"nine", `{"version":1,"apns":[` + strings.Repeat("0,", 8) + `0]}`, "/apns", "at most 8"},
		{"apn as text", `{"version":1,"apns":["a"]}`, "/apns/0", "not an object"},
		{"apn null", `{"version":1,"apns":[null]}`, "/apns/0", "not an object"},
		{"no name", `{"version":1,"apns":[{}]}`, "/apns/0", "no name"},
		{"name null", `{"version":1,"apns":[{"name":null}]}`, "/apns/0/name", "text"},
		{"name", `{"version":1,"apns":[{"name":"a b"}]}`, "/apns/0/name", "not an APN"},
		{"two defaults", `{"version":1,"apns":[{"name":"a"},{"name":"b"}]}`, "/apns/1", "second"},
		{"two ia", `{"version":1,"apns":[{"name":"a","purposes":["ia"]},{"name":"b","purposes":["dm","ia"]}]}`, "/apns/1", "second"},
		{"purpose", apn(`"purposes":["fun"]`), "/apns/0/purposes/0", "not one of"},
		{"no purpose", apn(`"purposes":[]`), "/apns/0/purposes", "empty"},
		{"pdnType", apn(`"pdnType":"ipv4"`), "/apns/0/pdnType", "not one of"},
		{"pdnTypeRoaming", apn(`"pdnTypeRoaming":4`), "/apns/0/pdnTypeRoaming", "text"},
		{"auth", apn(`"auth":"mschap"`), "/apns/0/auth", "not one of"},
		{"auth none with user", apn(`"auth":"none","user":"u"`), "/apns/0", "credentials"},
		{"user", apn(`"user":"a\"b"`), "/apns/0/user", "character"},
		{"long user", apn(`"user":"` + strings.Repeat("u", 128) + `"`), "/apns/0/user", "characters"},
		{"line end in the secret", apn(`"secret":"a\r\nAT"`), "/apns/0/secret", "character"},
		{"two secrets", apn(`"secret":"a","secretRef":"file:/a"`), "/apns/0", "both"},
		{"secretRef", apn(`"secretRef":"http://a"`), "/apns/0/secretRef", "file:"},
		{"secretRef upwards", apn(`"secretRef":"file:/etc/../x"`), "/apns/0/secretRef", "file:"},
		{"mtu", apn(`"mtu":9001`), "/apns/0/mtu", "whole number"},
		{"small mtu", apn(`"mtu":1279,"pdnType":"v4v6"`), "/apns/0", "v4 only"},
		{"dns", apn(`"dns":["ns.example"]`), "/apns/0/dns/0", "IP address"},
		{"dns zone", apn(`"dns":["fe80::1%wwan0"]`), "/apns/0/dns/0", "IP address"},
		{"route", apn(`"routes":["10.0.0.1/8"]`), "/apns/0/routes/0", "network"},
		{"roaming", `{"version":1,"roaming":{"data":"yes"}}`, "/roaming/data", "true nor false"},
		{"plmn", `{"version":1,"roaming":{"preferredPlmns":[20801]}}`, "/roaming/preferredPlmns/0", "text"},
		{"rat", `{"version":1,"radio":{"rats":["5g"]}}`, "/radio/rats/0", "not one of"},
		{"rat twice", `{"version":1,"radio":{"rats":["lte","lte"]}}`, "/radio/rats", "twice"},
		{"no rat", `{"version":1,"radio":{"rats":[]}}`, "/radio/rats", "empty"},
		{"band", `{"version":1,"radio":{"lteBands":[0]}}`, "/radio/lteBands/0", "whole number"},
		{"edrx", `{"version":1,"radio":{"edrx":{"lte":{"value":16}}}}`, "/radio/edrx/lte/value", "whole number"},
		{"edrx without value", `{"version":1,"radio":{"edrx":{"lte":{"ptw":1}}}}`, "/radio/edrx/lte", "no value"},
		{"edrx as number", `{"version":1,"radio":{"edrx":{"nb-iot":5}}}`, "/radio/edrx/nb-iot", "not an object"},
		{"psm", `{"version":1,"radio":{"psm":{"tauSeconds":60}}}`, "/radio/psm", "needs"},
		{"psm range", `{"version":1,"radio":{"psm":{"tauSeconds":60,"activeSeconds":1e9}}}`, "/radio/psm/activeSeconds", "whole number"},
		{"smsc", `{"version":1,"sms":{"smsc":"++49"}}`, "/sms/smsc", "telephone"},
		{"server", `{"version":1,"servers":{"cmp":"https://cmp.example.com"}}`, "/servers/cmp", "domain name"},
		{"bootstrap", `{"version":1,"servers":{"bootstrap":["a.example","b.example","c.example","d.example","e.example"]}}`, "/servers/bootstrap", "at most"},
		{"check", `{"version":1,"connectivity":{"checks":["http://a.example"]}}`, "/connectivity/checks/0", "none of"},
		{"check port", `{"version":1,"connectivity":{"checks":["tcp://a.example"]}}`, "/connectivity/checks/0", "none of"},
		{"check name", `{"version":1,"connectivity":{"checks":["dns:a"]}}`, "/connectivity/checks/0", "domain"},
		{"check user", `{"version":1,"connectivity":{"checks":["https://u@a.example"]}}`, "/connectivity/checks/0", "none of"},
		{"long check", `{"version":1,"connectivity":{"checks":["https://a.example/` + strings.Repeat("x", 300) + `"]}}`, "/connectivity/checks/0", "longer"},
		{"retry", `{"version":1,"connectivity":{"retry":[0]}}`, "/connectivity/retry/0", "whole number"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := params.Parse([]byte(tc.text), params.Options{Confidential: true})
			var de *params.DocumentError
			if !errors.As(err, &de) {
				t.Fatalf("error %v, want *DocumentError", err)
			}
			if de.Pointer != tc.pointer || !strings.Contains(de.Problem, tc.problem) {
				t.Errorf("%q: %q, want %q with %q", de.Pointer, de.Problem, tc.pointer, tc.problem)
			}
			if f := fault.Of(err); f.Code != "parameters-invalid" || f.Next == "" {
				t.Errorf("fault %+v", f)
			}
		})
	}
	_, err := params.Parse([]byte(apn(`"secret":"open sesame"`)), params.Options{})
	if err == nil || !strings.Contains(err.Error(), "/apns/0/secret: is a password") || strings.Contains(err.Error(), "sesame") {
		t.Errorf("a password in the open: %v", err)
	}
}

func TestAccepted(t *testing.T) {
	for _, members := range []string{
		`"apns":[{"name":"a.b-c.D1","mtu":576,"pdnType":"v4"}]`,
		`"apns":[{"name":"a","purposes":["default","ia","ims","mms","supl","dm","fota","bootstrap"],"auth":"pap-or-chap"}]`,
		`"apns":[{"name":"a","purposes":null,"dns":null,"mtu":null,"user":null,"pdnType":null}]`,
		`"generation":null,"scope":null,"limits":null`,
		`"connectivity":{"checks":["tcp://a.example:443","dns:a.example","https://192.0.2.1/"]}`,
	} {
		parse(t, `{"version":1,`+members+`}`)
	}
}

func TestCheckAPN(t *testing.T) {
	for name, ok := range map[string]bool{
		"internet": true, "IoT.Example-1": true, strings.Repeat("a", 63) + "." + strings.Repeat("b", 36): true,
		"": false, strings.Repeat("a", 101): false, strings.Repeat("a", 64): false, "a_b": false, "a b": false, "a,b": false, "\"": false,
		"x.mnc001.mcc001.gprs": false, "X.GPRS": false, "rac1": false, "LAC": false, "sgsn-x": false, "rncq": false, "a..b": false, ".a": false, "a.": false,
	} {
		if err := params.CheckAPN(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func candidates(n int) (out []carrierdb.Candidate) {
	for i := range n {
		out = append(out, carrierdb.Candidate{Provider: "P", APN: modem.APN{Name: "db" + string(rune('0'+i)), User: "u", Password: redact.NewSecret("p")}})
	}
	return out
}

// attempts are the names and sources.
func attempts(e params.Effective) string {
	var out []string
	for _, a := range e.Attempts() {
		out = append(out, a.Value.Name+"<"+a.Source)
	}
	return strings.Join(out, " ")
}

func TestResolve(t *testing.T) {
	profile := params.Profile{ICCID: iccid(t, "89001012012341234012"), MCC: "262", MNC: "01", SPN: "Test", GID1: "FF01"}
	for _, tc := range []struct {
		name     string
		order    string
		database int
		want     string
		notes    int
	}{
		{"nothing", "", 0, "<network default", 0},
		{"the list", "", 2, "db0<provider-database: P db1<provider-database: P <network default", 0},
		{"a long list", "", 9, "db0<provider-database: P db1<provider-database: P db2<provider-database: P db3<provider-database: P <network default", 0},
		{"the order alone", `"apns":[{"name":"a"}]`, 2, "a<order", 0},
		{"the order, another purpose", `"apns":[{"name":"a","purposes":["ia"]}]`, 1, "db0<provider-database: P <network default", 0},
		{"unset", `"apns":null`, 2, "<order", 0},
		{"empty list", `"apns":[]`, 1, "db0<provider-database: P <network default", 0},
		{"in scope", `"scope":{"iccid":"89001012012341234012","mccmnc":["00101","26201"],"gid1":"ff"},"apns":[{"name":"a"}]`, 1, "a<order", 0},
		{"another card", `"scope":{"iccid":"89001012012341234020"},"apns":[{"name":"a"}]`, 1, "db0<provider-database: P <network default", 1},
		{"another network", `"scope":{"mccmnc":["26202"]},"apns":[{"name":"a"}]`, 0, "<network default", 1},
		{"another group", `"scope":{"gid1":"fe"},"apns":[{"name":"a"}]`, 0, "<network default", 1},
		{"IMSI not known", `"scope":{"imsiPrefix":"262"},"apns":[{"name":"a"}]`, 0, "<network default", 1},
		{"no IP, for another purpose", `"apns":[{"name":"a","pdnType":"non-ip","purposes":["dm"]}]`, 0, "<network default", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := params.Input{Profile: profile, Database: candidates(tc.database)}
			if tc.order != "" {
				in.Given = order(parse(t, `{"version":1,`+tc.order+`}`))
			}
			e, err := params.Resolve(in)
			if err != nil {
				t.Fatal(err)
			}
			if got := attempts(e); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if len(e.Notes) != tc.notes {
				t.Errorf("notes %+v, want %d", e.Notes, tc.notes)
			}
		})
	}
	if got := attempts(params.Effective{}); got != "<network default" {
		t.Errorf("an empty set: %q", got)
	}
	byIMSI := params.Input{Profile: params.Profile{IMSI: "262011234567890"}, Given: order(parse(t, `{"version":1,"scope":{"mccmnc":["26201"]},"apns":[{"name":"a"}]}`))}
	if e, err := params.Resolve(byIMSI); err != nil || attempts(e) != "a<order" {
		t.Errorf("network by the IMSI: %q, %v", attempts(e), err)
	}
}

func TestResolveAPN(t *testing.T) {
	doc := parse(t, `{"version":1,"roaming":{"data":false},"apns":[{"name":"a","purposes":["default","dm"],"pdnType":"v4v6","pdnTypeRoaming":"v4","auth":"chap",
		"user":"u","secretRef":"file:/s","mtu":1400,"dns":["192.0.2.1"],"routes":["10.0.0.0/8"]}]}`)
	in := params.Input{Given: order(doc)}
	var de *params.DocumentError
	if _, err := params.Resolve(in); !errors.As(err, &de) || de.Pointer != "/apns/0" {
		t.Errorf("without the password: %v", err)
	}
	in.Secrets = map[string]redact.Secret{"file:/s": redact.NewSecret("sesame")}
	e, err := params.Resolve(in)
	if err != nil {
		t.Fatal(err)
	}
	no := false
	want := modem.APN{Name: "a", Type: modem.IPv4v6, RoamingType: modem.IPv4, Auth: modem.AuthCHAP, User: "u", Password: redact.NewSecret("sesame"), MTU: 1400,
		DNS: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Routes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, AllowRoaming: &no,
		Purposes: []string{"default", "dm"}}
	eq := []cmp.Option{secrets, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if d := cmp.Diff(want, e.Attempts()[0].Value, eq...); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff(e.APNs[params.PurposeDefault], e.APNs[params.PurposeDM], eq...); d != "" {
		t.Errorf("two purposes of one entry differ:\n%s", d)
	}
	text, err := json.Marshal(e)
	if err != nil || strings.Contains(string(text), "sesame") || !strings.Contains(string(text), `"roaming.data":{"value":false,"source":"order","rank":2,"scope":"any"}`) {
		t.Errorf("%s, %v", text, err)
	}
	inline := parse(t, `{"version":1,"apns":[{"name":"a","user":"u","secret":"sesame"}]}`)
	if e, err := params.Resolve(params.Input{Given: order(inline)}); err != nil || e.Attempts()[0].Value.Password.Reveal() != "sesame" {
		t.Errorf("inline password: %v", err)
	}
}

func TestRoaming(t *testing.T) {
	yes, no := true, false
	for text, want := range map[string]*bool{
		`{}`: nil, `{"data":true}`: &yes, `{"data":false}`: &no, `{"homeOnly":true}`: &no, `{"homeOnly":false}`: nil,
		`{"data":true,"homeOnly":true}`: &no, `{"data":null}`: nil, `null`: nil,
	} {
		e, err := params.Resolve(params.Input{Given: order(parse(t, `{"version":1,"roaming":`+text+`}`)), Database: candidates(1)})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range e.Attempts() {
			if d := cmp.Diff(want, a.Value.AllowRoaming); d != "" {
				t.Errorf("%s, %q (-want +got):\n%s", text, a.Value.Name, d)
			}
		}
		if text == `null` && (!e.DataRoaming.Unset || e.DataRoaming.Source != params.SourceOrder) {
			t.Errorf("null is not kept: %+v", e.DataRoaming)
		}
	}
}

func TestQuery(t *testing.T) {
	p := params.Profile{ICCID: iccid(t, "89001012012341234012"), MCC: "001", MNC: "01", IMSI: "i", SPN: "s", Operator: "o", GID1: "g"}
	want := carrierdb.Query{MCC: "001", MNC: "01", IMSI: "i", SPN: "s", Operator: "o", GID1: "g", ICCID: "89001012012341234012"}
	if d := cmp.Diff(want, p.Query()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/full.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, s := range []string{`{"version":1}`, `{"version":1,"apns":null,"radio":null}`, `{"version":1,"apns":[{"name":"a","secret":"x"}],"x":[[[]]]}`, `[]`, `{"version":1e0}`, `{"a":1,"a":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := params.Parse(text, params.Options{Confidential: true})
		if err != nil {
			var de *params.DocumentError
			if !errors.As(err, &de) {
				t.Errorf("error %T: %v", err, err)
			}
			return
		}
		e, err := params.Resolve(params.Input{Given: order(d), Database: candidates(2)})
		if err != nil {
			return // a password that nobody has, a type without IP
		}
		for _, a := range e.Attempts() {
			if a.Value.Name != "" && params.CheckAPN(a.Value.Name) != nil || strings.ContainsAny(a.Value.User+a.Value.Password.Reveal(), "\"\r\n\x00") {
				t.Errorf("attempt %+v", a)
			}
			if a.Source == "" || a.Rank == 0 {
				t.Errorf("attempt %+v without a source", a)
			}
		}
	})
}
