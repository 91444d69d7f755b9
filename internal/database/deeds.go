package database

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"drover/internal/failover"
)

// orderPath is where a member has another one do something to its own server. It is no public API.
const orderPath = "/drover/order"

// order is what is to be done there.
type order struct {
	Do deed   `json:"do"`
	ID string `json:"id"` // of the copy of the files that is meant
}

type deed string

const (
	restart    deed = "restart"
	reinit     deed = "reinit"
	endSegment deed = "end its segment"
)

// Restart restarts a member's server, and returns when it is what it was. A primary hands over
// first, if another one can take over; but one of whose parameters some go lower, which its replicas may not do before it, is
// restarted in its place, in a pause of failover.
func (m *Member) Restart(ctx context.Context, name string) (Outcome, error) {
	v, r, s, err := m.sighted(ctx, name)
	if err != nil {
		return Outcome{}, err
	}
	if r.Members[name].ID != r.Primary {
		if err := m.spare(v, r, name, "restarting"); err != nil {
			return Outcome{}, err
		}
		return m.deed(ctx, restart, name, func(now View) bool { return now.Runs > s.Runs && now.likeBefore(s) })
	}
	inPlace := func() (Outcome, error) {
		return m.deed(ctx, restart, name, func(now View) bool { return now.Runs > s.Runs && now.Role != RoleNone })
	}
	switch _, err := m.anyHeir(v, r); {
	case err != nil || r.Paused:
		return inPlace()
	case s.Lowers:
		return m.paused(ctx, inPlace)
	}
	out, err := m.Switchover(ctx, "", time.Time{})
	if err != nil {
		return Outcome{}, err
	}
	return out, m.watch(ctx, name, func(now View) bool { return now.Runs > s.Runs && now.Role == RoleReplica })
}

// paused does something while nobody is elected.
func (m *Member) paused(ctx context.Context, do func() (Outcome, error)) (Outcome, error) {
	if _, err := m.Pause(ctx, true); err != nil {
		return Outcome{}, err
	}
	out, err := do()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*m.callTimeout())
	defer cancel()
	if _, e := m.Pause(end, false); e != nil {
		err = errors.Join(err, fmt.Errorf("failover is still paused (drover resume): %w", e))
	}
	return out, err
}

// RestartAll restarts the servers of all members, one at a time, or of those only that need it. The primary's is the last; or the
// first, if some of its parameters go lower.
func (m *Member) RestartAll(ctx context.Context, pending bool) (Outcome, error) {
	r, err := m.record(ctx)
	if err != nil {
		return Outcome{}, err
	}
	v := m.afresh(ctx)
	names, err := m.inOrder(v, r, pending)
	if err != nil {
		return Outcome{}, err
	}
	out := Outcome{Primary: v.Primary, Epoch: r.Epoch}
	for i, name := range names {
		if out, err = m.Restart(ctx, name); err != nil && i > 0 {
			return Outcome{}, fmt.Errorf("restarted %s; %s: %w", strings.Join(names[:i], ", "), name, err)
		} else if err != nil {
			return Outcome{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	out.Restarted = names
	return out, nil
}

// afresh is the view as soon as all members have been asked anew, or a TTL has gone by without it.
func (m *Member) afresh(ctx context.Context) View {
	began := m.now()
	for {
		v := m.View()
		old := slices.ContainsFunc(v.Names(), func(name string) bool {
			s, ok := m.Named(v, name)
			return !ok || name != v.Name && m.now()-s.Age < began
		})
		if !old || m.now()-began > m.opt.Failover.TTL || !m.rest(ctx, nil, 20*time.Millisecond) {
			return v
		}
	}
}

// inOrder are the members to restart, one after another.
func (m *Member) inOrder(v View, r *failover.Record, pending bool) ([]string, error) {
	var names []string
	first := false
	for _, name := range slices.Sorted(maps.Keys(r.Members)) {
		s, ok := m.Named(v, name)
		primary := r.Members[name].ID == r.Primary
		switch {
		case pending && !ok:
			return nil, unsafe("%s does not answer: nobody knows whether it needs a restart", name)
		case pending && !s.Restart:
		case primary && s.Lowers:
			names, first = slices.Insert(names, 0, name), true
		case !primary:
			names = append(names, name)
		}
	}
	primary := r.Name(r.Primary)
	if s, _ := m.Named(v, primary); primary != "" && !first && (s.Restart || !pending) {
		names = append(names, primary)
	}
	return names, nil
}

// Reinit has a replica's files be copied anew from the primary, and returns when it receives.
func (m *Member) Reinit(ctx context.Context, name string) (Outcome, error) {
	v, r, s, err := m.sighted(ctx, name)
	if err != nil {
		return Outcome{}, err
	}
	switch {
	case r.Members[name].ID == r.Primary:
		return Outcome{}, unsafe("%s is the primary: drover switchover first", name)
	case v.Primary == "" && r.Phase != failover.Standby:
		return Outcome{}, unsafe("there is no primary to copy from")
	}
	if err := m.spare(v, r, name, "copying anew"); err != nil {
		return Outcome{}, err
	}
	return m.deed(ctx, reinit, name, func(now View) bool { return now.Copies > s.Copies && now.likeBefore(s) })
}

// likeBefore reports whether a replica is one again, and waited for if it was.
func (v View) likeBefore(s Sighting) bool {
	return v.Role == RoleStandby || v.Role == RoleReplica && (v.Sync || !s.Sync)
}

// EndSegment has the primary end the part of its log that it writes.
func (m *Member) EndSegment(ctx context.Context) error {
	r, err := m.record(ctx)
	if err != nil {
		return err
	}
	name := r.Name(r.Primary)
	if name == "" {
		return unsafe("there is no primary")
	}
	return m.send(ctx, r.Members[name], order{endSegment, r.Primary})
}

// endSegment is what the primary does then.
func (m *Member) endSegment(o order) error {
	m.mu.Lock()
	ctx := m.life
	m.mu.Unlock()
	driver, able := m.opt.Driver.(Segmenter)
	if v := m.View(); ctx == nil || !able || v.ID != o.ID || v.Role != RolePrimary {
		return refuse(RefusedBusy, "%s is no primary that can do so", m.opt.Failover.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, m.callTimeout())
	defer cancel()
	return driver.EndSegment(ctx)
}

// sighted is a member that is there.
func (m *Member) sighted(ctx context.Context, name string) (View, *failover.Record, Sighting, error) {
	r, err := m.record(ctx)
	if err != nil {
		return View{}, nil, Sighting{}, err
	}
	member, ok := r.Members[name]
	if !ok {
		return View{}, nil, Sighting{}, unknown(r, name)
	}
	v := m.View()
	s, ok := m.Named(v, name)
	switch {
	case !ok:
		return View{}, nil, Sighting{}, unsafe("%s does not answer", name)
	case s.ID != member.ID:
		return View{}, nil, Sighting{}, refuse(RefusedBusy, "%s is being copied anew already", name)
	}
	return v, r, s, nil
}

// spare says why a replica cannot be done without for a while; nil: it can.
func (m *Member) spare(v View, r *failover.Record, name, what string) error {
	id := r.Members[name].ID
	if r.Mode != failover.Strict || !r.Set.Has(id) {
		return nil
	}
	others := 0
	for _, other := range r.Set.Members {
		if s, ok := m.Of(v, other); other != id && ok && s.Receiving {
			others++
		}
	}
	if others < r.Set.Acks {
		return unsafe("%s %s would hold up all commits: %d must acknowledge them, and %d others can", what, name, r.Set.Acks, others)
	}
	return nil
}

// record is the newest one.
func (m *Member) record(ctx context.Context) (r *failover.Record, err error) {
	err = m.edit(ctx, func(now *failover.Record) (bool, error) {
		r = now
		return false, nil
	})
	return r, err
}

// deed has a member do something, and waits until it is done.
func (m *Member) deed(ctx context.Context, do deed, name string, done func(View) bool) (Outcome, error) {
	r, err := m.record(ctx)
	if err != nil {
		return Outcome{}, err
	}
	m.opt.Log.Info("database: a member is to "+string(do)+" its server", "member", name)
	if err := m.send(ctx, r.Members[name], order{do, r.Members[name].ID}); err != nil {
		return Outcome{}, err
	}
	if err := m.watch(ctx, name, done); err != nil {
		return Outcome{}, err
	}
	v := m.View()
	return Outcome{Primary: v.Primary, Epoch: v.Epoch}, nil
}

// watch waits until a member, whatever its ID is by then, is as it is to be.
func (m *Member) watch(ctx context.Context, name string, done func(View) bool) error {
	for {
		v := m.View()
		why := "it does not answer"
		if v.Record != nil {
			if s, ok := m.Of(v, v.Record.Members[name].ID); ok {
				if done(s.View) {
					return nil
				}
				why = s.Why
			}
		}
		if !m.rest(ctx, nil, 20*time.Millisecond) {
			return fmt.Errorf("%s is not back in time (it goes on)%s: %w", name, because(why), context.Cause(ctx))
		}
	}
}

// send gives an order to a member, itself maybe.
func (m *Member) send(ctx context.Context, to failover.Member, o order) error {
	if m.View().ID == to.ID {
		return m.obey(o)
	}
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, m.callTimeout())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+to.API+orderPath, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", m.token())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the member: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusConflict:
		return refuse(RefusedBusy, "%s", strings.TrimSpace(string(text)))
	}
	return fmt.Errorf("ask the member: it answers %s", resp.Status)
}

// ordered answers another member that has an order.
func (m *Member) ordered(w http.ResponseWriter, r *http.Request) {
	var o order
	if !m.read(w, r, &o) {
		return
	}
	if err := m.obey(o); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// obey begins what was ordered.
func (m *Member) obey(o order) error {
	if o.Do == endSegment {
		return m.endSegment(o)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx, r := m.life, m.obs.Record
	name := m.opt.Failover.Name
	switch {
	case ctx == nil || ctx.Err() != nil || m.stopping:
		return refuse(RefusedBusy, "%s is ending", name)
	case o.ID != m.state.ID || r == nil:
		return refuse(RefusedBusy, "%s has another copy of the files by now", name)
	case m.busy:
		return refuse(RefusedBusy, "%s is busy: %s", name, m.decision.Why)
	case o.Do == restart && !m.opt.Processes.Running():
		return refuse(RefusedBusy, "%s's server does not run: it is started by itself", name)
	case o.Do == reinit && r.Primary == m.state.ID:
		return refuse(RefusedBusy, "%s is the primary by now", name)
	}
	switch o.Do {
	case restart:
		m.turning = true
		m.occupy(ctx, func() { m.reports("restart", m.restartServer(ctx)) })
	case reinit:
		m.turning = true
		m.occupy(ctx, func() { m.reports("copy anew", m.copyAnew(ctx, r)) })
	default:
		return refuse(RefusedBusy, "%s does not know how to %s", name, o.Do)
	}
	return nil
}

// reports says how an order ended.
func (m *Member) reports(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		m.opt.Log.Warn("database: "+what+", as asked for", "err", err)
	}
}

// restartServer stops it in order: that it is started again is decided as ever.
func (m *Member) restartServer(ctx context.Context) error {
	m.does("Stop")
	ctx, cancel := m.quick(ctx)
	defer cancel()
	return m.stop(ctx)
}

// copyAnew replaces the files by a copy of the primary's, or from the archive of the cluster that is followed.
func (m *Member) copyAnew(ctx context.Context, r *failover.Record) error {
	m.does("Clone")
	m.opt.Processes.Kill("its files are copied anew, as asked for")
	m.forgetServer()
	id := newID(m.opt.Failover.Name)
	if r.Phase == failover.Standby {
		return m.remake(ctx, id, func(ctx context.Context) error { return m.seed(ctx, r.System) })
	}
	return m.renew(ctx, id, r.Primary, m.clone)
}
