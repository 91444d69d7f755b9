// Package object is the store as the coordinator: for deployments that have one bucket and
// nothing else.
//
// Keys are one object, each lease is one, each instance of a service two, all replaced by
// compare-and-swap or, where nothing is lost by it, by a plain put. Nobody is told of a change:
// watches look again and again, so what they see is as old as the interval, and costs
// requests (docs/COORDINATORS.md has the sums). Clocks of two machines are never compared: who
// fell silent is judged by the monotonic clock of who looks. How it works, and what it cannot, is
// in DESIGN.md. That the store honours conditions is left to `drover probe` and to the start of an agent.
package object

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"drover/internal/coord"
	"drover/internal/objstore"
)

// Sealer keeps what is stored from those who can only read the bucket. The name is the
// object's, so that one cannot be put in another's place.
type Sealer interface {
	Seal(name string, plain []byte) []byte
	Open(name string, sealed []byte) ([]byte, error)
}

// Options are the limits; zero values mean the defaults given here.
type Options struct {
	Prefix   string        // of all objects; drover/coord
	Interval time.Duration // how often a watch looks, give or take an eighth; 5 s
	Timeout  time.Duration // of one call of the store; 15 s
	MaxBytes int           // of the object that holds all keys, as stored; 4 MiB
	Sealer   Sealer        // nil: objects are plain JSON
}

// Client is one agent's coordinator. Use New.
type Client struct {
	store objstore.Store
	opt   Options
	keys  *cell[pairs]

	ctx    context.Context // ends with Close
	end    context.CancelFunc
	leases sync.WaitGroup // their renewals

	mu    sync.Mutex
	own   map[string]*instance // by ID
	views map[string]*view     // by prefix
}

var _ coord.Coordinator = (*Client)(nil)

// New returns a coordinator in store. It makes no call. The store should repeat nothing by
// itself: watches, renewals and reports do so, and tell meanwhile that they must.
func New(store objstore.Store, opt Options) *Client {
	opt.Prefix = cmp.Or(opt.Prefix, "drover/coord")
	opt.Interval = cmp.Or(opt.Interval, 5*time.Second)
	opt.Timeout = cmp.Or(opt.Timeout, 15*time.Second)
	opt.MaxBytes = cmp.Or(opt.MaxBytes, 4<<20)
	c := &Client{store: store, opt: opt, own: map[string]*instance{}, views: map[string]*view{}}
	c.keys = newCell[pairs](c, opt.Prefix+"/kv")
	c.ctx, c.end = context.WithCancel(context.Background())
	return c
}

// Close implements coord.Coordinator. The store is its caller's.
func (c *Client) Close() error {
	c.end()
	c.leases.Wait()
	return nil
}

// call gives one call of the store its limit.
func (c *Client) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.opt.Timeout)
}

// kind translates an error of the store. Not found and conflicts are no errors by
// themselves here; who meets one says what it means.
func kind(err error) error {
	switch {
	case errors.Is(err, objstore.ErrUnauthorised):
		return fmt.Errorf("%w: %w", coord.ErrUnauthorized, err)
	case errors.Is(err, objstore.ErrUnsupported):
		return fmt.Errorf("%w: %w", coord.ErrUnsupported, err)
	case errors.Is(err, objstore.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, objstore.ErrConflict):
		return fmt.Errorf("%w: %w", coord.ErrUnavailable, err)
	}
	return err
}

// element makes any name an element of an object's key: letters, digits and hyphens stay,
// other bytes become _XX, and a long name becomes its hash.
func element(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "_%02X", c)
		}
	}
	if b.Len() > 200 {
		sum := sha256.Sum256([]byte(name))
		return "_h" + hex.EncodeToString(sum[:]) // no byte is escaped as _h
	}
	return b.String()
}

// interval is how long a watch waits before it looks again.
func (c *Client) interval() time.Duration {
	return c.opt.Interval - c.opt.Interval/8 + rand.N(c.opt.Interval/4+1)
}

// look is a watch: it tells what read returns, again and again, until ctx ends. After
// failures it looks less often.
func look[T any](ctx context.Context, c *Client, equal func(a, b T) bool, fn func(T, error), read func(context.Context) (T, error)) {
	tell := coord.NewTeller(fn, equal)
	again := coord.Backoff{Least: c.opt.Interval, Most: 6 * c.opt.Interval}
	for {
		if ctx.Err() != nil {
			return
		}
		limited, cancel := context.WithTimeout(ctx, 2*c.opt.Timeout) // others may be reading the same before
		state, err := read(limited)
		cancel()
		if ctx.Err() != nil {
			return
		}
		wait := c.interval()
		if err != nil {
			tell.Failed(ctx, err)
			wait = again.Next()
		} else {
			again.Reset()
			tell.State(state)
		}
		if !coord.Wait(ctx, wait) {
			return
		}
	}
}
