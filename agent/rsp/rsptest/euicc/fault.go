package euicc

import "lpad/apdu/ber"

// Action is what a Fault does.
type Action int

// The actions. "Executed" means that the card does what was asked before the
// fault strikes.
const (
	Refuse        Action = iota // not executed; the answer is the status word SW
	RefuseAfter                 // executed; the answer is the status word SW alone
	LoseAnswer                  // executed; Transmit fails with ErrAnswerLost
	LoseCommand                 // not executed; Transmit fails with ErrLinkBroken
	CutPower                    // not executed; no power until Reset
	CutPowerAfter               // executed; no power until Reset
	AnswerResult                // not executed; the function answers with the result code Result (80), as catBusy
	TamperAnswer                // executed; Tamper changes the answer of the function
	FailLoad                    // LoadBoundProfilePackage ends with Command and Result
)

// Fault is something that goes wrong at a chosen point. Of the four places
// APDU, Function, BPPByte and Commit those that are set must all be met; when
// none is set the fault meets the next APDU.
type Fault struct {
	Do Action

	APDU     int     // the k-th APDU from now on, 1 is the next one
	Function ber.Tag // the command with this tag, when its last block has come; BF36 is every segment of a package
	BPPByte  int     // the block that carries the n-th byte of a Bound Profile Package, 1 is the first
	Commit   int     // the k-th write of persistent memory from now on, 1 is the next one; CutPower and CutPowerAfter only
	Segment  int     // FailLoad: at this segment, 1 is the first; 0: at the first one of Command

	Times int // how often; 0: once, negative: always

	SW      uint16                     // Refuse, RefuseAfter
	Result  int                        // AnswerResult: result code; FailLoad: errorReason
	Command int                        // FailLoad: bppCommandId
	Tamper  func(answer []byte) []byte // TamperAnswer; must not keep the slice
}

// Ready-made faults of the field.
var (
	// Busy is the status word of a card whose toolkit is busy.
	Busy = Fault{Do: Refuse, SW: 0x9300}
	// Checksum is the status word with which some readers report a garbled
	// transmission.
	Checksum = Fault{Do: Refuse, SW: 0x6601}
)

// Truncate cuts an answer down to n bytes.
func Truncate(n int) func([]byte) []byte {
	return func(b []byte) []byte { return b[:min(n, len(b))] }
}

// FlipBit turns one bit of an answer over; bit 0 is the highest of the first
// byte.
func FlipBit(bit int) func([]byte) []byte {
	return func(b []byte) []byte {
		out := append([]byte(nil), b...)
		if bit/8 < len(out) {
			out[bit/8] ^= 0x80 >> (bit % 8)
		}
		return out
	}
}

// Replace gives another answer.
func Replace(with []byte) func([]byte) []byte {
	return func([]byte) []byte { return append([]byte(nil), with...) }
}

// Inject arms faults, after those that are armed already. Where several meet,
// the first one strikes.
func (c *Card) Inject(faults ...Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range faults {
		c.arm(f)
	}
}

// ClearFaults disarms all faults.
func (c *Card) ClearFaults() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
}

type armedFault struct {
	Fault
	apdus   int // APDUs to go, when APDU is set
	commits int // writes to go, when Commit is set
	left    int // how often it will strike, negative: for ever
}

func (c *Card) arm(f Fault) {
	a := &armedFault{Fault: f, apdus: f.APDU, commits: f.Commit, left: f.Times}
	if a.left == 0 {
		a.left = 1
	}
	c.faults = append(c.faults, a)
}

// atWire says whether the place of the fault is an APDU as such.
func (f *armedFault) atWire() bool {
	return f.Function == 0 && f.Commit == 0 && f.Do != FailLoad && f.Do != AnswerResult && f.Do != TamperAnswer
}

func (f *armedFault) executes() bool {
	return f.Do == RefuseAfter || f.Do == LoseAnswer || f.Do == CutPowerAfter
}

// use counts a strike.
func (f *armedFault) use() *armedFault {
	if f.left > 0 {
		f.left--
	}
	return f
}

// wireFault counts the APDU and gives the fault that it meets.
func (c *Card) wireFault(command []byte) *armedFault {
	reached := c.bppReach(command)
	var met *armedFault
	for _, f := range c.faults {
		if f.apdus > 1 {
			f.apdus--
			continue
		}
		if met != nil || f.left == 0 || !f.atWire() || f.BPPByte > 0 && !reached(f.BPPByte) {
			continue
		}
		met = f.use()
	}
	return met
}

// functionFault gives the fault that a complete function command meets, of the
// kinds that are wanted.
func (c *Card) functionFault(function ber.Tag, wanted ...Action) *armedFault {
	for _, f := range c.faults {
		if f.left == 0 || f.atWire() || f.apdus > 1 || f.Commit != 0 {
			continue
		}
		if f.Function != 0 && f.Function != function {
			continue
		}
		for _, w := range wanted {
			if f.Do == w {
				return f.use()
			}
		}
	}
	return nil
}

// commitFault counts a write of persistent memory and gives the fault it meets.
func (c *Card) commitFault() *armedFault {
	var met *armedFault
	for _, f := range c.faults {
		switch {
		case f.Commit == 0 || f.left == 0:
		case f.commits > 1:
			f.commits--
		case met == nil:
			met = f.use()
		}
	}
	return met
}

// loadFault gives the fault that a segment of a package meets.
func (c *Card) loadFault(segment, command int) *armedFault {
	for _, f := range c.faults {
		if f.Do != FailLoad || f.left == 0 || f.Segment != 0 && f.Segment != segment || f.Segment == 0 && f.Command != command {
			continue
		}
		return f.use()
	}
	return nil
}

// spoil lets a fault of the wire strike.
func (c *Card) spoil(f *armedFault) {
	switch f.Do {
	case Refuse, RefuseAfter:
		c.outcome.status = f.SW
	case LoseAnswer:
		c.outcome.err = ErrAnswerLost
	case LoseCommand:
		c.outcome.err = ErrLinkBroken
	case CutPower, CutPowerAfter:
		c.cutPower()
	}
}
