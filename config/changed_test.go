package config_test

import (
	"slices"
	"testing"
	"time"

	"lpad/config"
)

func TestChanged(t *testing.T) {
	if keys := config.Changed(config.Default(), config.Default()); len(keys) != 0 {
		t.Errorf("nothing has changed, and yet %q", keys)
	}
	for _, tc := range []struct {
		name   string
		change func(*config.Config)
		want   []string
	}{
		{"text", func(c *config.Config) { c.Log.Level = "debug" }, []string{"log.level"}},
		{"duration and switch", func(c *config.Config) { c.Network.DeadMan = time.Hour; c.RSP.AllowTestCI = true }, []string{"network.dead_man", "rsp.allow_test_ci"}},
		{"list and map", func(c *config.Config) {
			c.RSP.ISDRAIDs = []string{"a0"}
			c.RSP.Addresses = map[string]string{"h": "127.0.0.1:1"}
		}, []string{"rsp.addresses", "rsp.isdr_aids"}},
		{"empty is none", func(c *config.Config) { c.RSP.ISDRAIDs = []string{}; c.RSP.Addresses = map[string]string{} }, nil},
		{"a card comes", func(c *config.Config) { c.Cards = append(c.Cards, config.Named{Name: "spare"}) }, []string{"cards.spare"}},
		{"a card is another", func(c *config.Config) { c.Cards = []config.Named{{Name: "main", Card: config.Card{ATPort: "/dev/x"}}} }, []string{"cards.main.card.at_port"}},
		{"a card goes", func(c *config.Config) { c.Cards = nil }, []string{"cards.main"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			old := config.Default()
			old.Cards = []config.Named{{Name: "main"}}
			next := old
			tc.change(&next)
			got := config.Changed(old, next)
			if !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}
