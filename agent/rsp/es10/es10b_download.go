package es10

import (
	"bytes"
	"context"
	"fmt"

	"lpad/agent/rsp"
	"lpad/apdu/ber"
	"lpad/internal/fault"
)

// PrepareDownload lets the card check the offer and make its one-time key. It
// returns the whole BF21 as it came, which goes to getBoundProfilePackage.
// hashCC is the confirmation code by [rsp.HashConfirmationCode], nil when none
// is required. A refusal is a [*ResultError] with an [rsp.DownloadResult].
//
// SGP.22 v2.5, section 5.7.5 (ES10b.PrepareDownload).
func (c *Client) PrepareDownload(ctx context.Context, o rsp.DownloadOffer, hashCC []byte) ([]byte, error) {
	const fn = "ES10b.PrepareDownload"
	parts := [][]byte{o.SMDPSigned2, o.SMDPSignature2}
	if hashCC != nil { // before the certificate
		parts = append(parts, ber.Encode(0x04, hashCC))
	}
	t, err := c.call(ctx, fn, ber.Encode(0xBF21, append(parts, o.SMDPCertificate)...))
	if err != nil {
		return nil, err
	}
	code, refused, err := sessionAnswer(t, o.TransactionID)
	switch {
	case err != nil:
		return nil, malformed(fn, err)
	case refused:
		return nil, resultError(fn, rsp.DownloadResult(code))
	}
	return bytes.Clone(t.Raw), nil
}

// ErrNoResult says that the card took a whole package and gave no result.
var ErrNoResult error = fault.New(fault.Fault{Code: "installation-unknown", Text: "the card took the whole profile package and did not say what became of it", Who: fault.Device,
	Next: "look at the profiles and notifications of the card"}, nil)

// LoadBoundProfilePackage sends a package, cut by package bpp, and returns
// the card's word on it. That word may be a refusal: look at
// [rsp.ProfileInstallationResult.Err]. The error is about the way there; when
// it is not nil, the package may be installed nevertheless, and the card's
// notifications tell.
//
// Sending stops at the first answer, for a card that refuses says why at once
// and knows nothing of the rest. progress, if not nil, is called after each
// segment.
//
// SGP.22 v2.5, section 5.7.6 (ES10b.LoadBoundProfilePackage).
func (c *Client) LoadBoundProfilePackage(ctx context.Context, segments [][]byte, progress func(done, total int)) (rsp.ProfileInstallationResult, error) {
	const fn = "ES10b.LoadBoundProfilePackage"
	for i, segment := range segments {
		limit := CommandTimeout
		if i == len(segments)-1 {
			limit = LongTimeout // here the card installs
		}
		answer, err := c.storeData(ctx, segment, limit)
		if len(answer) > 0 && (err == nil || bytes.HasPrefix(answer, []byte{0xBF, 0x37})) {
			return installationResult(fn, answer)
		}
		if err != nil {
			return rsp.ProfileInstallationResult{}, fmt.Errorf("%s: segment %d of %d: %w", fn, i+1, len(segments), err)
		}
		if progress != nil {
			progress(i+1, len(segments))
		}
	}
	return rsp.ProfileInstallationResult{}, fmt.Errorf("%s: %w", fn, ErrNoResult)
}

func installationResult(fn string, answer []byte) (rsp.ProfileInstallationResult, error) {
	res, err := rsp.ParseProfileInstallationResult(answer)
	if err != nil {
		return res, malformed(fn, err)
	}
	return res, nil
}
