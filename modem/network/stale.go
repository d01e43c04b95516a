package network

import (
	"context"

	"lpad/modem"
	"lpad/modem/nm"
)

// leftover reports that the link has more IPv4 addresses than the one that a
// network gives. A NetworkManager that dies while a connection is up leaves its
// address and routes on the interface, and the next one adds those of the new
// connection to them: the new profile would send with the address of the old
// one, to its gateway.
func leftover(link modem.Link) bool {
	n := 0
	for _, p := range link.Addresses {
		if a := p.Addr(); a.Is4() && !a.IsLinkLocalUnicast() {
			n++
		}
	}
	return n > 1
}

// up brings the connection up, and once more if something of an earlier one is
// left on the interface: NetworkManager cleans it when a connection goes down.
func (s *ManagerStack) up(ctx context.Context, con nm.Connection, modemPath string) (modem.Link, error) {
	for again := false; ; again = true {
		active, err := s.nm.Up(ctx, con, modemPath)
		if err != nil {
			return modem.Link{}, s.whyNot(ctx, con, err)
		}
		link, err := s.nm.Link(ctx, active)
		if err != nil || again || !leftover(link) {
			return link, err
		}
		s.log.Warn("the interface has an address of an earlier connection; the new one is brought up again", "interface", link.Interface)
		if err := s.nm.Deactivate(ctx, active); err != nil {
			return modem.Link{}, err
		}
	}
}
