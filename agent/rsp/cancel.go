package rsp

import "fmt"

// CancelReason says why a download session ends early (SGP.22 v2.5, section
// 5.7.14). Postponed and Timeout keep the order alive at the server; the
// others make the activation code worthless, so none of them stands for a
// technical failure.
type CancelReason int

// The reasons.
const (
	CancelEndUserRejection CancelReason = 0
	CancelPostponed        CancelReason = 1
	CancelTimeout          CancelReason = 2
	CancelPPRNotAllowed    CancelReason = 3
	CancelMetadataMismatch CancelReason = 4
	CancelLoadBPPError     CancelReason = 5
	CancelUndefined        CancelReason = 127
)

// String returns the specification's name.
func (r CancelReason) String() string {
	switch r {
	case CancelEndUserRejection:
		return "endUserRejection"
	case CancelPostponed:
		return "postponed"
	case CancelTimeout:
		return "timeout"
	case CancelPPRNotAllowed:
		return "pprNotAllowed"
	case CancelMetadataMismatch:
		return "metadataMismatch"
	case CancelLoadBPPError:
		return "loadBppExecutionError"
	case CancelUndefined:
		return "undefinedReason"
	}
	return fmt.Sprintf("unknown(%d)", int(r))
}

// KeepsOrder reports whether the activation code stays good after this reason.
func (r CancelReason) KeepsOrder() bool { return r == CancelPostponed || r == CancelTimeout }
