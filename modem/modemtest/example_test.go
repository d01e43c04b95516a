package modemtest_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/netip"

	"lpad/modem/modemtest"
)

// A device with a modem, the real ModemManager and NetworkManager on it, and a
// server behind the modem that a program on the device asks.
func ExampleStartStack() {
	ctx := context.Background()
	stack, err := modemtest.StartStack(ctx, modemtest.StackConfig{
		Modem: modemtest.Config{
			Card: newCard(profileA, profileB), // or a software eUICC
			Subscriptions: []modemtest.Subscription{
				{IMSI: profileA.imsi, APN: "old.apn", Address: netip.MustParsePrefix("10.1.1.2/24"), Gateway: netip.MustParseAddr("10.1.1.1"), PLMN: "00101", Operator: "Old"},
				{IMSI: profileB.imsi, APN: "new.apn", Address: netip.MustParsePrefix("10.2.2.2/24"), Gateway: netip.MustParseAddr("10.2.2.1"), PLMN: "23415", Operator: "New"},
			},
		},
		Hosts:       []string{"smdp.example.com"}, // in the device's /etc/hosts, as 10.99.0.1
		Connections: []modemtest.Connection{{ID: "old", APN: "old.apn"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer stack.Close()
	listener, err := stack.Listen("tcp", "10.99.0.1:80") // an ordinary listener of this process, in the operator's network
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })}
	defer server.Close()
	go server.Serve(listener)

	if err := stack.WaitConnected(ctx, "old"); err != nil { // NetworkManager has brought up wwan0
		log.Fatal(err)
	}
	out, err := stack.Command(ctx, "curl", "-s", "http://smdp.example.com/").CombinedOutput() // runs on the device
	fmt.Println(string(out), err)                                                             // 10.1.1.2:port: the profile in use
}
