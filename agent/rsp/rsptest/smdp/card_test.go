package smdp

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/bsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/upp"
	"lpad/apdu/ber"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// jsonAnswer is what a function has answered.
type jsonAnswer struct {
	HTTP          int
	Header        http.Header
	Raw           []byte
	Status        string // functionExecutionStatus
	Code          string // "subject/reason" of a failure
	TransactionID string
	members       map[string]json.RawMessage
}

func (a jsonAnswer) bytes(t testing.TB, name string) []byte {
	t.Helper()
	var text string
	if err := json.Unmarshal(a.members[name], &text); err != nil {
		t.Fatalf("%s: %v in %s", name, err, a.Raw)
	}
	b, err := base64.StdEncoding.DecodeString(strings.NewReplacer("\r", "", "\n", "").Replace(text))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

func readAnswer(t testing.TB, status int, header http.Header, body []byte) jsonAnswer {
	t.Helper()
	a := jsonAnswer{HTTP: status, Header: header, Raw: body, members: map[string]json.RawMessage{}}
	if len(body) == 0 || body[0] != '{' {
		return a
	}
	if err := json.Unmarshal(body, &a.members); err != nil {
		t.Fatalf("answer %s: %v", body, err)
	}
	var known struct {
		TransactionID string
		Header        struct {
			FunctionExecutionStatus struct {
				Status         string
				StatusCodeData struct{ SubjectCode, ReasonCode string }
			}
		}
	}
	if err := json.Unmarshal(body, &known); err != nil {
		t.Fatalf("answer %s: %v", body, err)
	}
	a.TransactionID = known.TransactionID
	execution := known.Header.FunctionExecutionStatus
	a.Status = execution.Status
	if execution.StatusCodeData.SubjectCode != "" {
		a.Code = execution.StatusCodeData.SubjectCode + "/" + execution.StatusCodeData.ReasonCode
	}
	return a
}

// post calls a function without a network.
func post(t testing.TB, s http.Handler, fn Function, members map[string]string) jsonAnswer {
	t.Helper()
	body := must(json.Marshal(members))(t)
	r := httptest.NewRequest(http.MethodPost, path+string(fn), bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Admin-Protocol", "gsma/rsp/v2.2.2")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return readAnswer(t, w.Code, w.Header(), w.Body.Bytes())
}

// card is a pocket eUICC: it signs whatever the test wants.
type card struct {
	t       testing.TB
	eid     rsp.EID
	id      *pki.Identity
	eum     *pki.Certificate
	cis     [][]byte // in the lists of EUICCInfo1
	otSK    *pki.Key
	tac     string // hex, as sent
	memory  int    // free bytes in EUICCInfo2
	seq     int64
	address string
}

func newCard(t testing.TB, p *pki.PKI) *card {
	t.Helper()
	return &card{t: t, eid: must(rsp.ParseEID(p.EUICC.Certificate.Subject.SerialNumber))(t), id: p.EUICC,
		eum: p.EUM.Certificate, cis: [][]byte{p.CI.SKI()}, otSK: must(pki.GenerateKey(p.CI.Key.Curve()))(t),
		tac: "53926011", memory: 500_000, address: "smdp.example.com"}
}

func (c *card) info1() []byte {
	var list [][]byte
	for _, ski := range c.cis {
		list = append(list, ber.Encode(0x04, ski))
	}
	return ber.Encode(0xBF20, ber.Encode(0x82, []byte{2, 2, 2}), ber.Encode(0xA9, list...), ber.Encode(0xAA, list...))
}

func (c *card) initiate(s http.Handler) jsonAnswer {
	c.t.Helper()
	return post(c.t, s, InitiateAuthentication, map[string]string{
		"euiccChallenge": b64(bytes.Repeat([]byte{0xAB}, 16)), "euiccInfo1": b64(c.info1()), "smdpAddress": c.address})
}

// authenticateServer signs the answer to an initiateAuthentication; edit may
// change the signed content.
func (c *card) authenticateServer(initiated jsonAnswer, matchingID *string, edit func(*authFields)) []byte {
	c.t.Helper()
	signed1 := must(ber.Parse(initiated.bytes(c.t, "serverSigned1")))(c.t).Reader()
	f := &authFields{id: signed1.Read(0x80).Value}
	signed1.Read(0x81)
	f.address, f.challenge = signed1.Read(0x83).Value, signed1.Read(0x84).Value
	if err := signed1.Finish(); err != nil {
		c.t.Fatal(err)
	}
	f.euicc, f.eum, f.key = c.id.Certificate, c.eum, c.id.Key
	if edit != nil {
		edit(f)
	}
	var context [][]byte
	if matchingID != nil {
		context = append(context, ber.EncodeString(0x80, *matchingID))
	}
	context = append(context, ber.Encode(0xA1, ber.Encode(0x80, unhex(c.t, c.tac)), ber.Encode(0xA1)))
	resources := ber.Encode(0x84, ber.EncodeInt(0x81, 0), ber.EncodeInt(0x82, int64(c.memory)), ber.EncodeInt(0x83, 1000))
	signed := ber.Encode(0x30, ber.Encode(0x80, f.id), ber.Encode(0x83, f.address), ber.Encode(0x84, f.challenge),
		ber.Encode(0xBF22, ber.Encode(0x81, []byte{2, 1, 0}), ber.Encode(0x82, []byte{2, 2, 2}), ber.Encode(0x83, []byte{1, 0, 0}), resources),
		ber.Encode(0xA0, context...))
	return ber.Encode(0xBF38, ber.Encode(0xA0, signed, ber.Encode(0x5F37, f.key.Sign(signed)), f.euicc.DER, f.eum.DER))
}

type authFields struct {
	id, address, challenge []byte
	euicc, eum             *pki.Certificate
	key                    *pki.Key
}

// authenticate goes through the first two functions.
func (c *card) authenticate(s http.Handler, matchingID string) jsonAnswer {
	c.t.Helper()
	initiated := c.initiate(s)
	if initiated.Code != "" {
		c.t.Fatalf("initiateAuthentication: %s", initiated.Raw)
	}
	return post(c.t, s, AuthenticateClient, map[string]string{"transactionId": initiated.TransactionID,
		"authenticateServerResponse": b64(c.authenticateServer(initiated, &matchingID, nil))})
}

// prepareDownload signs the answer to an offer.
func (c *card) prepareDownload(offer jsonAnswer, code string) []byte {
	c.t.Helper()
	parts := [][]byte{ber.Encode(0x80, unhex(c.t, offer.TransactionID)), ber.Encode(0x5F49, c.otSK.Public())}
	if code != "" {
		inner := sha256.Sum256([]byte(code))
		hash := sha256.Sum256(append(inner[:], unhex(c.t, offer.TransactionID)...))
		parts = append(parts, ber.Encode(0x04, hash[:]))
	}
	signed := ber.Encode(0x30, parts...)
	return ber.Encode(0xBF21, ber.Encode(0xA0, signed,
		ber.Encode(0x5F37, c.id.Key.Sign(append(bytes.Clone(signed), offer.bytes(c.t, "smdpSignature2")...)))))
}

func (c *card) download(s http.Handler, offer jsonAnswer, code string) jsonAnswer {
	c.t.Helper()
	if offer.Code != "" {
		c.t.Fatalf("authenticateClient: %s", offer.Raw)
	}
	return post(c.t, s, GetBoundProfilePackage, map[string]string{"transactionId": offer.TransactionID,
		"prepareDownloadResponse": b64(c.prepareDownload(offer, code))})
}

// opened is a package after decryption.
type opened struct {
	id, configure, metadata, profile []byte
	segments88, segments86           int
	replaced                         bool
	largest                          int
}

// open checks and decrypts a package as an eUICC does.
func (c *card) open(pb *pki.Certificate, pack []byte) (opened, error) {
	c.t.Helper()
	var o opened
	outer, err := ber.Parse(pack)
	if err != nil {
		return o, err
	}
	r := outer.Reader()
	channel := r.Read(0xBF23).Reader()
	remote := channel.Read(0x82)
	id := channel.Read(0x80)
	crt := channel.Read(0xA6)
	otPK := channel.Read(0x5F49)
	sign := channel.Read(0x5F37)
	if err := channel.Finish(); err != nil {
		return o, err
	}
	o.id = id.Value
	signed := bytes.Join([][]byte{remote.Raw, id.Raw, crt.Raw, otPK.Raw, ber.Encode(0x5F49, c.otSK.Public())}, nil)
	if !pki.Verify(pb.Curve, pb.PublicKey, signed, sign.Value) {
		return o, errSign
	}
	parameters := crt.Reader()
	parameters.Read(0x80)
	parameters.Read(0x81)
	host := parameters.Read(0x84).Value
	z, err := c.otSK.ECDH(otPK.Value)
	if err != nil {
		return o, err
	}
	session := bsp.NewSession(bsp.DeriveKeys(z, host, c.eid))
	list := func(tag ber.Tag, want ber.Tag) (plain []byte, n int, err error) {
		elements := r.Read(tag).Reader()
		for !elements.Empty() {
			segment := elements.Read(want)
			if err := elements.Err(); err != nil {
				return nil, n, err
			}
			o.largest = max(o.largest, len(segment.Raw))
			_, part, err := session.Unprotect(segment.Raw)
			if err != nil {
				return nil, n, err
			}
			plain, n = append(plain, part...), n+1
		}
		return plain, n, elements.Err()
	}
	if o.configure, _, err = list(0xA0, 0x87); err != nil {
		return o, err
	}
	if o.metadata, o.segments88, err = list(0xA1, 0x88); err != nil {
		return o, err
	}
	if second, ok := r.Optional(0xA2); ok {
		_, plain, err := session.Unprotect(second.Value)
		if err != nil {
			return o, err
		}
		keys, err := bsp.ParseKeys(plain)
		if err != nil {
			return o, err
		}
		session.ReplaceKeys(keys)
		o.replaced = true
	}
	if o.profile, o.segments86, err = list(0xA3, 0x86); err != nil {
		return o, err
	}
	return o, r.Finish()
}

type constError string

func (e constError) Error() string { return string(e) }

const errSign = constError("smdpSign does not fit")

// result is a signed ProfileInstallationResult: reason 0 is success.
func (c *card) result(transactionID string, iccid rsp.ICCID, reason int64) []byte {
	c.t.Helper()
	c.seq++
	final := ber.Encode(0xA0, ber.Encode(0x4F, rsp.ISDR), ber.Encode(0x04, upp.OK()))
	if reason != 0 {
		final = ber.Encode(0xA1, ber.EncodeInt(0x80, 5), ber.EncodeInt(0x81, reason))
	}
	signed := ber.Encode(0xBF27, ber.Encode(0x80, unhex(c.t, transactionID)), c.about(rsp.EventInstall, iccid),
		ber.Encode(0x06, []byte{0x88, 0x37, 0x0A}), ber.Encode(0xA2, final))
	return ber.Encode(0xBF37, signed, ber.Encode(0x5F37, c.id.Key.Sign(signed)))
}

func (c *card) about(event rsp.Event, iccid rsp.ICCID) []byte {
	return ber.Encode(0xBF2F, ber.EncodeInt(0x80, c.seq), ber.EncodeBits(0x81, event.Bits()), ber.EncodeString(0x0C, c.address), ber.Encode(0x5A, iccid[:]))
}

// other is a signed notification of another event.
func (c *card) other(event rsp.Event, iccid rsp.ICCID) []byte {
	c.seq++
	about := c.about(event, iccid)
	return ber.Encode(0x30, about, ber.Encode(0x5F37, c.id.Key.Sign(about)), c.id.Certificate.DER, c.eum.DER)
}

func (c *card) notify(s http.Handler, pending []byte) jsonAnswer {
	c.t.Helper()
	return post(c.t, s, HandleNotification, map[string]string{"pendingNotification": b64(pending)})
}

// cancel is a signed CancelSessionResponse; oid is the value of the OID.
func (c *card) cancel(transactionID string, reason rsp.CancelReason, oid []byte) []byte {
	c.t.Helper()
	signed := ber.Encode(0x30, ber.Encode(0x80, unhex(c.t, transactionID)), ber.Encode(0x81, oid), ber.EncodeInt(0x82, int64(reason)))
	return ber.Encode(0xBF41, ber.Encode(0xA0, signed, ber.Encode(0x5F37, c.id.Key.Sign(signed))))
}
