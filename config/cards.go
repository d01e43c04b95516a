package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Named is one of several cards. What its section does not say is as the
// sections at the top have it.
type Named struct {
	Name    string  `key:"-"`
	Default bool    `key:"default"` // it is meant by a question that names none
	Card    Card    `key:"card"`
	Modem   Modem   `key:"modem"`
	Network Network `key:"network"`
}

// Main is the name of the only card of a device, whose state is in the state
// directory itself. Of several cards the one of this name has it there too, so
// that a device that gets a second card keeps the jobs of its first.
const Main = "main"

// Unit is the configuration of one card: a whole one, with a state directory
// of its own.
type Unit struct {
	Config
	Name    string
	Default bool
}

// Units lists the cards by name, with exactly one default.
func (c Config) Units() []Unit {
	if len(c.Cards) == 0 {
		return []Unit{{c, Main, true}}
	}
	units := make([]Unit, len(c.Cards))
	chosen := max(0, slices.IndexFunc(c.Cards, func(n Named) bool { return n.Default }))
	for i, n := range c.Cards {
		u := Unit{c, n.Name, i == chosen}
		u.Cards, u.Card, u.Modem, u.Network = nil, n.Card, n.Modem, n.Network
		if n.Name != Main {
			u.StateDir = filepath.Join(c.StateDir, cardsKey, n.Name)
		}
		units[i] = u
	}
	return units
}

// ChannelsFile is where the open channels of the card's modem are written down:
// beside the socket, since it is void after a boot.
func (u Unit) ChannelsFile() string {
	name := "channels"
	if u.Name != Main {
		name += "-" + u.Name
	}
	return filepath.Join(filepath.Dir(u.Socket), name)
}

// ParametersFile is where hooks find the parameters of the card's profile while
// they run.
func (u Unit) ParametersFile() string {
	name := "parameters"
	if u.Name != Main {
		name += "-" + u.Name
	}
	return filepath.Join(filepath.Dir(u.Socket), name+".json")
}

// ByModem says whether the card is reached through a modem's port.
func (c Card) ByModem() bool { return c.Backend == "at" || c.Backend == "auto" && c.ATPort != "" }

const (
	cardsKey = "cards"
	maxCards = 16
)

var cardName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// cards checks the section of several cards: names, and below each the keys of
// the sections that a card can have of its own.
func (c *checker) cards(value any) map[string]any {
	named, ok := value.(map[string]any)
	if !ok && value != nil {
		c.fault(cardsKey, "is a section with the names of cards below it")
	}
	out := map[string]any{}
	own := schema{"default": Key{Name: "default", Kind: Switch}}
	for name, key := range c.schema {
		if section, _, _ := strings.Cut(name, "."); section == "card" || section == "modem" || section == "network" {
			own[name] = key
		}
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		key := cardsKey + "." + name
		keys, ok := named[name].(map[string]any)
		switch {
		case !cardName.MatchString(name):
			c.fault(cut(key), "the name of a card has at most 32 of a-z, 0-9 and -, and begins with a letter")
		case !ok && named[name] != nil:
			c.fault(key, "is a section with keys below it")
		default:
			one := checker{schema: own, origin: c.origin, base: key + ".", faults: c.faults}
			out[name] = one.section("", keys)
			c.keys = append(append(c.keys, key), one.keys...)
		}
	}
	return out
}

// validateCards checks each card, and that no two have the same way.
func (c Config) validateCards(v *validator) {
	if len(c.Cards) > maxCards {
		v.fault(cardsKey, fmt.Sprintf("%d cards, at most %d are served", len(c.Cards), maxCards))
	}
	defaults := 0
	ways := map[string]string{} // to a card, with the name of the card that has it
	for _, u := range c.Units() {
		v.base = ""
		if len(c.Cards) > 0 {
			v.base = cardsKey + "." + u.Name + "."
		}
		u.Card.validate(v)
		u.Modem.validate(v)
		u.Network.validate(v)
		key, way := u.way()
		if other, taken := ways[way]; taken {
			v.fault(key, "leads to the same card as that of "+other)
		}
		ways[way] = u.Name
		if len(c.Cards) > 1 && u.Card.ByModem() && u.Modem.Manage != "none" && u.Network.Backend != "none" {
			device := "device " + u.Modem.Device
			if other, taken := ways[device]; taken && u.Modem.Device != "" {
				v.fault("modem.device", "is that of "+other+" too")
			}
			ways[device] = u.Name
			if u.Modem.Device == "" {
				v.fault("modem.device", "is empty: of several cards each must say which modem is its own")
			}
		}
	}
	v.base = ""
	for _, n := range c.Cards {
		if n.Default {
			defaults++
		}
	}
	if defaults > 1 {
		v.fault(cardsKey, fmt.Sprintf("%d cards are the default, at most one can be", defaults))
	}
}

// way names the way to a card, and the key that says it. Ports are compared by
// where they lead, as far as that can be seen now.
func (u Unit) way() (key, way string) {
	if u.Card.ByModem() {
		port := filepath.Clean(u.Card.ATPort)
		if real, err := filepath.EvalSymlinks(port); err == nil {
			port = real
		}
		return "card.at_port", "port " + port
	}
	return "card.reader", "reader " + u.Card.Reader + " with " + u.Card.ATR
}

func (m Modem) validate(v *validator) {
	v.oneOf("modem.manage", m.Manage, "auto", "modemmanager", "none")
	v.oneOf("modem.inhibit", m.Inhibit, "auto", "never", "always")
	if m.QuirksDir != "" {
		v.path("modem.quirks_dir", m.QuirksDir)
	}
	if len(m.Slot) > 1 || strings.Trim(m.Slot, "0123456789") != "" {
		v.fault("modem.slot", fmt.Sprintf("%q is no number of a slot, 0 to 9", cut(m.Slot)))
	}
}
