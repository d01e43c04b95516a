package atcard

import (
	"errors"
	"fmt"
	"time"

	"lpad/apdu"
	"lpad/modem/at"
)

// Sizes of blocks. lpac and the LPAs of makers of modems have 120, OpenEUICC 60
// where cards get blocks damaged, card readers 255.
const (
	maxBlockSize  = 255
	smallestBlock = 32
	certainBlock  = 60 // every modem known carries it: a refusal of less is not about the size

	trialTime    = 5 * time.Second  // for a size that has not worked yet: the card only puts the block aside
	aliveTime    = 10 * time.Second // for a modem that was silent to say anything
	damagedTries = 2                // of a block that the card got damaged
)

var blockSizes = []int{maxBlockSize, 180, 120, certainBlock, smallestBlock}

// smaller is the next size below n, or 0.
func smaller(n int) int {
	for _, size := range blockSizes {
		if size < n {
			return size
		}
	}
	return 0
}

// blocks finds out the block size of a modem. See the package comment.
type blocks struct {
	fixed  bool // by configuration
	size   int  // in force
	start  int
	worked int // longest block of a chain that was understood
	chain  int // longest block of the present chain that the card took
	piece  int // most bytes of one GET RESPONSE; 0: what the card says
}

func newBlocks(configured, start int) blocks {
	b := blocks{fixed: configured > 0, size: configured}
	if !b.fixed {
		if b.size = start; start == 0 {
			b.size = maxBlockSize
		}
	}
	b.start = b.size
	return b
}

func (b *blocks) learned() int {
	if b.fixed || b.worked < b.size && b.size == b.start {
		return 0
	}
	return b.size
}

// down goes below n, if that is possible.
func (b *blocks) down(n int) bool {
	size := smaller(n)
	if b.fixed || size == 0 {
		return false
	}
	b.size = min(b.size, size)
	b.worked = min(b.worked, b.size)
	return true
}

// transmission is one command with what counts of it.
type transmission struct {
	command []byte
	known   error // nothing must be sent
	data    int   // bytes in a block of STORE DATA; 0: another command
	first   bool  // of its chain
	last    bool  // of its chain: the card acts on it
	trial   bool  // a size that has not worked yet, in a block that may be sent again
	piece   int   // bytes that GET RESPONSE asks for
}

// begin looks at a command before it is sent.
func (b *blocks) begin(command []byte) transmission {
	t := transmission{command: command}
	switch {
	case command[1] == insGetResponse && len(command) == 5:
		t.piece = int(command[4])
		if t.piece == 0 {
			t.piece = 256
		}
		if b.piece > 0 && t.piece > b.piece { // the card keeps the rest, and says so
			t.piece = b.piece
			t.command = append(command[:4:4], byte(b.piece))
		}
	case command[1] == insStoreData && len(command) > 5:
		t.data = int(command[4])
		t.first, t.last = command[3] == 0, command[2]&lastBlock != 0
		if t.first {
			b.chain = 0
		}
		switch {
		case b.fixed || !t.first:
		case t.data > b.size:
			t.known = &apdu.BlockSizeError{Size: b.size}
		case t.last && t.data > max(b.worked, certainBlock):
			t.known = &apdu.BlockSizeError{Size: t.data - 1} // a harmless block goes ahead of it
		}
		t.trial = !b.fixed && t.first && !t.last && t.data > max(b.worked, smallestBlock)
	}
	return t
}

// judge looks at what came of it. An error of its own takes the place of the
// answer.
func (b *blocks) judge(t transmission, response []byte, err error) error {
	if t.data == 0 {
		if t.piece > smallestBlock && errors.Is(err, ErrTruncated) {
			b.piece = smaller(min(t.piece, maxBlockSize))
		}
		return nil
	}
	sw := apdu.SW(0)
	if n := len(response); err == nil {
		sw = apdu.SW(response[n-2])<<8 | apdu.SW(response[n-1])
	}
	long := max(t.data, b.chain)
	switch {
	case sw == swDamaged && t.first && !t.last && b.down(t.data):
		return &apdu.BlockSizeError{Size: b.size, Cause: &apdu.StatusError{SW: sw, Op: "STORE DATA"}}
	case sw == swDamaged:
		b.down(t.data) // from the next chain on
	case t.trial && (sw == swLength || tooLong(err)) && b.down(t.data):
		if err == nil {
			err = &apdu.StatusError{SW: sw, Op: "STORE DATA"}
		}
		return &apdu.BlockSizeError{Size: b.size, Cause: err}
	case t.last && long > max(b.worked, certainBlock) && notUnderstood(sw) && b.down(long):
		return fmt.Errorf("%w: blocks of %d bytes: %w", ErrBlockLost, long, &apdu.StatusError{SW: sw, Op: "STORE DATA"})
	case sw.OK(), sw.SW1() == 0x61:
		b.chain = long
		if t.last {
			b.worked = max(b.worked, long)
		}
	}
	return nil
}

// Status words of a block that did not come as it was sent.
const (
	swDamaged apdu.SW = 0x6601 // a check sum is wrong: some removable eUICCs, OpenEUICC ddc421d
	swLength  apdu.SW = 0x6700 // other than it says
)

func damaged(response []byte) bool {
	n := len(response)
	return n >= 2 && apdu.SW(response[n-2])<<8|apdu.SW(response[n-1]) == swDamaged
}

// notUnderstood reports whether a card that was sent a whole chain may have got
// only a part.
func notUnderstood(sw apdu.SW) bool { return sw == swLength || sw == 0x6A80 || sw == 0x6A87 }

// tooLong reports whether an error of the modem may be about the length of the
// line: refusals without a reason or about the command, an answer that lost a
// part, silence. What is said about the SIM is not about the line.
func tooLong(err error) bool {
	var cme *at.CMEError
	if errors.As(err, &cme) {
		switch cme.Code {
		case -1, 3, 4, 24, 50, 100:
			return true
		}
		return cme.Code > 150 // codes of makers
	}
	return at.Refused(err) || errors.Is(err, at.ErrTimeout) || errors.Is(err, ErrTruncated) || errors.Is(err, ErrMalformed)
}
