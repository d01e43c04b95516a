package network_test

import (
	"bytes"
	"testing"

	"github.com/godbus/dbus/v5"

	"lpad/modem/network"
	"lpad/modem/nm"
)

const exampleSnapshot = `{"Version":1,"Device":"/sys/d","DeviceIdentifier":"h","Control":"ttyUSB0","ICCID":"8933","Connections":[{"Settings":{"connection":{"uuid":{"s":"u"}}},"InMemory":false}],` +
	`"Active":"u","Contexts":[{"CID":1,"Name":"a","Type":"ipv4","Auth":"","User":"","Password":""}],"InitialEPS":null}`

func FuzzSnapshot(f *testing.F) {
	f.Add([]byte(exampleSnapshot))
	f.Add([]byte(`{"Version":2}`))
	f.Add([]byte(`{"Version":1,"Connections":[{"Settings":null}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		once, err := network.ParseSnapshot(b)
		if err != nil {
			return
		}
		twice, err := network.ParseSnapshot(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%s became %s, %v", once, twice, err)
		}
	})
}

func TestSnapshotForm(t *testing.T) {
	got, err := network.ParseSnapshot([]byte(exampleSnapshot))
	if err != nil || string(got) != exampleSnapshot {
		t.Errorf("a journal that is there must stay readable: got\n%s, %v, want\n%s", got, err, exampleSnapshot)
	}
	for _, bad := range []string{"", "{}", `{"Version":2}`, `{"Version":1,"Connections":[{"Settings":{"a":{"b":1}}}]}`} {
		if _, err := network.ParseSnapshot([]byte(bad)); err == nil {
			t.Errorf("%q was taken for a snapshot", bad)
		}
	}
}

func TestConcerns(t *testing.T) {
	for _, tc := range []struct {
		name, setting, property, value string
		want                           bool
	}{
		{"tied to nothing", "connection", "id", "x", true},
		{"tied to this port", "connection", "interface-name", "ttyUSB0", true},
		{"tied to another port", "connection", "interface-name", "ttyUSB9", false},
		{"tied to this modem", "gsm", "device-id", "h", true},
		{"tied to another modem", "gsm", "device-id", "other", false},
		{"sim-id is no guard", "gsm", "sim-id", "another", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := nm.Settings{tc.setting: {tc.property: dbus.MakeVariant(tc.value)}}
			if got := network.Concerns("ttyUSB0", "h", s); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}
