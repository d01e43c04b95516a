package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
	"lpad/agent/rsp/es9p"
	"lpad/apdu"
	"lpad/internal/fault"
	"lpad/modem/at"
)

// TestNumbersOfErrors: the numbers are found in the errors as lpad makes them.
func TestNumbersOfErrors(t *testing.T) {
	server := &es9p.Error{Function: "authenticateClient", Status: "Failed", SubjectCode: "8.2.6", ReasonCode: "3.8"}
	status := &apdu.StatusError{SW: 0x6A82, Op: "SELECT"}
	card := &es10.ResultError{Function: "ES10c.EnableProfile", Code: 5, Result: rsp.EnableCATBusy}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{server, "server 8.2.6/3.8: the matching id (of the activation code): refused"},
		{&es9p.Error{Function: "getBoundProfilePackage", Status: "Failed", SubjectCode: "8.8.5", ReasonCode: "4.10"}, "server 8.8.5/4.10: the download order: its time is over"},
		{status, "SW 6A82: the card has no such file or application (for the ISD-R: this is no eUICC)"},
		{card, "card EnableProfile/5: EnableProfile: the card is in a toolkit session with the modem; try again in some seconds"},
		{&rsp.InstallationError{Command: 5, Reason: 12}, "installation 5/12: loading the profile itself: the card cannot process an element of the profile"},
		{&rsp.InstallationError{Command: 3, Reason: 9}, "installation 3/9: storing the profile's description (second part): a profile with this ICCID is on the card already"},
		{&rsp.InstallationError{Command: 2, Reason: 20}, "installation 2/20: storing the profile's description: the enterprise is another one than the card's"},
		{&at.CMEError{Code: 13, Text: "SIM failure"}, "CME 13: the SIM failed, or does not answer"},
		{&at.CMEError{Code: 4711, Text: "x"}, "CME 4711: a code of the maker of the modem: see its manual"},
		{&es9p.HTTPError{Function: "initiateAuthentication", Status: 503}, "HTTP 503: the server is overloaded or out of order: try again later"},
		{fmt.Errorf("open the ISD-R: %w: %w", &at.CMEError{Code: 3, Text: "operation not allowed"}, status),
			"SW 6A82: the card has no such file or application (for the ISD-R: this is no eUICC); CME 3: the modem does not allow it (for the ISD-R: its firmware keeps eUICCs to itself)"},
		{fault.New(fault.Fault{Code: "x", Text: "nothing (1/2 of it), 6A82"}, nil), ""},
	} {
		var got []string
		for _, n := range numbersIn(tc.err.Error()) {
			got = append(got, n.String())
		}
		if strings.Join(got, "; ") != tc.want {
			t.Errorf("%v:\n%s, want\n%s", tc.err, strings.Join(got, "; "), tc.want)
		}
	}
}

// The tables, as the specifications have them.
var (
	serverPairs = strings.Fields(`8.1/4.8 8.1/6.1 8.1.1/2.2 8.1.1/3.8 8.1.1/3.10 8.1.2/6.1 8.1.2/6.3 8.1.3/6.1 8.1.3/6.3 8.1.4/6.1 8.2/1.2 8.2/3.7
		8.2.1/1.2 8.2.1/3.3 8.2.1/3.5 8.2.1/3.9 8.2.1/3.10 8.2.5/1.2 8.2.5/3.7 8.2.5/3.8 8.2.5/3.9 8.2.5/4.3 8.2.6/3.3 8.2.6/3.8 8.2.6/3.10
		8.2.7/2.2 8.2.7/3.8 8.2.7/6.4 8.8/3.10 8.8.1/3.8 8.8.2/3.1 8.8.3/3.1 8.8.4/3.7 8.8.5/4.10 8.8.5/6.4 8.9/4.2 8.9/5.1 8.9.1/3.8 8.9.2/3.1
		8.9.3/3.1 8.9.4/3.7 8.9.5/3.3 8.9.5/3.9 8.10.1/3.9 8.11.1/3.9 1.2.1/2.1 1.2.1/2.2 1.2.2/2.1 1.2.2/2.2 1.6/2.1 1.6/2.2`)
	statusList = strings.Fields(`9000 9110 9200 9300 6110 6200 6283 6300 63C2 6400 6500 6581 6601 6700 6800 6881 6882 6883 6884 6900 6981 6982 6983 6984 6985 6986
		6A00 6A80 6A81 6A82 6A83 6A84 6A86 6A87 6A88 6A89 6B00 6C10 6D00 6E00 6F00 6F01 9862`)
)

// modemCodes are those of 3GPP TS 27.007 version 17, sections 9.2.1 to 9.2.3.
func modemCodes() (all []int) {
	for _, r := range [][2]int{{0, 7}, {10, 18}, {20, 27}, {30, 32}, {40, 63}, {100, 100}, {102, 119}, {122, 122}, {124, 151}, {171, 233}} {
		for n := r[0]; n <= r[1]; n++ {
			all = append(all, n)
		}
	}
	return all
}

// TestTablesAreComplete: every number of the specifications has words here, and
// lpad's own explanation in the daemon, which names who can mend it.
func TestTablesAreComplete(t *testing.T) {
	explained := func(what string, err error, not ...string) {
		t.Helper()
		if f := fault.Of(err); f.Code == "" || f.Text == "" || f.Who == "" || f.Next == "" || slices.Contains(not, f.Code) {
			t.Errorf("the daemon explains %s as %+v", what, f)
		}
	}
	for _, pair := range serverPairs {
		subject, reason, _ := strings.Cut(pair, "/")
		words := serverMeans(subject, reason)
		if words == "" || strings.Contains(words, "something about") || subjects[subject] == "" || reasons[reason] == "" {
			t.Errorf("%s: %q", pair, words)
		}
		explained(pair, &es9p.Error{Function: "x", Status: "Failed", SubjectCode: subject, ReasonCode: reason}, "server-refused", "server-refuses-conditions",
			"server-refuses-access", "server-processing-failed", "server-transport-failed", "server-refuses-security")
	}
	for command := range commands {
		if name := rsp.BPPCommand(command).String(); commandID(name) != strconv.Itoa(command) {
			t.Errorf("bppCommandId %d is %s", command, name)
		}
		for reason := 1; reason <= 127; reason++ {
			if reason == 16 || reason == 24 || reason == 25 || reason > 26 && reason < 127 {
				continue // not given
			}
			what := fmt.Sprintf("%d/%d", command, reason)
			if words := installationMeans(strconv.Itoa(command), strconv.Itoa(reason)); words == "" || strings.Contains(words, "later version") {
				t.Errorf("%s: %q", what, words)
			}
			explained(what, &rsp.InstallationError{Command: rsp.BPPCommand(command), Reason: rsp.ErrorReason(reason)}, "card-undefined-error", fault.Internal)
		}
	}
	for _, sw := range statusList {
		words := statusMeans(sw)
		n, err := strconv.ParseUint(sw, 16, 16)
		if words == "" || err != nil {
			t.Errorf("%s: %q, %v", sw, words, err)
		}
		if text := apdu.SW(n).String(); strings.Contains(text, "unknown status") && sw[:2] != "98" && sw != "6F01" {
			t.Errorf("the daemon says %q", text)
		}
		explained(sw, &apdu.StatusError{SW: apdu.SW(n), Op: "SELECT"})
	}
	for _, n := range modemCodes() {
		if words := modemErrors[n]; words == "" {
			t.Errorf("+CME ERROR: %d has no words", n)
		}
		if n < 49 || n > 100 { // of the others some are about telephony
			e := &at.CMEError{Code: n, Text: "x"}
			explained(fmt.Sprint("CME ", n), e)
			if strings.Contains(e.Fault().Next, "manual of the modem") && n != 0 && n != 1 && n != 148 {
				t.Errorf("the daemon knows nothing of +CME ERROR: %d", n)
			}
		}
	}
	if len(modemErrors) != len(modemCodes()) {
		t.Errorf("%d codes of modems have words, %d there are", len(modemErrors), len(modemCodes()))
	}
}

// TestResultsAreThose of package rsp, function by function.
func TestResultsAreThose(t *testing.T) {
	type result interface {
		error
		Name() string
	}
	for function, of := range map[string]func(int) result{
		"EnableProfile":      func(n int) result { return rsp.EnableResult(n) },
		"DisableProfile":     func(n int) result { return rsp.DisableResult(n) },
		"DeleteProfile":      func(n int) result { return rsp.DeleteResult(n) },
		"eUICCMemoryReset":   func(n int) result { return rsp.MemoryResetResult(n) },
		"SetNickname":        func(n int) result { return rsp.NicknameResult(n) },
		"AuthenticateServer": func(n int) result { return rsp.AuthenticateResult(n) },
		"PrepareDownload":    func(n int) result { return rsp.DownloadResult(n) },
		"CancelSession":      func(n int) result { return rsp.CancelResult(n) },
		"LoadCRL":            func(n int) result { return rsp.CRLResult(n) },
		"GetProfilesInfo":    func(n int) result { return rsp.GeneralResult(n) },
	} {
		for n := 1; n <= 127; n++ {
			words := resultMeans(function, strconv.Itoa(n))
			known := words != "" && !strings.Contains(words, "later version")
			if knows := !strings.HasPrefix(of(n).Name(), "unknown"); known != knows {
				t.Errorf("%s/%d: %q here, %q there", function, n, words, of(n).Name())
			}
		}
	}
}

// TestStagesAreComplete: every state of a job has words.
func TestStagesAreComplete(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "../../agent/job/state.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	states := 0
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if of, ok := spec.Type.(*ast.Ident); ok && of.Name == "State" {
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				states++
				if name, err := strconv.Unquote(lit.Value); err != nil || stages[name] == "" {
					t.Errorf("the state %s has no words (%v)", lit.Value, err)
				}
			}
		}
		return true
	})
	if states < 20 || states != len(stages) {
		t.Errorf("%d states of jobs, %d with words", states, len(stages))
	}
}

func TestExplain(t *testing.T) {
	for args, want := range map[string]string{
		"8.2.6/3.8": "server 8.2.6/3.8: the matching id", "sgp22 8.2.7 6.4": "the confirmation code: tried too often", "bpp 5 12": "loading the profile itself: the card cannot process",
		"6a82": "SW 6A82: ", "sw 0x6881": "SW 6881: ", "cme 30": "CME 30: no network service", "cme 7777": "maker of the modem", "ES10c.EnableProfile/3": "policy rule",
		"es10 deleteProfile/2": "", "503": "HTTP 503", "matching-id-refused": "ends with 22", "nonsense": "", "sw": "", "8.8.99/3.8": "something about the SM-DP+: refused", "77.1/1.1": "",
		"bpp 9/1": "", "9/1": "", "5/12": "installation 5/12", "1 2 3 4": "", "": "",
	} {
		var out, errs strings.Builder
		exit := run(t.Context(), append([]string{"explain"}, strings.Fields(args)...), strings.NewReader(""), &out, &errs)
		if want == "" && exit != exitUsage || want != "" && (exit != 0 || !strings.Contains(out.String(), want)) {
			t.Errorf("explain %s: exit %d\n%s%s", args, exit, out.String(), errs.String())
		}
	}
	var out, errs strings.Builder
	if exit := run(t.Context(), []string{"explain", "6985", "--json"}, strings.NewReader(""), &out, &errs); exit != 0 || !strings.Contains(out.String(), `"kind": "sw"`) {
		t.Errorf("exit %d\n%s%s", exit, out.String(), errs.String())
	}
}

func FuzzNumbers(f *testing.F) {
	f.Add("authenticateClient: the server refuses (8.2.6/3.8): x; CME ERROR 13: SIM failure; SELECT: card: 6A82 x")
	f.Fuzz(func(t *testing.T, s string) {
		for _, n := range append(numbersIn(s), lookUp(strings.Fields(s))...) {
			if n.Means == "" || tables[n.Kind].short == "" {
				t.Errorf("%q: %+v", s, n)
			}
		}
		if n := len(numbersIn(s)); n > maxNumbers {
			t.Errorf("%d numbers in %q", n, s)
		}
	})
}
