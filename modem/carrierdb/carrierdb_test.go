package carrierdb_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lpad/internal/redact"
	"lpad/modem"
	"lpad/modem/carrierdb"
)

const installed = "/usr/share/mobile-broadband-provider-info/serviceproviders.xml"

func open(t testing.TB, path string) *carrierdb.DB {
	t.Helper()
	db, err := carrierdb.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// names are the candidates as text: "apn", with "?" when ambiguous.
func names(found []carrierdb.Candidate) string {
	var out []string
	for _, c := range found {
		s := c.APN.Name
		if c.Ambiguous {
			s += "?"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func TestLookup(t *testing.T) {
	db := open(t, "testdata/small.xml")
	for _, tc := range []struct {
		name  string
		query carrierdb.Query
		want  string
		match carrierdb.Match
	}{
		{"one provider, internet before unknown", carrierdb.Query{MCC: "001", MNC: "01"}, "post.old pre.old plain.old", carrierdb.MatchOnly},
		{"plan", carrierdb.Query{MCC: "001", MNC: "01", Plan: "prepaid"}, "pre.old plain.old post.old", carrierdb.MatchOnly},
		{"no such network", carrierdb.Query{MCC: "001", MNC: "99"}, "", ""},
		{"MNC is text", carrierdb.Query{MCC: "001", MNC: "001"}, "", ""},
		{"nothing known", carrierdb.Query{}, "", ""},
		{"short IMSI", carrierdb.Query{IMSI: "00101"}, "", ""},
		{"IMSI, two digits", carrierdb.Query{IMSI: "001014567890123"}, "post.old pre.old plain.old", carrierdb.MatchOnly},
		{"IMSI, three digits first", carrierdb.Query{IMSI: "001010567890123"}, "three", carrierdb.MatchOnly},
		{"primary, the others behind", carrierdb.Query{MCC: "001", MNC: "02"}, "host blue bluemobile", carrierdb.MatchPrimary},
		{"equal name", carrierdb.Query{MCC: "001", MNC: "02", SPN: "BLUE mobile"}, "bluemobile", carrierdb.MatchSPN},
		{"equal before contained", carrierdb.Query{MCC: "001", MNC: "02", SPN: "blue"}, "blue", carrierdb.MatchSPN},
		{"contained in the SPN", carrierdb.Query{MCC: "001", MNC: "02", SPN: "Host Net Ltd."}, "host", carrierdb.MatchSPNPart},
		{"the SPN is contained", carrierdb.Query{MCC: "001", MNC: "02", SPN: "Mobile"}, "bluemobile", carrierdb.MatchSPNPart},
		{"several contain it", carrierdb.Query{MCC: "001", MNC: "02", SPN: "Blue Mobile Plus"}, "blue? bluemobile?", carrierdb.MatchSPNPart},
		{"unknown SPN", carrierdb.Query{MCC: "001", MNC: "02", SPN: "Nobody"}, "host blue bluemobile", carrierdb.MatchPrimary},
		{"SPN of punctuation", carrierdb.Query{MCC: "001", MNC: "02", SPN: "-"}, "host blue bluemobile", carrierdb.MatchPrimary},
		{"ambiguous", carrierdb.Query{MCC: "001", MNC: "03"}, "one? two?", carrierdb.MatchNetwork},
		{"operator's name", carrierdb.Query{MCC: "001", MNC: "03", Operator: "two"}, "two one", carrierdb.MatchOperator},
		{"agreeing", carrierdb.Query{MCC: "001", MNC: "04"}, "twin twin-a", carrierdb.MatchNetwork},
		{"nothing for data", carrierdb.Query{MCC: "001", MNC: "05"}, "", ""},
		{"nameless", carrierdb.Query{MCC: "001", MNC: "06", SPN: "x"}, "nameless", carrierdb.MatchOnly},
	} {
		t.Run(tc.name, func(t *testing.T) {
			found, err := db.Lookup(tc.query)
			if err != nil {
				t.Fatal(err)
			}
			if got := names(found); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if len(found) > 0 && found[0].Match != tc.match {
				t.Errorf("match %q, want %q", found[0].Match, tc.match)
			}
		})
	}
}

func TestCandidate(t *testing.T) {
	found, err := open(t, "testdata/small.xml").Lookup(carrierdb.Query{MCC: "001", MNC: "01"})
	if err != nil {
		t.Fatal(err)
	}
	want := carrierdb.Candidate{
		Provider: "Old Operator", Country: "zz", Name: "Contract", Match: carrierdb.MatchOnly,
		APN:   modem.APN{Name: "post.old", Auth: modem.AuthCHAP, User: "u & me", Password: redact.NewSecret("p")},
		DNS:   []string{"192.0.2.53", "192.0.2.54"},
		Plans: []string{"postpaid"},
	}
	if d := cmp.Diff(want, found[0], cmp.Comparer(func(a, b redact.Secret) bool { return a == b })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// The list that Debian 12 ships: what the brief measured in it.
func TestInstalled(t *testing.T) {
	if _, err := os.Stat(installed); errors.Is(err, os.ErrNotExist) {
		t.Skip("mobile-broadband-provider-info is not installed")
	}
	db := open(t, installed)
	for _, tc := range []struct {
		query     carrierdb.Query
		first     string
		ambiguous bool
	}{
		{carrierdb.Query{MCC: "262", MNC: "03", SPN: "blau.de"}, "internet.eplus.de", false},
		{carrierdb.Query{IMSI: "262031234567890"}, "internet.eplus.de", false},
		{carrierdb.Query{MCC: "505", MNC: "02", SPN: "Amaysim"}, "internet", false},
		{carrierdb.Query{MCC: "505", MNC: "02"}, "", true},
		{carrierdb.Query{MCC: "001", MNC: "01"}, "", false},
		{carrierdb.Query{MCC: "901", MNC: "28"}, "", false},
	} {
		found, err := db.Lookup(tc.query)
		if err != nil {
			t.Fatal(err)
		}
		if tc.first != "" && (len(found) == 0 || found[0].APN.Name != tc.first) || len(found) > 0 && found[0].Ambiguous != tc.ambiguous || tc.ambiguous && len(found) == 0 {
			t.Errorf("%+v: %s", tc.query, names(found))
		}
	}
	found, err := db.Lookup(carrierdb.Query{MCC: "262", MNC: "03", SPN: "blau.de"})
	if err != nil || found[0].APN.User != "blau" {
		t.Errorf("blau.de: %+v, %v", found, err)
	}
}

func TestDamaged(t *testing.T) {
	whole, err := os.ReadFile("testdata/small.xml")
	if err != nil {
		t.Fatal(err)
	}
	const head = `<serviceproviders format="2.0"><country code="zz"><provider><name>x</name>`
	const foot = `</provider></country></serviceproviders>`
	for _, tc := range []struct {
		name, text string
		atOpen     bool
	}{
		{"empty", "", true},
		{"not XML", "LPA:1$", true},
		{"other document", "<html/>", true},
		{"format 1", `<serviceproviders format="1.0"/>`, true},
		{"other encoding", `<?xml version="1.0" encoding="iso-8859-1"?><serviceproviders format="2.0"/>`, true},
		{"truncated", string(whole[:len(whole)-200]), false},
		{"cut in an access point", head + `<gsm><apn value="a">`, false},
		{"wrong end", head + `</country>`, false},
		{"entity", `<!DOCTYPE x [<!ENTITY e "expanded">]>` + head + `<name>&e;</name>` + foot, false},
		{"deep", head + strings.Repeat("<a>", 20) + strings.Repeat("</a>", 20) + foot, false},
		{"long value", head + "<name>" + strings.Repeat("x", 300) + "</name>" + foot, false},
		{"many networks", head + "<gsm>" + strings.Repeat(`<network-id mcc="1" mnc="1"/>`, 300) + "</gsm>" + foot, false},
		{"many name servers", head + `<gsm><apn value="a">` + strings.Repeat(`<dns>1</dns>`, 300) + "</apn></gsm>" + foot, false},
		{"many providers", `<serviceproviders format="2.0">` + strings.Repeat(`<provider><gsm><network-id mcc="001" mnc="01"/></gsm></provider>`, 300) + `</serviceproviders>`, false},
		{"long tag", head + `<a b="` + strings.Repeat("x", 5000) + `"/>` + foot, false},
		{"long attribute", head + `<gsm><apn value="` + strings.Repeat("x", 300) + `"/></gsm>` + foot, false},
		{"many attributes", head + `<a` + strings.Repeat(` b=""`, 20) + `/>` + foot, false},
		{"no quotes", head + `<a b=c/>` + foot, false},
		{"a value alone", head + `<a b/>` + foot, false},
		{"no name", head + `<>` + foot, false},
		{"tag in a tag", head + `<a <b/>>` + foot, false},
		{"comment without an end", head + `<!-- ` + foot, false},
		{"CDATA without an end", head + `<![CDATA[ ` + foot, false},
		{"entity without an end", head + `<name>&amp</name>` + foot, false},
		{"no character", head + `<name>&#xD800;</name>` + foot, false},
		{"no UTF-8", head + "<name>\xff</name>" + foot, false},
		{"no UTF-8 in an attribute", head + "<a b=\"\xff\"/>" + foot, false},
		{"text behind the end", head + foot + "x", false},
		{"declaration within", head + `<!DOCTYPE x>` + foot, false},
		{"too long", head + "<!--" + strings.Repeat("x", 2<<20) + "-->" + foot, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "list.xml")
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			db, err := carrierdb.Open(path)
			if (err != nil) != tc.atOpen {
				t.Fatalf("Open: %v, refused by it: %v", err, tc.atOpen)
			}
			if err != nil {
				return
			}
			if found, err := db.Lookup(carrierdb.Query{MCC: "001", MNC: "01"}); err == nil {
				t.Errorf("accepted: %v", found)
			}
		})
	}
	if _, err := carrierdb.Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	path := filepath.Join(t.TempDir(), "gone.xml")
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	db := open(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Lookup(carrierdb.Query{MCC: "001", MNC: "01"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that has gone: %v", err)
	}
}

func TestSameName(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		same bool
	}{
		{"blau.de", "BLAU DE", true}, {"Másmovil", "MASMOVIL", true}, {"Ålands Mobil", "alands mobil", true}, {"ÿ", "Y", true}, {"楽天モバイル", "楽天モバイル", true},
		{"1&1", "11", true}, {"", "", false}, {"-", "-", false}, {"Tele2", "Tele 3", false}, {"TIM", "TIMO", false},
	} {
		if carrierdb.SameName(tc.a, tc.b) != tc.same {
			t.Errorf("%q and %q: %v", tc.a, tc.b, !tc.same)
		}
	}
}

// All that XML allows in such a list is read.
func TestXML(t *testing.T) {
	const list = "\xEF\xBB\xBF<?xml version='1.0' encoding='UTF-8'?>\n<!DOCTYPE x [<!ENTITY e \">\"> <!-- > -->]>" +
		`<serviceproviders format = '2.0' ><!-- <provider> --><country code="ZZ"><provider primary = "true" ><name>A<!-- x -->B &#67;&#x44;<![CDATA[<&amp;>]]></name >` +
		`<gsm><network-id mnc='01'	mcc="001" a="&lt;>"/><apn value="a.b" ><usage type="internet"></usage></apn></gsm>` +
		`<cdma><network-id mcc="001" mnc="09"/></cdma></provider></country></serviceproviders><!-- end -->`
	found, err := carrierdb.LookupIn(list, carrierdb.Query{MCC: "001", MNC: "01"})
	if err != nil || len(found) != 1 || found[0].APN.Name != "a.b" || found[0].Provider != "AB CD<&amp;>" || found[0].Country != "zz" {
		t.Errorf("%+v, %v", found, err)
	}
	if found, err := carrierdb.LookupIn(list, carrierdb.Query{MCC: "001", MNC: "09"}); err != nil || found != nil {
		t.Errorf("a network of another kind: %+v, %v", found, err)
	}
}

// A list that is replaced or written anew is read again.
func TestChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list.xml")
	write := func(apn string) {
		t.Helper()
		text := `<serviceproviders format="2.0"><provider><gsm><network-id mcc="001" mnc="01"/><apn value="` + apn + `"/></gsm></provider></serviceproviders>`
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	db := open(t, path)
	for _, apn := range []string{"one", "two", "a.longer.one"} {
		write(apn)
		if found, err := db.Lookup(carrierdb.Query{MCC: "001", MNC: "01"}); err != nil || names(found) != apn {
			t.Errorf("%s, %v, want %s", names(found), err, apn)
		}
	}
}

// A look-up in the real list holds little: an index of
// the list, not the list.
func TestMemory(t *testing.T) {
	if _, err := os.Stat(installed); errors.Is(err, os.ErrNotExist) {
		t.Skip("mobile-broadband-provider-info is not installed")
	}
	db := open(t, installed)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	found, err := db.Lookup(carrierdb.Query{MCC: "505", MNC: "02"})
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	const bound = 2 << 20
	if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > bound {
		t.Errorf("%d bytes are held after a look-up, at most %d wanted", held, bound)
	}
	runtime.KeepAlive(found)
}

// The list as it is read first, and when it is known already; 505-02 is the
// network with the most providers.
func BenchmarkLookup(b *testing.B) {
	query := carrierdb.Query{MCC: "505", MNC: "02"}
	b.Run("cold", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := open(b, installed).Lookup(query); err != nil {
				b.Fatal(err)
			}
		}
	})
	db := open(b, installed)
	for _, q := range []carrierdb.Query{query, {MCC: "262", MNC: "03"}, {IMSI: "001019876543210"}} {
		b.Run("warm-"+q.MCC+q.MNC, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := db.Lookup(q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func FuzzLookup(f *testing.F) {
	whole, err := os.ReadFile("testdata/small.xml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(whole))
	f.Add(`<serviceproviders format="2.0"><provider><gsm><network-id mcc="001" mnc="01"/><apn value="a"/></gsm></provider></serviceproviders>`)
	f.Add(`<serviceproviders format="2.0"><provider><gsm><network-id mcc="001" mnc="01"/><apn value="a"><apn value="b"/></apn></gsm></provider></serviceproviders>`)
	f.Fuzz(func(t *testing.T, text string) {
		found, err := carrierdb.LookupIn(text, carrierdb.Query{IMSI: "001014567890123", SPN: "Old"})
		if err != nil && found != nil {
			t.Error("an error and candidates")
		}
		for _, c := range found {
			if strings.ContainsAny(c.APN.Name+c.APN.User+c.APN.Password.Reveal(), "\"\r\n\x00") || c.APN.Name == "" || len(c.APN.Name) > 100 {
				t.Errorf("candidate %+v", c)
			}
		}
	})
}
