package main

import (
	"fmt"
	"math"
	"runtime"
	"time"

	"lpad/agent/params"
	"lpad/config"
	"lpad/modem/carrierdb"
)

// resolveQuestions are asked in turn, so that nobody can answer from memory:
// the network that the most providers share in Debian's list, and two others.
var resolveQuestions = []params.Profile{{MCC: "505", MNC: "02"}, {IMSI: "310260123456789", SPN: "Mint"}, {MCC: "262", MNC: "03", SPN: "blau.de"}}

// Documents that take part, as of an order and of a device's maker.
const (
	resolveOrder = `{"version":1,"generation":7,"apns":[{"name":"fleet.example","purposes":["dm"],"pdnType":"v4"}],
		"radio":{"rats":["lte","lte-m","nb-iot"],"lteBands":[3,8,20],"psm":{"tauSeconds":3600,"activeSeconds":10}}}`
	resolveOEM = `{"version":1,"generation":1,"scope":{"mccmnc":["50502","310260","26203"]},"sms":{"smsc":"+491710760000"},"limits":{"lteBands":[3,20]}}`
)

// resolve measures how long it takes to find out what a profile wants: by a
// daemon that has not yet read the provider list, and by one that has; and
// what it keeps of the list.
func (f *figures) resolve() error {
	var given []params.Given
	for i, text := range []string{resolveOrder, resolveOEM} {
		d, err := params.Parse([]byte(text), params.Options{})
		if err != nil {
			return err
		}
		given = append(given, params.Given{Document: d, Rank: params.RankOrder + params.Rank(i), Source: fmt.Sprint("document ", i)})
	}
	ask := func(db *carrierdb.DB, p params.Profile) error {
		found, err := db.Lookup(p.Query())
		if err != nil {
			return err
		}
		e, err := params.Resolve(params.Input{Profile: p, Given: given, Database: found})
		if err == nil && (len(e.Attempts()) < 2 || len(e.Radio().LTEBands) != 2) {
			err = fmt.Errorf("resolving %+v found %+v", p, e.Attempts())
		}
		return err
	}
	list := config.Default().Params.ProviderDB
	var db *carrierdb.DB
	cold, err := least(50, func() (err error) {
		if db, err = carrierdb.Open(list); err != nil {
			return err
		}
		return ask(db, resolveQuestions[0])
	})
	if err != nil {
		return err
	}
	const rounds = 12 // of each question as many
	warm, err := least(300, func() error {
		for i := range rounds {
			if err := ask(db, resolveQuestions[i%len(resolveQuestions)]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	db = nil
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if db, err = carrierdb.Open(list); err == nil {
		err = ask(db, resolveQuestions[0])
	}
	if err != nil {
		return err
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := float64(after.HeapAlloc) - float64(before.HeapAlloc)
	runtime.KeepAlive(db)
	f.add("resolve-cold", cold.Seconds()*1e3, "ms", 5)
	f.add("resolve-warm", warm.Seconds()*1e6/rounds, "us", 100)
	f.add("resolve-held", max(held, 0)/1e6, "MB", 2)
	return nil
}

// least is how long it takes at best: whatever else runs on the machine only
// adds to it.
func least(times int, do func() error) (time.Duration, error) {
	best := time.Duration(math.MaxInt64)
	for range times {
		start := time.Now()
		if err := do(); err != nil {
			return 0, err
		}
		best = min(best, time.Since(start))
	}
	return best, nil
}
