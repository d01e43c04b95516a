package runner

import (
	"slices"
	"testing"
	"time"

	"lpad/agent/rsp"
	"lpad/internal/fault"
)

// Those that answered the last time come first, whoever has waited for longer.
func TestGroups(t *testing.T) {
	now := time.Now()
	list := []rsp.Notification{{SeqNumber: 1, Address: "dead.example"}, {SeqNumber: 2, Address: "ill.example"}, {SeqNumber: 3, Address: "Well.Example"},
		{SeqNumber: 4, Address: "dead.example"}, {SeqNumber: 5, Address: "well.example"}}
	q := newQueue()
	q.see("8904", list, now)
	b := Backoff{First: time.Minute}.orDefault()
	for range 3 {
		q.failed("dead.example", fault.New(fault.Fault{Code: "server-silent"}, nil), 0, now, b)
	}
	q.failed("ill.example", fault.New(fault.Fault{Code: "server-unavailable"}, nil), 2*time.Hour, now, b)
	var got []string
	for _, g := range q.groups(list) {
		got = append(got, g.receiver)
	}
	if want := []string{"well.example", "ill.example", "dead.example"}; !slices.Equal(got, want) {
		t.Errorf("groups %v, want %v", got, want)
	}
	if at := q.next(list); !at.IsZero() {
		t.Errorf("the next is due at %v, though one may be tried at once", at)
	}
	if d := q.due("ill.example").Sub(now); d != 2*time.Hour {
		t.Errorf("asked to be left alone: due in %v", d)
	}
	if d := q.due("dead.example").Sub(now); d < 3*time.Minute || d > 5*time.Minute {
		t.Errorf("after three failures: due in %v", d)
	}
	q.see("8904", list[:2], now) // the others are gone
	if len(q.Seen) != 2 || len(q.Receivers) != 2 {
		t.Errorf("%d seen, %d receivers", len(q.Seen), len(q.Receivers))
	}
	q.see("8905", list[:1], time.Unix(0, 0)) // another card, and no clock
	if !q.Seen[1].IsZero() || len(q.Receivers) != 0 {
		t.Errorf("another card: %v", q)
	}
	q.see("8905", list[:1], now)
	if q.Seen[1].IsZero() {
		t.Error("the time that arrived is not noted")
	}
	for seq := range int64(maxDropped + 5) {
		q.drop(Dropped{SeqNumber: seq})
	}
	if len(q.Dropped) != maxDropped || q.Dropped[0].SeqNumber != 5 {
		t.Errorf("%d remembered", len(q.Dropped))
	}
}
