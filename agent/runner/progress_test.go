package runner_test

import (
	"context"
	"testing"

	"lpad/agent/job"
)

// TestProgress: while a package is loaded, watchers are told how much of it the
// card has, in segments and in bytes.
func TestProgress(t *testing.T) {
	w := newWorld(t, options{})
	l := w.live()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := l.Watch(ctx, 0)
	id := l.submit(order()).ID
	done, sent, size := 0, 0, 0
	for e := range events {
		if e.Type == "job" && e.Job.Ended() {
			break
		}
		if e.Type != "progress" { // of which a slow watcher misses some
			continue
		}
		if e.Done <= done || e.Bytes <= sent || e.Bytes > e.Size || size != 0 && e.Size != size || (e.Done == e.Total) != (e.Bytes == e.Size) {
			t.Errorf("%d of %d segments, %d of %d bytes after %d and %d", e.Done, e.Total, e.Bytes, e.Size, done, sent)
		}
		done, sent, size = e.Done, e.Bytes, e.Size
	}
	l.ends(id, job.Done)
	if size < 1000 || sent == 0 {
		t.Errorf("%d of %d bytes", sent, size)
	}
}
