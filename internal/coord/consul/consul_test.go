package consul_test

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/consul"
	"drover/internal/coord/coordtest"
	"drover/internal/testkit/consulserver"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "CONSUL_") {
			_ = os.Unsetenv(name)
		}
	}
	leak.Main(m)
}

// leastTTL is what the tests' servers allow, so that sessions end while a test waits.
const leastTTL = 2 * time.Second

func open(t *testing.T, opts consul.Options) *consul.Coordinator {
	t.Helper()
	if opts.Wait == 0 {
		opts.Wait = 20 * time.Second
	}
	if opts.Timeout == 0 {
		opts.Timeout = 5 * time.Second
	}
	opts.LeastTTL = leastTTL
	c, err := consul.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// loseSessions destroys all sessions.
func loseSessions(s *consulserver.Server) {
	var sessions []struct{ ID string }
	_ = json.Unmarshal(s.Ask(http.MethodGet, "/v1/session/list", ""), &sessions)
	for _, one := range sessions {
		s.Ask(http.MethodPut, "/v1/session/destroy/"+one.ID, "")
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	s := consulserver.Start(t, consulserver.Options{ACL: true, LeastTTL: leastTTL, Connections: 1000})
	coordtest.Run(t, func(t *testing.T) coordtest.Harness {
		lines := map[coord.Coordinator]*proxy{}
		client := func(t *testing.T, token string) coord.Coordinator {
			p := startProxy(t, s.Address)
			c := open(t, consul.Options{Address: p.address(), Token: token})
			lines[c] = p
			return c
		}
		return coordtest.Harness{
			Open:   func(t *testing.T) coord.Coordinator { return client(t, s.Token) },
			Settle: 10 * time.Second,
			// A session ends up to twice as late as its TTL says, and is followed by the lock-delay.
			LeaseTTL: leastTTL, LeaseLate: leastTTL + leastTTL/2,
			ServiceTTL: 2 * time.Second, ServiceLate: time.Second,
			TooLarge:      600 << 10,
			Partition:     func(_ *testing.T, c coord.Coordinator) { lines[c].cut() },
			Hang:          func(_ *testing.T, c coord.Coordinator) { lines[c].hang() },
			Heal:          func(_ *testing.T, c coord.Coordinator) { lines[c].heal() },
			RestartServer: func(*testing.T) { s.Stop(); s.StartAgain() },
			LoseSession:   func(*testing.T, coord.Coordinator) { loseSessions(s) },
			RewindIndex:   func(*testing.T) { s.Stop(); s.Wipe(); s.StartAgain() },
			Stranger:      func(t *testing.T) coord.Coordinator { return client(t, "00000000-dead-beef-0000-000000000000") },
		}
	})
}
