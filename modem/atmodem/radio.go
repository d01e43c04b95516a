package atmodem

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"lpad/modem"
)

// The settings of the radio that have a command of their own: names for
// [Modem.Setting] and [Modem.Set].
const (
	EDRX = "+CEDRXS" // a line for each access technology that has it: 4,"0101"
	PSM  = "+CPSMS"  // one line: 1,,,"00100001","00000101"; 0 when it is off
	SMSC = "+CSCA"   // one line: "+491710760000",145; it is on the SIM
)

// maxSetting bounds a setting, which comes from a modem or a journal.
const maxSetting = 128

// Setting reads a setting, in a form that can be compared and written again.
// None of a list is no error; [at.Refused] means that the modem does not have it.
func (m *Modem) Setting(ctx context.Context, name string) ([]string, error) {
	lines, err := m.ask(ctx, "AT"+name+"?", name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return parseSetting(name, lines)
}

// parseSetting brings what modems write into one form.
func parseSetting(name string, lines []string) ([]string, error) {
	var out []string
	for _, line := range lines {
		f := fields(line)
		switch name {
		case EDRX: // a modem lists those that are off with no value, or as technology 0
			act, value := field(f, 0), field(f, 1)
			if entry := act + `,"` + value + `"`; len(act) == 1 && act > "0" && digits(act) && len(value) == 4 && binary(value) && !slices.Contains(out, entry) {
				out = append(out, entry)
			}
		case PSM:
			const tau, active = 3, 4
			switch mode, tau, active := field(f, 0), field(f, tau), field(f, active); {
			case mode == "1" && len(tau) == 8 && len(active) == 8 && binary(tau+active):
				return []string{psm(tau, active)}, nil
			case mode == "0":
				return []string{"0"}, nil
			}
		case SMSC:
			if number := field(f, 0); len(f) > 0 && (number == "" || digits(strings.TrimPrefix(number, "+"))) {
				return []string{smsc(number, field(f, 1))}, nil
			}
		}
	}
	if name != EDRX {
		return nil, fmt.Errorf("read %s: %w", name, ErrUnreadable)
	}
	slices.Sort(out)
	return out, nil
}

func psm(tau, active string) string { return `1,,,"` + tau + `","` + active + `"` }

// smsc writes a number with its type: 145 is international, 129 not known.
func smsc(number, kind string) string {
	if _, err := strconv.ParseUint(kind, 10, 8); err != nil {
		kind = "129"
		if strings.HasPrefix(number, "+") {
			kind = "145"
		}
	}
	return `"` + number + `",` + kind
}

func binary(s string) bool { return strings.Trim(s, "01") == "" }

// WantedSetting is what a setting becomes by the wishes about it, in the form of
// [Modem.Setting]. What of the present value they say nothing about stays.
func WantedSetting(name string, r *modem.Radio, now []string) []string {
	switch {
	case name == EDRX:
		want := slices.Clone(now)
		for _, e := range r.EDRX {
			entry := fmt.Sprintf(`%d,"%04b"`, e.AcT, e.Value&0xF)
			if i := ofTechnology(want, entry); i >= 0 {
				want[i] = entry
			} else {
				want = append(want, entry)
			}
		}
		slices.Sort(want)
		return want
	case name == PSM && r.PSM != nil:
		return []string{psm(fmt.Sprintf("%08b", r.PSM.TAU), fmt.Sprintf("%08b", r.PSM.Active))}
	}
	return []string{smsc(r.SMSC, "")}
}

// ofTechnology is where the entry of the same technology is; -1: nowhere.
func ofTechnology(entries []string, entry string) int {
	for i, e := range entries {
		if e != "" && entry != "" && e[0] == entry[0] {
			return i
		}
	}
	return -1
}

// Set writes a setting, as [Modem.Setting] or [WantedSetting] has it, over the
// present one, and reads it back: ErrNotTaken if the modem shows another.
func (m *Modem) Set(ctx context.Context, name string, want []string) error {
	now, err := m.Setting(ctx, name)
	if err != nil {
		return err
	}
	for _, cmd := range settingCommands(name, now, want) {
		if err := m.command(ctx, cmd); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	if now, err = m.Setting(ctx, name); err == nil && !slices.Equal(now, want) {
		err = fmt.Errorf("set %s: %w", name, ErrNotTaken)
	}
	return err
}

// settingCommands are those that make want of now. Only what the forms above
// can be made of gets into a command.
func settingCommands(name string, now, want []string) []string {
	var out []string
	if name == EDRX {
		for _, line := range now {
			if line != "" && ofTechnology(want, line) < 0 {
				out = append(out, "AT+CEDRXS=0,"+line[:1])
			}
		}
	}
	for _, line := range want {
		if line == "" || len(line) > maxSetting || strings.Trim(line, `0123456789,"+`) != "" {
			continue
		}
		if name == EDRX {
			line = "1," + line
		}
		out = append(out, "AT"+name+"="+line)
	}
	return out
}
