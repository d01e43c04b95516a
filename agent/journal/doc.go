// Package journal is what survives a power cut: the jobs with their results,
// and the few things that outlive them, such as the profile that was last
// proven.
//
// It is one append-only file of records. A record is durable when [Journal.PutJob]
// returns; whoever acts on a decision appends it first. The file is read whole
// at [Open] and rewritten (compacted) when it has grown past its limit, so both
// are bounded. One process holds it at a time (flock), one goroutine appends.
//
//	j, err := journal.Open(filepath.Join(stateDir, "journal"), journal.Options{})
//	if err != nil { … }          // *NewerError, ErrLocked, or of the file system
//	defer j.Close()
//	err = j.PutJob(next)          // append, sync; then act
//
// # Why not a database
//
// An embedded key-value store writes about 38 KiB to flash for an update of
// 360 bytes and does not survive a truncated file. A switch writes some twenty
// small records; here each costs its own length, rounded up to what the file
// system's block makes of it.
//
// # The format, version 1
//
// All numbers are little-endian. The file begins with 16 bytes:
//
//	0   8  magic "lpadjrnl"
//	8   2  version of the format: 1
//	10  2  zero
//	12  4  CRC-32C of bytes 0 to 11
//
// Records follow without padding:
//
//	0   4  length n of the payload, at most 1 MiB
//	4   1  version of the record's payload: 1
//	5   1  kind: 1 job, 2 forget job, 3 setting
//	6   2  zero
//	8   4  CRC-32C (Castagnoli) of bytes 0 to 7 and the payload
//	12  n  payload, JSON
//
// A job record holds the whole job and replaces an earlier one with its id; a
// forget record holds {"id"}. A setting record holds {"key","value"} and replaces
// an earlier one with its key; one without a value removes it.
//
// # After a power cut
//
// A write that did not finish leaves a tail that is too short, or whose CRC is
// wrong with nothing valid behind it: it never took effect, because nobody was
// told that it had. [Open] cuts it off and reports how much ([Journal.Torn]).
// A record that is wrong with valid records behind it was durable once and is
// damaged: Open gives the file a second name, "….damaged-N", so that it can be
// looked at, keeps every record that could be read, wherever it lies, in a new
// one, and reports it by [Journal.Damage]. A header that is wrong is damage of
// this kind too, and so is a file that the disk does not give back, or that is
// larger than any journal. A job whose end was damaged, and after which another
// has run, is ended: to resume it would take back what came later.
// A file with an unknown magic is kept aside in the same way. A file of a newer
// version is refused with [*NewerError] and left alone.
//
// # Compaction
//
// The live records are written to "….new" in the same directory, which is
// synced and renamed over the journal, and then the directory is synced: a
// rename that is not in the directory on disk is no rename after a power cut.
//
// # A disk that takes no more
//
// A write that fails (full, read-only, broken) is told to the caller, whose
// decision does not stand, and half a record may lie at the end of the file:
// nothing is appended behind it. What is known stays in memory. The next Put, or
// [Journal.Mend], begins with a new file that holds all of it; until that
// succeeds [Journal.Broken] says why not. A journal on a disk that is already
// full or read-only can be opened, and is broken from the start.
package journal
