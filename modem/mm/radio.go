package mm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"

	"lpad/modem"
)

// The settings of the radio that ModemManager may know how to make: names for
// [Client.Setting] and [Client.Set].
const (
	Modes     = "modes"     // two numbers: MMModemMode bits allowed, and preferred
	Bands     = "bands"     // MMModemBand numbers
	Preferred = "preferred" // networks of the SIM: 26201,16384 (PLMN, MMModemAccessTechnology bits)
)

// Bits of MMModemMode, and numbers of MMModemBand.
const (
	modeCS, mode2G, mode3G, mode4G, mode5G = 1, 2, 4, 8, 16

	bandLTE1 = 31 // EUTRAN 1
	bandLTE  = 30 // EUTRAN n is bandLTE+n
	lastLTE  = bandLTE + 85
	bandAny  = 256

	accessLTE = 1 << 14
)

// tunables say which property has a setting, on the modem or its SIM, and which
// call makes it.
var tunables = map[string]struct{ iface, property, call string }{
	Modes: {ifaceModem, "CurrentModes", "SetCurrentModes"}, Bands: {ifaceModem, "CurrentBands", "SetCurrentBands"},
	Preferred: {ifaceSIM, "PreferredNetworks", "SetPreferredNetworks"},
}

func (c *Client) pathOf(ctx context.Context, m Modem, iface string) (dbus.ObjectPath, error) {
	if iface == ifaceModem {
		return m.Path, nil
	}
	p, err := c.bus.Properties(ctx, Service, m.Path, ifaceModem)
	return p.Path("Sim"), err
}

// Setting reads a setting, sorted where order means nothing.
func (c *Client) Setting(ctx context.Context, m Modem, name string) ([]string, error) {
	t := tunables[name]
	path, err := c.pathOf(ctx, m, t.iface)
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", name, err)
	}
	p, err := c.bus.Properties(ctx, Service, path, t.iface)
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", name, err)
	}
	return settingOf(p[t.property].Value()), nil
}

func settingOf(v any) []string {
	var out []string
	switch v := v.(type) {
	case []uint32:
		v = slices.Clone(v)
		slices.Sort(v)
		for _, n := range v {
			out = append(out, strconv.FormatUint(uint64(n), 10))
		}
	case []any: // of numbers, one by one
		for _, n := range v {
			out = append(out, fmt.Sprint(n))
		}
	case [][]any:
		for _, e := range v {
			if len(e) == 2 {
				out = append(out, fmt.Sprint(e[0])+","+fmt.Sprint(e[1]))
			}
		}
	}
	return out
}

// Set makes a setting. [systembus.ErrUnsupported] if ModemManager's plugin for
// the modem does not know how.
func (c *Client) Set(ctx context.Context, m Modem, name string, want []string) error {
	t := tunables[name]
	path, err := c.pathOf(ctx, m, t.iface)
	if err == nil {
		var arg any
		if arg, err = settingArg(name, want); err == nil {
			err = c.bus.Call(ctx, Service, path, t.iface+"."+t.call, arg).Err()
		}
	}
	if err != nil {
		return fmt.Errorf("set the %s: %w", name, notThere(err))
	}
	return nil
}

type modePair struct{ Allowed, Preferred uint32 }

type preferredNetwork struct {
	PLMN   string
	Access uint32
}

var errSetting = errors.New("no such value of a setting")

// settingArg is what is sent. The strings may come from a file.
func settingArg(name string, want []string) (any, error) {
	var numbers []uint32
	var networks []preferredNetwork
	for _, s := range want {
		plmn, number, found := strings.Cut(s, ",")
		if !found {
			number = plmn
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || found != (name == Preferred) {
			return nil, errSetting
		}
		numbers, networks = append(numbers, uint32(n)), append(networks, preferredNetwork{plmn, uint32(n)})
	}
	switch {
	case name == Preferred:
		return networks, nil
	case name == Bands:
		return numbers, nil
	case len(numbers) == 2:
		return modePair{numbers[0], numbers[1]}, nil
	}
	return nil, errSetting
}

// WantedSetting is what a setting becomes by the wishes about it. lacking says
// what of them this modem cannot do: with nothing in want that is all.
func (c *Client) WantedSetting(ctx context.Context, m Modem, name string, r modem.Radio, now []string) (want []string, lacking string, err error) {
	if name == Preferred {
		for _, plmn := range r.PreferredPLMNs {
			want = append(want, plmn+","+strconv.Itoa(accessLTE))
		}
		return want, "", nil
	}
	p, err := c.bus.Properties(ctx, Service, m.Path, ifaceModem)
	if err != nil {
		return nil, "", fmt.Errorf("read what the modem supports: %w", err)
	}
	if name == Modes {
		want, lacking = wantedModes(r.RATs, settingOf(p["SupportedModes"].Value()))
	} else {
		want, lacking = wantedBands(r.LTEBands, now, settingOf(p["SupportedBands"].Value()))
	}
	return want, lacking, nil
}

// wantedModes chooses the combination that allows exactly what is wanted and
// this modem has.
func wantedModes(rats, supported []string) (want []string, lacking string) {
	mask, all := uint64(0), uint64(0)
	for _, rat := range rats {
		switch rat {
		case "gsm":
			mask |= mode2G
		case "umts":
			mask |= mode3G
		case "lte":
			mask |= mode4G
		case "lte-m", "nb-iot": // ModemManager does not tell them apart
			mask |= mode4G
			lacking = "ModemManager does not tell lte-m and nb-iot from lte"
		case "nr":
			mask |= mode5G
		}
	}
	pairs := make([][2]uint64, len(supported))
	for i, s := range supported {
		first, second, _ := strings.Cut(s, ",")
		a, err := strconv.ParseUint(first, 10, 8) // "any", which is more, says nothing
		b, err2 := strconv.ParseUint(second, 10, 32)
		if err == nil && err2 == nil {
			pairs[i] = [2]uint64{a &^ modeCS, b}
			all |= a &^ modeCS
		}
	}
	if mask&^all != 0 {
		lacking = "the modem does not have all of " + strings.Join(rats, ", ")
	}
	best := ""
	for i, s := range supported { // without a preference, if that can be had
		if mask&all != 0 && pairs[i][0] == mask&all && (best == "" || pairs[i][1] == 0) {
			best = s
		}
	}
	if best == "" {
		return nil, "the modem cannot be limited to " + strings.Join(rats, ", ")
	}
	return strings.Split(best, ","), lacking
}

// wantedBands replaces the LTE bands among the present ones.
func wantedBands(bands []int, now, supported []string) (want []string, lacking string) {
	if slices.Contains(now, strconv.Itoa(bandAny)) {
		now = supported
	}
	var numbers []int
	for _, s := range now {
		if n, err := strconv.Atoi(s); err == nil && (n < bandLTE1 || n > lastLTE) && n > 0 {
			numbers = append(numbers, n)
		}
	}
	some := false
	for _, b := range bands {
		n := bandLTE + b
		if !slices.Contains(supported, strconv.Itoa(n)) {
			lacking += " " + strconv.Itoa(b)
			continue
		}
		numbers, some = append(numbers, n), true
	}
	if lacking != "" {
		lacking = "the modem does not have band" + lacking
	}
	if !some {
		return nil, "the modem has none of these bands, or ModemManager does not know"
	}
	slices.Sort(numbers)
	for _, n := range slices.Compact(numbers) {
		want = append(want, strconv.Itoa(n))
	}
	return want, lacking
}
