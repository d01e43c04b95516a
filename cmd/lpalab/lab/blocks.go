package lab

import (
	"strings"

	"lpad/modem/modemtest"
)

// Blocks counts STORE DATA by the bytes of its block.
type Blocks map[int]int

// Most is the size that most blocks have.
func (b Blocks) Most() int {
	best := 0
	for size, count := range b {
		if count > b[best] || count == b[best] && size > best {
			best = size
		}
	}
	return best
}

// Above is how many blocks were larger.
func (b Blocks) Above(size int) int {
	sum := 0
	for s, count := range b {
		if s > size {
			sum += count
		}
	}
	return sum
}

// BlocksIn reads the blocks off what a modem was sent.
func BlocksIn(trace []modemtest.Entry) Blocks {
	const header = 10 // digits before the data
	all := Blocks{}
	for _, e := range trace {
		if e.Kind != modemtest.Sent || !strings.HasPrefix(e.Text, "AT+CGLA=") && !strings.HasPrefix(e.Text, "AT+CSIM=") {
			continue
		}
		_, apdu, found := strings.Cut(e.Text, `,"`)
		if apdu, _, _ = strings.Cut(apdu, `"`); found && len(apdu) > header && apdu[2:4] == "E2" {
			all[(len(apdu)-header)/2]++
		}
	}
	return all
}
