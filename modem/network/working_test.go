package network_test

import (
	"strings"
	"testing"

	"lpad/modem"
	"lpad/modem/network"
)

func TestWorking(t *testing.T) {
	const connection = `{"Settings":{"connection":{"uuid":{"s":"u"}},"gsm":{"apn":{"s":"old.example"},"username":{"s":"me"},"password":{"s":"s3cret"}}},"InMemory":false}`
	whole := `{"Version":1,"ICCID":"8933","Connections":[` + connection + `],"Active":"u","Contexts":[{"CID":1,"Name":"old.example","Type":"ipv4"}]}`
	s := network.NewManagerStack(network.Config{})
	iccid, apn, ok := s.Working([]byte(whole))
	if !ok || iccid != "8933" || apn.Name != "old.example" || apn.User != "me" || apn.Password.Reveal() != "s3cret" || apn.Type != modem.IPv4 {
		t.Errorf("got %q, %v, %v", iccid, apn, ok)
	}
	if iccid, apn, ok := s.Working([]byte(strings.Replace(whole, `"Active":"u"`, `"Active":""`, 1))); !ok || iccid != "8933" || apn.Name != "old.example" {
		t.Errorf("nothing was up yet: got %q, %v, %v", iccid, apn, ok)
	}
	up := `"Active":"u","Contexts":[{"CID":1,"Name":"old.example"`
	for name, change := range map[string][2]string{
		"nothing was up, nor would be":   {up, `"Active":"","Contexts":[{"CID":1,"Name":"other.example"`},
		"another context is its own":     {up, `"Active":"","Contexts":[{"CID":2,"Name":"old.example"`},
		"two would come up":              {connection + `],` + up, connection + `,` + connection + `],"Active":"","Contexts":[{"CID":1,"Name":"old.example"`},
		"no SIM was shown":               {`"ICCID":"8933"`, `"ICCID":""`},
		"another connection was up":      {`"Active":"u"`, `"Active":"v"`},
		"NetworkManager looked it up":    {`"apn":{"s":"old.example"}`, `"apn":{"s":""}`},
		"a snapshot that cannot be read": {`"Version":1`, `"Version":9`},
	} {
		if _, _, ok := s.Working([]byte(strings.Replace(whole, change[0], change[1], 1))); ok {
			t.Errorf("%s: something is said to have worked", name)
		}
	}
	alone := network.NewATOnly(nil, network.Config{})
	if iccid, apn, ok := alone.Working([]byte(`{"iccid":"8933","apn":"old.example","type":"ipv4v6","present":true}`)); !ok || iccid != "8933" || apn.Name != "old.example" || apn.Type != modem.IPv4v6 {
		t.Errorf("at only: %q, %v, %v", iccid, apn, ok)
	}
	if _, _, ok := alone.Working([]byte(`{"present":false}`)); ok {
		t.Error("at only: something is said to have worked on an empty card")
	}
}
