package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// The load on the socket, and what may come of it.
const (
	loadFair    = 134
	loadStreams = 16
	loadBad     = 50
	loadFor     = time.Minute
	loadQuiet   = 11 * time.Second // of the same work before and after it

	loadGroup = 100 // "users", which every Debian has

	loadRatioBound       = 1.1
	loadAnswerBound      = 0.5 // seconds
	loadDelayBound       = 1   // ms more between an answer of the card and the next command, half of the times
	loadRSSBound         = 24  // MB: 20 of a download, and 64 kB for each connection
	loadDescriptorsBound = 128 // 64 connections and what lpad has open by itself, with room
	loadGoroutinesBound  = 320 // four for each connection, and lpad's own
)

// loadTiming is the card under load: 30 ms for each APDU, which is still quick for
// one behind a modem.
var loadTiming = euicc.Timing{PerAPDU: 30 * time.Millisecond, PerByte: 87 * time.Microsecond, Clock: euicc.RealTime{}}

// crowdCommand is the load as a program of its own, which [figures.load] runs
// with a priority that takes nothing from who is measured.
func crowdCommand() *cobra.Command {
	c := lab.Crowd{Fair: loadFair, Streams: loadStreams, Bad: loadBad, Reader: loadGroup}
	var last time.Duration
	cmd := &cobra.Command{Use: "crowd SOCKET", Short: "many clients of lpad's socket at once, some of them bad", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.Socket = args[0]
			ctx, cancel := context.WithTimeout(cmd.Context(), last)
			defer cancel()
			return json.NewEncoder(os.Stdout).Encode(c.Run(ctx))
		}}
	cmd.Flags().DurationVar(&last, "for", loadFor, "how long")
	cmd.Flags().IntVar(&c.Fair, "fair", c.Fair, "clients that ask and go")
	cmd.Flags().IntVar(&c.Streams, "streams", c.Streams, "watchers of events")
	cmd.Flags().IntVar(&c.Bad, "bad", c.Bad, "slow and malformed clients")
	cmd.Flags().Uint32Var(&c.Reader, "group", c.Reader, "`id` of the group that may look")
	return cmd
}

// timedCard notes what passes between the end of one command and the beginning
// of the next one: what the modem, the line and lpad need.
type timedCard struct {
	modemtest.Card
	mu    sync.Mutex
	ended time.Time
	gaps  []time.Duration
}

func (c *timedCard) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	begun := time.Now()
	c.mu.Lock()
	if !c.ended.IsZero() {
		c.gaps = append(c.gaps, begun.Sub(c.ended))
	}
	c.mu.Unlock()
	answer, err := c.Card.Transmit(ctx, command)
	c.mu.Lock()
	c.ended = time.Now()
	c.mu.Unlock()
	return answer, err
}

// take gives the gaps since it was called last.
func (c *timedCard) take() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	gaps := c.gaps
	c.gaps, c.ended = nil, time.Time{}
	return gaps
}

// load measures what many clients of the socket, a quarter of them slow or
// malformed, do to a device that works. The work is the same with and without
// them: a profile is installed and deleted again and again, on a card of fixed
// slowness. The crowd is another process with the lowest priority, so that its own
// need of the processors is not measured, but what lpad does for it is.
func (f *figures) load(ctx context.Context) (err error) {
	w, err := lab.New(lab.Options{Timing: loadTiming, ProfileSize: benchSize})
	if err != nil {
		return err
	}
	defer w.Close()
	card := &timedCard{Card: w.Card}
	m, err := w.StartModemWith(ctx, lab.ModemOptions{Config: "log: {level: info}\napi: {read: users}\n", Modem: func(c *modemtest.Config) { c.Card = card }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := errors.Join(os.Chmod(m.Dir, 0o755), os.Chmod(m.Socket, 0o666)); err != nil { // strangers may come as far as being refused
		return err
	}
	l := &loaded{world: w, modem: m, client: m.Client()}
	defer l.client.Close()
	if _, err := l.work(ctx, 0); err != nil { // the first one learns
		return err
	}
	pid := m.PID()
	card.take()
	quiet, err := l.work(ctx, loadQuiet)
	if err != nil {
		return err
	}
	gapsQuiet := card.take()
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "clear_refs"), []byte("5"), 0); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var crowd lab.CrowdResult
	var out []byte
	var crowdErr error
	busy, cancel := context.WithTimeout(ctx, loadFor+20*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		out, crowdErr = exec.CommandContext(busy, "nice", "-n", "19", self, "crowd", m.Socket).Output()
	}()
	var peak figuresOf
	var watching sync.WaitGroup
	watching.Go(func() { peak = l.watch(ctx, pid, done) })
	card.take()
	during, err := l.work(ctx, loadFor-2*time.Second)
	gaps := card.take()
	<-done
	watching.Wait()
	if err := errors.Join(err, crowdErr); err != nil {
		return fmt.Errorf("under load: %w\n%s", err, m.Log())
	}
	if err := json.Unmarshal(out, &crowd); err != nil {
		return err
	}
	if peak.rss, err = memory(pid, "VmHWM"); err != nil {
		return err
	}
	after, err := l.work(ctx, loadQuiet)
	if err != nil {
		return err
	}
	quiet, gapsQuiet = append(quiet, after...), append(gapsQuiet, card.take()...)
	if len(l.answers) == 0 || len(gaps) == 0 || len(gapsQuiet) == 0 || crowd.Asked == 0 || crowd.Events < loadStreams || len(crowd.Bad) != len(lab.BadClients) {
		return fmt.Errorf("there was no load, or no work: %+v", crowd)
	}
	crashes := 0
	if m.PID() != pid || strings.Contains(m.Log(), "panic") || strings.Contains(m.Log(), "fatal error") {
		crashes++
	}
	f.add("load-job-time", halfOf(during)/halfOf(quiet), "ratio", loadRatioBound)
	f.add("load-command-delay", 1000*max(0, halfOf(gaps)-halfOf(gapsQuiet)), "ms", loadDelayBound)
	slices.Sort(l.answers)
	f.add("load-answer-p99", l.answers[len(l.answers)*99/100].Seconds(), "s", loadAnswerBound)
	f.add("load-unanswered", float64(crowd.Asked-crowd.Answered+l.unanswered), "questions", 0)
	f.add("load-streams-broken", math.Abs(float64(crowd.Opened-loadStreams)), "streams", 0)
	f.add("load-misuse-answered", float64(crowd.Believed), "requests", 0)
	f.add("load-rss-peak", peak.rss, "MB", loadRSSBound)
	f.add("load-descriptors", float64(peak.descriptors), "descriptors", loadDescriptorsBound)
	f.add("load-goroutines", float64(peak.goroutines), "goroutines", loadGoroutinesBound)
	f.add("load-crashes", float64(crashes), "crashes", 0)
	return nil
}

// halfOf is the time that half of them do not need, in seconds.
func halfOf(d []time.Duration) float64 {
	slices.Sort(d)
	return d[len(d)/2].Seconds()
}

// loaded is a device under load.
type loaded struct {
	world  *lab.World
	modem  *lab.Modem
	client *client.Client
	orders int

	answers    []time.Duration // to questions of one who is in no hurry, during the load
	unanswered int
}

// work installs the profile and deletes it again for so long, once at least, and
// returns how long each installation took.
func (l *loaded) work(ctx context.Context, d time.Duration) (took []time.Duration, err error) {
	for until := time.Now().Add(d); len(took) == 0 || time.Now().Before(until); {
		l.orders++
		order := l.world.Order
		order.MatchingID = fmt.Sprintf("LOAD-%04d", l.orders)
		if err := l.world.SMDP.AddOrder(order); err != nil {
			return nil, err
		}
		j, err := l.client.Install(ctx, api.InstallRequest{ActivationCode: l.world.SMDP.ActivationCode(order.MatchingID), Consent: true})
		if err != nil {
			return nil, err
		}
		if j, err = l.done(ctx, j); err != nil {
			return nil, err
		}
		took = append(took, j.Timeline[len(j.Timeline)-1].At.Sub(j.Timeline[0].At))
		if j, err = l.client.Delete(ctx, lab.NewOperator.ICCID); err != nil {
			return nil, err
		}
		if _, err = l.done(ctx, j); err != nil {
			return nil, err
		}
	}
	return took, nil
}

func (l *loaded) done(ctx context.Context, j api.Job) (api.Job, error) {
	j, err := l.client.Follow(ctx, j.ID, func(api.Job) {})
	if err == nil && j.Problem != nil {
		err = j.Problem
	}
	return j, err
}

// figuresOf are the daemon's, at one time or the most of them.
type figuresOf struct {
	rss         float64 // MB
	descriptors int
	goroutines  int
}

func (l *loaded) look(ctx context.Context, pid int) (n figuresOf, err error) {
	fds, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	if err != nil {
		return n, err
	}
	s, err := l.client.Status(ctx)
	if err != nil {
		return n, err
	}
	n.rss, err = memory(pid, "VmRSS")
	n.descriptors, n.goroutines = len(fds), s.Goroutines
	return n, err
}

// loadUser is one more of those who may look. He asks with the priority of
// everybody, so that his are the answers that are timed.
const loadUser = 21_000

// watch looks, and asks a question, ten times a second until it is over, and keeps
// the most, and how long the answers took.
func (l *loaded) watch(ctx context.Context, pid int, over <-chan struct{}) (most figuresOf) {
	for i := 0; ; i++ {
		select {
		case <-over:
			return most
		case <-time.After(100 * time.Millisecond):
		}
		begun := time.Now()
		if err := lab.Ask(l.modem.Socket, loadUser, loadGroup, i); err != nil {
			l.unanswered++
		} else {
			l.answers = append(l.answers, time.Since(begun))
		}
		if n, err := l.look(ctx, pid); err == nil {
			most.rss, most.descriptors, most.goroutines = max(most.rss, n.rss), max(most.descriptors, n.descriptors), max(most.goroutines, n.goroutines)
		}
	}
}
