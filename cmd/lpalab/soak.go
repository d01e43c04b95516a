package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/rsp/rsptest/pki"
	"lpad/agent/rsp/rsptest/smdp"
	"lpad/cmd/lpalab/lab"
)

// Limits of what may be more in the late cycles than in the early ones, each
// the median of its cycles: nothing, but for what is not exact. A page that is
// freed is not always given back at once.
const (
	soakRSSLimit   = 1.0 // MB
	soakCountLimit = 1   // goroutines, descriptors, files

	// soakJournalSlack is the longest record that may lie over the limit of the
	// journal before it is made anew.
	soakJournalSlack = 32 << 10

	// soakStateBound is what one install and switch may write to the state
	// directory, in KiB.
	soakStateBound = 300

	soakTries  = 3 // of a step that a fault has kept from its end, all in all
	soakLosses = 3 // cycles that may be lost before it is given up
)

// soakKilling are the kinds of faults that end the daemon, and soakLasting
// those that it lives through. Left out are those that need a device of their
// own, and those that are mostly waiting.
var (
	soakKilling = []string{"kill-append", "kill-before-apdu", "kill-after-apdu", "kill-again", "kill-before-at", "kill-after-at",
		"kill-before-request", "kill-after-request", "blackout-before-apdu", "blackout-after-apdu", "disk-full-start", "disk-read-only", "disk-error"}
	soakLasting = []string{"cut-before-apdu", "cut-after-apdu", "cut-commit", "lose-command", "lose-answer", "card-busy",
		"hangup-before-at", "hangup-after-at", "at-garbage", "at-urc-glued", "at-urc-between", "at-echo", "at-error", "at-reboot",
		"request-reset", "request-drop", "answer-drop", "answer-cut", "answer-stall", "answer-500", "answer-503", "answer-html", "tls-reset", "disk-full"}
)

// soakOptions are the flags of lpalab soak.
type soakOptions struct {
	cycles  int
	every   int // a fault in every so many-th cycle
	seed    uint64
	verbose bool
}

func soakCommand() *cobra.Command {
	var o soakOptions
	cmd := &cobra.Command{
		Use: "soak", Short: "many cycles of install, switch, switch back and delete on one device, with faults, and what must not grow", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := inOwnMounts(); err != nil {
				return err
			}
			programs, err := lab.FindPrograms("")
			if err != nil {
				return err
			}
			p, err := lab.NewPKI()
			if err != nil {
				return err
			}
			rep, err := soak(cmd.Context(), p, programs, o)
			if err != nil {
				return err
			}
			return rep.print()
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.cycles, "cycles", 500, "cycles")
	f.IntVar(&o.every, "every", 2, "a fault in every so many-th cycle, at any of its four orders; 0: none")
	f.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano())%1_000_000, "of the faults")
	f.BoolVar(&o.verbose, "verbose", false, "show every cycle")
	return cmd
}

// soakStep is one of the four orders of a cycle.
type soakStep struct {
	*scenario
	like []string // the scenarios whose faults are done to it
	base baseline // without a fault
}

// soakFigures are what must not grow, at rest after a cycle.
type soakFigures struct {
	cycle                      int
	rss                        float64 // MB
	goroutines, descriptors    int
	files                      int // in the state directory
	channels                   int // open on the card
	journal                    int64
	read                       bool // by the process that is to live long
	written                    float64
	installSwitchWithoutFaults bool
}

// soakReport is what came of a soak.
type soakReport struct {
	seed            uint64
	cycles          int
	killing         int // cycles with faults that end the daemon; they come first
	faults          int
	byKind          map[string]int
	again           int // orders that were given again
	lost            []string
	figures         []soakFigures
	early, late     soakFigures // medians
	journalMax      int64
	journalBound    int64
	written         float64 // KiB for one install and switch, the most of the cycles without a fault
	writtenMeasured bool
	took            time.Duration
}

// soaker is a soak under way.
type soaker struct {
	*rig
	rep     *soakReport
	steps   []*soakStep
	order   string // matching id of this cycle
	random  *rand.Rand
	checked int64 // notifications up to this one have been held against the rules
}

// soak does cycles on one device.
func soak(ctx context.Context, p *pki.PKI, programs string, o soakOptions) (_ *soakReport, err error) {
	begin := time.Now()
	s := &soaker{rep: &soakReport{seed: o.seed, cycles: o.cycles, killing: o.cycles / 10, byKind: map[string]int{}},
		random: rand.New(rand.NewPCG(o.seed, 0)), checked: -1}
	fmt.Printf("soak: seed %d, %d cycles; faults that end the daemon in the first %d, one process lives through the others\n", o.seed, o.cycles, s.rep.killing)
	device := &scenario{name: "soak", before: onlyOld, after: onlyOld}
	if missing := canMount(); missing != "" {
		fmt.Println("without a disk of its own:", missing)
	} else {
		device.disk = brokenDisk
	}
	if s.rig, err = newRig(ctx, p, programs, device, nil); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.rig.close()) }()
	s.makeSteps()
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	for c := range o.cycles {
		if c == s.rep.killing { // a new process, from here to the end
			if problem := s.terminate(); problem != "" {
				return nil, errors.New(problem)
			}
			if err := s.start(ctx); err != nil {
				return nil, err
			}
		}
		if err := s.cycle(ctx, c, o); err != nil {
			s.rep.lost = append(s.rep.lost, fmt.Sprintf("cycle %d: %v", c+1, err))
			fmt.Printf("LOST in cycle %d: %v\n%s\n", c+1, err, strings.Join(s.lately(40), "\n"))
			if len(s.rep.lost) >= soakLosses || ctx.Err() != nil {
				break
			}
		}
		if n := c + 1; n%50 == 0 || o.verbose {
			f := s.rep.figures[len(s.rep.figures)-1]
			fmt.Printf("%4d cycles, %d faults, %.0f s: rss %.1f MB, %d goroutines, %d descriptors, %d files, journal %.0f KiB\n", n, s.rep.faults,
				time.Since(begin).Seconds(), f.rss, f.goroutines, f.descriptors, f.files, float64(f.journal)/1024)
		}
	}
	e := evidence{StopError: s.terminate(), Exits: s.exits}
	readJournal(s.journalPath(), &e)
	for _, problem := range append([]string{e.StopError, e.JournalError}, append(e.Exits, unended("the journal", e.JournalJobs)...)...) {
		if problem != "" {
			s.rep.lost = append(s.rep.lost, "at the end: "+problem)
		}
	}
	s.rep.took = time.Since(begin)
	s.rep.journalBound = int64(device.journalLimit()) + soakJournalSlack
	s.rep.sum()
	return s.rep, ctx.Err()
}

func (s *soaker) makeSteps() {
	s.steps = []*soakStep{
		{like: []string{"install", "install-enable"}, scenario: &scenario{name: "install", before: onlyOld, after: bothOld,
			order: func(ctx context.Context, r *rig) (api.Job, error) {
				if slices.Contains(iccidsOf(r), newICCID) {
					return api.Job{}, nil
				}
				return r.client.Install(ctx, api.InstallRequest{ActivationCode: r.world.SMDP.ActivationCode(s.order), Consent: true})
			}}},
		{like: []string{"switch"}, scenario: &scenario{name: "switch", before: bothOld, after: bothNew, order: enableNew}},
		{like: []string{"switch"}, scenario: &scenario{name: "back", before: bothNew, after: bothOld,
			order: func(ctx context.Context, r *rig) (api.Job, error) { return switchTo(ctx, r, oldICCID, false) }}},
		{like: []string{"delete"}, scenario: &scenario{name: "delete", before: bothOld, after: onlyOld,
			order: func(ctx context.Context, r *rig) (api.Job, error) { return r.client.Delete(ctx, newICCID) }}},
	}
}

// cycle installs, switches, switches back and deletes, and looks at what there
// is then.
func (s *soaker) cycle(ctx context.Context, c int, o soakOptions) error {
	s.order = fmt.Sprintf("SOAK-%06d", c)
	order, err := lab.NewOrder(s.order, lab.NewOperator, faultProfileSize)
	if err != nil {
		return err
	}
	if err := s.world.SMDP.AddOrder(order); err != nil {
		return err
	}
	// The first cycle says what there is to strike at.
	struckAt := -1
	if o.every > 0 && c > 0 && c%o.every == 0 {
		struckAt = s.random.IntN(len(s.steps))
	}
	kinds := soakLasting
	if c < s.rep.killing {
		kinds = soakKilling
	}
	var written float64
	for i, step := range s.steps {
		var f *fault
		if i == struckAt {
			f = s.pick(step, kinds)
		}
		if i == 0 {
			written = -s.stateWritten()
		}
		if err := s.do(ctx, step, f); err != nil {
			return err
		}
		if i == 1 { // installed and switched
			written += s.stateWritten()
		}
		if c == 0 {
			s.mu.Lock()
			step.base = baseline{s.counts, s.journalSize()}
			s.mu.Unlock()
		}
	}
	f := s.look(ctx, c)
	if f.installSwitchWithoutFaults = struckAt < 0 || struckAt > 1; f.installSwitchWithoutFaults {
		f.written = written
	}
	s.rep.figures = append(s.rep.figures, f)
	return s.verify(ctx)
}

// pick draws a fault for a step, nil when none of the kinds can be done to it.
func (s *soaker) pick(step *soakStep, names []string) *fault {
	var fit []kind
	for _, k := range kinds {
		if !slices.Contains(names, k.name) || !slices.ContainsFunc(step.like, func(like string) bool { return slices.Contains(k.scenarios, like) }) {
			continue
		}
		if s.disk == nil && slices.ContainsFunc(diskKinds, func(d kind) bool { return d.name == k.name }) {
			continue
		}
		if len(k.points(step.base)) > 0 {
			fit = append(fit, k)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	k := fit[s.random.IntN(len(fit))]
	points := k.points(step.base)
	f := &fault{class: k.name + "." + step.name, index: points[s.random.IntN(len(points))]}
	k.make(f, rand.New(rand.NewPCG(s.random.Uint64(), 0)))
	return f
}

// do gives one order, with a fault, and sees it through: what the fault has
// kept from its end is ordered again, as a technician would.
func (s *soaker) do(ctx context.Context, step *soakStep, f *fault) error {
	s.aim(f)
	if f != nil && f.prepare != nil {
		if err := f.prepare(s.rig); err != nil {
			return err
		}
	}
	for try := 1; ; try++ {
		s.arm()
		id, ordered := s.orderOnce(ctx, step.scenario)
		if err := s.converge(ctx, step.scenario, id, ordered); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		s.disarm()
		s.mu.Lock()
		struck := s.struck
		s.mu.Unlock()
		if f != nil && struck {
			s.rep.faults++
			name, _, _ := strings.Cut(f.class, ".")
			s.rep.byKind[name]++
		}
		if s.aim(nil); step.reached(s.rig) {
			return nil
		}
		if try == soakTries {
			return fmt.Errorf("%s: ordered %d times, and the card has %v, enabled %q", step.name, try, iccidsOf(s.rig), enabledOf(s.rig))
		}
		s.rep.again++
		f = nil
	}
}

// aim takes a fault, or nil, for the next order.
func (r *rig) aim(f *fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault, r.struck, r.strikes = f, false, make(chan struct{})
	r.history = r.history[max(0, len(r.history)-200):]
}

func (r *rig) lately(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.history[max(0, len(r.history)-n):])
}

// verify holds what everybody shows against the rules, once all is at rest.
func (s *soaker) verify(ctx context.Context) error {
	x := expectation{Endings: []ending{onlyOld}, APN: apns, Deleted: map[string]bool{newICCID: true}}
	for limit := time.Now().Add(restLimit); ; time.Sleep(20 * time.Millisecond) {
		e, err := s.evidence(ctx)
		if err != nil {
			return err
		}
		status, _ := s.world.SMDP.Order(s.order)
		e.Orders = []orderSeen{{newICCID, status.State}}
		e.Made, e.Received = after(e.Made, s.checked), after(e.Received, s.checked)
		v := check(e, x)
		if status.State != smdp.Installed {
			v = append(v, violation{"done", fmt.Sprintf("the order ended as %q", status.State)})
		}
		switch {
		case len(v) == 0:
			for _, n := range e.Made {
				s.checked = max(s.checked, n.Seq)
			}
			s.store.forget(s.checked)
			return nil
		case time.Now().After(limit) || ctx.Err() != nil:
			return fmt.Errorf("%v", v)
		}
	}
}

func after(list []noteSeen, seq int64) []noteSeen {
	return slices.DeleteFunc(slices.Clone(list), func(n noteSeen) bool { return n.Seq <= seq })
}

// forget drops what has been held against the rules.
func (s *recordingStore) forget(upTo int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for seq := range s.made {
		if seq <= upTo {
			delete(s.made, seq)
		}
	}
}

// look reads the figures of a daemon at rest.
func (s *soaker) look(ctx context.Context, c int) soakFigures {
	f := soakFigures{cycle: c, read: c >= s.rep.killing, journal: s.journalSize(), channels: len(s.world.Card.OpenChannels())}
	s.mu.Lock()
	pid := s.proc.cmd.Process.Pid
	s.rep.journalMax = max(s.rep.journalMax, s.journalMost)
	s.mu.Unlock()
	var err error
	if f.rss, err = memory(pid, "VmRSS"); err != nil {
		f.read = false
	}
	if st, err := s.client.Status(ctx); err == nil {
		f.goroutines = st.Goroutines
	} else {
		f.read = false
	}
	fds, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	if err != nil {
		f.read = false
	}
	f.descriptors = len(fds)
	files, err := os.ReadDir(s.stateDir())
	if err != nil {
		f.read = false
	}
	f.files = len(files)
	return f
}

// stateWritten is how much the daemon has written to disks since it was
// started, in KiB: whole pages, as the kernel accounts for them, and its log
// goes into a pipe. What the file system writes for itself is not in it.
func (r *rig) stateWritten() float64 {
	r.mu.Lock()
	p := r.proc
	r.mu.Unlock()
	if p == nil {
		return 0
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "io"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			bytes, err := strconv.ParseFloat(strings.TrimSpace(n), 64)
			if err != nil {
				return 0
			}
			return bytes / 1024
		}
	}
	return 0
}

// sum compares the early cycles of the process that lives long with the late
// ones.
func (rep *soakReport) sum() {
	var long []soakFigures
	for _, f := range rep.figures {
		if f.read {
			long = append(long, f)
		}
		if f.installSwitchWithoutFaults && f.written > 0 {
			rep.written, rep.writtenMeasured = max(rep.written, f.written), true
		}
	}
	fifth := max(1, rep.cycles/5)
	warm := min(len(long), rep.cycles/10)
	rep.early = median(long[warm:min(len(long), warm+fifth)])
	rep.late = median(long[max(0, len(long)-fifth):])
}

func median(list []soakFigures) soakFigures {
	if len(list) == 0 {
		return soakFigures{}
	}
	return soakFigures{
		rss:         middle(list, func(f soakFigures) float64 { return f.rss }),
		goroutines:  middle(list, func(f soakFigures) int { return f.goroutines }),
		descriptors: middle(list, func(f soakFigures) int { return f.descriptors }),
		files:       middle(list, func(f soakFigures) int { return f.files }),
		channels:    middle(list, func(f soakFigures) int { return f.channels }),
	}
}

func middle[T cmp.Ordered](list []soakFigures, of func(soakFigures) T) T {
	var values []T
	for _, f := range list {
		values = append(values, of(f))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// grown says what is more than it may be.
func (rep *soakReport) grown() []string {
	var out []string
	a, b := rep.early, rep.late
	over := func(what string, from, to, limit float64) {
		if to-from > limit {
			out = append(out, fmt.Sprintf("%s grew from %.4g to %.4g, more than %.4g", what, from, to, limit))
		}
	}
	over("rss in MB", a.rss, b.rss, soakRSSLimit)
	over("goroutines", float64(a.goroutines), float64(b.goroutines), soakCountLimit)
	over("descriptors", float64(a.descriptors), float64(b.descriptors), soakCountLimit)
	over("files in the state directory", float64(a.files), float64(b.files), soakCountLimit)
	over("journal in bytes", 0, float64(rep.journalMax), float64(rep.journalBound))
	if rep.writtenMeasured {
		over("KiB written for an install and switch", 0, rep.written, soakStateBound)
	}
	if b.goroutines == 0 || b.rss == 0 || b.descriptors == 0 {
		out = append(out, "nothing was measured in the late cycles")
	}
	return out
}

func (rep *soakReport) print() error {
	var names []string
	for name, n := range rep.byKind {
		names = append(names, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(names)
	fmt.Printf("faults that struck: %s\n", strings.Join(names, ", "))
	written := "not measured: the state directory is on no block device"
	if rep.writtenMeasured {
		written = fmt.Sprintf("%.0f KiB (bound %d)", rep.written, soakStateBound)
	}
	fmt.Printf("%d orders given again, %d files in the state directory, at the most written for an install and switch without a fault: %s; %.0f s\n",
		rep.again, rep.late.files, written, rep.took.Seconds())
	for _, l := range rep.lost {
		fmt.Println("LOST", l)
	}
	grown := rep.grown()
	for _, g := range grown {
		fmt.Println("GROWN", g)
	}
	a, b := rep.early, rep.late
	fmt.Printf("soak: %d cycles, %d faults, %d lost; rss %.1f -> %.1f MB, goroutines %d -> %d, descriptors %d -> %d, journal max %.0f KiB (bound %.0f)\n",
		len(rep.figures), rep.faults, len(rep.lost), a.rss, b.rss, a.goroutines, b.goroutines, a.descriptors, b.descriptors,
		float64(rep.journalMax)/1024, float64(rep.journalBound)/1024)
	if len(rep.lost) > 0 || len(grown) > 0 {
		return errLost
	}
	return nil
}
