package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"lpad/agent/api"
	"lpad/agent/packets"
	"lpad/agent/rsp/rsptest/pki"
)

func request(number int64, job, function, body string) api.Packet {
	p := api.Packet{Job: job, Number: number, Function: function, URL: "https://smdp.example.com/gsma/rsp2/es9plus/" + function, Protocol: "gsma/rsp/v2.2.2", Body: body}
	packets.Request(&p, packets.Notification)
	return p
}

func TestPacketText(t *testing.T) {
	one, two := request(1, "J1", packets.Initiate, strings.Repeat(`{"a":"bc"}`, 200)), request(7, "", packets.Notify, "{}")
	answer := packets.Answer(&one, 200, 0, []byte("yes"))
	var text bytes.Buffer
	for _, p := range []api.Packet{one, two, answer} {
		if err := writePacketText(&text, &p); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(text.String()) {
		if len(line) > packetLine+1 {
			t.Errorf("a long line: %s", line)
		}
	}
	// As a terminal gives it back: with a prompt, other ends of lines, blanks.
	pasted := "# lpactl packets get --text\r\n" + strings.ReplaceAll(text.String(), "\n", "  \r\n") + "# "
	list, err := readPacketText([]byte(pasted))
	if err != nil || len(list) != 3 || *list[0] != one || *list[1] != two || *list[2] != answer {
		t.Fatalf("%+v, %v", list, err)
	}
	for name, spoilt := range map[string]string{
		"empty": "", "no end": packetBegin + "\nAAAA", "no base64": packetBegin + "!" + packetEnd, "not packed": packetBegin + "AAAA" + packetEnd,
		"a letter": strings.Replace(text.String(), "\n", "\nA", 1), "a line is missing": text.String()[:len(packetBegin)] + text.String()[len(packetBegin)+1+packetLine:],
	} {
		if list, err := readPacketText([]byte(spoilt)); err == nil {
			t.Errorf("%s: %+v", name, list)
		}
	}
}

func FuzzPacketText(f *testing.F) {
	p := request(1, "J1", packets.Initiate, "{}")
	var text bytes.Buffer
	if err := writePacketText(&text, &p); err != nil {
		f.Fatal(err)
	}
	f.Add(text.Bytes())
	f.Add([]byte(packetBegin + packetBegin + packetEnd))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := readPacketText(b)
		if err != nil {
			return
		}
		for _, p := range list {
			if err := packets.Check(p, 0); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// server is one that answers requests, and remembers them.
type packetServer struct {
	mu     sync.Mutex
	asked  []string
	answer func(w http.ResponseWriter, function, body string)
	addr   string
	trust  string
}

func servePackets(t *testing.T) *packetServer {
	t.Helper()
	p, err := pki.New(pki.Options{SMDPHost: "smdp.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	s := &packetServer{trust: t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.trust, "ci.pem"), p.CI.Certificate.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		function := filepath.Base(r.URL.Path)
		s.mu.Lock()
		s.asked = append(s.asked, function+" "+string(body))
		s.mu.Unlock()
		s.answer(w, function, string(body))
	})}
	certificate, err := p.DPTLS.TLSCertificate()
	if err != nil {
		t.Fatal(err)
	}
	srv.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what is tested
	done := make(chan error, 1)
	go func() {
		done <- srv.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}}))
	}()
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-done
	})
	return s
}

func (s *packetServer) took() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := strings.Join(s.asked, ", ")
	s.asked = nil
	return list
}

func (s *packetServer) carry(args ...string) (int, string, string) {
	var out, errs bytes.Buffer
	code := run(context.Background(), append([]string{"packets", "carry", "--trust-dir", s.trust, "--address", "smdp.example.com=" + s.addr}, args...), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// Requests are carried in their order, once; what is not answered is asked for
// again, and holds back what comes later to that server.
func TestCarry(t *testing.T) {
	s := servePackets(t)
	dir := t.TempDir()
	list := []api.Packet{request(10, "", packets.Notify, "ten"), request(9, "", packets.Notify, "nine"), request(11, "", packets.Notify, "eleven")}
	for _, p := range list {
		if err := packets.Write(dir, &p); err != nil {
			t.Fatal(err)
		}
	}
	down := true
	s.answer = func(w http.ResponseWriter, _, body string) {
		if down && body == "ten" {
			w.WriteHeader(503)
			return
		}
		w.WriteHeader(204)
	}
	code, _, errs := s.carry(dir)
	if got := s.took(); code != 17 || got != "handleNotification nine, handleNotification ten" || !strings.Contains(errs, "held back") {
		t.Errorf("exit %d, asked %s\n%s", code, got, errs)
	}
	down = false
	code, _, errs = s.carry(dir)
	if got := s.took(); code != 0 || got != "handleNotification ten, handleNotification eleven" {
		t.Errorf("exit %d, asked %s\n%s", code, got, errs)
	}
	code, _, errs = s.carry(dir)
	if got := s.took(); code != 0 || got != "" || strings.Count(errs, "answered before") != 3 {
		t.Errorf("exit %d, asked %s\n%s", code, got, errs)
	}
	// An answer that did not come over whole counts for nothing.
	if err := os.WriteFile(filepath.Join(dir, list[0].ID+packets.AnswerFile), []byte(`{"lpad_pa`), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs = s.carry(dir); code != 0 || s.took() != "handleNotification ten" {
		t.Errorf("exit %d\n%s", code, errs)
	}
	if f := readPacket(filepath.Join(dir, list[0].ID+packets.AnswerFile)); f.err != nil || f.packet.Status != 204 {
		t.Errorf("%+v", f)
	}
	// A request that was damaged is not sent.
	b, err := os.ReadFile(filepath.Join(dir, packets.FileName(&list[0])))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"+packets.RequestFile), bytes.Replace(b, []byte("ten"), []byte("tin"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs = s.carry(dir); code == 0 || s.took() != "" || !strings.Contains(errs, "packet-damaged") {
		t.Errorf("exit %d\n%s", code, errs)
	}
}

// Who carries believes nobody but the authorities that he is told.
func TestCarryTrust(t *testing.T) {
	s := servePackets(t)
	s.answer = func(w http.ResponseWriter, _, _ string) { w.WriteHeader(204) }
	dir := t.TempDir()
	p := request(1, "J1", packets.Cancel, "{}")
	if err := packets.Write(dir, &p); err != nil {
		t.Fatal(err)
	}
	good := s.trust
	s.trust = t.TempDir()
	if code, _, errs := s.carry(dir); code != 13 || s.took() != "" {
		t.Errorf("exit %d\n%s", code, errs)
	}
	s.trust = good
	if code, _, errs := s.carry(dir); code != 0 || s.took() == "" {
		t.Errorf("exit %d\n%s", code, errs)
	}
	if code, _, errs := s.carry(dir, "--allow-test-ci"); code != 0 || !strings.Contains(errs, "INSECURE") {
		t.Errorf("exit %d\n%s", code, errs)
	}
}
