package euicc

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/vectors"
	"lpad/apdu/ber"
)

func readFile(t *testing.T, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustParse(t testing.TB, b []byte) ber.TLV {
	t.Helper()
	e, err := ber.Parse(b)
	if err != nil {
		t.Fatalf("%X: %v", b, err)
	}
	return e
}

// agreedKey stands for a one-time key whose private part the vectors do not
// tell: the shared secret follows from the other side's private key.
type agreedKey struct{ public, z []byte }

func (k agreedKey) Public() []byte              { return k.public }
func (k agreedKey) ECDH([]byte) ([]byte, error) { return k.z, nil }

// The recorded session, with all its inputs fixed: the card accepts what the
// server signed, signs the very same bytes, and installs the package.
func TestRecordedSession(t *testing.T) {
	dir := vectors.Dir(t, ".")
	session := func(name string) []byte { return readFile(t, dir, "session", name) }
	published, err := pki.LoadSGP26(filepath.Join(dir, "sgp26"))
	if err != nil {
		t.Fatal(err)
	}
	recordedAuth := mustParse(t, session("auth-server-response.der"))
	recordedPrepare := mustParse(t, session("prepare-download-response.der"))
	recordedInfo := find(recordedAuth.Reader().Read(0xA0).Reader().Read(0x30), 0xBF22).Raw

	dpKey, err := pki.NewKey(pki.P256, session("otsk-dp.bin"))
	if err != nil {
		t.Fatal(err)
	}
	otPK := find(recordedPrepare.Reader().Read(0xA0).Reader().Read(0x30), 0x5F49).Value
	z, err := dpKey.ECDH(otPK)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(z, unhex(t, "79696DC34351DFC7758B07BAF66643F01D7D8F5AB976C51D5F2C42AB71F5A6C3")) {
		t.Errorf("shared secret %X", z)
	}
	c := newCard(t, Config{
		Identities:   []Identity{{EUM: published.EUM, EUICC: published.EUICC}},
		Trusted:      []Anchor{AnchorOf(published.CI)},
		Info:         Info{RawInfo1: session("euicc-info1.der"), RawInfo2: recordedInfo},
		Random:       bytes.NewReader(session("euicc-challenge.bin")),
		OneTimeKey:   func(pki.Curve) (OneTimeKey, error) { return agreedKey{otPK, z}, nil },
		OpaqueUPP:    true,
		SIMAResponse: []byte{0x30, 0x00}, FirstSequence: 1,
		Quirks: Quirks{LooseEvents: true},
	})
	channel1(t, c)
	wantES10(t, c, "BF2000", "BF20098203020000A900AA00")
	wantES10(t, c, "BF2E00", "BF2E128010AABBCCDDEEFF00112233445566778899")

	// AuthenticateServer.
	initiate := mustParse(t, session("initiate-response.der")).Reader()
	initiate.Read(0x80)
	answer, sw := es10(t, c, ber.Encode(0xBF38, initiate.Read(0x30).Raw, initiate.Read(0x5F37).Raw, initiate.Read(0x04).Raw,
		initiate.Read(0x30).Raw, unhex(t, "A00AA108800400000000A100")))
	if sw != swOK || initiate.Finish() != nil {
		t.Fatalf("AuthenticateServer: %X %04X", answer, sw)
	}
	ours, recorded := mustParse(t, answer).Reader().Read(0xA0).Reader(), recordedAuth.Reader().Read(0xA0).Reader()
	for _, tag := range []ber.Tag{0x30, 0x5F37, 0x30, 0x30} {
		got, want := ours.Read(tag).Raw, recorded.Read(tag).Raw
		if tag == 0x30 && !bytes.Equal(got, want) {
			t.Errorf("AuthenticateServer: got %X\nwant %X", got, want)
		}
	}
	verifyOurs(t, published.EUICC, mustParse(t, answer), nil)
	// The server's next signature covers the signature that was recorded, which
	// had a random number in it.
	c.session.signature1 = find(recordedAuth.Reader().Read(0xA0), 0x5F37).Raw

	// PrepareDownload.
	offer := mustParse(t, session("authenticate-response.der")).Reader().Read(0xA0).Reader()
	offer.Read(0x80)
	offer.Read(0xBF25)
	signed2, signature2, certificate := offer.Read(0x30), offer.Read(0x5F37), offer.Read(0x30)
	answer, sw = es10(t, c, ber.Encode(0xBF21, signed2.Raw, signature2.Raw, certificate.Raw))
	if sw != swOK || offer.Err() != nil {
		t.Fatalf("PrepareDownload: %X %04X", answer, sw)
	}
	got := mustParse(t, answer).Reader().Read(0xA0).Reader().Read(0x30).Raw
	if want := recordedPrepare.Reader().Read(0xA0).Reader().Read(0x30).Raw; !bytes.Equal(got, want) {
		t.Errorf("PrepareDownload: got %X\nwant %X", got, want)
	}
	verifyOurs(t, published.EUICC, mustParse(t, answer), signature2.Raw)

	// LoadBoundProfilePackage.
	result := sendPackage(t, c, session("bound-profile-package.der"))
	pir := mustParse(t, result)
	recordedPIR := mustParse(t, session("pending-notification.der"))
	// The recorded result names the server 2.999, whose certificates say
	// 2.999.10: that element is compared with what it must be.
	got2, want2 := pir.Reader().Read(0xBF27).Reader(), recordedPIR.Reader().Read(0xBF27).Reader()
	for _, tag := range []ber.Tag{0x80, 0xBF2F, 0x06, 0xA2} {
		got, want := got2.Read(tag).Raw, want2.Read(tag).Raw
		if tag == 0x06 {
			want = unhex(t, "060388370A")
		}
		if !bytes.Equal(got, want) {
			t.Errorf("ProfileInstallationResult: got %X\nwant %X", got, want)
		}
	}
	if err := errors.Join(got2.Finish(), want2.Finish()); err != nil {
		t.Error(err)
	}
	verifyPIR(t, published.EUICC, pir)
	verifyPIR(t, published.EUICC, recordedPIR)
	if got := c.Profiles(); len(got) != 1 || got[0].ICCID != home || got[0].Enabled || got[0].Size != len(session("upp.der")) {
		t.Errorf("profiles %+v", got)
	}
	wantES10(t, c, "BF2B05A003800101", bytesToHex(ber.Encode(0xBF2B, ber.Encode(0xA0, result))))
}

// verifyOurs checks a signature over the first element and what is appended.
func verifyOurs(t *testing.T, id *pki.Identity, answer ber.TLV, appended []byte) {
	t.Helper()
	r := answer.Reader().Read(0xA0).Reader()
	signed, signature := r.Read(0x30), r.Read(0x5F37)
	if !pki.Verify(id.Key.Curve(), id.Certificate.PublicKey, append(bytes.Clone(signed.Raw), appended...), signature.Value) {
		t.Errorf("the signature in %v does not verify", answer.Tag)
	}
}

func verifyPIR(t *testing.T, id *pki.Identity, pir ber.TLV) {
	t.Helper()
	r := pir.Reader()
	data, signature := r.Read(0xBF27), r.Read(0x5F37)
	if r.Finish() != nil || !pki.Verify(id.Key.Curve(), id.Certificate.PublicKey, data.Raw, signature.Value) {
		t.Errorf("the ProfileInstallationResult %X does not verify", pir.Raw)
	}
}

// Both generic test profiles of TS.48 install over a session of our own.
func TestTS48(t *testing.T) {
	dir := vectors.Dir(t, ".")
	for _, name := range []string{"TS48v1_A.der", "TS48v5_SAIP2.3_NoBERTLV.der"} {
		t.Run(name, func(t *testing.T) {
			d := newDownload(t, Config{})
			d.upp = readFile(t, dir, "upp", name)
			header := mustParse(t, firstElement(t, d.upp)).Reader()
			iccid, ok := header.Find(0x83)
			if !ok {
				t.Fatal("no ICCID in the header")
			}
			d.iccid = swapped(iccid.Value)
			d.install(t)
			if result := c0(d.card.Profiles()); result.ICCID != d.iccid || result.Size != len(d.upp) {
				t.Errorf("%+v", result)
			}
			wantES10(t, d.card, "BF3111A00C5A0A"+bytesToHex(d.iccid[:])+"8101FF", "BF3103800100")
			d.card.Reset()
			want(t, d.card, "00A4000C022FE2", "9000")
			want(t, d.card, "00B000000A", bytesToHex(d.iccid[:])+"9000")
			want(t, d.card, "00A4040C07A0000000871002", "9000")
			want(t, d.card, "00A4000C026F07", "9000")
			if imsi := send(t, d.card, "00B0000009"); imsi[:2] != "08" || imsi[len(imsi)-4:] != "9000" {
				t.Errorf("EF_IMSI %s", imsi)
			}
			want(t, d.card, "00A4000C026FAD", "9000")
			if ad := send(t, d.card, "00B0000004"); len(ad) != 12 {
				t.Errorf("EF_AD %s", ad)
			}
		})
	}
}

func c0(list []ProfileState) ProfileState {
	if len(list) == 0 {
		return ProfileState{}
	}
	return list[len(list)-1]
}

func firstElement(t *testing.T, upp []byte) []byte {
	t.Helper()
	e, ok := ber.NewReader(upp).Next()
	if !ok {
		t.Fatal("no profile element")
	}
	return e.Raw
}

func swapped(b []byte) (id rsp.ICCID) {
	for i := range id {
		id[i] = b[i]<<4 | b[i]>>4
	}
	return id
}
