package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lpad/agent/rsp/rsptest/pki"
	"lpad/cmd/lpalab/lab"
)

// lifeScenario is the one whose notifications are followed.
const lifeScenario = "notifications"

// lifeKinds are the cuts that are done at a step, by how the step is met.
var lifeKinds = [touches][]string{
	onAPDU:    {"kill-before-apdu", "kill-after-apdu", "blackout-before-apdu", "blackout-after-apdu", "lose-answer"},
	onRequest: {"kill-before-request", "kill-after-request", "answer-drop"},
	onAppend:  {"kill-append"},
	onCompact: {"kill-compact"},
}

// lifeSteps are the steps in the life of a notification. The life ends when
// the card has forgotten it; what is written to the journal then belongs to it.
const (
	lifeCreated   = "created by the card"
	lifeListed    = "listed"
	lifeRetrieved = "retrieved"
	lifeSent      = "sent to"
	lifeRemoved   = "removed from the card"
	lifeRecorded  = "record written"
	lifeCompacted = "journal made anew"
	lifeBetween   = "between"
)

// lifeOf names the steps of a run, from the first that makes a notification.
func lifeOf(trace []step) (steps []step, names []string) {
	last := ""
	for _, s := range trace {
		name := lifeBetween
		switch s.touch {
		case onAPDU:
			if parts := strings.Fields(s.what); len(parts) > 1 && parts[1] != "C0" { // the blocks of an answer belong to their command
				last = lifeBetween
				if len(parts) >= 7 {
					last = lifeStep(parts[5] + parts[6])
				}
			}
			name = last
		case onRequest:
			if function, host, ok := strings.Cut(s.what, " at "); ok && function == "handleNotification" {
				name = lifeSent + " " + host
			}
		case onAppend:
			name = lifeRecorded
		case onCompact:
			name = lifeCompacted
		default: // what travels to the card and the server is met there
			continue
		}
		if len(steps) > 0 || name == lifeCreated {
			steps, names = append(steps, s), append(names, name)
		}
	}
	return steps, names
}

func lifeStep(tag string) string {
	switch tag {
	case "BF31", "BF33": // EnableProfile, DeleteProfile
		return lifeCreated
	case "BF28":
		return lifeListed
	case "BF2B":
		return lifeRetrieved
	case "BF30":
		return lifeRemoved
	}
	return lifeBetween
}

// lifeReport is what came of cuts at steps.
type lifeReport struct {
	notifications int
	steps         map[string]int // by name: how many there are
	cuts          map[string]int // by name: how many cuts struck
	struck        int
	lost          []string // which cut, and what was wrong
}

// cutLives does every stride-th of the cuts at the steps of a name.
func cutLives(ctx context.Context, p *pki.PKI, programs string, o faultOptions, stride int) (*lifeReport, error) {
	sc := scenarioNamed(lifeScenario)
	base := run(ctx, p, programs, sc, nil, false)
	if len(base.violations) > 0 {
		return nil, fmt.Errorf("without a fault: %v\n%s", base.violations, strings.Join(base.history, "\n"))
	}
	rep := &lifeReport{notifications: base.made, steps: map[string]int{}, cuts: map[string]int{}}
	type cut struct {
		name string
		at   place
	}
	var cuts []cut
	steps, names := lifeOf(base.trace)
	for i, s := range steps {
		rep.steps[names[i]]++
		for _, k := range lifeKinds[s.touch] {
			cuts = append(cuts, cut{names[i], place{k + "." + lifeScenario, s.n}})
		}
	}
	if len(cuts) == 0 {
		return nil, errors.New("no notification was made")
	}
	var chosen []cut
	seen := map[string]int{}
	for _, c := range cuts { // the first of every name, whatever the stride
		if seen[c.name]%stride == 0 {
			chosen = append(chosen, c)
		}
		seen[c.name]++
	}
	results := make([]result, len(chosen))
	each(o.parallel, len(chosen), func(i int) {
		f, sc, err := newFault(chosen[i].at.class, chosen[i].at.index, o.seed)
		if err != nil {
			results[i].violations = []violation{{"the lab itself", err.Error()}}
			return
		}
		if ctx.Err() == nil {
			results[i] = run(ctx, p, programs, sc, f, false)
		}
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for i, res := range results {
		for _, v := range res.violations {
			rep.lost = append(rep.lost, fmt.Sprintf("%s/%d (%s): %s", chosen[i].at.class, chosen[i].at.index, chosen[i].name, v))
		}
		if res.reached {
			rep.struck++
			rep.cuts[chosen[i].name]++
		}
	}
	return rep, nil
}

func (rep *lifeReport) print() {
	order := []string{lifeCreated, lifeListed, lifeRetrieved, lifeSent + " " + lab.Host, lifeSent + " " + otherHost, lifeRemoved, lifeRecorded, lifeCompacted, lifeBetween}
	for _, name := range order {
		fmt.Printf("  %-32s %3d steps, %3d cuts\n", name, rep.steps[name], rep.cuts[name])
	}
	for _, l := range rep.lost {
		fmt.Println("LOST", l)
	}
	fmt.Printf("notifications: %d of 2 receivers, cut at %d places of their life, each received and in order, none left on the card; %d lost\n",
		rep.notifications, rep.struck, len(rep.lost))
}

func cutAllLives(ctx context.Context, o faultOptions, stride int) error {
	programs, err := lab.FindPrograms("")
	if err != nil {
		return err
	}
	p, err := lab.NewPKI()
	if err != nil {
		return err
	}
	begin := time.Now()
	rep, err := cutLives(ctx, p, programs, o, stride)
	if err != nil {
		return err
	}
	fmt.Printf("%.0f s\n", time.Since(begin).Seconds())
	rep.print()
	if len(rep.lost) > 0 {
		return errLost
	}
	return nil
}

func lifeCommand() *cobra.Command {
	var o faultOptions
	var stride int
	cmd := &cobra.Command{
		Use: "notifications", Short: "kills at every step of a notification's life", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cutAllLives(cmd.Context(), o, max(1, stride)) },
	}
	f := cmd.Flags()
	f.Uint64Var(&o.seed, "seed", 1, "of what is arbitrary")
	f.IntVar(&stride, "stride", 1, "of the cuts at steps of one name, every so many-th only")
	f.IntVar(&o.parallel, "parallel", 4*runtime.NumCPU(), "devices at once; they mostly wait")
	return cmd
}
