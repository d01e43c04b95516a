package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"lpad/agent/api"
	"lpad/agent/journal"
	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/euicc"
	"lpad/cmd/lpalab/lab"
)

// scenario is something that a user orders, with the device that it is ordered
// on and the states in which that device may end.
type scenario struct {
	name      string
	what      string
	empty     bool                // without the old profile
	installed bool                // the new profile is on the card, disabled
	noService bool                // the new profile's operator does not know it
	deadMan   string              // of the switch; empty: 15 s
	csim      bool                // the APDUs travel in AT+CSIM
	refuses   string              // a command that begins like this is refused by the modem
	card      func(*euicc.Config) // further changes
	disk      string              // a disk of this kind for the state directory
	journal   int                 // bytes of the journal before the order, most of them old; then it is bounded as tightly as can be configured
	receivers int                 // of notifications: 2, or one
	order     func(ctx context.Context, r *rig) (api.Job, error)
	before    ending // when the order has not been carried out
	after     ending // when it has
	goesBack  bool   // it is meant to fail: the user does not order again
	managed   bool   // on a device with ModemManager and NetworkManager; see runManaged
}

var (
	oldICCID, newICCID = lab.OldOperator.ICCID, lab.NewOperator.ICCID

	onlyOld     = ending{"old operator", []string{oldICCID}, oldICCID}
	bothOld     = ending{"old operator, new profile installed", []string{oldICCID, newICCID}, oldICCID}
	bothNew     = ending{"new operator", []string{oldICCID, newICCID}, newICCID}
	onlyNew     = ending{"new operator, old profile deleted", []string{newICCID}, newICCID}
	onlyNewIdle = ending{"new profile installed, none enabled", []string{newICCID}, ""}
	allOff      = ending{"old profile disabled", []string{oldICCID}, ""}
	empty       = ending{"empty card", nil, ""}
)

// apns are the access points that belong to the profiles.
var apns = map[string]string{oldICCID: lab.OldOperator.APN, newICCID: lab.NewOperator.APN}

// parametersFor is the terminal parameters document of an order.
func parametersFor(iccid string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"version":1,"apns":[{"name":%q,"purposes":["default","ia"],"pdnType":"v4"}]}`, apns[iccid]))
}

func install(ctx context.Context, r *rig, enable, deleteOld bool) (api.Job, error) {
	if slices.Contains(iccidsOf(r), newICCID) { // the user sees that it is there
		if enable {
			return switchTo(ctx, r, newICCID, deleteOld)
		}
		return api.Job{}, nil
	}
	return r.client.Install(ctx, api.InstallRequest{ActivationCode: r.world.ActivationCode(), Enable: enable, Consent: true, DeleteOld: deleteOld,
		Parameters: parametersFor(newICCID)})
}

func switchTo(ctx context.Context, r *rig, iccid string, deleteOld bool) (api.Job, error) {
	return r.client.Enable(ctx, iccid, api.EnableRequest{Parameters: parametersFor(iccid), DeleteOld: deleteOld})
}

func iccidsOf(r *rig) []string {
	var out []string
	for _, p := range r.world.Card.Profiles() {
		out = append(out, p.ICCID.String())
	}
	slices.Sort(out)
	return out
}

func enabledOf(r *rig) string {
	if iccid, ok := r.world.Card.EnabledICCID(); ok {
		return iccid.String()
	}
	return ""
}

// reached reports whether the card is as the order wants it.
func (s *scenario) reached(r *rig) bool {
	return enabledOf(r) == s.after.Enabled && slices.Equal(iccidsOf(r), slices.Sorted(slices.Values(s.after.Present)))
}

func enableNew(ctx context.Context, r *rig) (api.Job, error) {
	return switchTo(ctx, r, newICCID, false)
}

// scenarios are the orders that faults are done to.
var scenarios = []*scenario{
	{name: "install", what: "install a profile", before: onlyOld, after: bothOld,
		order: func(ctx context.Context, r *rig) (api.Job, error) { return install(ctx, r, false, false) }},
	{name: "install-enable", what: "install a profile and switch to it", before: onlyOld, after: bothNew,
		order: func(ctx context.Context, r *rig) (api.Job, error) { return install(ctx, r, true, false) }},
	{name: "first", what: "install the first profile of an empty card and enable it", empty: true, before: empty, after: onlyNew,
		order: func(ctx context.Context, r *rig) (api.Job, error) { return install(ctx, r, true, false) }},
	{name: "switch", what: "switch to an installed profile", installed: true, before: bothOld, after: bothNew, order: enableNew},
	{name: "switch-csim", what: "the same over AT+CSIM, where the daemon opens its logical channels itself", csim: true, installed: true,
		before: bothOld, after: bothNew, order: enableNew},
	{name: "replace", what: "switch to an installed profile and delete the old one", installed: true, before: bothOld, after: onlyNew, order: replaceOld},
	{name: "rollback", what: "switch to a profile whose access point the modem refuses, and back", installed: true, before: bothOld, after: bothOld,
		refuses: `"` + lab.NewOperator.APN + `"`, order: enableNew, goesBack: true},
	{name: "no-service", what: "switch to a profile that no network serves, and back", installed: true, before: bothOld, after: bothOld,
		noService: true, deadMan: "5s", order: enableNew, goesBack: true},
	{name: "disable", what: "disable the only profile", before: onlyOld, after: allOff,
		order: func(ctx context.Context, r *rig) (api.Job, error) { return r.client.Disable(ctx, oldICCID) }},
	{name: "delete", what: "delete a disabled profile", installed: true, before: bothOld, after: onlyOld,
		order: func(ctx context.Context, r *rig) (api.Job, error) { return r.client.Delete(ctx, newICCID) }},
	{name: "notifications", what: "switch and delete the old profile, six notifications for two receivers, and the journal made anew on the way",
		installed: true, receivers: 2, journal: tightJournal - 5000, before: bothOld, after: onlyNew, card: notifyTwo, order: replaceOld},
}

// otherHost is the second receiver of notifications.
const otherHost = "reports.lpad.example"

// tightJournal is the least limit that can be configured.
const tightJournal = 64 << 10

func (s *scenario) journalLimit() int {
	if s.journal > 0 {
		return tightJournal
	}
	return 1 << 20 // the default
}

// fillJournal makes a journal of so many bytes, most of them of old records.
func fillJournal(path string, size int) error {
	j, err := journal.Open(path, journal.Options{MaxBytes: 1 << 20})
	if err != nil {
		return err
	}
	for i := 0; err == nil && j.Size() < size; i++ {
		err = j.PutSetting("lab", fmt.Sprintf("%01000d", i))
	}
	return errors.Join(err, j.Close())
}

// notifyTwo makes every event of every profile known to two receivers.
func notifyTwo(c *euicc.Config) {
	for i := range c.Profiles {
		c.Profiles[i].Notifications = []rsp.NotificationConfiguration{{Events: rsp.AllEvents, Address: lab.Host}, {Events: rsp.AllEvents, Address: otherHost}}
	}
}

// replaceOld switches to the new profile and deletes the old one.
func replaceOld(ctx context.Context, r *rig) (api.Job, error) {
	if enabledOf(r) == newICCID { // the old one is left over
		return r.client.Delete(ctx, oldICCID)
	}
	return switchTo(ctx, r, newICCID, true)
}

// expects is what is right at the end of a scenario, whatever happened.
func (s *scenario) expects() expectation {
	x := expectation{Endings: []ending{s.before, s.after}, APN: apns, Deleted: map[string]bool{}}
	switch s.name {
	case "install-enable": // installed, and the switch taken back
		x.Endings = append(x.Endings, bothOld)
	case "first":
		x.Endings = append(x.Endings, onlyNewIdle)
	case "replace", "notifications": // switched, and the deletion refused
		x.Endings = append(x.Endings, bothNew)
	}
	return x
}

// downloads reports whether the scenario has an order at the server.
func (s *scenario) downloads() bool { return !s.installed }

func scenarioNamed(name string) *scenario {
	if name == managedScenario.name {
		return managedScenario
	}
	for _, s := range scenarios {
		if s.name == name {
			return s
		}
	}
	return nil
}
