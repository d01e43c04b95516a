package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
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
// own and is closed afterwards.
var (
	readingIns  = []byte{0xA4, 0xB0, 0xB2, 0xC0, 0xCA, 0xCB, 0xF2}                                          // SELECT, READ, GET RESPONSE, GET DATA, GET STATUS
	readingTags = []ber.Tag{0xBF20, 0xBF22, 0xBF28, 0xBF2B, 0xBF2D, 0xBF3C, 0xBF3E, 0xBF43, 0xBF55, 0xBF56} // of ES10: what the eUICC, its profiles and its notifications are
)

// ownOrders are the functions of ES10 that have an order of lpad's, with guards
// and a journal, beside which nobody may pass.
var ownOrders = map[ber.Tag]string{
	0xBF31: "lpactl enable", 0xBF32: "lpactl disable", 0xBF33: "lpactl delete", 0xBF34: "lpactl delete",
	0xBF30: "lpactl notifications drop", 0xBF36: "lpactl install",
}

// APDU sends commands to the ISD-R by hand, on a channel of their own. What is
// recorded of them are instruction and length, never the data.
func (b *backend) APDU(ctx context.Context, by string, r api.APDURequest) (api.APDUs, error) {
	out := api.APDUs{Responses: []string{}}
	if n := len(r.Commands); n == 0 || n > api.MaxAPDUs {
		return out, badRequest(fmt.Sprintf("the request has %d commands, 1 to %d are possible", n, api.MaxAPDUs), nil)
	}
	var commands []apdu.Command
	said := ""
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
		b.log.Warn("commands by hand were refused", "ins", said[1:], "force", r.Force, "by", by, "err", err)
		return out, err
	}
	err := b.runner.WithCard(ctx, func(ctx context.Context) error {
		ch, end, err := b.card.raw(ctx)
		if err != nil {
			return err
		}
		b.log.Warn("commands by hand", "ins", said[1:], "force", r.Force, "by", by)
		b.runner.Tell(api.EventAPDU, "commands by hand:"+said+", by "+by)
		for _, c := range commands {
			var got apdu.Response
			var refused *apdu.StatusError
			if got, err = ch.Transmit(ctx, c); err == nil || errors.As(err, &refused) {
				out.Responses = append(out.Responses, strings.ToUpper(hex.EncodeToString(got.Marshal())))
			}
			if err != nil {
				break // what follows was meant for a card that had obeyed
			}
		}
		var refused *apdu.StatusError
		if errors.As(err, &refused) {
			err = nil
		}
		return errors.Join(err, end(context.WithoutCancel(ctx)))
	})
	if r.Force { // whatever is known of the card may not be so any more
		if _, unread := b.runner.Refresh(ctx, 0); unread != nil {
			b.log.Debug("card not read after commands by hand", "err", unread)
		}
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
		at := fmt.Sprintf("command %d", i+1)
		needs := !slices.Contains(readingIns, c.INS)
		switch {
		case apdu.ChannelOf(c.CLA) != 0:
			return apduRefused(at+" names a logical channel", "write its class byte for channel 0: the channel is lpad's")
		case c.INS == insManageChannel:
			return apduRefused(at+" is MANAGE CHANNEL", "leave it out: lpad opens and closes the channel")
		case blocks > 0 && c.INS != insStoreData || c.INS == insStoreData && int(c.P2) != blocks:
			return apduRefused(at+" is not the next block of its STORE DATA", "send the blocks of one function together, numbered from 0")
		case c.INS == insStoreData:
			chain = append(chain, c.Data...)
			if blocks++; c.P1&0x80 == 0 && i+1 < len(commands) {
				continue
			}
			if c.P1&0x80 == 0 {
				return apduRefused("the last block of STORE DATA is missing", "send all of it in one request")
			}
			t, err := ber.Parse(chain)
			if err != nil {
				return apduRefused(at+" holds no function of ES10", "send exactly one function")
			}
			if order, own := ownOrders[t.Tag]; own {
				return apduRefused(fmt.Sprintf("%s is a function that lpad keeps a record of (%s)", at, t.Tag), "use "+order+", which takes care of the network too")
			}
			needs, chain, blocks = !slices.Contains(readingTags, t.Tag), nil, 0
		}
		if cla := c.CLA; cla != 0 && cla != 0x80 {
			needs = true
		}
		if needs && !force {
			return apduRefused(at+" may change something on the card", "if that is what you want: --force")
		}
	}
	return nil
}

func apduRefused(text, next string) error {
	return fault.New(fault.Fault{Code: "apdu-refused", Text: text, Who: fault.Technician, Next: next}, nil)
}
