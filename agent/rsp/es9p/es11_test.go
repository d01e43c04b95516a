package es9p_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lpad/agent/rsp"
	"lpad/agent/rsp/es9p"
)

func TestEvents(t *testing.T) {
	answer := func(entries string) string {
		return `{` + success + `,"transactionId":"0A1B2C3D","eventEntries":` + entries + `}`
	}
	for _, tc := range []struct {
		name, body string
		want       []rsp.EventEntry // nil: refused
	}{
		{"none", answer("[]"), []rsp.EventEntry{}},
		{"null", answer("null"), []rsp.EventEntry{}},
		{"two", answer(`[{"eventId":"E1","rspServerAddress":"a.example"},{"eventId":"E2","rspServerAddress":"b.example. ","x":1}]`),
			[]rsp.EventEntry{{EventID: "E1", RSPServerAddress: "a.example"}, {EventID: "E2", RSPServerAddress: "b.example"}}},
		{"no id", answer(`[{"rspServerAddress":"a.example"}]`), nil},
		{"no address", answer(`[{"eventId":"E1"}]`), nil},
		{"address with port", answer(`[{"eventId":"E1","rspServerAddress":"a.example:444"}]`), nil},
		{"not an entry", answer(`[1]`), nil},
		{"not a list", answer(`{}`), nil},
		{"too many", answer(`[` + strings.TrimSuffix(strings.Repeat(`{"eventId":"E1","rspServerAddress":"a.example"},`, 65), ",") + `]`), nil},
		{"long id", answer(`[{"eventId":"` + strings.Repeat("E", 300) + `","rspServerAddress":"a.example"}]`), nil},
		{"twice", strings.Replace(answer("[]"), "{", `{"eventEntries":[],`, 1), nil},
		{"a profile as well", strings.Replace(answer("[]"), "{", `{"profileMetadata":"vyUBqg==",`, 1), nil},
		{"another session", strings.Replace(answer("[]"), "0A1B2C3D", "00", 1), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := es9p.DecodeAuthenticateClient([]byte(tc.body), transactionID)
			if tc.want == nil {
				var e *es9p.AnswerError
				if !errors.As(err, &e) {
					t.Errorf("error %v, want *AnswerError", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(rsp.ClientAuthenticated{Events: tc.want}, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{initiateAnswer, offerAnswer, packageAnswer, emptyHeader, refusedMatching, "", "{}", "null", "[", `{"header":5}`,
		`{"transactionId":"0A1B2C3D","eventEntries":[{"eventId":"E1","rspServerAddress":"a.example"}]}`,
		`{"header":{"functionExecutionStatus":{"status":"Failed","statusCodeData":{"subjectCode":8.2,"reasonCode":null}}}}`,
		strings.ReplaceAll(initiateAnswer, "XzcBqg==", `Xz\r\ncB\/\nqg\n`)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, err := range es9p.DecodeAll(body, transactionID) {
			var refused *es9p.Error
			var invalid *es9p.AnswerError
			switch {
			case err == nil:
			case errors.As(err, &refused):
				for _, s := range []string{refused.Status, refused.SubjectCode, refused.ReasonCode, refused.SubjectIdentifier, refused.Message} {
					if len(s) > 200 {
						t.Errorf("text of %d bytes", len(s))
					}
				}
			case errors.As(err, &invalid):
				if len(invalid.Error()) > 1000 {
					t.Errorf("error of %d bytes", len(invalid.Error()))
				}
			default:
				t.Errorf("error %T: %v", err, err)
			}
		}
	})
}
