// Package carrierdb reads the public list of access points that Linux
// distributions ship as mobile-broadband-provider-info (serviceproviders.xml,
// format 2.0), and picks from it what fits a subscription.
//
//	db, err := carrierdb.Open("/usr/share/mobile-broadband-provider-info/serviceproviders.xml")
//	found, err := db.Lookup(carrierdb.Query{MCC: "262", MNC: "03", SPN: "blau.de"})
//
// The home network of the subscription (never the serving one) names the
// providers. Where several share a network, a name on the card decides: equal
// first, then contained, ignoring case, spaces and punctuation; then the
// provider that the list calls primary; then the only one named like the
// operator. If all of that leaves several whose first access points differ,
// every candidate is marked [Candidate.Ambiguous] and they keep the order of
// the file. Access points for MMS and WAP are left out; those said to be for
// internet come before those that say nothing.
//
// The list knows no IP type, no roaming, no GID1 or ICCID ranges, and no
// network of global IoT operators (901xx): nothing found is a normal answer,
// and the empty APN the next thing to try. Its name servers are from another
// decade and are passed on beside the APN, not in it.
//
// Where the list knows no holder of a group of subscriptions, a list of the
// device's maker does: [Holder] and [Query.OnNetwork] say whether a
// subscription is meant, by GID1, name, IMSI or ICCID prefix and home network.
//
// The first look-up reads the whole file as a stream, in 2 ms, checks all of it
// and keeps an index of 10 kB; the next ones read from the file what they need,
// in some 50 µs. A file that has changed is read again. Everything is bounded,
// the DOCTYPE is never resolved, and a damaged file is an error, not a shorter
// list. A DB is safe for concurrent use.
package carrierdb
