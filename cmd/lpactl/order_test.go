package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lpad/agent/api"
	"lpad/internal/fault"
)

// A signed order goes to the daemon as it is, but for the line break behind it.
func TestOrder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "order.jws")
	for _, tc := range []struct {
		name, text, arg, in string
		exit                int
		asked, says         string
		err                 error
	}{
		{"a file", "a.b.c\r\n", file, "", 0, `order "a.b.c" delete=true`, "", nil},
		{"standard input", "", "-", "a.b.c\n", 0, `order "a.b.c" delete=true`, "", nil},
		{"as large as may be", strings.Repeat("x", api.MaxOrder) + "\n", file, "", 0, `order "xxx`, "", nil},
		{"too large", strings.Repeat("x", api.MaxOrder+1), file, "", 7, "", "request-too-large", nil},
		{"a file that is not there", "", file + "x", "", 1, "", "no such file", nil},
		{"not believed", "a.b.c", file, "", 45, `order "a.b.c" delete=true`, "signed-order-signature",
			fault.New(fault.Fault{Code: "signed-order-signature", Text: "the signature does not fit", Who: fault.Operator, Next: "sign it again"}, nil)},
		{"taken already", "a.b.c", file, "", 46, `order "a.b.c" delete=true`, "signed-order-replayed",
			fault.New(fault.Fault{Code: "signed-order-replayed", Text: "taken already", Who: fault.Operator, Next: "watch the job"}, nil)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDaemon(t)
			d.play, d.err = installing, tc.err
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			if got := run(t.Context(), []string{"--socket", d.path, "order", tc.arg}, strings.NewReader(tc.in), &out, &errs); got != tc.exit ||
				!strings.HasPrefix(d.last(), tc.asked) || tc.asked == "" && d.last() != "" || !strings.Contains(errs.String(), tc.says) {
				t.Errorf("exit %d, asked %.60q\n%s%s", got, d.last(), out.String(), errs.String())
			}
		})
	}
}

// writer calls a function with all that was written so far.
type writer struct {
	bytes.Buffer
	wrote func(string)
}

func (w *writer) Write(b []byte) (int, error) {
	n, err := w.Buffer.Write(b)
	w.wrote(w.String())
	return n, err
}

// Who follows a switch that waits for its time is told so.
func TestScheduled(t *testing.T) {
	d := newDaemon(t)
	d.play = []string{"scheduled"}
	d.end = func(j *api.Job) { j.SignedBy, j.Serial, j.EnableAt = "fleet", 7, epoch.Add(time.Hour) }
	told := 0
	errs := &writer{wrote: func(all string) {
		if strings.Contains(all, "the switch waits until") {
			if told++; told == 1 {
				d.enter("done")
			}
		}
	}}
	var out bytes.Buffer
	if got := run(t.Context(), []string{"--socket", d.path, "order", "-"}, strings.NewReader("a.b.c"), &out, errs); got != 0 || told == 0 {
		t.Errorf("exit %d\n%s%s", got, out.String(), errs.String())
	}
	out.Reset()
	if got := run(t.Context(), []string{"--socket", d.path, "jobs", "show", "J1"}, strings.NewReader(""), &out, errs); got != 0 ||
		!strings.Contains(out.String(), "fleet, order 7") || !strings.Contains(out.String(), "not before") {
		t.Errorf("exit %d\n%s", got, out.String())
	}
}
