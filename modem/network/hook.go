package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"lpad/internal/fault"
	"lpad/internal/program"
	"lpad/modem"
)

// hookLimit bounds a hook. pppd dials and negotiates for half a minute, and stays
// in the background, which is why what a hook leaves there is not killed.
const hookLimit = time.Minute

// Events of a hook.
const (
	HookUp    = "up"    // bring the interface up
	HookDown  = "down"  // take it down; it may be down already
	HookRenew = "renew" // it should be up: see to it, and name it
)

// Ways in which the interface gets its address.
const (
	MethodStatic  = "static"
	MethodDHCP    = "dhcp"
	MethodPPP     = "ppp"
	MethodUnknown = "unknown"
)

// Hook is a program of the device's maker that brings the interface of the
// modem up and down where NetworkManager does not. docs/operations.md has its
// environment.
type Hook struct {
	Path    string        // the program; it gets no arguments
	Timeout time.Duration // after which it is killed with all that it has started; 0: 1 min
	Log     *slog.Logger  // nil: none
}

// Carrier is what a hook is told of.
type Carrier struct {
	Backend  string // "modemmanager", "none"
	Method   string
	Link     modem.Link // the interface may be unknown
	Gateways []netip.Addr
	MTU      int
	APN      modem.APN
	ICCID    string
	CID      int    // context of the modem that carries it; 0: not known
	Port     string // serial device for lpad's own commands, or for PPP
}

// HookError says that a hook did not do what it was asked for.
type HookError struct {
	Path, Event string
	Said        string // its last line
	Err         error
}

// Error has the hook's last line.
func (e *HookError) Error() string {
	s := fmt.Sprintf("hook %s (%s): %v", e.Path, e.Event, e.Err)
	if e.Said != "" {
		s += ": " + e.Said
	}
	return s
}

// Unwrap returns the reason.
func (e *HookError) Unwrap() error { return e.Err }

// Fault explains it: "network-hook-failed".
func (e *HookError) Fault() fault.Fault {
	f := fault.Fault{Code: "network-hook-failed", Text: "the network hook did not bring the interface " + e.Event + ": " + e.Err.Error(), Retry: true, Who: fault.Technician,
		Next: "look at the hook's output in the log of lpad, and run it by hand"}
	if e.Said != "" {
		f.Text += ": " + e.Said
	}
	if errors.Is(e.Err, os.ErrNotExist) || errors.Is(e.Err, os.ErrPermission) {
		f.Retry, f.Who, f.Next = false, fault.Configuration, "see that network.hook names a program that lpad may run"
	}
	return f
}

// Run runs the hook and returns the link that came of it: the interface that it
// named, else the one it was told of. The error is a [*HookError].
func (h *Hook) Run(ctx context.Context, event string, c Carrier) (modem.Link, error) {
	said, err := program.Program{Path: h.Path, Env: append(withoutOurs(os.Environ()), c.environment(event)...), Timeout: cmp.Or(h.Timeout, hookLimit)}.Run(ctx)
	link, last := h.read(event, c, said)
	if err != nil {
		return modem.Link{}, &HookError{Path: h.Path, Event: event, Said: last, Err: err}
	}
	if len(link.Addresses) == 0 {
		link.Addresses = addressesOf(link.Interface)
	}
	return link, nil
}

// read takes from the output what it says of the link, and logs the rest.
func (h *Hook) read(event string, c Carrier, lines []string) (link modem.Link, last string) {
	link = c.Link
	for i, line := range lines {
		name, ok := strings.CutPrefix(line, "interface=")
		if password := c.APN.Password.Reveal(); password != "" && !ok {
			line = strings.ReplaceAll(line, password, "(password)")
		}
		switch {
		case ok && validInterface(name):
			if name != link.Interface {
				link = modem.Link{Interface: name, DNS: link.DNS} // the addresses were another one's
			}
		default:
			last = line
		}
		if h.Log != nil && i < program.MaxLines {
			h.Log.Info("network hook", "event", event, "said", line)
		}
	}
	return link, last
}

// environment is what the hook is told. The password is for PPP alone, which
// needs it itself.
func (c Carrier) environment(event string) []string {
	method := c.Method
	if method == "" {
		method = MethodUnknown
	}
	mtu := ""
	if c.MTU > 0 {
		mtu = strconv.Itoa(c.MTU)
	}
	env := []string{"LPAD_EVENT=" + event, "LPAD_BACKEND=" + c.Backend, "LPAD_INTERFACE=" + c.Link.Interface, "LPAD_METHOD=" + method,
		"LPAD_ADDRESS=" + list(c.Link.Addresses), "LPAD_GATEWAY=" + list(c.Gateways), "LPAD_DNS=" + list(c.Link.DNS), "LPAD_MTU=" + mtu,
		"LPAD_APN=" + c.APN.Name, "LPAD_USER=" + c.APN.User, "LPAD_ICCID=" + c.ICCID, "LPAD_PORT=" + c.Port}
	if c.CID > 0 {
		env = append(env, "LPAD_CID="+strconv.Itoa(c.CID))
	}
	if method == MethodPPP {
		env = append(env, "LPAD_PASSWORD="+c.APN.Password.Reveal())
	}
	for i, e := range env {
		env[i] = strings.ReplaceAll(e, "\x00", "") // exec refuses it; an access point comes from outside
	}
	return env
}

// withoutOurs keeps lpad's own settings from being taken for the hook's.
func withoutOurs(env []string) []string {
	var out []string
	for _, e := range env {
		if !strings.HasPrefix(e, "LPAD_") {
			out = append(out, e)
		}
	}
	return out
}

func list[T fmt.Stringer](all []T) string {
	var b strings.Builder
	for i, a := range all {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(a.String())
	}
	return b.String()
}

// validInterface: what the kernel takes for a name (dev_valid_name).
func validInterface(name string) bool {
	const most = 15
	return name != "" && len(name) <= most && name != "." && name != ".." && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r == '/' || r == ':' || r > '~'
	})
}

// addressesOf are the addresses of an interface, none if it cannot be read.
func addressesOf(name string) []netip.Prefix {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil
	}
	all, err := i.Addrs()
	if err != nil {
		return nil
	}
	var out []netip.Prefix
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p)
		}
	}
	return out
}
