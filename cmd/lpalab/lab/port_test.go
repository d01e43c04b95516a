package lab_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"lpad/cmd/lpalab/lab"
	"lpad/internal/fault"
	"lpad/modem/serialport"
)

// TestPortOfModemManager: the port that the real ModemManager has is not opened,
// though the kernel lets root do so, and the fault names who has it. The port
// beside it, which a udev rule keeps free, is.
func TestPortOfModemManager(t *testing.T) {
	w := newWorld(t, lab.Options{})
	_, d := startDevice(t, w, lab.DeviceOptions{})
	own := d.Stack.OpenAgentPort()
	all, err := filepath.Glob(filepath.Join(filepath.Dir(own), "ttyUSB*"))
	if err != nil || len(all) < 2 {
		t.Fatalf("ports %q, %v", all, err)
	}
	for _, path := range all {
		port, err := serialport.Open(path, 115200)
		text := fault.Of(err).Text
		switch {
		case err == nil && path == own:
			if err := port.Close(); err != nil {
				t.Error(err)
			}
		case err == nil:
			t.Errorf("%s was opened beside ModemManager: %v", filepath.Base(path), port.Close())
		case path == own && !errors.Is(err, serialport.ErrBusy):
			t.Errorf("our port: %v", err)
		case path == own: // by lpad, which the lab has started
			if !strings.HasPrefix(text, "lpad (pid ") {
				t.Errorf("our port: %v (%s)", err, text)
			}
		case !errors.Is(err, serialport.ErrBusy) || !strings.HasPrefix(text, "ModemManager (pid "):
			t.Errorf("ModemManager's port: %v (%s)", err, text)
		}
	}
}
