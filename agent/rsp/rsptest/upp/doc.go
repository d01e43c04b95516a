// Package upp makes and reads unprotected profile packages: the plain content
// of a profile as the TCA (formerly SIMalliance) interoperable profile package
// writes it, a concatenation of profile elements in DER.
//
//	p, err := upp.Generate(upp.Options{ICCID: iccid, IMSI: "001010123456789", SPN: "Test", Size: 40_000})
//	files, err := upp.Parse(p)
//	files.IMSI()                            // "001010123456789"
//	files.EF["7FFF/6F07"].Content           // EF_IMSI
//
// [Generate] gives a small complete profile (header, MF, PUK, PIN, USIM,
// optional USIM files, Milenage, end) of an exact size in bytes. [Parse] is the
// part of a card's profile interpreter that a software eUICC needs: it checks
// the structure, keeps the elementary files of the MF and of the USIM, and
// passes over everything else. It reads our own packages and the generic test
// profiles of GSMA TS.48. Its errors are [*Error], which say what a card would
// answer in a ProfileInstallationResult.
package upp
