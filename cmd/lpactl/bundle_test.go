package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"lpad/agent/api"
)

// known are identifiers and secrets, in the forms in which they come along.
var known = []string{"89049032123451234512345678901235", "89330100000000000017", "98331000000000000071", "001010123456789", "490154203237518",
	"04386-AGYFT-A74Y8-3F815", "LAB-MATCH-0001", "hunter2hunter2", "tok3n-in-query", "c0nfirm-me"}

// poison is a text with all of them.
const poison = `EID 89049032123451234512345678901235 iccid=89330100000000000017 8933 0100 0000 0000 0017 +CCID:98331000000000000071 imsi "001010123456789" IMEI 490154203237518 ` +
	`id 04386-AGYFT-A74Y8-3F815 code LPA:1$smdp.example.com$LAB-MATCH-0001$1.3.6$1 and 1%24smdp.example.com%24LAB-MATCH-0001 ` +
	`https://u:hunter2hunter2@reports.example/hook?t=tok3n-in-query password=hunter2hunter2 {"matchingId": "LAB-MATCH-0001"} matching_id=LAB-MATCH-0001 confirmation_code="c0nfirm-me" Authorization: Bearer hunter2hunter2`

func leaks(t *testing.T, where, text string) {
	t.Helper()
	plain := strings.NewReplacer(" ", "", "-", "").Replace(text)
	for _, s := range known {
		if strings.Contains(text, s) || longDigits.MatchString(s) && strings.Contains(plain, s) {
			t.Errorf("%s tells %s\n%s", where, s, text)
		}
	}
	if id := longDigits.FindString(text); id != "" {
		t.Errorf("%s tells %s", where, id)
	}
}

// poisoned fills every text of a value, as deep as it goes.
func poisoned(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(poison)
	case reflect.Pointer:
		if depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			poisoned(v.Elem(), depth-1)
		}
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			b, _ := json.Marshal(map[string]any{"apn": poison, "password": "hunter2hunter2", "n": 89330100000000000})
			v.Set(reflect.ValueOf(json.RawMessage(b)))
		} else if depth > 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			poisoned(v.Index(0), depth-1)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(epoch))
			return
		}
		for i := range v.NumField() {
			poisoned(v.Field(i), depth)
		}
	}
}

// TestDocumentsAreRedacted: whatever member of whatever document holds an
// identifier or a secret, the bundle does not.
func TestDocumentsAreRedacted(t *testing.T) {
	for _, v := range []any{&api.Status{}, &api.Cards{}, &api.EUICC{}, &api.Profiles{}, &api.Notifications{}, &api.Effective{}, &api.Jobs{}, &[]api.Event{}, &api.Probe{}, &api.Problem{}, &checkup{}} {
		poisoned(reflect.ValueOf(v).Elem(), 5)
		text, err := redacted(v)
		if err != nil {
			t.Fatal(err)
		}
		b := bundle{files: map[string][]byte{}}
		b.document("x", v, nil)
		for where, one := range map[string]string{"redacted": string(text), "the bundle": string(b.files["x"])} {
			leaks(t, reflect.TypeOf(v).String()+" "+where, one)
			if !strings.Contains(one, "…") || !json.Valid([]byte(one)) {
				t.Errorf("%T: %s", v, one)
			}
		}
	}
	var b bundle
	b.files = map[string][]byte{}
	b.put("log", strings.Repeat(poison+"\n", 5000))
	leaks(t, "the log", string(b.files["log"]))
	if len(b.files["log"]) > bundlePart+100 {
		t.Errorf("%d bytes", len(b.files["log"]))
	}
	// What is no secret is there to be read.
	for _, plain := range []string{"2026-11-22 04:36:36 UTC", "job 20261121-120000", "job 20261121-120000-3", "AT+CCHO: CME ERROR 10", "smdp.example.com:443", "connection refused"} {
		if got := scrubbed(plain); got != plain {
			t.Errorf("%q became %q", plain, got)
		}
	}
}

func FuzzScrubbed(f *testing.F) {
	f.Add(poison)
	f.Fuzz(func(t *testing.T, s string) {
		if got := scrubbed(s); longDigits.MatchString(got) {
			t.Errorf("%q became %q", s, got)
		}
	})
}
