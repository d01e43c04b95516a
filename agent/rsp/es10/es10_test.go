package es10

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/apdu"
	"lpad/apdu/ber"
	"lpad/internal/fault"
)

// Identifiers in the requests and responses of this file.
const (
	iccid = "5A0A 98001032547698103214"
	aid   = "4F10 A0000005591010FFFFFFFF8900001100"
	pir   = "BF37819EBF275880100102030405060708090A0B0C0D0E0F10BF2F25800101810200800C10736D64702E6578616D706C652E636F6D5A0A9800103254769810321406028837A218A0164F10A0000005591010FFFFFFFF8900001100040230005F3740DE267B67FD171D43B84A0280C67AB2CF692D9B42925A1000FB74D10C6C85F9852ED6451D561F2435ED7E49280FDFDB8AD940E5C57981B0C24288774466406599"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// card is an ISD-R at the wire: it puts chains of STORE DATA together, checks
// how they are made, and answers whole requests by script. Long answers come
// by 61xx.
type card struct {
	t        *testing.T
	answers  []string // hex of data, or "SW:6985"; in turn
	early    int      // answer already at this block of each chain, counted from 1
	requests [][]byte // what was asked, chains put together
	commands int      // APDUs, GET RESPONSE included
	chain    []byte
	blocks   int
	rest     []byte
	limits   []time.Duration
}

func (c *card) Transmit(ctx context.Context, b []byte) ([]byte, error) {
	c.commands++
	cmd, err := apdu.ParseCommand(b)
	if err != nil {
		c.t.Errorf("command %X: %v", b, err)
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		c.limits = append(c.limits, time.Until(deadline).Round(time.Second))
	} else {
		c.t.Error("a command without a deadline")
	}
	switch {
	case cmd.INS == 0xC0:
		return c.reply(c.rest, 0x9000), nil
	case cmd.CLA != 0x80 || cmd.INS != 0xE2 || len(cmd.Data) == 0:
		c.t.Errorf("command %X", b)
		return unhex("6D00"), nil
	case int(cmd.P2) != c.blocks:
		c.t.Errorf("block number %d, want %d", cmd.P2, c.blocks)
	}
	c.chain = append(c.chain, cmd.Data...)
	c.blocks++
	last := cmd.P1 == 0x91
	if !last && cmd.P1 != 0x11 {
		c.t.Errorf("P1 %02X", cmd.P1)
	}
	if !last && c.blocks != c.early {
		return unhex("9000"), nil
	}
	c.requests = append(c.requests, c.chain)
	c.chain, c.blocks = nil, 0
	if len(c.answers) == 0 {
		return unhex("9000"), nil
	}
	answer := c.answers[0]
	c.answers = c.answers[1:]
	if sw, ok := strings.CutPrefix(answer, "SW:"); ok {
		return unhex(sw), nil
	}
	return c.reply(unhex(answer), 0x9100|0x0B), nil // a proactive command waits: success all the same
}

// reply gives up to 256 bytes and announces the rest.
func (c *card) reply(data []byte, sw uint16) []byte {
	n := min(len(data), 256)
	c.rest = data[n:]
	if len(c.rest) > 0 {
		sw = 0x6100 | uint16(min(len(c.rest), 256)&0xFF)
	}
	return append(slices.Clone(data[:n]), byte(sw>>8), byte(sw))
}

// client connects a client to a scripted card.
func client(t *testing.T, answers ...string) (*Client, *card) {
	c := &card{t: t, answers: answers}
	return New(apdu.NewSession(c, "test", nil, nil), 255), c
}

var (
	auth  = rsp.ServerAuthentication{TransactionID: rsp.TransactionID{1, 2}, ServerSigned1: unhex("3004 80020102"), ServerSignature1: unhex("5F370155"), CIPKID: unhex("040177"), ServerCertificate: unhex("300188")}
	offer = rsp.DownloadOffer{TransactionID: rsp.TransactionID{1, 2}, SMDPSigned2: unhex("3007 80020102 0101FF"), SMDPSignature2: unhex("5F370166"), SMDPCertificate: unhex("300199")}
)

// Every function: the request byte for byte, and what it makes of the answer.
func TestFunctions(t *testing.T) {
	ctx := context.Background()
	id, err := rsp.ParseICCID("89000123456789012341")
	if err != nil {
		t.Fatal(err)
	}
	isdp := rsp.AID(unhex(aid)[2:])
	class := rsp.ClassOperational
	for _, tc := range []struct {
		name    string
		call    func(*Client) (any, error)
		request string // pieces as in sgp22.md
		answer  string
		want    string // %v of the value
	}{
		{"GetEuiccConfiguredAddresses", func(c *Client) (any, error) { return c.GetEuiccConfiguredAddresses(ctx) },
			"BF3C00", "BF3C238010736D64702E6578616D706C652E636F6D810F6C70612E64732E67736D612E636F6D", "{smdp.example.com lpa.ds.gsma.com}"},
		{"SetDefaultDpAddress", func(c *Client) (any, error) { return nil, c.SetDefaultDpAddress(ctx, "smdp.example.com") },
			"BF3F12 8010 736D64702E6578616D706C652E636F6D", "BF3F03 800100", "<nil>"},
		{"SetDefaultDpAddress, none", func(c *Client) (any, error) { return nil, c.SetDefaultDpAddress(ctx, "") }, "BF3F02 8000", "BF3F03 800100", "<nil>"},
		{"GetEUICCInfo1", func(c *Client) (any, error) { i, err := c.GetEUICCInfo1(ctx); return i.SVN, err },
			"BF2000", "BF2009 8203020000 A900 AA00", "2.0.0"},
		{"GetEUICCInfo2", func(c *Client) (any, error) { i, err := c.GetEUICCInfo2(ctx); return i.SVN, err },
			"BF2200", "BF2205 8203020202", "2.2.2"},
		{"GetRAT", func(c *Client) (any, error) { r, err := c.GetRAT(ctx); return len(r.Rules), err },
			"BF4300", "BF4319A017301580020560A10B30098003EEEEEE8100820082020780", "1"},
		{"GetEUICCChallenge", func(c *Client) (any, error) { b, err := c.GetEUICCChallenge(ctx); return fmt.Sprintf("%X", b), err },
			"BF2E00", "BF2E128010AABBCCDDEEFF00112233445566778899", "AABBCCDDEEFF00112233445566778899"},
		{"AuthenticateServer", func(c *Client) (any, error) {
			b, err := c.AuthenticateServer(ctx, auth, unhex("A00C8000A108800435290611A100"))
			return fmt.Sprintf("%X", b), err
		}, "BF381E 3004 80020102 5F370155 040177 300188 A00C8000A108800435290611A100",
			"BF3812 A010 3004 80020102 5F370133 300144 300122", "BF3812A0103004800201025F370133300144300122"},
		{"PrepareDownload", func(c *Client) (any, error) {
			b, err := c.PrepareDownload(ctx, offer, nil)
			return fmt.Sprintf("%X", b), err
		}, "BF2110 3007 80020102 0101FF 5F370166 300199", "BF210C A00A 3004 80020102 5F370133", "BF210CA00A3004800201025F370133"},
		{"PrepareDownload with code", func(c *Client) (any, error) {
			_, err := c.PrepareDownload(ctx, offer, make([]byte, 32))
			return nil, err
		}, "BF2132 3007 80020102 0101FF 5F370166 0420" + strings.Repeat("00", 32) + "300199", "BF210C A00A 3004 80020102 5F370133", "<nil>"},
		{"CancelSession", func(c *Client) (any, error) {
			b, err := c.CancelSession(ctx, unhex("0102030405060708090A0B0C0D0E0F10"), rsp.CancelPostponed)
			return fmt.Sprintf("%X", b), err
		}, "BF4115 8010 0102030405060708090A0B0C0D0E0F10 810101", "BF4108 A006 3000 5F370133", "BF4108A00630005F370133"},
		{"LoadCRL", func(c *Client) (any, error) { return c.LoadCRL(ctx, unhex("3000")) }, "BF3502 3000", "BF3502 A000", "[]"},
		{"LoadCRL, parts missing", func(c *Client) (any, error) { return c.LoadCRL(ctx, unhex("3000")) }, "BF3502 3000", "BF350A A008 A006 020101 020102", "[1 2]"},
		{"ListNotification", func(c *Client) (any, error) { l, err := c.ListNotification(ctx, 0); return len(l), err },
			"BF2800", "BF2828A026BF2F2380020080810206400C0D6E2E6578616D706C652E636F6D" + iccid, "1"},
		{"ListNotification, install", func(c *Client) (any, error) { return c.ListNotification(ctx, rsp.EventInstall) },
			"BF2804 81020780", "BF2802 A000", "[]"},
		{"RetrieveNotificationsList, all", func(c *Client) (any, error) {
			l, err := c.RetrieveNotificationsList(ctx, rsp.NotificationSearch{})
			return len(l), err
		}, "BF2B00", "BF2B81A5 A081A2" + pir, "1"},
		{"RetrieveNotificationsList, one", func(c *Client) (any, error) {
			return c.RetrieveNotificationsList(ctx, rsp.BySeqNumber(24))
		}, "BF2B05 A003 800118", "BF2B03 810101", "[]"},
		{"RetrieveNotificationsList, event", func(c *Client) (any, error) {
			return c.RetrieveNotificationsList(ctx, rsp.NotificationSearch{Events: rsp.EventInstall})
		}, "BF2B06 A004 81020780", "BF2B02 A000", "[]"},
		{"RemoveNotificationFromList", func(c *Client) (any, error) { return nil, c.RemoveNotificationFromList(ctx, 128) },
			"BF3004 80020080", "BF3003 800100", "<nil>"},
		{"RemoveNotificationFromList, gone", func(c *Client) (any, error) { return nil, c.RemoveNotificationFromList(ctx, 0) },
			"BF3003 800100", "BF3003 800101", "<nil>"},
		{"GetProfilesInfo", func(c *Client) (any, error) {
			l, err := c.GetProfilesInfo(ctx, rsp.ProfileSearch{})
			return len(l), err
		}, "BF2D00", "BF2D3D A03B E339" + iccid + aid + "9F7001019004576F726B910253509204506C616E95010299020520", "1"},
		{"GetProfilesInfo, tags", func(c *Client) (any, error) {
			return c.GetProfilesInfo(ctx, rsp.ProfileSearch{}, 0x5A, 0x4F, 0x9F70, 0x90, 0x91, 0x92, 0x95, 0x99, 0xB6, 0xB7)
		}, "BF2D0D 5C0B 5A4F9F709091929599B6B7", "BF2D02A000", "[]"},
		{"GetProfilesInfo, one", func(c *Client) (any, error) { return c.GetProfilesInfo(ctx, rsp.ByICCID(id), 0x5A, 0x4F, 0x9F70) },
			"BF2D14 A00C" + iccid + "5C04 5A4F9F70", "BF2D02A000", "[]"},
		{"GetProfilesInfo, AID", func(c *Client) (any, error) { return c.GetProfilesInfo(ctx, rsp.ProfileSearch{AID: isdp}) },
			"BF2D14 A012" + aid, "BF2D02A000", "[]"},
		{"GetProfilesInfo, class", func(c *Client) (any, error) {
			return c.GetProfilesInfo(ctx, rsp.ProfileSearch{Class: &class})
		}, "BF2D05 A003 950102", "BF2D02A000", "[]"},
		{"EnableProfile", func(c *Client) (any, error) { return nil, c.EnableProfile(ctx, id, Refresh) },
			"BF3111 A00C" + iccid + "8101FF", "BF3103 800100", "<nil>"},
		{"EnableProfile, AID", func(c *Client) (any, error) { return nil, c.EnableProfile(ctx, isdp, NoRefresh) },
			"BF3117 A012" + aid + "810100", "BF3103 800100", "<nil>"},
		{"DisableProfile", func(c *Client) (any, error) { return nil, c.DisableProfile(ctx, id, Refresh) },
			"BF3211 A00C" + iccid + "8101FF", "BF3203 800100", "<nil>"},
		{"DeleteProfile", func(c *Client) (any, error) { return nil, c.DeleteProfile(ctx, id) }, "BF330C" + iccid, "BF3303 800100", "<nil>"},
		{"SetNickname", func(c *Client) (any, error) { return nil, c.SetNickname(ctx, id, "Work") }, "BF2912" + iccid + "9004 576F726B", "BF2903 800100", "<nil>"},
		{"SetNickname, none", func(c *Client) (any, error) { return nil, c.SetNickname(ctx, id, "") }, "BF290E" + iccid + "9000", "BF2903 800100", "<nil>"},
		{"eUICCMemoryReset", func(c *Client) (any, error) { return nil, c.EUICCMemoryReset(ctx, MemoryReset{true, true, true}) },
			"BF3404 820205E0", "BF3403 800100", "<nil>"},
		{"eUICCMemoryReset, profiles", func(c *Client) (any, error) {
			return nil, c.EUICCMemoryReset(ctx, MemoryReset{OperationalProfiles: true})
		}, "BF3404 82020780", "BF3403 800100", "<nil>"},
		{"eUICCMemoryReset, address", func(c *Client) (any, error) { return nil, c.EUICCMemoryReset(ctx, MemoryReset{DefaultSMDP: true}) },
			"BF3404 82020520", "BF3403 800100", "<nil>"},
		{"GetEID", func(c *Client) (any, error) { return c.GetEID(ctx) },
			"BF3E03 5C015A", "BF3E125A1089049032123451234512345678901235", "89049032123451234512345678901235"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, card := client(t, tc.answer)
			got, err := tc.call(c)
			if err != nil || fmt.Sprint(got) != tc.want {
				t.Errorf("got %v, %v, want %s", got, err, tc.want)
			}
			if len(card.requests) != 1 || !bytes.Equal(card.requests[0], unhex(tc.request)) {
				t.Errorf("request %X\nwant     %X", card.requests, unhex(tc.request))
			}

			// Nothing but the answer to this function passes for one.
			for _, bad := range []string{"", "BF7F00", tc.answer[:4] + "00", "5A", "BF3603800100", tc.answer + "00"} {
				c, _ := client(t, bad)
				if got, err := tc.call(c); err == nil {
					if bad == tc.answer[:4]+"00" && (tc.name == "GetEuiccConfiguredAddresses" || strings.HasPrefix(tc.name, "GetProfilesInfo")) {
						continue // everything is optional there
					}
					t.Errorf("the answer %q passes for %v", bad, got)
				} else if !errors.Is(err, ErrAnswer) || fault.Of(err).Code != "card-answer" {
					t.Errorf("the answer %q: %v", bad, err)
				}
			}

			// A status word of the card is told.
			c, _ = client(t, "SW:6985")
			if _, err := tc.call(c); !errors.Is(err, apdu.ErrConditions) || !strings.Contains(err.Error(), "ES10") {
				t.Errorf("SW 6985: %v", err)
			}
		})
	}
}

// Refusals by result code, in either tagging.
func TestResults(t *testing.T) {
	ctx := context.Background()
	var id rsp.ICCID
	for _, tc := range []struct {
		name   string
		call   func(*Client) error
		answer string
		want   error
		code   string
	}{
		{"default address", func(c *Client) error { return c.SetDefaultDpAddress(ctx, "") }, "BF3F03 80017F", rsp.GeneralUndefined, "card-undefined-error"},
		{"authenticate", func(c *Client) error { _, err := c.AuthenticateServer(ctx, auth, nil); return err }, "BF3809A1078002 0102 020107", rsp.AuthenticateCIUnknown, "ci-unknown"},
		{"authenticate, 81", func(c *Client) error { _, err := c.AuthenticateServer(ctx, auth, nil); return err }, "BF3809A1078002 0102 810102", rsp.AuthenticateInvalidSignature, "server-signature-refused"},
		{"authenticate, no id", func(c *Client) error { _, err := c.AuthenticateServer(ctx, auth, nil); return err }, "BF3805A103 020104", rsp.AuthenticateNoSession, "card-session-lost"},
		{"prepare", func(c *Client) error { _, err := c.PrepareDownload(ctx, offer, nil); return err }, "BF2109A1078002 0102 020101", rsp.DownloadInvalidCertificate, "server-certificate-refused"},
		{"prepare, 81", func(c *Client) error { _, err := c.PrepareDownload(ctx, offer, nil); return err }, "BF2109A1078002 0102 810105", rsp.DownloadInvalidTransaction, "card-session-lost"},
		{"cancel", func(c *Client) error { _, err := c.CancelSession(ctx, auth.TransactionID, 1); return err }, "BF4103 810105", rsp.CancelNoSession, "card-session-lost"},
		{"cancel, 02", func(c *Client) error { _, err := c.CancelSession(ctx, auth.TransactionID, 1); return err }, "BF4103 02017F", rsp.CancelUndefinedResult, "card-undefined-error"},
		{"CRL", func(c *Client) error { _, err := c.LoadCRL(ctx, nil); return err }, "BF3503 810105", rsp.CRLFresherLoaded, "crl-known"},
		{"list", func(c *Client) error { _, err := c.ListNotification(ctx, 0); return err }, "BF2803 81017F", rsp.GeneralUndefined, "card-undefined-error"},
		{"list, 02", func(c *Client) error { _, err := c.ListNotification(ctx, 0); return err }, "BF2803 02017F", rsp.GeneralUndefined, "card-undefined-error"},
		{"retrieve", func(c *Client) error {
			_, err := c.RetrieveNotificationsList(ctx, rsp.NotificationSearch{})
			return err
		}, "BF2B03 81017F", rsp.GeneralUndefined, "card-undefined-error"},
		{"remove", func(c *Client) error { return c.RemoveNotificationFromList(ctx, 1) }, "BF3003 80017F", rsp.GeneralUndefined, "card-undefined-error"},
		{"profiles", func(c *Client) error { _, err := c.GetProfilesInfo(ctx, rsp.ProfileSearch{}); return err }, "BF2D03 810101", rsp.GeneralIncorrectInput, "card-refuses-input"},
		{"enable", func(c *Client) error { return c.EnableProfile(ctx, id, Refresh) }, "BF3103 800105", rsp.EnableCATBusy, "card-busy"},
		{"enable, 02", func(c *Client) error { return c.EnableProfile(ctx, id, Refresh) }, "BF3103 020102", rsp.EnableNotDisabled, "profile-already-enabled"},
		{"disable", func(c *Client) error { return c.DisableProfile(ctx, id, Refresh) }, "BF3203 800103", rsp.DisableDisallowed, "disallowed-by-policy"},
		{"delete", func(c *Client) error { return c.DeleteProfile(ctx, id) }, "BF3303 800102", rsp.DeleteNotDisabled, "profile-in-use"},
		{"delete, unknown code", func(c *Client) error { return c.DeleteProfile(ctx, id) }, "BF3303 800121", rsp.DeleteResult(0x21), "card-undefined-error"},
		{"reset", func(c *Client) error { return c.EUICCMemoryReset(ctx, MemoryReset{}) }, "BF3403 800101", rsp.MemoryResetNothing, "nothing-to-delete"},
		{"nickname", func(c *Client) error { return c.SetNickname(ctx, id, "x") }, "BF2903 800101", rsp.NicknameNotFound, "profile-not-found"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := client(t, tc.answer)
			err := tc.call(c)
			var res *ResultError
			if !errors.As(err, &res) || !errors.Is(err, tc.want) || !IsRefusal(err) || fault.Of(err).Code != tc.code {
				t.Fatalf("got %v (%+v), want %v and code %s", err, fault.Of(err), tc.want, tc.code)
			}
			if !strings.HasPrefix(res.Error(), "ES10") || res.Code == 0 {
				t.Errorf("error %q of code %d", res, res.Code)
			}
		})
	}
}

// The parts of an answer that may be missing, and those that may not.
func TestSessionAnswers(t *testing.T) {
	ctx := context.Background()
	for name, answer := range map[string]string{
		"empty":              "BF3800",
		"another choice":     "BF3802 A200",
		"nothing signed":     "BF3802 A000",
		"no signature":       "BF3808 A006 3004 80020102",
		"another session":    "BF380C A00A 3004 80020103 5F370133",
		"error without code": "BF3806 A104 8002 0102",
		"error code tag":     "BF3809 A107 8002 0102 830101",
		"error code is huge": "BF380B A109 8002 0102 0203010000",
		"error code is none": "BF3808 A106 8002 0102 0200",
	} {
		c, _ := client(t, answer)
		if _, err := c.AuthenticateServer(ctx, auth, nil); !errors.Is(err, ErrAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, answer := range map[string]string{"tag": "BF3103 810100", "none": "BF3100", "below zero": "BF3103 8001FF", "empty": "BF3102 8000"} {
		c, _ := client(t, answer)
		if err := c.EnableProfile(ctx, rsp.ICCID{}, Refresh); !errors.Is(err, ErrAnswer) {
			t.Errorf("result, %s: %v", name, err)
		}
	}
	for name, answer := range map[string]string{"short": "BF2E04 80020102", "tag": "BF2E128110AABBCCDDEEFF00112233445566778899"} {
		c, _ := client(t, answer)
		if _, err := c.GetEUICCChallenge(ctx); !errors.Is(err, ErrAnswer) {
			t.Errorf("challenge, %s: %v", name, err)
		}
	}
	c, _ := client(t, "BF3505 A003 A001 02")
	if _, err := c.LoadCRL(ctx, nil); !errors.Is(err, ErrAnswer) {
		t.Errorf("CRL parts: %v", err)
	}
	c, _ = client(t, "BF3506 A004 A002 0200")
	if _, err := c.LoadCRL(ctx, nil); !errors.Is(err, ErrAnswer) {
		t.Errorf("CRL part without number: %v", err)
	}
}

// Some cards list profiles without the wrapper, nest them, or tell of one
// without a name.
func TestOddProfileLists(t *testing.T) {
	ctx := context.Background()
	for name, tc := range map[string]struct {
		answer string
		n      int
	}{
		"no wrapper":      {"BF2D0E E30C" + iccid, 1},
		"nested":          {"BF2D12 A010 E30E E30C" + iccid, 1},
		"no ICCID":        {"BF2D1B A019 E303 9F7000 E304 9F700101 E30C" + iccid, 1},
		"unknown element": {"BF2D12 A010 8000 E30C" + iccid, 1},
	} {
		c, _ := client(t, tc.answer)
		list, err := c.GetProfilesInfo(ctx, rsp.ProfileSearch{})
		if err != nil || len(list) != tc.n {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
	for name, b := range map[string][]byte{
		"no end":       ber.Encode(0xBF2D, ber.Encode(0xA0, bytes.Repeat(unhex("E30C"+iccid), maxProfiles+1))),
		"no profile":   unhex("BF2D06 A004 8000 8000"),
		"broken":       unhex("BF2D05 A003 E301 5A"),
		"broken ICCID": unhex("BF2D06 A004 E302 5A00"),
	} {
		c, _ := client(t, hex.EncodeToString(b))
		if list, err := c.GetProfilesInfo(ctx, rsp.ProfileSearch{}); !errors.Is(err, ErrAnswer) {
			t.Errorf("%s: %d profiles, %v", name, len(list), err)
		}
	}
}

// A card that does not want to hear of B8, or of any list of tags, can still
// be read; nobody asks it twice.
func TestTagListRefused(t *testing.T) {
	const (
		whole   = "BF2D0E 5C0C 5A4F9F70909192 95B6B7B899"
		without = "BF2D0D 5C0B 5A4F9F70909192 95B6B799"
		bare    = "BF2D00"
		refused = "BF2D03 810101"
	)
	good, b8 := "BF2D10 A00E E30C"+iccid, "B805800388370A"
	with := "BF2D17 A015 E313" + iccid + b8
	for _, tc := range []struct {
		name     string
		answers  []string
		requests []string // of two calls
		err      error    // of the first
	}{
		{"a good card", []string{with, with}, []string{whole, whole}, nil},
		{"B8 refused by a result", []string{refused, good, good}, []string{whole, without, without}, nil},
		{"B8 refused by a status word", []string{"SW:6A80", good, good}, []string{whole, without, without}, nil},
		{"every list refused", []string{refused, "SW:6A80", good, good}, []string{whole, without, bare, bare}, nil},
		{"refuses everything", []string{refused, "SW:6A80", "SW:6A86", good}, []string{whole, without, bare, whole}, rsp.GeneralIncorrectInput},
		{"busy", []string{"SW:9300", good}, []string{whole, whole}, apdu.ErrBusy},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, card := client(t, tc.answers...)
			list, err := c.GetProfilesInfo(t.Context(), rsp.ProfileSearch{}, ProfileTags()...)
			if !errors.Is(err, tc.err) || err == nil && len(list) != 1 {
				t.Fatalf("first: %v, %v", list, err)
			}
			if tc.name == "a good card" && hex.EncodeToString(list[0].Proprietary) != strings.ToLower(b8) {
				t.Errorf("B8: %X", list[0].Proprietary)
			}
			if list, err := c.GetProfilesInfo(t.Context(), rsp.ProfileSearch{}, ProfileTags()...); err != nil || len(list) != 1 {
				t.Errorf("second: %v, %v", list, err)
			}
			var asked []string
			for _, r := range card.requests {
				asked = append(asked, hex.EncodeToString(r))
			}
			var want []string
			for _, r := range tc.requests {
				want = append(want, hex.EncodeToString(unhex(r)))
			}
			if !slices.Equal(asked, want) {
				t.Errorf("asked %v\nwant  %v", asked, want)
			}
		})
	}
}

// The wrapper of the search is left out only after exactly undefinedError.
func TestRetrieveFallback(t *testing.T) {
	ctx := context.Background()
	c, card := client(t, "BF2B03 81017F", "BF2B81A5 A081A2"+pir)
	list, err := c.RetrieveNotificationsList(ctx, rsp.BySeqNumber(24))
	if err != nil || len(list) != 1 || list[0].Result == nil {
		t.Errorf("got %+v, %v", list, err)
	}
	if len(card.requests) != 2 || !bytes.Equal(card.requests[0], unhex("BF2B05A003800118")) || !bytes.Equal(card.requests[1], unhex("BF2B03800118")) {
		t.Errorf("requests %X", card.requests)
	}
	for _, answer := range []string{"BF2B03 810102", "SW:6A80"} {
		c, card = client(t, answer, "BF2B02A000")
		if _, err := c.RetrieveNotificationsList(ctx, rsp.BySeqNumber(24)); err == nil || len(card.requests) != 1 {
			t.Errorf("answer %s: %v, requests %X", answer, err, card.requests)
		}
	}
	c, _ = client(t, "BF2B03 81017F", "BF2B03 81017F")
	if _, err := c.RetrieveNotificationsList(ctx, rsp.BySeqNumber(24)); !errors.Is(err, rsp.GeneralUndefined) {
		t.Errorf("both refused: %v", err)
	}
}

// An odd notification does not hide the others, unless it is the only one.
func TestOddNotifications(t *testing.T) {
	ctx := context.Background()
	c, _ := client(t, hex.EncodeToString(ber.Encode(0xBF2B, ber.Encode(0xA0, unhex("3000"), unhex(pir)))))
	if list, err := c.RetrieveNotificationsList(ctx, rsp.NotificationSearch{}); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v", list, err)
	}
	c, _ = client(t, "BF2B04 A002 3000")
	if list, err := c.RetrieveNotificationsList(ctx, rsp.NotificationSearch{}); !errors.Is(err, ErrAnswer) {
		t.Errorf("got %v, %v", list, err)
	}
	c, _ = client(t, hex.EncodeToString(ber.Encode(0xBF2B, ber.Encode(0xA0, bytes.Repeat(unhex("3000"), maxNotifications+1)))))
	if list, err := c.RetrieveNotificationsList(ctx, rsp.NotificationSearch{}); !errors.Is(err, ErrAnswer) {
		t.Errorf("got %d, %v", len(list), err)
	}
	c, _ = client(t, "BF2805 A003 BF2F00")
	if list, err := c.ListNotification(ctx, 0); !errors.Is(err, ErrAnswer) {
		t.Errorf("got %v, %v", list, err)
	}
}

// segments of a small package.
var segments = [][]byte{bytes.Repeat([]byte{1}, 600), {2, 2}, {3}}

func TestLoadBoundProfilePackage(t *testing.T) {
	ctx := context.Background()
	var done []int
	c, card := client(t, "", "", pir)
	res, err := c.LoadBoundProfilePackage(ctx, segments, func(n, total int) { done = append(done, n, total) })
	if err != nil || res.Err() != nil || !bytes.Equal(res.Raw, unhex(pir)) {
		t.Fatalf("got %+v, %v", res, err)
	}
	if fmt.Sprint(done) != "[1 3 2 3]" {
		t.Errorf("progress %v", done)
	}
	if len(card.requests) != 3 || !bytes.Equal(card.requests[0], segments[0]) || card.commands != 5 {
		t.Errorf("%d requests by %d commands", len(card.requests), card.commands)
	}
	if fmt.Sprint(card.limits) != "[1m0s 1m0s 1m0s 1m0s 5m0s]" {
		t.Errorf("time limits %v", card.limits)
	}

	// The card says why in the middle of a segment: nothing more is sent.
	failed := hex.EncodeToString(ber.Encode(0xBF37, ber.Encode(0xBF27, unhex("800101 BF2F0A 800105 81020780 0C0141 0602 8837 A208A106800100810102")), unhex("5F3700")))
	c, card = client(t, failed)
	card.early = 2
	res, err = c.LoadBoundProfilePackage(ctx, segments, nil)
	var failure *rsp.InstallationError
	if err != nil || !errors.As(res.Err(), &failure) || failure.Reason != 2 || card.commands != 2 {
		t.Errorf("early: %+v, %v after %d commands", res, err, card.commands)
	}

	c, _ = client(t)
	if _, err := c.LoadBoundProfilePackage(ctx, segments, nil); !errors.Is(err, ErrNoResult) {
		t.Errorf("no result: %v", err)
	}
	c, _ = client(t, "", "SW:6A88")
	if _, err := c.LoadBoundProfilePackage(ctx, segments, nil); !errors.Is(err, apdu.ErrNotFound) || !strings.Contains(err.Error(), "segment 2 of 3") {
		t.Errorf("status word: %v", err)
	}
	c, _ = client(t, "BF3800")
	if _, err := c.LoadBoundProfilePackage(ctx, segments, nil); !errors.Is(err, ErrAnswer) {
		t.Errorf("another answer: %v", err)
	}
}

func TestBlocks(t *testing.T) {
	for _, tc := range []struct{ size, bytes, blocks int }{
		{0, 240, 2}, {0, 241, 3}, {255, 1020, 4}, {300, 255, 1}, {-1, 3, 3}, {120, 121, 2}, {1, 256, 256},
	} {
		card := &card{t: t}
		c := New(channel(card), tc.size)
		if _, err := c.storeData(context.Background(), make([]byte, tc.bytes), CommandTimeout); err != nil || card.commands != tc.blocks {
			t.Errorf("%d bytes by %d: %d blocks, %v, want %d", tc.bytes, tc.size, card.commands, err, tc.blocks)
		}
	}
	card := &card{t: t}
	if _, err := New(channel(card), 1).storeData(context.Background(), make([]byte, 257), CommandTimeout); err == nil || card.commands != 0 {
		t.Errorf("257 blocks: %v after %d commands", err, card.commands)
	}
}

func channel(c *card) Channel { return apdu.NewSession(c, "test", nil, nil) }

// narrow is a link that finds out that it carries blocks of so many bytes.
type narrow struct {
	*card
	carries int
	says    int // what it says that it carries; 0: carries
	refused int
}

func (n *narrow) Transmit(ctx context.Context, b []byte) ([]byte, error) {
	if cmd, err := apdu.ParseCommand(b); err == nil && len(cmd.Data) > n.carries {
		n.refused++
		size := n.says
		if size == 0 {
			size = n.carries
		}
		return nil, &apdu.BlockSizeError{Size: size, Cause: errors.New("line too long")}
	}
	return n.card.Transmit(ctx, b)
}

// A link that carries less than it seemed: the message goes again from its
// beginning, in smaller blocks, and so do all others.
func TestSmallerBlocks(t *testing.T) {
	link := &narrow{card: &card{t: t, answers: []string{"SW:9000", "SW:9000"}}, carries: 60}
	c := New(apdu.NewSession(link, "1", nil, nil), 255)
	for _, refused := range []int{1, 1} {
		link.commands = 0
		if _, err := c.storeData(context.Background(), make([]byte, 700), CommandTimeout); err != nil || link.commands != 12 || link.refused != refused {
			t.Errorf("%v, %d commands, %d refused, want 12 and %d", err, link.commands, link.refused, refused)
		}
	}
	if n := len(link.requests); n != 2 || len(link.requests[0]) != 700 {
		t.Errorf("%d requests", n)
	}
	for _, says := range []int{255, 300, -1} { // that leads nowhere
		link := &narrow{card: &card{t: t}, carries: 60, says: says}
		_, err := New(apdu.NewSession(link, "1", nil, nil), 255).storeData(context.Background(), make([]byte, 700), CommandTimeout)
		var size *apdu.BlockSizeError
		if !errors.As(err, &size) || link.refused != 1 {
			t.Errorf("%d: %v after %d", says, err, link.refused)
		}
	}
}

// ctx is looked at between commands; one that was sent is waited for.
func TestContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	c, card := client(t, "", pir)
	c.ch = channelFunc(func(inner context.Context, cmd apdu.Command) (apdu.Response, error) {
		cancel()
		if inner.Err() != nil {
			t.Error("the command is cancelled while it runs")
		}
		card.commands++
		return apdu.Response{SW: 0x9000}, nil
	})
	if _, err := c.LoadBoundProfilePackage(ctx, segments, nil); !errors.Is(err, context.Canceled) || card.commands != 1 {
		t.Errorf("%v after %d commands", err, card.commands)
	}
	if err := c.SetNickname(ctx, rsp.ICCID{}, strings.Repeat("ü", 33)); !errors.Is(err, ErrNickname) {
		t.Errorf("66 bytes: %v", err)
	}
	if err := c.SetNickname(ctx, rsp.ICCID{}, "\xff"); !errors.Is(err, ErrNickname) {
		t.Errorf("not UTF-8: %v", err)
	}
	if err := c.SetDefaultDpAddress(ctx, "https://x"); fault.Of(err).Code != rsp.CodeAddress {
		t.Errorf("address: %v", err)
	}
}

type channelFunc func(context.Context, apdu.Command) (apdu.Response, error)

func (f channelFunc) Transmit(ctx context.Context, cmd apdu.Command) (apdu.Response, error) {
	return f(ctx, cmd)
}

// FuzzResponses feeds an answer of the card to every function.
func FuzzResponses(f *testing.F) {
	seeds := []string{pir, "BF3103800105", "BF3812A0103004800201025F370133300144300122", "BF3809A10780020102020102", "BF210CA00A3004800201025F370133",
		"BF4108A00630005F370133", "BF350AA008A006020101020102", "BF2828A026BF2F2380020080810206400C0D6E2E6578616D706C652E636F6D" + iccid,
		"BF2B81A5A081A2" + pir, "BF2D12A010E30EE30C" + iccid, "BF3E125A1089049032123451234512345678901235", "BF2E128010AABBCCDDEEFF00112233445566778899",
		"BF4319A017301580020560A10B30098003EEEEEE8100820082020780", "BF2009820302000" + "0A900AA00", "BF22058203020202", "BF3C00"}
	if len(seeds) != 16 {
		f.Fatal("seeds are missing")
	}
	for _, s := range seeds {
		f.Add(unhex(s))
	}
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := New(channelFunc(func(context.Context, apdu.Command) (apdu.Response, error) {
			return apdu.Response{Data: answer, SW: 0x9000}, nil
		}), 255)
		check := func(name string, err error) {
			if err != nil && fault.Of(err).Code == fault.Internal {
				t.Fatalf("%s: unexplained error %v", name, err)
			}
		}
		_, err := c.GetEuiccConfiguredAddresses(ctx)
		check("addresses", err)
		check("default", c.SetDefaultDpAddress(ctx, ""))
		_, err = c.GetEUICCInfo1(ctx)
		check("info1", err)
		_, err = c.GetEUICCInfo2(ctx)
		check("info2", err)
		_, err = c.GetRAT(ctx)
		check("RAT", err)
		_, err = c.GetEUICCChallenge(ctx)
		check("challenge", err)
		if raw, err := c.AuthenticateServer(ctx, auth, nil); err == nil && !bytes.Equal(raw, answer) {
			t.Fatal("the answer is not forwarded as it came")
		}
		if raw, err := c.PrepareDownload(ctx, offer, nil); err == nil && !bytes.Equal(raw, answer) {
			t.Fatal("the answer is not forwarded as it came")
		}
		_, err = c.CancelSession(ctx, auth.TransactionID, 1)
		check("cancel", err)
		_, err = c.LoadCRL(ctx, unhex("3000"))
		check("CRL", err)
		_, err = c.LoadBoundProfilePackage(ctx, segments, nil)
		check("load", err)
		_, err = c.ListNotification(ctx, 0)
		check("list", err)
		_, err = c.RetrieveNotificationsList(ctx, rsp.BySeqNumber(1))
		check("retrieve", err)
		check("remove", c.RemoveNotificationFromList(ctx, 1))
		_, err = c.GetProfilesInfo(ctx, rsp.ProfileSearch{})
		check("profiles", err)
		check("enable", c.EnableProfile(ctx, rsp.ICCID{}, Refresh))
		check("disable", c.DisableProfile(ctx, rsp.ICCID{}, Refresh))
		check("delete", c.DeleteProfile(ctx, rsp.ICCID{}))
		check("nickname", c.SetNickname(ctx, rsp.ICCID{}, ""))
		check("reset", c.EUICCMemoryReset(ctx, MemoryReset{}))
		_, err = c.GetEID(ctx)
		check("EID", err)
	})
}
