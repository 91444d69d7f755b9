package database

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"drover/internal/coord"
	"drover/internal/failover"
)

// Orders are what people ask of the whole cluster. Any member carries them out: it edits the record, which
// all obey, or asks the member that is meant.

// Refused: an order was not carried out, and nothing has changed.
type Refused struct { //nolint:errname // it says what became of an order
	Kind RefusalKind
	Why  string // one line
}

func (r *Refused) Error() string { return r.Why }

// RefusalKind says what is wrong with an order.
type RefusalKind string

// The kinds.
const (
	RefusedUnknown RefusalKind = "unknown" // there is no such member
	RefusedBusy    RefusalKind = "busy"    // something of the kind is under way
	RefusedUnsafe  RefusalKind = "unsafe"  // the cluster is not in a state for it
)

func refuse(kind RefusalKind, format string, args ...any) error {
	return &Refused{kind, fmt.Sprintf(format, args...)}
}

func unsafe(format string, args ...any) error { return refuse(RefusedUnsafe, format, args...) }

// Outcome is what an order came to.
type Outcome struct {
	Primary   string    // who leads
	Former    string    // who led before
	Epoch     uint64    // in which it leads
	Scheduled time.Time // of a switchover that is to come; zero: it is done
	Restarted []string  // whose servers were restarted, where several could be
	Release   Release   // of an upgrade
	Leave     []string  // who is not needed any more after it
}

// maxLag is how far a replica may be behind in applying that is to take over by plan, in bytes: clients wait meanwhile.
const maxLag = 16 << 20

// Switchover has another member lead: that one, or the best one if to is empty; at once, or not before at.
// It returns when that one admits clients, or when it is written down for later. If ctx ends before
// the primary has begun, it is withdrawn.
func (m *Member) Switchover(ctx context.Context, to string, at time.Time) (Outcome, error) {
	wish := failover.Switchover{To: to, At: at.Round(time.Millisecond).UTC()}
	later := !at.IsZero() && time.Now().Before(at)
	if at.IsZero() || !later {
		wish.At = time.Time{}
	}
	m.askNow(ctx)
	var before *failover.Record
	err := m.edit(ctx, func(r *failover.Record) (bool, error) {
		if done(before, r, wish) {
			return false, nil
		}
		if err := m.mayHandOver(r, to, later); err != nil {
			return false, err
		}
		before = r.Clone()
		r.Switchover, r.Withdrawn = &wish, nil
		return true, nil
	})
	if err != nil {
		return Outcome{}, err
	}
	former := before.Name(before.Primary)
	m.opt.Log.Info("database: a switchover was asked for", "from", former, "to", to, "at", wish.At)
	if later {
		return Outcome{Primary: former, Epoch: before.Epoch, Scheduled: wish.At}, nil
	}
	return m.await(ctx, before, wish)
}

// done reports whether an attempt upon an earlier record, whose end was not known, was done after all: the wish stands
// there, or, if it was for at once, somebody has been elected since.
func done(before, now *failover.Record, wish failover.Switchover) bool {
	if before == nil {
		return false
	}
	return now.Switchover != nil && *now.Switchover == wish || wish.At.IsZero() && now.Epoch > before.Epoch
}

// mayHandOver says why a switchover cannot be; nil: it can.
func (m *Member) mayHandOver(r *failover.Record, to string, later bool) error {
	v := m.View()
	switch s := r.Switchover; {
	case r.Phase == failover.Standby:
		return unsafe("this cluster follows another one, and has no primary: drover failover makes it one of its own")
	case s != nil:
		return refuse(RefusedBusy, "another switchover is pending%s: drover switchover --cancel withdraws it", planned(s))
	case r.Paused:
		return unsafe("failover is paused, and so are switchovers: drover resume")
	}
	if to != "" {
		if _, ok := r.Members[to]; !ok {
			return unknown(r, to)
		}
		if r.Members[to].ID == r.Primary {
			return unsafe("%s is the primary already", to)
		}
	}
	switch {
	case later:
		if r.Members[to].Tags.NoFailover {
			return unsafe("%s has the tag nofailover", to)
		}
		return nil
	case r.Phase != failover.Running || v.Primary == "":
		return unsafe("there is no primary to take over from: drover failover is for that")
	case to != "":
		return m.canLead(v, r, to)
	}
	_, err := m.anyHeir(v, r)
	return err
}

// anyHeir is a member that could take over by plan.
func (m *Member) anyHeir(v View, r *failover.Record) (string, error) {
	var reasons []string
	for _, name := range v.Names() {
		if r.Members[name].ID == r.Primary {
			continue
		}
		err := m.canLead(v, r, name)
		if err == nil {
			return name, nil
		}
		reasons = append(reasons, err.Error())
	}
	if reasons == nil {
		reasons = []string{"there is none"}
	}
	return "", unsafe("no other member can take over: %s", strings.Join(reasons, "; "))
}

// canLead says why a member cannot take over from a primary that lives; nil: it can.
func (m *Member) canLead(v View, r *failover.Record, name string) error {
	member := r.Members[name]
	primary, _ := m.Of(v, r.Primary)
	s, ok := m.Named(v, name)
	switch {
	case member.Tags.NoFailover:
		return unsafe("%s has the tag nofailover", name)
	case member.Tags.NoSync:
		return unsafe("%s is not synchronous (tag nosync): it may lack commits", name)
	case !ok:
		return unsafe("%s does not answer", name)
	case !s.Receiving || s.ID != member.ID:
		return unsafe("%s does not receive from the primary%s", name, because(s.Why))
	case !slices.Contains(primary.Replicas, member.ID):
		return unsafe("%s has not caught up with the primary", name)
	case !r.Set.Has(member.ID) || r.Mode != failover.Off && r.Set.Acks == 0:
		return unsafe("%s is not synchronous: it may lack commits", name)
	case s.Lag != nil && *s.Lag > maxLag:
		return unsafe("%s is %d MiB behind in applying: clients would wait for it", name, *s.Lag>>20)
	}
	return nil
}

// Withdraw takes back a switchover that has not begun; it reports whether there was one.
func (m *Member) Withdraw(ctx context.Context) (found bool, err error) {
	err = m.edit(ctx, func(r *failover.Record) (bool, error) {
		found = found || r.Switchover != nil
		changed := r.Switchover != nil
		r.Switchover = nil
		return changed, nil
	})
	return found, err
}

// Failover has a member lead although nobody vouches for it: that one, or who has most, if to is empty. Without
// force it only says what may be lost.
func (m *Member) Failover(ctx context.Context, to string, force bool) (Outcome, error) {
	m.askNow(ctx)
	var before *failover.Record
	var wish failover.Switchover
	err := m.edit(ctx, func(r *failover.Record) (bool, error) {
		if done(before, r, wish) {
			return false, nil
		}
		v := m.View()
		name, err := m.choose(v, r, to)
		if err != nil {
			return false, err
		}
		if risk := m.risk(v, r, name); !force {
			return false, unsafe("%s; repeat it with --force if that is what you want", risk)
		}
		if r.Phase == failover.Standby && to == "" {
			name = "" // when all have come to rest they know better who has most
		}
		wish = failover.Switchover{To: name, Force: true}
		before = r.Clone()
		r.Switchover, r.Withdrawn = &wish, nil
		return true, nil
	})
	if err != nil {
		return Outcome{}, err
	}
	m.opt.Log.Warn("database: a failover was asked for", "to", wish.To)
	return m.await(ctx, before, wish)
}

// choose is who is to lead by force.
func (m *Member) choose(v View, r *failover.Record, to string) (string, error) {
	usable := func(name string) error {
		s, ok := m.Of(v, r.Members[name].ID)
		switch {
		case r.Members[name].ID == r.Primary && v.Primary == name:
			return unsafe("%s is the primary already", name)
		case !ok:
			return unsafe("%s does not answer", name)
		case s.Received == "":
			return unsafe("%s has no data, or its server does not run", name)
		}
		return nil
	}
	if to != "" {
		if _, ok := r.Members[to]; !ok {
			return "", unknown(r, to)
		}
		return to, usable(to)
	}
	best, most := "", int64(-1)
	for _, name := range v.Names() {
		s, _ := m.Of(v, r.Members[name].ID)
		if usable(name) != nil || r.Members[name].Tags.NoFailover || s.Role == RolePrimary {
			continue
		}
		if n := s.ReceivedBytes; n != nil && *n > most || best == "" {
			best, most = name, max(most, value(n))
		}
	}
	if best == "" {
		return "", unsafe("no member is there that could lead")
	}
	return best, nil
}

func value(n *int64) int64 {
	if n == nil {
		return -1
	}
	return *n
}

// risk is what a failover by hand may cost, in one line.
func (m *Member) risk(v View, r *failover.Record, name string) string {
	if r.Phase == failover.Standby {
		until := ""
		if s, ok := m.Named(v, name); ok && !s.Committed.IsZero() {
			until = "; the last commit of that one's that " + name + " has is of " + s.Committed.UTC().Format(time.RFC3339)
		}
		return "this cluster follows another one, and would be one of its own for good, whether that one lives or not" + until
	}
	if v.Primary != "" && r.Phase == failover.Running {
		if m.canLead(v, r, name) == nil {
			return v.Primary + " leads, and drover switchover hands over from it without any loss; a failover kills it"
		}
		return v.Primary + " leads: a failover kills it, and commits that " + name + " has not received are lost"
	}
	if r.Mode == failover.Off {
		return "replication is asynchronous: commits that " + name + " has not received are lost"
	}
	var missing []string
	for _, id := range r.Set.Members {
		if _, ok := m.Of(v, id); !ok {
			missing = append(missing, nameOr(r, id))
		}
	}
	if r.Set.Acks > 0 && len(missing) < r.Set.Acks {
		return "enough members are there to elect one by themselves, without loss; a failover to " + name + " does not wait for them"
	}
	if r.Set.Acks == 0 {
		missing = append(missing, nameOr(r, r.Primary))
	}
	return fmt.Sprintf("commits that only %s have, and %s has not, are lost", strings.Join(missing, " and "), name)
}

func nameOr(r *failover.Record, id string) string {
	if name := r.Name(id); name != "" {
		return name
	}
	return MemberOf(id)
}

// Pause has nobody be elected, and nothing be switched over, until it is resumed; it reports whether that is new.
func (m *Member) Pause(ctx context.Context, on bool) (changed bool, err error) {
	err = m.edit(ctx, func(r *failover.Record) (bool, error) {
		differs := r.Paused != on
		changed = changed || differs
		r.Paused = on
		return differs, nil
	})
	return changed, err
}

// await waits until what was wished has come about since a record.
func (m *Member) await(ctx context.Context, before *failover.Record, wish failover.Switchover) (Outcome, error) {
	former := before.Name(before.Primary)
	for {
		v := m.View()
		if r := v.Record; r != nil && r.Phase == failover.Running && r.Epoch > before.Epoch {
			s, ok := m.Of(v, r.Primary)
			leads := ok && s.Role == RolePrimary
			switch name := r.Name(r.Primary); {
			case r.Primary == before.Primary && r.Switchover == nil:
				return Outcome{}, fmt.Errorf("it came to nothing: %s leads again, in epoch %d", name, r.Epoch)
			case r.Primary != before.Primary && wish.To != "" && name != wish.To && leads:
				return Outcome{}, fmt.Errorf("another member was elected meanwhile: %s leads in epoch %d", name, r.Epoch)
			case r.Primary != before.Primary && leads:
				return Outcome{Primary: name, Former: former, Epoch: r.Epoch}, nil
			}
		}
		if r := v.Record; r != nil && r.Epoch == before.Epoch && r.Revision > before.Revision && r.Switchover == nil {
			return Outcome{}, fmt.Errorf("it was withdrawn%s", withdrawal(r))
		}
		if !m.rest(ctx, nil, 20*time.Millisecond) {
			return Outcome{}, m.late(ctx, wish)
		}
	}
}

// late withdraws what was not begun in time.
func (m *Member) late(ctx context.Context, wish failover.Switchover) error {
	why := m.View().Why
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.callTimeout())
	defer cancel()
	withdrawn := false
	err := m.edit(call, func(r *failover.Record) (bool, error) {
		withdrawn = r.Switchover != nil && *r.Switchover == wish && (r.Phase == failover.Running || r.Phase == failover.Standby)
		if withdrawn {
			r.Switchover = nil
		}
		return withdrawn, nil
	})
	what := "it goes on"
	if withdrawn {
		what = "it was withdrawn"
	}
	return fmt.Errorf("not done in time (%s)%s: %w", what, because(why), errors.Join(context.Cause(ctx), err))
}

// edit replaces the record by a changed one, however often others do so meanwhile. change says whether there
// is anything to change; it is called anew for each attempt.
func (m *Member) edit(ctx context.Context, change func(*failover.Record) (bool, error)) error {
	for {
		again, err := m.editOnce(ctx, change)
		poke(m.reread)
		if !again {
			return err
		}
		if !m.rest(ctx, nil, 20*time.Millisecond) {
			return fmt.Errorf("change the cluster's record: %w", errors.Join(context.Cause(ctx), err))
		}
	}
}

func (m *Member) editOnce(ctx context.Context, change func(*failover.Record) (bool, error)) (again bool, err error) {
	call, cancel := context.WithTimeout(ctx, m.callTimeout())
	defer cancel()
	pair, err := m.opt.KV.Get(call, m.recordKey())
	if errors.Is(err, coord.ErrNotFound) {
		return false, unsafe("there is no cluster yet")
	}
	if err != nil {
		return true, err
	}
	record, err := failover.ParseRecord(pair.Value)
	if err != nil {
		return false, err
	}
	next := record.Next()
	changed, err := change(next)
	if err != nil || !changed {
		return false, err
	}
	_, err = m.opt.KV.CompareAndSwap(call, m.recordKey(), next.Encode(), pair.Revision)
	return err != nil && !errors.Is(err, coord.ErrUnauthorized), err
}

func unknown(r *failover.Record, name string) error {
	var names []string
	for known := range r.Members {
		names = append(names, known)
	}
	slices.Sort(names)
	return refuse(RefusedUnknown, "there is no member %q: there are %s", name, strings.Join(names, ", "))
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

// withdrawal is why the last switchover was, in parentheses; empty: somebody did it.
func withdrawal(r *failover.Record) string {
	if r.Withdrawn == nil {
		return ""
	}
	return because(r.Withdrawn.Why)
}

// planned says which switchover that is.
func planned(s *failover.Switchover) string {
	text := ""
	if s.To != "" {
		text += " to " + s.To
	}
	if !s.At.IsZero() {
		text += " at " + s.At.Format(time.RFC3339)
	}
	return text
}
