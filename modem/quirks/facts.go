package quirks

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// factKey is a key that a line may have beyond its match. The type of the member
// says what is read.
type factKey struct {
	member      func(*Quirks) any // address of the member that it sets
	of          []string          // the words that it may be; nil: any
	command     bool              // AT commands
	least, most int               // of a number
}

// factKeys are all of them; docs/modems.md says what they mean.
func factKeys() map[string]factKey {
	rungs := rungNames()
	return map[string]factKey{
		"at":                  {member: func(q *Quirks) any { return &q.APDU.Known }, of: []string{"works", "partly", "fails"}},
		"paths":               {member: func(q *Quirks) any { return &q.APDU.Paths }, of: []string{string(CCHO), string(CSIM)}},
		"block_size":          {member: func(q *Quirks) any { return &q.APDU.BlockSize }, least: 1, most: maxBlock},
		"channel_le":          {member: func(q *Quirks) any { return &q.APDU.ChannelLe }, least: -1, most: 255},
		"channels":            {member: func(q *Quirks) any { return &q.APDU.Channels }, least: 1, most: 19},
		"handle":              {member: func(q *Quirks) any { return &q.APDU.Handle }, of: []string{"decimal", "hex", "bare"}},
		"command":             {member: func(q *Quirks) any { return &q.APDU.Command }},
		"last_block":          {member: func(q *Quirks) any { return &q.APDU.LastBlock }},
		"terminal_capability": {member: func(q *Quirks) any { return &q.APDU.TerminalCapability }},
		"open_retries":        {member: func(q *Quirks) any { return &q.APDU.OpenRetries }, least: 1, most: 20},

		"enable": {member: func(q *Quirks) any { return &q.Enable }, of: []string{EnableICCID, EnableICCIDRefresh, EnableAID, EnableAIDRefresh}},

		"urcs":      {member: func(q *Quirks) any { return &q.SIM.URCs }},
		"subscribe": {member: func(q *Quirks) any { return &q.SIM.Subscribe }, command: true},
		"iccid":     {member: func(q *Quirks) any { return &q.SIM.ICCID }, command: true},
		"settle":    {member: func(q *Quirks) any { return &q.SIM.Settle }},

		"reread":         {member: func(q *Quirks) any { return &q.Reread }, of: rungs},
		"rung_time":      {member: func(q *Quirks) any { return &q.RungTime }, of: rungs},
		"reset":          {member: func(q *Quirks) any { return &q.Reset }, command: true},
		"reset_hangs_up": {member: func(q *Quirks) any { return &q.ResetHangsUp }},
		"cfun0_hangs_up": {member: func(q *Quirks) any { return &q.CFUN0HangsUp }},
		"after_switch":   {member: func(q *Quirks) any { return &q.AfterSwitch }, command: true},

		"ports":      {member: func(q *Quirks) any { return &q.Ports }, of: []string{string(RoleAT), string(RoleAT2), string(RoleModem), string(RoleGPS), string(RoleDiag)}},
		"slot_query": {member: func(q *Quirks) any { return &q.Slots.Query }, command: true},
		"slot_set":   {member: func(q *Quirks) any { return &q.Slots.Set }, command: true},
	}
}

func rungNames() []string {
	return []string{string(RungRefresh), string(RungCFUN01), string(RungCFUN41), string(RungCFUN11), string(RungVendorReset), string(RungManager)}
}

// isCommand keeps what is written to a modem to one command line.
func isCommand(s string) bool {
	return len(s) > len("AT") && len(s) <= maxText && strings.HasPrefix(s, "AT") && !strings.ContainsFunc(s, func(c rune) bool { return c < 0x20 || c > 0x7E })
}

// fact reads the value of one key.
func (r *reader) fact(key string, k factKey, n *yaml.Node) Fact {
	var value Quirks // holds what is read, until it is merged
	switch p := k.member(&value).(type) {
	case *[]string:
		*p = r.words(n, key, k)
	case *[]Path:
		for _, w := range r.words(n, key, k) {
			*p = append(*p, Path(w))
		}
	case *[]Rung:
		for _, w := range r.words(n, key, k) {
			*p = append(*p, Rung(w))
		}
	case *string:
		*p = r.word(n, key, k)
		if key == "slot_set" && (strings.Count(*p, "%") != 1 || !strings.Contains(*p, "%d")) {
			r.fail(n, "%s: %%d is wanted once, for the number of the slot", key)
		}
	case *int:
		v, err := strconv.Atoi(r.text(n, key))
		if err != nil || v < k.least || v > k.most {
			r.fail(n, "%s: a number from %d to %d is wanted", key, k.least, k.most)
		}
		*p = v
	case *bool:
		v := r.text(n, key)
		if v != "true" && v != "false" {
			r.fail(n, "%s: true or false is wanted", key)
		}
		*p = v == "true"
	case *time.Duration:
		*p = r.duration(n, key)
	case *map[Rung]time.Duration:
		*p = map[Rung]time.Duration{}
		r.pairs(n, key, func(name string, at, v *yaml.Node) {
			r.among(at, key, name, k.of)
			(*p)[Rung(name)] = r.duration(v, key)
		})
	case *[]Port:
		r.pairs(n, key, func(name string, at, v *yaml.Node) {
			i, err := strconv.Atoi(name)
			if role := r.text(v, key); err != nil || i < 0 || i > 31 || !slices.Contains(k.of, role) {
				r.fail(at, "%s: the number of a USB interface with one of %s is wanted", key, strings.Join(k.of, ", "))
			}
			*p = append(*p, Port{i, Role(v.Value)})
		})
	}
	return Fact{key, flat(n), func(q *Quirks) { merge(k.member(q), k.member(&value)) }}
}

// merge sets a member. What a line says takes the place of what was known, whole;
// only the times of the rungs are merged one by one, since a line may know of one.
func merge(to, from any) {
	switch from := from.(type) {
	case *[]string:
		*to.(*[]string) = slices.Clone(*from)
	case *[]Path:
		*to.(*[]Path) = slices.Clone(*from)
	case *[]Rung:
		*to.(*[]Rung) = slices.Clone(*from)
	case *string:
		*to.(*string) = *from
	case *int:
		*to.(*int) = *from
	case *bool:
		*to.(*bool) = *from
	case *time.Duration:
		*to.(*time.Duration) = *from
	case *[]Port:
		*to.(*[]Port) = slices.Clone(*from)
	case *map[Rung]time.Duration:
		times := to.(*map[Rung]time.Duration)
		if *times == nil {
			*times = map[Rung]time.Duration{}
		}
		maps.Copy(*times, *from)
	}
}

// words are the words of a list, or the one that stands alone.
func (r *reader) words(n *yaml.Node, key string, k factKey) []string {
	var out []string
	for _, i := range r.items(n, key) {
		out = append(out, r.word(i, key, k))
	}
	return out
}

func (r *reader) word(n *yaml.Node, key string, k factKey) string {
	w := r.text(n, key)
	if w == "" {
		return "" // has been said
	}
	if k.of != nil {
		r.among(n, key, w, k.of)
	}
	if k.command && !isCommand(w) {
		r.fail(n, "%s: %q is no AT command", key, w)
	}
	return w
}

func (r *reader) among(n *yaml.Node, key, word string, of []string) {
	if !slices.Contains(of, word) {
		r.fail(n, "%s: %q is none of %s", key, word, strings.Join(of, ", "))
	}
}

func (r *reader) duration(n *yaml.Node, key string) time.Duration {
	v, err := time.ParseDuration(r.text(n, key))
	if err != nil || v <= 0 || v > maxBound {
		r.fail(n, "%s: a time up to %v is wanted, with its unit: 30s", key, maxBound)
	}
	return v
}
