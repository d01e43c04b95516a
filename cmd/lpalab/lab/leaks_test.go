package lab_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/orders/orderstest"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// known are values that must not be told, by what they are.
type known map[string][]byte

// text adds a value that is a text.
func (k known) text(name, value string) { k[name] = []byte(value) }

// find says which of the values a text tells, in any form that a program may
// have given them: as they are, in hexadecimal of either case, as the numbers of
// a byte slice, in base64 at each of its three positions, backwards, and, of
// digits, with each two of them swapped, as cards keep them, and as bytes of two
// digits each.
func (k known) find(text []byte) (found []string) {
	lower := bytes.ToLower(text)
	for name, value := range k {
		for form, b := range forms(value) {
			if bytes.Contains(text, b) || strings.HasPrefix(form, "hexadecimal") && bytes.Contains(lower, b) {
				found = append(found, name+" "+form)
			}
		}
	}
	slices.Sort(found)
	return found
}

func forms(value []byte) map[string][]byte {
	f := map[string][]byte{}
	add := func(as string, b []byte) {
		f["as it is"+as] = b
		f["hexadecimal"+as] = []byte(hex.EncodeToString(b))
		f["hexadecimal with colons"+as] = []byte(strings.TrimSuffix(strings.Join(pairs(hex.EncodeToString(b)), ":"), ":"))
		f["numbers"+as] = []byte(strings.Trim(fmt.Sprint(b), "[]"))
		for shift := range 3 {
			// What the bytes around it decide is cut off.
			text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), b...))
			text = strings.TrimRight(text, "=")
			text = text[[]int{0, 2, 3}[shift] : len(text)-1]
			f[fmt.Sprintf("base64 %d%s", shift, as)] = []byte(text)
			f[fmt.Sprintf("base64 for addresses %d%s", shift, as)] = []byte(strings.NewReplacer("+", "-", "/", "_").Replace(text))
		}
		backwards := slices.Clone(b)
		slices.Reverse(backwards)
		f["backwards"+as] = backwards
	}
	add("", value)
	if digits := string(value); strings.Trim(digits, "0123456789") == "" {
		add(", swapped", []byte(swapped(digits)))
		for as, text := range map[string]string{", as bytes": digits, ", as swapped bytes": swapped(digits)} {
			if b, err := hex.DecodeString(text[:len(text)&^1]); err == nil {
				add(as, b)
			}
		}
	}
	return f
}

func pairs(s string) (list []string) {
	for ; len(s) >= 2; s = s[2:] {
		list = append(list, s[:2])
	}
	return list
}

// TestLeaksAreFound: what looks for leaks finds each form of each kind of value,
// wherever it is planted, and nothing where nothing is.
func TestLeaksAreFound(t *testing.T) {
	k := known{"number": []byte("89330100000000000017"), "secret": []byte("s3cret-of-nobody"), "key": {0x3F, 0xA1, 0x77, 0, 0x1B, 0x20, 0x5C, 0xEE, 0x91, 0x42}}
	const text = "time=2026-03-01 level=DEBUG msg=command name=+CCHO iccid=89330…17 length=32\n"
	if got := k.find([]byte(text)); len(got) != 0 {
		t.Errorf("in what is harmless: %q", got)
	}
	for name, value := range k {
		for form, b := range forms(value) {
			planted := slices.Concat([]byte(text), b, []byte(" more\n"))
			if got := k.find(planted); !slices.Contains(got, name+" "+form) {
				t.Errorf("%s %s is not found in %q", name, form, planted)
			}
			if strings.HasPrefix(form, "hexadecimal") && len(k.find(bytes.ToUpper(planted))) == 0 {
				t.Errorf("%s %s is not found in capitals", name, form)
			}
		}
		for shift := range 3 { // in the middle of something else
			text := base64.StdEncoding.EncodeToString(slices.Concat(make([]byte, shift), value, []byte("more")))
			if len(k.find([]byte(text))) == 0 {
				t.Errorf("%s, %d bytes into base64, is not found", name, shift)
			}
		}
	}
}

// The secrets of the run.
const (
	leakMatchingID = "q7-Matching.0815x"
	leakCode       = "cc-483920-yz"
	leakWrongCode  = "cc-wrong-1177"
	leakPassword   = "Apn+Pass/7731"
	leakBadly      = "Apn+Wrong/9942"
	leakUser       = "fleet-user-5150"
	leakToken      = "t0ken-in-path-88"
	leakReportUser = "rep0rt-user:rep0rt-passw0rd"
)

// leaks is everything that the run must not tell; secrets is the part of it that
// nobody is told, not even who may ask for identifiers.
func leaks(t *testing.T, w *lab.World, imei string, key *ecdsa.PrivateKey) (all, secrets known) {
	t.Helper()
	secrets = known{}
	secrets.text("matching id", leakMatchingID)
	secrets.text("confirmation code", leakCode)
	secrets.text("wrong confirmation code", leakWrongCode)
	secrets.text("password of the access point", leakPassword)
	secrets.text("wrong password of the access point", leakBadly)
	secrets.text("token of the receiver of reports", leakToken)
	secrets.text("user of the receiver of reports", leakReportUser)
	for _, code := range []string{leakCode, leakWrongCode} {
		hash := sha256.Sum256([]byte(code))
		secrets["hash of the code "+code] = hash[:]
	}
	secrets["key of the operator"] = key.D.FillBytes(make([]byte, 32))
	secrets["key of the SM-DP+"] = w.PKI.DPAuth.Key.Scalar()
	for at := 64; at+16 <= len(w.Order.UPP); at += len(w.Order.UPP) / 12 {
		if part := w.Order.UPP[at : at+16]; distinct(part) >= 10 { // not of zeros or counted numbers
			secrets[fmt.Sprintf("profile at %d", at)] = part
		}
	}
	if len(secrets) < 14 {
		t.Fatalf("the profile has no bytes of its own: %d secrets", len(secrets))
	}
	all = known{}
	for name, value := range secrets {
		all[name] = value
	}
	all.text("EID", w.Card.EID().String())
	all.text("old ICCID", lab.OldOperator.ICCID)
	all.text("new ICCID", lab.NewOperator.ICCID)
	all.text("old IMSI", lab.OldOperator.IMSI)
	all.text("new IMSI", lab.NewOperator.IMSI)
	all.text("IMEI", imei)
	return all, secrets
}

func distinct(b []byte) int {
	seen := map[byte]bool{}
	for _, c := range b {
		seen[c] = true
	}
	return len(seen)
}

// journald stands where systemd's journal is, and keeps what comes.
type journald struct {
	conn *net.UnixConn
	done chan struct{}
	mu   sync.Mutex
	got  [][]byte
}

func newJournald(t *testing.T) (*journald, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lpad-journal-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	j := &journald{conn: conn, done: make(chan struct{})}
	must(t, conn.SetReadBuffer(4<<20))
	go func() {
		defer close(j.done)
		for b := make([]byte, 1<<18); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			j.mu.Lock()
			j.got = append(j.got, slices.Clone(b[:n]))
			j.mu.Unlock()
		}
	}()
	t.Cleanup(func() { must(t, conn.Close()); <-j.done })
	return j, path
}

// text is all that came.
func (j *journald) text() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return bytes.Join(j.got, []byte("\n\n"))
}

// careless is a hook that tells all that it was told.
const careless = "#!/bin/sh\nenv\n[ -z \"${LPAD_PARAMETERS:-}\" ] || cat \"$LPAD_PARAMETERS\"\necho \"failed for $LPAD_ICCID\"\nexit 3\n"

// TestNothingIsTold makes a device do all that it can with identifiers and secrets
// that are known: an installation with a confirmation code, a wrong one before
// it, signed orders with terminal parameters and a password, a switch that is
// taken back, one that stays, refusals of the server, notifications, reports that
// nobody takes, and hooks that print all they know. At no level does the log tell any
// of it, neither as text nor in the fields of systemd's journal; nor do the
// figures, and the support bundle made of it all. The events and what lpactl says
// tell no secret: identifiers are what they are asked for.
func TestNothingIsTold(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		backend lab.Backend
		journal bool
		back    int // exit status of the switch that is taken back
	}{
		"text, NetworkManager": {lab.NetworkManager, false, 40},
		"journal, AT alone":    {lab.Neither, true, 8},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			must(t, err)
			folder, err := os.MkdirTemp("", "lpad-leaks-")
			must(t, err)
			t.Cleanup(func() { os.RemoveAll(folder) })
			configuration := carelessDevice(t, folder, key)
			w := newWorld(t, lab.Options{Order: func(o *smdp.Order) {
				o.MatchingID, o.ConfirmationCode = leakMatchingID, leakCode
			}})
			o := lab.DeviceOptions{Backend: test.backend, Config: configuration + "log: {level: trace}\n",
				Modem: func(c *modemtest.Config) {
					c.Subscriptions[1].User, c.Subscriptions[1].Password = leakUser, leakPassword
				}}
			var j *journald
			if test.journal {
				j, o.Journal = newJournald(t)
			}
			ctx, d := startDevice(t, w, o)
			all, secrets := leaks(t, w, modemtest.UBlox.IMEI, key)
			told := func() []byte {
				if j == nil {
					return []byte(d.Log())
				}
				return append(j.text(), d.Log()...)
			}
			c := d.Client()
			defer c.Close()
			events := watchEvents(ctx, t, c)
			said := &bytes.Buffer{} // by lpactl
			order := func(exit int, args ...string) {
				t.Helper()
				r := lpactl(ctx, t, d.Daemon, exit, args...)
				said.WriteString(r.Stdout + r.Stderr)
			}
			signed := signer(t, w, key, folder)

			order(21, "install", w.ActivationCode(), "--yes", "--confirmation-code", leakWrongCode)
			order(22, "install", w.ActivationCode()+"x", "--yes", "--confirmation-code", leakWrongCode) // another matching id, which the first is a part of
			order(0, "install", w.ActivationCode(), "--yes", "--confirmation-code", leakCode)
			order(test.back, "order", signed(leakBadly))
			order(45, "order", filepath.Join(folder, "broken.jws"))
			order(0, "order", signed(leakPassword))
			for _, args := range []string{"status", "profiles", "euicc", "jobs", "notifications", "probe", "params effective"} {
				order(0, strings.Fields(args)...)
			}
			_, err = d.Lpactl(ctx, nil, "doctor")
			must(t, err)
			metrics := ask(t, d.Socket, "/metrics")
			seen := events()

			// At the other levels there is less; a restart and a refusal at each show it.
			for _, level := range []string{"debug", "info", "warn", "error"} {
				must(t, d.Configure(configuration+"log: {level: "+level+"}\n"))
				must(t, errors.Join(d.Stop(), d.Start(ctx)))
				order(22, "install", w.ActivationCode(), "--yes", "--confirmation-code", leakWrongCode) // it was used
			}
			log := filepath.Join(folder, "log.txt")
			must(t, os.WriteFile(log, told(), 0o600))
			bundle := supportBundle(ctx, t, d.Daemon, log)
			everything := []byte("in the bundle\n")
			for name, text := range bundle {
				everything = fmt.Appendf(everything, "%s\n%s\n", name, text)
			}
			for _, place := range []struct {
				name string
				text []byte
				must []string // what is there, so that it is known to be the place
				not  known
			}{
				{"the log", told(), []string{"exchange.tag=BF31", "+CCHO", "es9+ call", "hook says", "LPAD_EVENT=", "refused"}, all},
				{"/metrics", metrics, []string{"lpad_rollbacks_total"}, all},
				{"the bundle", everything, []string{"jobs.json", `"kind": "enable"`, "exchange.tag=BF31"}, all},
				{"the events", seen, []string{`"type":"job"`, lab.NewOperator.ICCID}, secrets},
				{"what lpactl says", said.Bytes(), []string{"error: ", "next: ", lab.NewOperator.ICCID}, secrets},
				{"the journal's codes", below(t, filepath.Join(d.Dir, "var")), []string{"install"}, known{"code": all["confirmation code"], "wrong code": all["wrong confirmation code"]}},
			} {
				for _, part := range place.must {
					if !bytes.Contains(place.text, []byte(part)) {
						t.Errorf("%s has no %q: it is not what it should be", place.name, part)
					}
				}
				for _, leak := range place.not.find(place.text) {
					t.Errorf("%s tells the %s", place.name, leak)
				}
				if planted := slices.Concat(place.text, []byte("\nnew IMSI "+swapped(lab.NewOperator.IMSI))); len(all.find(planted)) == len(all.find(place.text)) {
					t.Errorf("in %s a leak is not found", place.name)
				}
			}
			if test.journal {
				for _, field := range []string{"LPAD_JOB=", "LPAD_EXCHANGE_SW=", "LPAD_LINE=", "PRIORITY=7"} {
					if !bytes.Contains(j.text(), []byte("\n"+field)) && !bytes.HasPrefix(j.text(), []byte(field)) {
						t.Errorf("the journal has no field %s", field)
					}
				}
			}
		})
	}
}

// ask is what the socket answers to a question.
func ask(t *testing.T, socket, path string) []byte {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	must(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, api.Host)
	must(t, err)
	b, err := io.ReadAll(conn)
	must(t, err)
	return b
}

// carelessDevice is the configuration of a device with an operator's key, a
// receiver of reports who does not answer, and hooks that tell everything.
func carelessDevice(t *testing.T, folder string, key *ecdsa.PrivateKey) string {
	t.Helper()
	must(t, os.Chmod(folder, 0o755))
	public, err := orderstest.PublicPEM(key)
	must(t, err)
	must(t, os.Mkdir(filepath.Join(folder, "operators.d"), 0o755))
	must(t, os.WriteFile(filepath.Join(folder, "operators.d", "fleet.pem"), public, 0o644))
	for _, event := range []string{"staged", "activated", "applied", "rolled-back"} {
		in := filepath.Join(folder, "hooks.d", event+".d")
		must(t, os.MkdirAll(in, 0o755))
		must(t, os.WriteFile(filepath.Join(in, "10-careless"), []byte(careless), 0o755))
	}
	return fmt.Sprintf("orders: {keys_dir: %[1]s/operators.d}\nhooks: {dir: %[1]s/hooks.d}\nreports: {url: \"https://%[2]s/hook/%[3]s\"}\nnetwork: {dead_man: 15s}\nrsp: {consent: auto}\n",
		folder, "127.0.0.1:9", leakToken)
}

// signer makes files with signed orders to switch to the new profile.
func signer(t *testing.T, w *lab.World, key *ecdsa.PrivateKey, folder string) func(password string) string {
	serial := int64(0)
	write := func(name string, jws []byte) string {
		path := filepath.Join(folder, name)
		must(t, os.WriteFile(path, jws, 0o600))
		return path
	}
	sign := func(password string) []byte {
		serial++
		parameters := fmt.Sprintf(`{"version":1,"generation":%d,"apns":[{"name":"internet","purposes":["default","ia"],"pdnType":"v4","auth":"chap","user":%q,"secret":%q}]}`, serial, leakUser, password)
		jws, err := orderstest.Sign(key, "fleet", orderstest.Payload{Issuer: "fleet", Serial: serial, IssuedAt: time.Now().Unix(), Expires: time.Now().Add(time.Hour).Unix(),
			EID: w.Card.EID().String(), Action: "enable", ICCID: lab.NewOperator.ICCID, Parameters: json.RawMessage(parameters)})
		must(t, err)
		return jws
	}
	broken := sign(leakBadly)
	write("broken.jws", append(broken[:len(broken)-4], "AAAA"...))
	return func(password string) string { return write(fmt.Sprintf("order-%d.jws", serial), sign(password)) }
}

// watchEvents keeps all events until the test ends.
func watchEvents(ctx context.Context, t *testing.T, c *client.Client) func() []byte {
	t.Helper()
	var mu sync.Mutex
	var all []byte
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- c.Watch(ctx, client.WatchOptions{}, func(e api.Event) error {
			b, err := json.Marshal(e)
			mu.Lock()
			defer mu.Unlock()
			all = append(append(all, b...), '\n')
			return err
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return func() []byte { mu.Lock(); defer mu.Unlock(); return slices.Clone(all) }
}

// below is what the files in a folder hold.
func below(t *testing.T, dir string) (all []byte) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all = append(all, b...)
		return err
	}))
	return all
}
