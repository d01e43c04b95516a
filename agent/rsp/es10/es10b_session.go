package es10

import (
	"context"
	"errors"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
)

const challengeLength = 16

// GetEUICCChallenge opens a new RSP session on the card, which ends the one
// before, and returns the 16 bytes of its challenge.
//
// SGP.22 v2.5, section 5.7.7 (ES10b.GetEUICCChallenge).
func (c *Client) GetEUICCChallenge(ctx context.Context) ([]byte, error) {
	const fn = "ES10b.GetEUICCChallenge"
	t, err := c.call(ctx, fn, ber.Encode(0xBF2E))
	if err != nil {
		return nil, err
	}
	challenge, err := parseChallenge(t)
	if err != nil {
		return nil, malformed(fn, err)
	}
	return challenge, nil
}

func parseChallenge(t ber.TLV) ([]byte, error) {
	r := t.Reader()
	e := r.Read(0x80)
	if err := r.Err(); err != nil {
		return nil, err
	}
	b, err := e.Octets(challengeLength, challengeLength)
	return append([]byte(nil), b...), err
}

// AuthenticateServer lets the card check the server, and returns the card's
// own proof: the whole BF38 as it came, which goes to authenticateClient.
// contextParams is built by [rsp.DeviceInfo.ContextParams]. A refusal is a
// [*ResultError] with an [rsp.AuthenticateResult].
//
// SGP.22 v2.5, section 5.7.13 (ES10b.AuthenticateServer).
func (c *Client) AuthenticateServer(ctx context.Context, s rsp.ServerAuthentication, contextParams []byte) ([]byte, error) {
	const fn = "ES10b.AuthenticateServer"
	request := ber.Encode(0xBF38, s.ServerSigned1, s.ServerSignature1, s.CIPKID, s.ServerCertificate, contextParams)
	t, err := c.call(ctx, fn, request)
	if err != nil {
		return nil, err
	}
	code, refused, err := sessionAnswer(t, s.TransactionID)
	switch {
	case err != nil:
		return nil, malformed(fn, err)
	case refused:
		return nil, resultError(fn, rsp.AuthenticateResult(code))
	}
	return append([]byte(nil), t.Raw...), nil
}

// CancelSession ends the session on the card and returns its signed word for
// the server: the whole BF41 as it came. Where the card has no such session
// any more the error is a [*ResultError] with [rsp.CancelNoSession].
//
// SGP.22 v2.5, section 5.7.14 (ES10b.CancelSession).
func (c *Client) CancelSession(ctx context.Context, id rsp.TransactionID, reason rsp.CancelReason) ([]byte, error) {
	const fn = "ES10b.CancelSession"
	t, err := c.call(ctx, fn, ber.Encode(0xBF41, ber.Encode(0x80, id), ber.EncodeInt(0x81, int64(reason))))
	if err != nil {
		return nil, err
	}
	code, refused, err := parseCancel(t)
	switch {
	case err != nil:
		return nil, malformed(fn, err)
	case refused:
		return nil, resultError(fn, rsp.CancelResult(code))
	}
	return append([]byte(nil), t.Raw...), nil
}

func parseCancel(t ber.TLV) (code int, refused bool, err error) {
	if code, refused, err = errorCode(t); refused || err != nil {
		return code, refused, err
	}
	r := t.Reader()
	in := r.Read(0xA0).Reader()
	in.Read(0x30)
	in.Read(0x5F37)
	return 0, false, errors.Join(r.Err(), in.Err())
}

// LoadCRL gives the card a certificate revocation list, DER. It returns the
// numbers of the parts that the card still misses. Cards of v3 do not have
// this function.
//
// SGP.22 v2.5, section 5.7.12 (ES10b.LoadCRL).
func (c *Client) LoadCRL(ctx context.Context, crl []byte) (missing []int, err error) {
	const fn = "ES10b.LoadCRL"
	t, err := c.call(ctx, fn, ber.Encode(0xBF35, crl))
	if err != nil {
		return nil, err
	}
	code, refused, err := errorCode(t)
	if err == nil && !refused {
		missing, err = parseMissingParts(t)
	}
	switch {
	case err != nil:
		return nil, malformed(fn, err)
	case refused:
		return nil, resultError(fn, rsp.CRLResult(code))
	}
	return missing, nil
}

const maxCRLParts = 1024

func parseMissingParts(t ber.TLV) ([]int, error) {
	r := t.Reader()
	ok := r.Read(0xA0).Reader()
	list, some := ok.Optional(0xA0)
	if err := errors.Join(r.Err(), ok.Err()); err != nil || !some {
		return nil, err
	}
	var missing []int
	parts := list.Reader()
	for !parts.Empty() && len(missing) < maxCRLParts {
		n, err := intCode(parts.Read(0x02))
		if err != nil {
			return nil, err
		}
		missing = append(missing, n)
	}
	return missing, parts.Err()
}
