package atport

import "lpad/modem"

// Places are the paths under which the port is looked for, strangers marked
// with a question mark.
func (p *Port) Places() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, place := range p.places() {
		if place.stranger {
			place.path += "?"
		}
		out = append(out, place.path)
	}
	return out
}

// Opened is what happens when the port at path was opened and the modem has said
// who it is.
func (p *Port) Opened(path string, id modem.Identity) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.path, p.id, p.quirks = path, id, p.cfg.Quirks.Find(id)
	p.note()
}
