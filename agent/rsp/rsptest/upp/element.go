package upp

import "lpad/apdu/ber"

// Profile elements: with AUTOMATIC TAGS the number of the alternative is the
// tag (TCA profile package, module PEDefinitions).
const (
	peHeader  ber.Tag = 0xA0
	peGeneric ber.Tag = 0xA1 // genericFileManagement
	pePIN     ber.Tag = 0xA2
	pePUK     ber.Tag = 0xA3
	peAKA     ber.Tag = 0xA4
	peEnd     ber.Tag = 0xAA
	peMF      ber.Tag = 0xB0
	peUSIM    ber.Tag = 0xB3
	peOptUSIM ber.Tag = 0xB4
)

// Object identifiers of the templates, 2.23.143.1.2.x.
func templateOID(x byte) []byte { return []byte{0x67, 0x81, 0x0F, 0x01, 0x02, x} }

// Paths of elementary files in [Files.EF]: of the MF by their identifier, of
// the USIM below 7FFF, the current application.
const (
	PathICCID = "2FE2"
	PathDIR   = "2F00"
	PathIMSI  = "7FFF/6F07"
	PathAD    = "7FFF/6FAD"
	PathSPN   = "7FFF/6F46"
	PathGID1  = "7FFF/6F3E"
	PathGID2  = "7FFF/6F3F"
	PathUST   = "7FFF/6F38"
)

// fileDefault is what a template says about one file. Size 0 means: as large
// as what is written to it.
type fileDefault struct {
	fid  uint16
	size int
}

// The templates, by tag: only what an LPA, a modem or ModemManager reads has a
// size here; all TS.48 profiles and ours write the identifiers of the others.
var (
	mfFiles = map[ber.Tag]fileDefault{
		0xA3: {0x2F05, 0}, 0xA4: {0x2FE2, 10}, 0xA5: {0x2F00, 0}, 0xA6: {0x2F06, 0}, 0xA7: {0x2F08, 5},
	}
	usimFiles = map[ber.Tag]fileDefault{
		0xA3: {0x6F07, 9}, 0xA4: {0x6F06, 0}, 0xA5: {0x6F08, 33}, 0xA6: {0x6F09, 33}, 0xA7: {0x6F31, 1}, 0xA8: {0x6F38, 0},
		0xA9: {0x6F3B, 0}, 0xAA: {0x6F3C, 0}, 0xAB: {0x6F42, 0}, 0xAC: {0x6F43, 2}, 0xAD: {0x6F46, 17}, 0xAE: {0x6F56, 1},
		0xAF: {0x6F5B, 6}, 0xB0: {0x6F5C, 3}, 0xB1: {0x6F73, 14}, 0xB2: {0x6F78, 2}, 0xB3: {0x6F7B, 12}, 0xB4: {0x6F7E, 11},
		0xB5: {0x6FAD, 4}, 0xB6: {0x6FB7, 0}, 0xB7: {0x6FC4, 0}, 0xB8: {0x6FE3, 18}, 0xB9: {0x6FE4, 0},
	}
	optUSIMFiles = map[ber.Tag]fileDefault{
		0xA2: {0x6F05, 0}, 0xA5: {0x6F3E, 0}, 0xA6: {0x6F3F, 0}, 0xA7: {0x6F40, 0}, 0xAF: {0x6F60, 0}, 0xB1: {0x6F62, 0},
		0xB9: {0x6F57, 0}, 0xBF26: {0x6FC5, 0}, 0xBF27: {0x6FC6, 0}, 0xBF3A: {0x6FD9, 0},
	}
)
