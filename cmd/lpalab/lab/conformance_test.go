package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"

	"lpad/agent/rsp"
	"lpad/agent/rsp/bpp"
	"lpad/agent/rsp/es10"
	"lpad/agent/rsp/es9p"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/apdu"
	"lpad/apdu/apdutest"
	"lpad/apdu/ber"
	"lpad/apdu/pcsc"
	"lpad/cmd/lpalab/lab"
	"lpad/internal/redact"
	"lpad/modem/at"
	"lpad/modem/atcard"
	"lpad/modem/modemtest"
	"lpad/modem/serialport"
)

// way leads from package es10 to a card. Its opener puts the world's card where
// the way ends and returns what opens it there, again for each call.
type way struct {
	name string
	put  func(t *testing.T, w *lab.World) func(*testing.T) apdu.Card
}

// ways are those that carry whole blocks.
var ways = []way{
	{"direct", func(_ *testing.T, w *lab.World) func(*testing.T) apdu.Card {
		return func(*testing.T) apdu.Card { return apdutest.Attach(w.Card, es10.MaxBlockSize) }
	}},
	{"PCSC", overPCSC},
	{"CCHO", overAT(atcard.CCHO, "+CSIM")},
	{"CSIM", overAT(atcard.CSIM, "+CCHO", "+CGLA", "+CCHC")},
}

// overPCSC is a real pcscd with the virtual reader, and lpad-pcsc as built.
func overPCSC(t *testing.T, w *lab.World) func(*testing.T) apdu.Card {
	modemtest.RequirePCSCD(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	dir, err := os.MkdirTemp("", "lpad-pcsc-") // short, for the sake of a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p, err := modemtest.StartPCSCD(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	var reader sync.WaitGroup
	inReader, pull := context.WithCancel(context.WithoutCancel(ctx))
	reader.Go(func() {
		if err := apdutest.ServeVPCD(inReader, p.Addr(), w.Card); err != nil {
			t.Errorf("virtual reader: %v", err)
		}
	})
	t.Cleanup(func() {
		pull()
		reader.Wait()
		if err := p.Close(); err != nil {
			t.Errorf("pcscd: %v", err)
		}
	})
	config := pcsc.Config{Helper: filepath.Join(programs, "lpad-pcsc"), Env: p.Env()}
	eventually(ctx, t, "pcscd sees the card", func() bool {
		readers, err := pcsc.Readers(ctx, config)
		return err == nil && slices.ContainsFunc(readers, func(r pcsc.ReaderInfo) bool { return r.CardPresent })
	})
	return func(t *testing.T) apdu.Card {
		card, err := pcsc.Open(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		return card
	}
}

// narrowWays are modems whose command line is too short for a whole block: the
// block size is found on the way, and nothing else changes.
var narrowWays = []way{
	{"lines of 300, ERROR above", overShortLines(300, modemtest.OverlongError)},
	{"lines of 400, cut off above", overShortLines(400, modemtest.OverlongTruncated)},
	{"lines of 270, silence above", overShortLines(270, modemtest.OverlongSilent)},
}

// overShortLines is a modem that takes only so many characters of a command.
func overShortLines(most int, how modemtest.Overlong) func(*testing.T, *lab.World) func(*testing.T) apdu.Card {
	dialect := modemtest.UBlox
	dialect.MaxLine, dialect.Overlong = most, how
	put := overModem(atcard.CCHO, dialect)
	return func(t *testing.T, w *lab.World) func(*testing.T) apdu.Card {
		open := put(t, w)
		return func(t *testing.T) apdu.Card {
			card := open(t)
			t.Cleanup(func() {
				_, learned := card.(*atcard.Card).Learned()
				if digits := 2 * (5 + learned); learned == 0 || digits > most || digits < most/3 {
					t.Errorf("learned %d bytes on a modem with lines of %d characters", learned, most)
				}
			})
			return card
		}
	}
}

// overAT is a modem that lacks some commands.
func overAT(path atcard.Path, lacks ...string) func(*testing.T, *lab.World) func(*testing.T) apdu.Card {
	dialect := modemtest.UBlox
	dialect.Lacks = append(slices.Clone(dialect.Lacks), lacks...)
	return overModem(path, dialect)
}

// overModem is a modem on a pty. It leaves the card's proactive commands alone,
// so that the card answers as it does elsewhere.
func overModem(path atcard.Path, dialect modemtest.Dialect) func(*testing.T, *lab.World) func(*testing.T) apdu.Card {
	return func(t *testing.T, w *lab.World) func(*testing.T) apdu.Card {
		m, err := modemtest.New(modemtest.Config{Card: w.Card, Dialect: dialect, NoFetch: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Errorf("modem: %v", err)
			}
		})
		link := filepath.Join(t.TempDir(), "ttyUSB0")
		if _, err := m.OpenPTY(link); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Wait(t.Context(), func(s modemtest.State) bool { return s.SIM.State == modemtest.SIMReady }); err != nil {
			t.Fatal(err)
		}
		return func(t *testing.T) apdu.Card {
			var line *serialport.Port
			eventually(t.Context(), t, "the port is free", func() (ok bool) {
				// A program that another test is just starting has the lock of
				// a port that we closed, until it is a program of its own.
				var err error
				if line, err = serialport.Open(link, 115200); err != nil && !errors.Is(err, serialport.ErrBusy) {
					t.Fatal(err)
				}
				return err == nil
			})
			conn := at.New(line)
			t.Cleanup(func() {
				if err := conn.Close(); err != nil {
					t.Errorf("port: %v", err)
				}
			})
			card, err := atcard.Open(t.Context(), conn, atcard.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if used := card.Path(); used != path && used != atcard.Auto {
					t.Errorf("the path is %v, not %v", used, path)
				}
			})
			return card
		}
	}
}

// TestConformance: the same eUICC does the same, byte for byte, whatever leads
// to it.
func TestConformance(t *testing.T) {
	t.Parallel()
	p, err := lab.NewPKI()
	if err != nil {
		t.Fatal(err)
	}
	otk, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	ways := append(slices.Clone(ways), narrowWays...)
	transcripts := make([]string, len(ways))
	t.Run("ways", func(t *testing.T) {
		for i, way := range ways {
			t.Run(way.name, func(t *testing.T) {
				t.Parallel()
				w := fixedWorld(t, p, otk)
				open := way.put(t, w)
				card := open(t)
				transcripts[i] = conformance(t, w, card)
				if err := card.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	})
	for i, way := range ways[1:] {
		if d := diff.Diff(strings.Split(transcripts[0], "\n"), strings.Split(transcripts[i+1], "\n")); d != "" {
			t.Errorf("the card answers otherwise over %s (+) than directly (-):\n%s", way.name, d)
		}
	}
	if n := strings.Count(transcripts[0], "\n"); n < 80 {
		t.Errorf("the transcript has %d lines only", n)
	}
}

// TestTransports: what every transport must do, with the eUICC at its end.
func TestTransports(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lab.Options{Card: func(c *euicc.Config) { c.Profiles[0].Icon = make([]byte, 1000) }})
			apdutest.TestTransport(t, apdutest.Target{
				Open: way.put(t, w), AID: rsp.ISDR, Channels: euicc.DefaultChannels, Stall: w.Card.Stall, Reset: w.Card.Reset, Recovery: 30 * time.Second,
				Questions: []apdutest.Question{
					{Name: "GetEID", Command: storeData(0xBF, 0x3E, 3, 0x5C, 1, 0x5A), Answer: []byte{0xBF, 0x3E, 0x12, 0x5A, 0x10, 0x89}, SW: 0x9000},
					{Name: "GetProfilesInfo with an icon", Command: storeData(0xBF, 0x2D, 3, 0x5C, 1, 0x94), Answer: []byte{0xBF, 0x2D, 0x82}, Length: 1000, SW: 0x9000},
				},
				Fill: func(n int) apdu.Command {
					return apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x11, Data: bytes.Repeat([]byte{0xBF}, n)}
				},
			})
		})
	}
}

// storeData is a function of the ISD-R in one block.
func storeData(function ...byte) apdu.Command {
	return apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: function}
}

// Profiles of the fixed world beside the lab's.
const (
	secondICCID  = "89330100000000000025" // on the card from the beginning
	refusedICCID = "89330100000000000033" // offered, and refused by the user
	brokenICCID  = "89330100000000000041" // damaged on its way
	absentICCID  = "89330100000000000058"
)

// fixedWorld is a world in which nothing is left to chance.
func fixedWorld(t *testing.T, p *pki.PKI, oneTimeKey *pki.Key) *lab.World {
	t.Helper()
	random := func(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }
	w := newWorld(t, lab.Options{PKI: p,
		Card: func(c *euicc.Config) {
			c.Random = random(1)
			c.Profiles[0].Icon = bytes.Repeat([]byte{0x89}, 1000)
			c.Profiles = append(c.Profiles, euicc.Profile{ICCID: iccid(t, secondICCID), IMSI: "001010000000025", Name: "Second", Class: euicc.Test,
				Notifications: []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: lab.Host}}})
			c.RAT = []euicc.Rule{{PPR: rsp.PPR1, Operators: []rsp.Operator{{MCCMNC: [3]byte{0xEE, 0xEE, 0xEE}}}, ConsentRequired: true}}
			c.FirstSequence = 250 // numbers of one and of two bytes
		},
		SMDP: func(c *smdp.Config) {
			c.Random = random(2)
			c.OneTimeKey = func(pki.Curve) (*pki.Key, error) { return oneTimeKey, nil }
		},
		Order: func(o *smdp.Order) { o.ConfirmationCode, o.ProfileKeys = "1234", true },
	})
	for code, id := range map[string]string{"REFUSED": refusedICCID, "BROKEN": brokenICCID} {
		s := lab.NewOperator
		s.ICCID = id
		o, err := lab.NewOrder(code, s, 3000)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.SMDP.AddOrder(o); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func iccid(t *testing.T, s string) rsp.ICCID {
	t.Helper()
	i, err := rsp.ParseICCID(s)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// recorder writes down what is asked of the card and what it answers, by
// function: the blocks that a request came in are the transport's business.
type recorder struct {
	channel *apdu.Channel
	request []byte
	lines   strings.Builder
}

func (r *recorder) Transmit(ctx context.Context, cmd apdu.Command) (apdu.Response, error) {
	answer, err := r.channel.Transmit(ctx, cmd)
	var status *apdu.StatusError
	var size *apdu.BlockSizeError
	if errors.As(err, &size) { // the request begins anew, in smaller blocks
		r.request = nil
		return answer, err
	}
	if err != nil && !errors.As(err, &status) {
		fmt.Fprintf(&r.lines, "lost: %X\n", r.request)
		r.request = nil
		return answer, err
	}
	r.request = append(r.request, cmd.Data...)
	if cmd.P1&0x80 == 0 && len(answer.Data) == 0 && answer.SW.OK() {
		return answer, err // more blocks follow
	}
	fmt.Fprintf(&r.lines, "%02X %02X %X -> %X %04X\n", cmd.INS, cmd.P1, r.request, answer.Data, uint16(answer.SW))
	r.request = nil
	return answer, err
}

// conformer runs the suite on one card.
type conformer struct {
	*testing.T
	ctx    context.Context
	w      *lab.World
	card   apdu.Card
	record *recorder
	server *es9p.Session
	*es10.Client
}

// conformance asks everything that ES10 has of a card of fixedWorld, with good
// and with bad arguments, and returns the transcript.
func conformance(t *testing.T, w *lab.World, card apdu.Card) string {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c := &conformer{T: t, ctx: ctx, w: w, card: card, record: &recorder{}, server: openSession(t, w)}
	c.channels()
	c.open()
	c.information()
	c.addresses()
	c.badRequests()
	c.wrongOrder()
	c.downloads()
	c.notifications()
	c.switches()
	c.deletions()
	c.close()
	if open := w.Card.OpenChannels(); len(open) != 0 {
		t.Errorf("logical channels %v are open at the end", open)
	}
	return c.record.lines.String()
}

// openSession opens ES9+ with the world's SM-DP+ on the loopback interface.
func openSession(t *testing.T, w *lab.World) *es9p.Session {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.Serve(l)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ci.pem"), w.PKI.CI.Certificate.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	trust, err := es9p.NewTrust(es9p.TrustConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s, err := (&es9p.Client{Trust: trust, Addresses: map[string]string{lab.Host: l.Addr().String()}}).Open(lab.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// note puts what is not an answer of ES10 into the transcript.
func (c *conformer) note(format string, a ...any) { fmt.Fprintf(&c.record.lines, format+"\n", a...) }

// open opens a channel to the ISD-R and works on it from now on.
func (c *conformer) open() {
	c.Helper()
	ch, err := c.card.OpenChannel(c.ctx, rsp.ISDR)
	if err != nil {
		c.Fatalf("open a channel: %v", err)
	}
	c.record.channel, c.Client = ch, es10.New(c.record, c.card.BlockSize())
}

func (c *conformer) close() {
	c.Helper()
	if err := c.record.channel.Close(c.ctx); err != nil {
		c.Errorf("close the channel: %v", err)
	}
}

// reset is a card that is powered off and on behind everybody's back.
func (c *conformer) reset() {
	c.Helper()
	c.w.Card.Reset()
	if _, err := c.GetEID(c.ctx); !errors.Is(err, apdu.ErrChannelClosed) {
		c.Errorf("a channel outlived the reset: %v", err)
	}
	if err := c.record.channel.Close(c.ctx); err != nil {
		c.Logf("close the channel of before: %v", err) // a modem may say that there is none
	}
	c.open()
	c.note("reset")
}

// want checks that an error matches; nil wants none.
func (c *conformer) want(what string, err, target error) {
	c.Helper()
	if !errors.Is(err, target) {
		c.Errorf("%s: %v, want %v", what, err, target)
	}
	c.note("%s: %v", what, target)
}

// channels: another application, more channels than there are, and all back.
func (c *conformer) channels() {
	_, err := c.card.OpenChannel(c.ctx, []byte{0xA0, 0, 0, 5, 0x59, 0x10, 0x10, 0x77})
	c.want("another application", err, apdu.ErrNotFound)
	for range 2 {
		var all []*apdu.Channel
		for range euicc.DefaultChannels {
			ch, err := c.card.OpenChannel(c.ctx, rsp.ISDR)
			if err != nil {
				c.Fatalf("channel %d: %v", len(all)+1, err)
			}
			all = append(all, ch)
		}
		_, err = c.card.OpenChannel(c.ctx, rsp.ISDR)
		c.want("one channel too many", err, apdu.ErrNoChannel)
		for _, ch := range all {
			c.want("close", ch.Close(c.ctx), nil)
		}
	}
}

// information is what reads only, the long answers among it.
func (c *conformer) information() {
	eid, err := c.GetEID(c.ctx)
	c.want("GetEID", err, nil)
	if eid != c.w.Card.EID() {
		c.Errorf("EID %s", eid)
	}
	info1, err := c.GetEUICCInfo1(c.ctx)
	c.want("GetEUICCInfo1", err, nil)
	info2, err := c.GetEUICCInfo2(c.ctx)
	c.want("GetEUICCInfo2", err, nil)
	if info1.SVN != info2.SVN || len(info2.Signing) != 1 {
		c.Errorf("%+v and %+v", info1, info2)
	}
	rat, err := c.GetRAT(c.ctx)
	c.want("GetRAT", err, nil)
	if len(rat.Rules) != 1 || !rat.Rules[0].ConsentRequired {
		c.Errorf("rules %+v", rat.Rules)
	}
	old, second := iccid(c.T, lab.OldOperator.ICCID), iccid(c.T, secondICCID)
	testing := rsp.ClassTest
	var aid rsp.AID
	for _, q := range []struct {
		name   string
		search rsp.ProfileSearch
		tags   []ber.Tag
		want   []rsp.ICCID
	}{
		{"all profiles", rsp.ProfileSearch{}, nil, []rsp.ICCID{old, second}},
		{"what a list shows", rsp.ProfileSearch{}, es10.ProfileTags(), []rsp.ICCID{old, second}},
		{"with icons", rsp.ProfileSearch{}, append(es10.ProfileTags(), 0x93, 0x94), []rsp.ICCID{old, second}},
		{"by ICCID", rsp.ByICCID(second), nil, []rsp.ICCID{second}},
		{"by class", rsp.ProfileSearch{Class: &testing}, nil, []rsp.ICCID{second}},
		{"one that is absent", rsp.ByICCID(iccid(c.T, absentICCID)), nil, nil},
	} {
		list, err := c.GetProfilesInfo(c.ctx, q.search, q.tags...)
		c.want(q.name, err, nil)
		var got []rsp.ICCID
		for _, p := range list {
			got, aid = append(got, p.ICCID), p.AID
		}
		if !slices.Equal(got, q.want) {
			c.Errorf("%s: %v, want %v", q.name, got, q.want)
		}
		if q.name == "with icons" && len(list[0].Icon) != 1000 {
			c.Errorf("icon of %d bytes", len(list[0].Icon))
		}
	}
	if list, err := c.GetProfilesInfo(c.ctx, rsp.ProfileSearch{AID: aid}); err != nil || len(list) != 1 || list[0].ICCID != second {
		c.Errorf("by AID: %+v, %v", list, err)
	}
	if list, err := c.ListNotification(c.ctx, rsp.AllEvents); err != nil || len(list) != 0 {
		c.Errorf("notifications %+v, %v", list, err)
	}
	if list, err := c.RetrieveNotificationsList(c.ctx, rsp.BySeqNumber(77)); err != nil || len(list) != 0 {
		c.Errorf("notifications %+v, %v", list, err)
	}
}

// addresses are ES10a.
func (c *conformer) addresses() {
	long := strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + ".example" // one block is not enough over AT
	for _, address := range []string{"smdp.example.com", long, ""} {
		c.want("SetDefaultDpAddress", c.SetDefaultDpAddress(c.ctx, address), nil)
		got, err := c.GetEuiccConfiguredAddresses(c.ctx)
		c.want("GetEuiccConfiguredAddresses", err, nil)
		if got.DefaultSMDP != address || got.RootSMDS == "" {
			c.Errorf("addresses %+v, want %q", got, address)
		}
	}
}

// badRequests are no requests of ES10, or not whole ones. What the card says to
// them is its own affair, but it must come through, and the channel works on.
func (c *conformer) badRequests() {
	for _, cmd := range []apdu.Command{
		storeData(0xBF, 0x7F, 0),                                                    // no such function
		storeData(0xBF, 0x3E),                                                       // without a length
		storeData(0xBF, 0x3E, 0x7F, 0x5C),                                           // shorter than it says
		storeData(0xBF, 0x3E, 3, 0x5C, 1, 0x5B),                                     // what GetEID does not know
		storeData(0xBF, 0x31, 2, 0xA0, 0),                                           // EnableProfile of none
		storeData(0xBF, 0x33, 3, 0x5A, 1, 0x98),                                     // DeleteProfile, a tenth of an ICCID
		storeData(append([]byte{0xBF, 0x29, 79, 0x5A, 10}, make([]byte, 74)...)...), // SetNickname with too much in it
		storeData(),
		{CLA: 0x80, INS: 0xE2, P1: 0x91, P2: 5, Data: []byte{0xBF, 0x3E, 3, 0x5C, 1, 0x5A}}, // begins with the sixth block
		{CLA: 0x80, INS: 0xE2, P1: 0x11, Data: []byte{0xBF, 0x3E, 3}},
		storeData(0x5C, 1, 0x5A), // the second block is called the first
		{CLA: 0x80, INS: 0xCA, P1: 0xFF, P2: 0x21, Le: 256},
		{CLA: 0x80, INS: 0x02, P1: 0x80},
	} {
		var status *apdu.StatusError
		if _, err := c.record.Transmit(c.ctx, cmd); err != nil && !errors.As(err, &status) {
			c.Errorf("%v: %v", cmd, err)
		}
	}
	_, err := c.GetEID(c.ctx)
	c.want("GetEID after that", err, nil)
}

// wrongOrder calls the functions of a download where there is none, and those
// that change something for what is not there.
func (c *conformer) wrongOrder() {
	absent, unknown := iccid(c.T, absentICCID), rsp.TransactionID{1, 2, 3}
	c.reset() // ends the session, if there is one
	_, err := c.CancelSession(c.ctx, unknown, rsp.CancelPostponed)
	c.want("CancelSession without one", err, rsp.CancelNoSession)
	stale := c.initiate()
	c.reset()
	_, err = c.AuthenticateServer(c.ctx, stale, c.params("LAB-0001"))
	c.want("AuthenticateServer without a challenge", err, rsp.AuthenticateNoSession)
	_, err = c.GetEUICCChallenge(c.ctx)
	c.want("GetEUICCChallenge", err, nil)
	_, err = c.AuthenticateServer(c.ctx, stale, c.params("LAB-0001"))
	c.want("AuthenticateServer for another challenge", err, rsp.AuthenticateResult(6)) // euiccChallengeMismatch
	forged := c.initiate()
	forged.ServerSignature1 = slices.Clone(forged.ServerSignature1)
	forged.ServerSignature1[20] ^= 1
	_, err = c.AuthenticateServer(c.ctx, forged, c.params("LAB-0001"))
	c.want("AuthenticateServer with a forged signature", err, rsp.AuthenticateInvalidSignature)
	offer := c.authenticate("LAB-0001")
	forgedOffer := offer
	forgedOffer.SMDPSignature2 = slices.Clone(offer.SMDPSignature2)
	forgedOffer.SMDPSignature2[20] ^= 1
	_, err = c.PrepareDownload(c.ctx, forgedOffer, make([]byte, 32))
	c.want("PrepareDownload with a forged signature", err, rsp.DownloadInvalidSignature)
	_, err = c.CancelSession(c.ctx, unknown, rsp.CancelPostponed)
	c.want("CancelSession of another one", err, rsp.CancelNoSession)
	c.cancel(offer.TransactionID, rsp.CancelPostponed)
	_, err = c.PrepareDownload(c.ctx, offer, make([]byte, 32))
	c.want("PrepareDownload without a session", err, rsp.DownloadNoSession)
	if _, err := c.LoadBoundProfilePackage(c.ctx, [][]byte{{0xBF, 0x36, 3, 0xBF, 0x23, 0}}, nil); err == nil {
		c.Error("a package without a session was taken")
	}
	if _, err := c.LoadCRL(c.ctx, []byte{0x30, 2, 5, 0}); err == nil {
		c.Error("an empty list of revocations was taken")
	}
	c.want("EnableProfile", c.EnableProfile(c.ctx, absent, es10.NoRefresh), rsp.EnableNotFound)
	c.want("DisableProfile", c.DisableProfile(c.ctx, absent, es10.NoRefresh), rsp.DisableNotFound)
	c.want("DeleteProfile", c.DeleteProfile(c.ctx, absent), rsp.DeleteNotFound)
	c.want("SetNickname", c.SetNickname(c.ctx, absent, "x"), rsp.NicknameNotFound)
	c.want("RemoveNotificationFromList", c.RemoveNotificationFromList(c.ctx, 77), nil)
}

// initiate opens a session on both sides.
func (c *conformer) initiate() rsp.ServerAuthentication {
	c.Helper()
	challenge, err := c.GetEUICCChallenge(c.ctx)
	c.want("GetEUICCChallenge", err, nil)
	info, err := c.GetEUICCInfo1(c.ctx)
	c.want("GetEUICCInfo1", err, nil)
	s, err := c.server.InitiateAuthentication(c.ctx, challenge, info.Raw)
	c.must("InitiateAuthentication", err)
	return s
}

// must ends the test where nothing can come after an error.
func (c *conformer) must(what string, err error) {
	c.Helper()
	if err != nil {
		c.Fatalf("%s: %v", what, err)
	}
}

func (c *conformer) params(matchingID string) []byte {
	c.Helper()
	p, err := rsp.DeviceInfo{IMEI: "356938035643809"}.ContextParams(matchingID, 0)
	c.must("device information", err)
	return p
}

// authenticate goes on to the offer.
func (c *conformer) authenticate(matchingID string) rsp.DownloadOffer {
	c.Helper()
	s := c.initiate()
	answer, err := c.AuthenticateServer(c.ctx, s, c.params(matchingID))
	c.must("AuthenticateServer", err)
	client, err := c.server.AuthenticateClient(c.ctx, s.TransactionID, answer)
	c.must("AuthenticateClient", err)
	return *client.Offer
}

// cancel ends a session on both sides.
func (c *conformer) cancel(id rsp.TransactionID, reason rsp.CancelReason) {
	c.Helper()
	word, err := c.CancelSession(c.ctx, id, reason)
	c.must("CancelSession", err)
	c.must("the server's CancelSession", c.server.CancelSession(c.ctx, id, word))
}

// fetch gets the package for an offer.
func (c *conformer) fetch(offer rsp.DownloadOffer, code string) ([][]byte, error) {
	c.Helper()
	var hash []byte
	if code != "" {
		hash = rsp.HashConfirmationCode(redact.NewSecret(code), offer.TransactionID)
	}
	answer, err := c.PrepareDownload(c.ctx, offer, hash)
	c.must("PrepareDownload", err)
	b, err := c.server.GetBoundProfilePackage(c.ctx, offer.TransactionID, answer)
	if err != nil {
		return nil, err
	}
	p, err := bpp.Parse(b)
	c.must("package", err)
	return p.Segments(), nil
}

// downloads: one that the user refuses, one with a wrong code, one that is
// damaged on its way, and one that is installed.
func (c *conformer) downloads() {
	offer := c.authenticate("REFUSED")
	c.cancel(offer.TransactionID, rsp.CancelEndUserRejection)
	if o, _ := c.w.SMDP.Order("REFUSED"); o.State != smdp.Cancelled {
		c.Errorf("the refused order is %s", o.State)
	}

	offer = c.authenticate(c.w.Order.MatchingID)
	_, err := c.fetch(offer, "4321")
	var refusal *es9p.Error
	if !errors.As(err, &refusal) || refusal.SubjectCode != "8.2.7" {
		c.Errorf("the wrong confirmation code: %v", err)
	}
	_, err = c.CancelSession(c.ctx, offer.TransactionID, rsp.CancelPostponed) // the server has ended it already
	c.want("CancelSession", err, nil)

	c.w.SMDP.Inject(smdp.Fault{Function: smdp.GetBoundProfilePackage, Kind: smdp.BadMAC, Times: 1})
	segments, err := c.fetch(c.authenticate("BROKEN"), "")
	c.must("package", err)
	result, err := c.LoadBoundProfilePackage(c.ctx, segments, nil)
	c.must("LoadBoundProfilePackage", err)
	var failure *rsp.InstallationError
	if !errors.As(result.Err(), &failure) {
		c.Errorf("the damaged package: %v", result.Err())
	}
	c.note("damaged package: %v", result.Err())

	segments, err = c.fetch(c.authenticate(c.w.Order.MatchingID), "1234")
	c.must("package", err)
	result, err = c.LoadBoundProfilePackage(c.ctx, segments, nil)
	c.must("LoadBoundProfilePackage", err)
	c.must("installation", result.Err())
	list, err := c.GetProfilesInfo(c.ctx, rsp.ProfileSearch{})
	c.want("GetProfilesInfo", err, nil)
	if len(list) != 3 || list[2].ICCID != iccid(c.T, lab.NewOperator.ICCID) || list[2].State != rsp.Disabled {
		c.Errorf("profiles %+v", list)
	}
}

// deliver takes every notification to the server and off the card.
func (c *conformer) deliver(events ...rsp.Event) {
	c.Helper()
	before := len(c.w.SMDP.Notifications())
	list, err := c.ListNotification(c.ctx, rsp.AllEvents)
	c.want("ListNotification", err, nil)
	for _, n := range list {
		pending, err := c.RetrieveNotificationsList(c.ctx, rsp.BySeqNumber(n.SeqNumber))
		if err != nil || len(pending) != 1 {
			c.Fatalf("notification %d: %+v, %v", n.SeqNumber, pending, err)
		}
		c.must("HandleNotification", c.server.HandleNotification(c.ctx, pending[0].Raw))
		c.want("RemoveNotificationFromList", c.RemoveNotificationFromList(c.ctx, n.SeqNumber), nil)
	}
	var got []rsp.Event
	for _, n := range c.w.SMDP.Notifications()[before:] {
		if got = append(got, n.Event); !n.Verified || n.Duplicate {
			c.Errorf("notification %+v", n)
		}
	}
	if !slices.Equal(got, events) {
		c.Errorf("the server got the notifications %v, want %v", got, events)
	}
	if left := c.w.Card.Notifications(); len(left) != 0 {
		c.Errorf("left on the card: %+v", left)
	}
}

// notifications: those of the downloads, chosen in all ways, and delivered.
func (c *conformer) notifications() {
	all, err := c.RetrieveNotificationsList(c.ctx, rsp.NotificationSearch{})
	c.want("RetrieveNotificationsList", err, nil)
	installed, err := c.RetrieveNotificationsList(c.ctx, rsp.NotificationSearch{Events: rsp.EventInstall})
	c.want("RetrieveNotificationsList", err, nil)
	deleted, err := c.ListNotification(c.ctx, rsp.EventDelete)
	c.want("ListNotification", err, nil)
	if len(all) != 2 || len(installed) != 2 || len(deleted) != 0 {
		c.Errorf("%d notifications, %d of installations, %d of deletions", len(all), len(installed), len(deleted))
	}
	c.deliver(rsp.EventInstall, rsp.EventInstall)
}

// switches: which profile is enabled, and what the card says to the wrong wish.
func (c *conformer) switches() {
	old, second, fresh := iccid(c.T, lab.OldOperator.ICCID), iccid(c.T, secondICCID), iccid(c.T, lab.NewOperator.ICCID)
	c.want("SetNickname", c.SetNickname(c.ctx, fresh, strings.Repeat("ä", es10.MaxNickname/2)), nil)
	c.want("enable the new one", c.EnableProfile(c.ctx, fresh, es10.NoRefresh), nil)
	c.want("again", c.EnableProfile(c.ctx, fresh, es10.NoRefresh), rsp.EnableNotDisabled)
	c.want("delete it", c.DeleteProfile(c.ctx, fresh), rsp.DeleteNotDisabled)
	c.want("disable another", c.DisableProfile(c.ctx, second, es10.NoRefresh), rsp.DisableNotEnabled)
	c.want("disable it", c.DisableProfile(c.ctx, fresh, es10.NoRefresh), nil)
	list, err := c.GetProfilesInfo(c.ctx, rsp.ByICCID(old))
	c.want("GetProfilesInfo", err, nil)
	if len(list) != 1 {
		c.Fatalf("profiles %+v", list)
	}
	c.want("enable the old one by its AID", c.EnableProfile(c.ctx, list[0].AID, es10.NoRefresh), nil)
	c.deliver(rsp.EventDisable, rsp.EventEnable, rsp.EventDisable, rsp.EventEnable)
	c.want("enable the new one, with REFRESH", c.EnableProfile(c.ctx, fresh, es10.Refresh), nil)
	if c.w.Card.ProactiveCommand() == nil {
		c.Error("no REFRESH is pending")
	}
	c.reset()
	list, err = c.GetProfilesInfo(c.ctx, rsp.ProfileSearch{})
	c.want("GetProfilesInfo", err, nil)
	for _, p := range list {
		if want := p.ICCID == fresh; (p.State == rsp.Enabled) != want {
			c.Errorf("%s is %v", p.ICCID, p.State)
		}
	}
	if seen, _ := c.w.Card.VisibleICCID(); seen != fresh {
		c.Errorf("a modem sees %s", seen)
	}
}

// deletions: one, and then everything.
func (c *conformer) deletions() {
	c.want("delete the old one", c.DeleteProfile(c.ctx, iccid(c.T, lab.OldOperator.ICCID)), nil)
	c.deliver(rsp.EventDisable, rsp.EventEnable, rsp.EventDelete)
	everything := es10.MemoryReset{OperationalProfiles: true, FieldLoadedTestProfiles: true, DefaultSMDP: true}
	c.want("EUICCMemoryReset", c.EUICCMemoryReset(c.ctx, everything), nil)
	c.reset()
	c.want("EUICCMemoryReset", c.EUICCMemoryReset(c.ctx, everything), rsp.MemoryResetNothing)
	list, err := c.GetProfilesInfo(c.ctx, rsp.ProfileSearch{})
	c.want("GetProfilesInfo", err, nil)
	if len(list) > 1 || len(list) == 1 && list[0].ICCID != iccid(c.T, secondICCID) {
		c.Errorf("profiles %+v", list)
	}
	c.deliver(rsp.EventDelete)
}
