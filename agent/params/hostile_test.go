package params_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"lpad/agent/params"
)

const megabyte = 1 << 20

// hostile are documents of somebody who means harm, and how each is refused.
var hostile = []struct{ name, text, pointer, problem string }{
	{"1 MB of text", `{"version":1,"sms":{"smsc":"` + strings.Repeat("1", megabyte) + `"}}`, "", "longer than"},
	{"1 MB of a name", `{"version":1,"` + strings.Repeat("x", megabyte) + `":1}`, "", "longer than"},
	{"1 MB of blanks", strings.Repeat(" ", megabyte) + `{"version":1}`, "", "longer than"},
	{"1 MB of a number", `{"version":` + strings.Repeat("1", megabyte) + `}`, "", "longer than"},
	{"1 MB of lists", strings.Repeat("[", megabyte), "", "longer than"},
	{"as long as is read, a text", `{"version":1,"sms":{"smsc":"` + strings.Repeat("1", 65000) + `"}}`, "/sms/smsc", "telephone number"},
	{"as long as is read, an APN", `{"version":1,"apns":[{"name":"` + strings.Repeat("a", 65000) + `"}]}`, "/apns/0/name", "65000 characters"},
	{"as long as is read, a number", `{"version":1,"generation":` + strings.Repeat("9", 65000) + `}`, "/generation", "whole number"},
	{"as long as is read, a user", `{"version":1,"apns":[{"name":"a","user":"` + strings.Repeat("u", 65000) + `"}]}`, "/apns/0/user", "1 to 127"},
	{"a member twice", `{"version":1,"version":1}`, "/version", "twice"},
	{"twice, once as an escape", `{"version":1,"apns":[],"\u0061pns":null}`, "/apns", "twice"},
	{"twice in an access point", `{"version":1,"apns":[{"name":"a","name":"b"}]}`, "/apns/0/name", "twice"},
	{"twice, and not known", `{"version":1,"x":{"y":1,"y":2}}`, "/x/y", "twice"},
	{"twice, a limit", `{"version":1,"limits":{"roamingForbidden":true,"roamingForbidden":false}}`, "/limits/roamingForbidden", "twice"},
	{"a long name twice", `{"version":1,"` + strings.Repeat("x", 9000) + `":1,"` + strings.Repeat("x", 9000) + `":1}`, "/" + strings.Repeat("x", 64) + "…", "twice"},
	{"deep lists", `{"version":1,"x":` + strings.Repeat("[", 30000), "/x" + strings.Repeat("/0", 7), "deeper"},
	{"deep objects", `{"version":1,"apns":` + strings.Repeat(`{"a":`, 9000), "/apns" + strings.Repeat("/a", 7), "deeper"},
	{"a number that is none", `{"version":NaN}`, "/version", "not JSON"},
	{"a number beyond all", `{"version":1,"generation":1e999999}`, "/generation", "whole number"},
	{"a number just beyond", `{"version":1,"generation":9223372036854775808}`, "/generation", "whole number"},
	{"one in disguise", `{"version":1.0}`, "/version", "whole number"},
	{"less than nothing", `{"version":1,"radio":{"lteBands":[-3]}}`, "/radio/lteBands/0", "whole number"},
	{"a hexadecimal number", `{"version":0x1}`, "", "not JSON"},
	{"a zero in a text", `{"version":1,"apns":[{"name":"a","user":"u\u0000"}]}`, "/apns/0/user", "do not take"},
	{"an AT command in an APN", `{"version":1,"apns":[{"name":"a\",\"\r\nAT+CFUN=0"}]}`, "/apns/0/name", "not an APN"},
	{"an AT command in a user", `{"version":1,"apns":[{"name":"a","user":"u\"\r\nAT+CFUN=0\r\n"}]}`, "/apns/0/user", "do not take"},
	{"an AT command in an SMS centre", `{"version":1,"sms":{"smsc":"+49\"\r"}}`, "/sms/smsc", "telephone number"},
	{"a line in a server", `{"version":1,"servers":{"cmp":"a.example\r\nHost: b.example"}}`, "/servers/cmp", "domain"},
	{"half a character", `{"version":1,"apns":[{"name":"\ud800"}]}`, "/apns/0/name", "not an APN"},
	{"half a character in a name", `{"version":1,"\ud800":1,"\udfff":1}`, "/\ufffd", "twice"},
	{"not UTF-8 in a name", "{\"version\":1,\"\xff\":1}", "", "UTF-8"},
	{"UTF-16", "\xff\xfe{\x00}\x00", "", "UTF-8"},
	{"a byte order mark", "\ufeff{\"version\":1}", "", "not JSON"},
	{"a comment", `{"version":1/* */}`, "", "not JSON"},
	{"a second document", `{"version":1} {"version":1,"apns":null}`, "", "follows"},
	{"a zero behind", "{\"version\":1}\x00", "", "follows"},
	{"single quotes", `{'version':1}`, "", "not JSON"},
	{"a password of everybody", `{"version":1,"apns":[{"name":"a","secretRef":"file:/etc/lpad/../shadow"}]}`, "/apns/0/secretRef", "file:/path"},
	{"a password from afar", `{"version":1,"apns":[{"name":"a","secretRef":"https://a.example/s"}]}`, "/apns/0/secretRef", "file:/path"},
	{"a thousand access points", `{"version":1,"apns":[` + strings.Repeat(`{"name":"a"},`, 1000) + `{"name":"a"}]}`, "/apns", "at most 8"},
	{"two for one purpose", `{"version":1,"apns":[{"name":"a","purposes":["ia"]},{"name":"b","purposes":["default","ia"]}]}`, "/apns/1", "second"},
	{"a purpose twice", `{"version":1,"apns":[{"name":"a","purposes":["ia","ia"]}]}`, "/apns/0", "second"},
	{"a thousand bands", `{"version":1,"radio":{"lteBands":[` + strings.Repeat("1,", 1000) + `1]}}`, "/radio/lteBands", "at most"},
	{"no band at all", `{"version":1,"radio":{"lteBands":[]}}`, "/radio/lteBands", "empty"},
	{"no band permitted", `{"version":1,"limits":{"lteBands":[]}}`, "/limits/lteBands", "empty"},
	{"no server permitted", `{"version":1,"limits":{"serverHosts":[]}}`, "/limits/serverHosts", "empty"},
	{"every server permitted", `{"version":1,"limits":{"serverHosts":["*"]}}`, "/limits/serverHosts/0", "domain"},
	{"limits that are none", `{"version":1,"limits":[]}`, "/limits", "not an object"},
	{"a limit of another type", `{"version":1,"limits":{"roamingForbidden":"yes"}}`, "/limits/roamingForbidden", "true nor false"},
	{"a scope of everybody", `{"version":1,"scope":{"iccidPrefix":""}}`, "/scope/iccidPrefix", "digits"},
	{"a name of nobody", `{"version":1,"scope":{"spn":"--"}}`, "/scope/spn", "name"},
	{"a long name", `{"version":1,"scope":{"spn":"` + strings.Repeat("n", 1000) + `"}}`, "/scope/spn", "name"},
	{"a pattern of everything", `{"version":1,"scope":{"imsiPrefix":"*"}}`, "/scope/imsiPrefix", "digits"},
}

// Each is refused at once, with an error that is clear and short, and nothing
// of it is used.
func TestHostile(t *testing.T) {
	for _, tc := range hostile {
		t.Run(tc.name, func(t *testing.T) {
			start := time.Now()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			d, err := params.Parse([]byte(tc.text), params.Options{Confidential: true})
			runtime.ReadMemStats(&after)
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
			const most = 16 * megabyte
			if used := after.TotalAlloc - before.TotalAlloc; used > most {
				t.Errorf("%d bytes were used", used)
			}
			var de *params.DocumentError
			if d != nil || !errors.As(err, &de) {
				t.Fatalf("%+v, %v", d, err)
			}
			if de.Pointer != tc.pointer || !strings.Contains(de.Problem, tc.problem) {
				t.Errorf("%q: %q, want %q with %q", de.Pointer, de.Problem, tc.pointer, tc.problem)
			}
			if text := err.Error(); len(text) > 1000 || strings.ContainsAny(text, "\r\n\x00") {
				t.Errorf("an error of %d bytes: %.200q", len(text), text)
			}
		})
	}
}

// In a document of all members each one is replaced by what does not belong
// there: it is refused with a pointer to that place or to what is around it,
// or it is one of the values that may stand there.
func TestWrongTypes(t *testing.T) {
	text, err := os.ReadFile("testdata/full.json")
	if err != nil {
		t.Fatal(err)
	}
	var whole any
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	wrong := []any{nil, true, 1.5, -1.0, 1e300, "", "\x00", strings.Repeat("x", 1000), []any{}, []any{nil}, []any{[]any{}}, map[string]any{}, map[string]any{"version": 1}}
	refused := 0
	for _, path := range paths(whole, "") {
		accepted := 0
		for _, v := range wrong {
			changed, err := json.Marshal(replaced(whole, path, v))
			if err != nil {
				t.Fatal(err)
			}
			d, err := params.Parse(changed, params.Options{Confidential: true})
			if err == nil {
				accepted++
				continue
			}
			refused++
			var de *params.DocumentError
			if d != nil || !errors.As(err, &de) || !strings.HasPrefix(de.Pointer+"/", path+"/") && !strings.HasPrefix(path+"/", de.Pointer+"/") && !strings.HasPrefix(path, "/apns/") {
				t.Errorf("%s = %.20v: %v", path, v, err)
			}
		}
		// null, an object without members, a list without entries, true …
		if accepted > 4 {
			t.Errorf("%s: %d of %d wrong values are accepted", path, accepted, len(wrong))
		}
	}
	if refused < 400 {
		t.Errorf("only %d were refused", refused)
	}
}

// paths are the JSON pointers to all values below one.
func paths(v any, at string) (out []string) {
	switch v := v.(type) {
	case map[string]any:
		for name, below := range v {
			out = append(append(out, at+"/"+name), paths(below, at+"/"+name)...)
		}
	case []any:
		for i, below := range v {
			out = append(append(out, fmt.Sprintf("%s/%d", at, i)), paths(below, fmt.Sprintf("%s/%d", at, i))...)
		}
	}
	slices.Sort(out)
	return out
}

// replaced is a copy with another value at a pointer.
func replaced(v any, pointer string, by any) any {
	if pointer == "" {
		return by
	}
	name, rest, more := strings.Cut(pointer[1:], "/")
	if more {
		rest = "/" + rest
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, below := range v {
			if k == name {
				below = replaced(below, rest, by)
			}
			out[k] = below
		}
		return out
	case []any:
		out := slices.Clone(v)
		for i := range out {
			if fmt.Sprint(i) == name {
				out[i] = replaced(out[i], rest, by)
			}
		}
		return out
	}
	return v
}

// Whatever two documents say, the result keeps the limits, is the same each
// time, and tells no password.
func FuzzResolve(f *testing.F) {
	full, err := os.ReadFile("testdata/full.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(full), string(full), uint8(1), uint8(2))
	f.Add(`{"version":1,"apns":[{"name":"a","user":"u","secret":"sesame"}]}`, `{"version":1,"apns":null,"limits":{"serverHosts":["a.example"]}}`, uint8(2), uint8(3))
	f.Add(`{"version":1,"servers":{"cmp":"b.example"},"radio":{"lteBands":[1,2,3]}}`, `{"version":1,"radio":{"lteBands":[3]},"limits":{"lteBands":[3],"rats":["lte"]}}`, uint8(1), uint8(3))
	for _, tc := range hostile {
		if len(tc.text) < 1000 {
			f.Add(tc.text, `{"version":1}`, uint8(3), uint8(3))
		}
	}
	limits := &params.Limits{LTEBands: []int{3, 20}, RATs: []string{"lte", "lte-m"}, RoamingForbidden: true, ServerHosts: []string{"*.example.com"}}
	f.Fuzz(func(t *testing.T, first, second string, one, two uint8) {
		in := params.Input{Profile: params.Profile{MCC: "262", MNC: "01", SPN: "Test Fleet"}, Database: candidates(5), Limits: limits}
		for i, text := range []string{first, second} {
			d, err := params.Parse([]byte(text), params.Options{Confidential: true})
			if err == nil {
				in.Given = append(in.Given, params.Given{Document: d, Rank: params.Rank(1 + [2]uint8{one, two}[i]%3), Source: fmt.Sprint("document ", i)})
			}
		}
		e, err := params.Resolve(in)
		again, errAgain := params.Resolve(in)
		if !reflect.DeepEqual(e, again) || (err == nil) != (errAgain == nil) {
			t.Errorf("not the same twice:\n%+v\n%+v", e, again)
		}
		if err != nil {
			return // an order's access point that cannot be used
		}
		r := e.Radio()
		for _, b := range r.LTEBands {
			if !slices.Contains(limits.LTEBands, b) {
				t.Errorf("band %d", b)
			}
		}
		for _, rat := range r.RATs {
			if !slices.Contains(limits.RATs, rat) {
				t.Errorf("access technology %s", rat)
			}
		}
		for _, host := range append([]string{e.CMP.Value, e.ECS.Value, e.SMDS.Value}, e.Bootstrap.Value...) {
			if host != "" && !limits.AllowsHost(host) {
				t.Errorf("server %s", host)
			}
		}
		tried := e.Attempts()
		if len(tried) == 0 || len(tried) > 5 {
			t.Errorf("%d are tried", len(tried))
		}
		for _, a := range tried {
			if a.Source == "" || a.Rank == 0 || a.Value.AllowRoaming == nil || *a.Value.AllowRoaming {
				t.Errorf("tried: %+v", a)
			}
		}
		for _, o := range e.Others() {
			if len(o.Value.Purposes) == 0 || slices.Contains(o.Value.Purposes, "default") {
				t.Errorf("another access point: %+v", o)
			}
		}
		text, err := json.Marshal(e)
		if err != nil || strings.Contains(string(text), "sesame") && !strings.Contains(strings.ReplaceAll(first+second, `"secret":"sesame"`, ""), "sesame") {
			t.Errorf("%s, %v", text, err)
		}
	})
}
