package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/client"
)

func (a *app) probeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "probe",
		Short: "what the modem or reader can do, found out by doing it",
		Long: `Find out what the modem or reader can do, by doing it: every capability with a verdict and its evidence, what
lpad will use, what is known of the modem and from where, and who else uses it. It takes seconds, changes nothing,
and is refused while a job needs the card; where ModemManager and lpad share one port, the link is down meanwhile.

Identifiers are shortened: the output, best with --json, can be sent to anybody.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				p, err := c.Probe(ctx)
				if err != nil {
					return err
				}
				if a.json {
					if err := a.ui.document(p); err != nil {
						return err
					}
				} else {
					a.ui.probe(p)
				}
				if p.Problem != nil {
					return p.Problem
				}
				return nil
			})
		},
	}
}

func (u *ui) probe(p api.Probe) {
	m := p.Managers
	path := p.Backend + " " + p.Path
	if p.Place != "" {
		path += " (" + p.Place + ")"
	}
	modem := strings.TrimSpace(p.Manufacturer + " " + p.Model)
	if p.Revision != "" {
		modem += ", firmware " + p.Revision
	}
	if p.IMEI != "" {
		modem += ", IMEI " + p.IMEI
	}
	u.facts([][2]string{
		{"lpad", p.Version + ", " + p.At.UTC().Format("2006-01-02 15:04:05 UTC")},
		{"path", path}, {"modem", modem}, {"network", m.Network},
		{"NetworkManager", m.NetworkManager}, {"ModemManager", managerLine(m)},
	})
	u.printf("\n")
	var rows [][]string
	for _, c := range p.Capabilities {
		rows = append(rows, []string{c.Name, c.Answer, first(c.Value, "-"), c.Evidence})
	}
	u.table([]string{"CAPABILITY", "VERDICT", "VALUE", "EVIDENCE"}, rows)
	u.printf("\n")
	uses := [][2]string{}
	if p.Usable {
		uses = [][2]string{
			{"lpad will use", "APDUs by " + p.APDUPath + ", ISD-R " + p.ISDR},
			{"", fmt.Sprintf("blocks of %d bytes, or as many as get through", p.BlockSize)},
			{"", "to enable: " + strings.Join(p.Enable, ", then ")},
		}
		if len(p.Ladder) > 0 {
			uses = append(uses, [2]string{"", "to have the SIM read again: " + strings.Join(p.Ladder, ", then ")})
		}
	}
	uses = append(uses, [2]string{"known as", strings.Join(p.Lines, ", ")})
	if l := p.Learned; l != nil {
		text := []string{"since " + l.At.UTC().Format("2006-01-02 15:04 UTC")}
		for _, one := range []struct{ what, value string }{{"APDUs by ", l.APDUPath}, {"SIM read again by ", l.Rung}, {"ICCID by ", l.ICCID}, {"ISD-R ", l.ISDR}} {
			if one.value != "" {
				text = append(text, one.what+one.value)
			}
		}
		if l.BlockSize > 0 {
			text = append(text, fmt.Sprintf("blocks of %d bytes", l.BlockSize))
		}
		uses = append(uses, [2]string{"learnt before", strings.Join(text, ", ")})
	}
	for _, list := range []struct {
		name string
		of   []string
	}{{"note", p.Notes}, {"source", p.Sources}} {
		for _, text := range list.of {
			uses = append(uses, [2]string{list.name, text})
		}
	}
	for _, c := range p.Capabilities {
		if c.Answer == api.AnswerNo && c.Next != "" {
			uses = append(uses, [2]string{c.Name, c.Next})
		}
	}
	u.facts(uses)
}

func managerLine(m api.Managers) string {
	line := m.ModemManager
	switch {
	case line == "":
		return "not running"
	case m.Problem != "":
		line += ": " + m.Problem
	}
	if m.Plugin != "" {
		line += ", plugin " + m.Plugin
	}
	if m.State != "" {
		line += ", modem " + m.State
	}
	if len(m.Ports) > 0 {
		line += ", on " + strings.Join(m.Ports, " ")
	}
	return line
}
