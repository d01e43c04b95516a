package procedure_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"lpad/agent/procedure"
	"lpad/agent/rsp"
	"lpad/agent/rsp/es10"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/agent/rsp/rsptest/smdp"
)

// postbox is a card with notifications, and their receivers.
type postbox struct {
	waiting  []rsp.PendingNotification
	dead     string // this receiver takes nothing
	closed   string // this one cannot be opened
	stuck    int64  // this one cannot be removed
	odd      int64  // this one cannot be read
	sent     []string
	removed  []int64
	sessions int
}

func (p *postbox) ListNotification(context.Context, rsp.Event) ([]rsp.Notification, error) {
	var list []rsp.Notification
	for _, n := range p.waiting {
		list = append(list, n.Notification)
	}
	return list, nil
}

func (p *postbox) RetrieveNotificationsList(_ context.Context, s rsp.NotificationSearch) ([]rsp.PendingNotification, error) {
	if *s.SeqNumber == p.odd {
		return nil, es10.ErrAnswer
	}
	return p.waiting, nil // a card that ignores the search
}

func (p *postbox) RemoveNotificationFromList(_ context.Context, n int64) error {
	if n == p.stuck {
		return errors.New("card is gone")
	}
	p.removed = append(p.removed, n)
	return nil
}

func (p *postbox) open(address string) (procedure.Server, error) {
	if address == p.closed {
		return nil, errors.New("no such server")
	}
	p.sessions++
	return receiver{p: p, address: address}, nil
}

type receiver struct {
	procedure.Server
	p       *postbox
	address string
}

func (r receiver) HandleNotification(_ context.Context, raw []byte) error {
	if r.address == r.p.dead {
		return errors.New("no answer")
	}
	r.p.sent = append(r.p.sent, fmt.Sprintf("%s:%s", r.address, raw))
	return nil
}

func (r receiver) Close() error { r.p.sessions--; return nil }

func note(n int64, address string) rsp.PendingNotification {
	return rsp.PendingNotification{Notification: rsp.Notification{SeqNumber: n, Address: address}, Raw: fmt.Append(nil, n)}
}

// deliverAll delivers everything that waits on a card. The error is about
// reading it from the card.
func deliverAll(ctx context.Context, card procedure.NotificationCard, open procedure.Opener) ([]procedure.Delivery, error) {
	list, err := procedure.ListNotifications(ctx, card)
	if err != nil {
		return nil, err
	}
	pending, err := procedure.RetrieveNotifications(ctx, card, list)
	return procedure.Deliver(ctx, card, open, pending), err
}

func TestDeliverOrder(t *testing.T) {
	p := &postbox{dead: "b.example.com", closed: "d.example.com", stuck: 9, waiting: []rsp.PendingNotification{
		note(7, "a.example.com"), note(3, "A.Example.com"), note(128, "a.exam ple.com"), note(4, "b.example.com"), note(5, "b.example.com"),
		note(1, "d.example.com"), note(2, "d.example.com"), note(9, "c.example.com"), note(10, "c.example.com"), note(7, "a.example.com"),
	}}
	var got []string
	for _, d := range procedure.Deliver(t.Context(), p, p.open, p.waiting) {
		got = append(got, fmt.Sprintf("%d %s acknowledged=%v err=%v", d.SeqNumber, d.Receiver(), d.Acknowledged, d.Err))
	}
	want := `3 a.example.com acknowledged=true err=<nil>
7 a.example.com acknowledged=true err=<nil>
128 a.example.com acknowledged=true err=<nil>
4 b.example.com acknowledged=false err=notification 4 to b.example.com: no answer
5 b.example.com acknowledged=false err=held back: an earlier notification to this receiver waits
9 c.example.com acknowledged=true err=card is gone
10 c.example.com acknowledged=true err=<nil>
1 d.example.com acknowledged=false err=no such server
2 d.example.com acknowledged=false err=held back: an earlier notification to this receiver waits`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	if s := fmt.Sprint(p.sent, p.removed, p.sessions); s != "[a.example.com:3 a.example.com:7 a.example.com:128 c.example.com:9 c.example.com:10] [3 7 128 10] 0" {
		t.Errorf("sent, removed, open sessions: %s", s)
	}
}

// What cannot be read holds back what comes after it for the same receiver,
// and nothing else.
func TestUnreadHoldsBack(t *testing.T) {
	p := &postbox{odd: 3, waiting: []rsp.PendingNotification{
		note(1, "a.example.com"), note(2, "b.example.com"), note(3, "a.example.com"), note(4, "A.example.com"), note(5, "b.example.com")}}
	deliveries, err := deliverAll(t.Context(), p, p.open)
	if !errors.Is(err, es10.ErrAnswer) {
		t.Errorf("error %v", err)
	}
	if s := fmt.Sprint(p.sent, p.removed); s != "[a.example.com:1 b.example.com:2 b.example.com:5] [1 2 5]" || len(deliveries) != 3 {
		t.Errorf("%d deliveries; sent and removed: %s", len(deliveries), s)
	}
}

func TestDeliverEnds(t *testing.T) {
	p := &postbox{waiting: []rsp.PendingNotification{note(1, "a.example.com"), note(2, "b.example.com")}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, d := range procedure.Deliver(ctx, p, p.open, p.waiting) {
		if !errors.Is(d.Err, context.Canceled) || d.Acknowledged {
			t.Errorf("delivery %+v", d)
		}
	}
	if _, err := deliverAll(ctx, p, p.open); !errors.Is(err, context.Canceled) {
		t.Errorf("reading with a cancelled context: %v", err)
	}
	p.odd = 1
	d, err := deliverAll(t.Context(), p, p.open)
	if !errors.Is(err, es10.ErrAnswer) || len(d) != 1 || d[0].SeqNumber != 2 || !d[0].Acknowledged {
		t.Errorf("one that cannot be read: %+v, %v", d, err)
	}
	if d := procedure.Deliver(t.Context(), p, p.open, nil); len(d) != 0 {
		t.Errorf("nothing to deliver: %+v", d)
	}
}

// Real card, real server: delivered in order, once, verified there, gone here.
func TestDeliverAll(t *testing.T) {
	id := iccid(t, "8900099999999999995")
	b := newBench(t, setup{card: func(c *euicc.Config) {
		c.FirstSequence = 127
		c.Profiles = []euicc.Profile{{ICCID: id, Notifications: []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: smdpHost}}}}
	}})
	for _, step := range []func() error{
		func() error { return procedure.Enable(b.ctx, b.euicc, id, es10.NoRefresh) },
		func() error { return procedure.Disable(b.ctx, b.euicc, id, es10.NoRefresh) },
		func() error { return procedure.Delete(b.ctx, b.euicc, id) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	list, err := procedure.ListNotifications(b.ctx, b.euicc)
	if err != nil || len(list) != 3 {
		t.Fatalf("list %+v, %v", list, err)
	}
	b.smdp.Inject(smdp.Fault{Kind: smdp.HTTPError, HTTP: 503, Function: smdp.HandleNotification, Skip: 1, Times: 1})
	d, err := deliverAll(b.ctx, b.euicc, b.open)
	if err != nil || len(d) != 3 || !d[0].Acknowledged || d[1].Acknowledged || !errors.Is(d[2].Err, procedure.ErrHeldBack) {
		t.Fatalf("first try: %+v, %v", d, err)
	}
	if d, err = deliverAll(b.ctx, b.euicc, b.open); err != nil || len(d) != 2 {
		t.Fatalf("second try: %+v, %v", d, err)
	}
	var events []string
	for _, n := range b.smdp.Notifications() {
		if !n.Verified || n.Duplicate {
			t.Errorf("notification %+v", n)
		}
		events = append(events, fmt.Sprint(n.SeqNumber, " ", n.EventName))
	}
	if got := fmt.Sprint(events); got != "[127 enable 128 disable 129 delete]" {
		t.Errorf("arrived: %s", got)
	}
	if n := len(b.card.Notifications()); n != 0 {
		t.Errorf("%d are left on the card", n)
	}
}
