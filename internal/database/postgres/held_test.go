package postgres

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"drover/internal/database"
	"drover/internal/failover"

	"github.com/jackc/pgx/v5"
)

// hold stops one of the server's processes, as a machine without time for it does, until it is let go.
func (m *member) hold(kind string) (letGo func()) {
	m.t.Helper()
	pid, err := strconv.Atoi(m.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = " + literal(kind)))
	m.must(err)
	m.must(syscall.Kill(pid, syscall.SIGSTOP))
	letGo = func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
	m.t.Cleanup(letGo)
	return letGo
}

// detachedWhateverHangs: who follows nobody receives nothing, although the process that would have to know has not read it yet.
func detachedWhateverHangs(t *testing.T, e *engine) {
	a, b := newMember(t, e, 0, nil), newMember(t, e, 1, nil)
	a.found()
	b.join(a)
	letGo := b.hold("startup")
	b.must(b.Follow(b.ctx(), nil))
	before := b.sees(func(s failover.Database) bool { return s.Detached })
	a.sql("CREATE TABLE public.more AS SELECT 1", "SELECT pg_switch_wal()", "CHECKPOINT")
	letGo()
	for until := time.Now().Add(time.Second); time.Now().Before(until); {
		b.must(wait(b.ctx(), 10*time.Millisecond))
		s := b.sees(func(failover.Database) bool { return true })
		if order, ok := b.Compare(s.Received, before.Received); !ok || order > 0 || !s.Detached {
			t.Fatalf("it was detached at %+v, and is at %+v", before, s)
		}
	}
	if n := a.sql("SELECT count(*) FROM pg_stat_replication"); n != "0" {
		t.Error("the primary has a replica")
	}
	b.must(b.Follow(b.ctx(), a.peer()))
	b.sees(func(s failover.Database) bool { return s.Receiving })
}

// synchronizedByAll: a sender that was not there when a set was changed does not release commits by the old one.
func synchronizedByAll(t *testing.T, e *engine) {
	a, b := newMember(t, e, 0, nil), newMember(t, e, 1, nil)
	a.found()
	b.join(a)
	one := failover.SyncSet{Members: []string{b.id()}, Acks: 1}
	if _, err := a.Synchronize(a.ctx(), one); err != nil {
		t.Fatal(err)
	}
	letGo := a.hold("walsender")
	if _, err := a.Synchronize(a.ctx(), failover.SyncSet{Members: []string{b.id(), "other"}, Acks: 2}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx := a.ctx()
	go func() {
		done <- a.with(ctx, func(conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "SET synchronous_commit = on; CREATE TABLE public.late AS SELECT 1")
			return err
		})
	}()
	a.sees(func(failover.Database) bool {
		return a.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "1"
	})
	letGo()
	select {
	case err := <-done:
		t.Errorf("one replica acknowledged a commit for two: %v", err)
	case <-time.After(time.Second):
		if _, err := a.Synchronize(a.ctx(), one); err != nil {
			t.Fatal(err)
		}
		a.must(<-done)
	}
}

// silentReplica: one that says nothing any more does not stream, however its sender sees it; what it says again is heard.
func silentReplica(t *testing.T, e *engine) {
	a, b := newMember(t, e, 0, nil), newMember(t, e, 1, nil)
	a.found()
	b.join(a)
	streams := func(want bool) {
		a.sees(func(s failover.Database) bool { return len(s.Replicas) == 1 && s.Replicas[0].Streaming == want })
	}
	streams(true)
	letGo := b.hold("walreceiver")
	streams(false)
	if n := a.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"); n != "1" {
		t.Errorf("the sender has noticed, too: %s", n)
	}
	letGo()
	streams(true)
}

// adopted: an agent that finds a server running knows it, but trusts nothing that it has not seen.
func adopted(t *testing.T, e *engine) {
	a, b := newMember(t, e, 0, nil), newMember(t, e, 1, nil)
	a.found()
	b.join(a)
	want := failover.SyncSet{Members: []string{b.id()}, Acks: 1}
	if _, err := a.Synchronize(a.ctx(), want); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*member{a, b} {
		m.must(m.Close())
		m.Driver = e.Driver(m.n).(*Driver)
	}
	if s := a.sees(func(s failover.Database) bool { return s.Primary && s.Open }); s.Set.Acks != 0 {
		t.Errorf("nobody has seen that commits wait: %+v", s)
	}
	if _, err := a.Synchronize(a.ctx(), want); err != nil {
		t.Fatal(err)
	}
	a.sees(func(s failover.Database) bool { return s.Set.Equal(want) })
	b.sees(func(s failover.Database) bool { return s.Receiving && s.Upstream == a.id() && s.Received != "" })
	b.must(b.Follow(b.ctx(), nil))
	b.sees(func(s failover.Database) bool { return s.Detached })
	b.must(b.Follow(b.ctx(), &database.Peer{ID: "gone", Host: "127.0.0.1", Port: 1}))
	if s := b.sees(func(s failover.Database) bool { return s.Upstream == "gone" }); s.Detached || s.Receiving {
		t.Errorf("it follows who is not there: %+v", s)
	}
}
