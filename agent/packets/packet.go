// Package packets lets a device without any network talk to eSIM servers by
// files. Each request of an RSP session becomes a packet, which somebody carries
// to a machine with Internet; the server's answer comes back as a packet, and the
// session goes on. The form of a packet is [lpad/agent/api.Packet], its fields and
// its life are described in docs/packets.md.
//
// The daemon has a [Box], which is the transport of its sessions and waits:
//
//	box, err := packets.Open(dir, packets.Options{Limit: 72 * time.Hour, …})
//	client := &es9p.Client{Transport: box.To("smdp.example.com")}
//	…                            // a call waits until somebody calls box.Put
//	err = box.Put(answer)
//
// Whoever carries uses [Parse], [Answer] and [Write]. What is parsed may come from
// anybody: it is bounded, strict, and its sum is verified, so that a packet that
// was damaged on its way costs nothing.
package packets

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"lpad/agent/api"
)

// The functions of ES9+ that a packet may hold (SGP.22 v2.5, section 5.6).
const (
	Initiate     = "initiateAuthentication"
	Authenticate = "authenticateClient"
	Package      = "getBoundProfilePackage"
	Notify       = "handleNotification"
	Cancel       = "cancelSession"
)

const (
	path    = "/gsma/rsp2/es9plus/"
	idSum   = 12 // digits of the sum in an id
	maxID   = 96
	maxText = 300 // bytes of a URL or header
)

// Notification is where the id of a notification's packet begins.
const Notification = "notification"

// sum is over everything that a packet says, each part with its length.
func sum(p *api.Packet) string {
	h := sha256.New()
	for _, s := range []string{p.Job, strconv.FormatInt(p.Number, 10), p.Function, p.URL, p.Protocol,
		strconv.Itoa(p.Status), strconv.FormatInt(p.RetryAfter, 10), p.Body} {
		h.Write([]byte(strconv.Itoa(len(s)) + ":" + s))
	}
	if p.Status != 0 { // an answer to another request is another answer
		h.Write([]byte(p.ID))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Request completes a request: version, id and sum. The id begins with the job,
// or with from where there is none.
func Request(p *api.Packet, from string) {
	p.Version, p.Status, p.RetryAfter = api.PacketVersion, 0, 0
	p.Sum = sum(p)
	if p.Job != "" {
		from = p.Job
	}
	p.ID = from + ending(p)
}

// ending is how the id of a request ends.
func ending(p *api.Packet) string { return "-" + strconv.FormatInt(p.Number, 10) + "-" + p.Sum[:idSum] }

// Answer makes the answer to a request.
func Answer(request *api.Packet, status int, retryAfter int64, body []byte) api.Packet {
	p := api.Packet{Version: api.PacketVersion, ID: request.ID, Job: request.Job, Number: request.Number, Function: request.Function,
		Status: status, RetryAfter: retryAfter, Body: strings.ToValidUTF8(string(body), "\uFFFD")}
	p.Sum = sum(&p)
	return p
}

// Parse reads one packet and refuses whatever is not one: of another version, with
// members that are unknown, damaged, or for another place than a function of an
// eSIM server.
func Parse(b []byte) (*api.Packet, error) {
	p := &api.Packet{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(p)
	if _, more := d.Token(); err != nil || more != io.EOF || len(b) > api.MaxPacket || !utf8.Valid(b) {
		return nil, errors.Join(errNotPacket, err)
	}
	return p, Check(p, len(b))
}

var (
	errNotPacket = errors.New("it is not a packet of version " + strconv.Itoa(api.PacketVersion))
	errDamaged   = errors.New("it was damaged on its way: its sum is wrong")
)

// Check is what [Parse] checks of a packet that is decoded; size is how long its
// text is, in bytes.
func Check(p *api.Packet, size int) error {
	from := p.Job
	if from == "" {
		from = Notification
	}
	switch {
	case p.Version != api.PacketVersion, !validID(p.ID), p.Number < 0, !known(p.Function):
	case p.Sum != sum(p):
		return errDamaged
	case p.Status != 0 && p.Status >= 200 && p.Status <= 599 && p.RetryAfter >= 0 && p.URL+p.Protocol == "":
		return nil
	case p.Status == 0 && size <= api.MaxRequestPacket && Host(p) != "" && len(p.URL+p.Protocol) <= maxText &&
		strings.HasPrefix(p.ID, from) && strings.HasSuffix(p.ID, ending(p)):
		return nil
	}
	return errNotPacket
}

// Host is the server that a request goes to, empty if its address is not exactly
// that of the function. Whether it is the name of a server is not judged here.
func Host(p *api.Packet) string {
	host, https := strings.CutPrefix(p.URL, "https://")
	host, whole := strings.CutSuffix(host, path+p.Function)
	if !https || !whole || strings.Trim(host, nameDigits+".") != "" {
		return ""
	}
	return host
}

const nameDigits = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"

// validID keeps ids fit for names of files.
func validID(id string) bool {
	return id != "" && len(id) <= maxID && id[0] != '-' && strings.Trim(id, nameDigits+"_") == ""
}

func known(function string) bool {
	switch function {
	case Initiate, Authenticate, Package, Notify, Cancel:
		return true
	}
	return false
}

// The endings of files.
const (
	RequestFile = ".request.json"
	AnswerFile  = ".answer.json"
)

// FileName is the name of the file that a packet lies in.
func FileName(p *api.Packet) string {
	if p.Status != 0 {
		return p.ID + AnswerFile
	}
	return p.ID + RequestFile
}

// Write puts a packet into a folder, for its owner alone. The file is there whole
// or not at all, also after a power cut.
func Write(dir string, p *api.Packet) error {
	b, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".packet-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, FileName(p)))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrInvalid) { // a stick's file system may know no such thing
		return err
	}
	return nil
}
