package smdp

import (
	"time"

	"lpad/agent/rsp/rsptest/pki"
)

// Function is a function of ES9+ or ES11, by the last part of its path.
type Function string

// The functions (SGP.22 v2.5, sections 5.6 and 5.8).
const (
	InitiateAuthentication Function = "initiateAuthentication"
	AuthenticateClient     Function = "authenticateClient"
	GetBoundProfilePackage Function = "getBoundProfilePackage"
	CancelSession          Function = "cancelSession"
	HandleNotification     Function = "handleNotification"
)

// Kind is what a fault does.
type Kind string

// Faults of any function.
const (
	Refuse        Kind = "refuse"          // status Failed with Subject and Reason; nothing is done
	HTTPError     Kind = "http-error"      // the HTTP status, no body; nothing is done
	Drop          Kind = "drop"            // the connection is closed; nothing is done
	DropAnswer    Kind = "drop-answer"     // the function is done, the answer is lost
	CutAnswer     Kind = "cut-answer"      // half of the answer, then the connection is closed
	Stall         Kind = "stall"           // no answer until the client goes; nothing is done
	Slow          Kind = "slow"            // the answer comes after Delay
	NotJSON       Kind = "not-json"        // an HTML page with status 200
	HugeAnswer    Kind = "huge-answer"     // an answer of 32 MiB
	NoHeader      Kind = "no-header"       // the answer without its header
	LowerCaseID   Kind = "lower-case-id"   // transactionId in lower-case hex: clients must not mind
	Base64Lines   Kind = "base64-lines"    // line breaks in base64: clients must not mind
	OtherReplyID  Kind = "other-reply-id"  // another transactionId in the JSON than in the signed data
	FlipSignature Kind = "flip-signature"  // one bit of serverSignature1, smdpSignature2 or smdpSign
	OtherSignedID Kind = "other-signed-id" // another transactionId in the signed data, rightly signed
	OtherIdentity Kind = "other-identity"  // certificate and key of Identity: wrong role, OID or CI
)

// Faults of single functions.
const (
	OtherChallenge Kind = "other-challenge" // initiateAuthentication: euiccChallenge that the eUICC did not send
	OtherAddress   Kind = "other-address"   // initiateAuthentication: serverAddress
	OtherCI        Kind = "other-ci"        // initiateAuthentication: euiccCiPKIdToBeUsed that nobody has
	OtherMetadata  Kind = "other-metadata"  // getBoundProfilePackage: another name than in authenticateClient
	Truncate       Kind = "truncate"        // getBoundProfilePackage: the last 100 bytes are missing
	No86           Kind = "no-86"           // … no profile elements
	ExtraTag       Kind = "extra-tag"       // … an unknown element at the end
	Swap86         Kind = "swap-86"         // … the first two segments of the profile change places
	BadMAC         Kind = "bad-mac"         // … one bit of the MAC of the last segment
	BadMetadata    Kind = "bad-metadata"    // … one bit of StoreMetadata, of its dpProprietaryData if it has any, with the MAC of what it was
	BadConfigure   Kind = "bad-configure"   // … one bit of ConfigureISDP, which is encrypted, with the MAC of what it was
	BadRemoteOp    Kind = "bad-remote-op"   // … remoteOpId 2, rightly signed
)

// Fault is something that goes wrong at one function.
type Fault struct {
	Function Function // empty: at every function
	Kind     Kind
	Skip     int // calls that go well before
	Times    int // calls that go wrong then; 0: all

	Subject  string        // Refuse
	Reason   string        // Refuse
	HTTP     int           // HTTPError; 500 when zero
	After    string        // HTTPError: its Retry-After
	Delay    time.Duration // Slow
	Identity *pki.Identity // OtherIdentity

	calls int
}

// Inject adds a fault. Of several that fit a call the oldest acts.
func (s *Server) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// ClearFaults removes all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// faultFor is the fault of this call; the zero Fault does nothing.
func (s *Server) faultFor(fn Function) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.Function != "" && f.Function != fn || f.Times > 0 && f.calls >= f.Skip+f.Times {
			continue
		}
		if f.calls++; f.calls > f.Skip {
			return *f
		}
	}
	return Fault{}
}

// flip returns a copy with the lowest bit of the last byte changed.
func flip(b []byte) []byte {
	c := append([]byte(nil), b...)
	c[len(c)-1] ^= 1
	return c
}
