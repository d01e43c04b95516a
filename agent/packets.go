package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"lpad/agent/api"
	"lpad/agent/packets"
	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/rsp/es9p"
	"lpad/agent/runner"
	"lpad/config"
	"lpad/internal/fault"
)

// newOffline makes what jobs without a network reach servers by.
func (u *unit) newOffline(cfg config.Unit, pulse *runner.Pulse) *runner.Offline {
	u.box = packets.Open(filepath.Join(cfg.StateDir, "packets"), packets.Options{Limit: cfg.RSP.PacketTimeout, Beat: pulse.Beat,
		Changed: func(job string) { u.runner.PacketsChanged(job) }, Log: u.log})
	return &runner.Offline{Box: u.box, Open: func(address string) (procedure.Server, error) {
		return u.carried(address, &es9p.Client{Transport: u.box.To(address)})
	}}
}

func (u *unit) carried(address string, c *es9p.Client) (procedure.Server, error) {
	c.Trust, c.Protocol, c.Log = u.servers.trust, u.cfg.RSP.Protocol, u.log
	return c.Open(address)
}

// once opens a session whose one request is a notification, of a number, that f
// answers.
func (u *unit) once(seq int64, f packets.One) procedure.Opener {
	return func(address string) (procedure.Server, error) {
		return u.carried(address, &es9p.Client{Transport: packets.One(func(p *api.Packet) (*api.Packet, error) {
			from := packets.Notification
			if u.cfg.Name != config.Main {
				from += "-" + u.cfg.Name
			}
			p.Number = seq
			packets.Request(p, from)
			return f(p)
		})})
	}
}

var errNotSent = errors.New("only written down")

// notificationPacket is a notification that waits on the card as a packet.
func (u *unit) notificationPacket(ctx context.Context, n rsp.PendingNotification) (p api.Packet, err error) {
	server, err := u.once(n.SeqNumber, func(request *api.Packet) (*api.Packet, error) {
		p = *request
		return nil, errNotSent
	})(n.Receiver())
	if err == nil {
		err = errors.Join(server.HandleNotification(ctx, n.Raw), server.Close())
	}
	if errors.Is(err, errNotSent) {
		err = nil
	}
	return p, err
}

// Packets are the requests that wait to be carried: of jobs, and of what is on the
// card if no job has it.
func (b *backend) Packets(ctx context.Context) (api.Packets, error) {
	out := api.Packets{Packets: []api.Packet{}}
	for _, u := range b.units {
		if !b.all && u != b.unit {
			continue
		}
		out.Packets = append(out.Packets, u.box.List()...)
		pending, err := u.runner.Pending(ctx)
		for _, n := range pending {
			p, perr := u.notificationPacket(ctx, n)
			if perr != nil {
				err = errors.Join(err, perr)
				continue
			}
			out.Packets = append(out.Packets, p)
		}
		if err != nil {
			out.Note = fmt.Sprintf("notifications on the card %s are left out: %s", u.cfg.Name, fault.Of(err).Text)
		}
	}
	return out, nil
}

// PutPacket takes the answer of a server that somebody has carried.
func (b *backend) PutPacket(ctx context.Context, _ string, a *api.Packet) error {
	if err := packets.Check(a, 0); err != nil {
		return fault.New(fault.Fault{Code: "packet-damaged", Text: "this is no packet, or it was damaged on its way", Who: fault.Technician,
			Next: "copy the file once more"}, err)
	}
	if a.Function != packets.Notify {
		return b.of(a.Job).box.Put(a)
	}
	var err error
	for _, u := range b.units { // the number may be of any card
		err = u.runner.Carried(ctx, a.Number, u.once(a.Number, func(request *api.Packet) (*api.Packet, error) {
			if request.ID != a.ID {
				return nil, packets.Superseded("the notification of this number is another one")
			}
			return a, nil
		}))
		if err == nil || fault.Of(err).Code != api.CodePacketSuperseded {
			break
		}
	}
	return err
}
