// Package etcd is etcd as the coordinator: keys, leases and a catalog below one prefix of
// a cluster that others may use, too.
//
// It promises what the port says. Reads are linearizable. Each watch is a list at one
// revision and the changes from the next one on, and it lists again when etcd has
// forgotten those, has gone back, was out of reach, or now and then. Renewals count from when they were sent.
// It asks no member that has no leader. Where the endpoints are stays as it was told; that
// the members' clocks agree is of no importance. DESIGN.md has the keys and the reasons.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"drover/internal/coord"
)

// maxOps is the least that a server is set to (--max-txn-ops).
const maxOps = 128

// errClosed is returned by calls after Close. It is of no kind: trying again is no use.
var errClosed = errors.New("the coordinator is closed")

// Client implements coord.Coordinator. Use Open.
type Client struct {
	opts Options
	own  string // prefix of what is Drover's own: leases and catalog
	etcd *clientv3.Client

	ctx context.Context // ends with Close
	end context.CancelFunc

	mu        sync.Mutex
	closed    bool
	renewals  sync.WaitGroup
	instances map[string]*instance // that were registered or reported here

	turn    chan struct{} // who holds it logs in, and may read and write what follows
	token   *string       // nil: not logged in; empty: none is needed
	tokenAt time.Time
}

var _ coord.Coordinator = (*Client)(nil)

// Open returns a client of the cluster. It does not wait for it: an etcd that is away is
// told by the calls.
func Open(opts Options) (*Client, error) {
	opts = opts.withDefaults()
	config, err := opts.check()
	if err != nil {
		return nil, fmt.Errorf("open etcd: %w", err)
	}
	c := &Client{opts: opts, own: opts.Prefix + ".drover/", instances: map[string]*instance{}, turn: make(chan struct{}, 1)}
	c.ctx, c.end = context.WithCancel(context.Background())
	c.etcd, err = clientv3.New(clientv3.Config{
		Endpoints: opts.Endpoints,
		TLS:       config,
		Logger:    zap.NewNop(), // what is worth telling is in the errors
		// A member that hangs is found by these; etcd allows one in 5 s.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		DialOptions:          dialOptions(opts, config),
		// Of a read that a member cannot serve, so that another one is asked. It would also ask a
		// hundred times with a login that has expired, where a new one is wanted.
		MaxUnaryRetries: 5,
		// User and password are not given: New would wait for the cluster, and a login
		// that has expired would stay in the streams that were opened with it.
	})
	if err != nil {
		c.end()
		return nil, fmt.Errorf("open etcd: %w", err)
	}
	return c, nil
}

func dialOptions(opts Options, config *tls.Config) []grpc.DialOption {
	all := []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
		// gRPC's own goes up to two minutes, which an agent would be without its leases. After an
		// outage that was longer than leases are, a thousand agents come back in these seconds.
		Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.5, MaxDelay: 15 * time.Second},
		MinConnectTimeout: opts.DialTimeout,
	})}
	if opts.TLS.ServerName != "" {
		all = append(all, grpc.WithTransportCredentials(named{credentials.NewTLS(config), opts.TLS.ServerName}))
	}
	return all
}

// Close implements coord.Coordinator.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.renewals.Wait()
	if err := c.etcd.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd: %w", err)
	}
	return nil
}

// run starts f, which ends with Close at the latest.
func (c *Client) run(f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	c.renewals.Go(f)
	return nil
}

// do makes one call, within the time for a request. Its error is of the port's kinds.
func (c *Client) do(ctx context.Context, what string, f func(context.Context) error) error {
	err := ctx.Err()
	if err == nil {
		err = c.try(ctx, f)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, c.kind(ctx, err))
	}
	return nil
}

// try calls f with a login, and again if it was refused before it could have done anything: its
// login had expired, or the member that was asked had no leader.
func (c *Client) try(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	var refused *string
	for asked := 1; ; asked++ {
		token, err := c.login(ctx, refused)
		if err == nil {
			err = f(authorized(ctx, token))
		}
		switch {
		case err == nil:
			return nil
		case refused == nil && loginExpired(err):
			refused = &token
		case errors.Is(rpctypes.Error(err), rpctypes.ErrNoLeader) && asked < len(c.opts.Endpoints):
		default:
			if status.Code(err) == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded) {
				c.forgetLogin(&token, 2*c.opts.RequestTimeout)
			}
			return err
		}
	}
}

// authorized is the context of a call with a login. That the token is in the metadata, and
// not in the connection, lets each stream have its own.
func authorized(ctx context.Context, token string) context.Context {
	ctx = clientv3.WithRequireLeader(ctx)
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
	}
	return ctx
}

// login returns a token other than the refused one. One call at a time logs in: etcd
// spends a tenth of a second of a processor on a password.
func (c *Client) login(ctx context.Context, refused *string) (string, error) {
	if c.opts.User == "" {
		return "", nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if c.token != nil && (refused == nil || *refused != *c.token) {
		return *c.token, nil
	}
	password, err := c.opts.password()
	if err != nil {
		return "", err
	}
	token := ""
	answer, err := c.etcd.Authenticate(ctx, c.opts.User, password)
	switch {
	case err == nil:
		token = answer.Token
	case !errors.Is(err, rpctypes.ErrAuthNotEnabled):
		return "", err
	}
	c.token, c.tokenAt = &token, time.Now()
	return token, nil
}

// forgetLogin lets the next call log in, if token is in use and older than some time, and nobody is
// about to. It is for a call that went wrong without saying that the token is why: a stream, or one
// that was not answered. An etcd that was restored from a backup waits with each call
// until its log is as long as it was when the token was made, which may take days.
func (c *Client) forgetLogin(token *string, age time.Duration) {
	select {
	case c.turn <- struct{}{}:
		if c.token != nil && *c.token == *token && time.Since(c.tokenAt) >= age {
			c.token = nil
		}
		<-c.turn
	default:
	}
}
