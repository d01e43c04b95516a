// Package params is about terminal parameters: what the operator of a profile
// wants the device set to, access points first. It reads the documents that
// say so, and resolves them with the other sources to the effective set.
//
//	doc, err := params.Parse(body, params.Options{Confidential: true})
//	…
//	found, err := db.Lookup(profile.Query())
//	eff, err := params.Resolve(params.Input{Profile: profile, Database: found,
//		Given: []params.Given{{Document: doc, Rank: params.RankOrder, Source: params.SourceOrder}}})
//	for _, a := range eff.Attempts() { // try a.Value, said by a.Source
//
// A [Document] is strict where it matters and open where it may grow: a member
// that is not known is ignored and listed, a value of the wrong type or out of
// range refuses the whole document with a JSON pointer to it
// ([*DocumentError]). In a document an absent member is no opinion, while null
// says "unset" and stops the sources below.
//
// A document has a second form, BER-TLV, small enough for a profile's metadata:
//
//	e1, ok, err := params.FromMetadata(profile.Proprietary, oids) // as the card tells it
//	doc, err := params.ParseTLV(e1)                               // *TLVError: the parameters are ignored, the profile is not
//
// It carries less than JSON does; [MarshalTLV] names what it cannot.
//
// Sources have ranks: what the profile says, then the server's or technician's
// order, then the device's maker, then what has carried data before and the
// public provider list, then the network's default. Within a rank the narrower
// scope comes first, then the higher generation. Every leaf of the [Effective]
// set keeps its source, rank, scope, generation and state; what was passed over
// and why is in its notes. The maker's [Limits] cut every rank. [Resolve] has
// the rules.
//
// The package is pure: no files, no clock, no network. A password by reference
// ("secretRef") is read by the caller, who gets the references from
// [Document.SecretRefs] and passes the secrets to [Resolve].
package params
