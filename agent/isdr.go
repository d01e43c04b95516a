package agent

import "lpad/config"

// ISDRs are the addresses under which the ISD-R is looked for, for whoever probes
// the way to the card.
func ISDRs(cfg config.RSP) [][]byte {
	var list [][]byte
	for _, aid := range aids(cfg.ISDRAIDs) {
		list = append(list, aid)
	}
	return list
}
