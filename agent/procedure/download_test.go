package procedure_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/apdu"
	"lpad/apdu/ber"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// download runs a whole one.
func (b *bench) download(r procedure.Request, code redact.Secret) (*procedure.Session, rsp.ProfileInstallationResult, error) {
	b.t.Helper()
	var none rsp.ProfileInstallationResult
	s, err := procedure.Authenticate(b.ctx, b.euicc, b.server(), r)
	if err != nil {
		return nil, none, err
	}
	if err := s.Prepare(b.ctx, code); err != nil {
		return s, none, err
	}
	res, err := s.Load(b.ctx, nil)
	return s, res, err
}

func TestDownload(t *testing.T) {
	for _, tc := range []struct {
		name  string
		setup setup
		order func(*smdp.Order)
	}{
		{"P-256", setup{}, nil},
		{"brainpool", setup{curve: pki.BrainpoolP256r1}, nil},
		{"block 120", setup{block: 120}, nil},
		{"keys of its own, short segments", setup{}, func(o *smdp.Order) { o.ProfileKeys, o.SegmentSize, o.MetadataSize = true, 1004, 60 }},
		{"transactionId of 8 bytes", setup{smdp: func(c *smdp.Config) { c.TransactionIDLength = 8 }}, nil},
		{"answers inline", setup{card: func(c *euicc.Config) { c.Inline = true }}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, tc.setup)
			b.order(tc.order)
			var last string
			s, err := procedure.Authenticate(b.ctx, b.euicc, b.server(), request())
			if err != nil {
				t.Fatal(err)
			}
			if s.Metadata.Name != "Test Plan" || s.ConfirmationCodeRequired || s.PPRConsent != 0 || s.Request.Address != smdpHost {
				t.Errorf("offer %+v", s)
			}
			if err := s.Prepare(b.ctx, redact.Secret{}); err != nil {
				t.Fatal(err)
			}
			res, err := s.Load(b.ctx, func(done, total int) { last = fmt.Sprintf("%d/%d", done, total) })
			if err != nil {
				t.Fatal(err)
			}
			if res.Notification.ICCID.String() != newICCID || s.Installed.Name != "Test Plan" || s.Installed.State != rsp.Disabled || last == "" {
				t.Errorf("result %+v, installed %+v, progress %s", res, s.Installed, last)
			}
			d := procedure.Deliver(b.ctx, b.euicc, b.open, []rsp.PendingNotification{procedure.Pending(res), procedure.Pending(res)})
			if len(d) != 1 || !d[0].Acknowledged || d[0].Err != nil {
				t.Errorf("deliveries %+v", d)
			}
			if o, _ := b.smdp.Order("ORDER-1"); o.State != smdp.Installed || len(b.card.Notifications()) != 0 {
				t.Errorf("order %+v, %d notifications left", o, len(b.card.Notifications()))
			}
			b.idle()
			if err := s.Cancel(b.ctx, rsp.CancelPostponed); err != nil {
				t.Errorf("cancelling what has ended: %v", err)
			}
			if _, err := s.Load(b.ctx, nil); !errors.Is(err, procedure.ErrOrder) {
				t.Errorf("loading twice: %v", err)
			}
		})
	}
}

// The card's share of a download from a warm daemon, channel and notification
// included, with bounds from what today's tools need.
func TestAPDUBudget(t *testing.T) {
	for _, tc := range []struct{ block, bound int }{{255, 90}, {120, 146}} {
		t.Run(fmt.Sprint(tc.block), func(t *testing.T) {
			b := newBench(t, setup{block: tc.block, card: func(c *euicc.Config) {
				c.Profiles = []euicc.Profile{{ICCID: iccid(t, "8900099999999999995"), Enabled: true}}
			}})
			b.order(nil)
			facts, err := procedure.ReadFacts(b.ctx, b.euicc)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.ch.Close(b.ctx); err != nil {
				t.Fatal(err)
			}
			b.card.ResetStats()
			b.reopen()
			r := request()
			r.Facts = facts
			server := b.server()
			s, err := procedure.Authenticate(b.ctx, b.euicc, server, r)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Prepare(b.ctx, redact.Secret{}); err != nil {
				t.Fatal(err)
			}
			res, err := s.Load(b.ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			lend := func(string) (procedure.Server, error) { return procedure.Keep(server), nil }
			for _, d := range procedure.Deliver(b.ctx, b.euicc, lend, []rsp.PendingNotification{procedure.Pending(res)}) {
				if d.Err != nil {
					t.Fatal(d.Err)
				}
			}
			if err := b.ch.Close(b.ctx); err != nil {
				t.Fatal(err)
			}
			stats := b.card.Stats()
			t.Logf("block %d: %d APDUs, %d bytes, bound %d", tc.block, stats.APDUs, stats.Bytes, tc.bound)
			if stats.APDUs > tc.bound {
				t.Errorf("%d APDUs, at most %d are allowed", stats.APDUs, tc.bound)
			}
			if n := len(b.smdp.Connections()); n != 1 {
				t.Errorf("%d TLS connections, want 1", n)
			}
		})
	}
}

func TestConfirmationCode(t *testing.T) {
	b := newBench(t, setup{})
	b.order(func(o *smdp.Order) { o.ConfirmationCode = "4711" })
	s, err := procedure.Authenticate(b.ctx, b.euicc, b.server(), request())
	if err != nil || !s.ConfirmationCodeRequired {
		t.Fatalf("session %+v, %v", s, err)
	}
	if err := s.Prepare(b.ctx, redact.Secret{}); !errors.Is(err, procedure.ErrConfirmationCode) {
		t.Errorf("without a code: %v", err)
	}
	if err := s.Prepare(b.ctx, redact.NewSecret("0000")); fault.Of(err).Code == fault.Internal || err == nil {
		t.Errorf("wrong code: %v", err)
	}
	b.idle()
	if got := calls(b.smdp); strings.Contains(got, "cancelSession") {
		t.Errorf("a server that refused is told again: %s", got)
	}
	if _, _, err := b.download(request(), redact.NewSecret("4711")); err != nil {
		t.Errorf("right code: %v", err)
	}
	if o, _ := b.smdp.Order("ORDER-1"); o.WrongCodes != 1 {
		t.Errorf("order %+v", o)
	}
}

// parameters is dpProprietaryData with terminal parameters.
var parameters = append([]byte{0xB8, 12, 0x80, 3, 0x88, 0x37, 0x0A}, 0xE1, 5, 0xC0, 3, 0x10, 0, 1)

// What an operator puts beside the profile is read back from the card.
func TestProprietaryData(t *testing.T) {
	for name, order := range map[string]func(*smdp.Order){
		"of ConfigureISDP": func(o *smdp.Order) { o.Proprietary = parameters },
		"of StoreMetadata": func(o *smdp.Order) { o.Metadata.Proprietary = parameters },
	} {
		b := newBench(t, setup{})
		b.order(order)
		if _, _, err := b.download(request(), redact.Secret{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p, found, err := procedure.FindProfile(b.ctx, b.euicc, iccid(t, newICCID))
		if err != nil || !found || !bytes.Equal(p.Proprietary, parameters) {
			t.Errorf("%s: %X, %v, %v", name, p.Proprietary, found, err)
		}
	}
}

// Each refusal has its own code, leaves nothing on the card, and tells the
// server what it must know and no more.
func TestRefusals(t *testing.T) {
	wrong := iccid(t, "8900099999999999995")
	for _, tc := range []struct {
		name    string
		setup   setup
		order   func(*smdp.Order)
		fault   smdp.Fault
		request func(*procedure.Request)
		code    string
		told    bool            // cancelSession reaches the server
		state   smdp.OrderState // of the order afterwards
	}{
		{name: "matching id", request: func(r *procedure.Request) { r.MatchingID = "WRONG" }, code: "matching-id-refused", state: smdp.Released},
		{name: "nothing waits", request: func(r *procedure.Request) { r.MatchingID = "" }, code: "nothing-pending", state: smdp.Released},
		{name: "nothing waits, in other words", request: func(r *procedure.Request) { r.MatchingID = "" },
			fault: smdp.Fault{Kind: smdp.Refuse, Function: smdp.AuthenticateClient, Subject: "8.2.6", Reason: "3.8"}, code: "nothing-pending", state: smdp.Released},
		{name: "eUICC not accepted", request: func(r *procedure.Request) { r.MatchingID = "" },
			fault: smdp.Fault{Kind: smdp.Refuse, Function: smdp.AuthenticateClient, Subject: "8.1.2", Reason: "6.1"}, code: "eum-certificate-refused", state: smdp.Released},
		{name: "other challenge", fault: smdp.Fault{Kind: smdp.OtherChallenge}, code: "server-challenge-mismatch", state: smdp.Released},
		{name: "other address", fault: smdp.Fault{Kind: smdp.OtherAddress}, code: "server-address-mismatch", state: smdp.Released},
		{name: "other CI", fault: smdp.Fault{Kind: smdp.OtherCI}, code: "ci-not-offered", state: smdp.Released},
		{name: "other signed id", fault: smdp.Fault{Kind: smdp.OtherSignedID, Function: smdp.InitiateAuthentication}, code: "server-session-mismatch", state: smdp.Released},
		{name: "OID of another server", request: func(r *procedure.Request) { r.OID = "2.999.77" }, code: "server-oid-mismatch", state: smdp.Released},
		{name: "bad signature", fault: smdp.Fault{Kind: smdp.FlipSignature, Function: smdp.InitiateAuthentication}, code: "server-signature-refused", state: smdp.Released},
		{name: "offer of another session", fault: smdp.Fault{Kind: smdp.OtherSignedID, Function: smdp.AuthenticateClient}, code: "server-session-mismatch", told: true, state: smdp.Released},
		{name: "answer of another session", fault: smdp.Fault{Kind: smdp.OtherReplyID, Function: smdp.AuthenticateClient}, code: "server-answer-invalid", told: true, state: smdp.Released},
		{name: "bad signature of the offer", fault: smdp.Fault{Kind: smdp.FlipSignature, Function: smdp.AuthenticateClient}, code: "server-signature-refused", told: true, state: smdp.Released},
		{name: "lost answer", fault: smdp.Fault{Kind: smdp.DropAnswer, Function: smdp.AuthenticateClient}, code: "connection-lost", state: smdp.Released},
		{name: "already installed", setup: setup{card: func(c *euicc.Config) { c.Profiles = []euicc.Profile{{ICCID: iccid(t, newICCID)}} }}, code: "profile-already-installed", told: true, state: smdp.Released},
		{name: "PPR without a rule", order: func(o *smdp.Order) {
			o.Metadata.PPR, o.Metadata.Owner = rsp.PPR2, &rsp.Operator{MCCMNC: [3]byte{0x00, 0xF1, 0x10}}
		}, code: "ppr-not-allowed", told: true, state: smdp.Cancelled},
		{name: "package refused", fault: smdp.Fault{Kind: smdp.Refuse, Function: smdp.GetBoundProfilePackage, Subject: "8.2", Reason: "3.7"}, code: "profile-already-bound", state: smdp.Released},
		{name: "package truncated", fault: smdp.Fault{Kind: smdp.Truncate, Function: smdp.GetBoundProfilePackage}, code: "package-malformed", told: true, state: smdp.Cancelled},
		{name: "package without profile", fault: smdp.Fault{Kind: smdp.No86, Function: smdp.GetBoundProfilePackage}, code: "package-malformed", told: true, state: smdp.Cancelled},
		{name: "package with more", fault: smdp.Fault{Kind: smdp.ExtraTag, Function: smdp.GetBoundProfilePackage}, code: "package-malformed", told: true, state: smdp.Cancelled},
		{name: "package of another operation", fault: smdp.Fault{Kind: smdp.BadRemoteOp, Function: smdp.GetBoundProfilePackage}, code: "package-malformed", told: true, state: smdp.Cancelled},
		{name: "package of another profile", fault: smdp.Fault{Kind: smdp.OtherMetadata, Function: smdp.GetBoundProfilePackage}, code: "metadata-mismatch", told: true, state: smdp.Cancelled},
		{name: "package of another session", fault: smdp.Fault{Kind: smdp.OtherSignedID, Function: smdp.GetBoundProfilePackage}, code: "package-stale", told: true, state: smdp.Cancelled},
		{name: "damaged on the way", fault: smdp.Fault{Kind: smdp.BadMAC, Function: smdp.GetBoundProfilePackage}, code: "package-security", state: smdp.Downloaded},
		{name: "metadata tampered with", order: func(o *smdp.Order) { o.Metadata.Proprietary = parameters },
			fault: smdp.Fault{Kind: smdp.BadMetadata, Function: smdp.GetBoundProfilePackage}, code: "package-security", state: smdp.Downloaded},
		{name: "parameters tampered with", order: func(o *smdp.Order) { o.Proprietary = parameters },
			fault: smdp.Fault{Kind: smdp.BadConfigure, Function: smdp.GetBoundProfilePackage}, code: "package-security", state: smdp.Downloaded},
		{name: "out of order", fault: smdp.Fault{Kind: smdp.Swap86, Function: smdp.GetBoundProfilePackage}, code: "package-security", state: smdp.Downloaded},
		{name: "profile of another ICCID", order: func(o *smdp.Order) { o.Metadata.ICCID = wrong }, code: "profile-data-mismatch", state: smdp.Downloaded},
		{name: "card is full", setup: setup{card: func(c *euicc.Config) { c.FreeMemory = 4000 }}, code: "card-full", state: smdp.Downloaded},
		{name: "card refuses the server", setup: setup{card: func(c *euicc.Config) {
			c.Faults = []euicc.Fault{{Do: euicc.Refuse, Function: 0xBF38, SW: 0x6A88}}
		}}, code: "card-not-found", state: smdp.Released},
		{name: "card breaks off", setup: setup{card: func(c *euicc.Config) {
			c.Faults = []euicc.Fault{{Do: euicc.Refuse, Function: 0xBF21, SW: 0x6F00}}
		}}, code: "card-status", told: true, state: smdp.Released},
		{name: "IMEI", request: func(r *procedure.Request) { r.Device.IMEI = "12" }, code: "device-info-invalid", state: smdp.Released},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, tc.setup)
			b.order(tc.order)
			if tc.fault.Kind != "" {
				b.smdp.Inject(tc.fault)
			}
			r := request()
			if tc.request != nil {
				tc.request(&r)
			}
			before := len(b.card.Profiles())
			_, _, err := b.download(r, redact.Secret{})
			if got := fault.Of(err).Code; err == nil || got != tc.code {
				t.Errorf("code %s, want %s: %v", got, tc.code, err)
			}
			var cleanup *procedure.CleanupError
			if errors.As(err, &cleanup) {
				t.Errorf("cleaning up failed: %v", err)
			}
			b.idle()
			if n := len(b.card.Profiles()); n != before {
				t.Errorf("%d profiles on the card, there were %d", n, before)
			}
			got := calls(b.smdp)
			if strings.Contains(got, "cancelSession ok") != tc.told {
				t.Errorf("told: %v, want %v: %s", !tc.told, tc.told, got)
			}
			if o, _ := b.smdp.Order("ORDER-1"); o.State != tc.state {
				t.Errorf("the order is %s, want %s", o.State, tc.state)
			}
			for _, n := range b.card.Notifications() {
				if n.Event != rsp.EventInstall {
					t.Errorf("notification %+v", n)
				}
			}
		})
	}
}

func TestPolicyConsent(t *testing.T) {
	b := newBench(t, setup{card: func(c *euicc.Config) {
		c.RAT = []euicc.Rule{{PPR: rsp.PPR1 | rsp.PPR2, Operators: []rsp.Operator{{MCCMNC: [3]byte{0xEE, 0xEE, 0xEE}}}, ConsentRequired: true}}
	}})
	b.order(func(o *smdp.Order) {
		o.Metadata.PPR, o.Metadata.Owner = rsp.PPR2, &rsp.Operator{MCCMNC: [3]byte{0x00, 0xF1, 0x10}}
	})
	s, res, err := b.download(request(), redact.Secret{})
	if err != nil || res.Err() != nil || s.PPRConsent != rsp.PPR2 || s.Installed.PPR != rsp.PPR2 {
		t.Errorf("session %+v, %v", s, err)
	}
}

// The user says no, or nothing.
func TestCancel(t *testing.T) {
	for reason, state := range map[rsp.CancelReason]smdp.OrderState{
		rsp.CancelEndUserRejection: smdp.Cancelled, rsp.CancelPostponed: smdp.Released, rsp.CancelTimeout: smdp.Released,
	} {
		b := newBench(t, setup{})
		b.order(nil)
		s, err := procedure.Authenticate(b.ctx, b.euicc, b.server(), request())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Cancel(b.ctx, reason); err != nil {
			t.Errorf("%v: %v", reason, err)
		}
		b.idle()
		if o, _ := b.smdp.Order("ORDER-1"); o.State != state {
			t.Errorf("%v: the order is %s, want %s", reason, o.State, state)
		}
		if err := s.Prepare(b.ctx, redact.Secret{}); !errors.Is(err, procedure.ErrOrder) {
			t.Errorf("going on afterwards: %v", err)
		}
		if _, err := s.Conclude(b.ctx, b.euicc); !errors.Is(err, procedure.ErrOrder) {
			t.Errorf("concluding afterwards: %v", err)
		}
	}
	t.Run("card has forgotten", func(t *testing.T) {
		b := newBench(t, setup{})
		b.order(nil)
		s, err := procedure.Authenticate(b.ctx, b.euicc, b.server(), request())
		if err != nil {
			t.Fatal(err)
		}
		b.card.Reset()
		if err := s.Cancel(b.ctx, rsp.CancelPostponed); !errors.Is(err, apdu.ErrChannelClosed) {
			t.Errorf("on a dead channel: %v", err)
		}
		b.reopen()
		if _, err := s.Conclude(b.ctx, b.euicc); !errors.Is(err, procedure.ErrOrder) {
			t.Errorf("concluding what was not loaded: %v", err)
		}
	})
	t.Run("ctx has ended", func(t *testing.T) {
		b := newBench(t, setup{})
		b.order(nil)
		ctx, cancel := context.WithCancel(b.ctx)
		s, err := procedure.Authenticate(ctx, b.euicc, b.server(), request())
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := s.Prepare(ctx, redact.Secret{}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		b.idle()
		if got := calls(b.smdp); !strings.Contains(got, "cancelSession ok") {
			t.Errorf("the server is not told: %s", got)
		}
	})
}

// The link breaks at every block of the package: the card is asked what
// became of it, and at the end of it all the profile is there once.
func TestBrokenLink(t *testing.T) {
	for _, tc := range []struct {
		name      string
		fault     euicc.Fault
		installed bool
	}{
		{"command lost", euicc.Fault{Do: euicc.LoseCommand, BPPByte: 1}, false},
		{"command lost in the middle", euicc.Fault{Do: euicc.LoseCommand, BPPByte: 6000}, false},
		{"answer lost in the middle", euicc.Fault{Do: euicc.LoseAnswer, BPPByte: 6000}, false},
		{"power cut in the middle", euicc.Fault{Do: euicc.CutPower, BPPByte: 6000}, false},
		{"last answer lost", euicc.Fault{Do: euicc.LoseAnswer, BPPByte: 12340}, true},
		{"power cut after the last", euicc.Fault{Do: euicc.CutPowerAfter, BPPByte: 12340}, true},
		{"status word in the middle", euicc.Fault{Do: euicc.Refuse, BPPByte: 6000, SW: 0x6F00}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, setup{})
			b.order(nil)
			server := b.server()
			s, err := procedure.Authenticate(b.ctx, b.euicc, server, request())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Prepare(b.ctx, redact.Secret{}); err != nil {
				t.Fatal(err)
			}
			fault1 := tc.fault
			if tc.installed { // the block with the last byte
				fault1.BPPByte = size(t, b)
			}
			b.card.Inject(fault1)
			res, err := s.Load(b.ctx, nil)
			var unknown *procedure.UnknownOutcomeError
			if errors.As(err, &unknown) {
				if fault.Of(err).Code != "outcome-unknown" {
					t.Errorf("fault %+v", fault.Of(err))
				}
				if !b.card.HasPower() {
					b.card.Reset()
				}
				b.reopen()
				res, err = s.Conclude(b.ctx, b.euicc)
			}
			if tc.installed {
				if err != nil || res.Err() != nil || len(b.card.Profiles()) != 1 || s.Installed.ICCID.String() != newICCID {
					t.Fatalf("result %+v, %v, %d profiles", res, err, len(b.card.Profiles()))
				}
				return
			}
			if f := fault.Of(err); f.Code != "installation-interrupted" || !f.Retry {
				t.Fatalf("fault %+v: %v", f, err)
			}
			if len(b.card.Profiles()) != 0 {
				t.Fatal("something is on the card")
			}
			b.idle()
			// The order is still good.
			if _, _, err := b.download(request(), redact.Secret{}); err != nil || len(b.card.Profiles()) != 1 {
				t.Errorf("downloading again: %v, %d profiles", err, len(b.card.Profiles()))
			}
		})
	}
}

// size is the length of the package that the server would send.
func size(t *testing.T, b *bench) int {
	t.Helper()
	other := newBench(t, setup{})
	other.order(nil)
	server := &counting{Server: other.server()}
	s, err := procedure.Authenticate(other.ctx, other.euicc, server, request())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(other.ctx, redact.Secret{}); err != nil {
		t.Fatal(err)
	}
	return server.size
}

type counting struct {
	procedure.Server
	size int
}

func (c *counting) GetBoundProfilePackage(ctx context.Context, id rsp.TransactionID, proof []byte) ([]byte, error) {
	b, err := c.Server.GetBoundProfilePackage(ctx, id, proof)
	c.size = len(b)
	return b, err
}

// A card that reports success and shows something else.
func TestInstalledIsChecked(t *testing.T) {
	for name, tc := range map[string]struct {
		list []rsp.Profile
		err  error
		code string
	}{
		"not there":   {list: []rsp.Profile{}, code: "installation-unknown"},
		"other name":  {list: []rsp.Profile{{Name: "Other", ServiceProvider: "Test Operator", Class: rsp.ClassOperational}}, code: "metadata-mismatch"},
		"other SP":    {list: []rsp.Profile{{Name: "Test Plan", Class: rsp.ClassOperational}}, code: "metadata-mismatch"},
		"other class": {list: []rsp.Profile{{Name: "Test Plan", ServiceProvider: "Test Operator"}}, code: "metadata-mismatch"},
		"other rules": {list: []rsp.Profile{{Name: "Test Plan", ServiceProvider: "Test Operator", Class: rsp.ClassOperational, PPR: rsp.PPR1}}, code: "metadata-mismatch"},
		"other owner": {list: []rsp.Profile{{Name: "Test Plan", ServiceProvider: "Test Operator", Class: rsp.ClassOperational, Owner: &rsp.Operator{}}}, code: "metadata-mismatch"},
		"refused":     {err: &es10.ResultError{Function: "ES10c.GetProfilesInfo", Code: 127, Result: rsp.GeneralUndefined}, code: "card-undefined-error"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, setup{})
			b.order(nil)
			for i := range tc.list {
				tc.list[i].ICCID = iccid(t, newICCID)
			}
			card := &liar{Card: b.euicc, list: tc.list, err: tc.err}
			r := request()
			facts, err := procedure.ReadFacts(b.ctx, b.euicc)
			if err != nil {
				t.Fatal(err)
			}
			r.Facts = facts
			s, err := procedure.Authenticate(b.ctx, card, b.server(), r)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Prepare(b.ctx, redact.Secret{}); err != nil {
				t.Fatal(err)
			}
			res, err := s.Load(b.ctx, nil)
			if fault.Of(err).Code != tc.code || res.Err() != nil || len(res.Raw) == 0 {
				t.Errorf("fault %+v, result %+v", fault.Of(err), res)
			}
		})
	}
}

// liar is a card that shows other profiles.
type liar struct {
	procedure.Card
	list []rsp.Profile
	err  error
}

func (l *liar) GetProfilesInfo(ctx context.Context, s rsp.ProfileSearch, tags ...ber.Tag) ([]rsp.Profile, error) {
	return l.list, l.err
}

// A channel that breaks between the card's word and the look at its profiles
// makes no failure of an installation.
func TestInstalledAndThenLost(t *testing.T) {
	b := newBench(t, setup{})
	b.order(nil)
	r := request()
	var err error
	if r.Facts, err = procedure.ReadFacts(b.ctx, b.euicc); err != nil {
		t.Fatal(err)
	}
	s, err := procedure.Authenticate(b.ctx, &liar{Card: b.euicc, err: es10.ErrAnswer}, b.server(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(b.ctx, redact.Secret{}); err != nil {
		t.Fatal(err)
	}
	var unknown *procedure.UnknownOutcomeError
	if _, err := s.Load(b.ctx, nil); !errors.As(err, &unknown) {
		t.Fatalf("load: %v", err)
	}
	res, err := s.Conclude(b.ctx, b.euicc)
	if err != nil || len(res.Raw) == 0 || s.Installed.ICCID.String() != newICCID {
		t.Errorf("concluded with %v, installed %s", err, s.Installed.ICCID)
	}
}

// The package may say the same thing in another way than the offer, and only
// that: the mismatch costs the order.
func TestMetadataSaidInAnotherWay(t *testing.T) {
	for name, tc := range map[string]struct {
		add  []byte // to the metadata of the offer
		code string
	}{
		"as it is":          {nil, ""},
		"default spelt out": {ber.EncodeInt(0x95, 2), ""},
		"element of later":  {ber.EncodeInt(0x9F25, 2), ""},
		"another class":     {ber.EncodeInt(0x95, 1), "metadata-mismatch"},
		"another name":      {ber.EncodeString(0x92, "Other"), "metadata-mismatch"},
		"an owner":          {ber.Encode(0xB7, ber.Encode(0x80, []byte{0x00, 0xF1, 0x10})), "metadata-mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, setup{})
			b.order(nil)
			s, err := procedure.Authenticate(b.ctx, b.euicc, &reworded{b.server(), tc.add}, request())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Prepare(b.ctx, redact.Secret{}); code(err) != tc.code {
				t.Errorf("%v, want %q", err, tc.code)
			}
		})
	}
}

// reworded is a server whose offer has more in its metadata than the package.
type reworded struct {
	procedure.Server
	add []byte
}

func (r *reworded) AuthenticateClient(ctx context.Context, id rsp.TransactionID, response []byte) (rsp.ClientAuthenticated, error) {
	a, err := r.Server.AuthenticateClient(ctx, id, response)
	if err != nil {
		return a, err
	}
	t, err := ber.Parse(a.Offer.ProfileMetadata)
	a.Offer.ProfileMetadata = ber.Encode(t.Tag, t.Value, r.add)
	return a, err
}
