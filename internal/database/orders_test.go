package database

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"drover/internal/failover"
)

func TestSwitchover(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b", "c")
	first := c.formed()
	to := c.other(first)
	word := c.writes()
	out, err := to.Switchover(c.ctx(), to.name(), time.Time{}) // asked of whomever
	if err != nil || out.Primary != to.name() || out.Former != first.name() {
		t.Fatalf("switchover: %+v, %v", out, err)
	}
	second := c.formed()
	c.kept(second, word)
	if first.kills != 0 {
		t.Error("the former primary was killed, not stopped")
	}
	if h := second.View().Record.History; h[len(h)-1].Reason != "switchover" {
		t.Errorf("history: %+v", h)
	}
	out, err = first.Switchover(c.ctx(), "", time.Time{})
	if err != nil || out.Primary == second.name() {
		t.Fatalf("switchover to anybody: %+v, %v", out, err)
	}
}

// TestDemotedIsToldFirst: while clients are turned away, nobody is told any more that it is the primary.
func TestDemotedIsToldFirst(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b", "c")
	first := c.formed()
	c.engine.change(func() { first.hold = make(chan struct{}) })
	done := make(chan error, 1)
	go func() {
		_, err := first.Switchover(c.ctx(), "", time.Time{})
		done <- err
	}()
	c.until("it is demoted", func() bool { return first.View().Role == RoleNone })
	for since, n := first.View().stepped, 0; n < 3; {
		first.nudge()
		v := first.View()
		if v.Role == RolePrimary {
			t.Fatal("it is called the primary again")
		}
		if v.stepped > since {
			since, n = v.stepped, n+1
		}
	}
	close(first.hold)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestSwitchoverIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b")
	c.add("never", failover.Tags{NoFailover: true})
	c.add("async", failover.Tags{NoSync: true})
	primary := c.formed()
	for primary.name() == "never" || primary.name() == "async" { // who came first
		var err error
		if _, err = primary.Switchover(c.ctx(), "a", time.Time{}); err != nil {
			t.Fatal(err)
		}
		primary = c.formed()
	}
	to := c.members["a"]
	if primary == to {
		to = c.members["b"]
	}
	over := func(name string) error {
		_, err := to.Switchover(c.ctx(), name, time.Time{})
		return err
	}
	c.refused(over("nobody"), RefusedUnknown, "a, async, b, never")
	c.refused(over(primary.name()), RefusedUnsafe, "primary already")
	c.refused(over("never"), RefusedUnsafe, "nofailover")
	c.refused(over("async"), RefusedUnsafe, "not synchronous")

	c.engine.change(func() { to.slow = true })
	for range 20 {
		c.writes()
	}
	c.until("it is seen to lag", func() bool { v := to.View(); return v.Lag != nil && *v.Lag > maxLag })
	_, err := primary.Switchover(c.ctx(), to.name(), time.Time{}) // who has not heard of it asks
	c.refused(err, RefusedUnsafe, "behind in applying")
	c.engine.change(func() { to.slow = false })

	if changed, err := to.Pause(c.ctx(), true); err != nil || !changed {
		t.Fatal(changed, err)
	}
	c.refused(over(to.name()), RefusedUnsafe, "paused")
	if changed, err := primary.Pause(c.ctx(), true); err != nil || changed {
		t.Fatal("paused twice", changed, err)
	}
	if _, err := to.Pause(c.ctx(), false); err != nil {
		t.Fatal(err)
	}

	out, err := primary.Switchover(c.ctx(), "", time.Now().Add(time.Hour))
	if err != nil || out.Scheduled.IsZero() {
		t.Fatal(out, err)
	}
	c.refused(over(to.name()), RefusedBusy, "pending at ")
	if found, err := to.Withdraw(c.ctx()); err != nil || !found {
		t.Fatal(found, err)
	}
	if found, err := to.Withdraw(c.ctx()); err != nil || found {
		t.Fatal("withdrawn twice", found, err)
	}
}

// TestScheduledSwitchover comes at its time.
func TestScheduledSwitchover(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b", "c")
	first := c.formed()
	if _, err := first.Switchover(c.ctx(), "", time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	c.until("another one leads", func() bool { v := first.View(); return v.Primary != "" && v.Primary != first.name() })
}

// TestLateSwitchover is withdrawn when nobody waits for it any more.
func TestLateSwitchover(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b", "c")
	first := c.formed()
	ctx, cancel := context.WithCancelCause(c.ctx())
	gone := errors.New("gone")
	cancel(gone)
	before, err := first.record(c.ctx())
	if err != nil {
		t.Fatal(err)
	}
	wish := failover.Switchover{To: "nobody"}
	if err := first.edit(c.ctx(), func(r *failover.Record) (bool, error) { r.Switchover = &wish; return true, nil }); err != nil {
		t.Fatal(err)
	}
	if _, err = first.await(ctx, before, wish); !errors.Is(err, gone) || !strings.Contains(err.Error(), "withdrawn") {
		t.Fatal(err)
	}
	if r, err := first.record(c.ctx()); err != nil || r.Switchover != nil {
		t.Fatal(r.Switchover, err)
	}
}

// TestHopelessSwitchover is withdrawn, and the record says why, when the named member has gone.
func TestHopelessSwitchover(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b", "c")
	first := c.formed()
	gone := c.other(first)
	if _, err := first.Switchover(c.ctx(), gone.name(), time.Now().Add(500*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	c.engine.change(func() { gone.frozen = true }) // it could take over until then
	gone.Member.Stop()
	<-gone.ended
	c.until("it is withdrawn", func() bool {
		r := first.View().Record
		return r.Switchover == nil && r.Withdrawn != nil && r.Withdrawn.To == gone.name() && r.Withdrawn.Why == gone.name()+" is no member any more"
	})
	if v := first.View(); v.Role != RolePrimary {
		t.Errorf("%+v", v)
	}
	before := first.View().Record.Clone()
	before.Revision--
	if _, err := first.await(c.ctx(), before, failover.Switchover{To: gone.name()}); err == nil || !strings.Contains(err.Error(), "withdrawn ("+gone.name()) {
		t.Error(err)
	}
	if _, err := first.Switchover(c.ctx(), "", time.Time{}); err != nil {
		t.Error(err)
	}
	c.until("that is history", func() bool { return first.View().Record.Withdrawn == nil })
}

func TestPause(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b", "c")
	first := c.formed()
	if _, err := first.Pause(c.ctx(), true); err != nil {
		t.Fatal(err)
	}
	c.until("all know", func() bool {
		for _, i := range c.members {
			if !i.View().Record.Paused {
				return false
			}
		}
		return true
	})
	runs := first.View().Runs
	first.crash()
	c.until("it leads again itself", func() bool { v := first.View(); return v.Role == RolePrimary && v.Runs > runs })
	if _, err := first.Pause(c.ctx(), false); err != nil {
		t.Fatal(err)
	}
	c.formed()
}

func TestFailoverByHand(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b")
	first := c.formed()
	other := c.other(first)
	_, err := other.Failover(c.ctx(), other.name(), false)
	c.refused(err, RefusedUnsafe, "drover switchover hands over from it without any loss")
	_, err = other.Failover(c.ctx(), "nobody", true)
	c.refused(err, RefusedUnknown, "nobody")
	_, err = other.Failover(c.ctx(), first.name(), true)
	c.refused(err, RefusedUnsafe, "primary already")

	// The replica goes and is waited for no more; the primary alone takes a word, and goes too.
	c.engine.change(func() { other.frozen = true })
	c.until("the primary commits alone", func() bool { return first.View().Record.Set.Acks == 0 })
	c.writes()
	first.kill()
	delete(c.members, first.name())
	c.engine.change(func() { other.frozen = false })
	c.until("there is no primary", func() bool { v := other.View(); return v.Vacant > 4*time.Second && v.Received != "" })
	_, err = other.Failover(c.ctx(), "", false)
	c.refused(err, RefusedUnsafe, "commits that only "+first.name()+" have, and "+other.name()+" has not, are lost; repeat it with --force")
	out, err := other.Failover(c.ctx(), "", true)
	if err != nil || out.Primary != other.name() {
		t.Fatal(out, err)
	}
}

func TestReinit(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b", "c")
	first := c.formed()
	other := c.other(first)
	_, err := other.Reinit(c.ctx(), first.name())
	c.refused(err, RefusedUnsafe, "is the primary")
	id := other.View().ID
	if _, err := first.Reinit(c.ctx(), other.name()); err != nil {
		t.Fatal(err)
	}
	if v := other.View(); v.ID == id || v.Copies == 0 {
		t.Errorf("it is no other copy: %+v", v)
	}
	c.formed()
}

func TestRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b", "c")
	first := c.formed()
	other := c.other(first)
	runs := func() map[string]int {
		all := map[string]int{}
		for name, i := range c.members {
			all[name] = i.View().Runs
		}
		return all
	}
	before := runs()
	if _, err := first.Restart(c.ctx(), other.name()); err != nil {
		t.Fatal(err)
	}
	if now := runs(); now[other.name()] != before[other.name()]+1 || now[first.name()] != before[first.name()] {
		t.Errorf("starts before %v, after %v", before, now)
	}
	if v := other.View(); !v.Sync {
		t.Error("it was not waited until commits wait for it again")
	}
	before = runs()
	out, err := other.RestartAll(c.ctx(), false)
	if err != nil || out.Primary == first.name() {
		t.Fatal(out, err)
	}
	for name, n := range runs() {
		if n <= before[name] {
			t.Errorf("%s was not restarted", name)
		}
	}
}

// TestRestartAlone: where nobody can take over, the primary is restarted in its place.
func TestRestartAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a")
	only := c.formed()
	_, err := only.Switchover(c.ctx(), "", time.Time{})
	c.refused(err, RefusedUnsafe, "no other member can take over")
	if out, err := only.Restart(c.ctx(), "a"); err != nil || out.Primary != "a" {
		t.Fatal(out, err)
	}
}

// TestStrictSparesNobody: nothing that would hold up all commits is done.
func TestStrictSparesNobody(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.Strict, "a", "b")
	first := c.formed()
	other := c.other(first)
	_, err := first.Restart(c.ctx(), other.name())
	c.refused(err, RefusedUnsafe, "would hold up all commits")
	_, err = first.Reinit(c.ctx(), other.name())
	c.refused(err, RefusedUnsafe, "would hold up all commits")
}

// TestOrdersAreMembersOnly: nobody else can have a server restarted.
func TestOrdersAreMembersOnly(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a")
	only := c.formed()
	api := only.opt.Failover.Self.API
	for _, path := range []string{askPath, orderPath} {
		resp, err := http.Post("http://"+api+path, "application/json", strings.NewReader(`{"do":"restart","id":"`+only.View().ID+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestEndSegment: any member has the primary end its segment, and what it knows of backups is told to the others.
func TestEndSegment(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b")
	first := c.formed()
	other := c.other(first)
	for _, m := range []*instance{other, first} {
		if err := m.Member.EndSegment(c.ctx()); err != nil {
			t.Fatal(err)
		}
	}
	c.engine.change(func() {
		if first.segments != 2 || other.segments != 0 {
			t.Errorf("%d segments of the primary, and %d of the replica, were ended", first.segments, other.segments)
		}
	})
	if err := other.obey(order{endSegment, other.View().ID}); err == nil {
		t.Error("a replica ended its segment")
	}
	c.until("what a replica knows of backups is heard", func() bool {
		s, _ := first.Named(first.View(), other.name())
		return string(s.Backups) == `"`+other.name()+`'s"`
	})
}
