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

// tunable is what has a setting: the modem or its SIM, and the property.
func tunable(name string) (iface, property string) {
	switch name {
	case Modes:
		return ifaceModem, "CurrentModes"
	case Bands:
		return ifaceModem, "CurrentBands"
	}
	return ifaceSIM, "PreferredNetworks"
}

// tuned is the object that has a setting.
func (c *Client) tuned(ctx context.Context, m *Modem, iface string) (dbus.ObjectPath, error) {
	if iface == ifaceModem {
		return m.Path, nil
	}
	p, err := c.bus.Properties(ctx, Service, m.Path, ifaceModem)
	return p.Path("Sim"), err
}

// Setting reads a setting, sorted where order means nothing.
func (c *Client) Setting(ctx context.Context, m *Modem, name string) ([]string, error) {
	iface, property := tunable(name)
	path, err := c.tuned(ctx, m, iface)
	if err != nil {
		return nil, err
	}
	p, err := c.bus.Properties(ctx, Service, path, iface)
	return settingOf(p[property].Value()), err
}

func settingOf(v any) (out []string) {
	switch v := v.(type) {
	case []uint32:
		for _, n := range v {
			out = append(out, strconv.Itoa(int(n)))
		}
		slices.Sort(out)
	case []any: // of numbers, one by one
		for _, n := range v {
			out = append(out, fmt.Sprint(n))
		}
	case [][]any:
		for _, e := range v {
			out = append(out, strings.Join(settingOf(e), ","))
		}
	}
	return out
}

// Set makes a setting. [systembus.ErrUnsupported] if ModemManager's plugin for
// the modem does not know how.
func (c *Client) Set(ctx context.Context, m *Modem, name string, want []string) error {
	iface, _ := tunable(name)
	path, err := c.tuned(ctx, m, iface)
	if err != nil {
		return err
	}
	arg, err := settingArg(name, want)
	if err != nil {
		return err
	}
	// Each by its own name: the D-Bus policy of the package is held against them.
	switch name {
	case Modes:
		err = c.bus.Call(ctx, Service, path, ifaceModem+".SetCurrentModes", arg).Err()
	case Bands:
		err = c.bus.Call(ctx, Service, path, ifaceModem+".SetCurrentBands", arg).Err()
	default:
		err = c.bus.Call(ctx, Service, path, ifaceSIM+".SetPreferredNetworks", arg).Err()
	}
	return notThere(err)
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
func (c *Client) WantedSetting(ctx context.Context, m *Modem, name string, r *modem.Radio, now []string) (want []string, lacking string, err error) {
	if name == Preferred {
		for _, plmn := range r.PreferredPLMNs {
			want = append(want, plmn+","+strconv.Itoa(accessLTE))
		}
		return want, "", nil
	}
	p, err := c.bus.Properties(ctx, Service, m.Path, ifaceModem)
	if name == Modes {
		want, lacking = wantedModes(r.RATs, settingOf(p["SupportedModes"].Value()))
	} else {
		want, lacking = wantedBands(r.LTEBands, now, settingOf(p["SupportedBands"].Value()))
	}
	return want, lacking, err
}

// wantedModes chooses the combination that allows exactly what is wanted and
// this modem has.
func wantedModes(rats, supported []string) (want []string, lacking string) {
	mask, all := 0, 0
	for _, rat := range rats {
		switch rat {
		case "gsm":
			mask |= mode2G
		case "umts":
			mask |= mode3G
		case "nr":
			mask |= mode5G
		case "lte-m", "nb-iot":
			lacking = "ModemManager does not tell lte-m and nb-iot from lte"
			mask |= mode4G
		default:
			mask |= mode4G
		}
	}
	for _, s := range supported {
		all |= allowed(s)
	}
	if mask&^all != 0 {
		lacking = "the modem does not have all of " + strings.Join(rats, ", ")
	}
	best := ""
	for _, s := range supported { // without a preference, if that can be had
		if mask&all != 0 && allowed(s) == mask&all && (best == "" || strings.HasSuffix(s, ",0")) {
			best = s
		}
	}
	if best == "" {
		return nil, "the modem cannot be limited to " + strings.Join(rats, ", ")
	}
	return strings.Split(best, ","), lacking
}

// allowed are the modes that a combination allows; "any" says nothing about it.
func allowed(combination string) int {
	bits, _, _ := strings.Cut(combination, ",")
	n, err := strconv.Atoi(bits)
	if err != nil || n > 2*mode5G {
		return 0
	}
	return n &^ modeCS
}

// wantedBands replaces the LTE bands among the present ones.
func wantedBands(bands []int, now, supported []string) (want []string, lacking string) {
	if slices.Contains(now, strconv.Itoa(bandAny)) {
		now = supported
	}
	for _, s := range now {
		if n, err := strconv.Atoi(s); err == nil && (n < bandLTE1 || n > lastLTE) && n > 0 {
			want = append(want, s)
		}
	}
	some := false
	for _, b := range bands {
		s := strconv.Itoa(bandLTE + b)
		switch {
		case !slices.Contains(supported, s):
			lacking += " " + strconv.Itoa(b)
		case !slices.Contains(want, s):
			want, some = append(want, s), true
		}
	}
	if !some {
		return nil, "the modem has none of these bands, or ModemManager does not know"
	}
	if lacking != "" {
		lacking = "the modem does not have band" + lacking
	}
	slices.Sort(want)
	return want, lacking
}
