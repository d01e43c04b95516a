package modemtest

import (
	"strings"
	"time"
)

// Fault is trouble with one command. The zero value of each field means that
// this trouble does not happen.
type Fault struct {
	Command string // beginning of the command line after AT, any case: "+CGLA", "+CFUN=0"; "" is every command
	Port    string // only on this port; "" is every port
	Skip    int    // lets so many matching commands pass before the first trouble
	Times   int    // troubles so many commands, then is gone; 0: until removed

	URC      string        // is written between the command and its answer
	Delay    time.Duration // before the answer: a late answer, when longer than the host waits
	Answer   string        // instead of the command's own answer: "ERROR", "+CME ERROR: 13", or lines parted by \n
	Lost     bool          // no answer at all
	Hangup   bool          // the port hangs up instead of an answer
	Executed bool          // with Answer, Lost or Hangup: the command has run all the same
}

// AddFault orders trouble. The returned function ends it. Of several faults
// that match a command the oldest strikes.
func (m *Modem) AddFault(f Fault) (remove func()) {
	f.Command = strings.ToUpper(f.Command)
	m.mu.Lock()
	defer m.mu.Unlock()
	p := &f
	if f.Times == 0 {
		f.Times = -1
	}
	m.faults = append(m.faults, p)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		p.Times = 0
	}
}

// Mute lets the modem run the commands which begin with command, and say
// nothing. The returned function ends it.
func (m *Modem) Mute(command string) (unmute func()) {
	return m.AddFault(Fault{Command: command, Lost: true})
}

// InjectURC writes text as an unsolicited line on every open port.
func (m *Modem) InjectURC(text string) { m.urc(text, nil) }

// fault takes the trouble ordered for a command line, if any.
func (m *Modem) fault(port, command string) (Fault, bool) {
	command = strings.ToUpper(command)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.faults {
		if f.Times == 0 || !strings.HasPrefix(command, f.Command) || f.Port != "" && f.Port != port {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times > 0 {
			f.Times--
		}
		return *f, true
	}
	return Fault{}, false
}
