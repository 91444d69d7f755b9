// Package mem is a coordinator in memory, for tests, simulators and dry runs.
//
// It keeps the port's contract exactly: each call takes effect at one moment under one
// lock, a watch sees a change as soon as it is made, and a TTL ends when it is over. Time is
// the time package's alone, so that it works in testing/synctest. Clients of one Server
// see one another as agents do; faults are told to the server or to one client. What it holds ends
// with the process.
package mem

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"drover/internal/coord"
)

// Link says how a client reaches the server.
type Link int

// Up is as it should be. Down refuses calls at once, Hanging lets them wait until it is
// another one or their context ends, Denied answers that the client may not.
const (
	Up Link = iota
	Down
	Hanging
	Denied
)

// limit is the largest value, or batch, in bytes of keys and values.
const limit = 512 << 10

// Server is what clients share. Use NewServer.
type Server struct {
	mu       sync.Mutex
	down     bool
	revision uint64 // of the last write; it never goes back
	pairs    map[string]coord.Pair
	leases   map[string]*semaphore
	services map[string]*instance
	changed  chan struct{} // closed and replaced when anything changes, links too
}

// NewServer returns an empty server. Nothing has to be closed but its clients.
func NewServer() *Server {
	return &Server{
		pairs: map[string]coord.Pair{}, leases: map[string]*semaphore{}, services: map[string]*instance{},
		changed: make(chan struct{}),
	}
}

// New returns a client of a server of its own.
func New() *Client { return NewServer().Open() }

// Open returns another client: another agent.
func (s *Server) Open() *Client {
	ctx, end := context.WithCancel(context.Background())
	return &Client{server: s, ctx: ctx, end: end}
}

// SetAvailable says whether the server answers anyone. What it holds stays, and time goes on.
func (s *Server) SetAvailable(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = !yes
	s.change()
}

// LoseLeases frees all slots behind their holders' backs.
func (s *Server) LoseLeases() { s.loseLeases(func(*lease) bool { return true }) }

// change wakes all who wait. It needs the lock.
func (s *Server) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Client implements coord.Coordinator. Use Server.Open or New.
type Client struct {
	server *Server
	ctx    context.Context // ends with Close
	end    context.CancelFunc
	leases sync.WaitGroup // their renewals
	link   Link           // under the server's lock
}

var _ coord.Coordinator = (*Client)(nil)

// Set changes how the client reaches the server, for all calls that have not taken effect.
func (c *Client) Set(l Link) {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.link = l
	c.server.change()
}

// LoseLeases frees the slots that this client holds, behind its back.
func (c *Client) LoseLeases() { c.server.loseLeases(func(l *lease) bool { return l.client == c }) }

// Close implements coord.Coordinator.
func (c *Client) Close() error {
	c.end()
	c.leases.Wait()
	return nil
}

// begin returns with the server's lock held, or with an error.
func (c *Client) begin(ctx context.Context) error {
	s := c.server
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", coord.ErrUnavailable, err)
		}
		if c.ctx.Err() != nil {
			return errors.New("the coordinator is closed")
		}
		s.mu.Lock()
		link, changed := c.link, s.changed
		if s.down {
			link = Down
		}
		switch link {
		case Up:
			return nil
		case Down:
			s.mu.Unlock()
			return coord.ErrUnavailable
		case Denied:
			s.mu.Unlock()
			return coord.ErrUnauthorized
		case Hanging:
			s.mu.Unlock()
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

// do runs f under the server's lock.
func (c *Client) do(ctx context.Context, what string, f func() error) error {
	err := c.begin(ctx)
	if err == nil {
		err = func() error {
			defer c.server.mu.Unlock()
			return f()
		}()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// waitChange waits until something has changed since the channel was read, or until a
// moment, if that is not zero. It returns false when ctx has ended.
func waitChange(ctx context.Context, changed <-chan struct{}, until time.Time) bool {
	var timer <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-changed:
	case <-timer:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// watch tells what read returns, now and when something has changed. read runs under the
// lock, and says when the next change comes by time alone.
func watch[T any](ctx context.Context, c *Client, what string, equal func(a, b T) bool, fn func(T, error), read func() (T, time.Time)) {
	tell := coord.NewTeller(fn, equal)
	for {
		c.server.mu.Lock()
		changed := c.server.changed // from before the state is read
		c.server.mu.Unlock()
		var (
			state T
			until time.Time
		)
		err := c.do(ctx, what, func() error {
			changed = c.server.changed
			state, until = read()
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			tell.Failed(ctx, err)
		} else {
			tell.State(state)
		}
		if !waitChange(ctx, changed, until) {
			return
		}
	}
}
