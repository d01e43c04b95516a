package params_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lpad/agent/params"
	"lpad/modem/carrierdb"
)

const installed = "/usr/share/mobile-broadband-provider-info/serviceproviders.xml"

func providers(t testing.TB) *carrierdb.DB {
	t.Helper()
	db, err := carrierdb.Open(installed)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("mobile-broadband-provider-info is not installed")
	}
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// makers are the documents of a device's maker for groups of subscriptions
// that the public list does not tell apart or does not know.
func makers(t testing.TB) (given []params.Given) {
	t.Helper()
	files, err := filepath.Glob("testdata/oem/*.json") // sorted
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		d, err := params.Parse(text, params.Options{})
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		given = append(given, params.Given{Document: d, Rank: params.RankOEM, Source: params.SourceOEM + ": " + filepath.Base(f)})
	}
	return given
}

// TestMVNO holds who gets which access point, with real networks and names:
// from the list that Debian 12 ships, and from the files of a maker for groups
// that the list does not tell apart.
func TestMVNO(t *testing.T) {
	var ambiguous []string
	db, given := providers(t), makers(t)
	for _, tc := range []struct {
		network, imsi, spn, gid1, iccid string
		from                            string // file of the maker, provider of the list, or "network"
		apn                             string // the first to be tried
		ambiguous                       bool   // nothing tells which provider it is
	}{
		{"26201", "", "", "", "", "T-Mobile(Telekom)", "internet.t-d1.de", true},
		{"26201", "", "Telekom.de", "", "", "T-Mobile(Telekom)", "internet.t-d1.de", true},
		{"26201", "", "congstar", "", "", "40-congstar.json", "internet.telekom", false},
		{"26201", "", "", "44", "", "T-Mobile(Telekom)", "internet.t-d1.de", true},
		{"", "262011290000001", "", "", "", "41-telekom-m2m.json", "m2m.business", false},
		{"", "262012000000001", "", "", "", "T-Mobile(Telekom)", "internet.t-d1.de", true},
		{"26202", "", "", "", "", "Bild Mobil", "access.vodafone.de", true},
		{"26202", "", "Vodafone.de", "", "", "Vodafone", "web.vodafone.de", false},
		{"26202", "", "1&1", "", "", "1&1", "web.vodafone.de", false},
		{"26202", "", "BILDmobil", "", "", "Bild Mobil", "access.vodafone.de", false},
		{"26203", "", "", "", "", "E-Plus", "internet.eplus.de", false},
		{"26203", "", "blau.de", "", "", "blau.de", "internet.eplus.de", false},
		{"26203", "", "simyo", "", "", "simyo Internet", "internet.eplus.de", false},
		{"26203", "", "ALDI TALK", "", "", "AldiTalk/MedionMobile", "internet.eplus.de", false},
		{"26203", "", "E-Plus", "", "", "E-Plus", "internet.eplus.de", false},
		{"26207", "", "", "", "", "O2", "pinternet.interkom.de", true},
		{"26207", "", "o2 - de", "", "", "O2", "pinternet.interkom.de", false},
		{"26207", "", "FONIC", "", "", "FONIC", "pinternet.interkom.de", false},
		{"26207", "", "Tchibo", "", "", "Tchibo-Mobil", "webmobil1", false},
		{"26207", "", "netzclub", "", "", "Netzclub", "pinternet.interkom.de", false},
		{"26207", "", "Alice", "", "", "Alice", "internet.partner1", false},
		{"26801", "", "Vodafone P", "", "", "Vodafone", "internet.vodafone.pt", false},
		{"26801", "", "ZON", "", "", "ZON", "internet.zon.pt", false},
		{"27203", "", "", "", "", "E-Mobile", "broadband.eircommbb.ie", true},
		{"27203", "", "Meteor", "", "", "Meteor", "data.mymeteor.ie", false},
		{"23410", "", "", "", "", "O2", "mobile.o2.co.uk", true},
		{"23410", "", "giffgaff", "", "", "giffgaff", "giffgaff.com", false},
		{"23410", "", "giffgaff", "508fff", "", "21-giffgaff.json", "giffgaff.com", false},
		{"23410", "", "", "0aff", "", "20-tesco.json", "prepay.tesco-mobile.com", false},
		{"23410", "", "TESCO", "", "", "Tesco Mobile", "prepay.tesco-mobile.com", false},
		{"23410", "", "O2 - UK", "", "", "O2", "mobile.o2.co.uk", false},
		{"23415", "", "", "", "", "Vodafone", "internet", true},
		{"23415", "", "", "c1", "", "22-talkmobile.json", "talkmobile.co.uk", false},
		{"23415", "", "ASDA Mobile", "", "", "Asda Mobile", "asdamobiles.co.uk", false},
		{"23415", "", "", "a0", "", "23-asda.json", "asdamobiles.co.uk", false},
		{"23415", "", "Vodafone UK", "", "", "Vodafone", "internet", false},
		{"23420", "", "3", "", "", "3", "3internet", false},
		{"23420", "", "Superdrug", "", "", "Superdrug", "superdrug.net", false},
		{"20801", "", "", "", "", "Orange", "orange.fr", true},
		{"20801", "", "Orange F", "", "", "Orange", "orange.fr", false},
		{"20801", "", "Prixtel", "", "", "Prixtel", "Orange", false},
		{"20810", "", "SFR", "", "", "SFR", "websfr", false},
		{"20810", "", "", "", "", "Prixtel", "Orange", true},
		{"21403", "", "", "", "", "Másmovil", "internetmas", true},
		{"21403", "", "Amena", "", "", "Amena", "orangeworld", false},
		{"21403", "", "Masmovil", "", "", "Másmovil", "internetmas", false},
		{"21405", "", "tuenti", "", "", "Tuenti Móvil", "tuenti.com", false},
		{"21406", "", "pepephone", "", "", "Pepephone", "gprs.pepephone.com", false},
		{"22201", "", "CoopVoce", "", "", "CoopVoce", "web.coopvoce.it", false},
		{"22201", "", "", "", "", "TIM", "ibox.tim.it", true},
		{"22210", "", "PosteMobile", "", "", "PosteMobile", "internet.postemobile.it", false},
		{"22299", "", "Fastweb", "", "", "Fastweb", "apn.fastweb.it", false},
		{"23207", "", "HoT", "", "", "HoT", "webaut", false},
		{"23207", "", "tele.ring", "", "", "tele.ring", "web", false},
		{"23203", "", "VOLmobil", "", "", "VOLmobil", "volmobil", false},
		{"20416", "", "Ben NL", "", "", "Ben", "basic.internet.ben.data", false},
		{"20416", "", "", "", "", "T-Mobile", "internet", false},
		{"20408", "", "Galaxy", "", "", "Galaxy", "internet", false},
		{"20404", "", "FreedomPop", "", "", "35-freedompop.json", "fp.com.attz", false},
		{"20404", "", "", "", "", "Vodafone", "live.vodafone.com", false},
		{"", "204047123456789", "", "", "", "33-gdsp.json", "internet.m2m", false},
		{"", "204046123456789", "", "", "", "Vodafone", "live.vodafone.com", false},
		{"24001", "", "Halebop", "", "", "Halebop", "halebop.telia.se", false},
		{"24007", "", "Comviq", "", "", "Comviq", "data.comviq.se", false},
		{"24202", "", "Chess", "", "", "Chess", "netcom", false},
		{"26002", "", "Heyah", "", "", "Heyah", "heyah.pl", false},
		{"26003", "", "nju mobile", "", "", "nju mobile", "internet", false},
		{"26006", "", "Virgin Mobile", "", "", "Virgin Mobile", "virgin-internet", false},
		{"26006", "", "", "", "", "Play", "internet", false},
		{"302220", "", "Public Mobile", "", "", "Public Mobile", "sp.mb.com", false},
		{"302220", "", "", "", "", "Telus Mobility", "isp.telus.com", true},
		{"302880", "", "SaskTel", "", "", "SaskTel Mobility", "inet.stm.sk.ca", false},
		{"302880", "", "", "", "", "Bell Mobility", "inet.bell.ca", true},
		{"310260", "", "", "", "", "15-tmobile-us.json", "fast.t-mobile.com", false},
		{"310260", "", "T-Mobile", "", "", "15-tmobile-us.json", "fast.t-mobile.com", false},
		{"310260", "", "Mint", "", "", "15-tmobile-us.json", "fast.t-mobile.com", false},
		{"310260", "", "Mint", "756d", "", "10-mint.json", "wholesale", false},
		{"310260", "", "", "6d38ff", "", "12-metro.json", "fast.metropcs.com", false},
		{"310260", "", "Fi by Google", "4675", "", "11-googlefi.json", "h2g2", false},
		{"310260", "", "US Mobile", "", "", "15-tmobile-us.json", "fast.t-mobile.com", false},
		{"", "310260123456789", "", "", "", "15-tmobile-us.json", "fast.t-mobile.com", false},
		{"", "310260123456789", "", "756D", "", "10-mint.json", "wholesale", false},
		{"310410", "", "", "", "", "AT&T", "NXTGENPHONE", true},
		{"310410", "", "", "deff", "", "13-tracfone.json", "tfdata", false},
		{"310410", "", "Consumer Cellular", "2ac9", "", "14-consumer.json", "ccdata", false},
		{"310410", "", "Straight Talk", "", "", "Straight Talk", "att.mvno", false},
		{"310410", "", "AweSIM", "", "", "AweSIM", "NXTGENPHONE", false},
		{"310240", "", "Ting", "", "", "Ting", "wireless.dish.com", false},
		{"311480", "", "Verizon", "", "", "Verizon", "vzwims", false},
		{"44010", "", "", "", "", "NTTdocomo", "mopera.ne.jp", false},
		{"44010", "", "OCN", "", "", "OCN", "3g-d-2.ocn.ne.jp", false},
		{"44010", "", "b-mobile", "", "", "b-mobile", "dm.jplat.net", false},
		{"44011", "", "楽天モバイル", "", "", "楽天モバイル", "rakuten.jp", false},
		{"44020", "", "Mineo", "", "", "Mineo", "mineo-s.jp", false},
		{"45416", "", "Sunday", "", "", "Sunday", "internet", false},
		{"50502", "", "", "", "", "Amaysim", "internet", true},
		{"50502", "", "YES OPTUS", "", "", "Optus", "internet", false},
		{"50502", "", "amaysim", "", "", "Amaysim", "internet", false},
		{"50502", "", "Virgin Mobile", "", "", "Virgin Mobile", "VirginInternet", false},
		{"50502", "", "Exetel", "", "", "Exetel", "exetel1", false},
		{"50503", "", "Pennytel", "", "", "Pennytel", "live.vodafone.com", false},
		{"65507", "", "Virgin Mobile", "", "", "Virgin Mobile", "vdata", false},
		{"65507", "", "Cell C", "", "", "Cell-c", "internet", false},
		{"732123", "", "Virgin Mobile", "", "", "Virgin Mobile", "web.vmc.net.co", false},
		{"732103", "", "UNE", "", "", "UNE", "www.une.net.co", false},
		{"", "732103000000001", "Tigo", "", "", "Tigo", "web.colombiamovil.com.co", false},
		{"722310", "", "", "", "", "Claro", "gprs.claro.com.ar", false},
		{"722310", "", "Claro AR", "", "", "Claro", "gprs.claro.com.ar", false},
		{"334020", "", "", "", "", "network", "", false},
		{"40410", "", "Airtel", "", "", "Airtel", "airtelgprs.com", false},
		{"405854", "", "", "", "", "network", "", false},
		{"", "405854123456789", "", "", "", "network", "", false},
		{"60502", "", "Lycamobile", "", "", "Lycamobile", "data.lycamobile.tn", false},
		{"90140", "", "", "", "", "network", "", false},
		{"90140", "", "", "", "8988228066600000001", "30-1nce.json", "iot.1nce.net", false},
		{"90143", "", "", "", "8988303000000000000", "31-emnify.json", "em", false},
		{"90128", "", "", "", "", "34-gdsp-global.json", "internet.m2m", false},
		{"90143", "", "", "", "", "network", "", false},
		{"23450", "", "", "", "8944502701221855000", "32-hologram.json", "hologram", false},
		{"25020", "", "", "", "", "Tele2", "internet.tele2.ru", false},
		{"46000", "", "", "", "", "China Mobile", "cmnet", false},
		{"46001", "", "", "", "", "China Unicom", "3gnet", false},
		{"00101", "", "", "", "", "network", "", false},
		{"99999", "", "", "", "", "network", "", false},
	} {
		name := strings.Join([]string{tc.network, tc.imsi, tc.spn, tc.gid1, tc.iccid}, "|")
		p := params.Profile{IMSI: tc.imsi, SPN: tc.spn, GID1: tc.gid1}
		if tc.network != "" {
			p.MCC, p.MNC = tc.network[:3], tc.network[3:]
		}
		if tc.iccid != "" {
			p.ICCID = iccid(t, tc.iccid)
		}
		found, err := db.Lookup(p.Query())
		if err != nil {
			t.Fatal(err)
		}
		e, err := params.Resolve(params.Input{Profile: p, Given: given, Database: found})
		if err != nil {
			t.Fatal(err)
		}
		a := e.Attempts()
		from := strings.TrimPrefix(strings.TrimPrefix(a[0].Source, "provider-database: "), "oem: ")
		if a[0].Source == params.SourceNetwork {
			from = "network"
		}
		if from != tc.from || a[0].Value.Name != tc.apn {
			t.Errorf("%s: %s from %s, want %s from %s", name, a[0].Value.Name, a[0].Source, tc.apn, tc.from)
		}
		if is := count(e.Notes, params.StateAmbiguous) > 0; is != tc.ambiguous {
			t.Errorf("%s: ambiguous %v: %+v", name, is, e.Notes)
		}
		if tc.ambiguous {
			ambiguous = append(ambiguous, name+" "+tc.apn)
			if last := a[len(a)-1]; len(a) < 3 || last.Value.Name != "" {
				t.Errorf("%s: of several that are as likely only these are tried: %+v", name, a)
			}
		}
	}
	t.Logf("ambiguous:\n%s", strings.Join(ambiguous, "\n"))
}
