package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"lpad/agent/api"
	"lpad/apdu"
	"lpad/apdu/ber"
	"lpad/internal/fault"
)

// Instructions that have to be told apart (ISO 7816-4, GlobalPlatform 2.3.1, ETSI
// TS 102 221).
const (
	insManageChannel = 0x70
	insStoreData     = 0xE2
)

// What needs no force: it reads, or concerns the channel alone, which is lpad's
// own and is closed afterwards. SELECT, READ, GET RESPONSE, GET DATA, GET STATUS;
// of ES10 (tags BFxx) what the eUICC, its profiles and its notifications are.
const (
	readingIns  = "\xA4\xB0\xB2\xC0\xCA\xCB\xF2"
	readingTags = "\x20\x22\x28\x2B\x2D\x3C\x3E\x43\x55\x56"
	es10Tags    = 0xBF
)

// ownOrder is the command of lpad's for a function of ES10 that has an order, with
// guards and a journal, beside which nobody may pass.
func ownOrder(tag ber.Tag) string {
	switch tag {
	case 0xBF31:
		return "enable"
	case 0xBF32:
		return "disable"
	case 0xBF33, 0xBF34:
		return "delete"
	case 0xBF30:
		return "notifications drop"
	case 0xBF36:
		return "install"
	}
	return ""
}

// APDU sends commands to the ISD-R by hand, on a channel of their own. What is
// recorded of them are instruction and length, never the data.
func (b *backend) APDU(ctx context.Context, by string, r api.APDURequest) (api.APDUs, error) {
	var out api.APDUs
	if n := len(r.Commands); n == 0 || n > api.MaxAPDUs {
		return out, badRequest(fmt.Sprintf("1 to %d commands are possible", api.MaxAPDUs), nil)
	}
	var commands []apdu.Command
	said := "commands by hand, by " + by + ":"
	for i, text := range r.Commands {
		raw, err := hex.DecodeString(text)
		var c apdu.Command
		if err == nil {
			c, err = apdu.ParseCommand(raw)
		}
		if err != nil {
			return out, badRequest(fmt.Sprintf("command %d is no short APDU in hexadecimal", i+1), err)
		}
		commands = append(commands, c)
		said += fmt.Sprintf(" %02X(%d)", c.INS, len(raw))
	}
	if err := judge(commands, r.Force); err != nil {
		b.runner.Tell(api.EventAPDU, said+", refused")
		return out, err
	}
	err := b.runner.WithCard(ctx, func(ctx context.Context) error {
		ch, end, err := b.card.raw(ctx)
		if err != nil {
			return err
		}
		b.runner.Tell(api.EventAPDU, said)
		var refused *apdu.StatusError
		for _, c := range commands {
			var got apdu.Response
			if got, err = ch.Transmit(ctx, c); err != nil && !errors.As(err, &refused) {
				break
			}
			out.Responses = append(out.Responses, strings.ToUpper(hex.EncodeToString(got.Marshal())))
			if err != nil { // what follows was meant for a card that had obeyed
				err = nil
				break
			}
		}
		return errors.Join(err, end(context.WithoutCancel(ctx)))
	})
	if r.Force { // whatever is known of the card may not be so any more
		_, _ = b.runner.Refresh(ctx, 0)
	}
	return out, err
}

// judge refuses what must not pass beside lpad's own orders, and what may change
// something unless it is forced. A function of ES10 is judged when its blocks
// are together, so that none hides in a second one.
func judge(commands []apdu.Command, force bool) error {
	var chain []byte
	blocks := 0
	for i, c := range commands {
		refuse := func(text, next string) error {
			return fault.New(fault.Fault{Code: "apdu-refused", Text: fmt.Sprintf("command %d %s", i+1, text), Who: fault.Technician, Next: next}, nil)
		}
		needs := strings.IndexByte(readingIns, c.INS) < 0 || c.CLA != 0 && c.CLA != 0x80
		switch {
		case apdu.ChannelOf(c.CLA) != 0:
			return refuse("names a logical channel", "write its class byte for channel 0: the channel is lpad's")
		case c.INS == insManageChannel:
			return refuse("is MANAGE CHANNEL", "leave it out: lpad opens and closes the channel")
		case blocks > 0 && c.INS != insStoreData || c.INS == insStoreData && int(c.P2) != blocks:
			return refuse("is not the next block of its STORE DATA", "send the blocks of one function together, numbered from 0")
		case c.INS == insStoreData:
			chain = append(chain, c.Data...)
			if blocks++; c.P1&0x80 == 0 {
				if i+1 < len(commands) {
					continue
				}
				return refuse("is not the last block of its STORE DATA", "send all of it in one request")
			}
			t, err := ber.Parse(chain)
			if err != nil {
				return refuse("holds no function of ES10", "send exactly one function")
			}
			if order := ownOrder(t.Tag); order != "" {
				return refuse("is a function that lpad keeps a record of", "use lpactl "+order+", which takes care of the network too")
			}
			needs = t.Tag>>8 != es10Tags || strings.IndexByte(readingTags, byte(t.Tag)) < 0 || c.CLA != 0x80
			chain, blocks = nil, 0
		}
		if needs && !force {
			return refuse("may change something on the card", "if that is what you want: --force")
		}
	}
	return nil
}
