// Package database runs one member of a replicated database: it carries out, through an engine's
// driver, what package failover decides, keeps the cluster's record in the coordinator,
// and answers load balancers.
//
// It promises what failover promises, as long as drivers keep their contract (databasetest holds
// them to it). How an engine is started, copied and promoted is left to its driver,
// one folder each; processes are left to who supervises them.
package database

import (
	"context"
	"errors"

	"drover/internal/failover"
)

var (
	// ErrDiverged: the local files cannot be made a replica's by going back; they have to be cloned.
	ErrDiverged = errors.New("local data has diverged")
	// ErrNotRunning: the server does not run, or does not accept connections yet.
	ErrNotRunning = errors.New("database is not running")
	// ErrPassword: the server runs, and the agent's password is not the one that it knows.
	ErrPassword = errors.New("the database knows another password than database.password_file has")
)

// Peer is another member, as a driver reaches it.
type Peer struct {
	Name string // of the member
	ID   string // of its incarnation, see failover.Member
	Host string
	Port int
	// NoSlot: as an upstream, it keeps nothing for who follows it, which takes what it misses from elsewhere.
	NoSlot bool `json:",omitempty"`
}

// Driver is one engine's hands on one member's files and server. Methods are called from one
// goroutine at a time, but for Status, which may be called beside all of them, and which must
// answer or fail by its context's deadline, whatever hangs. All but Status and Follow may take
// long, and end soon after ctx does; each may be called again after it failed or the agent died in
// the middle of it, and then does what is left to do, or begins anew.
//
// The server's process is not the driver's: it is started, with the command that Command returns, and
// killed by who supervises it. Between Configure and the start nothing else is called.
type Driver interface {
	// Compare orders two log positions, as Status tells them: negative if a is behind b. ok is false if
	// neither contains the other (then no election is decided by them), or one is not a position.
	Compare(a, b string) (order int, ok bool)

	// Disk looks at the files. The server need not run.
	Disk(ctx context.Context) (failover.Disk, error)

	// Command is what is run as the server.
	Command() []string

	// Init makes a new, empty database with the users that the options name. The files may hold what
	// an interrupted Init or Clone left, and nothing else: whatever Disk does not call empty is kept, and is an error.
	Init(ctx context.Context) error

	// Clone replaces whatever the files are by a copy of a running server's. It is as good as
	// empty (Disk says so) until it is whole.
	Clone(ctx context.Context, source Peer) error

	// Rewind makes the files of a former primary, or of a replica that has received what the
	// present primary does not have, those of a replica of source. The server does not run.
	// It also answers whether a replica which does not get on can still follow source: files that need nothing
	// are left as they are. Errors: ErrDiverged, if only Clone can help; any other: nothing was done, try again.
	Rewind(ctx context.Context, source Peer) error

	// Configure writes what the server reads at its start: to follow upstream as id; or, with a nil
	// upstream and standby, to be read-only and to follow nobody, or another cluster's archive; or, without standby, to be a primary which
	// admits no client. Set is who acknowledges its commits, if it is, or becomes, a primary.
	// A replica's files are made a primary's by Promote only: without standby they are an error.
	Configure(ctx context.Context, c Configuration) error

	// Status asks the running server. Errors: ErrNotRunning, ErrPassword; any other says that nothing is known.
	Status(ctx context.Context) (failover.Database, error)

	// Follow has a running replica follow another member; nil: nobody, and then, as soon as
	// Status says Detached, nothing is received any more, not even after a restart.
	Follow(ctx context.Context, upstream *Peer) error

	// Promote makes a running, detached replica a primary which admits no client. set was
	// configured before, by Synchronize. It returns when the server accepts writes.
	Promote(ctx context.Context) error

	// Synchronize sets who acknowledges commits, and returns the position at which that was in effect:
	// of every later commit. On a replica it takes effect with its promotion.
	Synchronize(ctx context.Context, set failover.SyncSet) (position string, err error)

	// Admit opens the server to clients, or closes it, and ends then the sessions that there are.
	// Replicas and the agent itself are always admitted.
	Admit(ctx context.Context, clients bool) error

	// Replicas keeps what these members still need (slots), and gives up what others needed.
	Replicas(ctx context.Context, members []Peer) error

	// Stop asks a running server to end, so that all that it has written is with the
	// replicas that follow it. It returns when the server was told: it is the supervisor that waits for, or kills, the process.
	Stop(ctx context.Context) error

	// Close ends what the driver has open. The server is not touched; nothing else is called afterwards.
	Close() error
}

// Configuration is what a server is started with.
type Configuration struct {
	ID       string // under which it acknowledges; unique for each copy of the files
	Standby  bool
	Upstream *Peer // of a standby; nil: nobody
	// Archive: of a standby without upstream: it applies what another cluster's archive has, until it is to follow somebody, or nobody.
	Archive bool
	Set     failover.SyncSet
}

// Gauge is what a driver may be able to do besides: tell positions as numbers.
type Gauge interface {
	// Bytes is how far a position goes, in bytes of the log since its beginning.
	Bytes(position string) (bytes int64, ok bool)
}

// Segmenter is what a driver may be able to do besides: have a running primary end the part of its log that it writes, so that it
// is archived.
type Segmenter interface {
	EndSegment(ctx context.Context) error
}
