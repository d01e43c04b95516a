package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Limits of the tries at servers.
const (
	maxServers    = 3
	serverPatient = 10 * time.Second // for each of name, connection and TLS
)

// checkServers tries the servers that were given, or else those that are known.
func (d *doctor) checkServers(ctx context.Context, known []string) {
	list := d.servers
	if len(list) == 0 {
		list = known
	}
	var tried []string
	for _, s := range list {
		host, port, ok := serverOf(s)
		if !ok {
			d.wrong("server", "server-address-invalid", "what was given as server is neither a name nor an activation code", "give --smdp the name of the SM-DP+")
			continue
		}
		at := net.JoinHostPort(host, port)
		if slices.Contains(tried, at) {
			continue
		}
		if len(tried) == maxServers {
			break
		}
		tried = append(tried, at)
		d.checkServer(ctx, host, port)
	}
	if len(list) == 0 {
		d.skip("server", "no SM-DP+ is known: name one with --smdp")
	}
}

// serverOf reads a name, name:port or an activation code, of which it takes the
// address alone.
func serverOf(s string) (host, port string, ok bool) {
	s = strings.TrimSpace(s)
	if strings.Contains(s, "$") {
		fields := strings.Split(s, "$")
		if prefix := strings.TrimPrefix(strings.ToUpper(fields[0]), "LPA:"); prefix != "1" || len(fields) < 3 {
			return "", "", false
		}
		s = fields[1]
	}
	host, port = s, "443"
	if h, p, err := net.SplitHostPort(s); err == nil {
		host, port = h, p
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || len(host) > 253 || strings.ContainsAny(host, "/ @%?#$") {
		return "", "", false
	}
	return host, port, true
}

// here says what a try from this machine means.
const here = "from this machine (lpad may go another way)"

// checkServer goes to a server as far as it lets us. Whether its certificate
// is believed is for lpad to say, which has the authorities; what can be seen
// of it without them is said here.
func (d *doctor) checkServer(ctx context.Context, host, port string) {
	check := "server"
	begin := time.Now()
	looking, cancel := context.WithTimeout(ctx, serverPatient)
	addresses, err := net.DefaultResolver.LookupHost(looking, host)
	cancel()
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		d.wrong(check, "host-unknown", fmt.Sprintf("no server is called %s, %s", host, here), "compare the name with the activation code; look whether this machine has a name server (/etc/resolv.conf)")
		return
	case err != nil:
		d.wrong(check, "dns-unavailable", fmt.Sprintf("no name server says where %s is, %s: %v", host, here, err), "look at the network and at /etc/resolv.conf of this machine")
		return
	}
	found := time.Since(begin)
	at := net.JoinHostPort(host, port)
	begin = time.Now()
	dialer := net.Dialer{Timeout: serverPatient}
	c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(addresses[0], port))
	for _, other := range addresses[1:] {
		if err == nil {
			break
		}
		c, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(other, port))
	}
	var slow net.Error
	switch {
	case err == nil:
	case errors.Is(err, syscall.ECONNREFUSED):
		d.wrong(check, "connection-refused", fmt.Sprintf("%s (%s) refuses the connection, %s", at, strings.Join(addresses, " "), here), "ask the operator whether the server runs; look for a firewall in between")
		return
	case errors.As(err, &slow) && slow.Timeout():
		d.wrong(check, "server-silent", fmt.Sprintf("%s (%s) does not answer in %v, %s", at, strings.Join(addresses, " "), serverPatient, here), "look for a firewall in between that lets TCP port "+port+" not through; then ask the operator")
		return
	default:
		d.wrong(check, "server-unreachable", fmt.Sprintf("%s cannot be reached, %s: %v", at, here, err), "look at this machine's network and its default route")
		return
	}
	defer c.Close()
	connected := time.Since(begin)
	secure := tls.Client(c, &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}) // nothing is sent, and lpad judges
	shaking, cancel := context.WithTimeout(ctx, serverPatient)
	err = secure.HandshakeContext(shaking)
	cancel()
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &record):
		d.wrong(check, "not-tls", fmt.Sprintf("%s answers, but not by TLS, %s", at, here), "something else has this port, or a portal stands in between")
		return
	case err != nil:
		d.wrong(check, "tls-failed", fmt.Sprintf("%s answers, and TLS fails, %s: %v", at, here, err), "look for a proxy or firewall in between that takes TLS apart; then ask the operator")
		return
	}
	leaf := secure.ConnectionState().PeerCertificates[0]
	if d.judge(check, at, host, leaf) {
		d.ok(check, "%s, %s: name in %d ms, TCP in %d ms, TLS with a certificate of %q until %s; whether lpad believes it shows with an order",
			at, here, found.Milliseconds(), connected.Milliseconds(), first(leaf.Issuer.CommonName, "a nameless authority"), leaf.NotAfter.UTC().Format("2006-01-02"))
	}
}

// judge says what can be seen of a certificate without its authority.
func (d *doctor) judge(check, at, host string, leaf *x509.Certificate) bool {
	now := time.Now()
	switch {
	case now.After(leaf.NotAfter):
		d.wrong(check, "certificate-expired", fmt.Sprintf("the certificate of %s has expired on %s by this machine's clock", at, leaf.NotAfter.UTC().Format("2006-01-02")), "compare the clock; if it is right, ask the operator for a new certificate")
	case now.Before(leaf.NotBefore):
		d.wrong(check, "certificate-not-yet-valid", fmt.Sprintf("the certificate of %s is valid from %s on by this machine's clock", at, leaf.NotBefore.UTC().Format("2006-01-02")), "compare the clock: it is probably wrong")
	case leaf.VerifyHostname(host) != nil:
		d.wrong(check, "certificate-wrong-host", fmt.Sprintf("what answers as %s has a certificate for %q", at, strings.Join(leaf.DNSNames, " ")), "a portal or proxy may stand in between; compare the name with the activation code")
	default:
		return true
	}
	return false
}
