package apdutest

import (
	"bytes"
	"context"
	"sync"

	"lpad/apdu"
)

// App answers the commands to an application that was selected. The class byte
// of the command is that of channel 0. It is called by one goroutine at a time.
type App func(apdu.Command) apdu.Response

// UICC is a card with logical channels and applications: it answers MANAGE
// CHANNEL, SELECT by AID and GET RESPONSE, and asks the selected application
// for the rest. Set the fields before use; the zero value has no application
// and no logical channel but the basic one. For concurrent use.
type UICC struct {
	Apps     map[string]App // by AID, as bytes in a string
	Channels int            // logical channels besides the basic one, 0 to 19
	Piece    int            // bytes of a piece under 61xx, 1 to 256; 0: the whole response at once, as over T=1
	Answer   []byte         // to reset; nil: ATRT0

	mu       sync.Mutex
	selected map[int]string // AID by channel; channels that are open
	pending  map[int][]byte // what GET RESPONSE will give
	final    map[int]apdu.SW
	stalled  chan struct{} // closed when the card goes on
	resets   int
}

// ATR gives the answer to reset.
func (u *UICC) ATR() []byte {
	if u.Answer == nil {
		return bytes.Clone(ATRT0)
	}
	return bytes.Clone(u.Answer)
}

// Reset closes all channels.
func (u *UICC) Reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reset()
	u.resets++
}

func (u *UICC) reset() {
	u.selected, u.pending, u.final = map[int]string{0: ""}, map[int][]byte{}, map[int]apdu.SW{}
}

// Resets says how often the card was reset.
func (u *UICC) Resets() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.resets
}

// Open says how many logical channels are open, the basic one not counted.
func (u *UICC) Open() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return max(0, len(u.selected)-1)
}

// Stall makes the card stop answering, until resume is called.
func (u *UICC) Stall() (resume func()) {
	stalled := make(chan struct{})
	u.mu.Lock()
	u.stalled = stalled
	u.mu.Unlock()
	return sync.OnceFunc(func() {
		u.mu.Lock()
		u.stalled = nil
		u.mu.Unlock()
		close(stalled)
	})
}

// Transmit answers one command.
func (u *UICC) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	u.mu.Lock()
	stalled := u.stalled
	u.mu.Unlock()
	if stalled != nil {
		select {
		case <-stalled:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	c, err := apdu.ParseCommand(command)
	if err != nil {
		return apdu.Response{SW: 0x6700}.Marshal(), nil
	}
	if u.selected == nil {
		u.reset()
	}
	return u.answer(c).Marshal(), nil
}

func (u *UICC) answer(c apdu.Command) apdu.Response {
	ch := apdu.ChannelOf(c.CLA)
	c.CLA = baseClass(c.CLA)
	aid, open := u.selected[ch]
	switch {
	case !open:
		return apdu.Response{SW: 0x6881}
	case c.INS == 0xC0:
		return u.next(ch, c.Le)
	case c.INS == 0x70 && c.CLA == 0x00:
		return u.manage(c)
	case c.INS == 0xA4 && c.CLA == 0x00 && c.P1 == 0x04:
		if _, ok := u.Apps[string(c.Data)]; !ok {
			return apdu.Response{SW: 0x6A82}
		}
		u.selected[ch] = string(c.Data)
		return u.cut(ch, apdu.Response{Data: fci(c.Data), SW: 0x9000})
	case u.Apps[aid] == nil:
		return apdu.Response{SW: 0x6D00}
	}
	return u.cut(ch, u.Apps[aid](c))
}

// fci is a file control information template with the name of the application.
func fci(aid []byte) []byte {
	name := append([]byte{0x84, byte(len(aid))}, aid...)
	return append([]byte{0x6F, byte(len(name))}, name...)
}

// manage answers MANAGE CHANNEL (ETSI TS 102 221, section 11.1.17).
func (u *UICC) manage(c apdu.Command) apdu.Response {
	switch {
	case c.P1 == 0x00 && c.P2 == 0x00:
		for n := 1; n <= u.Channels; n++ {
			if _, open := u.selected[n]; open {
				continue
			}
			if c.Le != 1 {
				return apdu.Response{SW: 0x6C01}
			}
			u.selected[n] = ""
			return apdu.Response{Data: []byte{byte(n)}, SW: 0x9000}
		}
		return apdu.Response{SW: 0x6A81}
	case c.P1 == 0x80 && c.P2 != 0:
		if _, open := u.selected[int(c.P2)]; !open {
			return apdu.Response{SW: 0x6881}
		}
		delete(u.selected, int(c.P2))
		return apdu.Response{SW: 0x9000}
	}
	return apdu.Response{SW: 0x6A86}
}

// cut keeps a response for GET RESPONSE if the card works in pieces.
func (u *UICC) cut(ch int, r apdu.Response) apdu.Response {
	delete(u.pending, ch)
	if u.Piece == 0 || len(r.Data) == 0 {
		return r
	}
	u.pending[ch], u.final[ch] = r.Data, r.SW
	return apdu.Response{SW: u.waiting(ch)}
}

// waiting gives 61xx for what is pending.
func (u *UICC) waiting(ch int) apdu.SW {
	return 0x6100 | apdu.SW(min(len(u.pending[ch]), u.Piece)&0xFF)
}

// next answers GET RESPONSE.
func (u *UICC) next(ch, le int) apdu.Response {
	data, ok := u.pending[ch]
	if !ok {
		return apdu.Response{SW: 0x6985}
	}
	n := min(le, len(data), u.Piece)
	if le > n {
		return apdu.Response{SW: 0x6C00 | apdu.SW(n&0xFF)}
	}
	if n == len(data) {
		delete(u.pending, ch)
		return apdu.Response{Data: data, SW: u.final[ch]}
	}
	u.pending[ch] = data[n:]
	return apdu.Response{Data: data[:n], SW: u.waiting(ch)}
}
