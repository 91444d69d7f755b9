package etcd

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"context"

	"drover/internal/coord"
	"drover/internal/coord/coordtest"
	"drover/internal/testkit/etcdserver"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) {
	for _, v := range os.Environ() { // of the machine, that etcd's programs and gRPC would listen to
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "ETCD") || strings.HasPrefix(name, "GRPC_") || strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			_ = os.Unsetenv(name)
		}
	}
	leak.Main(m)
}

const (
	user     = "drover"
	password = "a password"
	prefix   = "team/"
)

// linked is a client with a line of its own to the server.
type linked struct {
	*Client
	line *proxy

	mu       sync.Mutex
	sessions []int64
}

func (l *linked) Acquire(ctx context.Context, name string, opt coord.LeaseOptions) (coord.Lease, error) {
	got, err := l.Client.Acquire(ctx, name, opt)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sessions = append(l.sessions, int64(got.(*lease).session.id))
	}
	return got, err
}

// open returns a client that is patient as tests are.
func open(t *testing.T, opts Options) *Client {
	t.Helper()
	if opts.RequestTimeout == 0 {
		opts.RequestTimeout = 2 * time.Second
	}
	c, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func openLinked(t *testing.T, s *etcdserver.Server, opts Options) *linked {
	t.Helper()
	line := startProxy(t, s.Endpoints[0])
	opts.Endpoints = []string{line.URL}
	return &linked{Client: open(t, opts), line: line}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	s := etcdserver.Start(t, etcdserver.Options{Auth: true})
	s.AddUser(user, password, prefix)
	s.AddUser("stranger", password, "elsewhere/")
	as := func(name string) func(t *testing.T) coord.Coordinator {
		return func(t *testing.T) coord.Coordinator {
			return openLinked(t, s, Options{Prefix: prefix, User: name, Password: password})
		}
	}
	set := func(m linkMode) func(*testing.T, coord.Coordinator) {
		return func(_ *testing.T, c coord.Coordinator) { c.(*linked).line.set(m) }
	}
	coordtest.Run(t, func(t *testing.T) coordtest.Harness {
		return coordtest.Harness{
			Open: as(user), Stranger: as("stranger"),
			Settle: 25 * time.Second, TooLarge: 2 << 20, // the longest pause between two tries to connect, and half of it
			LeaseTTL: 3 * time.Second, LeaseLate: 3 * time.Second,
			ServiceTTL: 3 * time.Second, ServiceLate: 3 * time.Second,
			DeregisterAfter: 2 * time.Second, DeregisterLate: 5 * time.Second,
			Partition: set(cut), Hang: set(hanging), Heal: set(up),
			RestartServer: func(*testing.T) { s.Stop(); s.StartAgain() },
			LoseSession: func(_ *testing.T, c coord.Coordinator) {
				for _, id := range c.(*linked).sessions {
					s.Revoke(id)
				}
			},
			Compact: func(*testing.T) { s.Compact() },
			RewindIndex: func(*testing.T) {
				s.Wipe()
				s.AddUser(user, password, prefix)
				s.AddUser("stranger", password, "elsewhere/")
			},
		}
	})
}

func is(t *testing.T, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: got error %v, want %v", what, err, kind)
	}
}
