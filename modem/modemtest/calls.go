package modemtest

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// BusCall is a method call that somebody on the device has made.
type BusCall struct {
	PID    uint32 // of the caller; 0 if it has gone already
	Name   string // the service that is called, by whatever name
	Path   dbus.ObjectPath
	Method string // with its interface
}

// maxCallsWaiting is how many calls may wait for the one who looks at them.
const maxCallsWaiting = 4096

// WatchCalls calls fn with every method call to ModemManager and NetworkManager,
// as the bus hands it on, until stop. Calls to other services are not told.
func (s *Stack) WatchCalls(ctx context.Context, fn func(BusCall)) (stop func() error, err error) {
	conn, err := s.DialBus()
	if err != nil {
		return nil, err
	}
	rules := []string{"type='method_call',destination='" + mmName + "'", "type='method_call',destination='" + nmName + "'",
		"type='method_call',path_namespace='" + string(mmPath) + "'", "type='method_call',path_namespace='" + string(nmPath) + "'"}
	if err := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.Monitoring.BecomeMonitor", 0, rules, uint32(0)).Err; err != nil {
		return nil, fmt.Errorf("modemtest: watch the bus: %w", err)
	}
	messages := make(chan *dbus.Message, maxCallsWaiting)
	conn.Eavesdrop(messages)
	ended := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		callers := map[string]uint32{}
		for {
			select {
			case <-ended:
				return
			case m, ok := <-messages:
				if !ok {
					return // the bus has gone
				}
				if m.Type != dbus.TypeMethodCall {
					continue
				}
				sender := header(m, dbus.FieldSender)
				pid, known := callers[sender]
				if !known {
					// One that has gone has no number.
					_ = s.bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixProcessID", 0, sender).Store(&pid)
					callers[sender] = pid
				}
				path, _ := m.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
				fn(BusCall{PID: pid, Name: header(m, dbus.FieldDestination), Path: path, Method: header(m, dbus.FieldInterface) + "." + header(m, dbus.FieldMember)})
			}
		}
	}()
	return func() error {
		close(ended)
		<-done
		return conn.Close()
	}, nil
}

func header(m *dbus.Message, field dbus.HeaderField) string {
	text, _ := m.Headers[field].Value().(string)
	return text
}
