// Package es10 calls the functions of an eUICC: interfaces ES10a, ES10b and
// ES10c of SGP.22 v2.5, section 5.7, under their names.
//
//	ch, err := card.OpenChannel(ctx, rsp.ISDR)
//	if err != nil {
//		return err
//	}
//	defer ch.Close(ctx)
//	euicc := es10.New(ch, card.BlockSize())
//	eid, err := euicc.GetEID(ctx)
//
// Every function is one request in a chain of STORE DATA blocks and one
// response. Whoever answers with a result code other than ok gives a
// [*ResultError], which unwraps to the code ([rsp.EnableResult] …) and
// explains itself; a status word of the card is an *apdu.StatusError. Both
// carry the name of the function.
//
// A command that has been sent is waited for, up to [CommandTimeout] or
// [LongTimeout], even when ctx ends meanwhile: the card acts on it anyway, and
// an answer that nobody reads would be taken for that of the next command. ctx
// is looked at between commands.
//
// A Client is for one goroutine. The eUICC has one RSP session at a time, from
// GetEUICCChallenge on; a second GetEUICCChallenge ends it.
package es10

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lpad/agent/rsp"
	"lpad/apdu"
	"lpad/apdu/ber"
	"lpad/internal/fault"
)

// Channel is a logical channel with the ISD-R selected, such as
// *apdu.Channel: class bytes are for channel 0, 61xx and 6Cxx are dealt with.
type Channel interface {
	Transmit(ctx context.Context, cmd apdu.Command) (apdu.Response, error)
}

// How long one command may take. Signatures take seconds on a card; a modem's
// own limit is often far too short. Transports have bounds of their own, which
// know the modem, and are meant to end first: there are modems that need four
// minutes for the end of a package (lpac issue 448).
const (
	CommandTimeout = 60 * time.Second
	LongTimeout    = 5 * time.Minute // deletion, memory reset, the last segment of a package
)

// Limits of STORE DATA (SGP.22 v2.5, section 5.7.2).
const (
	DefaultBlockSize = 120 // what AT modems carry
	MaxBlockSize     = 255 // what a short command carries
	maxBlocks        = 256 // P2 is one byte
)

const (
	claStoreData = 0x80
	insStoreData = 0xE2
	p1More       = 0x11 // more blocks follow
	p1Last       = 0x91
)

// Client speaks to the ISD-R.
type Client struct {
	ch       Channel
	block    int // bytes of data; see New
	question int // of GetProfilesInfo, that the card answers
}

// New returns a client on ch that sends blocks of at most blockSize bytes,
// which is brought into 1 to [MaxBlockSize]; 0 means [DefaultBlockSize]. It goes
// down from there when ch gives an *apdu.BlockSizeError.
func New(ch Channel, blockSize int) *Client {
	if blockSize == 0 {
		blockSize = DefaultBlockSize
	}
	return &Client{ch: ch, block: min(max(blockSize, 1), MaxBlockSize)}
}

// ErrAnswer is in the errors that say that the card's answer is not one of
// the function called.
var ErrAnswer error = fault.New(fault.Fault{Code: "card-answer", Text: "the card's answer makes no sense", Retry: true, Who: fault.CardVendor,
	Next: "try again; if it stays, report this with the log of lpad"}, nil)

// ResultError is a function of the eUICC that was refused with a result code.
type ResultError struct {
	Function string // "ES10c.EnableProfile"
	Code     int    // as the card gave it
	Result   error  // the code with its meaning: rsp.EnableResult and its siblings
}

// Error implements error.
func (e *ResultError) Error() string {
	return fmt.Sprintf("%s: card: %v (%d)", e.Function, e.Result, e.Code)
}

// Unwrap returns Result, so that errors.Is(err, rsp.EnableCATBusy) works.
func (e *ResultError) Unwrap() error { return e.Result }

// Fault implements fault.Explainer.
func (e *ResultError) Fault() fault.Fault { return fault.Of(e.Result) }

func resultError[T interface {
	~int
	error
}](fn string, code T) error {
	return &ResultError{fn, int(code), code}
}

// IsRefusal reports whether the card itself refused with a result code, as
// opposed to a link that broke.
func IsRefusal(err error) bool {
	var r *ResultError
	return errors.As(err, &r)
}

// IsUnknownFunction reports whether the card said by a status word that it
// does not know what it was asked, as older cards do.
func IsUnknownFunction(err error) bool {
	return errors.Is(err, apdu.ErrNotFound) || errors.Is(err, apdu.ErrUnsupported) || errors.Is(err, apdu.ErrMalformed)
}

// storeData sends data as one chain of blocks and returns the response. The
// last block may take last, the others [CommandTimeout]. A link that turns out
// to carry smaller blocks only gets the chain again from its beginning, and all
// later ones, in those; the card has acted on nothing until then, see
// apdu.BlockSizeError.
func (c *Client) storeData(ctx context.Context, data []byte, last time.Duration) ([]byte, error) {
	for {
		answer, err := c.chain(ctx, data, last)
		var size *apdu.BlockSizeError
		if !errors.As(err, &size) || size.Size < 1 || size.Size >= c.block {
			return answer, err
		}
		c.block = size.Size
	}
}

// chain sends the blocks. Those before the last return nothing; a card that says
// something early has given its answer, and sending on would only hide it.
func (c *Client) chain(ctx context.Context, data []byte, last time.Duration) ([]byte, error) {
	blocks := (len(data) + c.block - 1) / c.block
	if blocks > maxBlocks {
		return nil, fmt.Errorf("%d bytes do not fit into %d blocks of %d", len(data), maxBlocks, c.block)
	}
	for i := range blocks {
		cmd := apdu.Command{CLA: claStoreData, INS: insStoreData, P1: p1More, P2: byte(i)}
		limit := CommandTimeout
		if i == blocks-1 {
			cmd.P1, limit = p1Last, last
		}
		cmd.Data = data[i*c.block : min((i+1)*c.block, len(data))]
		answer, err := c.transmit(ctx, cmd, limit)
		if err != nil || len(answer) > 0 {
			return answer, err
		}
	}
	return nil, nil
}

func (c *Client) transmit(ctx context.Context, cmd apdu.Command, limit time.Duration) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	r, err := c.ch.Transmit(ctx, cmd)
	return r.Data, err
}

// call sends a request and returns the response, which must have the
// request's tag.
func (c *Client) call(ctx context.Context, fn string, request []byte) (ber.TLV, error) {
	return c.callWithin(ctx, fn, request, CommandTimeout)
}

func (c *Client) callWithin(ctx context.Context, fn string, request []byte, limit time.Duration) (ber.TLV, error) {
	answer, err := c.storeData(ctx, request, limit)
	if err != nil {
		return ber.TLV{}, fmt.Errorf("%s: %w", fn, err)
	}
	t, err := checkAnswer(answer, request)
	if err != nil {
		return ber.TLV{}, fmt.Errorf("%s: %w", fn, err)
	}
	return t, nil
}

func checkAnswer(answer, request []byte) (ber.TLV, error) {
	want, _, _, err := ber.ParseHeader(request)
	if err != nil {
		return ber.TLV{}, err
	}
	if len(answer) == 0 {
		return ber.TLV{}, fmt.Errorf("%w: it is empty", ErrAnswer)
	}
	t, err := ber.Parse(answer)
	if err != nil {
		return ber.TLV{}, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if t.Tag != want {
		return ber.TLV{}, fmt.Errorf("%w: tag %v, want %v", ErrAnswer, t.Tag, want)
	}
	return t, nil
}

// malformed marks a decoding error as an answer that makes no sense.
func malformed(fn string, err error) error { return fmt.Errorf("%s: %w: %w", fn, ErrAnswer, err) }

// resultCode reads a response that is a mere result. The code has tag 80; a
// card that tags as if there were other tags beside it writes 02.
func resultCode(t ber.TLV) (int, error) {
	r := t.Reader()
	e, ok := r.Next()
	if !ok {
		return 0, errors.Join(errors.New("no result"), r.Err())
	}
	if e.Tag != 0x80 && e.Tag != 0x02 {
		return 0, fmt.Errorf("tag %v, want 80", e.Tag)
	}
	return intCode(e)
}

// errorCode reads the error choice of a response, if t starts with one. The
// code has tag 81, or 02 where the specification's automatic tagging is
// disturbed by other tags; cards are found with either.
func errorCode(t ber.TLV) (code int, found bool, err error) {
	r := t.Reader()
	e, ok := r.Next()
	if !ok || e.Tag != 0x81 && e.Tag != 0x02 {
		return 0, false, r.Err()
	}
	code, err = intCode(e)
	return code, true, err
}

func intCode(t ber.TLV) (int, error) {
	n, err := t.Int()
	if err == nil && (n < 0 || n > 1<<15) {
		err = fmt.Errorf("result %d is out of range", n)
	}
	return int(n), err
}

// sessionAnswer reads BF38 or BF21: A0 with a signed part that names the
// transaction, or A1 with a transaction and an error code. It returns the code.
func sessionAnswer(t ber.TLV, id rsp.TransactionID) (code int, refused bool, err error) {
	outer := t.Reader()
	choice, ok := outer.Next()
	if !ok {
		return 0, false, errors.Join(errors.New("empty"), outer.Err())
	}
	in := choice.Reader()
	switch choice.Tag {
	case 0xA0:
		signed := in.Read(0x30).Reader()
		got := signed.Read(0x80)
		in.Read(0x5F37)
		if err := errors.Join(in.Err(), signed.Err()); err != nil {
			return 0, false, err
		}
		if !id.Equal(got.Value) {
			return 0, false, errors.New("it belongs to another session")
		}
		return 0, false, nil
	case 0xA1:
		in.Optional(0x80) // transactionId
		e, ok := in.Next()
		if !ok {
			return 0, false, errors.Join(errors.New("no error code"), in.Err())
		}
		if e.Tag != 0x02 && e.Tag != 0x81 {
			return 0, false, fmt.Errorf("error code has tag %v, want 02", e.Tag)
		}
		code, err := intCode(e)
		return code, true, err
	}
	return 0, false, fmt.Errorf("tag %v, want A0 or A1", choice.Tag)
}
