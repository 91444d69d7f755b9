package database

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"drover/internal/coord"
	"drover/internal/failover"
)

// actAll carries out a decision. Writing down and killing are done at once; the record is replaced, and
// what concerns files and server is done, beside the loop, one after another. An error is the end of the member.
func (m *Member) actAll(ctx context.Context, d failover.Decision, seen coord.Revision) error {
	var hands []failover.Action
	for _, a := range d.Actions {
		switch a := a.(type) {
		case failover.Persist: // what the state is by now, which may be newer
			if err := m.persist(); err != nil {
				m.opt.Processes.Kill("it cannot write down what it must not forget")
				return err
			}
		case failover.Kill:
			m.opt.Log.Warn("database: killing the server", "reason", a.Reason)
			m.opt.Processes.Kill(a.Reason)
			m.forgetServer()
		case failover.Write:
			m.replace(ctx, a.Record, seen)
		default:
			hands = append(hands, a)
		}
	}
	m.begin(ctx, hands)
	return nil
}

// persist writes down what is to be remembered now, and lets it be told then.
func (m *Member) persist() error {
	m.writes.Lock()
	defer m.writes.Unlock()
	m.mu.Lock()
	p := m.state.Persistent
	m.mu.Unlock()
	if err := writeState(m.opt.StateFile, p); err != nil {
		return err
	}
	m.mu.Lock()
	m.written = p.Epoch
	m.mu.Unlock()
	return nil
}

func (m *Member) forgetServer() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.obs.Database, m.answered = nil, false
	m.nudge()
}

// callTimeout bounds one call of the coordinator.
func (m *Member) callTimeout() time.Duration { return max(m.opt.Failover.TTL/2, time.Second) }

// recordKey is the cluster's record.
func (m *Member) recordKey() string { return m.opt.Prefix + "/record" }

// replace writes the record, if it still is the one that was decided upon. What came of it the next reading shows.
func (m *Member) replace(ctx context.Context, r *failover.Record, seen coord.Revision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.writing {
		return
	}
	m.writing = true
	m.group.Go(func() {
		call, cancel := context.WithTimeout(ctx, m.callTimeout())
		defer cancel()
		_, err := m.opt.KV.CompareAndSwap(call, m.recordKey(), r.Encode(), seen)
		if err != nil && !errors.Is(err, coord.ErrConflict) && ctx.Err() == nil {
			m.opt.Log.Warn("database: write the cluster's record", "err", err)
		}
		m.mu.Lock()
		m.writing = false
		m.mu.Unlock()
		poke(m.reread)
	})
}

// begin does these, one after another, unless others are still being done.
func (m *Member) begin(ctx context.Context, actions []failover.Action) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(actions) == 0 || m.busy || m.now() < m.failed[name(actions[0])] {
		return
	}
	m.turning = turnsAway(actions)
	m.occupy(ctx, func() {
		for _, a := range actions {
			m.does(name(a))
			if err := m.hand(ctx, a); err != nil {
				if ctx.Err() == nil {
					m.complain(name(a), err)
				}
				first := actions[0]
				_, aside := a.(failover.Keep) // nothing waits for it
				if aside {
					first = a
				}
				m.mu.Lock()
				m.failed[name(first)] = m.now() + pause(a)
				m.mu.Unlock()
				if !aside {
					break
				}
			}
		}
	})
}

// occupy has something done to the files or the server, and nothing else meanwhile. m.mu is held, and m.busy not set.
func (m *Member) occupy(ctx context.Context, do func()) {
	m.busy = true
	m.group.Go(func() {
		do()
		m.does("")
		m.mu.Lock()
		m.handled = m.now() // what was seen before is of no use any more
		m.mu.Unlock()
		m.look(ctx)
		m.pollOnce(ctx)
		m.mu.Lock()
		m.busy, m.turning = false, false
		m.mu.Unlock()
		m.nudge()
	})
}

// pause is how long an action that failed is not tried again.
func pause(a failover.Action) time.Duration {
	switch a.(type) {
	case failover.Init, failover.Restore, failover.Clone, failover.Rewind, failover.Start, failover.Keep:
		return 2 * time.Second
	case failover.Seed: // which asks another cluster's store
		return 10 * time.Second
	}
	return 100 * time.Millisecond
}

// does says what is being done, for people.
func (m *Member) does(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.doing = what
}

// name is an action's, for people.
func name(a failover.Action) string { return fmt.Sprintf("%T", a)[len("failover."):] }

// quick bounds what is done to a running server.
func (m *Member) quick(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, max(2*m.opt.Failover.TTL, 10*time.Second))
}

// hand does one thing to the files or to the server.
func (m *Member) hand(ctx context.Context, a failover.Action) error {
	d := m.opt.Driver
	m.detach(a)
	switch a := a.(type) {
	case failover.Init:
		return d.Init(ctx)
	case failover.Restore:
		return m.opt.Backup.Restore(ctx)
	case failover.Clone:
		return m.renew(ctx, a.ID, a.From, m.clone)
	case failover.Rewind:
		return m.renew(ctx, a.ID, a.From, d.Rewind)
	case failover.Seed:
		return m.remake(ctx, a.ID, func(ctx context.Context) error { return m.seed(ctx, a.System) })
	}
	ctx, cancel := m.quick(ctx)
	defer cancel()
	switch a := a.(type) {
	case failover.Start:
		return m.start(ctx, a)
	case failover.Stop:
		return m.stop(ctx)
	case failover.Follow:
		return d.Follow(ctx, m.follows(m.peer(a.Upstream)))
	case failover.Promote:
		return d.Promote(ctx)
	case failover.Admit:
		return d.Admit(ctx, a.Clients)
	case failover.Synchronize:
		position, err := d.Synchronize(ctx, a.Set)
		if err == nil {
			m.mu.Lock()
			m.state = m.state.Synchronized(position)
			m.mu.Unlock()
		}
		return err
	case failover.Keep:
		var list []Peer
		for _, id := range a.IDs {
			if p := m.peer(id); p != nil {
				list = append(list, *p)
			}
		}
		err := d.Replicas(ctx, list)
		if err == nil {
			m.mu.Lock()
			m.state = m.state.Kept(a.IDs)
			m.mu.Unlock()
		}
		return err
	}
	return fmt.Errorf("nobody knows how to do %T", a)
}

// detach says whether the server is to receive nothing, if this changes it.
func (m *Member) detach(a failover.Action) {
	if m.opt.Detached == nil {
		return
	}
	switch a := a.(type) {
	case failover.Follow:
		m.opt.Detached(a.Upstream == "")
	case failover.Start:
		m.opt.Detached(a.Standby && !a.Archive && a.Upstream == "")
	case failover.Init, failover.Restore, failover.Clone, failover.Rewind, failover.Seed:
		m.opt.Detached(false)
	}
}

// renew makes the files another copy, of another member's.
func (m *Member) renew(ctx context.Context, id, from string, how func(context.Context, Peer) error) error {
	source := m.peer(from)
	if source == nil {
		return errors.New("the primary's address is not known")
	}
	return m.remake(ctx, id, func(ctx context.Context) error {
		err := how(ctx, *source)
		if errors.Is(err, ErrDiverged) {
			m.opt.Log.Info("database: going back is not enough, the files are copied anew", "reason", err)
			err = m.clone(ctx, *source)
		}
		return err
	})
}

// remake makes the files another copy. From the moment on at which they may be touched nothing
// counts any more that was said of them under their former ID.
func (m *Member) remake(ctx context.Context, id string, how func(context.Context) error) error {
	m.mu.Lock()
	m.state = m.state.Renewing(id)
	m.mu.Unlock()
	if err := m.persist(); err != nil {
		return err
	}
	if err := how(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	m.copies++
	m.state = m.state.Renewed(id)
	m.mu.Unlock()
	return m.persist()
}

// clone copies from a backup, where that is to be done and goes, else from a replica that is for that, and else from the source itself.
// What came from a backup or a replica and has received nothing since was none to go on from: then it is the source's turn.
func (m *Member) clone(ctx context.Context, source Peer) error {
	m.mu.Lock()
	again := m.seeded
	m.seeded = false
	m.mu.Unlock()
	for _, copied := range []func(context.Context, Peer) (bool, error){m.fromBackup, m.fromReplica} {
		if again {
			break
		}
		is, err := copied(ctx, source)
		if is && err == nil {
			m.mu.Lock()
			m.seeded = true
			m.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		if is {
			m.opt.Log.Info("database: the files are copied from elsewhere", "reason", err)
		}
	}
	return m.opt.Driver.Clone(ctx, source)
}

// fromBackup copies from a backup; false: there are none.
func (m *Member) fromBackup(ctx context.Context, source Peer) (bool, error) {
	if m.opt.Backup == nil {
		return false, nil
	}
	if err := m.opt.Backup.Seed(ctx, source); err != nil {
		return true, fmt.Errorf("not from a backup: %w", err)
	}
	return true, nil
}

// fromReplica copies from a replica that is for that; false: there is none.
func (m *Member) fromReplica(ctx context.Context, _ Peer) (bool, error) {
	donor := m.donor(ctx)
	if donor == nil {
		return false, nil
	}
	m.opt.Log.Info("database: the files are copied from a replica", "member", donor.Name)
	return true, m.opt.Driver.Clone(ctx, *donor)
}

func clonable(m failover.Member) bool { return m.Tags.CloneFrom && m.Tags.Delayed == 0 }

// donor is the first replica by name that others are to be copied from, and that follows the primary; nil: there is none.
func (m *Member) donor(ctx context.Context) *Peer {
	if r := m.View().Record; r == nil || !slices.ContainsFunc(slices.Collect(maps.Values(r.Members)), clonable) {
		return nil
	}
	m.askNow(ctx) // who has just begun has heard of the primary alone
	v := m.View()
	for _, name := range v.Names() {
		member := v.Record.Members[name]
		s, ok := m.Named(v, name)
		if name != v.Name && clonable(member) && ok && s.ID == member.ID &&
			s.Role == RoleReplica && s.Receiving && s.Epoch == v.Record.Epoch {
			return m.peer(member.ID)
		}
	}
	return nil
}

// seed makes the files a replica's of the cluster that this one follows.
func (m *Member) seed(ctx context.Context, system string) error {
	if m.opt.Source == nil {
		return errors.New("nothing says which cluster is followed")
	}
	return m.opt.Source.Seed(ctx, system)
}

// start configures the server, and has it started.
func (m *Member) start(ctx context.Context, a failover.Start) error {
	m.mu.Lock()
	id := m.state.ID
	m.mu.Unlock()
	c := Configuration{ID: id, Standby: a.Standby, Archive: a.Archive, Upstream: m.peer(a.Upstream), Set: a.Set}
	if a.Upstream != "" && c.Upstream == nil {
		return errors.New("the primary's address is not known")
	}
	if err := m.opt.Driver.Configure(ctx, c); err != nil {
		return err
	}
	m.follows(c.Upstream)
	if left := m.fence.left(m.now()); !a.Standby && (left <= 0 || left > m.opt.Failover.TTL) {
		return errors.New("the time to lead is over")
	}
	m.mu.Lock()
	m.runs++
	m.mu.Unlock()
	return m.opt.Processes.Start(context.WithoutCancel(ctx))
}

// stop ends the server in order.
func (m *Member) stop(ctx context.Context) error {
	m.mu.Lock()
	relieved := m.opt.Relieved != nil && m.state.Relieved()
	m.mu.Unlock()
	if relieved {
		m.opt.Relieved(true)
		defer m.opt.Relieved(false)
	}
	err := m.opt.Driver.Stop(ctx)
	m.opt.Processes.Stop(ctx)
	m.forgetServer()
	return err
}

// follows notes whom the server is told to follow, and where.
func (m *Member) follows(p *Peer) *Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.upstream = (Peer{}); p != nil {
		m.upstream = *p
	}
	return p
}

// peer is how another member is reached; nil: it is not known.
func (m *Member) peer(id string) *Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.peers[id]
	if !ok {
		return nil
	}
	name := id
	if r := m.obs.Record; r != nil {
		name = r.Name(id)
	}
	return &Peer{Name: name, ID: id, Host: p.Host, Port: p.Port, NoSlot: m.opt.Failover.Self.Tags.ReplicateFrom != ""}
}
