package apdu_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"lpad/apdu"
	"lpad/apdu/apdutest"
	"lpad/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var isdr, _ = hex.DecodeString("A0000005591010FFFFFFFF8900000100")

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		name string
		cmd  apdu.Command
		hex  string
	}{
		{"case 1", apdu.Command{CLA: 0x80, INS: 0x12}, "80120000"},
		{"case 2", apdu.Command{INS: 0x70, Le: 1}, "0070000001"},
		{"case 2, 256", apdu.Command{INS: 0xC0, Le: 256}, "00C0000000"},
		{"case 3", apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: []byte{0xBF, 0x3E, 0}}, "80E2910003BF3E00"},
		{"case 4", apdu.Command{INS: 0xA4, P1: 4, Data: []byte{1, 2}, Le: 256}, "00A4040002010200"},
	} {
		b, err := c.cmd.Marshal()
		if err != nil || !bytes.Equal(b, unhex(t, c.hex)) {
			t.Errorf("%s: %X, %v, want %s", c.name, b, err, c.hex)
		}
		back, err := apdu.ParseCommand(b)
		if err != nil || back.String() != c.cmd.String() || back.Le != c.cmd.Le || !bytes.Equal(back.Data, c.cmd.Data) {
			t.Errorf("%s: came back as %+v, %v", c.name, back, err)
		}
	}
	for _, c := range []apdu.Command{{Data: make([]byte, 256)}, {Le: 257}, {Le: -1}} {
		if _, err := c.Marshal(); err == nil {
			t.Errorf("%d bytes, Le %d was taken", len(c.Data), c.Le)
		}
	}
	for _, in := range []string{"", "80E291", "80E2910003BF3E", "80E2910003BF3E000000", "80E29100000003BF3E00"} {
		if _, err := apdu.ParseCommand(unhex(t, in)); !errors.Is(err, apdu.ErrCommand) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestResponse(t *testing.T) {
	r, err := apdu.ParseResponse(unhex(t, "BF3E00 9000"))
	if err != nil || r.SW != 0x9000 || !bytes.Equal(r.Data, unhex(t, "BF3E00")) {
		t.Errorf("%+v, %v", r, err)
	}
	if got := r.Marshal(); !bytes.Equal(got, unhex(t, "BF3E009000")) {
		t.Errorf("%X", got)
	}
	for _, in := range []string{"", "90"} {
		if _, err := apdu.ParseResponse(unhex(t, in)); !errors.Is(err, apdu.ErrResponse) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestSW(t *testing.T) {
	for _, c := range []struct {
		sw   apdu.SW
		ok   bool
		kind error
		code string
		text string
	}{
		{0x9000, true, nil, "", "success"},
		{0x910B, true, nil, "", "proactive"},
		{0x9201, true, nil, "", "success"},
		{0x9300, false, apdu.ErrBusy, "card-busy", "busy"},
		{0x6A82, false, apdu.ErrNotFound, "card-not-found", "6A82 file or application not found"},
		{0x6A88, false, apdu.ErrNotFound, "card-not-found", "referenced data"},
		{0x6881, false, apdu.ErrChannelClosed, "card-channel-closed", "channel"},
		{0x6985, false, apdu.ErrConditions, "card-conditions", "conditions"},
		{0x6982, false, apdu.ErrSecurity, "card-security", "security"},
		{0x6A80, false, apdu.ErrMalformed, "card-malformed", "malformed"},
		{0x6D00, false, apdu.ErrUnsupported, "card-unsupported", "instruction"},
		{0x6A84, false, apdu.ErrMemory, "card-memory", "memory"},
		{0x6F00, false, nil, "card-status", "diagnosis"},
		{0x6F42, false, nil, "card-status", "unknown"},
		{0x0000, false, nil, "card-status", "unknown"},
	} {
		if c.sw.OK() != c.ok || !strings.Contains(c.sw.String(), c.text) {
			t.Errorf("%v: ok %v, want %v and %q", c.sw, c.sw.OK(), c.ok, c.text)
		}
		err := apdu.Response{SW: c.sw}.Err("SELECT")
		if c.ok {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		var status *apdu.StatusError
		if !errors.As(err, &status) || status.Op != "SELECT" || c.kind != nil && !errors.Is(err, c.kind) {
			t.Errorf("%v: error %v", c.sw, err)
		}
		f := fault.Of(err)
		if f.Code != c.code || f.Text == "" || f.Next == "" || f.Who == "" {
			t.Errorf("%v: %+v", c.sw, f)
		}
	}
	if n, pending := apdu.SW(0x910B).Proactive(); n != 11 || !pending {
		t.Errorf("%d, %v", n, pending)
	}
	if _, pending := apdu.SW(0x9000).Proactive(); pending {
		t.Error("9000 announces nothing")
	}
}

func TestClass(t *testing.T) {
	for _, c := range []struct {
		base    byte
		channel int
		want    byte
	}{
		{0x00, 0, 0x00}, {0x00, 1, 0x01}, {0x80, 3, 0x83}, {0x00, 4, 0x40}, {0x80, 4, 0xC0}, {0x80, 19, 0xCF}, {0x00, 19, 0x4F},
	} {
		if got := apdu.Class(c.base, c.channel); got != c.want {
			t.Errorf("%02X on channel %d is %02X, want %02X", c.base, c.channel, got, c.want)
		}
		if got := apdu.ChannelOf(c.want); got != c.channel {
			t.Errorf("%02X is of channel %d, want %d", c.want, got, c.channel)
		}
	}
}

// A recorded card, byte for byte.
func TestRecorded(t *testing.T) {
	ch, err := apdu.OpenChannel(t.Context(), apdutest.Replay(t, "../testdata/apdu/get-eid.trace"), isdr)
	if err != nil {
		t.Fatal(err)
	}
	if ch.ID() != "1" || len(ch.FCI()) != 33 {
		t.Errorf("channel %s, FCI %X", ch.ID(), ch.FCI())
	}
	r, err := ch.Transmit(t.Context(), apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: unhex(t, "BF3E035C015A")})
	if err != nil || !bytes.Equal(r.Data, unhex(t, "BF3E125A1089049032123451234512345678901235")) {
		t.Errorf("%X, %v", r.Data, err)
	}
	if err := ch.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// script answers with given bytes in turn, an empty one is an error.
type script struct {
	answers []string
	sent    []string
}

var errLine = errors.New("line is down")

func (s *script) Transmit(_ context.Context, b []byte) ([]byte, error) {
	s.sent = append(s.sent, strings.ToUpper(hex.EncodeToString(b)))
	if len(s.answers) == 0 {
		return nil, errLine
	}
	answer := s.answers[0]
	s.answers = s.answers[1:]
	if answer == "" {
		return nil, errLine
	}
	return hex.DecodeString(answer)
}

func TestTransmit(t *testing.T) {
	command := apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: []byte{0xBF, 0x2D, 0x00}}
	for _, c := range []struct {
		name    string
		answers []string
		sent    string // after the command itself
		data    string
		sw      apdu.SW
		err     error
		broken  bool
	}{
		{"at once", []string{"BF2D009000"}, "", "BF2D00", 0x9000, nil, false},
		{"in pieces", []string{"6102", "BF2D6101", "009000"}, "80C0000002 80C0000001", "BF2D00", 0x9000, nil, false},
		{"data with 61xx", []string{"BF6102", "2D009000"}, "80C0000002", "BF2D00", 0x9000, nil, false},
		{"6100 is 256", []string{"6100", "009000"}, "80C0000000", "00", 0x9000, nil, false},
		{"proactive command waits", []string{"6101", "00910B"}, "80C0000001", "00", 0x910B, nil, false},
		{"6Cxx", []string{"6C03", "BF2D009000"}, "80E2910003BF2D0003", "BF2D00", 0x9000, nil, false},
		{"6Cxx to GET RESPONSE", []string{"61FF", "6C01", "009000"}, "80C00000FF 80C0000001", "00", 0x9000, nil, false},
		{"6Cxx for ever", []string{"6C03", "6C03", "9000"}, "80E2910003BF2D0003", "", 0x6C03, nil, false},
		{"status with data", []string{"016A80"}, "", "01", 0x6A80, apdu.ErrMalformed, false},
		{"status after pieces", []string{"6101", "6F00"}, "80C0000001", "", 0x6F00, nil, false},
		{"line down", []string{""}, "", "", 0, errLine, true},
		{"line down between pieces", []string{"6101", ""}, "80C0000001", "", 0, errLine, true},
		{"empty answer", []string{"90"}, "", "", 0, apdu.ErrResponse, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &script{answers: c.answers}
			ch := apdu.NewSession(s, "7", nil, nil)
			r, err := ch.Transmit(t.Context(), command)
			if (err == nil) != (c.sw.OK()) || c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if r.SW != c.sw || !bytes.Equal(r.Data, unhex(t, c.data)) {
				t.Errorf("%X %v, want %s %v", r.Data, r.SW, c.data, c.sw)
			}
			if got := strings.Join(s.sent[1:], " "); got != c.sent {
				t.Errorf("sent %s, want %s", got, c.sent)
			}
			s.answers = []string{"9000"}
			_, err = ch.Transmit(t.Context(), command)
			if broken := errors.Is(err, apdu.ErrBroken); broken != c.broken || broken && !errors.Is(err, c.err) {
				t.Errorf("then: %v, want broken %v", err, c.broken)
			}
			if c.broken && fault.Of(err).Code != "card-connection" {
				t.Errorf("%+v", fault.Of(err))
			}
		})
	}
}

// A card that never comes to an end is cut off.
func TestEndlessResponse(t *testing.T) {
	for name, piece := range map[string]int{"no data": 0, "full pieces": 256} {
		t.Run(name, func(t *testing.T) {
			n := 0
			card := apdutest.Func(func(apdu.Command) apdu.Response {
				n++
				return apdu.Response{Data: make([]byte, piece), SW: 0x6100}
			})
			ch := apdu.NewSession(card, "1", nil, nil)
			_, err := ch.Transmit(t.Context(), apdu.Command{INS: 0xE2})
			if !errors.Is(err, apdu.ErrEndless) || n > apdu.MaxRounds+1 || n*piece > apdu.MaxResponse+512 {
				t.Errorf("after %d rounds: %v", n, err)
			}
			if _, err := ch.Transmit(t.Context(), apdu.Command{INS: 0xE2}); !errors.Is(err, apdu.ErrBroken) {
				t.Error(err)
			}
		})
	}
}

func TestOpenChannel(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []string
		sent    string
		id      string
		err     error
	}{
		{"with FCI at once", []string{"019000", "6F009000"}, "0070000001 01A4040002A000", "1", nil},
		{"without FCI", []string{"039000", "9000"}, "0070000001 03A4040002A000", "3", nil},
		{"channel 19", []string{"139000", "9000"}, "0070000001 4FA4040002A000", "19", nil},
		{"MANAGE CHANNEL with 61xx", []string{"6101", "029000", "9000"}, "0070000001 00C0000001 02A4040002A000", "2", nil},
		{"none free", []string{"6A81"}, "0070000001", "", apdu.ErrNoChannel},
		{"not supported", []string{"6881"}, "0070000001", "", apdu.ErrNoChannel},
		{"instruction unknown", []string{"6D00"}, "0070000001", "", apdu.ErrUnsupported},
		{"no number", []string{"9000"}, "0070000001", "", apdu.ErrNoChannel},
		{"number 0", []string{"009000"}, "0070000001", "", apdu.ErrNoChannel},
		{"number 20", []string{"149000"}, "0070000001", "", apdu.ErrNoChannel},
		{"line down", []string{""}, "0070000001", "", errLine},
		{"not found, closed again", []string{"019000", "6A82", "9000"}, "0070000001 01A4040002A000 0070800100", "", apdu.ErrNotFound},
		{"not found, close fails", []string{"019000", "6A82", "6F00"}, "0070000001 01A4040002A000 0070800100", "", apdu.ErrNotFound},
		{"line down at SELECT", []string{"019000", "", "9000"}, "0070000001 01A4040002A000 0070800100", "", errLine},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &script{answers: c.answers}
			ch, err := apdu.OpenChannel(t.Context(), s, []byte{0xA0, 0x00})
			if !errors.Is(err, c.err) || (c.err == nil) != (err == nil) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if errors.Is(c.err, apdu.ErrNoChannel) && errors.Is(err, apdu.ErrChannelClosed) {
				t.Error("no channel was closed")
			}
			if got := strings.Join(s.sent, " "); got != c.sent {
				t.Errorf("sent %s, want %s", got, c.sent)
			}
			if err == nil && ch.ID() != c.id {
				t.Errorf("channel %s, want %s", ch.ID(), c.id)
			}
		})
	}
}

func TestClose(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []string // from after opening
		use     bool
		err     bool
	}{
		{"plain", []string{"9000"}, false, false},
		{"card forgot it", []string{"6881"}, false, false},
		{"card refuses", []string{"6985"}, false, true},
		{"line down", []string{""}, false, true},
		{"broken, then closed", []string{"", "9000"}, true, false},
		{"broken, card was reset meanwhile", []string{"", "6A86"}, true, false},
		{"broken, line still down", []string{"", ""}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &script{answers: append([]string{"019000", "9000"}, c.answers...)}
			ch, err := apdu.OpenChannel(t.Context(), s, isdr)
			if err != nil {
				t.Fatal(err)
			}
			if c.use {
				if _, err := ch.Transmit(t.Context(), apdu.Command{INS: 0xE2}); err == nil {
					t.Error("no error")
				}
			}
			over, cancel := context.WithCancel(t.Context())
			cancel()
			if err := ch.Close(over); (err != nil) != c.err {
				t.Error(err)
			}
			n := len(s.sent)
			if err := ch.Close(t.Context()); err != nil || len(s.sent) != n {
				t.Errorf("second close: %v, sent %v", err, s.sent[n:])
			}
			if _, err := ch.Transmit(t.Context(), apdu.Command{INS: 0xE2}); !errors.Is(err, apdu.ErrChannelClosed) {
				t.Error(err)
			}
		})
	}
}

// A session of a modem keeps the class byte, and is ended by its own function.
func TestSession(t *testing.T) {
	s := &script{answers: []string{"9000"}}
	closed := 0
	ch := apdu.NewSession(s, "000000000385a7cf", []byte{0x6F, 0}, func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("closing is not bounded")
		}
		closed++
		return nil
	})
	if _, err := ch.Transmit(t.Context(), apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91}); err != nil {
		t.Error(err)
	}
	if s.sent[0] != "80E29100" || ch.ID() != "000000000385a7cf" || len(ch.FCI()) != 2 {
		t.Errorf("sent %v on %s", s.sent, ch.ID())
	}
	for range 2 {
		if err := ch.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if closed != 1 {
		t.Errorf("closed %d times", closed)
	}
}

func TestCommandTooLong(t *testing.T) {
	s := &script{answers: []string{"9000"}}
	ch := apdu.NewSession(s, "1", nil, nil)
	if _, err := ch.Transmit(t.Context(), apdu.Command{Data: make([]byte, 256)}); err == nil || len(s.sent) > 0 {
		t.Errorf("sent %v, %v", s.sent, err)
	}
	if _, err := ch.Transmit(t.Context(), apdu.Command{}); err != nil {
		t.Errorf("the channel is broken by a command that was not sent: %v", err)
	}
}

// fixed answers everything with one error.
type fixed struct{ err error }

func (f fixed) Transmit(context.Context, []byte) ([]byte, error) { return nil, f.err }

// A block that the link does not carry and a status word that comes as an error
// leave the channel whole; anything else breaks it.
func TestErrorsThatDoNotBreak(t *testing.T) {
	for _, c := range []struct {
		err    error
		broken bool
	}{
		{&apdu.BlockSizeError{Size: 60, Cause: errLine}, false},
		{&apdu.BlockSizeError{Size: 60}, false},
		{errors.Join(errLine, &apdu.StatusError{SW: 0x6A80}), false},
		{errLine, true},
	} {
		ch := apdu.NewSession(fixed{c.err}, "1", nil, nil)
		_, err := ch.Transmit(t.Context(), apdu.Command{INS: 0xE2, Data: []byte{1}})
		_, again := ch.Transmit(t.Context(), apdu.Command{INS: 0xE2, Data: []byte{1}})
		if !errors.Is(err, c.err) || errors.Is(again, apdu.ErrBroken) != c.broken {
			t.Errorf("%v, then %v, want broken %v", err, again, c.broken)
		}
	}
}

// Two goroutines on one channel: the second is told so at once.
func TestInUse(t *testing.T) {
	inside, goOn := make(chan struct{}), make(chan struct{})
	ch := apdu.NewSession(apdutest.Func(func(apdu.Command) apdu.Response {
		close(inside)
		<-goOn
		return apdu.Response{SW: 0x9000}
	}), "1", nil, nil)
	done := make(chan error)
	go func() {
		_, err := ch.Transmit(context.Background(), apdu.Command{})
		done <- err
	}()
	<-inside
	if _, err := ch.Transmit(t.Context(), apdu.Command{}); !errors.Is(err, apdu.ErrInUse) || fault.Of(err).Code != fault.Internal {
		t.Error(err)
	}
	if err := ch.Close(t.Context()); !errors.Is(err, apdu.ErrInUse) {
		t.Error(err)
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
