// Package consul is the coordinator that Consul 1.8 or newer is, by its HTTP API.
//
// It promises what the port does. Keys are linearizable: they are read in Consul's
// consistent mode and written in transactions. Instances are registered at the agent that
// is spoken to, which must be the one of this machine: it takes care that the catalog has them.
// What Consul's access control hides is hidden: a prefix of which a token may read a part
// looks as if that part were all. Nothing is read from CONSUL_* variables.
package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"drover/internal/coord"
)

// Options say where Consul is and how to talk to it.
type Options struct {
	// Address is http://host:port, https://host:port or unix:///path; empty: http://127.0.0.1:8500.
	Address string
	// Token of Consul's access control, or the file that has it, which is read again at each
	// request, so that it may be replaced.
	Token, TokenFile string
	// Files in PEM form: the authorities that are trusted, instead of the system's; and
	// our own certificate with its key, which are read again for each connection.
	CAFile, CertFile, KeyFile string
	// ServerName is the name that the server's certificate must have; empty: the address's.
	ServerName string
	// Datacenter of keys, leases and queries that name none; empty: the agent's own.
	Datacenter string
	// LeasePrefix is where the keys of leases are; empty: drover/lease/.
	LeasePrefix string

	// Wait is for how long a query may wait for a change; zero: 5 minutes. Each waits for a little
	// less, by chance.
	Wait time.Duration
	// Timeout is for requests that wait for nothing; zero: 10 seconds.
	Timeout time.Duration
	// Waiting is how many queries wait at once at most. Over HTTP each has a connection,
	// and an agent allows 200 by client (http_max_conns_per_client). Zero: 128. If there
	// are more watches they take turns, of 5 seconds.
	Waiting int
	// LeastTTL is the shortest that leases may have: Consul's session_ttl_min. Zero: 10 s.
	LeastTTL time.Duration
}

// Coordinator implements coord.Coordinator.
type Coordinator struct {
	opts      Options
	api       *api.Client
	transport *http.Transport
	places    *places

	mu      sync.Mutex
	serving map[string]bool // the instances that are in no maintenance of ours

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	closed bool // under mu: nothing is added to group any more
	group  sync.WaitGroup
}

var _ coord.Coordinator = (*Coordinator)(nil)

// New checks the options. It asks Consul for nothing.
func New(opts Options) (*Coordinator, error) {
	if opts.Address == "" {
		opts.Address = "http://127.0.0.1:8500"
	}
	if opts.LeasePrefix == "" {
		opts.LeasePrefix = "drover/lease/"
	}
	if err := coord.CheckKey(opts.LeasePrefix); err != nil || !strings.HasSuffix(opts.LeasePrefix, "/") {
		return nil, fmt.Errorf("consul: %q is not a folder for leases: %w", opts.LeasePrefix, err)
	}
	if opts.Token != "" && opts.TokenFile != "" {
		return nil, errors.New("consul: a token and a file of one are given; one of them is enough")
	}
	setDefault(&opts.Wait, 5*time.Minute)
	setDefault(&opts.Timeout, 10*time.Second)
	setDefault(&opts.LeastTTL, 10*time.Second)
	if opts.Waiting <= 0 {
		opts.Waiting = 128
	}
	scheme, host, socket, err := parseAddress(opts.Address)
	if err != nil {
		return nil, err
	}
	transport, err := newTransport(opts, socket)
	if err != nil {
		return nil, err
	}
	client, err := newClient(opts, scheme, host, transport)
	if err != nil {
		return nil, err
	}
	c := &Coordinator{
		opts: opts, api: client, transport: transport,
		places: newPlaces(opts.Waiting), serving: map[string]bool{},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

func setDefault(d *time.Duration, to time.Duration) {
	if *d <= 0 {
		*d = to
	}
}

// parseAddress returns the socket's path for unix, and any host then.
func parseAddress(address string) (scheme, host, socket string, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", "", "", fmt.Errorf("consul: address %q is no URL", address)
	}
	switch {
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", "", "", errors.New("consul: address has more than scheme, host and port; a token has an option of its own")
	case u.Scheme == "unix" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		return "http", "localhost", u.Path, nil
	case (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && strings.Trim(u.Path, "/") == "":
		return u.Scheme, u.Host, "", nil
	}
	return "", "", "", fmt.Errorf("consul: address %q is none of http://HOST:PORT, https://HOST:PORT, unix:///PATH", address)
}

// Close implements coord.Coordinator.
func (c *Coordinator) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.group.Wait()
	c.transport.CloseIdleConnections()
	return nil
}

// begin runs f for the coordinator itself, and says whether it does.
func (c *Coordinator) begin(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.group.Go(f)
	return true
}

// short is the context of a request that waits for nothing.
func (c *Coordinator) short(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.opts.Timeout)
}

// consistent is a read of the newest state.
func (c *Coordinator) consistent(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
}

func (c *Coordinator) query(ctx context.Context) *api.QueryOptions {
	return new(api.QueryOptions).WithContext(ctx)
}

func (c *Coordinator) write(ctx context.Context) *api.WriteOptions {
	return new(api.WriteOptions).WithContext(ctx)
}
