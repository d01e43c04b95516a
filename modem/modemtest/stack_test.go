package modemtest_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"lpad/modem/modemtest"
)

func TestStack(t *testing.T) {
	modemtest.RequireStack(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	sim := newCard(profileA, profileB)
	begin := time.Now()
	s, err := modemtest.StartStack(ctx, modemtest.StackConfig{
		Modem:       modemtest.Config{Card: sim, Subscriptions: subscriptions},
		Hosts:       []string{"smdp.example.com"},
		Connections: []modemtest.Connection{{ID: "old", APN: "old.apn"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Log(s.Modem.Log())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	t.Logf("up after %v", time.Since(begin))
	if err := s.WaitConnected(ctx, "old"); err != nil {
		t.Fatal(err)
	}
	t.Logf("connected after %v", time.Since(begin))
	l, err := s.Listen("tcp", "10.99.0.1:443")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serve(l)
	out, err := s.Command(ctx, "bash", "-c", "pwd; ip a; ip r; cat /etc/hosts; ls -la /dev; exec 3<>/dev/tcp/smdp.example.com/443; cat <&3").CombinedOutput()
	t.Logf("%s %v", out, err)
	_ = bufio.NewReader
	_ = fmt.Sprint
	_ = os.Args
	_ = exec.Command
	_ = strings.Cut
}

func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprintln(c, "you are", c.RemoteAddr())
		c.Close()
	}
}
