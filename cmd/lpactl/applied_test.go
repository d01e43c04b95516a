package main

import (
	"encoding/json"
	"strings"
	"testing"

	"lpad/agent/api"
)

// A job shows what was applied, and what became of hooks.
func TestJobShowsParametersAndHooks(t *testing.T) {
	d := newDaemon(t)
	d.play = switching
	if exit, _, errs := d.lpactl("", "install", "LPA:1$smdp.example.com$X", "--enable", "--yes"); exit != 0 {
		t.Fatal(errs)
	}
	d.mu.Lock()
	d.job.Parameters = []api.Parameter{{Leaf: "apns.default", Value: json.RawMessage(`{"name":"iot"}`), Source: "order", Rank: 2, State: "applied"}}
	d.job.Hooks = []api.HookRun{{Event: "applied", Name: "10-mqtt", Millis: 1234}, {Event: "applied", Name: "20-logo", Problem: "exit status 1: no screen"}}
	d.mu.Unlock()
	exit, out, _ := d.lpactl("", "jobs", "show", "J1")
	for _, want := range []string{"apns.default  {\"name\":\"iot\"}  order   applied\n", "applied  10-mqtt  1.2 s  done\n", "applied  20-logo  0.0 s  exit status 1: no screen\n"} {
		if exit != 0 || !strings.Contains(out, want) {
			t.Errorf("exit %d, no %q in\n%s", exit, want, out)
		}
	}
}
