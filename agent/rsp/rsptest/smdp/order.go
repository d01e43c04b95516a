package smdp

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/bsp"
	"lpad/agent/rsp/rsptest/pki"
)

// OrderState is where an order stands (SGP.22 v2.5, section 3.1.6).
type OrderState string

// The states of an order.
const (
	Allocated  OrderState = "allocated"  // made, not yet released by the operator: 8.2/1.2
	Released   OrderState = "released"   // may be downloaded
	Downloaded OrderState = "downloaded" // a package was handed out; may be downloaded again by the same eUICC
	Installed  OrderState = "installed"  // the eUICC has reported success; the matching id is used up
	Failed     OrderState = "error"      // the eUICC has reported a failure that a retry does not mend
	Cancelled  OrderState = "cancelled"  // the user or the LPA has refused it for good
)

// Order is a download order as an operator places it (ES2+).
type Order struct {
	MatchingID       string  // empty: a default order, found by EID
	EID              rsp.EID // zero: whoever comes first
	UPP              []byte
	Metadata         Metadata
	ConfirmationCode string // not kept; its hash is
	CodeTries        int    // wrong confirmation codes allowed; 3 when zero
	Downloads        int    // packages handed out at most; 10 when zero
	Expires          time.Time
	Unreleased       bool     // starts as Allocated; see [Server.Release]
	TACs             []string // 8 digits each: devices that may have it; empty: all

	Proprietary  []byte // dpProprietaryData for ConfigureISDP, where SGP.22 has it: a whole TLV B8; nil: none
	SegmentSize  int    // bytes of a full segment; 1020 when zero
	MetadataSize int    // bytes of a full segment of metadata; SegmentSize when zero
	ProfileKeys  bool   // protect the profile with keys of its own (ReplaceSessionKeys)
	RefuseRebind bool   // refuse 8.2/3.7 when the eUICC comes back with another one-time key
	RetryOnError bool   // every reported failure leaves the order Downloaded
}

// order is one with its state. Under the server's lock.
type order struct {
	Order
	state     OrderState
	codeHash  []byte // SHA-256 of the confirmation code; nil: none needed
	tries     int
	downloads int
	bound     *binding
	result    string // of the last ProfileInstallationResult
	tac, imei string // of the last device that asked for it
}

// binding ties a package to an eUICC and its one-time key.
type binding struct {
	eid    rsp.EID
	otPK   []byte   // otPK.EUICC
	key    *pki.Key // otSK.DP
	ppk    *bsp.Keys
	hostID string
}

// The defaults of an order.
const (
	defaultCodeTries = 3
	defaultDownloads = 10
)

// AddOrder books an order. A matching id, or the EID of a default order, must
// not be in use by an order that can still be downloaded.
func (s *Server) AddOrder(o Order) error {
	if o.MatchingID == "" && o.EID.IsZero() {
		return errors.New("add order: neither matching id nor EID")
	}
	if len(o.UPP) == 0 || o.Metadata.ICCID.IsZero() {
		return errors.New("add order: no profile")
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = bsp.MaxSegment
	}
	if o.MetadataSize == 0 {
		o.MetadataSize = o.SegmentSize
	}
	for _, size := range []int{o.SegmentSize, o.MetadataSize} {
		if size > bsp.MaxSegment || bsp.MaxPlain(bsp.Tag86, size) < 1 {
			return fmt.Errorf("add order: segments of %d bytes", size)
		}
	}
	if o.CodeTries == 0 {
		o.CodeTries = defaultCodeTries
	}
	if o.Downloads == 0 {
		o.Downloads = defaultDownloads
	}
	record := &order{state: Released}
	if o.Unreleased {
		record.state = Allocated
	}
	if o.ConfirmationCode != "" {
		hash := sha256.Sum256([]byte(o.ConfirmationCode))
		record.codeHash = hash[:]
		o.ConfirmationCode = ""
	}
	record.Order = o
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.orders {
		if other.open() && other.MatchingID == o.MatchingID && (o.MatchingID != "" || other.EID == o.EID) {
			return errors.New("add order: the matching id is in use")
		}
	}
	s.orders = append(s.orders, record)
	return nil
}

// Release lets an unreleased order be downloaded (ES2+.ConfirmOrder). It
// reports whether there was one.
func (s *Server) Release(matchingID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.orders {
		if o.MatchingID == matchingID && o.state == Allocated {
			o.state = Released
			return true
		}
	}
	return false
}

// Orders is the order book as it is now, oldest first.
func (s *Server) Orders() []OrderStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []OrderStatus
	for _, o := range s.orders {
		list = append(list, o.status())
	}
	return list
}

// Order is the newest order with this matching id.
func (s *Server) Order(matchingID string) (OrderStatus, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.orders) - 1; i >= 0; i-- {
		if s.orders[i].MatchingID == matchingID {
			return s.orders[i].status(), true
		}
	}
	return OrderStatus{}, false
}

// OrderStatus is an order as it stands.
type OrderStatus struct {
	MatchingID string     `json:"matching_id"`
	EID        rsp.EID    `json:"eid"` // that it was placed for or is bound to; zero: none yet
	ICCID      rsp.ICCID  `json:"iccid"`
	Name       string     `json:"name"`
	State      OrderState `json:"state"`
	Code       bool       `json:"confirmation_code"` // one is needed
	WrongCodes int        `json:"wrong_codes"`
	Downloads  int        `json:"downloads"`      // packages handed out
	Size       int        `json:"size"`           // bytes of the profile
	Result     string     `json:"result"`         // of the last ProfileInstallationResult, "" before one came
	TAC        string     `json:"tac,omitempty"`  // of the device that asked for it last, by its signed word
	IMEI       string     `json:"imei,omitempty"` // the same; empty: it was not told
}

func (o *order) status() OrderStatus {
	st := OrderStatus{
		MatchingID: o.MatchingID, EID: o.EID, ICCID: o.Metadata.ICCID, Name: o.Metadata.Name, State: o.state,
		Code: o.codeHash != nil, WrongCodes: o.tries, Downloads: o.downloads, Size: len(o.UPP), Result: o.result, TAC: o.tac, IMEI: o.imei,
	}
	if o.bound != nil {
		st.EID = o.bound.eid
	}
	return st
}

// open reports whether the order can still lead to a download.
func (o *order) open() bool {
	return o.state == Allocated || o.state == Released || o.state == Downloaded
}

// find is the matching of an authenticated eUICC with an order (SGP.22 v2.5,
// section 5.6.3): by matching id, or by EID when it sent none. Then it is the
// EID that is refused (SGP.23, authenticateClient, error sequence 14).
func (s *Server) find(matchingID string, eid rsp.EID) (*order, *Status) {
	for _, o := range s.orders {
		switch {
		case !o.open() || o.MatchingID != matchingID:
		case matchingID == "" && o.EID != eid:
		default:
			return o, s.eligible(o, eid)
		}
	}
	if matchingID == "" {
		return nil, refuse("8.1.1", "3.8", "no order for this eUICC")
	}
	return nil, refuse("8.2.6", "3.8", "no order for this matching id")
}

func (s *Server) eligible(o *order, eid rsp.EID) *Status {
	switch {
	case !o.open():
		return refuse("8.2.6", "3.8", "the order is "+string(o.state))
	case !o.EID.IsZero() && o.EID != eid, o.bound != nil && o.bound.eid != eid:
		return refuse("8.1.1", "3.8", "the order is for another eUICC")
	case o.state == Allocated:
		return refuse("8.2", "1.2", "the profile is not released")
	case !o.Expires.IsZero() && s.config.Now().After(o.Expires):
		return refuse("8.8.5", "4.10", "the order has expired")
	case o.downloads >= o.Downloads:
		return refuse("8.8.5", "6.4", "downloaded too often")
	case o.tries >= o.CodeTries:
		return refuse("8.2.7", "6.4", "too many wrong confirmation codes")
	}
	return nil
}

// checkCode compares the hash that the eUICC has signed (SGP.22 v2.5, section
// 5.6.2): SHA-256 over SHA-256 of the code and the transactionId.
func (o *order) checkCode(hashCc []byte, transactionID rsp.TransactionID) *Status {
	if o.codeHash == nil {
		return nil
	}
	if hashCc == nil {
		return refuse("8.2.7", "2.2", "confirmation code missing")
	}
	want := sha256.Sum256(append(bytes.Clone(o.codeHash), transactionID...))
	if subtle.ConstantTimeCompare(want[:], hashCc) == 1 {
		return nil
	}
	if o.tries++; o.tries >= o.CodeTries {
		return refuse("8.2.7", "6.4", "too many wrong confirmation codes")
	}
	return refuse("8.2.7", "3.8", "wrong confirmation code")
}

// installed takes the outcome that the eUICC has signed.
func (o *order) installed(result rsp.ProfileInstallationResult) {
	o.result = "installed"
	if result.Failure == nil {
		o.state = Installed
		return
	}
	o.result = fmt.Sprintf("%d/%d", result.Failure.Command, result.Failure.Reason)
	if !o.RetryOnError && !worthRetry(int(result.Failure.Reason)) && o.state == Downloaded {
		o.state = Failed
	}
}

// worthRetry are the errorReasons that say nothing against the profile itself:
// table 3.5 of the project's brief.
func worthRetry(reason int) bool {
	switch reason {
	case 1, 3, 7, 8, 10, 11, 127: // malformed, stale, segments lost, memory, interruption, unknown
		return true
	}
	return false
}

// Event is a pending event of an SM-DS (SGP.22 v2.5, section 3.6).
type Event struct {
	EID     rsp.EID
	ID      string // eventId: the matching id at the other server
	Address string // rspServerAddress: of the SM-DP+, or of another SM-DS
}

// AddEvent registers an event at an SM-DS (ES12.RegisterEvent).
func (s *Server) AddEvent(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// DeleteEvent removes an event (ES12.DeleteEvent). It reports whether there was
// one.
func (s *Server) DeleteEvent(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range s.events {
		if e.ID == id {
			s.events = append(s.events[:i], s.events[i+1:]...)
			return true
		}
	}
	return false
}
