package main

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/packets"
	"lpad/agent/rsp/es9p"
	"lpad/internal/fault"
	"lpad/internal/smallfile"
)

// Limits of packets.
const (
	maxPacketFiles = 256               // in a folder
	maxPacketText  = 2 * api.MaxPacket // of standard input, bytes
	nextPacket     = 2 * time.Minute   // for what comes of an answer
)

func (a *app) packetsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "packets",
		Short: "requests that somebody carries to their servers, for a device without any network",
		Long: `Requests that somebody carries to their servers, for a device without any
network, and without a laptop that could lend it a line (see "lpactl relay").

  device:    lpactl install 'LPA:1$…' --offline --yes --detach
             lpactl packets get DIR
  Internet:  lpactl packets carry DIR
  device:    lpactl packets put DIR --get DIR

Three trips make an installation. Each step may be interrupted and done again.
Whoever has the packets sees EID and matching id: treat the stick like the
activation code. Without a further word it lists what waits.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				v, err := c.Packets(ctx)
				if err != nil {
					return err
				}
				if a.json {
					return a.ui.document(v)
				}
				var rows [][]string
				for _, p := range v.Packets {
					rows = append(rows, []string{p.ID, p.Function, packets.Host(&p)})
				}
				if len(rows) == 0 {
					a.ui.note("nothing waits to be carried")
				} else {
					a.ui.table([]string{"PACKET", "FUNCTION", "SERVER"}, rows)
				}
				a.noteLeftOut(v)
				return nil
			})
		},
	}
	cmd.AddCommand(a.packetsGetCommand(), a.packetsCarryCommand(), a.packetsPutCommand())
	return cmd
}

func (a *app) noteLeftOut(v api.Packets) {
	if v.Note != "" {
		a.ui.note("%s", v.Note)
	}
}

func (a *app) packetsGetCommand() *cobra.Command {
	var text bool
	cmd := &cobra.Command{
		Use: "get [DIR]", Short: "write the requests that wait into a folder, or print them as text",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || (len(args) == 1) == text {
				return usageError{errors.New("a folder, or --text, is needed")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				v, err := c.Packets(ctx)
				if err != nil {
					return err
				}
				if text {
					for _, p := range v.Packets {
						if err := writePacketText(a.ui.out, &p); err != nil {
							return err
						}
					}
				} else if err := a.writePackets(args[0], v); err != nil {
					return err
				}
				a.noteLeftOut(v)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&text, "text", false, "print text that can be copied from a terminal")
	return cmd
}

// writePackets writes requests into a folder. Requests of the same jobs that wait
// no longer leave it, or somebody would carry them.
func (a *app) writePackets(dir string, v api.Packets) error {
	waits, jobs := map[string]bool{}, map[string]bool{}
	for _, p := range v.Packets {
		waits[p.ID] = true
		if p.Job != "" {
			jobs[p.Job] = true
		}
	}
	old, err := readPackets(dir, packets.RequestFile)
	if err != nil {
		return err
	}
	for _, f := range old {
		if f.err == nil && jobs[f.packet.Job] && !waits[f.packet.ID] {
			if err := removePacket(f.name); err != nil {
				return err
			}
		}
	}
	for _, p := range v.Packets {
		if err := packets.Write(dir, &p); err != nil {
			return err
		}
		a.ui.printf("%s\n", filepath.Join(dir, packets.FileName(&p)))
	}
	if len(v.Packets) == 0 {
		a.ui.note("nothing waits to be carried")
	}
	return nil
}

// packetFile is a file that should hold a packet.
type packetFile struct {
	name   string
	packet *api.Packet
	err    error
}

// readPackets reads the packets of a folder, by the endings of their names.
func readPackets(dir, ending string) ([]packetFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []packetFile
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ending) && !strings.HasPrefix(e.Name(), ".") {
			if len(files) == maxPacketFiles {
				return nil, fmt.Errorf("%s holds more than %d packets", dir, maxPacketFiles)
			}
			files = append(files, readPacket(filepath.Join(dir, e.Name())))
		}
	}
	return files, nil
}

func readPacket(name string) packetFile {
	f := packetFile{name: name}
	var text []byte
	if text, f.err = smallfile.Read(name, api.MaxPacket); f.err == nil {
		f.packet, f.err = packets.Parse(text)
	}
	return f
}

// removePacket removes a file of a packet, and the other one that belongs to it.
func removePacket(name string) error {
	stem := strings.TrimSuffix(strings.TrimSuffix(name, packets.RequestFile), packets.AnswerFile)
	for _, ending := range []string{packets.RequestFile, packets.AnswerFile} {
		if err := os.Remove(stem + ending); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func damaged(name string, err error) error {
	return &api.Problem{Code: "packet-damaged", Title: name + " is no packet, or it was damaged on its way", Detail: err.Error(), Who: "technician", Next: "copy it once more"}
}

type carrier struct {
	*app
	client es9p.Client
}

func (a *app) packetsCarryCommand() *cobra.Command {
	var trust es9p.TrustConfig
	var timeout time.Duration
	var addresses map[string]string
	cmd := &cobra.Command{
		Use: "carry DIR | -", Short: "on a machine with Internet: take the requests of a folder to their servers, and write the answers beside them",
		Long: `On a machine with Internet: take the requests of a folder to their servers, and
write the answers beside them. lpad need not be there. With "-" the requests are
text on standard input, and the answers are printed.

What is answered already is not asked again. Servers must prove themselves by a
certificate of the GSMA's authorities, or of one in --trust-dir; the card checks
in addition what they have signed.`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := es9p.NewTrust(trust)
			if err != nil {
				return explained(err)
			}
			for _, text := range append(t.Skipped(), t.Warning()) {
				if text != "" {
					a.ui.note("warning: %s", text)
				}
			}
			c := carrier{a, es9p.Client{Trust: t, Addresses: addresses, Timeouts: es9p.TimeoutsFor(timeout)}}
			if args[0] == "-" {
				return c.text(cmd.Context())
			}
			return c.folder(cmd.Context(), args[0])
		},
	}
	cmd.Flags().StringVar(&trust.Dir, "trust-dir", "", "a `folder` of further authorities (*.pem, *.crt) that may vouch for servers")
	cmd.Flags().BoolVar(&trust.AllowTestCI, "allow-test-ci", false, "INSECURE: believe servers of test CIs, whose keys are public")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "for an answer of a server; for a profile package twice as long")
	cmd.Flags().StringToStringVar(&addresses, "address", nil, "where a server is, in a test setup: `name=address:port`")
	return cmd
}

// folder carries what is in a folder.
func (c carrier) folder(ctx context.Context, dir string) error {
	files, err := readPackets(dir, packets.RequestFile)
	if err != nil {
		return err
	}
	var list []*api.Packet
	var errs []error
	for _, f := range files {
		switch {
		case f.err != nil || f.packet.Status != 0:
			errs = append(errs, damaged(f.name, errors.Join(f.err, errors.New("not a request"))))
		default:
			list = append(list, f.packet)
		}
	}
	if len(files) == 0 {
		c.ui.note("there is no request in %s", dir)
	}
	have := func(p *api.Packet) bool {
		f := readPacket(filepath.Join(dir, p.ID+packets.AnswerFile))
		return f.err == nil && f.packet.ID == p.ID && f.packet.Status != 0
	}
	return errors.Join(append(errs, c.carry(ctx, list, have, func(a *api.Packet) error { return packets.Write(dir, a) }))...)
}

// text carries what is on standard input.
func (c carrier) text(ctx context.Context) error {
	b, err := io.ReadAll(io.LimitReader(c.keys.in, maxPacketText))
	if err != nil {
		return err
	}
	list, err := readPacketText(b)
	if err != nil {
		return damaged("standard input", err)
	}
	return c.carry(ctx, list, func(*api.Packet) bool { return false }, func(a *api.Packet) error { return writePacketText(c.ui.out, a) })
}

// carry takes requests to their servers, in the order of their numbers. What a
// server does not answer does not keep others from theirs, but holds later
// requests to it back: it must see them in order.
func (c carrier) carry(ctx context.Context, list []*api.Packet, have func(*api.Packet) bool, write func(*api.Packet) error) error {
	slices.SortStableFunc(list, func(a, b *api.Packet) int { return int(a.Number - b.Number) })
	var first error
	silent := map[string]bool{}
	done := 0
	for _, p := range list {
		host := packets.Host(p)
		switch {
		case have(p):
			c.ui.note("%s: answered before", p.ID)
			done++
			continue
		case silent[strings.ToLower(host)]:
			c.ui.note("%s: held back, since %s has not taken what comes before", p.ID, host)
			continue
		}
		begun := time.Now()
		a, err := c.ask(ctx, host, p)
		if err != nil {
			silent[strings.ToLower(host)] = true
			if first == nil {
				first = err
			}
			c.ui.note("%s: no answer to %s of %s: %v", p.ID, p.Function, host, err)
			continue
		}
		if err := write(&a); err != nil { // whatever else waits: this answer is lost now
			return err
		}
		done++
		c.ui.note("%s: %s has answered %s in %d ms (HTTP %d, %d bytes)", p.ID, host, p.Function, time.Since(begun).Milliseconds(), a.Status, len(a.Body))
	}
	if first == nil && done > 0 {
		c.ui.note("next: on the device, lpactl packets put")
	}
	return first
}

// ask takes one request to its server. A server that only cannot just now has not
// answered.
func (c carrier) ask(ctx context.Context, host string, p *api.Packet) (a api.Packet, err error) {
	one := c.client
	one.Protocol = p.Protocol
	s, err := one.Open(host)
	if err != nil {
		return a, explained(err)
	}
	defer s.Close() // nothing hangs on how it ends
	got, sent, err := s.Forward(ctx, p.Function, []byte(p.Body))
	if err != nil {
		problem := explained(err)
		if sent && (p.Function == packets.Authenticate || p.Function == packets.Package) {
			problem.Next = "carry it again; if the server refuses it then, hand that answer in: the session begins anew, and nothing is used up"
		}
		return a, problem
	}
	busy := got.Status == 408 || got.Status == 425 || got.Status == 429 || got.Status >= 500
	if busy && !bytes.Contains(got.Body, []byte("functionExecutionStatus")) {
		return a, explained(&es9p.HTTPError{Function: p.Function, Status: got.Status, RetryAfter: got.RetryAfter})
	}
	if len(got.Body) > api.MaxPacket*3/4 {
		return a, &api.Problem{Code: api.CodeTooLarge, Title: "the server's answer is too long for a packet", Who: "operator", Next: "use the relay, or a network"}
	}
	return packets.Answer(p, got.Status, int64(got.RetryAfter/time.Second), got.Body), nil
}

// explained makes a problem of an error of package es9p.
func explained(err error) *api.Problem {
	f := fault.Of(err)
	return &api.Problem{Code: f.Code, Title: f.Text, Detail: err.Error(), Retry: f.Retry, Who: string(f.Who), Next: f.Next}
}

func (a *app) packetsPutCommand() *cobra.Command {
	var get string
	var detach bool
	cmd := &cobra.Command{
		Use: "put DIR | FILE... | -", Short: "hand the answers in, and see what the job does with them",
		Long: `Hand the answers in, and see what the job does with them: until it has its next
request, asks something, or has ended. Of a folder all answers are taken, and what
was taken is removed from it. With "-" they are text on standard input.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("a folder, files or - are needed")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			files, folder, err := a.answers(args)
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				last, err := a.put(ctx, c, files, folder)
				if last == nil || detach {
					return err
				}
				return errors.Join(err, a.whatNext(ctx, c, last, get))
			})
		},
	}
	cmd.Flags().StringVar(&get, "get", "", "write what waits then into this `folder`")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait for what comes of it")
	return cmd
}

// answers reads what the command line names. folder reports that it is a folder.
func (a *app) answers(args []string) (files []packetFile, folder bool, err error) {
	if len(args) == 1 && args[0] == "-" {
		b, err := io.ReadAll(io.LimitReader(a.keys.in, maxPacketText))
		if err != nil {
			return nil, false, err
		}
		list, err := readPacketText(b)
		if err != nil {
			return nil, false, damaged("standard input", err)
		}
		for _, p := range list {
			files = append(files, packetFile{name: p.ID, packet: p})
		}
		return files, false, nil
	}
	if st, serr := os.Stat(args[0]); len(args) == 1 && serr == nil && st.IsDir() {
		if files, err = readPackets(args[0], packets.AnswerFile); err == nil && len(files) == 0 {
			err = &api.Problem{Code: api.CodeNotFound, Title: "there is no answer in " + args[0], Who: "technician", Next: "carry the requests first: lpactl packets carry"}
		}
		return files, true, err
	}
	for _, name := range args {
		files = append(files, readPacket(name))
	}
	return files, false, nil
}

// put hands answers in. It returns the last one of a job that was taken, and the
// first thing that went wrong.
func (a *app) put(ctx context.Context, c *client.Client, files []packetFile, folder bool) (last *api.Packet, first error) {
	slices.SortStableFunc(files, func(a, b packetFile) int {
		if a.packet == nil || b.packet == nil {
			return 0
		}
		return int(a.packet.Number - b.packet.Number)
	})
	for _, f := range files {
		err := f.err
		if err != nil {
			err = damaged(f.name, err)
		} else if err = c.PutPacket(ctx, f.packet); err == nil {
			a.ui.note("%s: taken", f.packet.ID)
			if f.packet.Job != "" && f.packet.Function != packets.Cancel {
				last = f.packet
			}
		}
		var p *api.Problem
		superseded := errors.As(err, &p) && p.Code == api.CodePacketSuperseded
		if folder && (err == nil || superseded) {
			if rerr := removePacket(f.name); rerr != nil {
				a.ui.note("%s: not removed: %v", f.name, rerr)
			}
		}
		if err != nil {
			a.ui.note("%s: %v", f.name, err)
			if first == nil {
				first = err
			}
		}
	}
	return last, first
}

// whatNext waits until the job of an answer has its next request, asks something
// or has ended, and writes what waits then.
func (a *app) whatNext(ctx context.Context, c *client.Client, taken *api.Packet, dir string) error {
	watch, stop := context.WithTimeout(ctx, nextPacket)
	defer stop()
	var last api.Job
	_, err := c.Follow(watch, taken.Job, func(j api.Job) {
		last = j
		if j.State == "consent" || j.Ended || j.Packet != nil && j.Packet.ID != taken.ID {
			stop()
		}
	})
	if ctx.Err() != nil || watch.Err() == nil && err != nil {
		return err
	}
	switch {
	case last.Ended:
		if err := a.ended(last); err != nil {
			return err
		}
	case last.State == "consent":
		a.ui.note("offered: %s, ICCID %s", profileName(last.Profile), last.ICCID)
		a.ui.note("next: answer it: lpactl jobs answer %s", last.ID)
		return nil
	case last.Packet != nil:
		a.notePacket(last)
	default:
		a.ui.note("the job %s goes on: %s", last.ID, last.State)
	}
	if dir == "" {
		return nil
	}
	v, err := c.Packets(ctx)
	if err != nil {
		return err
	}
	a.noteLeftOut(v)
	return a.writePackets(dir, v)
}

// notePacket says what a job waits for.
func (a *app) notePacket(j api.Job) {
	p := j.Packet
	a.ui.note("packet %d of about %d waits to be carried to %s (%s): lpactl packets get DIR", p.Number, p.Of, first(j.SMDP, "its server"), p.Function)
	if p.Note != "" {
		a.ui.note("  the session was begun anew: %s", p.Note)
	}
}

// The text form of a packet: compressed, in lines, between two lines that say
// what it is.
const (
	packetBegin = "-----BEGIN LPAD PACKET-----"
	packetEnd   = "-----END LPAD PACKET-----"
	packetLine  = 64
)

func writePacketText(w io.Writer, p *api.Packet) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	z, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		return err
	}
	_, err = z.Write(b)
	if err = errors.Join(err, z.Close()); err != nil {
		return err
	}
	text := base64.StdEncoding.EncodeToString(packed.Bytes())
	lines := []string{packetBegin}
	for ; len(text) > packetLine; text = text[packetLine:] {
		lines = append(lines, text[:packetLine])
	}
	_, err = io.WriteString(w, strings.Join(append(lines, text, packetEnd), "\n")+"\n")
	return err
}

// readPacketText reads the packets of a text. What stands around them, and white
// space that a terminal adds, does not matter. A packet may also be there as it is
// in a file.
func readPacketText(b []byte) ([]*api.Packet, error) {
	text := string(b)
	var list []*api.Packet
	for {
		_, after, found := strings.Cut(text, packetBegin)
		if !found {
			break
		}
		packed, rest, whole := strings.Cut(after, packetEnd)
		if !whole {
			return nil, errors.New("a packet has no end")
		}
		text = rest
		if len(list) == maxPacketFiles {
			return nil, fmt.Errorf("more than %d packets", maxPacketFiles)
		}
		p, err := unpackPacket(strings.Join(strings.Fields(packed), ""))
		if err != nil {
			return nil, fmt.Errorf("packet %s: %w", strconv.Itoa(len(list)+1), err)
		}
		list = append(list, p)
	}
	if len(list) > 0 {
		return list, nil
	}
	p, err := packets.Parse(bytes.TrimSpace(b))
	if err != nil {
		return nil, err
	}
	return []*api.Packet{p}, nil
}

func unpackPacket(text string) (*api.Packet, error) {
	packed, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), api.MaxPacket+1))
	if err != nil {
		return nil, err
	}
	return packets.Parse(b)
}
