package lab_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lpad/agent/rsp/rsptest/smdp"
	"lpad/cmd/lpalab/lab"
)

// TestSupportBundle: after an installation whose identifiers and secrets are
// known, with everything logged, the bundle tells what happened and none of them.
func TestSupportBundle(t *testing.T) {
	t.Parallel()
	const matchingID, nickname = "SECRET-MATCHING-0001", "call +49 151 23456789"
	w := newWorld(t, lab.Options{Order: func(o *smdp.Order) { o.MatchingID = matchingID }})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	m, err := w.StartModem(ctx, programs, "reports: {url: \"https://reports.example/hook/t0ken-in-path\"}\n")
	must(t, err)
	defer func() { must(t, m.Close()) }()
	lpactl(ctx, t, m.Daemon, 0, "install", w.ActivationCode(), "--yes")
	lpactl(ctx, t, m.Daemon, 0, "nickname", lab.NewOperator.ICCID, nickname)
	if r, err := m.Lpactl(ctx, nil, "install", w.ActivationCode(), "--yes"); err != nil || r.Exit == 0 { // and one that fails
		t.Errorf("%+v, %v", r, err)
	}
	// What no log of lpad holds, and a careless program's might.
	careless := filepath.Join(m.Dir, "careless.log")
	must(t, os.WriteFile(careless, []byte(m.Log()+"\nmodem: +CIMI "+lab.OldOperator.IMSI+"\ngot "+w.ActivationCode()+" for "+w.Card.EID().String()+"\n+CCID: "+swapped(lab.NewOperator.ICCID)+"\n"), 0o600))

	files := supportBundle(ctx, t, m.Daemon, careless)
	for _, want := range []string{"README", "doctor.json", "status.json", "versions.json", "cards.json", "euicc.json", "profiles.json", "notifications.json", "parameters.json", "jobs.json",
		"events.json", "probe.json", "configuration.txt", "log.txt"} {
		if files[want] == "" {
			t.Errorf("%s is not in it\n%s", want, files["README"])
		}
	}
	for name, want := range map[string]string{"jobs.json": `"kind": "install"`, "probe.json": "u-blox", "configuration.txt": "at_port", "log.txt": "level=", "events.json": `"type": "job"`} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s does not say %s:\n%.2000s", name, want, files[name])
		}
	}
	untold(t, files, matchingID, nickname, "23456789", "t0ken-in-path", w.Card.EID().String(), lab.OldOperator.ICCID, lab.NewOperator.ICCID, lab.OldOperator.IMSI, lab.NewOperator.IMSI,
		swapped(lab.OldOperator.ICCID), swapped(lab.NewOperator.ICCID), swapped(w.Card.EID().String()))
	must(t, m.Stop())
	files = supportBundle(ctx, t, m.Daemon, careless)
	if !strings.Contains(files["README"], "status.json: lpad is not running") || !strings.Contains(files["doctor.json"], "lpad is stopped") || files["log.txt"] == "" {
		t.Errorf("without a daemon: %s", files["README"])
	}
	untold(t, files, matchingID, "t0ken-in-path", w.Card.EID().String())
}

func untold(t *testing.T, files map[string]string, secrets ...string) {
	t.Helper()
	digits := regexp.MustCompile(`[0-9]{10,}`)
	for name, text := range files {
		for _, s := range secrets {
			if i := strings.Index(text, s); i >= 0 {
				t.Errorf("%s tells %s: %s", name, s, text[max(0, i-100):min(len(text), i+100)])
			}
		}
		if id := digits.FindString(text); id != "" {
			t.Errorf("%s tells %s", name, id)
		}
	}
}

// supportBundle makes a bundle and unpacks it.
func supportBundle(ctx context.Context, t *testing.T, d *lab.Daemon, log string, args ...string) map[string]string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "b.tar.gz")
	lpactl(ctx, t, d, 0, append([]string{"support-bundle", path, "--log", log, "--config", filepath.Join(d.Dir, "lpad.yaml")}, args...)...)
	lpactl(ctx, t, d, 1, "support-bundle", path, "--no-probe", "--log", log) // one that is there stays as it is
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	z, err := gzip.NewReader(f)
	must(t, err)
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		must(t, err)
		text, err := io.ReadAll(r)
		must(t, err)
		files[strings.TrimPrefix(h.Name, "lpad-support/")] = string(text)
	}
}
