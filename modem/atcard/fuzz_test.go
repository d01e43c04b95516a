package atcard_test

import (
	"fmt"
	"strings"
	"testing"

	"lpad/modem/atcard"
)

// FuzzAnswers: whatever a modem answers, a handle is safe to be sent back and a
// response is exactly what was announced.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{"+CCHO: 1", "+CCHO:1", "1", "+CCHO: 00000000038aa32f", `+CGLA: 4,"9000"`, `+CGLA:4,"611A"`, "+CGLA=4,9000", "4,9000", "+CGLA: 4", `+CSIM: 6,"019000"`, `+CSIM: 6,"149000"`, `+CSIM: 6,"009000"`,
		"+CREG: 1\n+CGLA: 4,\"9000\"", "+CGLA: -2,\"\"", "+CGLA: 99999999999999999999,\"\"", `+CGLA: 4,"9000`, "+CGLA", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		if h, err := atcard.ParseHandle(lines); err == nil && (h == "" || len(h) > 32 || strings.ContainsAny(h, "\",;=? \r")) {
			t.Errorf("handle %q", h)
		}
		for _, id := range []string{atcard.ChannelOf(text), atcard.SessionOf(text)} { // goes into a command of ours later
			if id != "" && !atcard.ValidID(id) {
				t.Errorf("%q names the channel %q", text, id)
			}
		}
		r, err := atcard.ParseResponse(lines, "+CGLA")
		if err != nil {
			return
		}
		if len(r) < 2 || !strings.Contains(strings.ToUpper(text), fmt.Sprintf("%X", r)) || !strings.Contains(text, fmt.Sprint(2*len(r))) {
			t.Errorf("%q became %X", text, r)
		}
	})
}
