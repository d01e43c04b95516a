// Package desired is the declarative state of a device: files that say which
// profiles it shall have (docs/fleet.md), and what is still to be done for that.
//
//	d, err := desired.Parse("meter.yaml", text, read) // one file
//	list = append(list, d)
//	lines, step := desired.Decide(list, card, entries) // how it stands, and what comes next
//	entries = desired.After(entries, before, next, e, eid)
//
// A declaration is converged to once: its generation is a hash of what its file
// says, and what was done for a generation is remembered in an [Entry], whatever
// people do with the profile later. The profile itself carries the declaration's
// mark in its nickname, so that a device which has lost its memory finds it on the
// card and does not use the activation code again.
//
// Everything in here is pure: who reads files, orders jobs and keeps entries is
// agent and agent/runner.
package desired
