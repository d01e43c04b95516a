// Package job is the state machine of what lpad is asked to do: install a
// profile, switch to it, disable, delete or rename one.
//
// It is pure. A [Job] is a value; [Step] takes the job and one [Event] and
// returns the job's next value and the [Action] to carry out. It starts no
// goroutine, reads no clock and touches neither card nor network, so a test
// is a table and a restart is a replay. Whoever drives it (agent/runner) must
// keep one order, which is the whole of our crash safety:
//
//	decide   next, actions, err := job.Step(j, event)
//	append   write next to the journal
//	sync     make it durable
//	act      carry out the actions
//	append   their outcome is the next event
//
// Step fails with [ErrUnexpected] for an event that the state does not know;
// the job is then unchanged. Nothing else fails.
//
// # The ten steps
//
// The order the product exists for, and the states that stand for it:
//
//	 1 request                               queued
//	 2 mutual authentication, consent        authenticating, consent, preparing
//	 3 profile package loaded                loading
//	 4 installation notification delivered   reporting
//	 5 activation order                      (event; from here on the switch), scheduled
//	 6 EnableProfile, the eUICC's answer     snapshotting, gating, enabling
//	 7 terminal parameters applied           applying
//	 8 SIM read again                        rereading
//	 9 registered, bearer, probe             verifying, retrying
//	10 enable notification over new network  committing, confirming
//
// # The chart
//
// One line a transition: state, event, next state; a guard in brackets.
// TestChart holds it against the code.
//
//	queued          start          authenticating   [install]
//	queued          start          snapshotting     [enable]
//	queued          start          scheduled        [enable, at a time to come]
//	queued          start          disabling        [disable]
//	queued          start          deleting         [delete]
//	queued          start          renaming         [nickname]
//	queued          abort          cancelled
//	authenticating  authenticated  preparing        [consent given, code known]
//	authenticating  authenticated  consent          [a person must answer]
//	authenticating  authenticated  cancelling       [dry run]
//	authenticating  abort          cancelling
//	authenticating  failed         failed
//	consent         answered       preparing        [accepted]
//	consent         answered       cancelling       [refused]
//	consent         expired        cancelling
//	consent         abort          cancelling
//	consent         failed         failed
//	preparing       prepared       loading
//	preparing       interrupted    authenticating
//	preparing       abort          cancelling
//	preparing       failed         failed
//	loading         loaded         reporting
//	loading         interrupted    authenticating
//	loading         failed         notifying
//	reporting       delivered      snapshotting     [to be enabled]
//	reporting       delivered      scheduled        [to be enabled at a time to come]
//	reporting       delivered      done
//	scheduled       start          snapshotting
//	scheduled       abort          cancelled
//	snapshotting    snapshotted    gating
//	snapshotting    failed         failed
//	gating          gated          enabling
//	gating          failed         rolling-back
//	enabling        enabled        applying
//	enabling        failed         rolling-back
//	applying        applied        rereading
//	applying        failed         rolling-back     [there is a previous profile]
//	applying        failed         retrying
//	rereading       reread         verifying
//	rereading       failed         rolling-back     [there is a previous profile]
//	rereading       failed         retrying
//	verifying       online         committing
//	verifying       failed         rolling-back     [there is a previous profile]
//	verifying       failed         retrying
//	retrying        online         committing
//	retrying        failed         retrying         [tries left]
//	retrying        failed         committing
//	retrying        abort          committing
//	committing      committed      confirming
//	committing      failed         confirming
//	confirming      delivered      deleting         [old profile to be deleted]
//	confirming      delivered      done
//	confirming      delivered      failed           [never came online]
//	rolling-back    rolled-back    notifying
//	rolling-back    enabled        applying         [there is no previous profile]
//	rolling-back    failed         rolling-back     [tries left]
//	rolling-back    failed         notifying
//	rolling-back    abort          notifying
//	disabling       disabled       notifying
//	disabling       failed         failed
//	deleting        deleted        notifying
//	deleting        failed         notifying
//	renaming        renamed        done
//	renaming        failed         failed
//	cancelling      ended          cancelled        [asked for]
//	cancelling      ended          failed           [refused or expired]
//	cancelling      failed         cancelled        [asked for]
//	cancelling      failed         failed           [refused or expired]
//	notifying       delivered      done             [nothing went wrong]
//	notifying       delivered      failed
//
// A profile that is enabled where none was has nothing to go back to: it stays
// enabled, and retrying tries its access points again, for a day or so. Then,
// or when somebody aborts it or orders something else, the job commits what was
// tried last and fails with "first-profile-offline". When it was not known
// whether it had been enabled, rolling-back asks the card, and a yes leads there
// too.
//
// A switch that was ordered for a time to come waits in scheduled, where it
// needs neither card nor network and stands in nobody's way. A restart changes
// nothing about it.
//
// Any state that is not an end also knows "resumed": the daemon was
// restarted, and [Resume] says what is done then. A switch that was restarted
// more than [MaxRestarts] times before it was proven goes where "failed" leads
// from verifying.
package job
