// Package at is a queue of AT commands over a byte stream: a serial port, a
// socket, a pipe.
//
// One goroutine reads. It cuts the stream into lines and gives each line to the
// one who asked for it: the answer to the command that runs, or, for a message
// that the modem sends of its own accord (an unsolicited result code, URC), to
// the subscribers of its prefix. Commands of several goroutines wait for each
// other.
//
//	conn := at.New(port, at.WithLogger(log))
//	defer conn.Close()
//	lines, err := conn.Command(ctx, "AT+CIMI")
//
// Modems differ in everything that is not a command, so the reader tolerates
// echo on and off, CR, LF and any mixture, blank lines, lines glued together,
// answers without their prefix, and messages in the middle of an answer. What it
// does not tolerate is an answer at the wrong command: after a command that got
// no final result code (deadline, cancelled context) the line is resynchronised
// before the next one is sent, and what comes late is thrown away.
//
// # Whose line is it
//
// While AT+CEREG? runs, "+CEREG: 2,1" is its answer. While anything else runs,
// AT+CEREG=2 included, it is a message. A line with another prefix than that of
// the running command is a message; a line without a prefix belongs to the
// running command unless it is one of the well-known messages (RING, RDY …).
// NO CARRIER, BUSY, NO ANSWER, NO DIALTONE and CONNECT end a command that dials
// and are messages otherwise.
//
// # Errors
//
// A refusal is a [*CMEError], a [*CMSError] or [ErrError]; each explains itself
// (lpad/internal/fault) and unwraps to the few sentinels a caller may act on.
// Silence is [ErrTimeout], a line that went away is [ErrHangup]: reopen it.
//
// # Neighbours
//
// A serial line does not know whose answer it carries. When two programs read the
// same one, each gets parts of what belongs to the other. Echoes of commands that
// we did not send, and results while nothing of ours runs, speak for that, and so
// does a process that has the port open ([WithOwner]); a silence or a damaged
// answer is then [ErrContended] too, and names the neighbour.
//
// # Secrets
//
// The log shows names of commands, lengths and durations. It never shows an
// argument or an answer: they hold APDUs, identities and passwords.
package at
