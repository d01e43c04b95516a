package euicc

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

// Two profiles that most tests have.
var (
	home  = mustICCID("89000123456789012341")
	other = mustICCID("8944000000000000017")
)

func mustICCID(s string) rsp.ICCID {
	id, err := rsp.ParseICCID(s)
	if err != nil {
		panic(err)
	}
	return id
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// twoProfiles is a card with home enabled and other disabled.
func twoProfiles() Config {
	all := []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: "n.example.com"}}
	return Config{Profiles: []Profile{
		{ICCID: home, IMSI: "001010123456789", SPN: "Home", GID1: []byte{0x1A}, ServiceProvider: "Home", Name: "Home plan",
			Enabled: true, Notifications: all},
		{ICCID: other, IMSI: "262420000000001", MNCLength: 2, SPN: "Other", Notifications: all},
	}}
}

func newCard(t testing.TB, config Config) *Card {
	t.Helper()
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// send transmits a command in hex and gives the response in hex.
func send(t testing.TB, c *Card, command string) string {
	t.Helper()
	r, err := c.Transmit(t.Context(), unhex(t, command))
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return strings.ToUpper(hex.EncodeToString(r))
}

func want(t testing.TB, c *Card, command, response string) {
	t.Helper()
	if got := send(t, c, command); got != strings.ReplaceAll(response, " ", "") {
		t.Errorf("%s: got %s, want %s", command, got, response)
	}
}

const selectISDR = "00A4040010A0000005591010FFFFFFFF8900000100"

// channel1 opens logical channel 1 with the ISD-R.
func channel1(t testing.TB, c *Card) {
	t.Helper()
	want(t, c, "0070000001", "019000")
	r := send(t, c, "01"+selectISDR[2:])
	if !strings.HasPrefix(r[len(r)-4:], "61") && !strings.HasSuffix(r, "9000") {
		t.Fatalf("SELECT ISD-R: %s", r)
	}
}

// es10 runs a function on channel 1 and gives the answer and the status word.
func es10(t testing.TB, c *Card, function []byte) ([]byte, uint16) {
	t.Helper()
	answer, sw, err := tryES10(t.Context(), c, function, 255)
	if err != nil {
		t.Fatalf("%X: %v", function, err)
	}
	return answer, sw
}

func tryES10(ctx context.Context, c *Card, function []byte, block int) (answer []byte, sw uint16, err error) {
	for n := 0; len(function) > 0; n++ {
		size := min(block, len(function))
		p1 := byte(moreBlocks)
		if size == len(function) {
			p1 = lastBlock
		}
		command := append([]byte{0x81, insStoreData, p1, byte(n), byte(size)}, function[:size]...)
		function = function[size:]
		if answer, sw, err = exchange(ctx, c, command); err != nil || sw != swOK && sw>>8 != 0x91 || len(answer) > 0 {
			return answer, sw, err
		}
	}
	return answer, sw, nil
}

// exchange transmits a command and follows 61xx.
func exchange(ctx context.Context, c *Card, command []byte) (answer []byte, sw uint16, err error) {
	for range 1000 {
		r, err := c.Transmit(ctx, command)
		if err != nil {
			return nil, 0, err
		}
		answer = append(answer, r[:len(r)-2]...)
		sw = uint16(r[len(r)-2])<<8 | uint16(r[len(r)-1])
		if sw>>8 != 0x61 {
			return answer, sw, nil
		}
		command = []byte{command[0], insGetResponse, 0, 0, byte(sw)}
	}
	return nil, 0, errors.New("an answer without end")
}

// wantES10 runs a function in hex on channel 1 and compares the answer.
func wantES10(t testing.TB, c *Card, function, answer string) {
	t.Helper()
	got, sw := es10(t, c, unhex(t, function))
	if !bytes.Equal(got, unhex(t, answer)) || sw != swOK && sw>>8 != 0x91 {
		t.Errorf("%s: got %X %04X, want %s", function, got, sw, answer)
	}
}

// wantSW runs a function that is refused by status word.
func wantSW(t testing.TB, c *Card, function string, status uint16) {
	t.Helper()
	if got, sw := es10(t, c, unhex(t, function)); sw != status || len(got) != 0 {
		t.Errorf("%s: got %X %04X, want %04X", function, got, sw, status)
	}
}

func TestRecordedExchange(t *testing.T) {
	c := newCard(t, Config{})
	want(t, c, "80AA00000AA9088100820101830107", "9000")
	want(t, c, "0070000001", "019000")
	want(t, c, "01A4040010A0000005591010FFFFFFFF8900000100", "6121")
	want(t, c, "01C0000021", "6F1F8410A0000005591010FFFFFFFF8900000100A5049F6501FFE0058203020202 9000")
	want(t, c, "81E2910006BF3E035C015A", "6115")
	want(t, c, "81C0000015", "BF3E125A1089049032123451234512345678901235 9000")
	want(t, c, "0070800100", "9000")
	want(t, c, "81E2910006BF3E035C015A", "6881")
}

func TestInline(t *testing.T) {
	c := newCard(t, Config{Inline: true})
	want(t, c, "0070000000", "019000")
	want(t, c, "01A4040010A0000005591010FFFFFFFF8900000100", "6F1F8410A0000005591010FFFFFFFF8900000100A5049F6501FFE0058203020202 9000")
	want(t, c, "81E2910006BF3E035C015A00", "BF3E125A1089049032123451234512345678901235 9000")
	c = newCard(t, Config{Inline: true, Chunk: 16})
	channel1(t, c)
	want(t, c, "81E2910006BF3E035C015A", "BF3E125A1089049032123451234512 34 6105")
	want(t, c, "81C0000005", "5678901235 9000")
	want(t, c, "81C0000005", "6985")
}

func TestChunks(t *testing.T) {
	c := newCard(t, Config{Chunk: 9})
	channel1(t, c)
	want(t, c, "81E2910006BF3E035C015A", "6109")
	want(t, c, "81C000000A", "6C09")
	want(t, c, "81C0000002", "BF3E 6109")
	want(t, c, "81C0000009", "125A10890490321234 6109")
	want(t, c, "81C0000009", "512345123456789012 6101")
	want(t, c, "01C0000001", "35 9000")
}

func TestChannels(t *testing.T) {
	c := newCard(t, Config{Channels: 1})
	want(t, c, "0070000000", "6C01")
	if got := c.OpenChannels(); len(got) != 0 {
		t.Errorf("open channels %v after 6C01", got)
	}
	want(t, c, "0070000001", "019000")
	want(t, c, "0070000001", "6A81")
	want(t, c, "0070800200", "6881")
	want(t, c, "0070800100", "9000")
	want(t, c, "0070800000", "6A86")
	want(t, c, "0070000101", "6A86")
	want(t, c, "00700000", "019000")

	c = newCard(t, Config{Channels: 19})
	for n := 1; n <= 19; n++ {
		want(t, c, "0070000001", strings.ToUpper(hex.EncodeToString([]byte{byte(n)}))+"9000")
	}
	want(t, c, "0070000001", "6A81")
	want(t, c, "4F"+selectISDR[2:], "6121") // 19
	want(t, c, "CFE2910006BF3E035C015A", "6115")
	want(t, c, "40"+selectISDR[2:], "6121") // 4
	want(t, c, "0070800400", "9000")
	want(t, c, "C0E2910006BF3E035C015A", "6881")
	c.Reset()
	if got := c.OpenChannels(); len(got) != 0 {
		t.Errorf("open channels %v after a reset", got)
	}
	c = newCard(t, Config{Channels: -1})
	want(t, c, "0070000001", "6A81")
	if _, err := New(Config{Channels: 20}); err == nil {
		t.Error("twenty channels are possible")
	}
}

// A channel opened from another one has selected what that one has.
func TestChannelInherits(t *testing.T) {
	c := newCard(t, Config{})
	channel1(t, c)
	want(t, c, "0170000001", "029000")
	want(t, c, "82E2910006BF3E035C015A", "6115")
}

func TestMalformedCommands(t *testing.T) {
	c := newCard(t, Config{})
	for _, test := range []struct{ command, response string }{
		{"", "6700"},
		{"00A4", "6700"},
		{"00A4040002A0", "6700"},
		{"00A4040001A0000000", "6700"},
		{"00A4040000", "6A82"},
		{"00A404000000", "6700"},
		{"04A40004023F00", "6882"},
		{"60A40004023F00", "6882"},
		{"00E2910003BF2000", "6E00"},
		{"80E2910003BF2000", "6D00"},
		{"00FF0000", "6D00"},
		{"01A40004023F00", "6881"},
		{"00A4040007A0000000999999", "6A82"},
		{"00A4041010A0000005591010FFFFFFFF8900000100", "6A86"},
		{"80AA00000100", "6A80"},
		{"80AA00000151", "6A80"},
		{"8012000009", "6985"},
		{"801400000C810301040082028281830100", "6985"},
		{"80C2000002D600", "9000"},
		{"801000000101", "9000"},
	} {
		want(t, c, test.command, test.response)
	}
}

func TestStoreDataBlocks(t *testing.T) {
	c := newCard(t, Config{})
	channel1(t, c)
	want(t, c, "81E2110002BF3E", "9000")
	want(t, c, "81E2910104035C015A", "6115")
	want(t, c, "81E2910104035C015A", "6A80") // no command is open
	want(t, c, "81E2110002BF3E", "9000")
	want(t, c, "81E2910204035C015A", "6A80") // block 01 is missing
	want(t, c, "81E2910104035C015A", "6A80") // and the command is gone
	want(t, c, "81E2110002BF3E", "9000")
	want(t, c, "81E2910006BF3E035C015A", "6115") // block 00 begins anew
	want(t, c, "81E2000006BF3E035C015A", "6A86")
	want(t, c, "81E29100", "6700")
	want(t, c, "81E2910001BF", "6A80")
	want(t, c, "81E2910003BF7F00", "6A88") // unknown function
	want(t, c, "81E2910004BF3E035C", "6A80")
	want(t, c, "81E2110002BF3E", "9000")
	want(t, c, "01A4000C023F00", "9000") // another command ends the chain
	want(t, c, "01"+selectISDR[2:], "6121")
	want(t, c, "81E2910104035C015A", "6A80")

	c = newCard(t, Config{Quirks: Quirks{WrongBlockIsCondition: true}})
	channel1(t, c)
	want(t, c, "81E2910104035C015A", "6985")
}

func TestTermCapabilityQuirk(t *testing.T) {
	c := newCard(t, Config{Quirks: Quirks{NeedsTermCapability: true}})
	want(t, c, selectISDR, "6A82")
	want(t, c, "80AA00000AA9088100820101830101", "9000")
	want(t, c, selectISDR, "6A82")
	want(t, c, "80AA00000AA9088100820101830107", "9000")
	want(t, c, selectISDR, "6121")
	c.Reset()
	want(t, c, selectISDR, "6A82")
}

func TestOtherAID(t *testing.T) {
	c := newCard(t, Config{AIDs: []rsp.AID{rsp.ISDRs()[2]}})
	want(t, c, selectISDR, "6A82")
	want(t, c, "00A4040010A0000005591010FFFFFFFF8900050500", "6121")
	want(t, c, "80F2000021", "6F1F8410A0000005591010FFFFFFFF8900050500A5049F6501FFE0058203020202 9000")
	want(t, c, "80F2000C", "9000")
}

func TestFilesOfTheModem(t *testing.T) {
	c := newCard(t, twoProfiles())
	want(t, c, "00A4000C022FE2", "9000")
	want(t, c, "00B000000A", "98001032547698103214 9000")
	want(t, c, "00B0000000", "6C0A")
	want(t, c, "00B000080A", "6C02")
	want(t, c, "00B0000802", "3214 9000")
	want(t, c, "00B0001001", "6B00")
	want(t, c, "00B0820002", "9800 9000") // by short identifier
	want(t, c, "00B09F0002", "6A82")
	want(t, c, "00B2010426", "6981")
	want(t, c, "00A4000C022F00", "9000")
	want(t, c, "00B2010426", "6114 4F0C A0000000871002FF49FF0589 5004 5553494D FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF 9000")
	want(t, c, "00B2010226", "6A86")
	want(t, c, "00B2020426", "6A83")
	want(t, c, "00B201F426", "6114 4F0C A0000000871002FF49FF0589 5004 5553494D FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF 9000")
	want(t, c, "00B0000001", "6981")
	want(t, c, "00A4000C026F07", "6A82") // not below the MF
	want(t, c, "00A4040C07A0000000871002", "9000")
	want(t, c, "00B0000001", "6986")
	want(t, c, "00A4000C026F07", "9000")
	want(t, c, "00B0000009", "080910101032547698 9000")
	want(t, c, "00A4000C026FAD", "9000")
	want(t, c, "00B0000004", "00000002 9000")
	want(t, c, "00A4000C026F46", "9000")
	want(t, c, "00B0000011", "01486F6D65FFFFFFFFFFFFFFFFFFFFFFFF 9000")
	want(t, c, "00A4080C047FFF6F3E", "9000")
	want(t, c, "00B0000001", "1A 9000")
	want(t, c, "00A4080C067FFF6F3E6F07", "6A82")
	want(t, c, "00A4080C037FFF6F", "6A82")
	want(t, c, "00A4020C026F07", "6A82")
	want(t, c, "00A4000C016F", "6A82")
	want(t, c, "00A4090C026F38", "9000")
	want(t, c, "00B0000011", "0000050000000000000000000000000000 9000")
	want(t, c, "00D600000100", "6982")
	want(t, c, "00A40004023F00", "6115")
	want(t, c, "00C0000015", "6213 82027821 83023F00 8A0105 C606900100830101 9000")
	want(t, c, "00A40004022FE2", "6114")
	want(t, c, "00C0000014", "6212 82024121 83022FE2 8A0105 8002000A 880110 9000")
	want(t, c, "00A40004022F00", "6117")
	want(t, c, "00C0000017", "6215 82054221002601 83022F00 8A0105 80020026 8801F0 9000")
	want(t, c, "00A4040410A0000000871002FF49FF0589FFFFFFFF", "6A82")
	want(t, c, "00A404040CA0000000871002FF49FF0589", "6123")
	want(t, c, "80F2000023", "6221 82027821 83027FFF 840CA0000000871002FF49FF0589 8A0105 C606900100830101 9000")
	want(t, c, "0020000100", "63C3")
	want(t, c, "002C000100", "63CA")
	want(t, c, "00200001083030303030303030", "9000")
	want(t, c, "00A4", "6700")
	want(t, c, "00A40000", "6115")
}

func TestNoProfileNoFiles(t *testing.T) {
	c := newCard(t, Config{})
	want(t, c, "00A4000C023F00", "9000")
	want(t, c, "00A4000C022FE2", "6A82")
	want(t, c, "00A4000C027FFF", "6A82")
	want(t, c, "00A4040C07A0000000871002", "6A82")
	want(t, c, "0020000100", "6A88")
	want(t, c, "00B000000A", "6986")
	if _, ok := c.VisibleICCID(); ok {
		t.Error("a profile is visible")
	}
	c = newCard(t, Config{Quirks: Quirks{BareICCID: home}})
	want(t, c, "00A4000C022FE2", "9000")
	want(t, c, "00B000000A", "98001032547698103214 9000")
}

func TestATR(t *testing.T) {
	c := newCard(t, Config{})
	atr := c.ATR()
	var sum byte
	for _, b := range atr[1:] {
		sum ^= b
	}
	// TS, T0, TA1, TD1, TD2, TA3, TB3, then as many historical bytes as T0 says, TCK.
	if sum != 0 || len(atr) != 7+int(atr[1]&0x0F)+1 {
		t.Errorf("ATR %X: check %02X, %d bytes", atr, sum, len(atr))
	}
	if own := newCard(t, Config{ATR: []byte{0x3B, 0x00}}).ATR(); !bytes.Equal(own, []byte{0x3B, 0x00}) {
		t.Errorf("ATR %X", own)
	}
}

func TestStatsAndTime(t *testing.T) {
	clock := new(countingClock)
	config := Config{Timing: Timing{PerAPDU: 10 * time.Millisecond, PerByte: 87 * time.Microsecond, Clock: clock}}
	c := newCard(t, config)
	channel1(t, c) // 5+3 and 21+2 bytes
	wantTime := 20*time.Millisecond + 31*87*time.Microsecond
	if got := c.Stats(); got.APDUs != 2 || got.Bytes != 31 || got.CardTime != wantTime || clock.total != wantTime {
		t.Errorf("%+v, slept %v, want %v", got, clock.total, wantTime)
	}
	c.ResetStats()
	if got := c.Stats(); got != (Stats{}) {
		t.Errorf("%+v", got)
	}
	clock.err = context.DeadlineExceeded
	if _, err := c.Transmit(t.Context(), []byte{0x00, 0x70, 0, 0, 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if got := c.OpenChannels(); !slices.Equal(got, []int{1, 2}) { // executed, only nobody waited
		t.Errorf("open channels %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Transmit(ctx, []byte{0x00, 0x70, 0, 0, 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := (RealTime{}).Sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := (RealTime{}).Sleep(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if err := (RealTime{}).Sleep(t.Context(), time.Microsecond); err != nil {
		t.Error(err)
	}
}

// What the software needs, and what a timer oversleeps, does not add up.
func TestTimeIsKept(t *testing.T) {
	clock := new(sluggishClock)
	c := newCard(t, Config{Timing: Timing{PerAPDU: 10 * time.Millisecond, Clock: clock}})
	for range 100 {
		want(t, c, "00A4000C023F00", "9000")
	}
	if got := clock.now.Sub(time.Time{}); got < 1100*time.Millisecond || got > 1100*time.Millisecond+2*maxLate {
		t.Errorf("%v for 100 commands of 10 ms with 1 ms between them", got)
	}
}

// sluggishClock goes on by a millisecond at every look and oversleeps by one.
type sluggishClock struct{ now time.Time }

func (c *sluggishClock) Now() time.Time {
	c.now = c.now.Add(time.Millisecond)
	return c.now
}

func (c *sluggishClock) Sleep(_ context.Context, d time.Duration) error {
	c.now = c.now.Add(d + time.Millisecond)
	return nil
}

type countingClock struct {
	total time.Duration
	err   error
}

func (c *countingClock) Now() time.Time { return time.Unix(0, 0) }

func (c *countingClock) Sleep(_ context.Context, d time.Duration) error {
	c.total += d
	return c.err
}

// The golden lines of the protocol description that come out of a card.
func TestGoldenES10(t *testing.T) {
	config := twoProfiles()
	config.DefaultSMDP, config.RootSMDS = "smdp.example.com", "lpa.ds.gsma.com"
	c := newCard(t, config)
	channel1(t, c)
	wantES10(t, c, "BF3E035C015A", "BF3E125A1089049032123451234512345678901235")
	wantES10(t, c, "BF3C00", "BF3C238010736D64702E6578616D706C652E636F6D810F6C70612E64732E67736D612E636F6D")
	wantES10(t, c, "BF4300", "BF4302A000")
	wantES10(t, c, "BF2800", "BF2802A000")
	wantES10(t, c, "BF2B05A003800118", "BF2B03810101")
	wantES10(t, c, "BF300480020080", "BF3003800101")
	wantES10(t, c, "BF2D14A00C5A0A980010325476981032145C045A4F9F70",
		"BF2D26A024E3225A0A980010325476981032144F10A0000005591010FFFFFFFF89000011009F700101")
	wantES10(t, c, "BF29125A0A980010325476981032149004576F726B", "BF2903800100")
	wantES10(t, c, "BF2D1BA00C5A0A980010325476981032145C0B5A4F9F709091929599B6B7",
		"BF2D57A055 E353 5A0A98001032547698103214 4F10A0000005591010FFFFFFFF8900001100 9F700101 9004576F726B 9104486F6D65 9209486F6D6520706C616E 950102"+
			"B6153013800204F0810D6E2E6578616D706C652E636F6D")
	wantES10(t, c, "BF290E5A0A980010325476981032149000", "BF2903800100")
	wantES10(t, c, "BF2D14A00C5A0A980010325476981032145C045A4F9090",
		"BF2D22A020E31E5A0A980010325476981032144F10A0000005591010FFFFFFFF8900001100")
	wantES10(t, c, "BF330C5A0A98001032547698103214", "BF3303800102")
	wantES10(t, c, "BF3211A00C5A0A98001032547698103214810100", "BF3203800100")
	wantES10(t, c, "BF330C5A0A98001032547698103214", "BF3303800100")
	wantES10(t, c, "BF330C5A0A98001032547698103214", "BF3303800101")
	wantES10(t, c, "BF280481020520", "BF2827A025BF2F2280010081020520"+"0C0D6E2E6578616D706C652E636F6D5A0A98001032547698103214")
	wantES10(t, c, "BF280481020780", "BF2802A000")
}

func TestRATAndInfo(t *testing.T) {
	c := newCard(t, Config{
		RAT: []Rule{{PPR: rsp.PPR1 | rsp.PPR2, ConsentRequired: true,
			Operators: []rsp.Operator{{MCCMNC: [3]byte{0xEE, 0xEE, 0xEE}, GID1: []byte{}, GID2: []byte{}}}}},
		ForbiddenPPR: rsp.PPR1, FreeMemory: 518706,
		Info:    Info{Category: 1, SVN: rsp.Version{2, 2, 0}},
		Trusted: []Anchor{{SKI: bytes.Repeat([]byte{7}, 20), PublicKey: []byte{4}}},
	})
	channel1(t, c)
	wantES10(t, c, "BF4300", "BF4319A017301580020560A10B30098003EEEEEE8100820082020780")
	raw, _ := es10(t, c, unhex(t, "BF2200"))
	info, err := rsp.ParseEUICCInfo2(raw)
	if err != nil {
		t.Fatal(err)
	}
	if info.Resources.FreeNVM != 518706 || info.ForbiddenPPR != rsp.PPR1 || info.Category != 1 || info.SVN != (rsp.Version{2, 2, 0}) ||
		info.RSPCapability != rsp.CapAdditionalProfile|rsp.CapTestProfile || len(info.Verification) != 1 || len(info.Signing) != 1 {
		t.Errorf("%+v", info)
	}
	raw1, _ := es10(t, c, unhex(t, "BF2000"))
	info1, err := rsp.ParseEUICCInfo1(raw1)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(info1.Signing[0], info.Signing[0]) || !bytes.Equal(info1.Verification[0], info.Verification[0]) {
		t.Error("the CI lists of EUICCInfo1 and EUICCInfo2 differ")
	}
	c = newCard(t, Config{Info: Info{RawInfo1: []byte{0xBF, 0x20, 0x00}, RawInfo2: []byte{0xBF, 0x22, 0x00}}})
	channel1(t, c)
	wantES10(t, c, "BF2000", "BF2000")
	wantES10(t, c, "BF2200", "BF2200")
}

func TestMalformedFunctions(t *testing.T) {
	c := newCard(t, twoProfiles())
	channel1(t, c)
	for _, f := range []string{
		"BF3C0180", "BF3F00", "BF3F028100", "BF200181", "BF220181", "BF2E0181", "BF430181", "BF280281FF", "BF28028200",
		"BF2B028000", "BF2B02A000", "BF2B04A0028200", "BF2B05A0038101FF", "BF3000", "BF3E00", "BF3E035C0190", "BF2900", "BF2903800100",
		"BF3100", "BF3111A00C5A0A9800103254769810321482 01FF", "BF310E5A0A980010325476981032148101FF", "BF3105A000810100", "BF3300", "BF330EA00C5A0A98001032547698103214",
		"BF3400", "BF3403810100", "BF3400", "BF4100", "BF3800", "BF2100", "BF2D028000",
	} {
		wantSW(t, c, f, swWrongData)
	}
	wantSW(t, c, "BF3500", swNoReference)
	wantES10(t, c, "BF2D04A0028000", "BF2D03810101")
	wantES10(t, c, "BF2D02A000", "BF2D03810101")
	wantES10(t, c, "BF2D035C019F", "BF2D03810101")
	wantES10(t, c, "BF2D07A0039501025C00", "BF2D06A004E300E300")
	wantES10(t, c, "BF2D07A0039501005C00", "BF2D02A000")
	wantES10(t, c, "BF2D07A0034F01015C00", "BF2D02A000")
	wantES10(t, c, "BF2D03 5C0190", "BF2D06A004E300E300")
	wantES10(t, c, "BF410680010181 0100", "BF4103810105")
}

func TestDefaultAddress(t *testing.T) {
	config := Config{DefaultSMDP: "old.example.com"}
	c := newCard(t, config)
	channel1(t, c)
	wantES10(t, c, "BF3F128010736D64702E6578616D706C652E636F6D", "BF3F03800100")
	if got := c.DefaultSMDP(); got != "smdp.example.com" {
		t.Errorf("default SM-DP+ %q", got)
	}
	wantES10(t, c, "BF3F0680 04FFFFFFFF", "BF3F0380017F")
	wantES10(t, c, "BF3F028000", "BF3F03800100")
	answer, _ := es10(t, c, unhex(t, "BF3C00"))
	if e, err := ber.Parse(answer); err != nil || e.Value[0] != 0x81 {
		t.Errorf("%X", answer)
	}
	wantES10(t, c, "BF3404820205 20", "BF3403800100")
	if got := c.DefaultSMDP(); got != "old.example.com" {
		t.Errorf("default SM-DP+ %q", got)
	}
	wantES10(t, c, "BF3404820205 20", "BF3403800101")
}
