package apdu

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// TraceLine tells of one exchange what may be written into a log. It holds no
// data of the command or of the response, so none can leak.
type TraceLine struct {
	CLA, INS, P1, P2 byte
	Lc               int           // bytes of data sent
	Tag              string        // of the first element of STORE DATA, in hex; empty in later blocks and other commands
	Length           int           // bytes of data received
	SW               SW            // 0 if there was no answer
	Duration         time.Duration // from sending to the answer
	Err              error         // of the transport
}

// String gives the line as text: `STORE DATA 81E29100 BF3E 6>0 6115 1.5ms`.
func (l TraceLine) String() string {
	tag := l.Tag
	if tag == "" {
		tag = "-"
	}
	end := fmt.Sprintf("%04X", uint16(l.SW))
	if l.Err != nil {
		end = "error: " + l.Err.Error()
	}
	return fmt.Sprintf("%s %02X%02X%02X%02X %s %d>%d %v %s",
		instruction(l.INS), l.CLA, l.INS, l.P1, l.P2, tag, l.Lc, l.Length, l.Duration.Round(time.Microsecond), end)
}

// LogValue gives the line as attributes.
func (l TraceLine) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.String("command", instruction(l.INS)),
		slog.String("header", fmt.Sprintf("%02X%02X%02X%02X", l.CLA, l.INS, l.P1, l.P2)),
		slog.Int("lc", l.Lc),
	}
	if l.Tag != "" {
		attrs = append(attrs, slog.String("tag", l.Tag))
	}
	if l.Err != nil {
		attrs = append(attrs, slog.Any("err", l.Err))
	} else {
		attrs = append(attrs, slog.Int("length", l.Length), slog.String("sw", fmt.Sprintf("%04X", uint16(l.SW))))
	}
	return slog.GroupValue(append(attrs, slog.Duration("took", l.Duration))...)
}

// WithTrace gives a transport that tells log of every exchange on t, after it.
// log is called by whoever transmits and must not block.
func WithTrace(t Transport, log func(TraceLine)) Transport { return &traced{t, log} }

// Trace has log told of every exchange on the channel from now on, but not of
// its closing; see [WithTrace].
func (c *Channel) Trace(log func(TraceLine)) { c.t = WithTrace(c.t, log) }

type traced struct {
	t   Transport
	log func(TraceLine)
}

func (t *traced) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	start := time.Now()
	response, err := t.t.Transmit(ctx, command)
	l := TraceLine{Duration: time.Since(start), Err: err}
	if c, perr := ParseCommand(command); perr == nil {
		l.CLA, l.INS, l.P1, l.P2, l.Lc, l.Tag = c.CLA, c.INS, c.P1, c.P2, len(c.Data), firstTag(c)
	}
	if r, perr := ParseResponse(response); perr == nil {
		l.Length, l.SW = len(r.Data), r.SW
	}
	t.log(l)
	return response, err
}

// firstTag gives the tag that names the function called by STORE DATA. Only the
// first block begins with a tag; a later one begins in the middle of a value.
func firstTag(c Command) string {
	if c.INS != insStoreData || c.P2 != 0 || len(c.Data) == 0 {
		return ""
	}
	n := 1
	if c.Data[0]&0x1F == 0x1F {
		for n = 2; n < 3 && n < len(c.Data) && c.Data[n-1]&0x80 != 0; n++ {
		}
	}
	return fmt.Sprintf("%X", c.Data[:min(n, len(c.Data))])
}
