package quirks_test

import (
	"testing"

	"lpad/modem"
	"lpad/modem/quirks"
)

func TestEveryLineFindsItsExample(t *testing.T) {
	lines := quirks.Builtin().Lines()
	if len(lines) == 0 {
		t.Fatal("the built-in table is empty: it cannot be read")
	}
	for _, l := range lines {
		t.Run(l.Name, func(t *testing.T) {
			e := l.Example
			q := quirks.Builtin().Find(modem.Identity{Manufacturer: e.Manufacturer, Model: e.Model, Revision: e.Revision})
			if len(q.Names) == 0 || q.Names[len(q.Names)-1] != l.Name {
				t.Errorf("%+v is found to be %v", e, q.Names)
			}
			if len(l.Sources) == 0 {
				t.Error("no source")
			}
		})
	}
}

func TestUnknownModem(t *testing.T) {
	q := quirks.Builtin().Find(modem.Identity{Manufacturer: "Nobody", Model: "X1"})
	if len(q.Names) != 0 || q.APDU.ChannelLe != 1 || len(q.Ladder()) != 5 {
		t.Errorf("got %+v", q)
	}
}
