package main

import (
	"strings"
	"testing"
)

// TestCompletion: what a shell is offered, as its script asks for it.
func TestCompletion(t *testing.T) {
	d := newDaemon(t)
	for args, want := range map[string]string{
		"enable ":               "8901\tMeter of Operator, enabled\n8902\tTest of an unnamed operator, disabled\n",
		"delete 8902":           "8902\tTest of an unnamed operator, disabled\n",
		"nickname 8901 ":        "",
		"params clear ":         "8901\tMeter of Operator, enabled\n8902\tTest of an unnamed operator, disabled\n",
		"jobs show ":            "J2\tenable, failed\nJ1\tinstall, done\n",
		"jobs follow J1":        "J1\tinstall, done\n",
		"notifications replay ": "3\tenable, for smdp.example.com\n20261121-120000\treport, for reports.example\n",
		"notifications drop 9":  "",
	} {
		words := strings.Split(args, " ")
		exit, out, _ := d.lpactl("", append([]string{"__complete"}, words...)...)
		offered, directive, ok := strings.Cut(out, ":")
		if exit != 0 || !ok || offered != want || directive != "36\n" && directive != "4\n" {
			t.Errorf("%q: exit %d\n%s", args, exit, out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if exit, out, _ := d.lpactl("", "completion", shell); exit != 0 || !strings.Contains(out, "__complete") {
			t.Errorf("%s: exit %d", shell, exit)
		}
	}
}
