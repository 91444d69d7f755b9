package database

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"drover/internal/failover"
)

// rolling is how the restarts stand that the primary's agent carries out by itself.
type rolling struct {
	says    string // what it does, or waits for; empty: nothing
	stopped bool   // it goes on only with other parameters
}

// Alone has something done to the server, or to what it is configured with, while nothing else is.
func (m *Member) Alone(ctx context.Context, do func(context.Context) error) error {
	done := make(chan error, 1)
	for {
		m.mu.Lock()
		life, busy := m.life, m.busy
		if life == nil || life.Err() != nil || m.stopping {
			m.mu.Unlock()
			return refuse(RefusedBusy, "the database's member does not run")
		}
		if !busy {
			m.occupy(life, func() {
				quick, cancel := m.quick(life)
				defer cancel()
				done <- do(quick)
			})
		}
		m.mu.Unlock()
		if !busy {
			return m.shown(ctx, <-done)
		}
		if !m.rest(ctx, nil, 20*time.Millisecond) {
			return refuse(RefusedBusy, "something else is being done to the server%s", because(m.View().Why))
		}
	}
}

// shown returns err as soon as the view is of after what was done.
func (m *Member) shown(ctx context.Context, err error) error {
	for {
		m.mu.Lock()
		seen := !m.busy && m.seen.Load().stepped >= m.handled
		m.mu.Unlock()
		if seen || !m.rest(ctx, nil, 5*time.Millisecond) {
			return err
		}
	}
}

// tend restarts servers that nobody asked to be restarted: this one, if it is a replica that applies nothing before; and,
// from the primary's agent, those whose parameters wait for it, if it is to.
func (m *Member) tend(ctx context.Context) {
	never := make(chan struct{})
	outgrown := time.Duration(0)
	for m.rest(ctx, never, min(m.opt.Failover.TTL/8, time.Second)) {
		v := m.View()
		switch {
		case !v.outgrown:
			outgrown = 0
		case outgrown == 0:
			outgrown = m.now()
		case m.mayGrow(v, m.now()-outgrown):
			if err := m.obey(order{restart, v.ID}); err == nil {
				m.opt.Log.Info("database: the server is restarted", "reason", v.Why)
			}
		}
		if m.opt.Roll > 0 {
			m.roll(ctx, v)
		}
	}
}

// mayGrow reports whether a replica that has waited so long may restart: one after another, while somebody leads.
func (m *Member) mayGrow(v View, waited time.Duration) bool {
	rank := slices.Index(v.Names(), v.Name)
	if v.Primary == "" {
		return true // it is needed for an election
	}
	for _, id := range v.Record.Set.Members {
		if s, ok := m.Of(v, id); ok && id != v.ID && !s.Receiving && s.Role != RolePrimary {
			return false
		}
	}
	return waited >= time.Duration(rank)*m.opt.Failover.TTL/4
}

// roll restarts the next server, if there is one, and waits until it is what it was.
func (m *Member) roll(ctx context.Context, v View) {
	if v.Role != RolePrimary {
		m.say(rolling{})
		return
	}
	name, why, stopped := m.turn(v)
	if name == "" {
		m.say(rolling{says: why, stopped: stopped})
		return
	}
	before, _ := m.Named(v, name)
	m.say(rolling{says: fmt.Sprintf("restarting %s for %s", name, strings.Join(before.Pending, ", "))})
	call, cancel := context.WithTimeoutCause(ctx, m.opt.Roll, fmt.Errorf("it is not healthy after %s", m.opt.Roll))
	_, err := m.Restart(call, name)
	cancel()
	if after, _ := m.Named(m.View(), name); err == nil && len(after.Pending) > 0 && after.Settings == before.Settings {
		err = errors.New("it still needs a restart")
	}
	var no *Refused
	if err == nil || ctx.Err() != nil || errors.As(err, &no) {
		return // it is tried again
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unfitted[before.Settings] = fmt.Sprintf("restarts for new parameters have stopped: %s: %v", name, err)
}

// say notes, for people, how a roll stands.
func (m *Member) say(now rolling) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.says != m.rolls.says && now.says != "" {
		m.opt.Log.Info("database: " + now.says)
	}
	m.rolls = now
	m.nudge()
}

// turn is whose server is to be restarted next by itself; or nobody's, and why nobody's that needs it. A roll that was stopped goes on
// only when no server has these settings any more.
func (m *Member) turn(v View) (name, why string, stopped bool) {
	all := map[string]Sighting{}
	needed, lowered := false, false
	for _, name := range v.Names() {
		if s, ok := m.Of(v, v.Record.Members[name].ID); ok {
			all[name] = s
			needed = needed || len(s.Pending) > 0
		}
	}
	if !needed {
		return "", "", false
	}
	m.mu.Lock()
	for _, s := range all {
		if failed := m.unfitted[s.Settings]; failed != "" {
			why, stopped = failed, true
		}
	}
	m.mu.Unlock()
	if stopped {
		return "", why, true
	}
	if why := m.unfit(v); why != "" {
		return "", "restarts for new parameters wait: " + why, false
	}
	for _, name := range v.Names() {
		s := all[name]
		switch same := s.Settings == v.Settings; {
		case s.ID == v.ID || len(s.Pending) == 0:
		case s.Lowers && (!same || v.Lowers):
			lowered = true
		default:
			return name, "", false
		}
	}
	for _, name := range v.Names() {
		if len(v.Pending) > 0 && all[name].Settings != v.Settings {
			return "", "restarts for new parameters wait: " + name + " has other parameters than the primary: drover reload there", false
		}
	}
	switch {
	case v.Lowers || lowered:
		return "", "a parameter that a replica needs as high as the primary goes lower: drover restart postgres --pending restarts the primary first", false
	case len(v.Pending) > 0:
		return v.Name, "", false
	}
	return "", "", false
}

// unfit says why no server is restarted unasked; empty: one can be.
func (m *Member) unfit(v View) string {
	r := v.Record
	switch {
	case r.Paused:
		return "failover is paused"
	case r.Phase != failover.Running || v.Why != "":
		return "the primary is busy" + because(v.Why)
	case r.Switchover != nil && r.Switchover.At.IsZero():
		return "a switchover is under way"
	case r.Mode != failover.Off && r.Set.Acks < m.opt.Failover.Acks:
		return "commits are acknowledged by fewer replicas than they should be"
	}
	for _, name := range v.Names() {
		member := r.Members[name]
		if member.ID == v.ID {
			continue
		}
		switch s, ok := m.Of(v, member.ID); {
		case !ok:
			return name + " does not answer"
		case !s.Receiving && member.Tags.Delayed == 0: // that one does not, for as long, after each start
			return name + " does not receive from the primary" + because(s.Why)
		case r.Mode != failover.Off && !member.Tags.NoSync && !r.Set.Has(member.ID):
			return name + " is not synchronous"
		}
	}
	return ""
}
