package main

import (
	"os/exec"
	"testing"
	"time"
)

func TestVersion(t *testing.T) {
	at := time.Date(2024, 2, 29, 23, 59, 58, 0, time.UTC)
	for described, want := range map[string]string{
		"v1.2.3":              "1.2.3",
		"1.2.3":               "1.2.3",
		"v1.2.3-dirty":        "1.2.3+dirty",
		"v1.2-3-gabc1234":     "1.2+3.gabc1234",
		"v1.3~rc1-1-gabc1234": "1.3~rc1+1.gabc1234",
		"abc1234":             "0~20240229.235958.abc1234",
		"1234567":             "0~20240229.235958.1234567", // a hash of digits alone is no release
		"1234567-dirty":       "0~20240229.235958.1234567+dirty",
		"unknown":             "0~20240229.235958.unknown",
	} {
		got, err := debianVersion(described, at)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", described, got, err, want)
		}
	}
	for _, described := range []string{"", "a b", "v1:2", "../x", "v1\n"} {
		if got, err := debianVersion(described, at); err == nil {
			t.Errorf("%q is taken for %q", described, got)
		}
	}
}

// TestOrder: dpkg finds each version later than the one before.
func TestOrder(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip(err)
	}
	at := time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)
	last := ""
	for i, described := range []string{"f00dcaf", "0000001", "v0.1", "v0.1-1-gfff0000", "v0.1-12-g000ffff", "v0.2"} {
		v, err := debianVersion(described, at.AddDate(0, 0, i))
		if err != nil {
			t.Fatal(err)
		}
		if last != "" && exec.Command("dpkg", "--compare-versions", last, "lt", v).Run() != nil {
			t.Errorf("%s is not before %s", last, v)
		}
		last = v
	}
}
