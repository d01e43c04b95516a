package quirks

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// factReaders are the keys that a line may have beyond its match. Each reads a
// value, reports what is wrong with it, and gives the way to set it.
func factReaders() map[string]factReader {
	return map[string]factReader{
		"at":                  word([]string{"works", "partly", "fails"}, func(q *Quirks, v string) { q.APDU.Known = v }),
		"paths":               words([]string{string(CCHO), string(CSIM)}, func(q *Quirks, v []string) { q.APDU.Paths = as[Path](v) }),
		"block_size":          number(1, maxBlock, func(q *Quirks, v int) { q.APDU.BlockSize = v }),
		"channel_le":          number(-1, 255, func(q *Quirks, v int) { q.APDU.ChannelLe = v }),
		"channels":            number(1, 19, func(q *Quirks, v int) { q.APDU.Channels = v }),
		"handle":              word([]string{"decimal", "hex", "bare"}, func(q *Quirks, v string) { q.APDU.Handle = v }),
		"command":             bound(func(q *Quirks, v time.Duration) { q.APDU.Command = v }),
		"last_block":          bound(func(q *Quirks, v time.Duration) { q.APDU.LastBlock = v }),
		"terminal_capability": yes(func(q *Quirks, v bool) { q.APDU.TerminalCapability = v }),
		"open_retries":        number(1, 20, func(q *Quirks, v int) { q.APDU.OpenRetries = v }),

		"enable": words([]string{EnableICCID, EnableICCIDRefresh, EnableAID, EnableAIDRefresh}, func(q *Quirks, v []string) { q.Enable = v }),

		"urcs":      words(nil, func(q *Quirks, v []string) { q.SIM.URCs = v }),
		"subscribe": commands(func(q *Quirks, v []string) { q.SIM.Subscribe = v }),
		"iccid":     commands(func(q *Quirks, v []string) { q.SIM.ICCID = v }),
		"settle":    bound(func(q *Quirks, v time.Duration) { q.SIM.Settle = v }),

		"reread":         words(rungs(), func(q *Quirks, v []string) { q.Reread = as[Rung](v) }),
		"rung_time":      rungTimes,
		"reset":          commands(func(q *Quirks, v []string) { q.Reset = v }),
		"reset_hangs_up": yes(func(q *Quirks, v bool) { q.ResetHangsUp = v }),
		"cfun0_hangs_up": yes(func(q *Quirks, v bool) { q.CFUN0HangsUp = v }),
		"after_switch":   commands(func(q *Quirks, v []string) { q.AfterSwitch = v }),

		"ports":      ports,
		"slot_query": command(func(q *Quirks, v string) { q.Slots.Query = v }),
		"slot_set":   slotSet,
	}
}

func rungs() []string {
	return []string{string(RungRefresh), string(RungCFUN01), string(RungCFUN41), string(RungCFUN11), string(RungVendorReset), string(RungManager)}
}

func as[T ~string](v []string) []T {
	out := make([]T, len(v))
	for i := range v {
		out[i] = T(v[i])
	}
	return out
}

type factReader = func(*reader, *yaml.Node, string) func(*Quirks)

// words is a list of words, one of a few or any.
func words(of []string, set func(*Quirks, []string)) factReader {
	return func(r *reader, n *yaml.Node, key string) func(*Quirks) {
		list := r.texts(n, key)
		for _, w := range list {
			if of != nil && w != "" && !slices.Contains(of, w) {
				r.fail(n, "%s: %q is none of %s", key, w, strings.Join(of, ", "))
			}
		}
		return func(q *Quirks) { set(q, slices.Clone(list)) }
	}
}

func word(of []string, set func(*Quirks, string)) factReader {
	return func(r *reader, n *yaml.Node, key string) func(*Quirks) {
		w := r.text(n, key)
		if w != "" && !slices.Contains(of, w) {
			r.fail(n, "%s: %q is none of %s", key, w, strings.Join(of, ", "))
		}
		return func(q *Quirks) { set(q, w) }
	}
}

// isCommand keeps what is written to a modem to one command line.
func isCommand(s string) bool {
	return len(s) > len("AT") && len(s) <= maxText && strings.HasPrefix(s, "AT") && !strings.ContainsFunc(s, func(c rune) bool { return c < 0x20 || c > 0x7E })
}

func commands(set func(*Quirks, []string)) factReader {
	return func(r *reader, n *yaml.Node, key string) func(*Quirks) {
		list := r.texts(n, key)
		for _, c := range list {
			if c != "" && !isCommand(c) {
				r.fail(n, "%s: %q is no AT command", key, c)
			}
		}
		return func(q *Quirks) { set(q, slices.Clone(list)) }
	}
}

func command(set func(*Quirks, string)) factReader {
	return func(r *reader, n *yaml.Node, key string) func(*Quirks) {
		c := r.text(n, key)
		if c != "" && !isCommand(c) {
			r.fail(n, "%s: %q is no AT command", key, c)
		}
		return func(q *Quirks) { set(q, c) }
	}
}

// slotSet is a command with the number of the slot in it.
func slotSet(r *reader, n *yaml.Node, key string) func(*Quirks) {
	if strings.Count(n.Value, "%") != 1 || strings.Count(n.Value, "%d") != 1 {
		r.fail(n, "%s: %%d is wanted once, for the number of the slot", key)
	}
	return command(func(q *Quirks, v string) { q.Slots.Set = v })(r, n, key)
}

func number(least, most int, set func(*Quirks, int)) factReader {
	return func(r *reader, n *yaml.Node, key string) func(*Quirks) {
		v, err := strconv.Atoi(r.text(n, key))
		if err != nil || v < least || v > most {
			r.fail(n, "%s: a number from %d to %d is wanted", key, least, most)
		}
		return func(q *Quirks) { set(q, v) }
	}
}

func yes(set func(*Quirks, bool)) factReader {
	return func(r *reader, n *yaml.Node, key string) func(*Quirks) {
		v := r.text(n, key)
		if v != "true" && v != "false" {
			r.fail(n, "%s: true or false is wanted", key)
		}
		return func(q *Quirks) { set(q, v == "true") }
	}
}

func (r *reader) duration(n *yaml.Node, key string) time.Duration {
	v, err := time.ParseDuration(r.text(n, key))
	if err != nil || v <= 0 || v > maxBound {
		r.fail(n, "%s: a time up to %v is wanted, with its unit: 30s", key, maxBound)
	}
	return v
}

func bound(set func(*Quirks, time.Duration)) factReader {
	return func(r *reader, n *yaml.Node, key string) func(*Quirks) {
		v := r.duration(n, key)
		return func(q *Quirks) { set(q, v) }
	}
}

// rungTimes merges: a line may know of one rung only.
func rungTimes(r *reader, n *yaml.Node, key string) func(*Quirks) {
	times := map[Rung]time.Duration{}
	r.pairs(n, key, func(name string, k, v *yaml.Node) {
		if !slices.Contains(rungs(), name) {
			r.fail(k, "%s: %q is none of %s", key, name, strings.Join(rungs(), ", "))
		}
		times[Rung(name)] = r.duration(v, key)
	})
	return func(q *Quirks) {
		if q.RungTime == nil {
			q.RungTime = map[Rung]time.Duration{}
		}
		maps.Copy(q.RungTime, times)
	}
}

// ports replaces the whole layout: that of another model is no help.
func ports(r *reader, n *yaml.Node, key string) func(*Quirks) {
	var list []Port
	roles := []string{string(RoleAT), string(RoleAT2), string(RoleModem), string(RoleGPS), string(RoleDiag)}
	r.pairs(n, key, func(name string, k, v *yaml.Node) {
		i, err := strconv.Atoi(name)
		if role := r.text(v, key); err != nil || i < 0 || i > 31 || !slices.Contains(roles, role) {
			r.fail(k, "%s: the number of a USB interface with one of %s is wanted", key, strings.Join(roles, ", "))
		}
		list = append(list, Port{i, Role(v.Value)})
	})
	return func(q *Quirks) { q.Ports = slices.Clone(list) }
}
