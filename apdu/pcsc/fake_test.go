package pcsc_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lpad/apdu/pcsc"
	"lpad/apdu/pcsc/reader"
)

// The test program is its own helper: what the environment names decides
// whether it is the real one, with PC/SC in it, or one that misbehaves.
const helperEnv = "LPAD_TEST_HELPER"

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		if name == "real" {
			os.Exit(reader.Serve(os.Stdin, os.Stdout, os.Stderr))
		}
		os.Exit(fakes[name]())
	}
	goleak.VerifyTestMain(m)
}

// helperConfig is for a helper of this name.
func helperConfig(t *testing.T, name string, env ...string) pcsc.Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return pcsc.Config{Helper: self, Env: append(env, helperEnv+"="+name,
		"GORACE=atexit_sleep_ms=0")} // the race detector makes a program wait a second at its end
}

// fakes are helpers that misbehave, each in its way.
var fakes = map[string]func() int{
	"silent":     func() int { time.Sleep(time.Minute); return 0 },
	"not built":  func() int { return pcsc.ExitNotBuilt },
	"other":      func() int { os.Stdout.WriteString("lpad-pcsc 1.0, usage: ...\n"); return 1 },
	"future":     func() int { write(frame(pcsc.Hello, []byte{9}, text("lpad-pcsc"))); return drain() },
	"no hello":   func() int { write(frame(pcsc.List + pcsc.Answer)); return drain() },
	"obedient":   func() int { return serve(nil) },
	"with child": withChild,
	"no readers": func() int { return serve(map[byte][]byte{pcsc.List: frame(pcsc.List + pcsc.Answer)}) },
	"empty slots": func() int {
		return serve(map[byte][]byte{pcsc.List: frame(pcsc.List+pcsc.Answer, text("A 00"), []byte{0}, text(""))})
	},
	"cut list":    func() int { return serve(map[byte][]byte{pcsc.List: frame(pcsc.List+pcsc.Answer, text("A 00"))}) },
	"no service":  func() int { return serve(map[byte][]byte{pcsc.List: refusal(0x8010001D)}) },
	"in use":      func() int { return serve(map[byte][]byte{pcsc.Connect: refusal(0x8010000B)}) },
	"mute card":   func() int { return serve(map[byte][]byte{pcsc.Connect: refusal(0x80100066)}) },
	"denied":      func() int { return serve(map[byte][]byte{pcsc.Connect: refusal(0x8010006A)}) },
	"odd code":    func() int { return serve(map[byte][]byte{pcsc.Connect: refusal(0x80100018)}) },
	"cut connect": func() int { return serve(map[byte][]byte{pcsc.Connect: frame(pcsc.Connect+pcsc.Answer, []byte{0})}) },
	"card reset":  func() int { return serve(map[byte][]byte{pcsc.Transmit: refusal(0x80100068)}) },
	"hang":        func() int { return serve(map[byte][]byte{pcsc.Transmit: nil}) },
	"hang list":   func() int { return serve(map[byte][]byte{pcsc.List: nil}) },
	"hang reset":  func() int { return serve(map[byte][]byte{pcsc.Reset: nil}) },
	"bad reset":   func() int { return serve(map[byte][]byte{pcsc.Reset: frame(pcsc.Reset + pcsc.Answer)}) },
	"lost reset":  func() int { return serve(map[byte][]byte{pcsc.Reset: refusal(0x80100069)}) },
	"no response": func() int { return serve(map[byte][]byte{pcsc.Transmit: frame(pcsc.Transmit+pcsc.Answer, text(""))}) },
	"wrong kind":  func() int { return serve(map[byte][]byte{pcsc.Transmit: frame(0x55)}) },
	"bad refusal": func() int { return serve(map[byte][]byte{pcsc.Transmit: frame(pcsc.Failure, []byte{1})}) },
	"garbage":     func() int { return serve(map[byte][]byte{pcsc.Transmit: []byte("\x7F\xFF\xFF\xFFgarbage")}) },
	"oversize":    func() int { return serve(map[byte][]byte{pcsc.Transmit: {0, 1, 0x11, 0x71, 0x92}}) },
	"empty frame": func() int { return serve(map[byte][]byte{pcsc.Transmit: {0, 0, 0, 0}}) },
	"crash": func() int {
		os.Stderr.WriteString("panic: unknown protocol\x1b[31m\n\ngoroutine 1 [running]:\n")
		return serve(map[byte][]byte{pcsc.Transmit: append(frame(pcsc.Transmit+pcsc.Answer, text("1234"))[:8], crash...)})
	},
	"crash list":        func() int { return serve(map[byte][]byte{pcsc.List: crash}) },
	"crash disconnect":  func() int { return serve(map[byte][]byte{pcsc.Disconnect: crash}) },
	"refuse disconnect": func() int { return serve(map[byte][]byte{pcsc.Disconnect: refusal(0x80100018)}) },
}

// crash at the end of an answer ends the helper after what stands before it.
var crash = []byte("\x00crash\x00")

func text(s string) []byte { return pcsc.AppendBytes(nil, s) }

func frame(kind byte, fields ...[]byte) []byte {
	return pcsc.Finish(append(pcsc.Begin(kind), bytes.Join(fields, nil)...))
}

func refusal(code uint32) []byte {
	return frame(pcsc.Failure, binary.BigEndian.AppendUint32(nil, code), text("as told"))
}

func write(b []byte) {
	if _, err := os.Stdout.Write(b); err != nil {
		os.Exit(9)
	}
}

// drain reads until the end of input.
func drain() int {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return 9
	}
	return 0
}

// serve is a helper with one reader, whose card answers 9000 to everything but
// MANAGE CHANNEL, which opens channel 1 if TERMINAL CAPABILITY was sent since
// the last reset. Answers by kind of request replace those, but for the one to
// TERMINAL CAPABILITY; a nil answer never comes.
func serve(answers map[byte][]byte) int {
	write(frame(pcsc.Hello, []byte{pcsc.Version}, text("fake")))
	greeted := false
	for {
		var head [4]byte
		if _, err := io.ReadFull(os.Stdin, head[:]); err != nil {
			return 0
		}
		request := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(os.Stdin, request); err != nil {
			return 9
		}
		kind := request[0]
		answer, special := answers[kind]
		switch {
		case kind == pcsc.Transmit && request[6] == 0xAA:
			greeted = true
			answer = frame(kind+pcsc.Answer, text("\x6D\x00")) // an older card
		case special && answer == nil:
			return drain()
		case special:
			before, _, dies := bytes.Cut(answer, crash)
			write(before)
			if dies {
				return 7
			}
			continue
		case kind == pcsc.List:
			answer = frame(kind+pcsc.Answer, text("Empty 00 00"), []byte{0}, text(""), text("Fake 00 00"), []byte{pcsc.CardPresent | pcsc.InUse}, text("\x3B\x00"))
		case kind == pcsc.Connect, kind == pcsc.Reset:
			greeted = false
			answer = frame(kind+pcsc.Answer, []byte{0}, text("\x3B\x00"))
		case kind == pcsc.Transmit && request[6] == 0x70 && greeted:
			answer = frame(kind+pcsc.Answer, text("\x01\x90\x00"))
		case kind == pcsc.Transmit && request[6] == 0x70:
			answer = frame(kind+pcsc.Answer, text("\x68\x81"))
		case kind == pcsc.Transmit:
			answer = frame(kind+pcsc.Answer, text("\x90\x00"))
		default:
			answer = frame(kind + pcsc.Answer)
		}
		write(answer)
	}
}

// withChild has a child of its own that holds on to its output, and hangs.
func withChild() int {
	sleep := exec.Command("sleep", "60")
	sleep.Stdout, sleep.Stderr = os.Stdout, os.Stderr
	if err := sleep.Start(); err != nil {
		return 9
	}
	return serve(map[byte][]byte{pcsc.Transmit: nil})
}
