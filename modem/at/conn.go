package at

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// DefaultTimeout bounds a command whose context has no deadline.
const DefaultTimeout = 10 * time.Second

// LevelTrace is the level of the log lines of this package, below slog.LevelDebug.
const LevelTrace = slog.Level(-8)

// Limits of what a modem may send in one answer, and of what may be sent to it.
const (
	maxCommand    = 2048             // characters of a command line; several modems take no more than some hundred
	maxLines      = 512              // lines of one answer; AT+CLAC, the longest, has some hundred
	maxAnswer     = 64 << 10         // bytes of one answer
	writeTimeout  = 10 * time.Second // for one command line to leave; a line that is stuck for longer is dead
	maxEmptyReads = 100              // reads without a byte and without an error before the stream is given up
)

// Conn is a connection to the AT interface of a modem. It is safe for
// concurrent use; commands run one after the other.
type Conn struct {
	rw      io.ReadWriteCloser
	log     *slog.Logger
	slot    chan struct{} // holds one token while a command runs
	writes  chan []byte   // to the writer goroutine
	arrived chan struct{} // a token for every line that the reader saw; see drain
	done    chan struct{} // closed with err
	wg      sync.WaitGroup
	dirty   bool // a command has no final result yet; only touched by the holder of the slot

	owner func() string // who else has the line; nil: nobody can tell

	mu      sync.Mutex
	cur     *exchange // the command that runs; the reader gives it its lines
	others  contention
	subs    map[*subscription]struct{}
	dropped uint64
	err     error // why the connection ended
	closing error // what rw.Close said
}

// Option changes a connection at its making.
type Option func(*Conn)

// WithLogger sets where commands are traced, at [LevelTrace]: names, lengths and
// durations, never arguments or answers.
func WithLogger(log *slog.Logger) Option { return func(c *Conn) { c.log = log } }

// WithOwner sets who is asked for other users of the line when it behaves as if
// there were some: f names them, "ModemManager (pid 812)", or returns "". See
// [ErrContended].
func WithOwner(f func() string) Option { return func(c *Conn) { c.owner = f } }

// WithURC has f called with every message that the modem sends of its own
// accord, one at a time, outside the reader. A slow f loses the oldest messages.
// The text is as received: what f does with it is its own responsibility.
func WithURC(f func(line string)) Option {
	return func(c *Conn) {
		messages, _ := c.Notify("")
		go func() {
			for line := range messages {
				f(line)
			}
		}()
	}
}

// New takes the stream over and starts to read. Close of the stream must end a
// pending Read and a pending Write of it; files of package serialport, sockets and
// pipes do that.
func New(rw io.ReadWriteCloser, opts ...Option) *Conn {
	c := &Conn{
		rw:      rw,
		log:     slog.New(slog.DiscardHandler),
		slot:    make(chan struct{}, 1),
		writes:  make(chan []byte, 4), // a command, a late one that its caller gave up, and an escape
		arrived: make(chan struct{}, 1),
		done:    make(chan struct{}),
		subs:    make(map[*subscription]struct{}),
	}
	for _, o := range opts {
		o(c)
	}
	c.wg.Go(c.read)
	c.wg.Go(c.write)
	return c
}

// Close ends the connection: a running command and all subscriptions end, the
// stream is closed, and the goroutines are gone when it returns. Further calls
// do nothing.
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// Done is closed when the connection has ended, by Close or by the other side.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is nil while the connection lives, then why it ended: ErrClosed or ErrHangup.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends the connection for the first reason given.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	close(c.done)
	for s := range c.subs {
		close(s.ch)
	}
	clear(c.subs)
	c.mu.Unlock()

	closing := c.rw.Close() // ends a pending Read and Write; outside the lock, the reader may want it
	c.mu.Lock()
	c.closing = closing
	c.mu.Unlock()
}

// Request is a command with what is special about it.
type Request struct {
	// Text is the command line without its end, for example "AT+CFUN=1".
	Text string
	// Prefixes are the names of the lines that belong to the answer, "+ICCID".
	// Empty: those of the command itself, "+CGLA" for "AT+CGLA=…".
	Prefixes []string
	// Settle, when positive, bounds the wait for the final result code after the
	// last line of information. Then the lines come with ErrNoFinal: there are
	// modems that forget the OK of some commands (AT+CGSN on Snapdragon 410).
	Settle time.Duration
	// Then is a second command line that leaves together with Text, for a modem
	// whose port goes away at Text; empty: none. Nobody waits for its answer, and
	// the line is resynchronised before the next command.
	Then string
}

// Command sends one command line and returns the information lines of its
// answer, without the final result code. It is bounded by the deadline of ctx, or
// by DefaultTimeout if there is none. With an error, the lines that came before
// it are returned.
func (c *Conn) Command(ctx context.Context, cmd string) ([]string, error) {
	return c.Run(ctx, Request{Text: cmd})
}

// Run is Command for a command with something special about it.
func (c *Conn) Run(ctx context.Context, r Request) ([]string, error) {
	name := title(r.Text)
	if err := checkCommand(r.Text); err != nil {
		return nil, fmt.Errorf("AT command: %w", err)
	}
	if err := checkCommand(r.Then); r.Then != "" && err != nil {
		return nil, fmt.Errorf("AT command: %w", err)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := c.acquire(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer c.release()
	if c.dirty {
		if err := c.resync(ctx); err != nil {
			return nil, fmt.Errorf("%s: find the line again: %w", name, c.Blame(err))
		}
	}
	x := newExchange(r)
	begin := time.Now()
	err := c.exchange(ctx, x, r.Settle)
	c.dirty = c.dirty || r.Then != ""
	c.trace(ctx, "command", slog.String("name", nameOf(r.Text)), slog.Int("length", len(r.Text)), slog.Int("lines", len(x.lines)),
		slog.Int("bytes", x.size), slog.Duration("took", time.Since(begin)), slog.Any("err", err))
	if err != nil {
		return x.lines, fmt.Errorf("%s: %w", name, c.Blame(err))
	}
	return x.lines, nil
}

// Resync finds the line again: everything that is still to come from earlier
// commands, whoever sent them, is thrown away. Needed when a port is opened that
// others used before; after a command without an end it happens by itself.
func (c *Conn) Resync(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := c.acquire(ctx); err != nil {
		return fmt.Errorf("find the line: %w", err)
	}
	defer c.release()
	if err := c.resync(ctx); err != nil {
		return fmt.Errorf("find the line: %w", err)
	}
	return nil
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, DefaultTimeout)
}

func checkCommand(cmd string) error {
	if cmd == "" || len(cmd) > maxCommand {
		return ErrBadCommand
	}
	for i := 0; i < len(cmd); i++ {
		if cmd[i] < 0x20 || cmd[i] > 0x7E {
			return ErrBadCommand
		}
	}
	return nil
}

func (c *Conn) acquire(ctx context.Context) error {
	if err := c.Err(); err != nil {
		return err
	}
	select {
	case c.slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	case <-c.done:
		return c.Err()
	}
}

func (c *Conn) release() { <-c.slot }

// ended is the error of a context that is over.
func ended(ctx context.Context) error {
	if err := ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrTimeout, context.DeadlineExceeded)
}

// exchange is one command on its way. The reader fills it under Conn.mu until it
// is finished or taken back; after that only its owner touches it.
type exchange struct {
	text     string
	then     string   // a second line behind it
	names    []string // of the lines that belong to the answer
	extended bool     // the command is an extended one
	shows    bool     // the command shows settings (ATI, AT&V), in lines of any name
	dials    bool
	probe    bool // a final result counts only after a line of names; see resync

	lines    []string
	size     int
	own      bool  // a line of names was seen
	finals   int   // final results that did not count
	err      error // what the final result said, or what was wrong before it
	finished bool
	seen     chan struct{} // a token when a line was added
	end      chan struct{} // closed with finished
}

func newExchange(r Request) *exchange {
	x := &exchange{
		text: r.Text, then: r.Then, names: r.Prefixes, dials: dials(r.Text),
		seen: make(chan struct{}, 1), end: make(chan struct{}),
	}
	x.extended = len(r.Text) > 2 && extended(r.Text[2:])
	name := nameOf(r.Text)
	x.shows = name == "ATI" || name == "AT&V"
	if len(x.names) == 0 {
		x.names = expected(r.Text)
	}
	return x
}

// exchange sends x and waits for its end. Only the holder of the slot calls it.
func (c *Conn) exchange(ctx context.Context, x *exchange, settle time.Duration) error {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	c.mu.Lock()
	c.cur = x // before the write: the answer may be quicker than we are
	c.others.sends(x.text)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.cur = nil
		c.mu.Unlock()
	}()
	lines := x.text + "\r"
	if x.then != "" {
		lines += x.then + "\r"
	}
	select {
	case c.writes <- []byte(lines):
		c.dirty = true
	case <-ctx.Done():
		return ended(ctx) // nothing was sent
	case <-c.done:
		return c.Err()
	}

	var settled <-chan time.Time
	var err error
	for err == nil {
		select {
		case <-x.seen:
			if settle > 0 {
				settled = time.After(settle)
			}
			continue
		case <-x.end:
		case <-settled:
			err = ErrNoFinal
		case <-ctx.Done():
			err = ended(ctx)
		case <-c.done:
			err = c.Err()
		}
		break
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.finished { // also when it came at the same moment as the end of the wait
		c.dirty = false
		return x.err
	}
	c.cur, c.others.inStep = nil, false // nobody writes x from here on
	if x.err != nil {
		return fmt.Errorf("%w: %w", x.err, err)
	}
	return err
}

// write sends what it is given. A line that does not leave in writeTimeout is dead.
func (c *Conn) write() {
	for {
		select {
		case b := <-c.writes:
			stuck := time.AfterFunc(writeTimeout, func() { c.fail(fmt.Errorf("%w: the line takes no bytes", ErrHangup)) })
			_, err := c.rw.Write(b)
			stuck.Stop()
			if err != nil {
				c.fail(fmt.Errorf("%w: write: %w", ErrHangup, err))
			}
		case <-c.done:
			return
		}
	}
}

// read is the one reader: it ends with the stream.
func (c *Conn) read() {
	var s splitter
	buf := make([]byte, maxLine)
	for empty := 0; ; {
		n, err := c.rw.Read(buf)
		s.feed(buf[:n], c.line)
		if n > 0 && s.prompt() {
			c.stopPrompt()
		}
		if empty++; n > 0 {
			empty = 0
		}
		switch {
		case err != nil:
			c.fail(fmt.Errorf("%w: %w", ErrHangup, err))
			return
		case empty > maxEmptyReads:
			c.fail(fmt.Errorf("%w: %w", ErrHangup, io.ErrNoProgress))
			return
		}
	}
}

// line gives a line to whom it belongs.
func (c *Conn) line(text string, tooLong bool) {
	select {
	case c.arrived <- struct{}{}:
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if tooLong {
		if c.cur != nil {
			c.cur.fault(ErrTooLong)
		}
		return
	}
	c.others.hears(text)
	if x := c.cur; x != nil {
		stale, rest, echo := x.cutEcho(text)
		if echo {
			if extended(stale) {
				c.announce(stale)
			}
			text = rest
		}
	}
	if text == "" {
		return
	}
	for _, part := range unglue(text) {
		c.route(part)
	}
}

// route gives one result to the running command or to the subscribers.
func (c *Conn) route(part string) {
	x := c.cur
	if x == nil {
		c.others.hearsUnasked(part)
		c.announce(part)
		return
	}
	if is, err := final(part, x.dials); is {
		if x.probe && !x.own {
			x.finals++
			return
		}
		x.fault(err)
		x.finished = true
		c.cur, c.others.inStep = nil, true
		close(x.end)
		return
	}
	if !x.owns(part) {
		c.announce(part)
		return
	}
	if len(x.lines) == maxLines || x.size+len(part) > maxAnswer {
		x.fault(ErrTooLong)
		return
	}
	x.lines = append(x.lines, part)
	x.size += len(part)
	select {
	case x.seen <- struct{}{}:
	default:
	}
}

// fault notes the first thing that is wrong.
func (x *exchange) fault(err error) {
	if x.err == nil {
		x.err = err
	}
}

// cutEcho finds the echo of the command in a line. What stands before it is from
// an earlier time; what stands after it is glued to it.
func (x *exchange) cutEcho(line string) (stale, rest string, ok bool) {
	if strings.EqualFold(line, x.text) {
		return "", "", true
	}
	const distinctive = len("AT+CFUN") // a shorter command may stand in a line by chance
	if len(x.text) >= distinctive {
		if i := strings.Index(line, x.text); i >= 0 {
			return strings.TrimSpace(line[:i]), strings.TrimSpace(line[i+len(x.text):]), true
		}
	}
	// An echo that lost characters: still an echo.
	if x.extended && len(line) >= 2 && strings.EqualFold(line[:2], "AT") && extended(line[2:]) {
		return "", "", true
	}
	return "", "", false
}

// owns decides whether a line is part of the answer. See the package comment.
func (x *exchange) owns(part string) bool {
	for _, name := range x.names {
		if hasName(part, name) {
			x.own = true
			return true
		}
	}
	switch {
	case x.probe:
		return false
	case extended(part):
		return x.shows && !announcing[nameOf(part)] // "+GCAP: …"
	case part == ">":
		return false
	}
	return !bareMessage(part)
}

// stopPrompt answers a prompt that no command of ours wants: escape, or every
// further command would be taken as text.
func (c *Conn) stopPrompt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cur == nil {
		return
	}
	c.cur.fault(ErrPrompt)
	const escape = 0x1B
	select {
	case c.writes <- []byte{escape}:
	default: // the writer is stuck and will end the connection
	}
}

func (c *Conn) trace(ctx context.Context, msg string, attrs ...slog.Attr) {
	c.log.LogAttrs(ctx, LevelTrace, msg, attrs...)
}
