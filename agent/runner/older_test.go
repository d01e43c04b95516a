package runner_test

import (
	"os"
	"testing"
	"time"

	"lpad/agent/job"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
)

// A journal of a version that knew neither signed orders nor documents, hooks
// and trials is read, and the switch goes on that its last process had begun.
// The file was written by that version: a download that has ended, a switch cut
// off after the eUICC had confirmed it, and the memory of profiles.
func TestJournalOfBeforeParameters(t *testing.T) {
	w := newWorld(t, options{card: func(c *euicc.Config) {
		c.Profiles = []euicc.Profile{{ICCID: iccid(t, oldICCID), IMSI: "001010123456789", Name: "Old Plan"},
			{ICCID: iccid(t, newICCID), IMSI: "001010123456790", Name: "New Plan", Enabled: true,
				Notifications: []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: host}}}}
	}})
	raw, err := os.ReadFile("testdata/journal-without-parameters")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	l := w.live()
	m := l.View().Memory
	if m.Proven.APN != "old.apn" && m.Proven.ICCID.String() != newICCID || len(m.Good) != 1 || m.Good[0].Password != "p" {
		t.Errorf("memory %+v", m)
	}
	j := l.ends("2", job.Done)
	m = l.View().Memory
	if len(m.Quarantine) != 0 || m.Proven.ICCID.String() != newICCID || m.Left.ICCID.String() != newICCID {
		t.Errorf("memory after the switch %+v", m)
	}
	if s, found := m.Document(j.ICCID()); !found || s.Source != "order" || s.ReportTo != "" {
		t.Errorf("the document of the order, which has been proven: %+v, %t", s, found)
	}
	if old, err := l.Job("1"); err != nil || old.State != job.Done || !old.AppliedAt.IsZero() || old.Created.Year() != 2026 || old.Created.After(time.Date(2026, 10, 2, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("the old job: %+v, %v", old, err)
	}
}
