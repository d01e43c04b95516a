package orders

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"lpad/agent/rsp"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// Leeway is how far the clocks of a device and of an operator may differ before
// an order counts as one from the future. None is given to one that has
// expired.
const Leeway = 5 * time.Minute

// Action is what is to be done.
type Action string

// The actions.
const (
	Install Action = "install"
	Enable  Action = "enable"
	Disable Action = "disable"
	Delete  Action = "delete"
)

// Device says which device: in an order the one that is meant, where an empty
// field means any, and in [Verify] this one, where it means that it is not
// known.
type Device struct {
	EID   rsp.EID
	IMEI  string // 15 digits
	TAC   string // the first 8 of them; where it is empty, those of IMEI
	Model string // as the modem tells it; case does not matter
}

// Order is a signed order that was read.
type Order struct {
	Issuer string // who signed: the kid
	BySMDP bool   // nobody has proven it yet: see [VerifySMDP]
	Serial int64  // grows from order to order of an issuer

	IssuedAt, NotBefore, Expires time.Time // NotBefore may be zero
	Device                       Device

	Action         Action
	ActivationCode rsp.ActivationCode // of Install
	ICCID          rsp.ICCID          // of Install: the profile that must be offered, zero: any; else: the profile

	Enable     bool      // of Install: switch to it, too
	EnableAt   time.Time // not before; zero: at once
	DeleteOld  bool
	Parameters json.RawMessage // as they came; nil: none
	ReportTo   string
}

// Deletes reports whether a profile may be deleted because of the order.
func (o Order) Deletes() bool { return o.Action == Delete || o.DeleteOld }

// Verify reads a signed order and checks all that can be told of it by itself:
// the signature, over the bytes as they are here, the issuer, the time and the
// device. On an error, which explains itself, nothing of the order counts.
//
// The signature of an order of [SMDP] is left open; [Order.BySMDP] says so.
func Verify(jws []byte, keys Keys, now time.Time, device Device) (Order, error) {
	t, err := parse(jws)
	if err != nil {
		return Order{}, err
	}
	if t.kid != SMDP {
		key, known := keys.byKID[t.kid]
		if !known {
			return Order{}, fault.New(fault.Fault{Code: CodeKey, Text: "the order is signed with the key " + t.kid + ", which is not known here", Who: fault.Configuration,
				Next: "if this operator shall be believed, put its public key into the folder of orders.keys_dir as " + t.kid + ".pem"}, nil)
		}
		if err := t.verify(key); err != nil {
			return Order{}, err
		}
	}
	o, err := payload(t.payload)
	if err != nil {
		return Order{}, refuse(CodeInvalid, "the signed order makes no sense: "+err.Error(), nextSend, nil)
	}
	if o.Issuer != t.kid {
		return Order{}, refuse(CodeInvalid, fmt.Sprintf("the order says that it is from %q, and is signed with the key %q", short(o.Issuer), t.kid), nextSend, nil)
	}
	if o.BySMDP = t.kid == SMDP; o.BySMDP && o.Action != Install {
		return Order{}, refuse(CodeInvalid, "an order that the SM-DP+ has signed can only install", "have it signed by a key that the device knows", nil)
	}
	if err := o.checkTime(now); err != nil {
		return Order{}, err
	}
	if err := o.checkDevice(device); err != nil {
		return Order{}, err
	}
	return o, nil
}

// VerifySMDP checks the signature of an order of [SMDP] with the certificate
// (DER) by which the SM-DP+ has proven itself to the eUICC.
func VerifySMDP(jws, certificate []byte) error {
	t, err := parse(jws)
	if err != nil {
		return err
	}
	if t.kid != SMDP {
		return refuse(CodeKey, "the order is not signed by the SM-DP+", nextSign, nil)
	}
	key, err := certificateKey(certificate)
	if err != nil {
		return refuse(CodeKey, "the certificate of the SM-DP+ cannot vouch for an order", "have the order signed by a key that the device knows: a server's certificate counts for P-256 only", err)
	}
	return t.verify(key)
}

func (o Order) checkTime(now time.Time) error {
	begin := o.IssuedAt
	if o.NotBefore.After(begin) {
		begin = o.NotBefore
	}
	switch {
	case !now.Before(o.Expires):
		return refuse(CodeExpired, "the order has expired, on "+o.Expires.Format(time.RFC3339)+"; here it is "+now.UTC().Format(time.RFC3339), "have a new order signed; if it is new, look at the clock of the device", nil)
	case begin.After(now.Add(Leeway)):
		return fault.New(fault.Fault{Code: CodeEarly, Text: "the order is not valid before " + begin.Format(time.RFC3339) + "; here it is " + now.UTC().Format(time.RFC3339), Retry: true,
			Who: fault.Operator, Next: "send the order again then; if the time has come, look at the clock of the device"}, nil)
	}
	return nil
}

// checkDevice refuses an order that names something which this device is not,
// or does not know of itself.
func (o Order) checkDevice(d Device) error {
	if d.TAC == "" && len(d.IMEI) >= 8 {
		d.TAC = d.IMEI[:8]
	}
	shown := func(digits string) string {
		if digits == "" {
			return ""
		}
		return redact.Digits(digits)
	}
	eid := func(e rsp.EID) string {
		if e.IsZero() {
			return ""
		}
		return e.String()
	}
	for _, b := range []struct {
		what, wanted, here, show string
		same                     bool
	}{
		{"EID", eid(o.Device.EID), eid(d.EID), shown(eid(d.EID)), o.Device.EID == d.EID},
		{"IMEI", o.Device.IMEI, d.IMEI, shown(d.IMEI), sameIMEI(o.Device.IMEI, d.IMEI)},
		{"TAC", o.Device.TAC, d.TAC, d.TAC, o.Device.TAC == d.TAC},
		{"model", o.Device.Model, d.Model, short(d.Model), strings.EqualFold(o.Device.Model, d.Model)},
	} {
		switch {
		case b.wanted == "":
		case b.here == "":
			return fault.New(fault.Fault{Code: CodeDevice, Text: "the order is for a device by its " + b.what + ", which this device does not know of itself", Retry: true, Who: fault.Technician,
				Next: "look whether the card and the modem answer (lpactl status, lpactl probe), then send the order again"}, nil)
		case !b.same:
			return refuse(CodeDevice, "the order is for another device: the "+b.what+" of this one is "+b.show, "send it to the device that it was signed for", nil)
		}
	}
	return nil
}

// sameIMEI compares without the last digit, which is computed from the others
// and which some modems do not tell rightly.
func sameIMEI(a, b string) bool {
	const significant = 14
	return len(a) >= significant && len(b) >= significant && a[:significant] == b[:significant]
}
