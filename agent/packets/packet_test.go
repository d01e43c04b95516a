package packets

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lpad/agent/api"
)

func request(function, body string) api.Packet {
	return requested(api.Packet{Job: "20261122-061500", Number: 2, Function: function, URL: "https://smdp.example.com" + path + function,
		Protocol: "gsma/rsp/v2.2.2", Body: body}, "")
}

func requested(p api.Packet, from string) api.Packet {
	Request(&p, from)
	return p
}

func text(t *testing.T, p api.Packet) []byte {
	t.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	good := request(Authenticate, `{"transactionId":"AA"}`)
	answer := Answer(&good, 200, 0, []byte(`{"header":{}}`))
	note := requested(api.Packet{Number: 7, Function: Notify, URL: "https://a.example" + path + Notify, Body: "{}"}, Notification+"-left")
	for _, p := range []api.Packet{good, answer, note, Answer(&note, 503, 60, nil)} {
		got, err := Parse(text(t, p))
		if err != nil || *got != p {
			t.Errorf("%s: %+v, %v", p.ID, got, err)
		}
	}
	if good.ID != "20261122-061500-2-"+good.Sum[:12] || !strings.HasPrefix(note.ID, "notification-left-7-") || answer.ID != good.ID {
		t.Errorf("ids %s %s %s", good.ID, note.ID, answer.ID)
	}
	spoilt := func(p api.Packet, change func(*api.Packet)) []byte {
		change(&p)
		return text(t, p)
	}
	resigned := func(change func(*api.Packet)) []byte { // by somebody who knows how
		p := good
		change(&p)
		return text(t, requested(p, ""))
	}
	for name, b := range map[string][]byte{
		"empty":               nil,
		"no JSON":             []byte("hello"),
		"two":                 append(text(t, good), text(t, good)...),
		"unknown member":      []byte(strings.Replace(string(text(t, good)), `"job"`, `"jobs"`, 1)),
		"not text":            append(text(t, good), 0xFF),
		"version":             spoilt(good, func(p *api.Packet) { p.Version = 2 }),
		"body damaged":        spoilt(good, func(p *api.Packet) { p.Body += " " }),
		"answer damaged":      spoilt(answer, func(p *api.Packet) { p.Body = "{}" }),
		"answer's status":     spoilt(answer, func(p *api.Packet) { p.Status = 204 }),
		"answer to another":   spoilt(answer, func(p *api.Packet) { p.ID = note.ID }),
		"id leaves":           spoilt(answer, func(p *api.Packet) { p.ID = "../../etc/passwd" }),
		"id of another":       spoilt(good, func(p *api.Packet) { p.ID = note.ID }),
		"other function":      resigned(func(p *api.Packet) { p.Function, p.URL = "evil", "https://smdp.example.com"+path+"evil" }),
		"plain http":          resigned(func(p *api.Packet) { p.URL = strings.Replace(p.URL, "https", "http", 1) }),
		"a port":              resigned(func(p *api.Packet) { p.URL = strings.Replace(p.URL, ".com", ".com:8443", 1) }),
		"a user":              resigned(func(p *api.Packet) { p.URL = strings.Replace(p.URL, "smdp.", "u@smdp.", 1) }),
		"another path":        resigned(func(p *api.Packet) { p.URL = strings.Replace(p.URL, "rsp2", "rsp3", 1) }),
		"a query":             resigned(func(p *api.Packet) { p.URL += "?x" }),
		"function of another": resigned(func(p *api.Packet) { p.Function = Cancel }),
		"negative":            resigned(func(p *api.Packet) { p.Number = -1 }),
		"long request":        resigned(func(p *api.Packet) { p.Body = strings.Repeat("x", api.MaxRequestPacket) }),
		"too long":            bytes.Repeat([]byte(" "), api.MaxPacket+1),
	} {
		if p, err := Parse(b); err == nil {
			t.Errorf("%s: accepted: %+v", name, p)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	p := request(Initiate, "{}")
	for range 2 {
		if err := Write(dir, &p); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(dir, p.ID+".request.json")
	st, err := os.Stat(name)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", st, err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(b); err != nil || *got != p {
		t.Errorf("%+v, %v", got, err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("left behind: %v %v", list, err)
	}
	if err := Write(filepath.Join(dir, "gone"), &p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	ask := request(Package, "{}")
	for _, p := range []api.Packet{ask, Answer(&ask, 200, 3, []byte("{}"))} {
		b, _ := json.Marshal(p)
		f.Add(b)
	}
	f.Add([]byte(`{"lpad_packet":1,"id":"../x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		if name := FileName(p); filepath.Base(name) != name || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") {
			t.Fatalf("name %q", name)
		}
		if p.Status == 0 && Host(p) == "" {
			t.Fatalf("a request to nowhere: %q", p.URL)
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if q, err := Parse(again); err != nil || *q != *p {
			t.Fatalf("%+v, %v", q, err)
		}
	})
}
