package main

import (
	"context"
	"errors"
	"slices"

	"lpad/agent/api"
)

// Exit codes. Scripts rely on them: a number never changes its meaning.
const (
	exitOK       = 0
	exitFailed   = 1   // anything without a number of its own
	exitUsage    = 2   // the command line makes no sense
	exitWarnings = 60  // lpactl doctor: nothing is wrong, something is to be looked at
	exitStopped  = 130 // interrupted; the job goes on
)

// exitCodes gives kinds of trouble their numbers: those that a script tells
// apart have one of their own, and what is mended in the same way shares one.
// The first line that fits the code of a problem counts.
var exitCodes = []struct {
	exit  int
	codes []string // of api.Problem
}{
	// lpad itself, and the order as it was given
	{3, []string{api.CodeNotRunning, api.CodeStopping}},
	{4, []string{api.CodeNoPermission, api.CodeForbidden, api.CodeNotLocal}},
	{5, []string{api.CodeNotFound, api.CodeCardUnknown, "profile-not-found"}},
	{6, []string{api.CodeConflict, "queue-full", "profile-already-enabled", "profile-already-disabled", "profile-in-use", "relay-attached", "apdu-refused", "parameters-outdated", "parameters-full"}},
	{7, []string{api.CodeBadRequest, api.CodeCardAmbiguous, api.CodeTooLarge, "parameters-invalid", "nickname-invalid", "iccid-malformed"}},

	// the way to the server, and who it is
	{10, []string{"activation-code-malformed", "activation-code-unsupported", "activation-code-address", "server-address-invalid"}},
	{11, []string{"host-unknown"}},
	{12, []string{"server-silent"}},
	{13, []string{"certificate-foreign", "ci-not-trusted", "ci-not-on-card", "certificate-wrong-usage", "certificate-wrong-role", "certificate-unsupported"}},
	{14, []string{"certificate-expired", "certificate-not-yet-valid"}},
	{15, []string{"test-ci-not-allowed"}},
	{16, []string{"clock-not-set"}},
	{17, []string{"connection-refused", "connection-lost", "no-network", "dns-unavailable", "server-unreachable", "server-unavailable",
		"interface-missing", "relay-lost", "relay-refused", "tls-refused", "tls-failed", "not-tls"}},
	{19, []string{"certificate-wrong-host"}},

	// the order, as the operator sees it
	{20, []string{"confirmation-code-missing"}},
	{21, []string{"confirmation-code-wrong"}},
	{22, []string{"matching-id-refused"}},
	{23, []string{"consent-refused"}},
	{24, []string{"consent-timeout"}},
	{26, []string{"confirmation-tries-exhausted", "download-tries-exhausted", "order-expired"}},
	{27, []string{"eid-refused", "iccid-of-other-eid", "profile-of-other-eid"}},
	{28, []string{"server-oid-mismatch", "server-address-mismatch"}},
	{29, []string{"server-answer-invalid", "server-session-mismatch", "server-challenge-mismatch", "server-signature-refused", "server-certificate-refused",
		"package-malformed", "package-stale", "metadata-mismatch", "wrong-server", "server-redirects"}},

	// the profile, as the card sees it
	{30, []string{"ppr-not-allowed", "disallowed-by-policy"}},
	{31, []string{"card-full", "card-memory"}},
	{32, []string{"profile-already-installed"}},
	{34, []string{"package-structure", "package-security", "package-signature", "package-keys-unsupported", "package-operation-unsupported",
		"profile-data-mismatch", "profile-not-supported", "profile-class-unsupported", "test-profile-key", "installation-failed"}},
	{35, []string{"installation-interrupted", "installation-unknown", "outcome-unknown"}},

	{36, []string{"consent-needed"}}, // the job waits: nothing is lost
	{37, []string{"cancelled"}},      // somebody has aborted the job

	{38, []string{"nothing-pending"}}, // no profile is waiting at the server

	// the network after a switch; the profile of before is back
	{40, []string{"no-service", "not-registered", "no-bearer", "apn-refused", "no-link", "probe-failed", "modem-shows-old-sim",
		"no-network-service", "network-refused", "network-silent", "registration-denied", "card-fell-back"}},

	// the previous profile could not be brought back either: somebody must look at the device
	{41, []string{"rollback-failed"}},

	{42, []string{"first-profile-offline"}},                  // there was no profile to go back to
	{43, []string{"last-known-good", "profile-quarantined"}}, // lpad keeps the device from losing its network

	{44, []string{"disk-full", "disk-read-only"}}, // jobs stand still until the disk takes the journal

	// signed orders
	{45, []string{"signed-order-malformed", "signed-order-algorithm", "signed-order-header", "signed-order-key", "signed-order-signature"}}, // not believed
	{46, []string{"signed-order-invalid", "signed-order-expired", "signed-order-early", "signed-order-device", "signed-order-profile", "signed-order-replayed"}},
	{47, []string{"signed-order-needed"}}, // the device takes signed orders only

	// the way to the card
	{50, []string{"wrong-slot", "no-euicc", "pcsc-no-card", "pcsc-card-mute", "sim-missing"}},
	{51, []string{"pcsc-no-reader", "pcsc-no-service", "pcsc-lost", "modem-absent", "modem-hangup", "port-missing"}},
	{52, []string{"pcsc-helper-missing", "pcsc-helper"}},
	{53, []string{"card-twice", "port-busy", "port-denied", "port-wrong", "pcsc-in-use", "pcsc-denied"}},
	{54, []string{"modem-silent", "pcsc-stuck", "timeout"}},
	{55, []string{"card-answer", "card-endless-response", "modem-truncated", "modem-malformed", "modem-no-final", "modem-answer-too-long"}},
	{56, []string{"card-status", "card-channel-closed", "card-conditions", "card-security", "card-malformed", "card-unsupported", "card-not-found",
		"card-no-channel", "card-busy", "card-session-lost", "card-connection", "card-undefined-error", "no-sim-reset", "pcsc-error"}},
	{57, []string{"modem-error", "modem-not-supported", "modem-not-allowed", "modem-busy", "modem-bad-parameter", "modem-not-found", "modem-aborted",
		"sim-locked", "sim-failure"}},
}

// byWho is the number of a problem without one of its own.
var byWho = map[string]int{
	"technician":    8,
	"device":        9,  // lpad or the device itself; trying again may help
	"configuration": 18, // of lpad
	"operator":      25, // the server's side refused
	"card-vendor":   33, // the card refused, and nothing here mends it
}

func exitCode(err error) int {
	var p *api.Problem
	var u usageError
	switch {
	case errors.As(err, &u):
		return exitUsage
	case errors.Is(err, errWarnings):
		return exitWarnings
	case errors.Is(err, context.Canceled):
		return exitStopped
	case !errors.As(err, &p):
		return exitFailed
	}
	for _, row := range exitCodes {
		if slices.Contains(row.codes, p.Code) {
			return row.exit
		}
	}
	if code, ok := byWho[p.Who]; ok {
		return code
	}
	return exitFailed
}
