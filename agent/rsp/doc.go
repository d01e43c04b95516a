// Package rsp holds the values of consumer Remote SIM Provisioning (GSMA
// SGP.22 v2.5, with what a v2 device must know of v3): identifiers, activation
// codes, profiles, notifications, card information, result codes, and the
// decisions that need nothing but values, such as the Rules Authorisation
// Table.
//
// Nothing here talks to a card or to a server: package es10 does the one,
// es9p the other, and both speak in these values. A Parse function takes text
// or bytes of a foreign hand (person, card, server) and never trusts them; it
// is fuzzed. What a party has signed is kept as the bytes that came
// ([ServerAuthentication], [DownloadOffer], the Raw fields) and is never
// encoded again.
//
//	code, err := rsp.ParseActivationCode("LPA:1$smdp.example.com$04386-AGYFT")
//	if err != nil {
//		return err // a fault.Explainer: what is wrong and what to do
//	}
//
// Result codes of the eUICC are types of their own ([EnableResult],
// [DeleteResult], [InstallationError] …). They are errors, have the
// specification's name, and explain themselves as a fault.Explainer.
//
// Identifiers (EID, ICCID) are shortened in logs; the matching id of an
// activation code is a secret there.
package rsp
