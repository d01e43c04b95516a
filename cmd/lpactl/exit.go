package main

import (
	"context"
	"errors"

	"lpad/agent/api"
)

// Exit codes. Scripts rely on them: a number never changes its meaning.
const (
	exitOK      = 0
	exitFailed  = 1   // anything without a number of its own
	exitUsage   = 2   // the command line makes no sense
	exitStopped = 130 // interrupted; the job goes on
)

// exitCodes gives kinds of trouble their numbers. The first line that fits the
// code of a problem counts.
var exitCodes = []struct {
	code string // of api.Problem
	exit int
}{
	{api.CodeNotRunning, 3},
	{api.CodeStopping, 3},
	{api.CodeNoPermission, 4},
	{api.CodeForbidden, 4},
	{api.CodeNotFound, 5},
	{api.CodeConflict, 6},
	{api.CodeBadRequest, 7},

	{"activation-code-malformed", 10},
	{"server-unknown", 11},
	{"server-silent", 12},
	{"server-certificate-untrusted", 13},
	{"server-certificate-expired", 14},
	{"test-ci-not-allowed", 15},
	{"clock-not-set", 16},
	{"server-unreachable", 17},

	{"confirmation-code-missing", 20},
	{"confirmation-code-wrong", 21},
	{"matching-id-refused", 22},
	{"consent-refused", 23},
	{"consent-timeout", 24},

	{"ppr-not-allowed", 30},
	{"card-full", 31},
	{"profile-already-installed", 32},

	{"no-service", 40},
}

// byWho is the number of a problem without one of its own.
var byWho = map[string]int{
	"operator":      25, // the server's side refused
	"card-vendor":   33, // the card refused, and nothing here mends it
	"configuration": 18,
	"technician":    8,
}

func exitCode(err error) int {
	var p *api.Problem
	var u usageError
	switch {
	case errors.As(err, &u):
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitStopped
	case !errors.As(err, &p):
		return exitFailed
	}
	for _, row := range exitCodes {
		if row.code == p.Code {
			return row.exit
		}
	}
	if code, ok := byWho[p.Who]; ok {
		return code
	}
	return exitFailed
}
