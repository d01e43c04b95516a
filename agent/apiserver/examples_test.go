package apiserver_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lpad/agent/api"
	"lpad/agent/apiserver"
)

// TestExamples runs every line of docs/api.md as it stands there, but for the
// path of the socket, and sees that it asks what it is said to ask.
func TestExamples(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl")
	}
	b, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	daemon := &backend{more: make(chan api.Event), events: []api.Event{
		{ID: 41, Type: api.EventJob, Job: &someJob, Text: "seen"}, {ID: 42, Type: api.EventJob, Job: &someJob, Text: "new"}}}
	s := serve(t, daemon, apiserver.Options{})
	type outcome struct{ asked, answer string }
	want := []outcome{
		{"status", `"state":"ready"`},
		{"profiles", `"profiles":[]`},
		{"install LPA:1$smdp.example.com$MATCHING-ID by ", someJob.ID},
		{"wait " + someJob.ID + " 30", someJob.ID},
		{"", "id: 42\nevent: job\n"},
		{"answer " + someJob.ID + " true by ", someJob.ID},
		{"abort " + someJob.ID + " by ", someJob.ID},
		{"enable 8944501234567890124  by ", someJob.ID},
		{`nickname 8944501234567890124 "roof" by `, someJob.ID},
		{"delete 8944501234567890124 by ", someJob.ID},
		{"trust", `"roots":[]`},
		{"apdu [80E2910006BF3E035C015A00] force=false by ", `"responses":["9000"]`},
		{"packets", `"lpad_packet":1`},
		{"packet J-1-0 204 0 bytes by ", ""},
		{"metrics", "# EOF"},
	}
	inside := false
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "```") {
			inside = strings.TrimSpace(line) == "```sh"
			continue
		}
		if !inside {
			continue
		}
		if len(want) == 0 {
			t.Fatalf("this test does not know what to expect of %s", line)
		}
		w := want[0]
		want = want[1:]
		daemon.mu.Lock()
		daemon.asked = nil
		daemon.mu.Unlock()
		here := strings.Replace(line, "/run/lpad/lpad.sock", s.path, 1)
		if here == line {
			t.Errorf("%s: asks another socket", line)
			continue
		}
		cmd := exec.Command("sh", "-c", here)
		cmd.Dir = filepath.Dir(s.path)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		stream := strings.Contains(line, "/v1/events") // which --max-time ends
		if (err != nil) != stream || strings.Contains(stdout.String(), "urn:lpad:problem:") {
			t.Errorf("%s: %v %s %s", line, err, stdout.String(), stderr.String())
		}
		if got := daemon.last(); !strings.HasPrefix(got, w.asked) || (w.asked == "") != (got == "") || !strings.Contains(stdout.String(), w.answer) {
			t.Errorf("%s: asked %q, want %q; answer %s, want %s", line, got, w.asked, stdout.String(), w.answer)
		}
	}
	for _, w := range want {
		t.Errorf("no example asks %q", w.asked)
	}
	daemon.watching.Wait()
}
