package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParamsCommand(t *testing.T) {
	const document = `{"version":1,"generation":1,"apns":[{"name":"iot.example","purposes":["default","ia"],"pdnType":"v4v6","pdnTypeRoaming":"v4","auth":"none"}]}`
	const b8 = "B828060A2B06010401868D1F0101E11AC003100001E213C10B696F742E6578616D706C65C20103C30131"
	file := filepath.Join(t.TempDir(), "document.json")
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := paramsCommand()
		cmd.SetArgs(args)
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		err := cmd.Execute()
		return strings.TrimSpace(out.String()), err
	}
	if out, err := run("encode", file, "--oid", "1.3.6.1.4.1.99999.1.1"); err != nil || out != b8 {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := run("encode", file); err != nil || out != b8[28:] {
		t.Errorf("%s, %v", out, err)
	}
	for _, in := range []string{b8, b8[28:]} {
		if out, err := run("decode", in); err != nil || out != document {
			t.Errorf("%s, %v", out, err)
		}
	}
	for _, args := range [][]string{{"encode", file + "x"}, {"encode", file, "--oid", "x"}, {"decode", "x"}, {"decode", b8[:40]}, {"decode", "B805800388370A"}} {
		if out, err := run(args...); err == nil || out != "" {
			t.Errorf("%q: %s", args, out)
		}
	}
}
