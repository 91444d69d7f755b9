package app

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"drover/internal/coord"
	"drover/internal/database"
	"drover/internal/register"
)

// roleService keeps one entry of the catalog: this member, as what it is. It is there only while it is
// primary or replica: taken out before clients are turned away, put in when they are admitted.
type roleService struct {
	registry coord.Registry
	log      *slog.Logger
	base     coord.Registration // without tags and meta
	changes  chan database.Change
}

// roleTTL is how long an entry outlives an agent that died. A replica elsewhere is primary much earlier: its entry
// is the one with the higher epoch.
const roleTTL = 15 * time.Second

func newRoleService(registry coord.Registry, log *slog.Logger, name, id, address string, port int) *roleService {
	return &roleService{
		registry: registry, log: log, changes: make(chan database.Change, 1),
		base: coord.Registration{ID: name + "-" + id, Name: name, Address: address, Port: port, TTL: roleTTL, Initial: coord.Passing, DeregisterAfter: time.Minute},
	}
}

// become has the entry made that of a new role. It does not wait; only the last call counts. It is called
// from one goroutine.
func (s *roleService) become(c database.Change) {
	select {
	case <-s.changes:
	default:
	}
	s.changes <- c
}

// run keeps the entry until ctx ends, and takes it out then.
func (s *roleService) run(ctx context.Context) {
	stop, told := func() {}, database.Change{}
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-s.changes:
			if c.Primary = ""; c != told {
				stop()
				stop, told = s.keep(c), c
			}
		}
	}
}

// keep keeps an entry for a role; what it returns takes it out, and waits for that for a little.
func (s *roleService) keep(c database.Change) (stop func()) {
	if c.Role == database.RoleNone {
		return func() {}
	}
	r := s.base
	r.Tags = []string{string(c.Role)}
	r.Meta = map[string]string{"epoch": strconv.FormatUint(c.Epoch, 10), "timeline": c.Timeline}
	one := register.New(s.registry, register.Options{Registration: r, Log: s.log})
	one.Set(coord.Passing, string(c.Role)+" in epoch "+r.Meta["epoch"])
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		one.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}
