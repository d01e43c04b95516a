// Package lab is a world for lpad to live in, on one machine without hardware:
// a PKI, a software eUICC, an SM-DP+, and either a whole device around an AT
// modem (real ModemManager and NetworkManager in namespaces of their own) or a
// real pcscd with a virtual reader. The programs are the real ones, as built.
//
//	w, err := lab.New(lab.Options{})
//	dev, err := w.StartDevice(ctx, lab.DeviceOptions{Programs: "build"})
//	defer dev.Close()
//	err = dev.Lpactl(ctx, os.Stderr, "install", w.ActivationCode(), "--enable", "--yes")
//	w.SMDP.Notifications()          // what the server got, and from which address
//
// cmd/lpalab makes programs of it (demo, bench), the tests beside it hold the
// product against it. A device needs root and the packages that
// modemtest.RequireStack names.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/rsp/rsptest/upp"
	"lpad/modem/modemtest"
)

// Host is the name of the lab's SM-DP+.
const Host = "smdp.lpad.example"

// Subscriber is a profile with its subscription at the operator.
type Subscriber struct {
	ICCID    string
	IMSI     string
	PLMN     string
	Operator string
	Plan     string
	APN      string
	Address  netip.Prefix // the device's, in the operator's network
	Gateway  netip.Addr
}

// The two operators of the lab. Their networks differ, so that a server sees
// by the address which profile a device is using. The new one has a network
// code that the provider list knows, and the access point that stands there.
var (
	OldOperator = Subscriber{ICCID: "89330100000000000017", IMSI: "001010123456789", PLMN: "00101", Operator: "Test PLMN", Plan: "Fleet 2019", APN: "old.example",
		Address: netip.MustParsePrefix("10.64.1.2/24"), Gateway: netip.MustParseAddr("10.64.1.1")}
	NewOperator = Subscriber{ICCID: "89358050000000000022", IMSI: "244050000000022", PLMN: "24405", Operator: "Elisa", Plan: "IoT 2026", APN: "internet",
		Address: netip.MustParsePrefix("10.64.2.2/24"), Gateway: netip.MustParseAddr("10.64.2.1")}
)

// Subscription is what the lab's mobile network knows of a subscriber.
func (s Subscriber) Subscription() modemtest.Subscription {
	return modemtest.Subscription{IMSI: s.IMSI, APN: s.APN, Address: s.Address, Gateway: s.Gateway, PLMN: s.PLMN, Operator: s.Operator}
}

// owner is the profile owner in the metadata.
func (s Subscriber) owner() *rsp.Operator {
	return &rsp.Operator{MCCMNC: mccmnc(s.PLMN)}
}

// mccmnc codes a network of 5 or 6 digits (3GPP TS 24.008, section 10.5.1.13).
func mccmnc(plmn string) [3]byte {
	d := func(i int) byte {
		if i >= len(plmn) {
			return 0xF
		}
		return plmn[i] - '0'
	}
	return [3]byte{d(1)<<4 | d(0), d(5)<<4 | d(2), d(4)<<4 | d(3)}
}

func mustICCID(s string) rsp.ICCID {
	i, err := rsp.ParseICCID(s)
	if err != nil {
		panic(err) // a constant of this package
	}
	return i
}

func notifyAll(host string) []rsp.NotificationConfiguration {
	return []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: host}}
}

// Options shape a world; the zero value is the one of the demo.
type Options struct {
	Timing      euicc.Timing // how slow the card is; zero: infinitely fast
	ProfileSize int          // bytes of the profile package; 0: 12 kB
	EmptyCard   bool         // without the old profile
	PKI         *pki.PKI     // nil: a new one
	Card        func(*euicc.Config)
	SMDP        func(*smdp.Config)
	Order       func(*smdp.Order)
}

// World is a card and a server that know each other.
type World struct {
	PKI   *pki.PKI
	Card  *euicc.Card
	SMDP  *smdp.Server
	Order smdp.Order

	ctx    context.Context
	stop   context.CancelFunc
	served sync.WaitGroup
}

// NewPKI makes certificates for the lab's card and server.
func NewPKI() (*pki.PKI, error) {
	return pki.New(pki.Options{Name: "lpad lab CI", SMDPHost: Host, SMDSHost: "smds.lpad.example"})
}

// New makes a world. Close it.
func New(o Options) (*World, error) {
	p := o.PKI
	if p == nil {
		var err error
		if p, err = NewPKI(); err != nil {
			return nil, err
		}
	}
	w := &World{PKI: p}
	w.ctx, w.stop = context.WithCancel(context.Background())
	cc := euicc.ConfigUnder(p)
	cc.Timing = o.Timing
	if !o.EmptyCard {
		cc.Profiles = []euicc.Profile{{ICCID: mustICCID(OldOperator.ICCID), IMSI: OldOperator.IMSI, SPN: OldOperator.Operator,
			ServiceProvider: OldOperator.Operator, Name: OldOperator.Plan,
			Owner: OldOperator.owner(), Notifications: notifyAll(Host), Enabled: true}}
	}
	if o.Card != nil {
		o.Card(&cc)
	}
	var err error
	if w.Card, err = euicc.New(cc); err != nil {
		return nil, err
	}
	sc := smdp.ConfigUnder(p, Host)
	if o.SMDP != nil {
		o.SMDP(&sc)
	}
	if w.SMDP, err = smdp.New(sc); err != nil {
		return nil, err
	}
	size := o.ProfileSize
	if size == 0 {
		size = 12_000
	}
	if w.Order, err = NewOrder("LAB-0001", NewOperator, size); err != nil {
		return nil, err
	}
	if o.Order != nil {
		o.Order(&w.Order)
	}
	return w, w.SMDP.AddOrder(w.Order)
}

// NewOrder makes a download order for a subscriber's profile.
func NewOrder(matchingID string, s Subscriber, size int) (smdp.Order, error) {
	iccid := mustICCID(s.ICCID)
	profile, err := upp.Generate(upp.Options{ICCID: iccid, IMSI: s.IMSI, SPN: s.Operator, Size: size})
	if err != nil {
		return smdp.Order{}, err
	}
	return smdp.Order{MatchingID: matchingID, UPP: profile, Metadata: smdp.Metadata{ICCID: iccid, ServiceProvider: s.Operator, Name: s.Plan,
		Owner: s.owner(), Notifications: notifyAll(Host)}}, nil
}

// ActivationCode is the code of the world's order.
func (w *World) ActivationCode() string { return w.SMDP.ActivationCode(w.Order.MatchingID) }

// Serve lets the SM-DP+ answer on l until the world is closed.
func (w *World) Serve(l net.Listener) { w.ServeAs(l, w.PKI.DPTLS) }

// ServeAs is Serve with another TLS certificate.
func (w *World) ServeAs(l net.Listener, id *pki.Identity) {
	w.served.Go(func() {
		// An error of the listener shows as a server that does not answer.
		_ = w.SMDP.Serve(w.ctx, l, id)
	})
}

// Close stops the servers.
func (w *World) Close() {
	w.stop()
	w.served.Wait()
}

// writeTrust puts the lab's CI where lpad looks for authorities of its maker.
func (w *World) writeTrust(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "lab-ci.pem"), w.PKI.CI.Certificate.PEM(), 0o644)
}

// FindPrograms checks that lpad, lpactl and lpad-pcsc are in dir, or finds
// them beside the running program for "".
func FindPrograms(dir string) (string, error) {
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		dir = filepath.Dir(self)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for _, name := range []string{"lpad", "lpactl", "lpad-pcsc"} {
		if _, serr := os.Stat(filepath.Join(dir, name)); serr != nil {
			err = errors.Join(err, serr)
		}
	}
	if err != nil {
		return "", fmt.Errorf("programs are missing, build them first: %w", err)
	}
	return dir, nil
}

// listenLoopback listens where only this machine can connect.
func listenLoopback() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }
