package euicc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/pki"
)

// TestEID is the EID of the SGP.26 test eUICC; the card has it when the
// configuration names none.
var TestEID = rsp.EID{0x89, 0x04, 0x90, 0x32, 0x12, 0x34, 0x51, 0x23, 0x45, 0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x35}

// What a card has when the configuration does not say.
const (
	DefaultFreeMemory = 512 << 10 // bytes
	DefaultChannels   = 3         // logical channels besides the basic one
	maxChannels       = 19        // ETSI TS 102 221, section 11.1.17
	maxChunk          = 256       // bytes of a short response APDU
)

// Config describes a card. The zero value is a card without profiles that
// trusts nobody.
type Config struct {
	EID        rsp.EID    // zero: TestEID
	Identities []Identity // in order of preference; empty: one under a throw-away CI of its own
	Trusted    []Anchor   // the CIs whose servers are believed, in order of preference
	Info       Info       // what EUICCInfo1 and EUICCInfo2 say

	ForbiddenPPR rsp.PPR // policy rules that the card refuses in any profile
	RAT          []Rule  // Rules Authorisation Table; empty: no profile may have a policy rule

	DefaultSMDP string // default SM-DP+ address, empty: none
	RootSMDS    string // root SM-DS address, empty: testrootsmds.example.com

	Profiles   []Profile // installed at the factory; ignored when Store already holds a state
	FreeMemory int       // bytes for profiles that are to come; 0: DefaultFreeMemory, negative: none
	Channels   int       // logical channels besides the basic one, at most 19; 0: DefaultChannels, negative: none
	ATR        []byte    // nil: one that announces an eUICC
	AIDs       []rsp.AID // of the ISD-R; nil: the standard one

	Inline bool // answer data with 9000 in the same response; otherwise 61xx and GET RESPONSE, as with T=0
	Chunk  int  // most bytes in one response, 1 to 256; 0: 256

	Timing Timing
	Quirks Quirks
	Faults []Fault // injected at power on

	Store  Store     // persistent memory; nil: lost with the Card
	Random io.Reader // challenges and one-time keys; nil: crypto/rand
	// OneTimeKey makes the key pair of PrepareDownload; nil: a random one. A
	// test that knows the shared secret but not the private key sets it.
	OneTimeKey func(pki.Curve) (OneTimeKey, error)

	FirstSequence     int64 // first seqNumber of a notification
	NotificationLimit int   // notifications that fit; 0: no limit
	// FullRefuses says what happens when the notification memory is full: true,
	// the function that would make one fails; false, the oldest is dropped.
	FullRefuses bool

	OpaqueUPP    bool   // any bytes pass for a profile package; it brings no files and need not end in a PE "end"
	SIMAResponse []byte // simaResponse of a successful installation; nil: one PEStatus ok
}

// Identity is one certificate chain of the card.
type Identity struct {
	EUM   *pki.Certificate // its AKI names the CI
	EUICC *pki.Identity
}

// CI is the identifier of the CI under which the identity stands: the AKI of
// CERT.EUM, 20 bytes.
func (i Identity) CI() []byte { return i.EUM.AKI }

// Anchor is a CI as an eUICC stores it: the key and its identifier, no name
// (SGP.22 v2.5, section 2.4.2).
type Anchor struct {
	SKI       []byte
	Curve     pki.Curve
	PublicKey []byte // uncompressed point
}

// AnchorOf takes the trust anchor from a CI certificate.
func AnchorOf(ci *pki.Certificate) Anchor {
	return Anchor{SKI: ci.SKI, Curve: ci.Curve, PublicKey: ci.PublicKey}
}

// OneTimeKey is otSK.EUICC with otPK.EUICC; *pki.Key is one.
type OneTimeKey interface {
	Public() []byte                   // uncompressed point
	ECDH(peer []byte) ([]byte, error) // x coordinate, 32 bytes
}

// Info is what the card tells about itself. Zero fields have the value of a
// common 2.2 test card. Free memory and the CI lists are the card's own.
type Info struct {
	SVN            rsp.Version // of SGP.22; zero: 2.2.2
	ProfileVersion rsp.Version // of the profile package specification; zero: 2.1.0
	Firmware       rsp.Version // zero: 4.3.4
	// RSPCapability are the bits of rspCapability; nil: additionalProfile (0),
	// testProfileSupport (3) and, from SVN 2.2.2, deviceInfoExtensibility (4).
	RSPCapability  []int
	UICCCapability []int  // nil: USIM, ISIM, CSIM, Milenage …
	FreeRAM        int    // bytes; 0: 5856
	Category       int    // euiccCategory; 0: not told
	SASNumber      string // empty: "GI-BA-UP-0419"

	RawInfo1, RawInfo2 []byte // when set, the whole answer instead of what stands above
}

// Bits of rspCapability (SGP.22 v2.5, section 4.3).
const (
	capAdditionalProfile       = 0
	capCRL                     = 1
	capTestProfile             = 3
	capDeviceInfoExtensibility = 4
)

// Rule is a row of the Rules Authorisation Table (SGP.22 v2.5, section 2.9.3).
type Rule struct {
	PPR             rsp.PPR
	Operators       []rsp.Operator // nibble E of the MCC/MNC: any digit; empty GID: any
	ConsentRequired bool
}

// Profile is a profile as it is at the factory.
type Profile struct {
	ICCID           rsp.ICCID
	IMSI            string // digits; empty: no EF_IMSI
	MNCLength       int    // 2 or 3; 0: 2
	SPN             string // EF_SPN, ASCII; empty: no EF_SPN
	GID1, GID2      []byte // EF_GID1, EF_GID2; nil: no file
	ServiceProvider string // empty: "Operator"
	Name            string // empty: "Profile"
	Nickname        string
	Class           Class
	PPR             rsp.PPR
	Owner           *rsp.Operator
	Icon            []byte // a PNG, at most 1024 bytes
	Notifications   []rsp.NotificationConfiguration
	Enabled         bool
	Size            int // bytes of memory it occupies; 0: 32 kB
}

// Class is a profile class; the zero value is operational.
type Class uint8

// The classes of SGP.22 v2.5, section 2.4.5.3, shifted so that zero is the
// default of the specification.
const (
	Operational Class = iota
	Test
	Provisioning
)

// The numbers on the wire.
const (
	classTest = iota
	classProvisioning
	classOperational
)

// wire is the number on the wire.
func (c Class) wire() int {
	switch c {
	case Test:
		return classTest
	case Provisioning:
		return classProvisioning
	}
	return classOperational
}

// Timing is how slow the card is.
type Timing struct {
	PerAPDU time.Duration
	PerByte time.Duration // for each byte of command and response
	Clock   Clock         // nil: the time is accounted, it does not pass
}

// Clock lets time pass. What the software needs for a command counts: the card
// sleeps for the rest only.
type Clock interface {
	Now() time.Time
	Sleep(ctx context.Context, d time.Duration) error
}

// RealTime is the clock of the lab.
type RealTime struct{}

// Now is the time of the machine.
func (RealTime) Now() time.Time { return time.Now() }

// Sleep waits until d is over or ctx is done.
func (RealTime) Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Quirks are lasting habits of a card, each of them seen in the field. The zero
// value follows the specification.
type Quirks struct {
	RefuseRefresh         bool      // Enable and Disable with refreshFlag TRUE answer 127
	RefuseNoRefresh       bool      // the same with refreshFlag FALSE
	AIDOnly               bool      // Enable, Disable and Delete by ICCID answer 1, not found
	ResetAfterSwitch      bool      // after Enable, Disable or a memory reset, ES10 answers 6985 until a reset
	RefreshIsPlain        bool      // no 91xx after refreshFlag TRUE: the device has to reset by itself
	StateChangeRefresh    bool      // REFRESH "eUICC Profile State Change" (09) instead of "UICC Reset" (04)
	NeedsTermCapability   bool      // SELECT ISD-R fails until TERMINAL CAPABILITY has announced an LPAd
	ChannelCloseAborts    bool      // closing the channel, or selecting again, during LoadBoundProfilePackage ends it with errorReason 11
	InterruptionSilent    bool      // no installation result with errorReason 11 after a power cut while loading
	ForgetsOneTimeKey     bool      // otPK.EUICC of an interrupted download is not kept for a retry
	LooseEvents           bool      // events of a notification as 00 80 instead of 07 80
	LooseDeviceInfo       bool      // unknown members of deviceInfo pass although deviceInfoExtensibilitySupport is not announced
	EmptyRetrieve         bool      // RetrieveNotificationsList without a hit: an empty list instead of noResultAvailable(1)
	WholeSequences        bool      // all 87 of a sequence may come in one segment, as some LPAs send them
	LongSegments          bool      // segments of a package may have 1036 bytes, not 1020: one server in use cuts the profile without counting the padding
	WrongBlockIsCondition bool      // a wrong block number is 6985 instead of 6A80
	RevertTo              rsp.ICCID // this profile enables itself at every reset (an SGP.32 fallback)
	BareICCID             rsp.ICCID // EF_ICCID when no profile is enabled; zero: no file
}

// check completes a configuration and refuses an impossible one.
func (c *Config) check() error {
	if c.EID.IsZero() {
		c.EID = TestEID
	}
	if c.RootSMDS == "" {
		c.RootSMDS = "testrootsmds.example.com"
	}
	if c.AIDs == nil {
		c.AIDs = []rsp.AID{rsp.ISDR}
	}
	switch {
	case c.FreeMemory == 0:
		c.FreeMemory = DefaultFreeMemory
	case c.FreeMemory < 0:
		c.FreeMemory = 0
	}
	switch {
	case c.Channels == 0:
		c.Channels = DefaultChannels
	case c.Channels < 0:
		c.Channels = 0
	case c.Channels > maxChannels:
		return fmt.Errorf("%d logical channels, at most %d are possible", c.Channels, maxChannels)
	}
	if c.Chunk == 0 {
		c.Chunk = maxChunk
	}
	if c.Chunk < 1 || c.Chunk > maxChunk {
		return fmt.Errorf("responses of %d bytes, 1 to %d are possible", c.Chunk, maxChunk)
	}
	for _, a := range c.Trusted {
		if len(a.SKI) == 0 || len(a.PublicKey) == 0 {
			return errors.New("a trust anchor without key or identifier")
		}
	}
	for _, i := range c.Identities {
		if i.EUM == nil || i.EUICC == nil || i.EUICC.Certificate == nil || i.EUICC.Key == nil {
			return errors.New("an identity without EUM, certificate or key")
		}
	}
	c.Info.complete()
	return nil
}

// complete fills in what a common test card says.
func (i *Info) complete() {
	if i.SVN.IsZero() {
		i.SVN = rsp.Version{2, 2, 2}
	}
	if i.ProfileVersion.IsZero() {
		i.ProfileVersion = rsp.Version{2, 1, 0}
	}
	if i.Firmware.IsZero() {
		i.Firmware = rsp.Version{4, 3, 4}
	}
	if i.RSPCapability == nil {
		i.RSPCapability = []int{capAdditionalProfile, capTestProfile}
		if i.SVN.Compare(rsp.Version{2, 2, 2}) >= 0 {
			i.RSPCapability = append(i.RSPCapability, capDeviceInfoExtensibility)
		}
	}
	if i.UICCCapability == nil {
		i.UICCCapability = []int{1, 2, 3, 4, 5, 6, 7, 10, 11, 13, 14, 16, 17}
	}
	if i.FreeRAM == 0 {
		i.FreeRAM = 0x16E0
	}
	if i.SASNumber == "" {
		i.SASNumber = "GI-BA-UP-0419"
	}
}
