package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lpad/config"
)

func TestUnits(t *testing.T) {
	one := config.Default()
	if u := one.Units(); len(u) != 1 || u[0].Name != config.Main || !u[0].Default || u[0].StateDir != one.StateDir || u[0].ChannelsFile() != "/run/lpad/channels" {
		t.Errorf("a device with one card: %+v", u)
	}
	cfg, err := config.ParseForTest([]byte(`
version: 1
card: {baud: 9600, at_port: /dev/ttyUSB2}
network: {dead_man: 5m, backend: none}
cards:
  main: {modem: {slot: "1"}}
  spare:
    default: true
    card: {backend: pcsc, reader: Gemalto, atr: "3B9F*"}
    network: {dead_man: 7m}
  third:
    card: {at_port: /dev/ttyUSB7}
`))
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		name, state, channels, port, reader, slot, deadMan string
		chosen, modem                                      bool
	}
	want := []row{
		{"main", "/var/lib/lpad", "/run/lpad/channels", "/dev/ttyUSB2", "", "1", "5m0s", false, true},
		{"spare", "/var/lib/lpad/cards/spare", "/run/lpad/channels-spare", "/dev/ttyUSB2", "Gemalto", "", "7m0s", true, false},
		{"third", "/var/lib/lpad/cards/third", "/run/lpad/channels-third", "/dev/ttyUSB7", "", "", "5m0s", false, true},
	}
	units := cfg.Units()
	for i, u := range units {
		got := row{u.Name, u.StateDir, u.ChannelsFile(), u.Card.ATPort, u.Card.Reader, u.Modem.Slot, u.Network.DeadMan.String(), u.Default, u.Card.ByModem()}
		if i >= len(want) || got != want[i] || u.Card.Baud != 9600 || u.Cards != nil {
			t.Errorf("%+v", got)
		}
	}
	if len(units) != len(want) {
		t.Errorf("%d units", len(units))
	}
}

// A drop-in may add to a card, and the origin of a fault is the file that says
// it, wherever the card has the value from.
func TestCardsInLayers(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("version: 1\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	main := write("lpad.yml", "card: {baud: 1}\ncards: {a: {card: {reader: A}}, b: }\n")
	write("10.yaml", "cards: {b: {card: {reader: B, baud: 9600}}}\n")
	_, _, err := config.Load(main, dir, nil)
	if err == nil || strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), main+": cards.a.card.baud: 1 is not one of") {
		t.Errorf("error %v", err)
	}
	write("20.yaml", "cards: {a: {card: {baud: 9600}}}\n")
	cfg, origins, err := config.Load(main, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if u := cfg.Units(); len(u) != 2 || !u[0].Default || u[1].Card.Reader != "B" || origins["cards.b.card.reader"] != filepath.Join(dir, "10.yaml") {
		t.Errorf("%+v, %v", u, origins)
	}
}

func TestCardsRefused(t *testing.T) {
	dir := t.TempDir()
	port, link := filepath.Join(dir, "port"), filepath.Join(dir, "link")
	if err := os.WriteFile(port, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(port, link); err != nil {
		t.Fatal(err)
	}
	many := ""
	for i := range 17 {
		many += "  c" + string(rune('a'+i)) + ": {card: {reader: " + string(rune('a'+i)) + "}}\n"
	}
	for _, c := range []struct{ cards, want string }{
		{"[a, b]", "cards: is a section with the names of cards below it"},
		{"{A: }", "cards.A: the name of a card has"},
		{"{1a: }", "cards.1a: the name of a card has"},
		{"{a: 3}", "cards.a: is a section with keys below it"},
		{"{a: {rsp: {}}}", "cards.a.rsp: unknown key"},
		{"{a: {card: {redaer: x}}}", "cards.a.card.redaer: unknown key, is card.reader meant?"},
		{"{a: {card: {baud: fast}}}", "cards.a.card.baud: is not a number"},
		{"{a: {default: 1}}", "cards.a.default: is not a true or false"},
		{"{a: {modem: {slot: \"10\"}}}", `cards.a.modem.slot: "10" is no number of a slot`},
		{"{a: {card: {atr: XYZ}}}", "cards.a.card.atr: is no answer to reset"},
		{"{a: {card: {reader: A}}, b: {card: {reader: A}}}", "cards.b.card.reader: leads to the same card as that of a"},
		{"{a: , b: }", "cards.b.card.reader: leads to the same card as that of a"},
		{"{a: {default: true, card: {reader: A}}, b: {default: true}}", "2 cards are the default"},
		{"{a: {card: {at_port: " + port + "}}, b: {card: {at_port: " + link + "}}}", "cards.b.card.at_port: leads to the same card as that of a"},
		{"{a: {card: {at_port: /dev/a}}, b: {card: {at_port: /dev/b}}}", "cards.a.modem.device: is empty"},
		{"{a: {card: {at_port: /dev/a}, modem: {device: /sys/x}}, b: {card: {at_port: /dev/b}, modem: {device: /sys/x}}}", "cards.b.modem.device: is that of a too"},
		{"\n" + many, "17 cards, at most 16"},
	} {
		_, err := config.ParseForTest([]byte("version: 1\ncards: " + c.cards + "\n"))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.cards, err, c.want)
		}
	}
	for atr, ok := range map[string]bool{"": true, "3B 9F:96": true, "3b9?*": true, "3B9*": true, "*": true, "3B9": false, "3B*9F": false, strings.Repeat("3B", 34): false} {
		cfg := config.Default()
		cfg.Card.ATR = atr
		if err := cfg.Validate(); (err == nil) != ok {
			t.Errorf("ATR %q: %v", atr, err)
		}
	}
}
