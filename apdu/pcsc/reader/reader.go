// Package reader is the inside of the helper program lpad-pcsc: it answers
// requests of package pcsc, where the protocol is specified, by calling PC/SC.
// It is the only importer of the cgo binding, and is linked into that program
// alone.
//
// One PC/SC context, one connection, one call at a time. A call may never come
// back; the reading of requests goes on beside it, so that the end of input
// ends the program all the same. The program is killed by its parent when a
// deadline has passed: nothing here has a time-out.
//
// To keep the program small it does without fmt, log and net.
//
// Built without cgo, or with the tag nopcsc, [Serve] only says so.
package reader

import (
	"encoding/binary"
	"io"

	"lpad/apdu/pcsc"
)

// service is PC/SC as the requests need it.
type service interface {
	list() ([]readerState, error)
	connect(name string, exclusive bool) (connection, error)
	transmit(command []byte) ([]byte, error)
	reset(kind byte) (connection, error)
	status() (readerState, connection, error)
	disconnect(kind byte) error
}

type readerState struct {
	name  string
	state byte
	atr   []byte
}

type connection struct {
	protocol byte // 0 or 1
	atr      []byte
}

// failure is an error with a code of PC/SC.
type failure struct {
	code uint32
	text string
}

func (f *failure) Error() string { return f.text }

// errRequest answers what is not a request.
var errRequest = &failure{text: "request not understood"}

// Exit states of the program.
const (
	exitDone  = 0
	exitFrame = 2
)

// serve answers requests until the input ends, and gives the exit status.
func serve(in io.Reader, out io.Writer, s service) int {
	hello := append(pcsc.Begin(pcsc.Hello), pcsc.Version)
	if _, err := out.Write(pcsc.Finish(pcsc.AppendBytes(hello, "lpad-pcsc"))); err != nil {
		return exitFrame
	}
	requests, end := make(chan []byte, 1), make(chan int, 1)
	go func() {
		defer close(requests)
		for {
			frame, status := readFrame(in)
			if frame == nil {
				end <- status
				return
			}
			select {
			case requests <- frame:
			default: // the client does not wait for answers
				end <- exitFrame
				return
			}
		}
	}()
	answers := make(chan []byte, 1)
	go func() {
		for r := range requests {
			answers <- answer(s, r)
		}
	}()
	for {
		select {
		case status := <-end:
			return status
		case a := <-answers:
			if _, err := out.Write(a); err != nil {
				return exitFrame
			}
		}
	}
}

// readFrame reads one frame without its length, or gives the exit status.
func readFrame(in io.Reader) ([]byte, int) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err == io.EOF {
		return nil, exitDone
	} else if err != nil {
		return nil, exitFrame
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 1 || n > pcsc.MaxFrame {
		return nil, exitFrame
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(in, frame); err != nil {
		return nil, exitFrame
	}
	return frame, 0
}

// answer makes the call that a request asks for. The binding panics in some
// places where it gets an answer that it does not expect.
func answer(s service, frame []byte) (reply []byte) {
	defer func() {
		if p := recover(); p != nil {
			reply = refuse(&failure{text: "the PC/SC binding panicked"})
		}
	}()
	reply = pcsc.Begin(frame[0] + pcsc.Answer)
	f := pcsc.NewFields(frame[1:])
	err := error(errRequest)
	switch frame[0] {
	case pcsc.List:
		var all []readerState
		if f.OK() {
			all, err = s.list()
		}
		for _, r := range all {
			reply = pcsc.AppendBytes(append(pcsc.AppendBytes(reply, r.name), r.state), r.atr)
		}
	case pcsc.Connect:
		exclusive, name := f.Byte(), f.Text()
		if f.OK() {
			var c connection
			c, err = s.connect(name, exclusive != 0)
			reply = appendConnection(reply, c)
		}
	case pcsc.Transmit:
		command := f.Bytes()
		if f.OK() && len(command) > 0 {
			var response []byte
			response, err = s.transmit(command)
			reply = pcsc.AppendBytes(reply, response)
		}
	case pcsc.Reset:
		kind := f.Byte()
		if f.OK() {
			var c connection
			c, err = s.reset(kind)
			reply = appendConnection(reply, c)
		}
	case pcsc.Status:
		if f.OK() {
			var r readerState
			var c connection
			r, c, err = s.status()
			reply = appendConnection(append(reply, r.state), c)
		}
	case pcsc.Disconnect:
		kind := f.Byte()
		if f.OK() {
			err = s.disconnect(kind)
		}
	}
	if err != nil {
		return refuse(err)
	}
	return pcsc.Finish(reply)
}

func appendConnection(reply []byte, c connection) []byte {
	return pcsc.AppendBytes(append(reply, c.protocol), c.atr)
}

// refuse answers with an error.
func refuse(err error) []byte {
	f, ok := err.(*failure)
	if !ok {
		f = &failure{text: err.Error()}
	}
	reply := binary.BigEndian.AppendUint32(pcsc.Begin(pcsc.Failure), f.code)
	return pcsc.Finish(pcsc.AppendBytes(reply, f.text))
}
