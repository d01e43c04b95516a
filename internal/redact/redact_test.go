package redact_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"lpad/internal/redact"
)

func TestSecretNeverPrints(t *testing.T) {
	const text = "4711-open-sesame"
	s := redact.NewSecret(text)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("order", "code", s, "struct", struct{ C redact.Secret }{s})
	j, err := json.Marshal(map[string]any{"c": s, "p": &s})
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{
		"%v": fmt.Sprintf("%v", s), "%+v": fmt.Sprintf("%+v", struct{ C redact.Secret }{s}), "%#v": fmt.Sprintf("%#v", s),
		"%s": fmt.Sprintf("%s", s), "%q": fmt.Sprintf("%q", s), "%x": fmt.Sprintf("%x", s), "%d": fmt.Sprintf("%d", s),
		"slog": log.String(), "json": string(j),
	} {
		if strings.Contains(got, text) || strings.Contains(got, fmt.Sprintf("%x", text)) {
			t.Errorf("%s gives the secret away: %s", name, got)
		}
		if !strings.Contains(got, redact.Mask) {
			t.Errorf("%s does not say that something was redacted: %s", name, got)
		}
	}
	if s.Reveal() != text || s.IsZero() {
		t.Error("the secret itself is lost")
	}
	var back redact.Secret
	if err := back.UnmarshalText([]byte(text)); err != nil || back.Reveal() != text {
		t.Errorf("UnmarshalText: %q, %v", back.Reveal(), err)
	}
	var none redact.Secret
	if !none.IsZero() || none.String() != "" {
		t.Error("the zero secret is not empty")
	}
}

func TestDigits(t *testing.T) {
	for in, want := range map[string]string{
		"89049032123451234512345678901235": "89049…35",
		"001010123456789":                  "00101…89",
		"8900012":                          "…",
		"":                                 "…",
	} {
		if got := redact.Digits(in); got != want {
			t.Errorf("Digits(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestIdentifiers(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "nothing": "nothing", "id 89358050000000000022 and 001010123456789": "id 89358…22 and 00101…89",
		"89049032123451234512345678901235": "89049…35", "98532508000000000022F": "98532…22F", "at 1772323200123, job 20260301-101500": "at 1772323200123, job 20260301-101500",
		"35693803564380": "35693…80", "3569380356438": "3569380356438",
	} {
		if got := redact.Identifiers(in); got != want {
			t.Errorf("Identifiers(%q) = %q, want %q", in, got, want)
		}
	}
}
