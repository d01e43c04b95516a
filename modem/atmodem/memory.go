package atmodem

import (
	"strings"
	"sync"
)

// Memory is what a modem has said that outlives a [Modem] and its line: which
// command for the ICCID it knows, and what it showed before the card was
// touched. Who opens the line anew gives the next Modem the Memory of the last
// one ([WithMemory]). It is safe for concurrent use.
//
// Whoever opens a channel to the card says so ([Memory.Touched]): from then on
// the card may hold another profile than the modem has read, and messages about
// the SIM that came before prove nothing any more. Who answers for the card passes
// its 91xx on ([Memory.Pending]), and who reads the line what the modem says of its
// own accord ([Memory.Heard]).
type Memory struct {
	mu      sync.Mutex
	command string            // for the ICCID, that worked last
	urcs    []string          // beginnings of messages that tell of a changed SIM, of the quirks
	heard   bool              // such a message came since the card was touched
	pending bool              // the card has asked for the modem's attention since then
	before  identity          // the subscription that the modem showed before that
	proven  string            // ICCID that the modem was proven to have read last, and
	as      identity          // the subscription that it showed then; see isProven
	imsis   map[string]string // of the profiles that it was proven to have read, by ICCID
}

// identity is an IMSI, or the certainty that the modem shows none.
type identity struct {
	known bool
	imsi  string // empty: none
}

// ICCIDCommand is the command for the ICCID that this modem knows; "" is not
// known yet.
func (k *Memory) ICCIDCommand() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.command
}

// Remember says which command for the ICCID worked in an earlier life.
func (k *Memory) Remember(command string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.command == "" {
		k.command = command
	}
}

// Forget empties the memory: it is another modem.
func (k *Memory) Forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.command, k.urcs, k.heard, k.pending, k.before, k.proven, k.as, k.imsis = "", nil, false, false, identity{}, "", identity{}, nil
}

// Touched is to be called before the card may change behind the modem's back.
func (k *Memory) Touched() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.heard, k.pending = false, false
}

// Pending is to be called when the card has answered with 91xx: it has a command
// for the modem, after a switch as a rule REFRESH, and the modem is about to fetch
// it.
func (k *Memory) Pending() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pending, k.proven = true, ""
}

func (k *Memory) isPending() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pending
}

// Heard takes a message of the modem. It reports whether it tells of a SIM that
// the modem has noticed to be gone, changed, or read again.
func (k *Memory) Heard(line string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	is := (begins(line, simMessages) || begins(line, k.urcs)) && !begins(line, otherMessages)
	if is {
		k.heard, k.proven = true, ""
	}
	return is
}

func (k *Memory) hasHeard() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.heard
}

func (k *Memory) prove(iccid string, now identity) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.proven, k.as, k.before, k.heard, k.pending = iccid, now, now, false, false
	if now.imsi == "" {
		return
	}
	if k.imsis == nil || len(k.imsis) >= maxProfiles {
		k.imsis = map[string]string{}
	}
	k.imsis[iccid] = now.imsi
}

// maxProfiles bounds the profiles whose IMSI is known; cards have some tens at most.
const maxProfiles = 32

// speaksFor reports that a subscription is that of a profile: the one that the
// profile had before, or, of a profile that was never seen, another one than
// before, and nobody else's.
func (k *Memory) speaksFor(iccid string, now identity) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.imsi == "" {
		return false
	}
	for of, imsi := range k.imsis {
		if of != iccid && imsi == now.imsi {
			return false // another profile's, or of two: test profiles share one
		}
	}
	if imsi, ok := k.imsis[iccid]; ok {
		return imsi == now.imsi
	}
	return k.before.known && now.imsi != k.before.imsi
}

// isProven reports that nothing has made the modem read the SIM again since it
// was proven to have read this profile: then it still has. A re-read of another
// profile begins with disprove.
func (k *Memory) isProven(iccid string, now identity) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.proven == iccid && now.known && now == k.as
}

func (k *Memory) disprove(but string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.proven != but {
		k.proven = ""
	}
}

// simMessages begin the messages that modems send when a SIM went or was read
// again, and at no other time (lab notes, section F). "+CIEV" is not among them:
// it tells of signal strength too.
var simMessages = []string{"+CPIN:", "+QUSIM:", "^SCKS:", "#QSS:", "+SIM:", "+SIM DROP", "+UUSIMSTAT:", "^SIMST:", `%NOTIFYEV: "SIMREFRESH"`, "SIM DROP", "SIM REMOVED", "SIM INSERTED"}

// otherMessages begin messages of the same names that tell of no SIM that was read
// again: a REFRESH that failed or waits (u-blox), and indicators of any kind, of
// which the SIM's has another number on each modem.
var otherMessages = []string{"+UUSIMSTAT: 10", "+UUSIMSTAT: 11", "+CIEV"}

// wakeMessages begin further ones that go with a SIM that becomes ready.
var wakeMessages = []string{"+CIEV", "+QIND", "PB DONE", "%NOTIFYEV"}

// bootMessages begin the messages of a modem that has just started.
var bootMessages = []string{"RDY", "APP RDY", "ATREADY", "START", "^SYSSTART", "+CFUN: 1", "POWERED DOWN", "NORMAL POWER DOWN"}

func begins(line string, with []string) bool {
	line = strings.ToUpper(line)
	for _, p := range with {
		if strings.HasPrefix(line, strings.ToUpper(p)) {
			return true
		}
	}
	return false
}
