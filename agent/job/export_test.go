package job

// Transitions lists the (state, event) pairs of the table, as "state event".
func Transitions() []string {
	var out []string
	for p := range transitions {
		out = append(out, string(p.state)+" "+string(p.event))
	}
	return out
}
