// Package systembus is lpad's one connection to the D-Bus system bus: calls
// that always end, properties, waiting for a condition by signals, and an
// error for each thing that can be wrong on the other side.
//
//	bus := systembus.New("")                  // DBUS_SYSTEM_BUS_ADDRESS, or the system's own
//	defer bus.Close()
//	var version string
//	err := bus.Property(ctx, modemManager, path, "org.freedesktop.ModemManager1", "Version").Store(&version)
//
// The connection is made at the first use and made again at the next use after
// it was lost; what depends on one certain connection (ModemManager ties an
// inhibition to it) asks [Bus.Connection]. Services are never started by a
// call: a service that does not run is [ErrAbsent].
//
// Signals are not interpreted. They wake up [Bus.Wait], which reads the state
// again: a lost or reordered signal can delay it, but never mislead it. Who
// wants what only a signal tells, such as a reason, takes [Bus.Listen].
//
// All methods of a Bus may be used from several goroutines. It exports nothing
// on the bus (godbus' Export would cost 1.4 MB of program).
package systembus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Bounds. A bus on the same machine answers in milliseconds; a service that
// talks to a modem before it answers may need a minute (Enable, 3GPP TS 27.007
// commands with 60 s and more).
const (
	dialTimeout   = 5 * time.Second
	callTimeout   = 2 * time.Minute
	unwatchBound  = 2 * time.Second
	rereadEvery   = time.Second            // state is read again although no signal came
	redialEvery   = 300 * time.Millisecond // while the bus itself is away
	signalBacklog = 256
)

// Service is somebody on the bus.
type Service struct {
	Name string // for people: "ModemManager"
	Bus  string // well-known name: "org.freedesktop.ModemManager1"
	Code string // first part of the codes of its faults: "modemmanager"
}

// Bus is a connection to a message bus. Make one with [New].
type Bus struct {
	address string
	turn    chan struct{} // holds one token; who has it may touch what follows
	link    *Connection   // nil: never connected
	closed  bool
}

// Connection is one connection of a [Bus], as long as it lasts. Services see
// another client when a Bus has connected again.
type Connection struct {
	conn    *dbus.Conn
	cancel  context.CancelFunc
	done    chan struct{} // closed when the connection is lost and dispatch has ended
	mu      sync.Mutex
	wakeups map[chan struct{}]func(*dbus.Signal) // nil: who waits does not listen
}

// New makes a Bus for the address, which is in D-Bus form
// ("unix:path=/run/dbus/system_bus_socket"); empty means what
// DBUS_SYSTEM_BUS_ADDRESS says, else the system's own. It does not connect.
func New(address string) *Bus {
	b := &Bus{address: address, turn: make(chan struct{}, 1)}
	b.turn <- struct{}{}
	return b
}

// Close ends the connection; services see the client leave. Calls in progress
// and later ones fail with [ErrBusDown].
func (b *Bus) Close() error {
	<-b.turn
	defer func() { b.turn <- struct{}{} }()
	b.closed = true
	if b.link == nil {
		return nil
	}
	link := b.link
	b.link = nil
	link.end()
	if err := link.conn.Close(); err != nil { // godbus remembers how closing went
		return fmt.Errorf("close the connection to the system bus: %w", err)
	}
	return nil
}

// Connection returns the present connection, made anew if there is none.
func (b *Bus) Connection(ctx context.Context) (*Connection, error) {
	select {
	case <-b.turn:
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to the system bus: %w", ctx.Err())
	}
	defer func() { b.turn <- struct{}{} }()
	if b.closed {
		return nil, &Error{kind: ErrBusDown, Text: "lpad has closed it"}
	}
	if b.link != nil {
		if b.link.Alive() {
			return b.link, nil
		}
		b.link.end()
		b.link = nil
	}
	link, err := dial(ctx, b.address)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("connect to the system bus: %w", ctx.Err())
		}
		return nil, &Error{kind: ErrBusDown, Text: err.Error(), cause: err}
	}
	b.link = link
	return link, nil
}

func dial(ctx context.Context, address string) (*Connection, error) {
	// The context of a godbus connection lives as long as the connection. This
	// one ends with the caller's only while we dial.
	connCtx, cancel := context.WithCancel(context.Background())
	dialCtx, dialled := context.WithTimeout(ctx, dialTimeout)
	defer dialled()
	stop := context.AfterFunc(dialCtx, cancel)
	options := []dbus.ConnOption{dbus.WithContext(connCtx), dbus.WithSignalHandler(dbus.NewSequentialSignalHandler())}
	var conn *dbus.Conn
	var err error
	if address == "" {
		conn, err = dbus.ConnectSystemBus(options...)
	} else {
		conn, err = dbus.Connect(address, options...)
	}
	if err == nil && !stop() {
		err = errors.Join(context.DeadlineExceeded, conn.Close())
	}
	if err != nil {
		stop()
		cancel()
		return nil, err
	}
	c := &Connection{conn: conn, cancel: cancel, done: make(chan struct{}), wakeups: map[chan struct{}]func(*dbus.Signal){}}
	signals := make(chan *dbus.Signal, signalBacklog)
	conn.Signal(signals)
	go c.dispatch(signals)
	return c, nil
}

// dispatch ends when godbus closes the channel, that is with the connection.
func (c *Connection) dispatch(signals <-chan *dbus.Signal) {
	defer close(c.done)
	for s := range signals {
		c.wake(s)
	}
	c.wake(nil)
}

// wake wakes who waits, after those that listen have heard the signal.
func (c *Connection) wake(s *dbus.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w, heard := range c.wakeups {
		if heard != nil && s != nil {
			heard(s)
		}
		select {
		case w <- struct{}{}:
		default: // it is awake already
		}
	}
}

// end closes the connection and waits for its goroutine.
func (c *Connection) end() {
	c.cancel() // godbus closes a connection whose context ends
	<-c.done
}

// Alive reports whether this connection still stands.
func (c *Connection) Alive() bool { return c.conn.Connected() }

// Answer is what a call brought.
type Answer struct {
	body []any
	err  error
}

// Err is the error of the call: an [*Error], or one that wraps the context's.
func (a Answer) Err() error { return a.err }

// Store puts the returned values into the variables that the pointers name.
func (a Answer) Store(into ...any) error {
	if a.err != nil {
		return a.err
	}
	if err := dbus.Store(a.body, into...); err != nil {
		return fmt.Errorf("answer on the system bus is of another type: %w", err)
	}
	return nil
}

// Body returns the values as they were decoded. dbus.Store gives a variant the
// signature of its Go value, which is another for structs; here it is the one
// that was sent.
func (a Answer) Body() ([]any, error) { return a.body, a.err }

// Call calls a method ("org.example.Interface.Method") of an object. It ends
// with ctx, and after two minutes at the latest.
func (b *Bus) Call(ctx context.Context, to Service, path dbus.ObjectPath, method string, args ...any) Answer {
	c, err := b.Connection(ctx)
	if err != nil {
		return Answer{err: err}
	}
	return c.Call(ctx, to, path, method, args...)
}

// Call is [Bus.Call] on this very connection, and fails when it is lost.
func (c *Connection) Call(ctx context.Context, to Service, path dbus.ObjectPath, method string, args ...any) Answer {
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	call := c.conn.Object(to.Bus, path).CallWithContext(bounded, method, dbus.FlagNoAutoStart, args...)
	if call.Err == nil {
		// godbus answers a call on its own goroutine through a channel, and
		// CallWithContext has waited for it.
		return Answer{body: call.Body}
	}
	err := explain(ctx, to, method, call.Err)
	if errors.Is(err, ErrBusDown) {
		c.cancel() // godbus notices a write that failed only at the next read
	}
	return Answer{err: err}
}

// Property reads one property; [Answer.Store] takes the plain value, without
// its variant.
func (b *Bus) Property(ctx context.Context, of Service, path dbus.ObjectPath, iface, name string) Answer {
	var v dbus.Variant
	if err := b.Call(ctx, of, path, "org.freedesktop.DBus.Properties.Get", iface, name).Store(&v); err != nil {
		return Answer{err: fmt.Errorf("property %s: %w", name, err)}
	}
	return Answer{body: []any{v.Value()}}
}

// Properties reads all properties of one interface of an object.
func (b *Bus) Properties(ctx context.Context, of Service, path dbus.ObjectPath, iface string) (Properties, error) {
	var p map[string]dbus.Variant
	err := b.Call(ctx, of, path, "org.freedesktop.DBus.Properties.GetAll", iface).Store(&p)
	return p, err
}

// Running reports whether somebody owns the service's name.
func (b *Bus) Running(ctx context.Context, s Service) (bool, error) {
	var owned bool
	err := b.Call(ctx, daemon, "/org/freedesktop/DBus", "org.freedesktop.DBus.NameHasOwner", s.Bus).Store(&owned)
	return owned, err
}

// Startable reports whether the bus could start the service: it is installed. lpad
// never has it started; see the package comment.
func (b *Bus) Startable(ctx context.Context, s Service) (bool, error) {
	var names []string
	err := b.Call(ctx, daemon, "/org/freedesktop/DBus", "org.freedesktop.DBus.ListActivatableNames").Store(&names)
	return slices.Contains(names, s.Bus), err
}

// Owner is the unique name of whoever owns the service's name: another one
// after the service was restarted. [ErrAbsent] if nobody does.
func (b *Bus) Owner(ctx context.Context, s Service) (string, error) {
	var owner string
	err := b.Call(ctx, daemon, "/org/freedesktop/DBus", "org.freedesktop.DBus.GetNameOwner", s.Bus).Store(&owner)
	return owner, err
}

var daemon = Service{Name: "the message bus", Bus: "org.freedesktop.DBus", Code: "bus"}

// Properties are the properties of an interface. The accessors return the zero
// value for one that is missing or of another type: what an older service does
// not have is not there.
type Properties map[string]dbus.Variant

// String is a string or object path.
func (p Properties) String(name string) string {
	switch v := p[name].Value().(type) {
	case string:
		return v
	case dbus.ObjectPath:
		return string(v)
	}
	return ""
}

// Path is an object path; "/", which D-Bus has for "none", becomes empty.
func (p Properties) Path(name string) dbus.ObjectPath {
	v, ok := p[name].Value().(dbus.ObjectPath)
	if !ok || v == "/" {
		return ""
	}
	return v
}

// Paths is a list of object paths.
func (p Properties) Paths(name string) []dbus.ObjectPath {
	v, ok := p[name].Value().([]dbus.ObjectPath)
	if !ok {
		return nil
	}
	return v
}

// Int is an integer of any kind that fits.
func (p Properties) Int(name string) int64 {
	switch v := p[name].Value().(type) {
	case int32:
		return int64(v)
	case uint32:
		return int64(v)
	case int64:
		return v
	case byte:
		return int64(v)
	case uint16:
		return int64(v)
	case int16:
		return int64(v)
	}
	return 0
}

// Bool is a truth value.
func (p Properties) Bool(name string) bool {
	v, ok := p[name].Value().(bool)
	return ok && v
}

// Wait calls check until it is done: at once, after every signal of the
// services, when one of them comes or goes, when the bus came back, and every
// second for what is told by no signal.
//
// check returns done with the result, or not done with the reason why not
// (nil if there is nothing to say), which explains the error if ctx ends
// first. [Transient] tells which errors of calls are only such reasons.
func (b *Bus) Wait(ctx context.Context, services []Service, check func(context.Context) (done bool, reason error)) error {
	return b.Listen(ctx, services, nil, check)
}

// Listen is [Bus.Wait], and calls heard for each signal on the connection from
// before the first check on, on a goroutine of its own and not after it has
// returned. heard must neither block nor use the bus. A signal may be heard
// shortly after a call has shown its effect.
func (b *Bus) Listen(ctx context.Context, services []Service, heard func(*dbus.Signal), check func(context.Context) (done bool, reason error)) error {
	var last error
	for {
		done, reason, err := b.watch(ctx, services, heard, check)
		switch {
		case done:
			return reason
		case reason != nil:
			last = reason
		case err != nil && ctx.Err() == nil:
			last = err
		}
		select {
		case <-ctx.Done():
			if last == nil || errors.Is(last, ctx.Err()) {
				return ctx.Err()
			}
			return fmt.Errorf("%w; at last: %w", ctx.Err(), last)
		case <-time.After(redialEvery):
		}
	}
}

// watch is Wait on one connection; it returns not done when ctx ends or the
// connection is lost.
func (b *Bus) watch(ctx context.Context, services []Service, heard func(*dbus.Signal), check func(context.Context) (bool, error)) (done bool, reason, err error) {
	c, err := b.Connection(ctx)
	if err != nil {
		return false, nil, err
	}
	wakeup := make(chan struct{}, 1)
	c.mu.Lock()
	c.wakeups[wakeup] = heard
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.wakeups, wakeup)
		c.mu.Unlock()
	}()
	for _, s := range services {
		for _, rule := range [][]dbus.MatchOption{
			{dbus.WithMatchSender(s.Bus)},
			{dbus.WithMatchSender(daemon.Bus), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, s.Bus)},
		} {
			if err := c.conn.AddMatchSignalContext(ctx, rule...); err != nil {
				return false, nil, explain(ctx, daemon, "AddMatch", err)
			}
			defer c.unmatch(ctx, rule)
		}
	}
	tick := time.NewTicker(rereadEvery)
	defer tick.Stop()
	for {
		done, why := check(ctx)
		switch {
		case ctx.Err() != nil && (!done || why != nil):
			if reason == nil {
				reason = why // else: what the end of ctx cut short says less
			}
			return false, reason, nil
		case done:
			return true, why, nil
		case why != nil:
			reason = why
		}
		if !c.Alive() {
			return false, reason, nil
		}
		select {
		case <-ctx.Done():
			return false, reason, nil
		case <-wakeup:
		case <-tick.C:
		}
	}
}

// unmatch must happen also when ctx has ended, or the bus would go on sending
// us signals that nobody waits for.
func (c *Connection) unmatch(ctx context.Context, rule []dbus.MatchOption) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), unwatchBound)
	defer cancel()
	if err := c.conn.RemoveMatchSignalContext(bounded, rule...); err != nil && c.Alive() {
		// A bus that does not take this within two seconds is as good as lost.
		c.cancel()
	}
}
