package params_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lpad/agent/params"
	"lpad/internal/redact"
	"lpad/modem"
	"lpad/modem/carrierdb"
)

// whole is a document in which a source writes its name into many leaves.
func whole(t *testing.T, name string) *params.Document {
	number := map[string]string{"profile": "1", "order": "2", "oem": "3"}[name]
	return parse(t, `{"version":1,"generation":`+number+`,"apns":[{"name":"`+name+`","purposes":["default","ia"]},{"name":"dm.`+name+`","purposes":["dm"]}],
		"roaming":{"data":`+map[string]string{"profile": "true", "order": "false", "oem": "true"}[name]+`},
		"radio":{"lteBands":[`+number+`],"psm":{"tauSeconds":3600,"activeSeconds":`+number+`}},
		"sms":{"smsc":"+4900`+number+`"},"servers":{"ecs":"ecs.`+name+`.example","cmp":"cmp.`+name+`.example"}}`)
}

// TestPrecedence is the table of precedence: each source alone, and every
// pair. What a leaf is worth is who has said it.
func TestPrecedence(t *testing.T) {
	for _, tc := range []struct {
		sources  string // given in this order
		attempts string // for the default connection
		leaves   string // who says each of: attach, dm, roaming, bands, PSM, SMSC
		servers  string // who says ECS and CMP: a profile must not replace, only add
	}{
		{"", "network", "- - - - - -", "- -"},

		{"profile", "profile", "profile profile profile profile profile profile", "profile profile"},
		{"order", "order", "order order order order order order", "order order"},
		{"oem", "oem", "oem oem oem oem oem oem", "oem oem"},
		{"good", "good network", "- - - - - -", "- -"},
		{"database", "database network", "- - - - - -", "- -"},

		{"profile order", "profile order", "profile profile profile profile profile profile", "order order"},
		{"profile oem", "profile oem", "profile profile profile profile profile profile", "oem oem"},
		{"profile good", "profile", "profile profile profile profile profile profile", "profile profile"},
		{"profile database", "profile", "profile profile profile profile profile profile", "profile profile"},
		{"order oem", "order oem", "order order order order order order", "order order"},
		{"order good", "order", "order order order order order order", "order order"},
		{"order database", "order", "order order order order order order", "order order"},
		{"oem good", "oem", "oem oem oem oem oem oem", "oem oem"},
		{"oem database", "oem", "oem oem oem oem oem oem", "oem oem"},
		{"good database", "good database network", "- - - - - -", "- -"},

		// All of them, and in which order they are given does not matter.
		{"profile order oem good database", "profile order oem", "profile profile profile profile profile profile", "order order"},
		{"database good oem order profile", "profile order oem", "profile profile profile profile profile profile", "order order"},
		{"oem profile", "profile oem", "profile profile profile profile profile profile", "oem oem"},
		{"oem order", "order oem", "order order order order order order", "order order"},
	} {
		t.Run(strings.ReplaceAll(tc.sources, " ", "+"), func(t *testing.T) {
			var in params.Input
			for _, s := range strings.Fields(tc.sources) {
				switch s {
				case "profile":
					in.Given = append(in.Given, params.Given{Document: whole(t, s), Rank: params.RankProfile, Source: s})
				case "order":
					in.Given = append(in.Given, params.Given{Document: whole(t, s), Rank: params.RankOrder, Source: s})
				case "oem":
					in.Given = append(in.Given, params.Given{Document: whole(t, s), Rank: params.RankOEM, Source: s})
				case "good":
					in.Good = &modem.APN{Name: s}
				case "database":
					in.Database = []carrierdb.Candidate{{Provider: s, APN: modem.APN{Name: s}}}
				}
			}
			e, err := params.Resolve(in)
			if err != nil {
				t.Fatal(err)
			}
			var tried []string
			for _, a := range e.Attempts() {
				name := a.Value.Name
				if name == "" {
					name = "network"
				}
				tried = append(tried, name)
				rank := map[string]params.Rank{"profile": 1, "order": 2, "oem": 3, "good": 4, "database": 4, "network": 5}[name]
				source := map[string]string{"good": "last-good", "database": "provider-database: database", "network": "network default"}[name]
				if source == "" {
					source = name
				}
				if a.Rank != rank || a.Source != source {
					t.Errorf("%s is said by %q with rank %d", name, a.Source, a.Rank)
				}
			}
			if got := strings.Join(tried, " "); got != tc.attempts {
				t.Errorf("tried %q, want %q", got, tc.attempts)
			}
			attach, dm := e.APNs[params.PurposeAttach], e.APNs[params.PurposeDM]
			got := strings.Join([]string{by(attach, attach.Value.Name), by(dm, strings.TrimPrefix(dm.Value.Name, "dm.")),
				by(e.DataRoaming, map[bool]string{false: "order", true: e.DataRoaming.Source}[e.DataRoaming.Value]),
				by(e.LTEBands, number(append(e.LTEBands.Value, 0)[0])), by(e.PSM, number(int(e.PSM.Value.ActiveSeconds))), by(e.SMSC, number(int(last(e.SMSC.Value))))}, " ")
			if got != tc.leaves {
				t.Errorf("leaves   %s\nwant     %s", got, tc.leaves)
			}
			host := func(l params.Leaf[string], kind string) string {
				return by(l, strings.TrimSuffix(strings.TrimPrefix(l.Value, kind+"."), ".example"))
			}
			if got := host(e.ECS, "ecs") + " " + host(e.CMP, "cmp"); got != tc.servers {
				t.Errorf("servers %q, want %q", got, tc.servers)
			}
		})
	}
}

// by is the source of a leaf, if its value is this source's.
func by[T any](l params.Leaf[T], value string) string {
	switch {
	case l.IsZero():
		return "-"
	case l.Source != value:
		return fmt.Sprintf("(%s says the value of %s)", l.Source, value)
	case l.Generation != int64(l.Rank) || l.State != "" || l.Scope != map[params.Rank]string{1: "iccid", 2: "any", 3: "any"}[l.Rank]:
		return fmt.Sprintf("(%+v)", l)
	}
	return l.Source
}

func number(n int) string { return []string{"nobody", "profile", "order", "oem"}[n] }

func last(s string) byte { return ("0" + s)[len(s)] - '0' }

// TestNull is the same for a source that unsets what it could say: alone it
// leaves nothing, and it stops all below it and nothing above.
func TestNull(t *testing.T) {
	ranks := map[string]params.Rank{"profile": 1, "order": 2, "oem": 3}
	for _, tc := range []struct{ null, full, attempts, leaves string }{
		{"profile", "", "network<profile", "null null"},
		{"order", "", "network<order", "null null"},
		{"oem", "", "network<oem", "null null"},
		{"profile", "order", "network<profile", "null null"},
		{"profile", "oem", "network<profile", "null null"},
		{"order", "oem", "network<order", "null null"},
		{"order", "profile", "profile<profile", "profile profile"},
		{"oem", "profile", "profile<profile", "profile profile"},
		{"oem", "order", "order<order", "order order"},
	} {
		t.Run(tc.null+"-over-"+tc.full, func(t *testing.T) {
			in := params.Input{Good: &modem.APN{Name: "good"}, Database: candidates(2)}
			in.Given = append(in.Given, params.Given{Document: parse(t, `{"version":1,"apns":null,"radio":null,"sms":{"smsc":null}}`), Rank: ranks[tc.null], Source: tc.null})
			if tc.full != "" {
				in.Given = append(in.Given, params.Given{Document: whole(t, tc.full), Rank: ranks[tc.full], Source: tc.full})
			}
			e, err := params.Resolve(in)
			if err != nil {
				t.Fatal(err)
			}
			a := e.Attempts()
			name := a[0].Value.Name
			if name == "" {
				name = "network"
			}
			if got := name + "<" + a[0].Source; got != tc.attempts || len(a) != 1 {
				t.Errorf("tried %q and %d more, want %q alone", got, len(a)-1, tc.attempts)
			}
			said := func(unset bool, source, winner string) string {
				if source != winner {
					t.Errorf("%q says it, want %q", source, winner)
				}
				if unset {
					return "null"
				}
				return source
			}
			winner := tc.null
			if !strings.Contains(tc.leaves, "null") {
				winner = tc.full
			}
			if got := said(e.SMSC.Unset, e.SMSC.Source, winner) + " " + said(e.LTEBands.Unset, e.LTEBands.Source, winner); got != tc.leaves {
				t.Errorf("%s, want %s", got, tc.leaves)
			}
			dm, there := e.APNs[params.PurposeDM]
			if wantThere := tc.full != ""; there != wantThere || there && dm.Unset != strings.Contains(tc.leaves, "null") {
				t.Errorf("dm: %+v", dm)
			}
			if r := e.Radio(); strings.Contains(tc.leaves, "null") && !r.IsZero() {
				t.Errorf("the modem is to be set to %+v", r)
			}
			if len(e.Others()) != 0 && e.Others()[0].Unset || strings.Contains(tc.leaves, "null") && (len(e.Others()) != 0 || e.Attach() != nil) {
				t.Errorf("access points that are unset: %+v", e.Others())
			}
		})
	}
}

// Within a rank the narrower scope wins, then the higher generation, then the
// one that is given first; the last is a conflict if they differ.
func TestStanding(t *testing.T) {
	profile := params.Profile{ICCID: iccid(t, "89001012012341234012"), MCC: "262", MNC: "01", IMSI: "262011234567890", SPN: "Test Fleet", GID1: "FF01"}
	for _, tc := range []struct {
		name      string
		documents []string // members; the value is the document's SMSC
		want      string   // SMSC
		scope     string
		conflicts int
	}{
		{"any", []string{`"sms":{"smsc":"111"}`}, "111", "any", 0},
		{"network before any", []string{`"sms":{"smsc":"111"}`, `"scope":{"mccmnc":["26201"]},"sms":{"smsc":"222"}`}, "222", "plmn", 0},
		{"GID1 before network", []string{`"scope":{"mccmnc":["26201"]},"sms":{"smsc":"111"}`, `"scope":{"gid1":"ff"},"sms":{"smsc":"222"}`}, "222", "imsi", 0},
		{"SPN before network", []string{`"scope":{"mccmnc":["26201"]},"sms":{"smsc":"111"}`, `"scope":{"spn":"TESTFLEET"},"sms":{"smsc":"222"}`}, "222", "imsi", 0},
		{"IMSI before network", []string{`"scope":{"mccmnc":["26201"]},"sms":{"smsc":"111"}`, `"scope":{"imsiPrefix":"26201x2"},"sms":{"smsc":"222"}`}, "222", "imsi", 0},
		{"ICCID prefix before network", []string{`"scope":{"mccmnc":["26201"]},"sms":{"smsc":"111"}`, `"scope":{"iccidPrefix":"890010"},"sms":{"smsc":"222"}`}, "222", "imsi", 0},
		{"ICCID before all", []string{`"scope":{"iccid":"89001012012341234012"},"sms":{"smsc":"111"}`, `"generation":9,"scope":{"mccmnc":["26201"],"gid1":"ff","spn":"Test Fleet","imsiPrefix":"26201"},"sms":{"smsc":"222"}`}, "111", "iccid", 0},
		{"more before less", []string{`"generation":9,"scope":{"gid1":"ff"},"sms":{"smsc":"111"}`, `"scope":{"mccmnc":["26201"],"gid1":"ff"},"sms":{"smsc":"222"}`}, "222", "imsi", 0},
		{"narrower before newer", []string{`"generation":9,"sms":{"smsc":"111"}`, `"scope":{"mccmnc":["26201"]},"sms":{"smsc":"222"}`}, "222", "plmn", 0},
		{"newer before older", []string{`"generation":1,"sms":{"smsc":"111"}`, `"generation":2,"sms":{"smsc":"222"}`}, "222", "any", 0},
		{"older behind newer", []string{`"generation":2,"sms":{"smsc":"111"}`, `"generation":1,"sms":{"smsc":"222"}`}, "111", "any", 0},
		{"the same twice", []string{`"generation":1,"sms":{"smsc":"111"}`, `"generation":1,"sms":{"smsc":"111"}`}, "111", "any", 0},
		{"a conflict", []string{`"generation":1,"sms":{"smsc":"111"}`, `"generation":1,"sms":{"smsc":"222"}`}, "111", "any", 1},
		{"two conflicts", []string{`"sms":{"smsc":"111"}`, `"sms":{"smsc":"222"}`, `"sms":{"smsc":null}`}, "111", "any", 2},
		{"different leaves are none", []string{`"sms":{"smsc":"111"}`, `"radio":{"rats":["lte"]}`}, "111", "any", 0},
		{"another scope", []string{`"sms":{"smsc":"111"}`, `"scope":{"spn":"Test"},"sms":{"smsc":"222"}`}, "111", "any", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := params.Input{Profile: profile}
			for i, d := range tc.documents {
				in.Given = append(in.Given, params.Given{Document: parse(t, `{"version":1,`+d+`}`), Rank: params.RankOEM, Source: fmt.Sprintf("oem: %d", i)})
			}
			e, err := params.Resolve(in)
			if err != nil {
				t.Fatal(err)
			}
			if e.SMSC.Value != tc.want || e.SMSC.Scope != tc.scope {
				t.Errorf("%+v, want %s by the scope %s", e.SMSC, tc.want, tc.scope)
			}
			if n := count(e.Notes, params.StateConflict); n != tc.conflicts {
				t.Errorf("%d conflicts are reported, want %d: %+v", n, tc.conflicts, e.Notes)
			}
		})
	}
}

func count(notes []params.Note, state string) (n int) {
	for _, note := range notes {
		if note.State == state {
			n++
		}
	}
	return n
}

// Two documents of one source are versions of one: the newer replaces the
// older whole, an equal one that differs is not believed.
func TestVersions(t *testing.T) {
	for _, tc := range []struct {
		name      string
		first     string
		second    string
		smsc      string
		rats      int
		conflicts int
	}{
		{"newer", `"generation":1,"sms":{"smsc":"111"},"radio":{"rats":["lte"]}`, `"generation":2,"sms":{"smsc":"222"}`, "222", 0, 0},
		{"older", `"generation":2,"sms":{"smsc":"111"}`, `"generation":1,"sms":{"smsc":"222"},"radio":{"rats":["lte"]}`, "111", 0, 0},
		{"equal", `"generation":1,"sms":{"smsc":"111"}`, `"generation":1,"sms":{"smsc":"222"},"radio":{"rats":["lte"]}`, "111", 0, 1},
		{"the same", `"generation":1,"sms":{"smsc":"111"}`, `"generation":1,"sms":{"smsc":"111"}`, "111", 0, 0},
		{"for others", `"generation":1,"scope":{"mccmnc":["26201"]},"sms":{"smsc":"111"}`, `"generation":2,"radio":{"rats":["lte"]}`, "111", 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := params.Input{Profile: params.Profile{MCC: "262", MNC: "01"}, Given: append(order(parse(t, `{"version":1,`+tc.first+`}`)), order(parse(t, `{"version":1,`+tc.second+`}`))...)}
			e, err := params.Resolve(in)
			if err != nil || e.SMSC.Value != tc.smsc || len(e.RATs.Value) != tc.rats || count(e.Notes, params.StateConflict) != tc.conflicts {
				t.Errorf("%+v %+v %+v, %v", e.SMSC, e.RATs, e.Notes, err)
			}
		})
	}
}

// An access point is taken whole, for each purpose from the first that names
// it; nothing of another leaks into it.
func TestWholeEntries(t *testing.T) {
	in := params.Input{Secrets: map[string]redact.Secret{"file:/s": redact.NewSecret("oem secret")}, Given: []params.Given{
		{Document: parse(t, `{"version":1,"apns":[{"name":"p","purposes":["ims"]}]}`), Rank: params.RankProfile, Source: "profile"},
		{Document: parse(t, `{"version":1,"apns":[{"name":"o","purposes":["default","ims","mms"],"pdnType":"v4"}]}`), Rank: params.RankOrder, Source: "order"},
		{Document: parse(t, `{"version":1,"apns":[{"name":"m","purposes":["default","ia","dm","fota"],"auth":"chap","user":"u","secretRef":"file:/s","mtu":1400},
			{"name":"m2","purposes":["mms","supl","bootstrap"]}]}`), Rank: params.RankOEM, Source: "oem"},
	}}
	e, err := params.Resolve(in)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range []params.Purpose{"default", "ia", "ims", "mms", "supl", "dm", "fota", "bootstrap"} {
		l := e.APNs[p]
		got = append(got, fmt.Sprintf("%s=%s<%s%v", p, l.Value.Name, l.Source, l.Value.Purposes))
	}
	want := []string{"default=o<order[default mms]", "ia=m<oem[ia dm fota]", "ims=p<profile[ims]", "mms=o<order[default mms]", "supl=m2<oem[supl bootstrap]",
		"dm=m<oem[ia dm fota]", "fota=m<oem[ia dm fota]", "bootstrap=m2<oem[supl bootstrap]"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if o := e.APNs[params.PurposeDefault].Value; o.User != "" || !o.Password.IsZero() || o.MTU != 0 || o.Type != modem.IPv4 {
		t.Errorf("the order's access point has something of the maker's: %+v", o)
	}
	var others []string
	for _, l := range e.Others() {
		others = append(others, l.Value.Name+"<"+l.Source)
	}
	if got := strings.Join(others, " "); got != "p<profile m2<oem m<oem" {
		t.Errorf("others: %s", got)
	}
	if a := e.Attach(); a == nil || a.Name != "m" || a.Password.Reveal() != "oem secret" {
		t.Errorf("attach: %+v", a)
	}
	if got := attempts(e); got != "o<order m<oem" {
		t.Errorf("tried: %s", got)
	}
	if last := e.Attempts()[1].Value; len(last.Purposes) != 0 && !slices.Equal(last.Purposes, []string{"default"}) {
		t.Errorf("the second try is for %v", last.Purposes)
	}
	if (params.Effective{}).Attach() != nil || (params.Effective{}).Others() != nil {
		t.Error("an empty set has access points")
	}
}

func TestUnusableEntries(t *testing.T) {
	const locked = `{"version":1,"apns":[{"name":"locked","user":"u","secretRef":"file:/gone","purposes":["default","dm"]}]}`
	const open = `{"version":1,"apns":[{"name":"open","purposes":["default","dm"]}]}`
	given := func(rank params.Rank, source, text string) params.Given {
		return params.Given{Document: parse(t, text), Rank: rank, Source: source}
	}
	for _, tc := range []struct {
		name  string
		given []params.Given
		want  string // attempts; empty: an error
		notes int
	}{
		{"an order's", []params.Given{given(params.RankOrder, "order", locked), given(params.RankOEM, "oem", open)}, "", 0},
		{"an order's, and the profile knows better", []params.Given{given(params.RankOrder, "order", locked), given(params.RankProfile, "profile", open)}, "open<profile", 1},
		{"the profile's", []params.Given{given(params.RankProfile, "profile", locked), given(params.RankOrder, "order", open)}, "open<order", 1},
		{"the maker's", []params.Given{given(params.RankOEM, "oem", locked)}, "db0<provider-database: P <network default", 1},
		{"the maker's, who has another", []params.Given{given(params.RankOEM, "oem: 1", locked), given(params.RankOEM, "oem: 2", open)}, "open<oem: 2", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, err := params.Resolve(params.Input{Given: tc.given, Database: candidates(1)})
			if (err != nil) != (tc.want == "") {
				t.Fatal(err)
			}
			if err == nil && (attempts(e) != tc.want || len(e.Notes) != tc.notes) {
				t.Errorf("%s, %+v", attempts(e), e.Notes)
			}
		})
	}
}

// A source that has failed its trial is silent until its generation changes;
// its limits are not.
func TestSuspended(t *testing.T) {
	suspended := func(source string, generation int64) bool { return source == "order" && generation == 2 }
	in := params.Input{Suspended: suspended, Given: []params.Given{
		{Document: whole(t, "order"), Rank: params.RankOrder, Source: "order"}, // generation 2
		{Document: whole(t, "oem"), Rank: params.RankOEM, Source: "oem"},
	}}
	e, err := params.Resolve(in)
	if err != nil || e.SMSC.Source != "oem" || attempts(e) != "oem<oem" || e.CMP.Source != "oem" || count(e.Notes, params.StateSuspended) != 1 {
		t.Errorf("%s, %+v, %+v, %v", attempts(e), e.SMSC, e.Notes, err)
	}
	in.Given[0].Document.Generation = 3
	if e, err := params.Resolve(in); err != nil || e.SMSC.Source != "order" || count(e.Notes, params.StateSuspended) != 0 {
		t.Errorf("after a change: %+v, %+v, %v", e.SMSC, e.Notes, err)
	}
	in = params.Input{Suspended: func(string, int64) bool { return true }, Given: []params.Given{
		{Document: parse(t, `{"version":1,"sms":{"smsc":"111"},"limits":{"roamingForbidden":true}}`), Rank: params.RankOEM, Source: "oem"}}}
	if e, err := params.Resolve(in); err != nil || !e.SMSC.IsZero() || e.DataRoaming.Source != params.SourceLimits {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestLimits(t *testing.T) {
	limits := func(text string) params.Given {
		return params.Given{Document: parse(t, `{"version":1,"limits":`+text+`}`), Rank: params.RankOEM, Source: "oem: limits.json"}
	}
	said := func(rank params.Rank, source, text string) params.Given {
		return params.Given{Document: parse(t, `{"version":1,`+text+`}`), Rank: rank, Source: source}
	}
	for _, tc := range []struct {
		name  string
		given []params.Given
		want  string // leaves with their source and state
		notes int
	}{
		{"bands are cut", []params.Given{limits(`{"lteBands":[3,20]}`), said(1, "profile", `"radio":{"lteBands":[1,3,20]}`)}, "bands [3 20]<profile limited", 1},
		{"of every rank", []params.Given{limits(`{"lteBands":[3,20]}`), said(3, "oem", `"radio":{"lteBands":[1,3]}`)}, "bands [3]<oem limited", 1},
		{"bands within stay", []params.Given{limits(`{"lteBands":[3,20]}`), said(2, "order", `"radio":{"lteBands":[20]}`)}, "bands [20]<order", 0},
		{"a limit says nothing itself", []params.Given{limits(`{"lteBands":[3],"rats":["lte"]}`)}, "", 0},
		{"nothing is left", []params.Given{limits(`{"lteBands":[3]}`), said(1, "profile", `"radio":{"lteBands":[1]}`)}, "", 1},
		{"nothing is left, the next speaks", []params.Given{limits(`{"lteBands":[3]}`), said(1, "profile", `"radio":{"lteBands":[1]}`), said(2, "order", `"radio":{"lteBands":[3]}`)}, "bands [3]<order", 1},
		{"two limits", []params.Given{limits(`{"lteBands":[3,20]}`), said(3, "oem: 9", `"limits":{"lteBands":[1,3]}`), said(2, "order", `"radio":{"lteBands":[1,3,20]}`)}, "bands [3]<order limited", 1},
		{"RATs", []params.Given{limits(`{"rats":["lte","lte-m"]}`), said(2, "order", `"radio":{"rats":["gsm","lte"]}`)}, "rats [lte]<order limited", 1},
		{"no RAT", []params.Given{limits(`{"rats":["lte-m"]}`), said(2, "order", `"radio":{"rats":["gsm","lte"]}`)}, "", 1},
		{"null stays", []params.Given{limits(`{"rats":["lte-m"]}`), said(2, "order", `"radio":{"rats":null}`), said(3, "oem", `"radio":{"rats":["lte-m"]}`)}, "rats null<order", 0},
		{"roaming", []params.Given{limits(`{"roamingForbidden":true}`), said(1, "profile", `"roaming":{"data":true}`)}, "roaming false<profile limited", 1},
		{"roaming, nobody asks", []params.Given{limits(`{"roamingForbidden":true}`)}, "roaming false<oem limits limited", 0},
		{"roaming, null", []params.Given{limits(`{"roamingForbidden":true}`), said(2, "order", `"roaming":{"data":null}`)}, "roaming false<oem limits limited", 0},
		{"roaming, not forbidden", []params.Given{limits(`{"roamingForbidden":false}`), said(2, "order", `"roaming":{"data":true}`)}, "roaming true<order", 0},
		{"servers", []params.Given{limits(`{"serverHosts":["cmp.example.com","*.ops.example.com"]}`), said(2, "order", `"servers":{"cmp":"CMP.example.com","ecs":"a.b.ops.example.com","smds":"ops.example.com"}`)},
			"cmp CMP.example.com<order ecs a.b.ops.example.com<order", 1},
		{"a similar name", []params.Given{limits(`{"serverHosts":["*.example.com"]}`), said(2, "order", `"servers":{"cmp":"cmp.badexample.com","ecs":"cmp.example.com.evil.org"}`)}, "", 2},
		{"a list of servers", []params.Given{limits(`{"serverHosts":["*.example.com"]}`), said(2, "order", `"servers":{"bootstrap":["a.example.com","b.example.org"]}`)}, "bootstrap [a.example.com]<order limited", 1},
		{"an empty list of servers", []params.Given{limits(`{"serverHosts":["*.example.com"]}`), said(2, "order", `"servers":{"bootstrap":[]}`)}, "bootstrap []<order", 0},
		{"the profile adds a server", []params.Given{said(1, "profile", `"servers":{"ecs":"p.example.com","cmp":"p.example.com"}`), said(3, "oem", `"servers":{"cmp":"m.example.com"}`)}, "cmp m.example.com<oem ecs p.example.com<profile", 0},
		{"it may replace one", []params.Given{limits(`{"allowProfileServer":true}`), said(1, "profile", `"servers":{"cmp":"p.example.com"}`), said(3, "oem", `"servers":{"cmp":"m.example.com"}`)}, "cmp p.example.com<profile", 0},
		{"it may not take one away", []params.Given{said(1, "profile", `"servers":null`), said(2, "order", `"servers":{"cmp":"m.example.com"}`)}, "bootstrap null<profile cmp m.example.com<order ecs null<profile smds null<profile", 0},
		{"limits of others", []params.Given{said(2, "order", `"radio":{"lteBands":[1]},"limits":{"lteBands":[3],"allowProfileServer":true}`)}, "bands [1]<order", 1},
		{"limits of another profile", []params.Given{said(3, "oem", `"scope":{"mccmnc":["26202"]},"limits":{"lteBands":[3]}`), said(2, "order", `"radio":{"lteBands":[1]}`)}, "bands [1]<order", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, err := params.Resolve(params.Input{Profile: params.Profile{MCC: "262", MNC: "01"}, Given: tc.given})
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(slices.Concat(show("bands", e.LTEBands), show("bootstrap", e.Bootstrap), show("cmp", e.CMP), show("ecs", e.ECS),
				show("rats", e.RATs), show("roaming", e.DataRoaming), show("smds", e.SMDS)), " ")
			if got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if len(e.Notes) != tc.notes {
				t.Errorf("notes %+v, want %d", e.Notes, tc.notes)
			}
			if roaming := e.Attempts()[0].Value.AllowRoaming; strings.Contains(tc.want, "roaming false") != (roaming != nil && !*roaming) {
				t.Errorf("roaming of the connection: %v", roaming)
			}
		})
	}
	given := params.Input{Limits: &params.Limits{LTEBands: []int{3}}, Given: []params.Given{said(2, "order", `"radio":{"lteBands":[1,3]}`)}}
	if e, err := params.Resolve(given); err != nil || !slices.Equal(e.Radio().LTEBands, []int{3}) || !slices.Equal(given.Given[0].Document.LTEBands.Value, []int{1, 3}) {
		t.Errorf("limits beside the documents: %+v, %v", e.LTEBands, err)
	}
	var none *params.Limits
	if !none.AllowsHost("a.example.com") || (&params.Limits{ServerHosts: []string{"a.example.com"}}).AllowsHost("b.example.com") ||
		!(&params.Limits{ServerHosts: []string{"a.example.com"}}).AllowsHost("A.example.com:8443") {
		t.Error("hosts")
	}
}

func show[T any](name string, l params.Leaf[T]) []string {
	if l.IsZero() {
		return nil
	}
	value := fmt.Sprint(l.Value)
	if l.Unset {
		value = "null"
	}
	out := []string{name, value + "<" + l.Source}
	if l.State != "" {
		out = append(out, l.State)
	}
	return out
}

// What has carried data before is tried before the list, once.
func TestGood(t *testing.T) {
	yes, no := true, false
	for _, tc := range []struct {
		name  string
		good  modem.APN
		given string
		want  string
		roam  *bool
	}{
		{"first", modem.APN{Name: "g", AllowRoaming: &yes}, `{}`, "g<last-good db0<provider-database: P db1<provider-database: P <network default", &yes},
		{"not twice", modem.APN{Name: "db1", User: "u"}, `{}`, "db1<last-good db0<provider-database: P <network default", nil},
		{"another user", modem.APN{Name: "db1", User: "v"}, `{}`, "db1<last-good db0<provider-database: P db1<provider-database: P <network default", nil},
		{"the empty one", modem.APN{}, `{}`, "<last-good db0<provider-database: P db1<provider-database: P", nil},
		{"roaming is as it is said now", modem.APN{Name: "g", AllowRoaming: &yes}, `{"roaming":{"data":false}}`, "g<last-good db0<provider-database: P db1<provider-database: P <network default", &no},
		{"an attach alone", modem.APN{Name: "g"}, `{"apns":[{"name":"a","purposes":["ia"]}]}`, "g<last-good db0<provider-database: P db1<provider-database: P <network default", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(strings.Replace(tc.given, "{", `{"version":1,`, 1), ",}", "}", 1)
			e, err := params.Resolve(params.Input{Good: &tc.good, Database: candidates(2), Given: order(parse(t, text))})
			if err != nil || attempts(e) != tc.want {
				t.Errorf("%s, %v\nwant %s", attempts(e), err, tc.want)
			}
			if d := cmp.Diff(tc.roam, e.Attempts()[0].Value.AllowRoaming); d != "" {
				t.Errorf("roaming (-want +got):\n%s", d)
			}
		})
	}
}

func TestRadio(t *testing.T) {
	ptw := 3
	e, err := params.Resolve(params.Input{Given: order(parse(t, `{"version":1,"roaming":{"preferredPlmns":["26202"]},"sms":{"smsc":"+4911"},
		"radio":{"rats":["lte"],"lteBands":[20],"edrx":{"lte":{"value":5,"ptw":3},"nb-iot":{"value":2}},"psm":{"tauSeconds":3600,"activeSeconds":10}}}`))})
	if err != nil {
		t.Fatal(err)
	}
	want := modem.Radio{RATs: []string{"lte"}, LTEBands: []int{20}, EDRX: []modem.EDRX{{AcT: 4, Value: 5, PTW: &ptw}, {AcT: 5, Value: 2}},
		PSM: &modem.PSM{TAU: 0x21, Active: 0x05}, SMSC: "+4911", PreferredPLMNs: []string{"26202"}}
	if d := cmp.Diff(want, e.Radio()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if !(params.Effective{}).Radio().IsZero() {
		t.Error("nobody wants anything, and the modem is set")
	}
	// A time that a timer cannot say is rounded up to one that it can.
	for _, tc := range []struct {
		tau, active int64
		want        modem.PSM
	}{
		{0, 0, modem.PSM{}},
		{1, 1, modem.PSM{TAU: 0x61, Active: 0x01}},
		{2, 62, modem.PSM{TAU: 0x61, Active: 0x1F}},
		{63, 63, modem.PSM{TAU: 0x83, Active: 0x22}}, // 3 of 30 s; 2 of 60 s
		{86400, 3600, modem.PSM{TAU: 0x38, Active: 0x4A}},
		{31 * 320 * 3600, 31 * 360, modem.PSM{TAU: 0xDF, Active: 0x5F}},
	} {
		e, err := params.Resolve(params.Input{Given: order(parse(t, fmt.Sprintf(`{"version":1,"radio":{"psm":{"tauSeconds":%d,"activeSeconds":%d}}}`, tc.tau, tc.active)))})
		if err != nil || *e.Radio().PSM != tc.want {
			t.Errorf("%d s and %d s: %#v, %v, want %#v", tc.tau, tc.active, *e.Radio().PSM, err, tc.want)
		}
	}
}

// Who shares a network with others is told by what the card says.
func TestScopes(t *testing.T) {
	p := params.Profile{ICCID: iccid(t, "89001012012341234012"), MCC: "310", MNC: "260", IMSI: "310260123456789", SPN: "Fleet-One", GID1: "A1B2"}
	onlyIMSI := params.Profile{IMSI: "310260123456789"}
	for _, tc := range []struct {
		scope   string
		profile params.Profile
		want    bool
	}{
		{`"mccmnc":["310260"]`, p, true},
		{`"mccmnc":["31026"]`, p, false},
		{`"mccmnc":["310260"]`, onlyIMSI, true},
		{`"mccmnc":["26201","310260"]`, onlyIMSI, true},
		{`"mccmnc":["310270"]`, onlyIMSI, false},
		{`"gid1":"a1"`, p, true}, {`"gid1":"A1B2"`, p, true}, {`"gid1":"a1b3"`, p, false}, {`"gid1":"a1b2ff"`, p, false}, {`"gid1":"a1"`, onlyIMSI, false},
		{`"spn":"fleet one"`, p, true}, {`"spn":"Fleet"`, p, false}, {`"spn":"fleet one"`, onlyIMSI, false},
		{`"imsiPrefix":"310260"`, p, true}, {`"imsiPrefix":"31026x12X"`, p, true}, {`"imsiPrefix":"31026x9"`, p, false}, {`"imsiPrefix":"310260"`, params.Profile{}, false},
		{`"iccidPrefix":"89001"`, p, true}, {`"iccidPrefix":"89002"`, p, false}, {`"iccidPrefix":"89001012012341234012"`, p, true}, {`"iccidPrefix":"89"`, onlyIMSI, false},
		{`"mccmnc":["310260"],"gid1":"a1","spn":"FLEET ONE","imsiPrefix":"310","iccidPrefix":"89"`, p, true},
		{`"mccmnc":["310260"],"gid1":"a2","spn":"FLEET ONE"`, p, false},
	} {
		e, err := params.Resolve(params.Input{Profile: tc.profile, Given: []params.Given{{Document: parse(t, `{"version":1,"scope":{`+tc.scope+`},"sms":{"smsc":"111"}}`), Rank: params.RankOEM, Source: "oem"}}})
		if err != nil || !e.SMSC.IsZero() != tc.want {
			t.Errorf("%s: %+v, %v", tc.scope, e.SMSC, err)
		}
	}
}
