package atmodem_test

import (
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/apdu"
	"lpad/apdu/ber"
	"lpad/modem"
	"lpad/modem/at"
	"lpad/modem/atcard"
	"lpad/modem/atmodem"
	"lpad/modem/modemtest"
	"lpad/modem/serialport"
)

func iccid(t *testing.T, s string) rsp.ICCID {
	t.Helper()
	id, err := rsp.ParseICCID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// The whole way on a tty: software eUICC, AT modem, pty, serial port, queue,
// card and modem. A profile is enabled, its access point written, the SIM read
// again, and the modem registers with it.
func TestSwitchOnATTY(t *testing.T) {
	sierra := modemtest.Generic // one that does everything its own way
	sierra.Name, sierra.SessionFormat, sierra.SessionBase, sierra.SIMBusyText = "wide handles", "%016x", 0x38a32e, true
	bare := modemtest.Generic
	bare.Name, bare.BareCCHO, bare.InlineResponse, bare.ICCIDPadded, bare.Has = "bare answers", true, true, true, []string{"+QCCID"}
	csim := modemtest.UBlox
	csim.Name, csim.Lacks = "CSIM only", []string{"+CCHO", "+CGLA", "+CCHC"}
	file := modemtest.Generic
	file.Name, file.Has = "ICCID by its file", nil
	for _, d := range []modemtest.Dialect{modemtest.UBlox, modemtest.Generic, sierra, bare, csim, file} {
		t.Run(d.Name, func(t *testing.T) {
			card, err := euicc.New(euicc.Config{Profiles: []euicc.Profile{
				{ICCID: iccid(t, oldICCID), IMSI: "001010123456789", SPN: "TestOne", Enabled: true},
				{ICCID: iccid(t, newICCID), IMSI: "310410000000022", MNCLength: 3, SPN: "ProfileB", GID1: []byte{0x42, 0xFF}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			sim, err := modemtest.New(modemtest.Config{Card: card, Dialect: d, Subscriptions: []modemtest.Subscription{
				{IMSI: "001010123456789", APN: "one", PLMN: "00101", Operator: "Test One", Address: netip.MustParsePrefix("10.1.1.2/24")},
				{IMSI: "310410000000022", APN: "two", PLMN: "310410", Operator: "Test Two", Address: netip.MustParsePrefix("10.1.2.2/24")},
			}, Delays: modemtest.Delays{SIM: 50 * time.Millisecond}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := sim.Close(); err != nil {
					t.Error(err)
				}
			}()
			path := filepath.Join(t.TempDir(), "ttyUSB0")
			if _, err := sim.OpenPTY(path); err != nil {
				t.Fatal(err)
			}
			port, err := serialport.Open(path, 115200)
			if err != nil {
				t.Fatal(err)
			}
			conn := at.New(port)
			defer func() {
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			}()
			ctx := t.Context()
			m := atmodem.New(conn)
			if err := m.Init(ctx); err != nil {
				t.Fatal(err)
			}
			if err := m.WaitSIM(ctx); err != nil {
				t.Fatal(err)
			}
			id, err := m.Identity(ctx)
			if err != nil || id.Manufacturer != d.Manufacturer || id.IMEI != d.IMEI {
				t.Errorf("identity %+v, %v", id, err)
			}
			if s, err := m.SIM(ctx); err != nil || s != (modem.SIM{ICCID: oldICCID, IMSI: "001010123456789", PLMN: "00101", SPN: "TestOne"}) {
				t.Errorf("SIM %+v, %v", s, err)
			}

			c, err := atcard.Open(ctx, conn, atcard.Options{})
			if err != nil {
				t.Fatal(err)
			}
			ch, err := c.OpenChannel(ctx, rsp.ISDR)
			if err != nil {
				t.Fatal(err)
			}
			// ES10c.EnableProfile, refreshFlag off (SGP.22 v2.5, section 5.7.16)
			enable := ber.Encode(0xBF31, ber.Encode(0xA0, iccid(t, newICCID).ProfileTLV()), ber.EncodeBool(0x81, false))
			r, err := ch.Transmit(ctx, apdu.Command{CLA: 0x80, INS: 0xE2, P1: 0x91, Data: enable})
			if err != nil || len(r.Data) != 6 || r.Data[5] != 0 {
				t.Fatalf("enable: %X, %v", r.Data, err)
			}
			if err := ch.Close(ctx); err != nil {
				t.Error(err)
			}
			if got, err := m.ICCID(ctx); err != nil || got != oldICCID {
				t.Fatalf("the modem shows %s, %v before it read the SIM again", got, err)
			}

			apn := modem.APN{Name: "two", Type: modem.IPv4}
			if err := m.SetAPN(ctx, 1, apn); err != nil {
				t.Error(err)
			}
			if rung, err := m.Reread(ctx, newICCID); err != nil || rung != atmodem.RungCFUN01 {
				t.Fatalf("rung %q, %v", rung, err)
			}
			again := atmodem.RungRefresh // for whoever asks twice
			if rung, err := m.Reread(ctx, newICCID); err != nil || rung != again {
				t.Errorf("again: rung %q, %v; want %q", rung, err, again)
			}
			if s, err := m.SIM(ctx); err != nil || s != (modem.SIM{ICCID: newICCID, IMSI: "310410000000022", PLMN: "310410", SPN: "ProfileB", GID1: "42"}) {
				t.Errorf("SIM %+v, %v", s, err)
			}
			reg, err := m.Registration(ctx)
			for err == nil && reg.State == modem.Searching {
				reg, err = m.Registration(ctx)
			}
			if err != nil || reg.State != modem.RegisteredHome || reg.PLMN != "310410" || reg.Operator != "Test Two" {
				t.Errorf("registration %+v, %v", reg, err)
			}
			if _, err := m.Clock(ctx); err != nil {
				t.Errorf("clock: %v", err)
			}
			contexts, err := m.APNs(ctx)
			if err != nil || len(contexts) != 1 || contexts[0].APN.Name != "two" {
				t.Errorf("contexts %+v, %v", contexts, err)
			}
			if err := m.Detach(ctx); err != nil {
				t.Error(err)
			}
			if err := m.Attach(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// The port drops at AT+CFUN=0 (EG916Q): reopened, Reread goes on where it was.
func TestRereadGoesOnAfterAHangup(t *testing.T) {
	card, err := euicc.New(euicc.Config{Profiles: []euicc.Profile{{ICCID: iccid(t, oldICCID), IMSI: "001010123456789", Enabled: true}}})
	if err != nil {
		t.Fatal(err)
	}
	sim, err := modemtest.New(modemtest.Config{Card: card, Dialect: modemtest.Generic})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
	}()
	path := filepath.Join(t.TempDir(), "ttyUSB0")
	open := func() (*atmodem.Modem, *at.Conn) {
		if _, err := sim.OpenPTY(path); err != nil {
			t.Fatal(err)
		}
		port, err := serialport.Open(path, 115200)
		if err != nil {
			t.Fatal(err)
		}
		conn := at.New(port)
		return atmodem.New(conn), conn
	}
	m, conn := open()
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitSIM(t.Context()); err != nil {
		t.Fatal(err)
	}
	sim.AddFault(modemtest.Fault{Command: "+CCID", Times: 1, Answer: "+CCID: " + newICCID + "\nOK"}) // as if another one were shown
	sim.AddFault(modemtest.Fault{Command: "+CFUN=0", Times: 1, Hangup: true, Executed: true})
	if _, err := m.Reread(t.Context(), oldICCID); !errors.Is(err, at.ErrHangup) {
		t.Fatalf("error %v, want ErrHangup", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	m, conn = open()
	defer conn.Close()
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rung, err := m.Reread(t.Context(), oldICCID); err != nil || rung != atmodem.RungCFUN01 {
		t.Fatalf("rung %q, %v", rung, err)
	}
}
