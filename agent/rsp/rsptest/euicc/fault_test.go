package euicc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/apdu/ber"
)

func TestWireFaults(t *testing.T) {
	eid := []byte{0x81, 0xE2, 0x91, 0, 6, 0xBF, 0x3E, 3, 0x5C, 1, 0x5A}
	c := newCard(t, Config{Inline: true})
	channel1(t, c)
	c.Inject(Busy, Checksum)
	want(t, c, bytesToHex(eid), "9300")
	want(t, c, bytesToHex(eid), "6601")
	if got := send(t, c, bytesToHex(eid)); len(got) != 46 {
		t.Errorf("%s", got)
	}
	c.Inject(Fault{Do: Refuse, SW: 0x9300, APDU: 2, Times: 2})
	for i, wanted := range []int{46, 4, 4, 46} {
		if got := send(t, c, bytesToHex(eid)); len(got) != wanted {
			t.Errorf("command %d: %s", i+1, got)
		}
	}
	c.Inject(Fault{Do: Refuse, SW: 0x6F00, Times: -1})
	for range 5 {
		want(t, c, bytesToHex(eid), "6F00")
	}
	c.ClearFaults()
	for _, test := range []struct {
		do     Action
		err    error
		opened int
	}{{LoseCommand, ErrLinkBroken, 0}, {LoseAnswer, ErrAnswerLost, 1}} {
		c.Reset()
		c.Inject(Fault{Do: test.do})
		if _, err := c.Transmit(t.Context(), []byte{0, 0x70, 0, 0, 1}); !errors.Is(err, test.err) {
			t.Errorf("%v", err)
		}
		if got := len(c.OpenChannels()); got != test.opened {
			t.Errorf("%d channels", got)
		}
	}
	c.Reset()
	c.Inject(Fault{Do: RefuseAfter, SW: 0x6F00})
	want(t, c, "0070000001", "6F00")
	if got := len(c.OpenChannels()); got != 1 {
		t.Errorf("%d channels", got)
	}
}

func TestFunctionFaults(t *testing.T) {
	for _, test := range []struct {
		name    string
		fault   Fault
		err     error
		answer  string
		sw      uint16
		enabled rsp.ICCID // after a reset
	}{
		{"busy", Fault{Do: Refuse, SW: 0x9300}, nil, "", 0x9300, home},
		{"switched, then 6F00", Fault{Do: RefuseAfter, SW: 0x6F00}, nil, "", 0x6F00, other},
		{"answer lost", Fault{Do: LoseAnswer}, ErrAnswerLost, "", 0, other},
		{"command lost", Fault{Do: LoseCommand}, ErrLinkBroken, "", 0, home},
		{"power cut before", Fault{Do: CutPower}, ErrNoPower, "", 0, home},
		{"power cut after", Fault{Do: CutPowerAfter}, ErrNoPower, "", 0, other},
		{"power cut before the write", Fault{Do: CutPower, Commit: 1}, ErrNoPower, "", 0, home},
		{"power cut after the write", Fault{Do: CutPowerAfter, Commit: 1}, ErrNoPower, "", 0, other},
		{"catBusy", Fault{Do: AnswerResult, Result: 5}, nil, "BF3103800105", swOK, home},
		{"truncated", Fault{Do: TamperAnswer, Tamper: Truncate(4)}, nil, "BF310380", swOK, other},
		{"flipped", Fault{Do: TamperAnswer, Tamper: FlipBit(40)}, nil, "BF3103800180", swOK, other},
		{"replaced", Fault{Do: TamperAnswer, Tamper: Replace([]byte{0x30, 0x80})}, nil, "3080", swOK, other},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := new(MemoryStore)
			config := twoProfiles()
			config.Store = store
			c := newCard(t, config)
			channel1(t, c)
			if test.fault.Commit == 0 {
				test.fault.Function = 0xBF31
			}
			c.Inject(test.fault)
			wantES10(t, c, "BF3E035C015A", "BF3E125A1089049032123451234512345678901235")
			answer, sw, err := tryES10(t.Context(), c, enable(other), 5)
			if !errors.Is(err, test.err) || sw != test.sw || !bytes.Equal(answer, unhex(t, test.answer)) {
				t.Errorf("%X %04X %v", answer, sw, err)
			}
			if alive := !errors.Is(test.err, ErrNoPower); c.HasPower() != alive {
				t.Errorf("power: %v", c.HasPower())
			}
			// In a new card, in this card before and after the reset.
			wantEnabled(t, c, test.enabled)
			c.Reset()
			wantEnabled(t, c, test.enabled)
			again := newCard(t, config)
			wantEnabled(t, again, test.enabled)
			if a, b := len(c.Notifications()), len(again.Notifications()); a != b || (a == 2) != (test.enabled == other) {
				t.Errorf("%d and %d notifications", a, b)
			}
		})
	}
	c := newCard(t, Config{Faults: []Fault{{Do: TamperAnswer, Function: 0xBF3E, Tamper: FlipBit(10000)}}})
	channel1(t, c)
	wantES10(t, c, "BF3E035C015A", "BF3E125A1089049032123451234512345678901235")
}

// A cut at any write of a download leaves the profile and its notification, or
// none of them.
func TestPowerCutAtEveryWrite(t *testing.T) {
	for k := 1; k <= 6; k++ {
		for _, action := range []Action{CutPower, CutPowerAfter} {
			store := new(MemoryStore)
			d := newDownload(t, Config{Store: store})
			d.card.Inject(Fault{Do: action, Commit: k})
			if completes(t, d) {
				if k < 4 {
					t.Errorf("write %d was never made", k)
				}
				continue
			}
			d.card = resurrect(t, store)
			profiles, list := d.card.Profiles(), d.card.Notifications()
			if len(profiles) == 1 != (len(list) == 1 && rspInstalled(t, list[0].Raw)) {
				t.Errorf("write %d: %d profiles, %d notifications", k, len(profiles), len(list))
			}
			if len(profiles) == 0 {
				d.install(t)
			}
		}
	}
}

func completes(t *testing.T, d *download) bool {
	t.Helper()
	for _, step := range []func() []byte{
		func() []byte { return unhex(t, "BF2E00") },
		d.authenticateServer, d.prepareDownload,
	} {
		answer, _, err := tryES10(t.Context(), d.card, step(), 255)
		if err != nil {
			return false
		}
		e := mustParse(t, answer)
		switch e.Tag {
		case 0xBF2E:
			d.challenge = bytes.Clone(e.Reader().Read(0x80).Value)
		case 0xBF38:
			d.signature1 = bytes.Clone(find(e.Reader().Read(0xA0), 0x5F37).Raw)
		case 0xBF21:
			d.otPK = bytes.Clone(find(e.Reader().Read(0xA0).Reader().Read(0x30), 0x5F49).Value)
		}
	}
	return loadUntilError(t.Context(), d.card, d.segments(t)) == nil
}

func rspInstalled(t *testing.T, raw []byte) bool {
	t.Helper()
	pir, err := rsp.ParseProfileInstallationResult(raw)
	if err != nil {
		t.Fatal(err)
	}
	return pir.Err() == nil
}

func TestFileStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card.json")
	config := twoProfiles()
	config.Store = FileStore(path)
	c := newCard(t, config)
	channel1(t, c)
	wantResult(t, c, enable(other), 0)
	config.Profiles = nil // what was made at the factory is in the file
	c = newCard(t, config)
	wantEnabled(t, c, other)
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
	// A store that cannot be written: the card goes dark, and comes back.
	dir := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	config.Store = FileStore(filepath.Join(dir, "card.json"))
	c = newCard(t, config)
	channel1(t, c)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tryES10(t.Context(), c, unhex(t, "BF3F028000"), 255); !errors.Is(err, ErrNoPower) {
		t.Errorf("%v", err)
	}
	c.Reset()
	if c.HasPower() {
		t.Error("a card without state has power")
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Store: FileStore(path)}); err == nil {
		t.Error("a torn file passes")
	}
	if _, err := New(Config{Store: FileStore(t.TempDir())}); err == nil {
		t.Error("a folder passes for a file")
	}
}

func TestPull(t *testing.T) {
	c := newCard(t, twoProfiles())
	c.CutPower()
	if _, err := c.Transmit(t.Context(), []byte{0, 0x70, 0, 0, 1}); !errors.Is(err, ErrNoPower) {
		t.Errorf("%v", err)
	}
	c.Reset()
	want(t, c, "0070000001", "019000")
	if got := c.Stats().Resets; got != 1 {
		t.Errorf("%d resets", got)
	}
}

func TestStall(t *testing.T) {
	c := newCard(t, Config{})
	resume := c.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := c.Transmit(ctx, []byte{0, 0x70, 0, 0, 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		if _, err := c.Transmit(t.Context(), []byte{0, 0x70, 0, 0, 1}); err != nil {
			t.Error(err)
		}
	})
	again := c.Stall()
	resume()
	again()
	done.Wait()
	if got := len(c.OpenChannels()); got != 1 {
		t.Errorf("%d channels", got)
	}
}

// The modem and lpad use the card at the same time, each on its own channel.
func TestConcurrentUse(t *testing.T) {
	c := newCard(t, twoProfiles())
	channel1(t, c)
	var done sync.WaitGroup
	done.Go(func() {
		for range 200 {
			want(t, c, "00A4000C022FE2", "9000")
			want(t, c, "00B000000A", "980010325476981032149000")
		}
	})
	done.Go(func() {
		for range 200 {
			wantES10(t, c, "BF3E035C015A", "BF3E125A1089049032123451234512345678901235")
		}
	})
	done.Go(func() {
		for range 200 {
			c.Stats()
			c.Notifications()
			c.Profiles()
			c.ProactiveCommand()
		}
	})
	done.Wait()
}

func TestCRL(t *testing.T) {
	d := newDownload(t, Config{Info: Info{RSPCapability: []int{capAdditionalProfile, capCRL}}})
	signer, err := d.pki.CI.Key.Signer()
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := d.pki.CI.Certificate.X509()
	if err != nil {
		t.Fatal(err)
	}
	list := func(number int64, serials ...[]byte) []byte {
		template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: pki.DefaultNotBefore, NextUpdate: pki.DefaultNotAfter}
		for _, s := range serials {
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: new(big.Int).SetBytes(s), RevocationTime: pki.DefaultNotBefore})
		}
		der, err := x509.CreateRevocationList(rand.Reader, template, issuer, signer)
		if err != nil {
			t.Fatal(err)
		}
		return ber.Encode(0xBF35, der)
	}
	revoked := list(5, d.auth.Certificate.Serial)
	wantES10(t, d.card, bytesToHex(revoked), "BF3502A000")
	d.getChallenge(t)
	wantRefusal(t, d, d.authenticateServer(), invalidCertificate)
	wantES10(t, d.card, bytesToHex(list(4)), "BF3503810105")
	spoilt := bytes.Clone(revoked)
	spoilt[len(spoilt)-1] ^= 1
	wantES10(t, d.card, bytesToHex(spoilt), "BF3503810101")
	wantES10(t, d.card, "BF35023000", "BF3503810102")
	wantSW(t, d.card, "BF350180", swWrongData)
	var many [][]byte
	for i := range maxRevoked + 1 {
		many = append(many, []byte{1, byte(i >> 8), byte(i)})
	}
	wantES10(t, d.card, bytesToHex(list(9, many...)), "BF3503810103")
	wantES10(t, d.card, bytesToHex(list(6)), "BF3502A000")
	d.install(t)

	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign := &x509.Certificate{Subject: pkix.Name{CommonName: "Foreign"}, SubjectKeyId: []byte{1, 2, 3}, KeyUsage: x509.KeyUsageCRLSign}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: pki.DefaultNotBefore, NextUpdate: pki.DefaultNotAfter}, foreign, other)
	if err != nil {
		t.Fatal(err)
	}
	wantES10(t, d.card, bytesToHex(ber.Encode(0xBF35, der)), "BF3503810104")
	for _, bad := range []string{"", "30", "3004020101020", "3003020101", "3026022101" + bytesToHex(make([]byte, 32)) + "020101"} {
		if len(bad)%2 == 1 {
			bad += "0"
		}
		if _, ok := rawSignature(unhex(t, bad)); ok {
			t.Errorf("signature %s", bad)
		}
	}
}

func TestRandomnessFails(t *testing.T) {
	d := newDownload(t, Config{Random: bytes.NewReader(make([]byte, 16))})
	d.authenticate(t)
	wantRefusal(t, d, d.prepareDownload(), undefinedError)
	wantSW(t, d.card, "BF2E00", swConditions)
	d = newDownload(t, Config{Random: bytes.NewReader(make([]byte, 4096))}) // never a scalar
	d.authenticate(t)
	wantRefusal(t, d, d.prepareDownload(), undefinedError)
	if encodeOID("1.x") != nil || encodeOID("9.1") != nil {
		t.Error("these are no object identifiers")
	}
}
