package apdu_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"lpad/apdu"
)

// No byte of data gets into a log, whatever is sent.
func TestTraceIsRedacted(t *testing.T) {
	const secret = "C0FFEE"
	for _, c := range []struct {
		name, command, answer string
		want                  []string
	}{
		{"first block", "81E2910006BF3E" + secret + "00", secret + "9000", []string{"STORE DATA", "81E29100", "BF3E", "6>3", "9000"}},
		{"one byte tag", "81E2910004" + "5A" + secret, "9000", []string{" 5A 4>0"}},
		{"three byte tag", "81E2910006DF8101" + secret, "9000", []string{" DF8101 6>0"}},
		{"later block", "81E2910103" + secret, "9000", []string{"81E29101 - 3>0"}},
		{"PIN", "0020000103" + secret, "63C2", []string{"VERIFY PIN", "63C2"}},
		{"no command", secret, "", []string{"error: line is down"}},
		{"empty", "81E29100", "9000", []string{"0>0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var lines []apdu.TraceLine
			tr := apdu.WithTrace(&script{answers: []string{c.answer}}, func(l apdu.TraceLine) { lines = append(lines, l) })
			b, err := tr.Transmit(t.Context(), unhex(t, c.command))
			if err == nil && !bytes.Equal(b, unhex(t, c.answer)) {
				t.Errorf("answer %X", b)
			}
			if len(lines) != 1 {
				t.Fatalf("%d lines", len(lines))
			}
			var log bytes.Buffer
			slog.New(slog.NewTextHandler(&log, nil)).Info("apdu", "exchange", lines[0])
			for _, want := range c.want {
				if !strings.Contains(lines[0].String(), want) {
					t.Errorf("%s: %q is missing", lines[0], want)
				}
			}
			if all := lines[0].String() + log.String(); strings.Contains(strings.ToUpper(all), secret) {
				t.Errorf("a secret got out: %s", all)
			}
		})
	}
}

func TestChannelTrace(t *testing.T) {
	var lines []string
	ch := apdu.NewSession(&script{answers: []string{"6101", "019000"}}, "1", nil, func(context.Context) error { return nil })
	ch.Trace(func(l apdu.TraceLine) { lines = append(lines, l.String()) })
	if _, err := ch.Transmit(t.Context(), apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: []byte{0xBF, 0x2D}}); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 2 || !strings.Contains(lines[0], "BF2D") || !strings.Contains(lines[1], "GET RESPONSE") {
		t.Errorf("lines %q: want the command and GET RESPONSE", lines)
	}
}
