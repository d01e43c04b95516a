package atmodem

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"lpad/modem"
	"lpad/modem/at"
)

// Registration is where the modem is registered, for packet data first (LTE,
// then 2G and 3G), then at all. The names of the network are asked for only when
// it serves us, and may be missing.
func (m *Modem) Registration(ctx context.Context) (modem.Registration, error) {
	best := modem.Registration{State: modem.RegistrationUnknown}
	known := false
	var last error
	for _, name := range []string{"+CEREG", "+CGREG", "+CREG"} {
		r, err := m.registration(ctx, name)
		if err != nil {
			last = err
			if m.conn.Err() != nil || ctx.Err() != nil {
				break
			}
			continue
		}
		if !known || rank(r.State) > rank(best.State) {
			best, known = r, true
		}
		if r.State.Registered() {
			break
		}
	}
	if !known {
		return best, fmt.Errorf("read registration: %w", last)
	}
	if best.State.Registered() {
		m.network(ctx, &best)
	}
	return best, nil
}

// rank orders what several domains say: who is registered is, and a refusal says
// more than a search.
func rank(s modem.RegistrationState) int {
	switch s {
	case modem.RegisteredHome, modem.RegisteredRoaming:
		return 4
	case modem.Denied:
		return 3
	case modem.Searching:
		return 2
	case modem.NotRegistered:
		return 1
	}
	return 0
}

// registration reads one domain: +CEREG: <n>,<stat>[,<tac>,<ci>,<AcT>] (TS
// 27.007, section 10.1.22). A message "+CEREG: <stat>" that came at the same
// moment looks like an answer with one value; the one with two counts.
func (m *Modem) registration(ctx context.Context, name string) (modem.Registration, error) {
	lines, err := m.ask(ctx, "AT"+name+"?", name)
	if err != nil {
		return modem.Registration{}, err
	}
	for _, line := range lines {
		f := fields(line)
		if len(f) < 2 {
			continue
		}
		_, err := strconv.Atoi(f[0])
		stat, statErr := strconv.Atoi(f[1])
		if err != nil || statErr != nil || len(f[0]) > 1 {
			continue
		}
		return modem.Registration{State: state(stat), Access: access(field(f, 4))}, nil
	}
	return modem.Registration{}, fmt.Errorf("AT%s?: %w", name, ErrUnreadable)
}

// state is <stat> in words. Registered for short messages only (6, 7) and for
// emergency calls only (8) is no registration for data.
func state(stat int) modem.RegistrationState {
	switch stat {
	case 0, 6, 7, 8:
		return modem.NotRegistered
	case 1, 9:
		return modem.RegisteredHome
	case 2:
		return modem.Searching
	case 3:
		return modem.Denied
	case 5, 10:
		return modem.RegisteredRoaming
	}
	return modem.RegistrationUnknown
}

// access is <AcT> in words (TS 27.007, section 7.3).
func access(act string) string {
	switch act {
	case "0", "1", "3", "8":
		return "gsm"
	case "2", "4", "5", "6":
		return "umts"
	case "7", "9", "10", "12", "13":
		return "lte"
	case "11":
		return "5gnr"
	}
	return ""
}

// network adds the number and the name of the serving network. Two formats have
// to be set for that; the long name is the default that others expect.
func (m *Modem) network(ctx context.Context, r *modem.Registration) {
	for _, q := range []struct {
		format int
		to     *string
	}{{2, &r.PLMN}, {0, &r.Operator}} {
		if err := m.command(ctx, fmt.Sprintf("AT+COPS=3,%d", q.format)); err != nil {
			continue // then the format below is not ours
		}
		lines, err := m.ask(ctx, "AT+COPS?", "+COPS")
		if err != nil {
			continue
		}
		for _, line := range lines {
			f := fields(line)
			if field(f, 1) != strconv.Itoa(q.format) || q.format == 2 && !digits(field(f, 2)) {
				continue
			}
			*q.to = field(f, 2)
			if a := access(field(f, 3)); r.Access == "" {
				r.Access = a
			}
		}
	}
}

// Detach leaves the network (AT+COPS=2), or at least its packet domain where the
// modem refuses that. It may take two minutes.
func (m *Modem) Detach(ctx context.Context) error {
	return m.attach(ctx, "detach", "AT+COPS=2", "AT+CGATT=0")
}

// Attach has the modem choose a network (AT+COPS=0) and attach to its packet
// domain. It may take two minutes; that the modem agrees does not yet mean that
// it is registered.
func (m *Modem) Attach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	_, first := m.conn.Command(ctx, "AT+COPS=0")
	if first != nil && !at.Refused(first) {
		return fmt.Errorf("attach: %w", first)
	}
	if _, err := m.conn.Command(ctx, "AT+CGATT=1"); err != nil {
		return fmt.Errorf("attach: %w", errors.Join(err, first))
	}
	return nil
}

// attach tries one command after the other.
func (m *Modem) attach(ctx context.Context, doing string, cmds ...string) error {
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	var first error
	for _, cmd := range cmds {
		_, err := m.conn.Command(ctx, cmd)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
		if !at.Refused(err) {
			break
		}
	}
	return fmt.Errorf("%s: %w", doing, first)
}

// Clock is the time that the modem has, from the network as a rule. Before that,
// modems show the year 1970, 1980 or that of their making: ErrNoTime.
func (m *Modem) Clock(ctx context.Context) (time.Time, error) {
	lines, err := m.ask(ctx, "AT+CCLK?", "+CCLK")
	if err != nil {
		return time.Time{}, fmt.Errorf("read clock: %w", err)
	}
	for _, line := range lines {
		if t, err := parseClock(unquote(line)); err == nil {
			if t.Year() < firstYear {
				return time.Time{}, fmt.Errorf("read clock: %w", ErrNoTime)
			}
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("read clock: %w", ErrUnreadable)
}

// firstYear: an older time is that of a clock that was never set.
const firstYear = 2025

// parseClock reads "yy/MM/dd,hh:mm:ss±zz" (TS 27.007, section 8.15): local time
// and its offset in quarters of an hour. Some modems write the year in full, some
// leave the offset away (then it is UTC).
func parseClock(s string) (time.Time, error) {
	zone := time.UTC
	if i := strings.LastIndexAny(s, "+-"); i > 0 {
		quarters, err := strconv.Atoi(s[i:])
		if err != nil || quarters < -96 || quarters > 96 {
			return time.Time{}, ErrUnreadable
		}
		zone = time.FixedZone("", quarters*15*60)
		s = s[:i]
	}
	t, err := time.ParseInLocation("2006/01/02,15:04:05", s, zone)
	if err == nil {
		return t, nil
	}
	// Two digits: 70 and 80 are clocks that were never set, not the future.
	if t, err = time.ParseInLocation("06/01/02,15:04:05", s, zone); err != nil {
		return time.Time{}, ErrUnreadable
	}
	return t, nil
}
