package euicc

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"testing"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/bsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/upp"
	"lpad/apdu/ber"
)

func bytesToHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// pkis are made once for all tests: keys are slow.
var pkis = map[pki.Curve]func() *pki.PKI{
	pki.P256:            sync.OnceValue(func() *pki.PKI { return makePKI(pki.P256) }),
	pki.BrainpoolP256r1: sync.OnceValue(func() *pki.PKI { return makePKI(pki.BrainpoolP256r1) }),
}

func makePKI(curve pki.Curve) *pki.PKI {
	p, err := pki.New(pki.Options{Curve: curve})
	if err != nil {
		panic(err)
	}
	return p
}

var pkiP256 = pkis[pki.P256]

// download is an SM-DP+ in the test, one step after the other, with every value
// open to be spoilt before the step that uses it.
type download struct {
	card *Card
	pki  *pki.PKI

	txid, serverChallenge, challenge []byte
	address                          string
	auth, pb                         *pki.Identity
	context                          []byte // ctxParams1
	ciPKID                           []byte

	ccRequired bool
	hashCc     []byte
	earlier    []byte // bppEuiccOtpk

	iccid     rsp.ICCID
	configure []byte // BF24; nil: an empty one
	metadata  []byte // BF25; nil: made of iccid
	upp       []byte
	otSK      *pki.Key
	hostID    []byte
	ppk       *bsp.Keys // ReplaceSessionKeys
	size      int       // of a segment

	signature1, signature2 []byte // 5F37
	otPK                   []byte // of the eUICC
	identity               *pki.Identity

	initialise func(parts [][]byte) [][]byte // spoils BF23 after it was signed
	crt        []byte
	operation  []byte
}

// newDownload is a card under the test PKI with channel 1 open, and a server
// that knows it.
func newDownload(t testing.TB, config Config) *download {
	t.Helper()
	return newDownloadUnder(t, pkiP256(), config)
}

func newDownloadUnder(t testing.TB, p *pki.PKI, config Config) *download {
	t.Helper()
	under := ConfigUnder(p)
	config.Identities, config.Trusted = append(config.Identities, under.Identities...), append(config.Trusted, under.Trusted...)
	c := newCard(t, config)
	channel1(t, c)
	return serverFor(t, p, c)
}

func serverFor(t testing.TB, p *pki.PKI, c *Card) *download {
	t.Helper()
	key, err := pki.GenerateKey(p.CI.Key.Curve())
	if err != nil {
		t.Fatal(err)
	}
	return &download{
		card: c, pki: p, auth: p.DPAuth, pb: p.DPPb, identity: p.EUICC,
		txid: []byte{1, 2, 3, 4, 5, 6, 7, 8}, serverChallenge: bytes.Repeat([]byte{0x5C}, 16), address: "smdp.example.com",
		context: unhex(t, "A00AA108800435290611A100"),
		ciPKID:  p.CI.SKI(), iccid: other, upp: makeUPP(t, other, 0),
		otSK: key, hostID: []byte("test-smdp"), size: bsp.MaxSegment,
		crt: nil, operation: []byte{0x82, 0x01, 0x01},
	}
}

func makeUPP(t testing.TB, iccid rsp.ICCID, size int) []byte {
	t.Helper()
	b, err := upp.Generate(upp.Options{ICCID: iccid, IMSI: "001010123456789", SPN: "Test", GID1: []byte{0xAB}, Size: size})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sign(id *pki.Identity, parts ...[]byte) []byte {
	return ber.Encode(0x5F37, id.Key.Sign(bytes.Join(parts, nil)))
}

// getChallenge starts the session on the card.
func (d *download) getChallenge(t testing.TB) {
	t.Helper()
	answer, sw := es10(t, d.card, unhex(t, "BF2E00"))
	if sw != swOK {
		t.Fatalf("GetEUICCChallenge: %04X", sw)
	}
	d.challenge = bytes.Clone(mustParse(t, answer).Reader().Read(0x80).Value)
}

// authenticateServer is the request.
func (d *download) authenticateServer() []byte {
	signed1 := ber.Encode(0x30, ber.Encode(0x80, d.txid), ber.Encode(0x81, d.challenge),
		ber.EncodeString(0x83, d.address), ber.Encode(0x84, d.serverChallenge))
	return ber.Encode(0xBF38, signed1, sign(d.auth, signed1), ber.Encode(0x04, d.ciPKID), d.auth.Certificate.DER, d.context)
}

// authenticate goes to the state authenticated.
func (d *download) authenticate(t testing.TB) {
	t.Helper()
	d.getChallenge(t)
	answer, sw := es10(t, d.card, d.authenticateServer())
	r := mustParse(t, answer).Reader().Read(0xA0).Reader()
	signed, signature := r.Read(0x30), r.Read(0x5F37)
	if sw != swOK || r.Err() != nil {
		t.Fatalf("AuthenticateServer: %X %04X", answer, sw)
	}
	if !pki.Verify(d.identity.Certificate.Curve, d.identity.Certificate.PublicKey, signed.Raw, signature.Value) {
		t.Fatal("euiccSignature1 does not verify")
	}
	d.signature1 = bytes.Clone(signature.Raw)
}

// prepareDownload is the request.
func (d *download) prepareDownload() []byte {
	parts := [][]byte{ber.Encode(0x80, d.txid), ber.EncodeBool(0x01, d.ccRequired)}
	if d.earlier != nil {
		parts = append(parts, ber.Encode(0x5F49, d.earlier))
	}
	signed2 := ber.Encode(0x30, parts...)
	d.signature2 = sign(d.pb, signed2, d.signature1)
	parts = [][]byte{signed2, d.signature2}
	if d.hashCc != nil {
		parts = append(parts, ber.Encode(0x04, d.hashCc))
	}
	return ber.Encode(0xBF21, append(parts, d.pb.Certificate.DER)...)
}

// prepare goes on to the state bound.
func (d *download) prepare(t testing.TB) {
	t.Helper()
	answer, sw := es10(t, d.card, d.prepareDownload())
	r := mustParse(t, answer).Reader().Read(0xA0).Reader()
	signed, signature := r.Read(0x30), r.Read(0x5F37)
	if sw != swOK || r.Err() != nil {
		t.Fatalf("PrepareDownload: %X %04X", answer, sw)
	}
	if !pki.Verify(d.identity.Certificate.Curve, d.identity.Certificate.PublicKey, append(bytes.Clone(signed.Raw), d.signature2...), signature.Value) {
		t.Fatal("euiccSignature2 does not verify")
	}
	if hash, ok := signed.Reader().Find(0x04); ok != d.ccRequired || ok && !bytes.Equal(hash.Value, d.hashCc) {
		t.Errorf("hashCc in euiccSigned2: %v", ok)
	}
	d.otPK = bytes.Clone(find(signed, 0x5F49).Value)
}

// segments builds the Bound Profile Package, cut as an LPA has to.
func (d *download) segments(t testing.TB) [][]byte {
	t.Helper()
	z, err := d.otSK.ECDH(d.otPK)
	if err != nil {
		t.Fatal(err)
	}
	crt := d.crt
	if crt == nil {
		crt = ber.Encode(0xA6, []byte{0x80, 1, 0x88, 0x81, 1, 0x10}, ber.Encode(0x84, d.hostID))
	}
	parts := [][]byte{d.operation, ber.Encode(0x80, d.txid), crt, ber.Encode(0x5F49, d.otSK.Public())}
	signature := sign(d.pb, append(parts[:4:4], ber.Encode(0x5F49, d.otPK))...)
	parts = append(parts, signature)
	if d.initialise != nil {
		parts = d.initialise(parts)
	}
	initialise := ber.Encode(0xBF23, parts...)
	session := bsp.NewSession(bsp.DeriveKeys(z, d.hostID, d.card.EID()))
	protect := func(tag ber.Tag, data []byte) [][]byte {
		out, err := session.ProtectAll(tag, data, d.size)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	metadata := d.metadata
	if metadata == nil {
		metadata = Profile{ICCID: d.iccid, ServiceProvider: "Test", Name: "Test plan",
			Notifications: []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: "n.example.com"}}}.Metadata()
	}
	configuration := d.configure
	if configuration == nil {
		configuration = unhex(t, "BF2400")
	}
	configure := protect(bsp.Tag87, configuration)
	stored := protect(bsp.Tag88, metadata)
	var replace [][]byte
	if d.ppk != nil {
		replace = protect(bsp.Tag87, d.ppk.Marshal())
		session.ReplaceKeys(*d.ppk)
	}
	elements := protect(bsp.Tag86, d.upp)

	head := func(tag ber.Tag, list [][]byte) []byte {
		whole := ber.Encode(tag, list...)
		return whole[:len(whole)-len(bytes.Join(list, nil))]
	}
	list := [][]byte{append(head(0xA0, configure), configure[0]...)}
	list = append(list, configure[1:]...)
	list = append(append(list, head(0xA1, stored)), stored...)
	if replace != nil {
		list = append(list, append(head(0xA2, replace), replace[0]...))
	}
	list = append(append(list, head(0xA3, elements)), elements...)
	whole := ber.Encode(0xBF36, append([][]byte{initialise}, list...)...)
	first := whole[:len(whole)-len(bytes.Join(list, nil))]
	return append([][]byte{first}, list...)
}

// load sends segments until the card answers, and gives the answer.
func load1(t testing.TB, c *Card, segments [][]byte) []byte {
	t.Helper()
	for i, s := range segments {
		answer, sw := es10(t, c, s)
		if sw != swOK {
			t.Fatalf("segment %d: %04X", i+1, sw)
		}
		if len(answer) > 0 {
			return answer
		}
	}
	t.Fatal("all segments sent, no installation result")
	return nil
}

// sendPackage cuts a package that has one 87 in each sequence.
func sendPackage(t testing.TB, c *Card, b []byte) []byte {
	t.Helper()
	whole := mustParse(t, b)
	r := whole.Reader()
	first := r.Read(0xBF23)
	head := len(whole.Raw) - len(whole.Value)
	segments := [][]byte{b[:head+len(first.Raw)]}
	for e, ok := r.Next(); ok; e, ok = r.Next() {
		if e.Tag == 0xA0 || e.Tag == 0xA2 {
			segments = append(segments, e.Raw)
			continue
		}
		segments = append(segments, e.Raw[:len(e.Raw)-len(e.Value)])
		in := e.Reader()
		for s, ok := in.Next(); ok; s, ok = in.Next() {
			segments = append(segments, s.Raw)
		}
	}
	return load1(t, c, segments)
}

// bound goes to the state bound from nothing.
func (d *download) bound(t testing.TB) {
	t.Helper()
	d.authenticate(t)
	d.prepare(t)
}

// install runs a whole download that must succeed, and gives the result.
func (d *download) install(t testing.TB) rsp.ProfileInstallationResult {
	t.Helper()
	d.bound(t)
	return d.result(t, load1(t, d.card, d.segments(t)), 0, 0)
}

// result checks a ProfileInstallationResult: reason 0 is success.
func (d *download) result(t testing.TB, raw []byte, command, reason int) rsp.ProfileInstallationResult {
	t.Helper()
	pir, err := rsp.ParseProfileInstallationResult(raw)
	if err != nil {
		t.Fatalf("%X: %v", raw, err)
	}
	data := mustParse(t, raw).Reader()
	signed, signature := data.Read(0xBF27), data.Read(0x5F37)
	if !pki.Verify(d.identity.Certificate.Curve, d.identity.Certificate.PublicKey, signed.Raw, signature.Value) {
		t.Error("euiccSignPIR does not verify")
	}
	final := find(signed, 0xA2)
	in := final.Reader()
	if e, ok := in.Optional(0xA1); ok {
		r := e.Reader()
		gotCommand, _ := r.Read(0x80).Int()
		gotReason, _ := r.Read(0x81).Int()
		if int(gotCommand) != command || int(gotReason) != reason {
			t.Errorf("installation result: command %d reason %d, want %d %d", gotCommand, gotReason, command, reason)
		}
	} else if reason != 0 {
		t.Errorf("installed, want command %d reason %d", command, reason)
	}
	if !bytes.Equal(pir.TransactionID, d.txid) || pir.Notification.Address != d.address {
		t.Errorf("result for %X of %q", []byte(pir.TransactionID), pir.Notification.Address)
	}
	if got := d.card.SessionState(); got != "idle" {
		t.Errorf("session %s after the result", got)
	}
	notifications := d.card.Notifications()
	if last := notifications[len(notifications)-1]; !bytes.Equal(last.Raw, raw) || last.Event != rsp.EventInstall {
		t.Errorf("the result is not in the list")
	}
	return pir
}

func TestDownload(t *testing.T) {
	keys := &bsp.Keys{MCV: [16]byte{1}, ENC: [16]byte{2}, MAC: [16]byte{3}}
	for _, test := range []struct {
		name   string
		change func(t *testing.T, d *download)
	}{
		{"small", func(*testing.T, *download) {}},
		{"12 kB", func(t *testing.T, d *download) { d.upp = makeUPP(t, d.iccid, 12<<10) }},
		{"100 kB", func(t *testing.T, d *download) { d.upp = makeUPP(t, d.iccid, 100<<10) }},
		{"protected profile package", func(_ *testing.T, d *download) { d.ppk = keys }},
		{"segments of 1004", func(t *testing.T, d *download) { d.upp, d.size = makeUPP(t, d.iccid, 5000), 1004 }},
		{"tiny segments", func(_ *testing.T, d *download) { d.size = 60 }},
		{"transaction id of one byte", func(_ *testing.T, d *download) { d.txid = []byte{9} }},
		{"transaction id of 16 bytes", func(_ *testing.T, d *download) { d.txid = bytes.Repeat([]byte{0x80}, 16) }},
		{"confirmation code", func(_ *testing.T, d *download) { d.ccRequired, d.hashCc = true, make([]byte, 32) }},
		{"several 88", func(_ *testing.T, d *download) {
			d.metadata = Profile{ICCID: d.iccid, Icon: bytes.Repeat([]byte{0x77}, 1024)}.Metadata()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDownload(t, Config{})
			free := d.card.FreeMemory()
			test.change(t, d)
			result := d.install(t)
			p := c0(d.card.Profiles())
			if p.ICCID != d.iccid || p.Enabled || d.card.FreeMemory() != free-len(d.upp) || result.Notification.ICCID != d.iccid {
				t.Errorf("profile %+v, free %d of %d", p, d.card.FreeMemory(), free)
			}
			wantES10(t, d.card, "BF3111A00C5A0A"+bytesToHex(d.iccid[:])+"810100", "BF3103800100")
			d.card.Reset()
			if got, ok := d.card.VisibleICCID(); !ok || got != d.iccid {
				t.Errorf("the modem sees %v", got)
			}
			want(t, d.card, "00A4080C047FFF6F07", "9000")
			want(t, d.card, "00B0000009", "0809101010325476989000")
			want(t, d.card, "00A4080C047FFF6F3E", "9000")
			want(t, d.card, "00B0000001", "AB9000")
		})
	}
}

func TestDownloadOnBothCurves(t *testing.T) {
	p, b := pkiP256(), pkis[pki.BrainpoolP256r1]()
	config := ConfigUnder(p)
	d := newDownloadUnder(t, b, config) // P-256 first, brainpool second
	d.install(t)
	second := serverFor(t, p, d.card)
	second.iccid, second.upp = home, makeUPP(t, home, 0)
	second.install(t)
	if got := d.card.Profiles(); len(got) != 2 || got[0].AID.Equal(got[1].AID) {
		t.Errorf("profiles %+v", got)
	}
	// The notifications of each profile are signed for the CI it came under.
	wantES10(t, d.card, "BF3111A00C5A0A"+bytesToHex(other[:])+"810100", "BF3103800100")
	wantES10(t, d.card, "BF3111A00C5A0A"+bytesToHex(home[:])+"810100", "BF3103800100")
	list := d.card.Notifications()
	if len(list) != 5 {
		t.Fatalf("%d notifications", len(list))
	}
	for i, id := range []*pki.Identity{b.EUICC, b.EUICC, p.EUICC} { // enable other, disable other, enable home
		r := mustParse(t, list[i+2].Raw).Reader()
		meta, signature, certificate := r.Read(0xBF2F), r.Read(0x5F37), r.Read(0x30)
		r.Read(0x30)
		if r.Finish() != nil || !bytes.Equal(certificate.Raw, id.Certificate.DER) ||
			!pki.Verify(id.Key.Curve(), id.Certificate.PublicKey, meta.Raw, signature.Value) {
			t.Errorf("notification %d does not verify", list[i+2].SeqNumber)
		}
	}
	trusted := []*pki.Certificate{p.CI.Certificate}
	if eid, err := pki.VerifyEUICC(p.EUM.Certificate, p.EUICC.Certificate, trusted, pki.DefaultNotBefore.AddDate(1, 0, 0)); err != nil || eid != TestEID {
		t.Errorf("%v: %v", eid, err)
	}
}

// wantRefusal runs a request that must be refused with a code.
func wantRefusal(t *testing.T, d *download, request []byte, code int) {
	t.Helper()
	tag := mustParse(t, request).Tag
	answer, sw := es10(t, d.card, request)
	if expected := refusal(tag, d.txid, code); sw != swOK || !bytes.Equal(answer, expected) {
		t.Errorf("got %X %04X, want %X", answer, sw, expected)
	}
}

func issue(t *testing.T, ci *pki.CI, role pki.Role, o pki.ServerOptions) *pki.Identity {
	t.Helper()
	id, err := ci.IssueServer(role, o)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestAuthenticateServerRefuses(t *testing.T) {
	foreign, err := pki.NewCI(pki.P256, "Foreign CI")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		code  int
		spoil func(t *testing.T, d *download)
	}{
		{"unknown signing CI", ciPKUnknown, func(_ *testing.T, d *download) { d.ciPKID = make([]byte, 20) }},
		{"foreign server CI", invalidCertificate, func(t *testing.T, d *download) { d.auth = issue(t, foreign, pki.DPAuth, pki.ServerOptions{}) }},
		{"certificate of another role", invalidCertificate, func(_ *testing.T, d *download) { d.auth = d.pb }},
		{"TLS certificate", invalidCertificate, func(_ *testing.T, d *download) { d.auth = d.pki.DPTLS }},
		{"no object identifier", invalidCertificate, func(t *testing.T, d *download) {
			d.auth = issue(t, d.pki.CI, pki.DPAuth, pki.ServerOptions{OID: "no"})
		}},
		{"CI certificate", invalidCertificate, func(_ *testing.T, d *download) { d.auth = &d.pki.CI.Identity }},
		{"other curve than the CI", unsupportedCurve, func(t *testing.T, d *download) {
			key, err := pki.GenerateKey(pki.BrainpoolP256r1)
			if err != nil {
				t.Fatal(err)
			}
			d.auth = issue(t, d.pki.CI, pki.DPAuth, pki.ServerOptions{Key: key})
		}},
		{"signature of another key", invalidSignature, func(_ *testing.T, d *download) {
			d.auth = &pki.Identity{Certificate: d.auth.Certificate, Key: d.pki.DPPb.Key}
		}},
		{"another challenge", euiccChallengeInvalid, func(_ *testing.T, d *download) { d.challenge[0] ^= 1 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDownload(t, Config{})
			d.getChallenge(t)
			good := d.authenticateServer()
			test.spoil(t, d)
			wantRefusal(t, d, d.authenticateServer(), test.code)
			if got := d.card.SessionState(); got != "idle" {
				t.Errorf("session %s", got)
			}
			wantRefusal(t, d, good, noSessionContext)
			wantES10(t, d.card, "BF410D8008010203040506070881 0101", "BF4103810105")
		})
	}
}

func TestAuthenticateServerMalformed(t *testing.T) {
	d := newDownload(t, Config{Info: Info{SVN: rsp.Version{2, 1, 0}}}) // no deviceInfoExtensibilitySupport
	d.getChallenge(t)
	for _, context := range []string{
		"A000", "A002A100", "A009A107800335290 6A100", "A00DA10B800435290611A100820102",
		"A00FA10D800435290611A1058903100000", // nr5gc is unknown to this card
		"A00EA10C800435290611A10480021000",
		"A00DA10B800435290611A10380FF01",
		"A100",
	} {
		d.context = unhex(t, context)
		wantSW(t, d.card, bytesToHex(d.authenticateServer()), swWrongData)
	}
	d.context = unhex(t, "A0188002 4142 A112 800435290611 A100 82082143658709 21437F")
	for _, spoil := range []func(){
		func() { d.txid = make([]byte, 17) },
		func() { d.txid = nil },
		func() { d.challenge = d.challenge[:15] },
		func() { d.address = "" },
	} {
		saved := *d
		spoil()
		wantSW(t, d.card, bytesToHex(d.authenticateServer()), swWrongData)
		*d = saved
	}
	if answer, sw := es10(t, d.card, d.authenticateServer()); sw != swOK || mustParse(t, answer).Value[0] != 0xA0 {
		t.Errorf("%X %04X", answer, sw)
	}
	loose := newDownload(t, Config{Info: Info{SVN: rsp.Version{2, 1, 0}}, Quirks: Quirks{LooseDeviceInfo: true}})
	loose.context = unhex(t, "A00FA10D800435290611A1058903100000")
	loose.authenticate(t)
}

func TestPrepareDownloadRefuses(t *testing.T) {
	for _, test := range []struct {
		name  string
		code  int
		spoil func(t *testing.T, d *download)
	}{
		{"another transaction", invalidTransactionID, func(_ *testing.T, d *download) { d.txid = []byte{1} }},
		{"certificate of another role", invalidCertificate, func(_ *testing.T, d *download) { d.pb = d.auth }},
		{"another object identifier", invalidCertificate, func(t *testing.T, d *download) {
			d.pb = issue(t, d.pki.CI, pki.DPPb, pki.ServerOptions{OID: "2.999.11"})
		}},
		{"another CI", invalidCertificate, func(t *testing.T, d *download) { d.pb = pkis[pki.BrainpoolP256r1]().DPPb }},
		{"signature of DPauth", invalidSignature, func(_ *testing.T, d *download) {
			d.pb = &pki.Identity{Certificate: d.pb.Certificate, Key: d.auth.Key}
		}},
		{"euiccSignature1 of another session", invalidSignature, func(_ *testing.T, d *download) { d.signature1 = ber.Encode(0x5F37, make([]byte, 64)) }},
		{"no hash of the confirmation code", undefinedError, func(_ *testing.T, d *download) { d.ccRequired = true }},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDownloadUnder(t, pkiP256(), ConfigUnder(pkis[pki.BrainpoolP256r1]()))
			d.authenticate(t)
			test.spoil(t, d)
			wantRefusal(t, d, d.prepareDownload(), test.code)
			if got := d.card.SessionState(); got != "authenticated" { // CancelSession is still to come
				t.Errorf("session %s", got)
			}
		})
	}
	d := newDownload(t, Config{})
	wantRefusal(t, d, d.prepareDownload(), noSessionContext)
	d.authenticate(t)
	d.hashCc = []byte{1}
	wantSW(t, d.card, bytesToHex(d.prepareDownload()), swWrongData)
	d.hashCc = nil
	d.prepare(t)
	wantRefusal(t, d, d.prepareDownload(), noSessionContext) // bound already
}

// An SM-DS authenticates itself too; nothing can be downloaded from it.
func TestSMDS(t *testing.T) {
	d := newDownload(t, Config{})
	d.auth, d.address = d.pki.DSAuth, "smds.example.com"
	d.authenticate(t)
	wantRefusal(t, d, d.prepareDownload(), invalidCertificate)
}

func TestCancelSession(t *testing.T) {
	d := newDownload(t, Config{})
	cancel := unhex(t, "BF410D80080102030405060708810101")
	check := func() {
		t.Helper()
		answer, sw := es10(t, d.card, cancel)
		r := mustParse(t, answer).Reader().Read(0xA0).Reader()
		signed, signature := r.Read(0x30), r.Read(0x5F37)
		if sw != swOK || r.Finish() != nil || !bytes.Equal(signed.Raw, unhex(t, "301280080102030405060708810388370A820101")) {
			t.Errorf("%X %04X", answer, sw)
		}
		if !pki.Verify(pki.P256, d.identity.Certificate.PublicKey, signed.Raw, signature.Value) {
			t.Error("euiccCancelSessionSignature does not verify")
		}
		if got := d.card.SessionState(); got != "idle" {
			t.Errorf("session %s", got)
		}
		wantES10(t, d.card, bytesToHex(cancel), "BF4103810105")
	}
	wantES10(t, d.card, bytesToHex(cancel), "BF4103810105")
	d.getChallenge(t)
	wantES10(t, d.card, bytesToHex(cancel), "BF4103810105")
	d.authenticate(t)
	wantES10(t, d.card, "BF410D80080102030405060709810101", "BF4103810105")
	check()
	d.bound(t)
	check()
	d.bound(t)
	es10(t, d.card, d.segments(t)[0])
	if got := d.card.SessionState(); got != "loading" {
		t.Errorf("session %s", got)
	}
	check()
	if got := d.card.Notifications(); len(got) != 0 {
		t.Errorf("%d notifications", len(got))
	}
	wantSW(t, d.card, bytesToHex(d.segments(t)[1]), swConditions)
}

// A one-time key is kept for a retry with the same server, and only for that.
func TestOneTimeKeyReuse(t *testing.T) {
	for _, test := range []struct {
		name   string
		config Config
		end    func(t *testing.T, d *download)
		kept   bool
	}{
		{"after a reset", Config{}, func(t *testing.T, d *download) { d.card.Reset(); channel1(t, d.card) }, true},
		{"after postponing", Config{}, func(t *testing.T, d *download) { es10(t, d.card, unhex(t, "BF410D80080102030405060708810101")) }, true},
		{"after the end user's no", Config{}, func(t *testing.T, d *download) { es10(t, d.card, unhex(t, "BF410D80080102030405060708810100")) }, false},
		{"after the installation", Config{}, func(t *testing.T, d *download) { load1(t, d.card, d.segments(t)) }, false},
		{"a card that forgets", Config{Quirks: Quirks{ForgetsOneTimeKey: true}}, func(*testing.T, *download) {}, false},
		{"another server", Config{}, func(t *testing.T, d *download) {
			o := pki.ServerOptions{OID: "2.999.12"}
			d.auth, d.pb = issue(t, d.pki.CI, pki.DPAuth, o), issue(t, d.pki.CI, pki.DPPb, o)
		}, false},
		{"after many others", Config{}, func(t *testing.T, d *download) {
			for range maxOneTimeKeys {
				d.bound(t)
			}
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDownload(t, test.config)
			d.bound(t)
			first := d.otPK
			test.end(t, d)
			d.earlier = first
			d.bound(t)
			if kept := bytes.Equal(d.otPK, first); kept != test.kept {
				t.Errorf("kept: %v", kept)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	owner := &rsp.Operator{MCCMNC: [3]byte{0x00, 0xF1, 0x10}}
	plain := func(p Profile) func(*testing.T, *download) {
		return func(_ *testing.T, d *download) {
			if p.ICCID.IsZero() {
				p.ICCID = d.iccid
			}
			d.metadata = p.Metadata()
		}
	}
	raw := func(hex string) func(*testing.T, *download) {
		return func(t *testing.T, d *download) { d.metadata = unhex(t, hex) }
	}
	cut := func(change func([][]byte) [][]byte) func(*testing.T, *download, [][]byte) [][]byte {
		return func(_ *testing.T, _ *download, s [][]byte) [][]byte { return change(s) }
	}
	rat := func(operator string) Config {
		b, err := hex.DecodeString(operator)
		if err != nil {
			t.Fatal(err)
		}
		return Config{RAT: []Rule{{PPR: rsp.PPR1 | rsp.PPR2, Operators: []rsp.Operator{{MCCMNC: [3]byte(b)}}}}}
	}
	join := func(i int) func([][]byte) [][]byte {
		return func(s [][]byte) [][]byte {
			return append(append(append([][]byte{}, s[:i]...), append(bytes.Clone(s[i]), s[i+1]...)), s[i+2:]...)
		}
	}
	for _, test := range []struct {
		name            string
		config          Config
		command, reason int
		spoil           func(t *testing.T, d *download)                             // before the package is built
		change          func(t *testing.T, d *download, segments [][]byte) [][]byte // after
	}{
		{name: "another operation", reason: unsupportedRemoteOperationType, spoil: func(_ *testing.T, d *download) { d.operation = []byte{0x82, 1, 2} }},
		{name: "another transaction", reason: loadInvalidTransactionID, spoil: func(_ *testing.T, d *download) {
			d.initialise = func(p [][]byte) [][]byte { p[1] = []byte{0x80, 1, 1}; return p }
		}},
		{name: "key type", reason: unsupportedCrtValues, spoil: func(t *testing.T, d *download) { d.crt = unhex(t, "A609800182810110840141") }},
		{name: "host id is empty", reason: incorrectInputValues, spoil: func(_ *testing.T, d *download) { d.hostID = nil }},
		{name: "host id is the EID", reason: incorrectInputValues, spoil: func(_ *testing.T, d *download) { d.hostID = TestEID[:] }},
		{name: "signature of DPauth", reason: loadInvalidSignature, spoil: func(_ *testing.T, d *download) { d.pb = d.auth }},
		{name: "point not on the curve", reason: incorrectInputValues, spoil: func(_ *testing.T, d *download) {
			d.initialise = func(p [][]byte) [][]byte {
				point := d.otSK.Public()
				point[64] ^= 1
				p[3] = ber.Encode(0x5F49, point)
				p[4] = sign(d.pb, p[0], p[1], p[2], p[3], ber.Encode(0x5F49, d.otPK))
				return p
			}
		}},
		{name: "one element too many", reason: incorrectInputValues, spoil: func(_ *testing.T, d *download) {
			d.initialise = func(p [][]byte) [][]byte { return append(p, []byte{0x85, 0}) }
		}},
		{name: "head of the package alone", reason: scp03tStructureError, change: cut(func(s [][]byte) [][]byte {
			_, head, _, _ := ber.ParseHeader(s[0])
			return append([][]byte{s[0][:head], s[0][head:]}, s[1:]...)
		})},
		{name: "package too short for BF23", reason: scp03tStructureError, change: cut(func(s [][]byte) [][]byte {
			_, head, _, _ := ber.ParseHeader(s[0])
			s[0] = append([]byte{0xBF, 0x36, 0x10}, s[0][head:]...)
			return s
		})},
		{name: "first two segments in one", reason: scp03tStructureError, change: cut(join(0))},
		{name: "first sequence left out", reason: scp03tStructureError, change: cut(func(s [][]byte) [][]byte { return append(s[:1], s[2:]...) })},
		{name: "head of A0 alone", command: cmdConfigureISDP, reason: scp03tStructureError, change: cut(func(s [][]byte) [][]byte {
			return append([][]byte{s[0], s[1][:2], s[1][2:]}, s[2:]...)
		})},
		{name: "head of A1 with its 88", command: cmdStoreMetadata, reason: scp03tStructureError, change: cut(join(2))},
		{name: "head of A3 with its 86", command: cmdLoadProfileElements, reason: scp03tStructureError, change: cut(join(4))},
		{name: "A3 with no length", command: cmdStoreMetadata, reason: scp03tStructureError, change: cut(func(s [][]byte) [][]byte { s[4] = []byte{0xA3, 0x00}; return s })},
		{name: "A3 longer than the package", command: cmdStoreMetadata, reason: scp03tStructureError, change: cut(func(s [][]byte) [][]byte { s[4] = []byte{0xA3, 0x82, 0x70, 0x00}; return s })},
		{name: "A3 shorter than the package", command: cmdLoadProfileElements, reason: scp03tStructureError, change: cut(func(s [][]byte) [][]byte {
			s[4] = ber.Encode(0xA3, s[5])[:len(ber.Encode(0xA3, s[5]))-len(s[5])]
			s[0] = bytes.Clone(s[0])
			s[0][len(s[0])-len(mustRest(s[0]))-1]++ // the package announces one byte more
			return s
		})},
		{name: "86 where an 88 belongs", command: cmdStoreMetadata, reason: scp03tStructureError, change: cut(func(s [][]byte) [][]byte { s[3] = s[5]; return s })},
		{name: "MAC of the metadata", command: cmdStoreMetadata, reason: scp03tSecurityError, change: cut(func(s [][]byte) [][]byte { s[3][len(s[3])-1] ^= 1; return s })},
		{name: "MAC of an element", command: cmdLoadProfileElements, reason: scp03tSecurityError, change: cut(func(s [][]byte) [][]byte { s[5][20] ^= 1; return s })},
		{name: "MAC of the first 87", command: cmdConfigureISDP, reason: scp03tSecurityError, change: cut(func(s [][]byte) [][]byte { s[1][5] ^= 1; return s })},
		{name: "segments swapped", command: cmdLoadProfileElements, reason: scp03tSecurityError, spoil: func(t *testing.T, d *download) { d.upp = makeUPP(t, d.iccid, 3000) },
			change: cut(func(s [][]byte) [][]byte { s[5], s[6] = s[6], s[5]; return s })},
		{name: "garbled length", command: cmdLoadProfileElements, reason: scp03tStructureError, change: cut(func(s [][]byte) [][]byte { s[5] = s[5][:len(s[5])-1]; return s })},

		{name: "installed already", config: twoProfiles(), command: cmdStoreMetadata, reason: iccidAlreadyExists},
		{name: "no memory at all", config: Config{FreeMemory: -1}, command: cmdStoreMetadata, reason: insufficientMemory},
		{name: "too little memory", config: Config{FreeMemory: 400}, command: cmdLoadProfileElements, reason: insufficientMemory, spoil: func(t *testing.T, d *download) { d.upp = makeUPP(t, d.iccid, 3000) }},
		{name: "no room for the notification", config: Config{NotificationLimit: 1, FullRefuses: true}, spoil: func(t *testing.T, d *download) {
			first := serverFor(t, d.pki, d.card)
			first.iccid, first.upp = home, makeUPP(t, home, 0)
			first.install(t)
		}, command: cmdLoadProfileElements, reason: insufficientMemory},
		{name: "test profile", config: Config{Info: Info{RSPCapability: []int{0}}}, command: cmdStoreMetadata, reason: unsupportedProfileClass, spoil: plain(Profile{Class: Test})},
		{name: "unknown class", command: cmdStoreMetadata, reason: incorrectInputValues, spoil: raw("BF25195A0A984400000000000010F7 9101 41 920142 950103 9301 00")},
		{name: "no name", command: cmdStoreMetadata, reason: incorrectInputValues, spoil: raw("BF250F5A0A984400000000000010F7910141")},
		{name: "short ICCID", command: cmdStoreMetadata, reason: incorrectInputValues, spoil: raw("BF25115A099844000000000000109101 41 920142")},
		{name: "ICCID without digits", command: cmdStoreMetadata, reason: incorrectInputValues, spoil: raw("BF25125A0AFFFFFFFFFFFFFFFFFFFF910141920142")},
		{name: "not metadata", command: cmdStoreMetadata, reason: incorrectInputValues, spoil: raw("BF2400")},
		{name: "long name", command: cmdStoreMetadata, reason: incorrectInputValues, spoil: plain(Profile{ServiceProvider: strings.Repeat("x", 33)})},
		{name: "large icon", command: cmdStoreMetadata, reason: incorrectInputValues, spoil: plain(Profile{Icon: make([]byte, 1025)})},
		{name: "icon of a third kind", command: cmdStoreMetadata, reason: incorrectInputValues, spoil: raw("BF25155A0A984400000000000010F7910141920142930102")},
		{name: "policy without owner", command: cmdStoreMetadata, reason: incorrectInputValues, spoil: plain(Profile{PPR: rsp.PPR2})},
		{name: "policy, empty rule table", command: cmdStoreMetadata, reason: pprNotAllowed, spoil: plain(Profile{PPR: rsp.PPR2, Owner: owner})},
		{name: "policy of another operator", config: rat("00F120"), command: cmdStoreMetadata, reason: pprNotAllowed, spoil: plain(Profile{PPR: rsp.PPR2, Owner: owner})},
		{name: "PPR1 beside another profile", config: Config{RAT: rat("EEEEEE").RAT, Profiles: []Profile{{ICCID: home}}}, command: cmdStoreMetadata, reason: pprNotAllowed, spoil: plain(Profile{PPR: rsp.PPR1, Owner: owner})},
		{name: "forbidden policy", config: Config{RAT: rat("EEEEEE").RAT, ForbiddenPPR: rsp.PPR2}, command: cmdStoreMetadata, reason: pprNotAllowed, spoil: plain(Profile{PPR: rsp.PPR2, Owner: owner})},

		{name: "ICCID of the package", command: cmdLoadProfileElements, reason: dataMismatch, spoil: func(t *testing.T, d *download) { d.upp = makeUPP(t, home, 0) }},
		{name: "no end", command: cmdLoadProfileElements, reason: peProcessingError, spoil: func(_ *testing.T, d *download) { d.upp = d.upp[:len(d.upp)-9] }},
		{name: "cut off", command: cmdLoadProfileElements, reason: peProcessingError, spoil: func(_ *testing.T, d *download) { d.upp = d.upp[:len(d.upp)-1] }},
		{name: "bytes after the end", command: cmdLoadProfileElements, reason: peProcessingError, spoil: func(_ *testing.T, d *download) { d.upp = append(d.upp, 0xAA, 0x00) }},
		{name: "not a package", command: cmdLoadProfileElements, reason: peProcessingError, spoil: func(_ *testing.T, d *download) { d.upp = []byte("the-uicc-profile-fixture") }},
		{name: "no header", command: cmdLoadProfileElements, reason: peProcessingError, spoil: func(t *testing.T, d *download) { d.upp = unhex(t, "AA07A0058000810106") }},
		{name: "keys of another length", command: cmdReplaceSessionKeys, reason: incorrectInputValues, spoil: func(_ *testing.T, d *download) { d.ppk = &bsp.Keys{} },
			change: func(t *testing.T, d *download, s [][]byte) [][]byte { return reprotect(t, d, s, unhex(t, "BF2600")) }},
		{name: "ConfigureISDP", command: cmdConfigureISDP, reason: incorrectInputValues,
			change: func(t *testing.T, d *download, s [][]byte) [][]byte {
				return reconfigure(t, d, s, unhex(t, "BF240180"))
			}},
		{name: "ConfigureISDP with too much", command: cmdConfigureISDP, reason: incorrectInputValues,
			change: func(t *testing.T, d *download, s [][]byte) [][]byte {
				return reconfigure(t, d, s, ber.Encode(0xBF24, ber.Encode(0xB8, unhex(t, "8003883710"), make([]byte, 122))))
			}},
		{name: "ConfigureISDP without an OID", command: cmdConfigureISDP, reason: incorrectInputValues,
			change: func(t *testing.T, d *download, s [][]byte) [][]byte {
				return reconfigure(t, d, s, unhex(t, "BF2404B8028100"))
			}},
		{name: "metadata with too much", command: cmdStoreMetadata, reason: incorrectInputValues, spoil: func(t *testing.T, d *download) {
			d.metadata = ber.Encode(0xBF25, d.iccid.ProfileTLV(), unhex(t, "910141920142"), ber.Encode(0xB8, unhex(t, "8003883710"), make([]byte, 122)))
		}},

		{name: "injected at a segment", config: Config{Faults: []Fault{{Do: FailLoad, Segment: 3, Command: 5, Result: 127}}}, command: 5, reason: 127},
		{name: "injected at a segment, command of the moment", config: Config{Faults: []Fault{{Do: FailLoad, Segment: 4, Result: 10}}}, command: 2, reason: 10},
		{name: "injected at a command", config: Config{Faults: []Fault{{Do: FailLoad, Command: 5, Result: 12}}}, command: 5, reason: 12},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDownload(t, test.config)
			free := d.card.FreeMemory()
			if test.spoil != nil {
				test.spoil(t, d)
				free = d.card.FreeMemory()
			}
			before := len(d.card.Profiles())
			d.pb, d.signature1 = d.pki.DPPb, nil
			d.bound(t)
			if test.reason == loadInvalidSignature {
				d.pb = d.auth
			}
			segments := d.segments(t)
			if test.change != nil {
				segments = test.change(t, d, segments)
			}
			raw := load1(t, d.card, segments)
			d.result(t, raw, test.command, test.reason)
			if got := len(d.card.Profiles()); got != before || d.card.FreeMemory() != free {
				t.Errorf("%d profiles, %d before; free %d of %d", got, before, d.card.FreeMemory(), free)
			}
			wantSW(t, d.card, bytesToHex(segments[len(segments)-1]), swConditions)
			wantSW(t, d.card, bytesToHex(segments[0]), swConditions)
		})
	}
}

// mustRest is the value of BF36 in the first segment.
func mustRest(b []byte) []byte {
	_, head, _, err := ber.ParseHeader(b)
	if err != nil {
		panic(err)
	}
	return b[head:]
}

// sessionOf is the protection of the package of d, from its start.
func sessionOf(t *testing.T, d *download) *bsp.Session {
	t.Helper()
	z, err := d.otSK.ECDH(d.otPK)
	if err != nil {
		t.Fatal(err)
	}
	return bsp.NewSession(bsp.DeriveKeys(z, d.hostID, d.card.EID()))
}

// reconfigure puts another ConfigureISDP into a package.
func reconfigure(t *testing.T, d *download, s [][]byte, command []byte) [][]byte {
	t.Helper()
	segment, err := sessionOf(t, d).Protect(bsp.Tag87, command)
	if err != nil {
		t.Fatal(err)
	}
	return relength(s, 1, ber.Encode(0xA0, segment))
}

// reprotect puts another ReplaceSessionKeys into a package.
func reprotect(t *testing.T, d *download, s [][]byte, command []byte) [][]byte {
	t.Helper()
	session := sessionOf(t, d)
	for _, segment := range [][]byte{s[1][2:], s[3]} {
		if _, _, err := session.Unprotect(segment); err != nil {
			t.Fatal(err)
		}
	}
	segment, err := session.Protect(bsp.Tag87, command)
	if err != nil {
		t.Fatal(err)
	}
	return relength(s, 4, ber.Encode(0xA2, segment))
}

// relength puts a segment into a package and makes the length of the whole fit.
func relength(s [][]byte, i int, segment []byte) [][]byte {
	s[i] = segment
	rest := mustRest(s[0])
	whole := ber.Encode(0xBF36, rest, bytes.Join(s[1:], nil))
	s[0] = whole[:len(whole)-len(bytes.Join(s[1:], nil))]
	return s
}

// A rule of the table lets a profile with a policy rule in.
func TestPolicyAllowed(t *testing.T) {
	d := newDownload(t, Config{RAT: []Rule{{PPR: rsp.PPR1 | rsp.PPR2, Operators: []rsp.Operator{{MCCMNC: [3]byte{0xEE, 0xFE, 0x1E}, GID1: []byte{1}}}}}})
	d.metadata = Profile{ICCID: d.iccid, PPR: rsp.PPR1 | rsp.PPR2, Owner: &rsp.Operator{MCCMNC: [3]byte{0, 0xF1, 0x10}, GID1: []byte{1}, GID2: []byte{2}}}.Metadata()
	d.install(t)
	if got := c0(d.card.Profiles()).PPR; got != rsp.PPR1|rsp.PPR2 {
		t.Errorf("policy rules %v", got)
	}
	id := bytesToHex(d.iccid[:])
	wantES10(t, d.card, "BF330C5A0A"+id, "BF3303800103")
	wantES10(t, d.card, "BF3111A00C5A0A"+id+"810100", "BF3103800100")
	wantES10(t, d.card, "BF3211A00C5A0A"+id+"810100", "BF3203800103")
	wantES10(t, d.card, "BF2D13A00C5A0A"+id+"5C0399B75A", "BF2D21A01FE31D5A0A"+id+"B70B800300F11081010182010299020560")
}

// Some LPAs send all of A0 as one segment.
func TestWholeSequences(t *testing.T) {
	for _, tolerant := range []bool{false, true} {
		d := newDownload(t, Config{Quirks: Quirks{WholeSequences: tolerant}})
		d.bound(t)
		segments := d.segments(t)
		session := sessionOf(t, d)
		one, err := session.Protect(bsp.Tag87, unhex(t, "BF24"))
		if err != nil {
			t.Fatal(err)
		}
		two, err := session.Protect(bsp.Tag87, []byte{0})
		if err != nil {
			t.Fatal(err)
		}
		segments = relength(segments, 1, ber.Encode(0xA0, one, two))
		if answer, _ := es10(t, d.card, segments[0]); len(answer) > 0 {
			t.Fatalf("%X", answer)
		}
		answer, _ := es10(t, d.card, segments[1])
		if tolerant != (len(answer) == 0) {
			t.Errorf("tolerant %v: %X", tolerant, answer)
		}
	}
}

// Another session, or another function, does not get in the way of a package
// unless it is meant to.
func TestOtherFunctionsWhileLoading(t *testing.T) {
	d := newDownload(t, Config{})
	d.bound(t)
	segments := d.segments(t)
	for _, s := range segments[:3] {
		es10(t, d.card, s)
	}
	wantES10(t, d.card, "BF2D00", "BF2D02A000")
	wantES10(t, d.card, "BF2800", "BF2802A000")
	wantSW(t, d.card, bytesToHex(segments[0]), swConditions) // a second InitialiseSecureChannel
	want(t, d.card, "0070800100", "9000")
	channel1(t, d.card)
	d.result(t, load1(t, d.card, segments[3:]), 0, 0)

	d = newDownload(t, Config{Quirks: Quirks{ChannelCloseAborts: true}})
	d.bound(t)
	segments = d.segments(t)
	es10(t, d.card, segments[0])
	want(t, d.card, "0070800100", "9000")
	d.result(t, d.card.Notifications()[0].Raw, 0, interruption)

	d = newDownload(t, Config{})
	d.bound(t)
	es10(t, d.card, d.segments(t)[0])
	d.getChallenge(t)
	if got := d.card.SessionState(); got != "challenged" {
		t.Errorf("session %s", got)
	}
	wantSW(t, d.card, bytesToHex(segments[1]), swConditions)
	d.card.Reset()
	if got := d.card.Notifications(); len(got) != 0 {
		t.Errorf("%d notifications", len(got))
	}
}

// A power cut at every byte of the package leaves a card that says so and takes
// the package again with the same one-time key.
func TestPowerCutAtEveryByte(t *testing.T) {
	probe := newDownload(t, Config{})
	probe.bound(t)
	total, installed := len(bytes.Join(probe.segments(t), nil)), 0
	for n := 1; n <= total; n += 7 {
		for _, action := range []Action{CutPower, CutPowerAfter} {
			store := new(MemoryStore)
			d := newDownload(t, Config{Store: store})
			d.bound(t)
			first := d.otPK
			segments := d.segments(t)
			d.card.Inject(Fault{Do: action, BPPByte: n})
			err := loadUntilError(t.Context(), d.card, segments)
			if !errors.Is(err, ErrNoPower) {
				t.Fatalf("byte %d: %v", n, err)
			}
			if _, err := d.card.Transmit(t.Context(), []byte{0, 0xA4, 0, 0x0C}); !errors.Is(err, ErrNoPower) {
				t.Fatalf("byte %d: %v", n, err)
			}
			d.card = resurrect(t, store)
			if checkAfterCut(t, d, n) {
				installed++
				continue
			}
			d.earlier = first
			d.bound(t)
			if !bytes.Equal(d.otPK, first) {
				t.Errorf("byte %d: another one-time key", n)
			}
			d.result(t, load1(t, d.card, segments), 0, 0) // the very same package
		}
	}
	if installed == 0 {
		t.Error("no cut came after the installation")
	}
}

func loadUntilError(ctx context.Context, c *Card, segments [][]byte) error {
	for _, s := range segments {
		if _, _, err := tryES10(ctx, c, s, 255); err != nil {
			return err
		}
	}
	return nil
}

// resurrect makes a new card with the state that another one has left.
func resurrect(t *testing.T, store Store) *Card {
	t.Helper()
	config := ConfigUnder(pkiP256())
	config.Store = store
	c := newCard(t, config)
	channel1(t, c)
	return c
}

// checkAfterCut says whether the profile is there: then with its notification,
// otherwise with none or, once the secure channel was there, with one about the
// interruption.
func checkAfterCut(t *testing.T, d *download, n int) bool {
	t.Helper()
	profiles, list := d.card.Profiles(), d.card.Notifications()
	if len(profiles) > 1 || len(list) > 1 || len(list) < len(profiles) {
		t.Fatalf("byte %d: %d profiles, %d notifications", n, len(profiles), len(list))
	}
	if len(list) == 0 {
		return false
	}
	pir, err := rsp.ParseProfileInstallationResult(list[0].Raw)
	if err != nil || !bytes.Equal(pir.TransactionID, d.txid) || (pir.Err() == nil) != (len(profiles) == 1) {
		t.Errorf("byte %d: %X %v", n, list[0].Raw, err)
	}
	if pir.Err() != nil {
		e := find(find(mustParse(t, list[0].Raw).Reader().Read(0xBF27), 0xA2), 0xA1)
		if reason, err := find(e, 0x81).Int(); err != nil || reason != interruption {
			t.Errorf("byte %d: reason %d %v", n, reason, err)
		}
	}
	return len(profiles) == 1
}

func TestInterruptionSilent(t *testing.T) {
	d := newDownload(t, Config{Quirks: Quirks{InterruptionSilent: true}})
	d.bound(t)
	es10(t, d.card, d.segments(t)[0])
	d.card.Reset()
	if got := d.card.Notifications(); len(got) != 0 || d.card.SessionState() != "idle" {
		t.Errorf("%d notifications, session %s", len(got), d.card.SessionState())
	}
}

// One server in use cuts a profile into pieces of 1008 bytes, as if there were
// no padding: full segments have 1036 bytes, and some cards take them.
func TestLongSegments(t *testing.T) {
	for _, test := range []struct {
		quirk           bool
		size            int
		command, reason int
	}{
		{false, longSegment, cmdLoadProfileElements, scp03tStructureError},
		{true, longSegment, 0, 0},
		{true, longSegment + 16, cmdLoadProfileElements, scp03tStructureError},
	} {
		d := newDownload(t, Config{OpaqueUPP: true, Quirks: Quirks{LongSegments: test.quirk}})
		d.size, d.upp = test.size, make([]byte, 3000)
		d.bound(t)
		segments := d.segments(t)
		if longest := len(segments[len(segments)-2]); longest != test.size {
			t.Fatalf("full segments have %d bytes, want %d", longest, test.size)
		}
		d.result(t, load1(t, d.card, segments), test.command, test.reason)
	}
}
