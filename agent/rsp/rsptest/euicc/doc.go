// Package euicc is a software eUICC for tests: a whole card at the wire of raw
// APDUs, with real cryptography and every check that a physical card makes.
//
// It has the basic channel and up to nineteen logical channels, the file
// system of the enabled profile as a modem reads it, the card toolkit as far as
// a REFRESH needs it, and an ISD-R with all functions of ES10a, ES10b and ES10c
// of SGP.22 v2.5. It verifies server certificates and signatures, agrees keys,
// checks and decrypts Bound Profile Packages, parses profile packages, keeps
// profiles and notifications over a power cut, and signs what a card signs.
//
//	p, err := pki.New(pki.Options{})
//	config := euicc.ConfigUnder(p) // certificates of the card, and the CI that it trusts
//	config.Profiles = []euicc.Profile{{ICCID: iccid, IMSI: "001010123456789", Enabled: true}}
//	card, err := euicc.New(config)
//	response, err := card.Transmit(ctx, command)
//
// # Reset and what the modem sees
//
// [New] powers the card on. [Card.Reset] is a cold reset: logical channels, the
// RSP session and everything volatile are gone, and the files on the basic
// channel become those of the profile that is enabled now. Between an
// EnableProfile and the reset the modem goes on seeing the old files, as with a
// real card, while GetProfilesInfo tells the new state at once.
//
// # Faults
//
// A [Fault] happens once or some times at a chosen point: the k-th APDU, a
// function, the n-th byte of a Bound Profile Package, the k-th write to
// persistent memory. [Quirks] are habits of a card that stay. After a power cut
// every Transmit fails with [ErrNoPower] until Reset. Persistent state is
// written as one snapshot, so that whatever is cut off, the card wakes up in
// the state before or after a function, never between; with a [FileStore] a new
// Card in a new process continues where the old one was cut.
//
// # Time
//
// With [Timing] the card accounts the time that a slow card would need
// ([Stats.CardTime]); with a [Clock] it also lets that time pass.
//
// A Card is safe for concurrent use: each APDU is atomic, as on a wire.
// Test keys only: nothing here runs in constant time.
package euicc
