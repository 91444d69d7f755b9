// Package coord is the port of coordinators: where leases, keys and the catalog of
// services live. Consul, etcd, the store itself and memory are behind it, one folder each;
// DNS and a file are catalogues that can only be read.
//
// It promises what coordtest holds every backend to. What is made of keys and services
// (templates, registration, rolls) is left to who uses it; retrying, but for watches, too.
package coord

import (
	"context"
	"errors"
	"time"
)

// The kinds of errors that a caller can act on. Backends wrap them around what their
// vendor said; whatever is none of them says nothing about the state of the coordinator.
var (
	// ErrNotFound: there is no such key, service instance or session. It is known, not guessed.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the key is not as the caller had seen it.
	ErrConflict = errors.New("conflict")
	// ErrUnauthorized: the credentials are missing, or may not do this.
	ErrUnauthorized = errors.New("unauthorised")
	// ErrUnavailable: nobody answered, or who answered cannot serve at present (no
	// leader, no quorum). A write may have taken effect, or may still do so.
	ErrUnavailable = errors.New("unavailable")
	// ErrTooLarge: a value, or a batch, is larger than the backend takes.
	ErrTooLarge = errors.New("too large")
	// ErrUnsupported: this backend has no such thing (a datacenter, a node).
	ErrUnsupported = errors.New("not supported by this coordinator")
)

// Revision says which state of a key was seen. Revisions are compared for equality only;
// the empty one is that of a key that is not there. A key that was deleted and made again
// has another one; to write the value that is there already may leave it as it is (Consul).
type Revision string

// SafeSize is how many bytes of keys and values every backend takes in one write, be
// it one value or a batch (Consul's limit is on the encoded request).
const SafeSize = 256 << 10

// Pair is a key and its value.
type Pair struct {
	Key      string // like a/b/c, see CheckKey
	Value    []byte
	Revision Revision
}

// Op is one step of an atomic batch.
type Op struct {
	Key   string
	Value []byte // ignored when Delete is set
	// Delete removes the key; it is no error if it is not there.
	Delete bool
	// If is the state that the key must be in; nil: any. &"" is: not there.
	If *Revision
}

// KV are the keys. All methods may be called from any goroutine. Keys that CheckKey
// refuses are refused. What is returned is the caller's own; what the function of a watch
// is given it may keep, and does not change.
type KV interface {
	// Get reads the newest value: linearizable where the backend can. Errors: ErrNotFound.
	Get(ctx context.Context, key string) (Pair, error)

	// List returns all pairs whose key begins with prefix, sorted by key, as of one
	// moment. The prefix is one of strings: "foo" has "foobar/x" below it. It is a key or
	// empty, which is all. None is no error.
	List(ctx context.Context, prefix string) ([]Pair, error)

	// Put sets the key, whatever it is. Doing it again does no harm. Errors: ErrTooLarge.
	Put(ctx context.Context, key string, value []byte) (Revision, error)

	// CompareAndSwap sets the key if it is as it was seen; "" creates it. It is never
	// retried below: after ErrUnavailable the caller reads back. Errors: ErrConflict, ErrTooLarge.
	CompareAndSwap(ctx context.Context, key string, value []byte, seen Revision) (Revision, error)

	// Delete removes the key if it is as it was seen; a nil seen removes it in any state. It is no
	// error if the key is not there, unless seen says that it was. Errors: ErrConflict.
	Delete(ctx context.Context, key string, seen *Revision) error

	// Apply does all of the batch at one moment, or nothing. At most MaxOps, each of
	// another key (etcd refuses more); none is no error. As CompareAndSwap it is never
	// retried below. Errors: ErrConflict, ErrTooLarge.
	Apply(ctx context.Context, ops []Op) error

	// MaxOps is how many steps Apply takes: 32 at least.
	MaxOps() int

	// Watch calls fn with all pairs below prefix (or, if prefix is a key and exact is set, with that
	// key's, or none), soon, and again after each change, until ctx ends; it returns then,
	// and fn is not called any more. It skips states that are overtaken, never goes back to
	// an older one while the backend does not, and calls fn only when a pair (its
	// revision, too) differs from the last call's: that a query came back is no proof of a change.
	//
	// A failure is told by fn(nil, err), once for each kind of error in a row; it says
	// that the present state is unknown, never that it is empty, and what fn was given
	// before stays the last that is known. The first state after a failure is told, changed
	// or not: so the failure is known to be over. Watch tries again by itself, with back-off and
	// jitter, for ever. It survives a restart of the server, a compaction of its history and an index
	// that goes back. fn is called from one goroutine at a time, and may take its time.
	// Teller does the telling.
	Watch(ctx context.Context, prefix string, exact bool, fn func([]Pair, error))
}

// LeaseOptions of Leases.Acquire.
type LeaseOptions struct {
	// Holder is who asks: unique in the service, shown to others. It gives no right: who
	// asks again under the same name waits as others do.
	Holder string
	// TTL is how long the lease outlives a holder that fell silent. A backend may raise
	// it to its least (10 s with Consul, whose sessions end up to twice as late).
	TTL time.Duration
	// Slots is how many may hold the lease at once: 1 for a leader, more for a
	// counting semaphore. All who ask for a name use the same number; 0 is 1.
	Slots int
}

// Leases are held by at most as many as there are slots. They are for liveness: a
// paused holder may believe for a moment that it still holds one. What must never happen
// twice needs a compare-and-swap beside it.
type Leases interface {
	// Acquire waits until it has a slot, or ctx ends; what it returned does not end with
	// ctx. While the coordinator is away it goes on waiting. The name is one that CheckKey
	// takes. Errors: ctx's, ErrUnauthorized, and ErrConflict if others hold the name with
	// another number of slots.
	Acquire(ctx context.Context, name string, opt LeaseOptions) (Lease, error)

	// Holders lists who holds name, sorted. One that fell silent may be listed until
	// somebody else wants its slot.
	Holders(ctx context.Context, name string) ([]string, error)
}

// Lease is a held slot. It is renewed by itself.
type Lease interface {
	// Done is closed when the lease is lost, or may be: at the latest TTL after the last renewal
	// that succeeded was *sent*, by a monotonic clock, whatever hangs.
	Done() <-chan struct{}
	// Release gives the slot back, so that the next one need not wait for the TTL. It is
	// called once; Done is closed then, whatever it returns. Of a lease that was lost it
	// takes nothing from who holds the slot now, and is no error.
	Release(ctx context.Context) error
}

// Status of a service instance, worst last.
type Status string

// The states that all catalogues can show.
const (
	Passing     Status = "passing"
	Warning     Status = "warning"
	Critical    Status = "critical"
	Maintenance Status = "maintenance"
)

// Registration is what an instance says of itself.
type Registration struct {
	ID      string // unique in the catalog; like the name, one that CheckKey takes, without a slash
	Name    string
	Address string // IP address or host name
	Port    int
	Tags    []string
	Meta    map[string]string
	// TTL is how long a report of health holds: it is critical when none came for so long.
	TTL time.Duration
	// Initial is the status until the first report; empty is critical.
	Initial Status
	// DeregisterAfter removes an instance that was critical, or silent, for so long; 0:
	// never. A backend may raise it to its least (a minute with Consul).
	DeregisterAfter time.Duration
}

// Instance is one that the catalog lists.
type Instance struct {
	Registration        // TTL, Initial and DeregisterAfter are not told
	Status       Status // the worst of its checks'
	Note         string // what its last report said
	// Of the machine, where the backend has such a thing.
	Node, NodeID, NodeAddress, Datacenter string
	NodeMeta, TaggedAddresses             map[string]string
	Weight                                int
	Checks                                []Check
}

// Check is one check of an instance or of its node.
type Check struct {
	ID, Name, Node, Notes, Output, ServiceID, ServiceName string
	ServiceTags                                           []string
	Status                                                Status
}

// Query says which instances of a service are meant.
type Query struct {
	Name       string
	Tag        string   // empty: any
	Datacenter string   // empty: the coordinator's own
	Near       string   // a node, or _agent: nearest first, where the backend knows distances
	Status     []Status // which are wanted; empty: passing
}

// Catalog lists services. The read-only ones implement only this.
type Catalog interface {
	// WatchService calls fn with the instances that the query means, sorted by node and ID (or
	// by distance), by the same contract as KV.Watch. A change of members, address, port, tags, meta
	// or status counts, one of notes and outputs does not. A datacenter that the backend cannot have is told
	// as ErrUnsupported.
	WatchService(ctx context.Context, q Query, fn func([]Instance, error))

	// WatchServices calls fn with the names of all services and the tags that their
	// instances have, sorted, by the same contract.
	WatchServices(ctx context.Context, datacenter string, fn func(map[string][]string, error))
}

// Registry is a catalog that instances can be written to.
type Registry interface {
	Catalog

	// Register writes the instance, or replaces what it said of itself. Doing it again
	// does no harm and keeps the status that was reported.
	Register(ctx context.Context, r Registration) error

	// Report says how the instance is, and keeps it from falling silent: silent for a
	// TTL, it is critical until the next report. Maintenance stays until another status
	// is reported. Errors: ErrNotFound if the catalog has forgotten it: then it is registered again.
	Report(ctx context.Context, id string, s Status, note string) error

	// Deregister removes the instance. It is no error if it is not there.
	Deregister(ctx context.Context, id string) error
}

// Coordinator is all of it.
type Coordinator interface {
	KV
	Leases
	Registry
	// Close ends what runs for the coordinator itself, and waits for it. Leases that are
	// held are not released by it, but renewed no more, and so their Done is closed.
	// Watches end with their context, before Close.
	Close() error
}
