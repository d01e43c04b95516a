package smdp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/apdu/ber"
)

// Notification is one that arrived (SGP.22 v2.5, section 5.6.4).
type Notification struct {
	Time          time.Time         `json:"time"`
	Peer          netip.Addr        `json:"peer"`       // whence it came
	Connection    int               `json:"connection"` // see [Connection]
	SeqNumber     int64             `json:"seq"`
	Event         rsp.Event         `json:"-"`
	EventName     string            `json:"event"`
	Address       string            `json:"address"` // notificationAddress that the eUICC signed
	ICCID         rsp.ICCID         `json:"iccid"`
	EID           rsp.EID           `json:"eid"`               // of the certificate; zero when unknown
	TransactionID rsp.TransactionID `json:"transaction_id"`    // of an installation result
	Result        string            `json:"result,omitempty"`  // of an installation result: "installed", or bppCommandId/errorReason
	Verified      bool              `json:"verified"`          // signature and certificates are good
	Problem       string            `json:"problem,omitempty"` // why it is not, or what else is odd
	Duplicate     bool              `json:"duplicate"`         // the same eUICC has sent this seqNumber before
	Raw           []byte            `json:"-"`                 // as received
}

// SGP.22 v2.5, section 5.6.4 (ES9+.HandleNotification). The server takes
// everything and writes down what it found: it acknowledges what it cannot
// verify, too.
func (s *Server) handleNotification(c *call) (reply, *Status) {
	raw, status := member("pendingNotification", c.request.PendingNotification)
	n := Notification{Time: s.config.Now(), Peer: c.peer, Connection: c.record.Connection, Raw: raw}
	if status != nil {
		n.Problem = status.Message
	} else if err := s.read(&n); err != nil {
		n.Problem = err.Error()
	}
	n.EventName = n.Event.String()
	c.record.Detail = fmt.Sprintf("%s %d", n.EventName, n.SeqNumber)
	c.record.TransactionID = n.TransactionID
	for _, old := range s.notifications {
		if n.Verified && old.Verified && old.EID == n.EID && old.SeqNumber == n.SeqNumber {
			n.Duplicate = true
		}
	}
	s.notifications = append(s.notifications, n)
	if len(s.notifications) > maxLog {
		s.notifications = s.notifications[1:]
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return reply{}, nil
}

// read fills in what the notification says and verifies it.
func (s *Server) read(n *Notification) error {
	t, err := ber.Parse(n.Raw)
	if err != nil {
		return err
	}
	switch t.Tag {
	case 0xBF37:
		return s.readResult(n, t)
	case 0x30:
		return s.readOther(n, t)
	}
	return fmt.Errorf("tag %s: neither BF37 nor 30", t.Tag)
}

func (n *Notification) take(about rsp.Notification) {
	n.SeqNumber, n.Event, n.Address, n.ICCID = about.SeqNumber, about.Event, about.Address, about.ICCID
}

// readResult reads a ProfileInstallationResult. It carries no certificate: the
// eUICC is the one of the session or of the ICCID.
func (s *Server) readResult(n *Notification, t ber.TLV) error {
	result, err := rsp.ParseProfileInstallationResult(n.Raw)
	if err != nil {
		return err
	}
	n.take(result.Notification)
	n.TransactionID = result.TransactionID
	n.Result = "installed"
	if result.Failure != nil {
		n.Result = fmt.Sprintf("%d/%d", result.Failure.Command, result.Failure.Reason)
	}
	signer, ok := s.eUICCs["t"+string(result.TransactionID)]
	if !ok {
		signer, ok = s.eUICCs["i"+string(n.ICCID[:])]
	}
	if !ok {
		return errors.New("no session with this eUICC")
	}
	r := t.Reader()
	signed, sig := r.Read(0xBF27), r.Read(0x5F37)
	if err := r.Finish(); err != nil {
		return err
	}
	// The signature covers the whole BF27, tag and length included.
	if !pki.Verify(signer.certificate.Curve, signer.certificate.PublicKey, signed.Raw, sig.Value) {
		return errors.New("euiccSignPIR is wrong")
	}
	n.EID, n.Verified = signer.eid, true
	if signer.order.state == Downloaded {
		signer.order.installed(result)
	}
	if result.SMDPOID != s.OID() {
		n.Problem = "smdpOid " + result.SMDPOID
	}
	return s.checkAddressee(n)
}

// readOther reads an OtherSignedNotification, which brings its certificates.
func (s *Server) readOther(n *Notification, t ber.TLV) error {
	r := t.Reader()
	about, sig, euicc, eum := r.Read(0xBF2F), r.Read(0x5F37), r.Read(0x30), r.Read(0x30)
	if err := r.Err(); err != nil {
		return err
	}
	parsed, err := rsp.ParseNotification(about.Raw)
	if err != nil {
		return err
	}
	n.take(parsed)
	certificate, err := pki.ParseCertificate(euicc.Raw)
	if err != nil {
		return fmt.Errorf("eUICC: %w", err)
	}
	manufacturer, err := pki.ParseCertificate(eum.Raw)
	if err != nil {
		return fmt.Errorf("EUM: %w", err)
	}
	if n.EID, err = pki.VerifyEUICC(manufacturer, certificate, s.config.CIs, s.config.Now()); err != nil {
		return err
	}
	if !pki.Verify(certificate.Curve, certificate.PublicKey, about.Raw, sig.Value) {
		return errors.New("euiccNotificationSignature is wrong")
	}
	n.Verified = true
	return s.checkAddressee(n)
}

func (s *Server) checkAddressee(n *Notification) error {
	if !strings.EqualFold(n.Address, s.config.Address) {
		return fmt.Errorf("addressed to %s", n.Address)
	}
	return nil
}

// Notifications is the log, oldest first.
func (s *Server) Notifications() []Notification {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Notification(nil), s.notifications...)
}

// WaitNotification waits for the first notification in the log, old or new, that
// wanted accepts; nil accepts any. It fails when ctx ends.
func (s *Server) WaitNotification(ctx context.Context, wanted func(Notification) bool) (Notification, error) {
	seen := 0
	for {
		s.mu.Lock()
		list, changed := s.notifications, s.changed
		s.mu.Unlock()
		for _, n := range list[min(seen, len(list)):] {
			if wanted == nil || wanted(n) {
				return n, nil
			}
		}
		if seen = len(list); seen >= maxLog {
			seen = 0 // the log moves: look at all of it again
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Notification{}, fmt.Errorf("wait for a notification: %w", ctx.Err())
		}
	}
}
