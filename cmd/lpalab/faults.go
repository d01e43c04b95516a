package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/rsp/rsptest/pki"
	"lpad/cmd/lpalab/lab"
	"lpad/modem/modemtest"
)

// errLost means that injections were lost; they have been printed.
var errLost = errors.New("a fault has left the device in a wrong state")

// usualSample is what a run does that is not told otherwise: some minutes on
// two cores. All places take twice as long.
const usualSample = 4000

// faultOptions are the flags of lpalab faults.
type faultOptions struct {
	seed     uint64
	only     string
	class    string
	sample   int
	parallel int
	evidence string
	list     bool
}

func faultsCommand() *cobra.Command {
	o := faultOptions{}
	cmd := &cobra.Command{
		Use: "faults", Short: "kills, power cuts, lost answers and broken lines at every place, and what must hold after each", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return faults(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.Uint64Var(&o.seed, "seed", 1, "of what is arbitrary, and of the sample")
	f.StringVar(&o.only, "only", "", "one injection, CLASS/INDEX, with everything that happened")
	f.StringVar(&o.class, "class", "", "only classes whose name has this in it")
	f.IntVar(&o.sample, "sample", usualSample, "so many injections, spread over all classes; 0: all that there are")
	f.IntVar(&o.parallel, "parallel", 4*runtime.NumCPU(), "devices at once; they mostly wait")
	f.StringVar(&o.evidence, "evidence", "", "where to put what happened in each injection that was lost; empty: a new directory")
	f.BoolVar(&o.list, "list", false, "say what the classes are")
	return cmd
}

func faults(ctx context.Context, o faultOptions) error {
	if o.list {
		for _, k := range kinds {
			fmt.Printf("%-20s %s\n%-20s done to: %s\n", k.name, k.what, "", strings.Join(k.scenarios, ", "))
		}
		fmt.Println()
		for _, s := range append(slices.Clip(scenarios), managedScenario) {
			fmt.Printf("%-20s %s\n", s.name, s.what)
		}
		return nil
	}
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
	if o.only != "" {
		return replay(ctx, p, programs, o)
	}
	begin := time.Now()
	places, err := survey(ctx, p, programs, o)
	if err != nil {
		return err
	}
	places = sample(places, o)
	results := inject(ctx, p, programs, places, o)
	return report(results, o, time.Since(begin))
}

// replay does one injection and shows all of it.
func replay(ctx context.Context, p *pki.PKI, programs string, o faultOptions) error {
	class, index, err := parsePlace(o.only)
	if err != nil {
		return err
	}
	var f *fault
	sc := scenarioNamed(strings.TrimPrefix(class, "none."))
	if sc == nil {
		if f, sc, err = newFault(class, index, o.seed); err != nil {
			return err
		}
	}
	res := run(ctx, p, programs, sc, f, true)
	fmt.Println("--- the daemon's log")
	fmt.Print(res.log)
	fmt.Println("---")
	for _, v := range res.violations {
		fmt.Printf("LOST %s: %s\n", o.only, v)
	}
	fmt.Printf("took %v, APDUs %d, AT commands %d, requests %d, appends %d, journal %d bytes, struck %v\n", res.took.Round(time.Millisecond),
		res.counts[onAPDU], res.counts[onAT], res.counts[onRequest], res.counts[onAppend], res.journal, res.reached)
	if len(res.violations) > 0 {
		return errLost
	}
	return nil
}

// place is an injection to be done.
type place struct {
	class string
	index int
}

// survey runs every scenario without a fault, which must go well, and lists
// the places that there are.
func survey(ctx context.Context, p *pki.PKI, programs string, o faultOptions) ([]place, error) {
	all := scenarios
	if missing := modemtest.Missing(); missing == "" {
		all = append(slices.Clip(all), managedScenario)
	} else {
		fmt.Printf("without the faults of a device with ModemManager and NetworkManager: %s\n", missing)
	}
	disks := canMount()
	if disks != "" {
		fmt.Printf("without the faults of disks: %s\n", disks)
	}
	lines := make([]baseline, len(all))
	errs := make([]error, len(all))
	each(o.parallel, len(all), func(i int) {
		res := run(ctx, p, programs, all[i], nil, false)
		for _, v := range res.violations {
			errs[i] = errors.Join(errs[i], fmt.Errorf("%s without a fault: %s", all[i].name, v))
		}
		if errs[i] != nil {
			errs[i] = fmt.Errorf("%w\n%s", errs[i], strings.Join(res.history, "\n"))
		}
		lines[i] = baseline{res.counts, res.journal}
	})
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for i, s := range all {
		c := lines[i].counts
		fmt.Printf("scenario %-15s %3d APDUs, %3d AT commands, %2d requests, %2d appends, journal of %5d bytes: %s\n", s.name,
			c[onAPDU], c[onAT], c[onRequest], c[onAppend], lines[i].journal, s.what)
	}
	var places []place
	for _, k := range kinds {
		if disks != "" && slices.ContainsFunc(diskKinds, func(d kind) bool { return d.name == k.name }) {
			continue
		}
		for i, s := range all {
			class := k.name + "." + s.name
			if !slices.Contains(k.scenarios, s.name) || !strings.Contains(class, o.class) {
				continue
			}
			for _, index := range k.points(lines[i]) {
				places = append(places, place{class, index})
			}
		}
	}
	return places, nil
}

// sample takes so many places that every class has its share.
func sample(places []place, o faultOptions) []place {
	g := rand.New(rand.NewPCG(o.seed, 0))
	if o.sample <= 0 || o.sample >= len(places) {
		g.Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] }) // slow classes do not come last
		return places
	}
	byClass := map[string][]place{}
	var classes []string
	for _, p := range places {
		if byClass[p.class] == nil {
			classes = append(classes, p.class)
		}
		byClass[p.class] = append(byClass[p.class], p)
	}
	for _, c := range classes {
		list := byClass[c]
		g.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	g.Shuffle(len(classes), func(i, j int) { classes[i], classes[j] = classes[j], classes[i] })
	var out []place
	for round := 0; len(out) < o.sample; round++ {
		for _, c := range classes {
			if list := byClass[c]; round < len(list) && len(out) < o.sample {
				out = append(out, list[round])
			}
		}
	}
	return out
}

// inject does all of it, several devices at a time.
func inject(ctx context.Context, p *pki.PKI, programs string, places []place, o faultOptions) []result {
	results := make([]result, len(places))
	var mu sync.Mutex
	begin, done, lost := time.Now(), 0, 0
	do := func(i int) {
		if ctx.Err() != nil {
			return
		}
		f, sc, err := newFault(places[i].class, places[i].index, o.seed)
		if err != nil {
			results[i] = result{fault: &fault{class: places[i].class}, violations: []violation{{"the lab itself", err.Error()}}}
			return
		}
		res := run(ctx, p, programs, sc, f, false)
		if ctx.Err() != nil {
			return // what was interrupted says nothing
		}
		results[i] = res
		mu.Lock()
		defer mu.Unlock()
		done++
		if len(results[i].violations) > 0 {
			lost++
			for _, v := range results[i].violations {
				fmt.Printf("LOST %s: %s\n", f.name(), v)
			}
			fmt.Printf("     replay: %s faults --seed %d --only %s\n", os.Args[0], o.seed, f.name())
			if name, err := keepEvidence(&o, res); err != nil {
				fmt.Printf("     what happened could not be kept: %v\n", err)
			} else {
				fmt.Printf("     what happened: %s\n", name)
			}
		}
		if done%100 == 0 {
			fmt.Printf("%5d of %d done, %d lost, %.0f s\n", done, len(places), lost, time.Since(begin).Seconds())
		}
	}
	// Devices with managers are heavy and slow: they have workers of their own.
	var heavy, light []int
	for i, at := range places {
		if strings.HasSuffix(at.class, "."+managedScenario.name) {
			heavy = append(heavy, i)
		} else {
			light = append(light, i)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { each(managedDevices, len(heavy), func(i int) { do(heavy[i]) }) })
	wg.Go(func() { each(o.parallel, len(light), func(i int) { do(light[i]) }) })
	wg.Wait()
	return results
}

// keepEvidence writes down what happened in an injection that was lost: most
// losses are races that a replay does not run into. It returns the file.
func keepEvidence(o *faultOptions, res result) (string, error) {
	if o.evidence == "" {
		dir, err := os.MkdirTemp("", "lpad-lost-")
		if err != nil {
			return "", err
		}
		o.evidence = dir
	}
	name := filepath.Join(o.evidence, strings.ReplaceAll(res.fault.name(), "/", "-")+".log")
	text := strings.Join(res.history, "\n") + "\n--- the daemon's log\n" + res.log
	return name, errors.Join(os.MkdirAll(o.evidence, 0o700), os.WriteFile(name, []byte(text), 0o600))
}

// each calls do for 0 to n-1, so many at a time.
func each(parallel, n int, do func(int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range max(1, parallel) {
		wg.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// report prints a line a class, and the last line.
func report(results []result, o faultOptions, took time.Duration) error {
	type sum struct {
		class                  string
		injected, missed, lost int
		took, longest          time.Duration
	}
	byKind := map[string]*sum{}
	var all sum
	for _, res := range results {
		if res.fault == nil {
			continue // interrupted
		}
		name, _, _ := strings.Cut(res.fault.class, ".")
		s := byKind[name]
		if s == nil {
			s = &sum{class: name}
			byKind[name] = s
		}
		for _, s := range []*sum{s, &all} {
			switch {
			case len(res.violations) > 0:
				s.injected++
				s.lost++
			case res.reached:
				s.injected++
			default:
				s.missed++
			}
			s.took += res.took
			s.longest = max(s.longest, res.took)
		}
	}
	fmt.Printf("%-22s %9s %9s %6s %7s %8s %8s\n", "class", "injected", "converged", "lost", "missed", "mean s", "most s")
	for _, s := range slices.SortedFunc(maps.Values(byKind), func(a, b *sum) int { return cmp.Compare(a.class, b.class) }) {
		fmt.Printf("%-22s %9d %9d %6d %7d %8.2f %8.2f\n", s.class, s.injected, s.injected-s.lost, s.lost, s.missed,
			s.took.Seconds()/float64(max(1, s.injected+s.missed)), s.longest.Seconds())
	}
	for _, res := range results { // again, where the end of a long output is read
		for _, v := range res.violations {
			fmt.Printf("LOST %s: %s\n", res.fault.name(), v)
		}
	}
	fmt.Printf("seed %d, %d places that the run did not come by, %.0f s\n", o.seed, all.missed, took.Seconds())
	fmt.Printf("faults: %d injected, %d converged, %d lost\n", all.injected, all.injected-all.lost, all.lost)
	if all.lost > 0 {
		return errLost
	}
	return nil
}
