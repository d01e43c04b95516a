package carrierdb_test

import (
	"encoding/xml"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lpad/modem/carrierdb"
)

// document is the list as a general reader of XML sees it.
type document struct {
	Providers []struct {
		Networks []struct {
			MCC string `xml:"mcc,attr"`
			MNC string `xml:"mnc,attr"`
		} `xml:"gsm>network-id"`
		Points []struct {
			Value string `xml:"value,attr"`
			Usage struct {
				Type string `xml:"type,attr"`
			} `xml:"usage"`
			User     string `xml:"username"`
			Password string `xml:"password"`
			Method   struct {
				Method string `xml:"method,attr"`
			} `xml:"authentication"`
		} `xml:"gsm>apn"`
	} `xml:"country>provider"`
}

// All 818 networks of the list that Debian 12 ships have the access points
// that a general reader of XML finds.
func TestEveryNetwork(t *testing.T) {
	text, err := os.ReadFile(installed)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("mobile-broadband-provider-info is not installed")
	}
	var d document
	if err := errors.Join(err, xml.Unmarshal(text, &d)); err != nil {
		t.Fatal(err)
	}
	want := map[carrierdb.Query][]string{}
	for _, p := range d.Providers {
		for _, n := range p.Networks {
			q := carrierdb.Query{MCC: n.MCC, MNC: n.MNC}
			want[q] = append(want[q], "")
			for _, a := range p.Points {
				name := strings.TrimSpace(a.Value)
				switch {
				case a.Usage.Type != "" && a.Usage.Type != "internet" && !strings.HasPrefix(a.Usage.Type, "mms-internet-"),
					name == "", strings.ContainsAny(name, ":/_ \""), strings.Trim(a.User+a.Password, "\t\n ") != "" && strings.ContainsAny(a.User+a.Password, "\"\n"):
					continue
				}
				want[q] = append(want[q], strings.Join([]string{name, strings.TrimSpace(a.User), strings.TrimSpace(a.Password), a.Method.Method}, " "))
			}
		}
	}
	if len(want) < 800 {
		t.Fatalf("the list has %d networks", len(want))
	}
	db := open(t, installed)
	for q, points := range want {
		found, err := db.Lookup(q)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{""}
		for _, c := range found {
			got = append(got, strings.Join([]string{c.APN.Name, c.APN.User, c.APN.Password.Reveal(), string(c.APN.Auth)}, " "))
		}
		slices.Sort(got)
		slices.Sort(points)
		if diff := cmp.Diff(slices.Compact(points), slices.Compact(got)); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", q, diff)
		}
	}
}
