package consul

import (
	"context"
	"time"

	"github.com/hashicorp/consul/api"

	"drover/internal/coord"
)

// maxLockDelay is the longest that Consul takes.
const maxLockDelay = time.Minute

// session is Consul's word for what locks are bound to. It is renewed from when it is made.
type session struct {
	c    *Coordinator
	id   string
	ttl  time.Duration
	stop context.CancelFunc
	// done is closed when the session is lost, or may be, or ended.
	done chan struct{}
}

// newSession makes a session that lives by its TTL alone: the health of an agent's node,
// which Consul would add, is not that of who holds a lease.
//
// Its keys are deleted with it. If it ends otherwise than by its TTL (somebody destroyed it),
// its holder learns of that within a third of the TTL; for so long, and some more, the
// lock-delay keeps others out.
func (c *Coordinator) newSession(ctx context.Context, holder string, ttl time.Duration) (*session, error) {
	short, cancel := c.short(ctx)
	defer cancel()
	sent := time.Now()
	id, _, err := c.api.Session().CreateNoChecks(&api.SessionEntry{
		Name: holder, TTL: ttl.String(), Behavior: api.SessionBehaviorDelete, LockDelay: min(ttl/2, maxLockDelay),
	}, c.write(short))
	if err != nil {
		return nil, explain(ctx, "create session", err)
	}
	s := &session{c: c, id: id, ttl: ttl, done: make(chan struct{})}
	var life context.Context
	life, s.stop = context.WithCancel(c.ctx)
	if !c.begin(func() { defer close(s.done); s.renew(life, sent.Add(ttl)) }) {
		s.stop()
		close(s.done)
	}
	return s, nil
}

// renew returns when ctx ends, when the session is known to be lost, or a TTL after the last
// renewal that succeeded was sent: Consul cannot have ended it sooner.
func (s *session) renew(ctx context.Context, expires time.Time) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := s.ttl / 3
	for {
		if !coord.Wait(ctx, min(coord.Jitter(next), time.Until(expires))) || !time.Now().Before(expires) {
			return
		}
		sent := time.Now()
		limit := expires
		if once := sent.Add(s.ttl / 3); once.Before(limit) {
			limit = once
		}
		attempt, cancel := context.WithDeadline(ctx, limit)
		entry, _, err := s.c.api.Session().Renew(s.id, s.c.write(attempt))
		cancel()
		switch {
		case err != nil: // unknown is not lost
			next = s.ttl / 10
		case entry == nil:
			return
		default:
			expires, next = sent.Add(s.ttl), s.ttl/3
		}
	}
}

// end stops the renewals and takes the session away.
func (s *session) end(ctx context.Context) error {
	s.stop()
	<-s.done
	short, cancel := s.c.short(ctx)
	defer cancel()
	_, err := s.c.api.Session().Destroy(s.id, s.c.write(short))
	return explain(ctx, "destroy session", err)
}
