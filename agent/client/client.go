// Package client talks to lpad over its local socket, in Go.
//
//	c := client.New("/run/lpad/lpad.sock")
//	defer c.Close()
//	job, err := c.Install(ctx, api.InstallRequest{ActivationCode: code, Enable: true, Consent: true})
//	job, err = c.Follow(ctx, job.ID, func(j api.Job) { fmt.Println(j.State) })
//
// Every method takes a context; ending it ends the request, never the job. An
// error is an [*api.Problem] whenever the daemon, or the lack of it, can be
// explained. A Client may be used from many goroutines.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lpad/agent/api"
)

// DefaultSocket is where the daemon listens unless it is told otherwise.
const DefaultSocket = "/run/lpad/lpad.sock"

// Limits of what a daemon may answer, in bytes.
const (
	maxAnswer    = 4 << 20
	maxEventLine = 1 << 20
)

// Client is a connection to one daemon.
type Client struct {
	socket string
	card   string
	http   *http.Client
}

// For is a client of one of several cards, by its name or EID; empty: whichever
// the daemon takes a question for. It shares the connections of c.
func (c *Client) For(card string) *Client {
	one := *c
	one.card = card
	return &one
}

// New makes a client for the socket at path; nothing is dialled yet.
func New(socket string) *Client {
	var d net.Dialer
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
		DisableCompression: true,
	}}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status is the one-screen answer.
func (c *Client) Status(ctx context.Context) (v api.Status, err error) {
	return v, c.call(ctx, "GET", "/status", nil, &v)
}

// Cards lists the cards of the device.
func (c *Client) Cards(ctx context.Context) (v api.Cards, err error) {
	return v, c.call(ctx, "GET", "/cards", nil, &v)
}

// Slot is the SIM slot in use, SetSlot switches to another one, which must have an
// eUICC in it.
func (c *Client) Slot(ctx context.Context) (v api.Slot, err error) {
	return v, c.call(ctx, "GET", "/slot", nil, &v)
}

// SetSlot is described with Slot.
func (c *Client) SetSlot(ctx context.Context, slot int) (v api.Slot, err error) {
	return v, c.call(ctx, "PUT", "/slot", api.SlotRequest{Slot: &slot}, &v)
}

// EUICC is what the card says of itself.
func (c *Client) EUICC(ctx context.Context) (v api.EUICC, err error) {
	return v, c.call(ctx, "GET", "/euicc", nil, &v)
}

// Probe finds out what the way to the card can do; that takes seconds.
func (c *Client) Probe(ctx context.Context) (v api.Probe, err error) {
	return v, c.call(ctx, "POST", "/probe", nil, &v)
}

// Trust lists the authorities that are believed.
func (c *Client) Trust(ctx context.Context) (v api.Trust, err error) {
	return v, c.call(ctx, "GET", "/trust", nil, &v)
}

// APDU sends commands to the card by hand.
func (c *Client) APDU(ctx context.Context, r api.APDURequest) (v api.APDUs, err error) {
	return v, c.call(ctx, "POST", "/apdu", r, &v)
}

// Profiles lists the profiles on the card.
func (c *Client) Profiles(ctx context.Context) (v api.Profiles, err error) {
	return v, c.call(ctx, "GET", "/profiles", nil, &v)
}

// Notifications lists what waits on the card to be delivered.
func (c *Client) Notifications(ctx context.Context) (v api.Notifications, err error) {
	return v, c.call(ctx, "GET", "/notifications", nil, &v)
}

// DeliverNotifications tries to deliver now and lists what still waits.
func (c *Client) DeliverNotifications(ctx context.Context) (v api.Notifications, err error) {
	return v, c.call(ctx, "POST", "/notifications/deliver", nil, &v)
}

// ReplayNotification sends one notification now, and fails if it still waits
// afterwards.
func (c *Client) ReplayNotification(ctx context.Context, seq int64) (v api.Notifications, err error) {
	return v, c.call(ctx, "POST", fmt.Sprintf("/notifications/%d/replay", seq), nil, &v)
}

// DropNotification takes one notification off the card without its being
// delivered.
func (c *Client) DropNotification(ctx context.Context, seq int64) (v api.Notifications, err error) {
	return v, c.call(ctx, "DELETE", fmt.Sprintf("/notifications/%d", seq), nil, &v)
}

// Install orders a download.
func (c *Client) Install(ctx context.Context, r api.InstallRequest) (v api.Job, err error) {
	return v, c.call(ctx, "POST", "/install", r, &v)
}

// Order sends a signed order, as it is.
func (c *Client) Order(ctx context.Context, jws []byte) (v api.Job, err error) {
	return v, c.call(ctx, "POST", "/orders", signedOrder(jws), &v)
}

// Enable orders a switch to an installed profile.
func (c *Client) Enable(ctx context.Context, iccid string, r api.EnableRequest) (v api.Job, err error) {
	return v, c.call(ctx, "POST", "/profiles/"+url.PathEscape(iccid)+"/enable", r, &v)
}

// Disable orders the enabled profile to be disabled.
func (c *Client) Disable(ctx context.Context, iccid string) (v api.Job, err error) {
	return v, c.call(ctx, "POST", "/profiles/"+url.PathEscape(iccid)+"/disable", nil, &v)
}

// Delete orders a disabled profile to be deleted for ever.
func (c *Client) Delete(ctx context.Context, iccid string) (v api.Job, err error) {
	return v, c.call(ctx, "DELETE", "/profiles/"+url.PathEscape(iccid), nil, &v)
}

// SetNickname names a profile; an empty name removes it.
func (c *Client) SetNickname(ctx context.Context, iccid, nickname string) (v api.Job, err error) {
	return v, c.call(ctx, "PUT", "/profiles/"+url.PathEscape(iccid)+"/nickname", api.NicknameRequest{Nickname: nickname}, &v)
}

// Effective explains the terminal parameters of a profile; no ICCID: of the
// enabled one.
func (c *Client) Effective(ctx context.Context, iccid string) (v api.Effective, err error) {
	path := "/parameters/effective"
	if iccid != "" {
		path += "?iccid=" + url.QueryEscape(iccid)
	}
	return v, c.call(ctx, "GET", path, nil, &v)
}

// SetParameters gives a profile the document that it is switched to with.
func (c *Client) SetParameters(ctx context.Context, iccid string, document json.RawMessage) (v api.Effective, err error) {
	return v, c.call(ctx, "PUT", "/profiles/"+url.PathEscape(iccid)+"/parameters", document, &v)
}

// ClearParameters takes the document of a profile away.
func (c *Client) ClearParameters(ctx context.Context, iccid string) (v api.Effective, err error) {
	return v, c.call(ctx, "DELETE", "/profiles/"+url.PathEscape(iccid)+"/parameters", nil, &v)
}

// ReplayReport sends the report of a job now, and fails if it still waits then.
func (c *Client) ReplayReport(ctx context.Context, job string) (v api.Notifications, err error) {
	return v, c.call(ctx, "POST", "/reports/"+url.PathEscape(job)+"/replay", nil, &v)
}

// DropReport gives the report of a job up, for ever.
func (c *Client) DropReport(ctx context.Context, job string) (v api.Notifications, err error) {
	return v, c.call(ctx, "DELETE", "/reports/"+url.PathEscape(job), nil, &v)
}

// Packets are the requests that wait to be carried to their servers.
func (c *Client) Packets(ctx context.Context) (v api.Packets, err error) {
	return v, c.call(ctx, "GET", "/packets", nil, &v)
}

// PutPacket hands the answer to one in.
func (c *Client) PutPacket(ctx context.Context, answer *api.Packet) error {
	resp, err := c.send(ctx, "POST", "/packets", answer)
	if err == nil {
		err = resp.Body.Close()
	}
	return err
}

// Relay makes a connection of a relay, for the Carrier of package agent/relay: the
// one that attaches it, or with a number the one that it was asked for. The caller
// closes it.
func (c *Client) Relay(ctx context.Context, connection string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	in := bufio.NewReader(conn)
	query := ""
	if connection != "" {
		query = "?connection=" + url.QueryEscape(connection)
	}
	req, err := http.NewRequest("POST", "http://"+api.Host+api.Prefix+"/relay"+query, nil)
	var resp *http.Response
	if err == nil {
		req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {api.RelayProtocol}}
		if err = req.Write(conn); err == nil {
			resp, err = http.ReadResponse(in, req)
		}
	}
	switch {
	case err != nil:
		err = c.explain(ctx, err)
	case resp.StatusCode != http.StatusSwitchingProtocols:
		err = refusal(resp)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return upgraded{conn, in}, nil
}

// upgraded is a connection of which something was read already.
type upgraded struct {
	net.Conn
	in io.Reader
}

func (c upgraded) Read(p []byte) (int, error) { return c.in.Read(p) }

// Jobs lists jobs, the newest first.
func (c *Client) Jobs(ctx context.Context) (v api.Jobs, err error) {
	return v, c.call(ctx, "GET", "/jobs", nil, &v)
}

// Job returns one job.
func (c *Client) Job(ctx context.Context, id string) (v api.Job, err error) {
	return v, c.call(ctx, "GET", "/jobs/"+url.PathEscape(id), nil, &v)
}

// Answer consents to a job's profile, or refuses it.
func (c *Client) Answer(ctx context.Context, id string, r api.AnswerRequest) (v api.Job, err error) {
	return v, c.call(ctx, "POST", "/jobs/"+url.PathEscape(id)+"/answer", r, &v)
}

// Abort asks a job to stop, which it does while it still can.
func (c *Client) Abort(ctx context.Context, id string) (v api.Job, err error) {
	return v, c.call(ctx, "POST", "/jobs/"+url.PathEscape(id)+"/abort", nil, &v)
}

// Follow calls fn with a job at each of its changes until it has ended, and
// returns it then. It survives a restart of the daemon, and being told to wait,
// for as long as ctx lasts. fn also gets the progress of loading.
func (c *Client) Follow(ctx context.Context, id string, fn func(api.Job)) (api.Job, error) {
	const pause = 500 * time.Millisecond
	lost := 0
	for {
		j, err := c.followOnce(ctx, id, func(j api.Job) {
			lost = 0
			fn(j)
		})
		if err == nil || ctx.Err() != nil {
			return j, err
		}
		var p *api.Problem
		if errors.As(err, &p) && p.Code != api.CodeNotRunning && p.Code != api.CodeStopping && p.Code != api.CodeTooMany {
			return j, err
		}
		if lost++; lost > 240 { // two minutes without a daemon
			return j, err
		}
		select {
		case <-ctx.Done():
			return j, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (c *Client) followOnce(ctx context.Context, id string, fn func(api.Job)) (api.Job, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Watch first, then look: a change in between is seen twice, never missed.
	var last api.Job
	ended := errors.New("ended")
	err := c.Watch(ctx, WatchOptions{Job: id, Latest: true, Started: func() error {
		j, err := c.Job(ctx, id)
		if err != nil {
			return err
		}
		last = j
		fn(j)
		if j.Ended {
			return ended
		}
		return nil
	}}, func(e api.Event) error {
		if e.Job == nil {
			return nil
		}
		last = *e.Job
		fn(last)
		if last.Ended {
			return ended
		}
		return nil
	})
	if errors.Is(err, ended) {
		return last, nil
	}
	if err == nil { // the stream ended: the daemon is stopping
		err = &api.Problem{Code: api.CodeStopping, Title: "the daemon is stopping", Retry: true, Who: "nobody", Next: "the job goes on when it is back"}
	}
	return last, err
}

// WatchOptions choose what [Client.Watch] gets.
type WatchOptions struct {
	After   uint64       // only events after this id
	Latest  bool         // none of the past
	Job     string       // only of this job
	Started func() error // called once when the stream stands; an error ends it
}

// Watch calls fn with each event until ctx ends, fn returns an error (which
// Watch returns), or the daemon stops (nil).
func (c *Client) Watch(ctx context.Context, o WatchOptions, fn func(api.Event) error) error {
	after := strconv.FormatUint(o.After, 10)
	if o.Latest {
		after = strconv.FormatUint(1<<63-1, 10)
	}
	q := url.Values{"after": {after}}
	if o.Job != "" {
		q.Set("job", o.Job)
	}
	resp, err := c.send(ctx, "GET", "/events?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if o.Started != nil {
		if err := o.Started(); err != nil {
			return err
		}
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 4096), maxEventLine)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e api.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("event of the daemon: %w", err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return nil // a broken stream and a closed one mean the same: the daemon went
}

// call sends one request and decodes its answer into out.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("answer of the daemon: %w", err)
	}
	return nil
}

// signedOrder is a body that is sent as it is.
type signedOrder []byte

// send returns the answer to a request if it is a good one.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	kind := "application/json"
	if jws, ok := in.(signedOrder); ok {
		body, kind = bytes.NewReader(jws), api.OrderType
	} else if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+api.Host+api.Prefix+path, body)
	if err != nil {
		return nil, err
	}
	if c.card != "" {
		q := req.URL.Query()
		q.Set("card", c.card)
		req.URL.RawQuery = q.Encode()
	}
	if in != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	return nil, refusal(resp)
}

// refusal is the problem that an answer tells.
func refusal(resp *http.Response) error {
	defer resp.Body.Close()
	p := &api.Problem{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(p); err != nil || p.Code == "" {
		return fmt.Errorf("the daemon answered %s", resp.Status)
	}
	return p
}

// explain says why there is no daemon at the socket.
func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &api.Problem{Code: api.CodeNoPermission, Title: "you may not talk to lpad", Detail: c.socket + ": permission denied", Who: "technician",
			Next: "become a member of the group that owns " + c.socket + " and log in again, or use root"}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &api.Problem{Code: api.CodeNotRunning, Title: "lpad is not running", Detail: "nothing answers at " + c.socket, Retry: true, Who: "technician",
			Next: "start it (systemctl start lpad), or name its socket with --socket"}
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return &api.Problem{Code: api.CodeStopping, Title: "lpad went away in the middle", Detail: err.Error(), Retry: true, Who: "nobody", Next: "look at the jobs, then ask again: an order may have been accepted"}
	}
	return err
}
