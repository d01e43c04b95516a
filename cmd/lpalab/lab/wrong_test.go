package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lpad/agent/api"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/agent/rsp/rsptest/vectors"
	"lpad/apdu/apdutest"
	"lpad/apdu/ber"
	"lpad/cmd/lpalab/lab"
	"lpad/internal/fault"
	"lpad/modem/modemtest"
	"lpad/modem/serialport"
)

// wrong is one wrong input: what is made wrong, and how it must end.
type wrong struct {
	name string
	make func(*bench) []string // makes it wrong and returns the command
	code string                // of the fault; "" when the order must succeed all the same
	exit int                   // of lpactl
	then func(*bench)          // looks at more, before everything is right again
}

// Bounds of the matrix.
const (
	serverTimeout = "3s"             // rsp.timeout of the benches
	rowLimit      = 12 * time.Second // of a command
	settleLimit   = 5 * time.Second  // until the card is as before
)

// bench is a running lpad with its world, used for many rows.
type bench struct {
	*testing.T
	w      *lab.World
	d      *lab.Daemon
	m      *lab.Modem // nil without one
	ctx    context.Context
	orders *atomic.Int32
}

// card is what must not change.
type card struct {
	Profiles      []euicc.ProfileState
	Notifications []euicc.NotificationState
	Channels      []int
	Busy          bool // an RSP session is open
	DefaultSMDP   string
	Free          int
}

// atRest is the card when the daemon is not reading it just now, as it does by
// itself after a start or an order.
func (b *bench) atRest() card {
	b.Helper()
	deadline := time.Now().Add(settleLimit)
	for {
		c := b.card()
		if len(c.Channels) == 0 || time.Now().After(deadline) {
			return c
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (b *bench) card() card {
	c := b.w.Card
	session := c.SessionState()
	return card{Profiles: c.Profiles(), Notifications: c.Notifications(), Channels: c.OpenChannels(),
		// A challenge that nobody answered is no session: the next one replaces it.
		Busy: session != "idle" && session != "challenged", DefaultSMDP: c.DefaultSMDP(), Free: c.FreeMemory()}
}

// settled waits until the card is as it was.
func (b *bench) settled(before card) {
	b.Helper()
	deadline := time.Now().Add(settleLimit)
	for {
		diff := cmp.Diff(before, b.card())
		if diff == "" {
			return
		}
		if time.Now().After(deadline) {
			b.Errorf("the card has changed (-before +after):\n%s", diff)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// order books a fresh order and returns its activation code.
func (b *bench) order(change ...func(*smdp.Order)) string {
	b.Helper()
	o := b.w.Order
	o.MatchingID = fmt.Sprintf("SECRET-%04d", b.orders.Add(1))
	for _, f := range change {
		f(&o)
	}
	if err := b.w.SMDP.AddOrder(o); err != nil {
		b.Fatal(err)
	}
	return b.w.SMDP.ActivationCode(o.MatchingID)
}

// install is a plain order.
func (b *bench) install(change ...func(*smdp.Order)) []string {
	return []string{"install", b.order(change...), "--yes"}
}

// lpactl runs a command and returns its exit status and the problem it tells.
func (b *bench) lpactl(args ...string) (int, *api.Problem) {
	b.Helper()
	r, err := b.d.Lpactl(b.ctx, nil, append([]string{"--json"}, args...)...)
	if err != nil {
		b.Fatal(err)
	}
	// The problem is the last document, after the job that has it.
	var p *api.Problem
	for d := json.NewDecoder(strings.NewReader(r.Stdout)); ; {
		var v api.Problem
		if err := d.Decode(&v); err == io.EOF {
			break
		} else if err != nil {
			b.Fatalf("%v in:\n%s%s", err, r.Stdout, r.Stderr)
		}
		if p = nil; v.Code != "" {
			p = &v
		}
	}
	if p != nil && !strings.Contains(r.Stderr, "["+p.Code+"]") {
		b.Errorf("people are not told the code %s: %s", p.Code, r.Stderr)
	}
	if strings.Contains(r.Stderr, "SECRET-") {
		b.Errorf("the matching id is told: %s", r.Stderr)
	}
	if p == nil && r.Exit != 0 {
		b.Errorf("exit status %d without a problem: %s%s", r.Exit, r.Stdout, r.Stderr)
	}
	return r.Exit, p
}

// run is one row.
func (b *bench) run(row wrong) {
	b.T.Run(row.name, func(t *testing.T) {
		b := *b // for this row
		b.T = t
		before := b.atRest()
		args := row.make(&b)
		start := time.Now()
		exit, p := b.lpactl(args...)
		if d := time.Since(start); d > rowLimit {
			t.Errorf("it took %v", d)
		}
		b.check(row, exit, p)
		if row.then != nil {
			row.then(&b)
		}
		b.w.SMDP.ClearFaults()
		b.w.Card.ClearFaults()
		if row.code != "" {
			b.settled(before)
		}
		b.serving(before)
	})
}

// check holds an answer against a row.
func (b *bench) check(row wrong, exit int, p *api.Problem) {
	b.Helper()
	if p == nil {
		p = &api.Problem{}
	}
	b.Logf("%s (%d): %s [%s; %s; retry %v] -> %s", p.Code, exit, p.Title, p.Detail, p.Who, p.Retry, p.Next)
	if exit != row.exit || p.Code != row.code {
		b.Errorf("exit %d, code %q, want %d, %q: %+v", exit, p.Code, row.exit, row.code, p)
	}
	if row.code != "" && (p.Title == "" || p.Next == "" || p.Who == "") {
		b.Errorf("half an explanation: %+v", p)
	}
}

// serving sees that the daemon goes on as if nothing had been: its status, and
// a right order, whose profile is deleted again.
func (b *bench) serving(before card) {
	b.Helper()
	if exit, p := b.lpactl("status"); exit != 0 {
		b.Fatalf("status: %d, %+v", exit, p)
	}
	if exit, p := b.lpactl("install", b.order(), "--yes"); exit != 0 {
		b.Fatalf("a right order afterwards: %d, %+v", exit, p)
	}
	if exit, p := b.lpactl("delete", lab.NewOperator.ICCID, "--yes"); exit != 0 {
		b.Fatalf("delete: %d, %+v", exit, p)
	}
	b.settled(before)
}

// startBench starts lpad on a bare modem.
func startBench(t *testing.T, o lab.Options, config string) *bench {
	t.Helper()
	o.ProfileSize = 4000
	w := newWorld(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	b := &bench{T: t, w: w, ctx: ctx, orders: new(atomic.Int32)}
	addresses := b.hosts()
	m, err := w.StartModemWith(ctx, lab.ModemOptions{Programs: programs, Resolver: nameServer(t),
		Config: fmt.Sprintf("rsp: {timeout: %s, consent_timeout: 1s, addresses: {%s}}\n%s", serverTimeout, addresses, config)})
	if err != nil {
		t.Fatal(err)
	}
	b.m, b.d = m, m.Daemon
	t.Cleanup(func() {
		if strings.Contains(m.Log(), "SECRET-") {
			t.Error("a matching id is in the log")
		}
		if t.Failed() && testing.Verbose() {
			t.Logf("lpad:\n%s", m.Log())
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// hosts makes servers that are wrong before ES9+ begins, each under a name of
// its own, and returns rsp.addresses for them.
func (b *bench) hosts() string {
	b.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = l.Close() }) // the world may have closed it
		return l
	}
	var addresses []string
	at := func(host string, l net.Listener) {
		addresses = append(addresses, fmt.Sprintf("%s: %q", host, l.Addr()))
	}
	server := func(host string, ci *pki.CI, o pki.ServerOptions) {
		if o.Host == "" {
			o.Host = host
		}
		id, err := ci.IssueServer(pki.DPTLS, o)
		if err != nil {
			b.Fatal(err)
		}
		l := listen()
		b.w.ServeAs(l, id)
		at(host, l)
	}
	web, err := pki.NewCI(pki.P256, "Web Authority R3")
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	server("foreign.lpad.example", web, pki.ServerOptions{})
	server("expired.lpad.example", b.w.PKI.CI, pki.ServerOptions{NotAfter: now.Add(-time.Hour)})
	server("early.lpad.example", b.w.PKI.CI, pki.ServerOptions{NotBefore: now.Add(24 * time.Hour)})
	server("other.lpad.example", b.w.PKI.CI, pki.ServerOptions{Host: "somebody.lpad.example"})

	refused := listen()
	at("refused.lpad.example", refused)
	if err := refused.Close(); err != nil {
		b.Fatal(err)
	}
	// These two accept, and then one says nothing and the other something else.
	at("silent.lpad.example", accept(b.T, listen(), ""))
	at("plain.lpad.example", accept(b.T, listen(), "HTTP/1.1 400 Bad Request\r\n\r\n"))
	at("hangup.lpad.example", accept(b.T, listen(), "hang up"))
	at("smds.lpad.example", b.emptySMDS(listen()))
	if keys, err := pki.LoadSGP26(filepath.Join(vectors.Root(b), "sgp26")); err == nil {
		l := listen()
		b.w.ServeAs(l, keys.DPAuth)
		at("testci.lpad.example", l)
	} else {
		b.Logf("no public vectors, so no server under a test CI: %v", err)
	}
	return strings.Join(addresses, ", ")
}

// emptySMDS is a discovery server that has nothing for anybody.
func (b *bench) emptySMDS(l net.Listener) net.Listener {
	b.Helper()
	p := b.w.PKI
	smds, err := smdp.New(smdp.Config{SMDS: true, Address: "smds.lpad.example", Credentials: []smdp.Credential{{Auth: p.DSAuth}},
		CIs: []*pki.Certificate{p.CI.Certificate}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.ctx)
	done := make(chan error, 1)
	go func() { done <- smds.Serve(ctx, l, p.DSTLS) }()
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return l
}

// accept takes connections and says one thing.
func accept(t *testing.T, l net.Listener, says string) net.Listener {
	done := make(chan struct{})
	go func() {
		defer close(done)
		var open []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				for _, c := range open {
					c.Close()
				}
				return
			}
			open = append(open, c)
			if says == "hang up" {
				c.Close()
			} else if _, err := io.WriteString(c, says); err != nil {
				t.Log(err)
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l
}

// nameServer is a name server that knows no name, and fails for those under
// "broken.". It returns its address.
func nameServer(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", fmt.Sprintf("127.53.%d.%d:53", os.Getpid()>>8&0xFF, os.Getpid()&0xFF))
	for n := 1; err != nil && n < 16; n++ { // one for each bench
		pc, err = net.ListenPacket("udp", fmt.Sprintf("127.%d.%d.%d:53", 53+n, os.Getpid()>>8&0xFF, os.Getpid()&0xFF))
	}
	if err != nil {
		if os.Geteuid() != 0 && os.Getenv("LPAD_REQUIRE") != "all" {
			t.Skipf("a name server needs root: %v", err)
		}
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			end := bytes.IndexByte(b[12:n], 0) + 12 + 5 // of the question: the root label, type, class
			if n < 12 || end > n {
				continue
			}
			const nameError, serverFailure = 3, 2
			answer := append([]byte{b[0], b[1], 0x81, 0x80 | nameError, 0, 1, 0, 0, 0, 0, 0, 0}, b[12:end]...)
			if bytes.HasPrefix(b[12:end], []byte("\x06broken")) {
				answer[3] = 0x80 | serverFailure
			}
			_, _ = pc.WriteTo(answer, from) // a client that has gone
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	host, _, err := net.SplitHostPort(pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// code orders with an activation code as it stands.
func code(text string) func(*bench) []string {
	return func(*bench) []string { return []string{"install", text, "--yes"} }
}

// host orders from another server.
func host(name string) func(*bench) []string { return code("LPA:1$" + name + "$SECRET-0000") }

// server lets the SM-DP+ go wrong.
func server(f smdp.Fault) func(*bench) []string {
	return func(b *bench) []string {
		b.w.SMDP.Inject(f)
		return b.install()
	}
}

// orderIs orders what the operator has booked in an odd way.
func orderIs(change func(*smdp.Order), more ...string) func(*bench) []string {
	return func(b *bench) []string { return append(b.install(change), more...) }
}

// cardHas lets the card go wrong.
func cardHas(f ...euicc.Fault) func(*bench) []string {
	return func(b *bench) []string {
		b.w.Card.Inject(f...)
		return b.install()
	}
}

// TestWrongServer: whatever is on the other end of the line.
func TestWrongServer(t *testing.T) {
	t.Parallel()
	b := startBench(t, lab.Options{}, "")
	rows := []wrong{
		{name: "code: empty", make: code(""), code: "activation-code-malformed", exit: 10},
		{name: "code: a web address", make: code("https://smdp.example.com"), code: "activation-code-malformed", exit: 10},
		{name: "code: without a server", make: code("LPA:1"), code: "activation-code-malformed", exit: 10},
		{name: "code: eaten by the shell", make: code("LPA:1.lpad.example"), code: "activation-code-malformed", exit: 10},
		{name: "code: with a line end", make: code("LPA:1$a.example$\nX"), code: "activation-code-malformed", exit: 10},
		{name: "code: of 300 characters", make: code("LPA:1$a.example$" + strings.Repeat("X", 300)), code: "activation-code-malformed", exit: 10},
		{name: "code: fifth field", make: code("LPA:1$a.example$X$$yes"), code: "activation-code-malformed", exit: 10},
		{name: "code: format 2", make: code("LPA:2$a.example$X"), code: "activation-code-unsupported", exit: 10},
		{name: "code: server with a port", make: code("LPA:1$a.example:8443$X"), code: "activation-code-address", exit: 10},
		{name: "code: server by number", make: code("LPA:1$192.0.2.1$X"), code: "activation-code-address", exit: 10},

		{name: "host: unknown", make: host("nosuch.lpad.example"), code: "host-unknown", exit: 11},
		{name: "host: name server fails", make: host("broken.lpad.example"), code: "dns-unavailable", exit: 17},
		{name: "host: nothing listens", make: host("refused.lpad.example"), code: "connection-refused", exit: 17},
		{name: "host: silent", make: host("silent.lpad.example"), code: "server-silent", exit: 12},
		{name: "host: hangs up", make: host("hangup.lpad.example"), code: "connection-lost", exit: 17},
		{name: "host: not TLS", make: host("plain.lpad.example"), code: "not-tls", exit: 17},

		{name: "certificate: foreign", make: host("foreign.lpad.example"), code: "certificate-foreign", exit: 13},
		{name: "certificate: expired", make: host("expired.lpad.example"), code: "certificate-expired", exit: 14},
		{name: "certificate: not yet valid", make: host("early.lpad.example"), code: "certificate-not-yet-valid", exit: 14},
		{name: "certificate: of another host", make: host("other.lpad.example"), code: "certificate-wrong-host", exit: 19},
		{name: "certificate: under a test CI", make: host("testci.lpad.example"), code: "test-ci-not-allowed", exit: 15},
	}
	for _, f := range []smdp.Function{smdp.InitiateAuthentication, smdp.AuthenticateClient, smdp.GetBoundProfilePackage} {
		for _, row := range []struct {
			smdp.Fault
			code string
			exit int
		}{
			{smdp.Fault{Kind: smdp.Stall}, "server-silent", 12},
			{smdp.Fault{Kind: smdp.Drop}, "connection-lost", 17},
			{smdp.Fault{Kind: smdp.DropAnswer}, "connection-lost", 17},
			{smdp.Fault{Kind: smdp.CutAnswer}, "connection-lost", 17},
			{smdp.Fault{Kind: smdp.HTTPError, HTTP: 500}, "server-unavailable", 17},
			{smdp.Fault{Kind: smdp.HTTPError, HTTP: 404}, "wrong-server", 29},
			{smdp.Fault{Kind: smdp.NotJSON}, "server-answer-invalid", 29},
			{smdp.Fault{Kind: smdp.HugeAnswer}, "server-answer-invalid", 29},
		} {
			row.Fault.Function = f
			name := fmt.Sprintf("%s: %s", f, row.Kind)
			if row.HTTP != 0 {
				name += fmt.Sprintf(" %d", row.HTTP)
			}
			rows = append(rows, wrong{name: name, make: server(row.Fault), code: row.code, exit: row.exit})
		}
	}
	at := func(f smdp.Function, k smdp.Kind) func(*bench) []string {
		return server(smdp.Fault{Function: f, Kind: k})
	}
	rows = append(rows, []wrong{
		{name: "authentication: session of the answer", make: at(smdp.InitiateAuthentication, smdp.OtherReplyID), code: "server-session-mismatch", exit: 29},
		{name: "offer: session of the answer", make: at(smdp.AuthenticateClient, smdp.OtherReplyID), code: "server-answer-invalid", exit: 29},
		{name: "package: session of the answer", make: at(smdp.GetBoundProfilePackage, smdp.OtherReplyID), code: "server-answer-invalid", exit: 29},
		{name: "authentication: signature", make: at(smdp.InitiateAuthentication, smdp.FlipSignature), code: "server-signature-refused", exit: 29},
		{name: "authentication: challenge", make: at(smdp.InitiateAuthentication, smdp.OtherChallenge), code: "server-challenge-mismatch", exit: 29},
		{name: "authentication: address", make: at(smdp.InitiateAuthentication, smdp.OtherAddress), code: "server-address-mismatch", exit: 28},
		{name: "authentication: session", make: at(smdp.InitiateAuthentication, smdp.OtherSignedID), code: "server-session-mismatch", exit: 29},
		{name: "authentication: CI", make: at(smdp.InitiateAuthentication, smdp.OtherCI), code: "ci-not-offered", exit: 25},
		{name: "offer: signature", make: at(smdp.AuthenticateClient, smdp.FlipSignature), code: "server-signature-refused", exit: 29},
		{name: "offer: session", make: at(smdp.AuthenticateClient, smdp.OtherSignedID), code: "server-session-mismatch", exit: 29},
		{name: "package: signature", make: at(smdp.GetBoundProfilePackage, smdp.FlipSignature), code: "package-signature", exit: 34},
		{name: "package: session", make: at(smdp.GetBoundProfilePackage, smdp.OtherSignedID), code: "package-stale", exit: 29},
		{name: "package: metadata", make: at(smdp.GetBoundProfilePackage, smdp.OtherMetadata), code: "metadata-mismatch", exit: 29},
		{name: "package: truncated", make: at(smdp.GetBoundProfilePackage, smdp.Truncate), code: "package-malformed", exit: 29},
		{name: "package: without elements", make: at(smdp.GetBoundProfilePackage, smdp.No86), code: "package-malformed", exit: 29},
		{name: "package: unknown element", make: at(smdp.GetBoundProfilePackage, smdp.ExtraTag), code: "package-malformed", exit: 29},
		{name: "package: segments swapped", make: at(smdp.GetBoundProfilePackage, smdp.Swap86), code: "package-security", exit: 34},
		{name: "package: MAC", make: at(smdp.GetBoundProfilePackage, smdp.BadMAC), code: "package-security", exit: 34},
		{name: "package: operation", make: at(smdp.GetBoundProfilePackage, smdp.BadRemoteOp), code: "package-malformed", exit: 29},

		// The download is good, only its receipt does not get through: it waits.
		{name: "receipt: silent server", make: at(smdp.HandleNotification, smdp.Stall), then: delivered},
		{name: "receipt: HTTP 500", make: at(smdp.HandleNotification, smdp.HTTPError), then: delivered},
		{name: "receipt: not JSON", make: at(smdp.HandleNotification, smdp.NotJSON), then: delivered},
	}...)
	for _, row := range rows {
		b.run(row)
	}
}

// delivered sees that a notification which was kept back gets to the server by
// itself, and takes the profile of the order off the card.
func delivered(b *bench) {
	b.Helper()
	if n := len(b.w.Card.Notifications()); n != 1 {
		b.Errorf("%d notifications wait on the card, want that of the installation", n)
	}
	b.w.SMDP.ClearFaults()
	for deadline := time.Now().Add(settleLimit); len(b.w.Card.Notifications()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Error("the notification does not get to the server")
			break
		}
	}
	deleteNew(b)
}

func deleteNew(b *bench) {
	b.Helper()
	if exit, p := b.lpactl("delete", lab.NewOperator.ICCID, "--yes"); exit != 0 {
		b.Errorf("delete: %d, %+v", exit, p)
	}
}

// lastJob is the id of the newest job.
func (b *bench) lastJob() string {
	b.Helper()
	c := b.d.Client()
	defer c.Close()
	jobs, err := c.Jobs(b.ctx)
	if err != nil || len(jobs.Jobs) == 0 {
		b.Fatalf("%d jobs, %v", len(jobs.Jobs), err)
	}
	return jobs.Jobs[0].ID
}

// ended waits for the end of a job.
func (b *bench) ended(id string) {
	b.Helper()
	c := b.d.Client()
	defer c.Close()
	if _, err := c.Follow(b.ctx, id, func(api.Job) {}); err != nil {
		b.Fatal(err)
	}
}

// ends sees how a job ends that was left waiting.
func ends(code string, exit int, answer ...string) func(*bench) {
	return func(b *bench) {
		b.Helper()
		id := b.lastJob()
		if len(answer) == 0 {
			b.ended(id)
		} else {
			if exit, p := b.lpactl(append([]string{"jobs", "answer", id}, answer...)...); exit != 0 {
				b.Errorf("answer: %d, %+v", exit, p)
			}
		}
		got, p := b.lpactl("jobs", "follow", id)
		b.check(wrong{code: code, exit: exit}, got, p)
	}
}

// TestWrongOrder: what the technician, the operator and the policy of the card
// may get wrong.
func TestWrongOrder(t *testing.T) {
	t.Parallel()
	elisa := *ownerOf(lab.NewOperator)
	b := startBench(t, lab.Options{Card: func(c *euicc.Config) {
		c.RAT = []euicc.Rule{{PPR: rsp.PPR1 | rsp.PPR2, Operators: []rsp.Operator{elisa}, ConsentRequired: true}}
		c.Profiles[0].PPR = rsp.PPR1
		c.FreeMemory, c.RootSMDS = 50_000, "smds.lpad.example"
	}}, "")
	withCode := func(o *smdp.Order) { o.ConfirmationCode, o.CodeTries = "2468", 2 }
	refuse := func(f smdp.Function, subject, reason string) func(*bench) []string {
		return server(smdp.Fault{Function: f, Kind: smdp.Refuse, Subject: subject, Reason: reason})
	}
	do := func(args ...string) func(*bench) []string { return func(*bench) []string { return args } }
	for _, row := range []wrong{
		{name: "matching id: unknown", make: host(lab.Host), code: "matching-id-refused", exit: 22},
		{name: "matching id: used up", code: "matching-id-refused", exit: 22, make: func(b *bench) []string {
			args := b.install()
			if exit, p := b.lpactl(args...); exit != 0 {
				b.Fatalf("install: %d, %+v", exit, p)
			}
			deleteNew(b)
			return args
		}},
		{name: "confirmation code: wrong", make: orderIs(withCode, "--confirmation-code", "1111"), code: "confirmation-code-wrong", exit: 21},
		{name: "confirmation code: missing", code: "confirmation-code-missing", exit: 20, make: func(b *bench) []string {
			return []string{"install", b.order(withCode) + "$$1", "--yes"}
		}},
		{name: "confirmation code: missing, unannounced", make: orderIs(withCode), code: "consent-needed", exit: 36, then: ends("consent-timeout", 24)},
		{name: "confirmation code: too many tries", code: "confirmation-tries-exhausted", exit: 26, make: func(b *bench) []string {
			args := b.install(withCode)
			for range 2 {
				if exit, _ := b.lpactl(append(args, "--confirmation-code", "1111")...); exit == 0 {
					b.Error("a wrong code was accepted")
				}
			}
			return append(args, "--confirmation-code", "2468")
		}},
		{name: "order: of another EID", make: orderIs(func(o *smdp.Order) { o.EID = rsp.EID{0x89, 0x04, 0x90} }), code: "eid-refused", exit: 27},
		{name: "order: expired", make: orderIs(func(o *smdp.Order) { o.Expires = time.Now().Add(-time.Minute) }), code: "order-expired", exit: 26},
		{name: "order: not released", make: orderIs(func(o *smdp.Order) { o.Unreleased = true }), code: "profile-not-released", exit: 25},
		{name: "order: of other devices", make: orderIs(func(o *smdp.Order) { o.TACs = []string{"01234567"} }), code: "device-not-eligible", exit: 25},
		{name: "order: fetched too often", make: refuse(smdp.AuthenticateClient, "8.8.5", "6.4"), code: "download-tries-exhausted", exit: 26},
		{name: "order: not known any more", make: refuse(smdp.GetBoundProfilePackage, "8.10.1", "3.9"), code: "session-unknown", exit: 9},
		{name: "order: refused with an unknown reason", make: refuse(smdp.AuthenticateClient, "8.77", "3.99"), code: "server-refuses-conditions", exit: 25},
		{name: "order: of another server", code: "server-oid-mismatch", exit: 28, make: func(b *bench) []string {
			return []string{"install", b.order() + "$2.999.99", "--yes"}
		}},
		{name: "source: no default server on the card", make: do("install", "--source", "default-smdp", "--yes"), code: "no-default-smdp", exit: 8},
		// The session with a discovery server is not cancelled (SGP.22 v2.5,
		// section 3.6.2): the next one replaces it.
		{name: "source: nothing waits at the discovery server", make: do("install", "--source", "smds", "--yes"), code: "nothing-pending", exit: 38,
			then: func(b *bench) { b.lpactl(b.install()...); deleteNew(b) }},

		{name: "rules: not allowed to this operator", code: "ppr-not-allowed", exit: 30, make: orderIs(func(o *smdp.Order) {
			o.Metadata.PPR, o.Metadata.Owner = rsp.PPR2, ownerOf(lab.OldOperator)
		})},
		{name: "rules: nobody may be disabled for it", make: orderIs(func(o *smdp.Order) { o.Metadata.PPR = rsp.PPR1 }), code: "ppr-not-allowed", exit: 30},
		{name: "rules: consent missing", make: orderIs(func(o *smdp.Order) { o.Metadata.PPR = rsp.PPR2 }), code: "consent-needed", exit: 36,
			then: ends("consent-timeout", 24)},
		{name: "rules: the one in use cannot be disabled", make: orderIs(func(*smdp.Order) {}, "--enable"), code: "disallowed-by-policy", exit: 30, then: deleteNew},
		{name: "consent: nobody there", code: "consent-needed", exit: 36, then: ends("consent-refused", 23, "--refuse"),
			make: func(b *bench) []string { return []string{"install", b.order()} }},
		{name: "consent: refused, and the server does not care", code: "consent-needed", exit: 36, then: ends("consent-refused", 23, "--refuse"),
			make: func(b *bench) []string {
				b.w.SMDP.Inject(smdp.Fault{Function: smdp.CancelSession, Kind: smdp.Stall})
				return []string{"install", b.order()}
			}},

		{name: "profile: already on the card", code: "profile-already-installed", exit: 32, make: orderIs(func(o *smdp.Order) {
			old, err := lab.NewOrder("", lab.OldOperator, 3000)
			if err != nil {
				b.Fatal(err)
			}
			o.UPP, o.Metadata = old.UPP, old.Metadata
		})},
		{name: "profile: too large, says the server", make: refuse(smdp.AuthenticateClient, "8.1", "4.8"), code: "card-full", exit: 31},
		{name: "profile: too large, finds the card", code: "card-full", exit: 31, make: orderIs(func(o *smdp.Order) {
			large, err := lab.NewOrder("", lab.NewOperator, 60_000)
			if err != nil {
				b.Fatal(err)
			}
			o.UPP = large.UPP
		})},
		{name: "profile: not what it says", code: "profile-data-mismatch", exit: 34, make: orderIs(func(o *smdp.Order) {
			other, err := lab.NewOrder("", lab.OldOperator, 3000)
			if err != nil {
				b.Fatal(err)
			}
			o.UPP = other.UPP
		})},
		{name: "profile: no profile at all", make: orderIs(func(o *smdp.Order) { o.UPP = []byte{0xA0, 0x03, 0x80, 0x01, 0x02} }), code: "profile-not-supported", exit: 34},

		{name: "command: ICCID", make: do("enable", "12345"), code: "bad-request", exit: 7},
		{name: "command: enable what is not there", make: do("enable", "89490000000000000000"), code: "not-found", exit: 5},
		{name: "command: disable what is not there", make: do("disable", "89490000000000000000"), code: "profile-not-found", exit: 5},
		{name: "command: delete what is not there", make: do("delete", "89490000000000000000", "--yes"), code: "profile-not-found", exit: 5},
		{name: "command: name what is not there", make: do("nickname", "89490000000000000000", "x"), code: "profile-not-found", exit: 5},
		{name: "command: enable what is enabled", make: do("enable", lab.OldOperator.ICCID), code: "conflict", exit: 6},
		{name: "command: delete what is enabled", make: do("delete", lab.OldOperator.ICCID, "--yes"), code: "profile-in-use", exit: 6},
		{name: "command: disable what may not be disabled", make: do("disable", lab.OldOperator.ICCID), code: "disallowed-by-policy", exit: 30},
		{name: "command: name too long", make: do("nickname", lab.OldOperator.ICCID, strings.Repeat("x", 65)), code: "nickname-invalid", exit: 7},
		{name: "command: no such job", make: do("jobs", "show", "20260101-000000"), code: "not-found", exit: 5},
		{name: "command: delete, and nobody confirms", make: do("delete", lab.OldOperator.ICCID), code: "nobody-answered", exit: 8},
	} {
		b.run(row)
	}
}

func ownerOf(s lab.Subscriber) *rsp.Operator {
	o, err := lab.NewOrder("", s, 3000)
	if err != nil {
		panic(err) // a constant of the lab
	}
	return o.Metadata.Owner
}

// Functions of the card that a download uses, by their tags.
const (
	fnChallenge    ber.Tag = 0xBF2E
	fnAuthenticate ber.Tag = 0xBF38
	fnPrepare      ber.Tag = 0xBF21
	fnLoad         ber.Tag = 0xBF36
	fnProfiles     ber.Tag = 0xBF2D
	fnCancel       ber.Tag = 0xBF41
	fnList         ber.Tag = 0xBF28
	fnRetrieve     ber.Tag = 0xBF2B
	fnRemove       ber.Tag = 0xBF30
)

// hostile are answers that nobody should believe.
var hostile = []struct {
	name   string
	tamper func(fn ber.Tag) func([]byte) []byte
}{
	{"empty", func(ber.Tag) func([]byte) []byte { return euicc.Truncate(0) }},
	{"one byte", func(ber.Tag) func([]byte) []byte { return euicc.Truncate(1) }},
	{"without its end", func(ber.Tag) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-1] } }},
	{"of another function", func(ber.Tag) func([]byte) []byte { return euicc.FlipBit(15) }},
	{"without content", func(fn ber.Tag) func([]byte) []byte { return euicc.Replace([]byte{byte(fn >> 8), byte(fn), 0}) }},
	{"of indefinite length", func(fn ber.Tag) func([]byte) []byte {
		return euicc.Replace([]byte{byte(fn >> 8), byte(fn), 0x80, 0x30, 0x80, 0, 0, 0, 0})
	}},
	{"of 4 GB", func(fn ber.Tag) func([]byte) []byte {
		return euicc.Replace([]byte{byte(fn >> 8), byte(fn), 0x84, 0xFF, 0xFF, 0xFF, 0xFF, 0x30})
	}},
	{"nested deeply", func(fn ber.Tag) func([]byte) []byte {
		b := []byte{0x30, 0}
		for len(b) < 4000 {
			b = ber.Encode(0x30, b)
		}
		return euicc.Replace(ber.Encode(fn, b))
	}},
	{"of many elements", func(fn ber.Tag) func([]byte) []byte {
		return euicc.Replace(ber.Encode(fn, ber.Encode(0xA0, bytes.Repeat([]byte{0x80, 0}, 4000))))
	}},
}

// TestWrongCard: a card that refuses, errs, or answers nonsense.
func TestWrongCard(t *testing.T) {
	t.Parallel()
	b := startBench(t, lab.Options{}, "card: {apdu_path: ccho}\n")
	var rows []wrong
	for _, fn := range []struct {
		name string
		tag  ber.Tag
	}{{"GetEUICCChallenge", fnChallenge}, {"AuthenticateServer", fnAuthenticate}, {"PrepareDownload", fnPrepare}} {
		for _, h := range hostile {
			rows = append(rows, wrong{name: fn.name + ": answer " + h.name, code: "card-answer", exit: 55,
				make: cardHas(euicc.Fault{Do: euicc.TamperAnswer, Function: fn.tag, Tamper: h.tamper(fn.tag)})})
		}
	}
	// What the card did is known from elsewhere, so these orders succeed.
	for _, h := range hostile {
		rows = append(rows, wrong{name: "LoadBoundProfilePackage: answer " + h.name, then: deleteNew,
			make: cardHas(euicc.Fault{Do: euicc.TamperAnswer, Function: fnLoad, Tamper: h.tamper(fnLoad)})})
	}
	nonsense := func(fn ber.Tag) euicc.Fault {
		return euicc.Fault{Do: euicc.TamperAnswer, Function: fn, Tamper: euicc.Replace([]byte{0x30, 0x80, 0xFF})} // once
	}
	rows = append(rows, []wrong{
		{name: "the profile is installed, and cannot be looked at", make: cardHas(nonsense(fnProfiles)), then: deleteNew},
		{name: "the receipt is delivered, and cannot be removed", make: cardHas(nonsense(fnRemove)), then: deleteNew},
		{name: "at first nothing tells whether it was installed", make: cardHas(nonsense(fnLoad), nonsense(fnRetrieve)), then: deleteNew},
		{name: "the answer to a cancellation", code: "consent-needed", exit: 36, then: ends("consent-refused", 23, "--refuse"),
			make: func(b *bench) []string {
				b.w.Card.Inject(nonsense(fnCancel))
				return []string{"install", b.order()}
			}},
	}...)
	result := func(fn ber.Tag, n int) func(*bench) []string {
		return cardHas(euicc.Fault{Do: euicc.AnswerResult, Function: fn, Result: n})
	}
	load := func(command, reason int) func(*bench) []string {
		return cardHas(euicc.Fault{Do: euicc.FailLoad, Command: command, Result: reason})
	}
	rows = append(rows, []wrong{
		{name: "authentication: result of another form", make: result(fnAuthenticate, 127), code: "card-answer", exit: 55},
		{name: "initialise: malformed", make: load(0, 1), code: "package-malformed", exit: 29},
		{name: "initialise: signature", make: load(0, 2), code: "package-signature", exit: 34},
		{name: "initialise: session", make: load(0, 3), code: "package-stale", exit: 29},
		{name: "initialise: keys", make: load(0, 4), code: "package-keys-unsupported", exit: 34},
		{name: "initialise: operation", make: load(0, 5), code: "package-operation-unsupported", exit: 34},
		{name: "configure: structure", make: load(1, 7), code: "package-structure", exit: 34},
		{name: "configure: security", make: load(1, 8), code: "package-security", exit: 34},
		{name: "metadata: class", make: load(2, 6), code: "profile-class-unsupported", exit: 34},
		{name: "metadata: on the card already", make: load(2, 9), code: "profile-already-installed", exit: 32},
		{name: "metadata: rules", make: load(2, 15), code: "ppr-not-allowed", exit: 30},
		{name: "elements: no room", make: load(5, 10), code: "card-full", exit: 31},
		{name: "elements: interrupted", make: load(5, 11), code: "installation-interrupted", exit: 35},
		{name: "elements: not supported", make: load(5, 12), code: "profile-not-supported", exit: 34},
		{name: "elements: other profile", make: load(5, 13), code: "profile-data-mismatch", exit: 34},
		{name: "elements: test key", make: load(5, 14), code: "test-profile-key", exit: 34},
		{name: "elements: no reason", make: load(5, 127), code: "installation-failed", exit: 34},
		{name: "elements: unknown reason", make: load(5, 99), code: "card-undefined-error", exit: 56},
	}...)
	for _, row := range rows {
		b.run(row)
	}
	b.T.Run("facts", func(t *testing.T) { b := *b; b.T = t; b.hostileFacts() })
	for _, sw := range []uint16{0x6F00, 0x6881, 0x6601} {
		b.T.Run(fmt.Sprintf("status %04X", sw), func(t *testing.T) { b := *b; b.T = t; b.refusals(sw) })
	}
}

// hostileFacts spoils what a card tells of itself.
func (b *bench) hostileFacts() {
	for _, fn := range []ber.Tag{0xBF3E, 0xBF3C, 0xBF20, 0xBF22, fnProfiles, 0xBF43, fnList} {
		for _, h := range hostile {
			if h.name == "without content" && (fn == 0xBF3C || fn == fnProfiles) {
				continue // a card without addresses or profiles may say so
			}
			before := b.atRest()
			b.w.Card.ClearFaults()
			b.w.Card.Inject(euicc.Fault{Do: euicc.TamperAnswer, Function: fn, Times: -1, Tamper: h.tamper(fn)})
			// An answer that was right is fresh for two seconds.
			var exit int
			var p *api.Problem
			for deadline := time.Now().Add(4 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
				if exit, p = b.lpactl("euicc"); exit != 0 {
					break
				}
			}
			if p == nil || p.Code != "card-answer" || exit != 55 {
				b.Errorf("%v, answer %s: %d, %+v", fn, h.name, exit, p)
			}
			b.settled(before)
		}
	}
	if exit, p := b.lpactl(b.install()...); exit != 55 {
		b.Errorf("install from a card that answers nonsense: %d, %+v", exit, p)
	}
	b.w.Card.ClearFaults()
	b.serving(b.card())
}

// refusals lets every APDU of a session end with a status word, from the
// channel to the first segments of the package.
func (b *bench) refusals(sw uint16) {
	b.w.SMDP.Inject(smdp.Fault{Function: smdp.GetBoundProfilePackage, Kind: smdp.HTTPError})
	b.w.Card.ResetStats()
	b.lpactl(b.install()...)
	b.w.SMDP.ClearFaults()
	apdus := b.w.Card.Stats().APDUs
	codes := map[string]int{}
	for k := 1; k <= apdus; k++ {
		before := b.atRest()
		args := b.install()
		b.w.Card.Inject(euicc.Fault{Do: euicc.Refuse, SW: sw, APDU: k})
		start := time.Now()
		exit, p := b.lpactl(args...)
		b.w.Card.ClearFaults()
		if d := time.Since(start); d > rowLimit {
			b.Errorf("APDU %d: it took %v", k, d)
		}
		switch {
		case exit == 0:
			codes["ok"]++
			deleteNew(b)
		case p == nil || p.Code == fault.Internal || p.Next == "" || exit < 30:
			b.Errorf("APDU %d: %d, %+v", k, exit, p)
		default:
			codes[fmt.Sprintf("%s (%d)", p.Code, exit)]++
		}
		b.settled(before)
		if k%5 == 0 || b.Failed() {
			b.serving(before)
		}
	}
	b.Logf("%d APDUs: %v", apdus, codes)
	b.serving(b.card())
}

// TestPatience: a card that stops answering, and one that answers nonsense for
// ever. Everything waits for it as long as a card may take, and no longer; when
// it is back, everything goes on. All wait at the same time, in one test.
func TestPatience(t *testing.T) {
	t.Parallel()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	for _, row := range []struct {
		name  string
		limit time.Duration
		wrong func(*bench) (right func())
		code  string
		exit  int
		then  func(*bench)
	}{
		{name: "silent when the channel is opened", limit: 45 * time.Second, code: "modem-silent", exit: 54,
			wrong: func(b *bench) func() { return b.w.Card.Stall() }},
		{name: "silent in the middle of a session", limit: 50 * time.Second, code: "modem-silent", exit: 54,
			wrong: func(b *bench) func() {
				b.w.SMDP.Inject(smdp.Fault{Function: smdp.InitiateAuthentication, Kind: smdp.Slow, Delay: time.Second, Times: 1})
				calls := len(b.w.SMDP.Calls())
				resume := make(chan func(), 1)
				go func() {
					for len(b.w.SMDP.Calls()) == calls && b.ctx.Err() == nil {
						time.Sleep(10 * time.Millisecond)
					}
					resume <- b.w.Card.Stall()
				}()
				return func() { (<-resume)() }
			}},
		// Nothing is claimed of which nobody knows; the list shows what there is.
		{name: "nobody says whether it is installed", limit: time.Minute, code: "outcome-unknown", exit: 35, then: deleteNew,
			wrong: func(b *bench) func() {
				for _, fn := range []ber.Tag{fnLoad, fnRetrieve} {
					b.w.Card.Inject(euicc.Fault{Do: euicc.TamperAnswer, Function: fn, Times: -1, Tamper: euicc.Truncate(5)})
				}
				return b.w.Card.ClearFaults
			}},
	} {
		b := startBench(t, lab.Options{}, "")
		waiting.Go(func() {
			before := b.atRest()
			args := b.install()
			right := sync.OnceFunc(row.wrong(b))
			defer right()
			start := time.Now()
			exit, p := b.lpactl(args...)
			t.Logf("%s: after %v", row.name, time.Since(start))
			b.check(wrong{code: row.code, exit: row.exit}, exit, p)
			if time.Since(start) > row.limit {
				t.Errorf("%s: it took %v", row.name, time.Since(start))
			}
			if exit, p := b.lpactl("status"); exit != 0 { // which never waits for the card
				t.Errorf("%s: status: %d, %+v", row.name, exit, p)
			}
			right()
			if row.then != nil {
				row.then(b)
			}
			b.serving(before) // and closes what could not be closed
		})
	}
}

// TestNoWayToCard: what is wrong before there is a card.
func TestNoWayToCard(t *testing.T) {
	t.Parallel()
	text := func(v any) string { return fmt.Sprintf("%q", v) }
	for _, row := range []struct {
		name string
		make func(*testing.T) (config string, env []string)
		code string
		exit int
	}{
		{"modem: port missing", func(t *testing.T) (string, []string) {
			return "card: {backend: at, at_port: " + text(filepath.Join(t.TempDir(), "ttyUSB2")) + "}\nmodem: {manage: none}", nil
		}, "port-missing", 51},
		{"modem: port is a file", func(t *testing.T) (string, []string) {
			path := filepath.Join(t.TempDir(), "ttyUSB2")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return "card: {backend: at, at_port: " + text(path) + "}\nmodem: {manage: none}", nil
		}, "port-wrong", 53},
		{"modem: port busy", func(t *testing.T) (string, []string) {
			path := modemPort(t, &modemtest.Config{Card: emptyCard(t)})
			port, err := serialport.Open(path, 115200)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { port.Close() })
			return "card: {backend: at, at_port: " + text(path) + "}\nmodem: {manage: none}", nil
		}, "port-busy", 53},
		{"modem: says nothing", func(t *testing.T) (string, []string) {
			return "card: {backend: at, at_port: " + text(modemPort(t, nil)) + "}\nmodem: {manage: none}", nil
		}, "modem-silent", 54},
		{"modem: SIM is no eUICC", func(t *testing.T) (string, []string) {
			return "card: {backend: at, at_port: " + text(modemPort(t, &modemtest.Config{Card: &apdutest.UICC{Channels: 3}})) + "}\nmodem: {manage: none}", nil
		}, "no-euicc", 50},
		{"reader: helper missing", func(t *testing.T) (string, []string) {
			return "card: {backend: pcsc, pcsc_helper: /nonexistent/lpad-pcsc}", nil
		}, "pcsc-helper-missing", 52},
		{"reader: helper is another program", func(t *testing.T) (string, []string) {
			return "card: {backend: pcsc, pcsc_helper: /bin/true}", nil
		}, "pcsc-helper", 52},
		{"reader: no pcscd", func(t *testing.T) (string, []string) {
			return "card: {backend: pcsc, pcsc_helper: " + text(filepath.Join(programs, "lpad-pcsc")) + "}",
				[]string{"PCSCLITE_CSOCK_NAME=" + filepath.Join(t.TempDir(), "none")}
		}, "pcsc-no-service", 51},
		{"reader: no card in it", func(t *testing.T) (string, []string) {
			modemtest.RequirePCSCD(t)
			dir, err := os.MkdirTemp("", "lpad-test-") // short: a socket is made below it
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			pcscd, err := modemtest.StartPCSCD(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := pcscd.Close(); err != nil {
					t.Error(err)
				}
			})
			return "card: {backend: pcsc, pcsc_helper: " + text(filepath.Join(programs, "lpad-pcsc")) + "}", pcscd.Env()
		}, "pcsc-no-card", 50},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			config, env := row.make(t)
			dir := t.TempDir()
			start := time.Now()
			d, err := lab.StartDaemon(ctx, dir, programs, config+"\nnetwork: {backend: none}\nrsp: {trust_dir: "+text(dir)+"}\n", "",
				func(ctx context.Context, name string, args ...string) *exec.Cmd {
					cmd := exec.CommandContext(ctx, name, args...)
					cmd.Env = append(os.Environ(), env...)
					return cmd
				})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := d.Stop(); err != nil {
					t.Error(err)
				}
			}()
			b := &bench{T: t, d: d, ctx: ctx}
			exit, p := b.lpactl("install", "LPA:1$smdp.example.com$X", "--yes")
			b.check(wrong{code: row.code, exit: row.exit}, exit, p)
			if d := time.Since(start); d > 3*rowLimit {
				t.Errorf("it took %v", d)
			}
			r, err := d.Lpactl(ctx, nil, "status")
			if err != nil || r.Exit != 0 || !strings.Contains(r.Stdout, "card-missing") || !strings.Contains(unwrapped(r.Stdout), p.Title) {
				t.Errorf("status: %d, %v\n%s%s", r.Exit, err, r.Stdout, r.Stderr)
			}
		})
	}
}

// modemPort is the port of a modem, or of something that only listens.
func modemPort(t *testing.T, c *modemtest.Config) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ttyUSB2")
	silent := c == nil
	if silent {
		c = &modemtest.Config{Card: emptyCard(t)}
	}
	m, err := modemtest.New(*c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := m.OpenPTY(path); err != nil {
		t.Fatal(err)
	}
	if silent {
		m.Mute("")
	}
	return path
}

func emptyCard(t *testing.T) modemtest.Card {
	t.Helper()
	c, err := euicc.New(euicc.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestWrongTrust: a file that must not be trusted is skipped, and that is said
// loudly; so is a test authority that the configuration allows.
func TestWrongTrust(t *testing.T) {
	t.Parallel()
	keys, err := pki.LoadSGP26(vectors.Dir(t, "sgp26"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, file string
		allow      bool
		text       string
	}{
		{"test CI", string(keys.CI.PEM()), false, "allow_test_ci"},
		{"a server instead of an authority", string(keys.DPAuth.Certificate.PEM()), false, "not the certificate of an authority"},
		{"a private key", string(keys.DPAuth.Key.PEM()), false, "only certificates belong here"},
		{"nothing", "", false, "no PEM certificate"},
		{"test CI that is allowed", string(keys.CI.PEM()), true, "INSECURE"},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			dir := t.TempDir()
			trust := filepath.Join(dir, "trust.d")
			if err := errors.Join(os.Mkdir(trust, 0o755), os.WriteFile(filepath.Join(trust, "oem.pem"), []byte(row.file), 0o644)); err != nil {
				t.Fatal(err)
			}
			d, err := lab.StartDaemon(ctx, dir, programs, fmt.Sprintf("card: {backend: pcsc, pcsc_helper: /nonexistent}\nrsp: {trust_dir: %q, allow_test_ci: %v}\n",
				trust, row.allow), "", exec.CommandContext)
			if err != nil {
				t.Fatal(err)
			}
			r, err := d.Lpactl(ctx, nil, "status")
			if err != nil || !strings.Contains(unwrapped(r.Stdout), row.text) || !strings.Contains(d.Log(), row.text) {
				t.Errorf("not told: %v\n%s%s", err, r.Stdout, d.Log())
			}
			r, err = d.Lpactl(ctx, nil, "status", "--json")
			var status api.Status
			if err := errors.Join(err, json.Unmarshal([]byte(r.Stdout), &status)); err != nil {
				t.Fatal(err)
			}
			if added := slices.ContainsFunc(status.Trust, func(root api.TrustRoot) bool { return root.Source != "built-in" }); added != row.allow {
				t.Errorf("trusted: %v, want %v\n%s", added, row.allow, r.Stdout)
			}
			if err := d.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// unwrapped is a screen without the ends of its lines.
func unwrapped(screen string) string { return strings.Join(strings.Fields(screen), " ") }
