package postgres

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/internal/database"
	"drover/internal/failover"
)

// inChild names, in a child process of a test, the file that says what is done there.
const inChild = "DROVER_TEST_POSTGRES_CHILD"

// childTask is what is done by an agent that is killed meanwhile.
type childTask struct {
	Data, Run     string
	Port          int
	UID, GID      uint32
	Do            string
	Source        database.Peer
	Super, R, Rew string // the passwords
}

func (c childTask) run() error {
	d, err := New(Options{
		Data: c.Data, Run: c.Run, Port: c.Port, Listen: "127.0.0.1", User: credential(c.UID, c.GID),
		Superuser: role("super", c.Super), Replication: role("repl", c.R), Rewind: role("rewinder", c.Rew),
		InitArgs: []string{"--no-sync"},
	})
	if err != nil {
		return err
	}
	switch c.Do {
	case "init":
		return d.Init(context.Background())
	case "rewind":
		return d.Rewind(context.Background(), c.Source)
	}
	return d.Clone(context.Background(), c.Source)
}

func credential(uid, gid uint32) *syscall.Credential {
	if uid == 0 {
		return nil
	}
	return &syscall.Credential{Uid: uid, Gid: gid}
}

// TestChild is no test, but what a killed agent does.
func TestChild(t *testing.T) {
	file := os.Getenv(inChild)
	if file == "" {
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var c childTask
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	if err := c.run(); err != nil {
		t.Fatal(err)
	}
}

// killed has a member do something in a process that is killed after a while, and says whether it had come to its end. One that
// begins while what the one before it has started is still ending may fail.
func (m *member) killed(do string, source database.Peer, after time.Duration) (ended bool) {
	m.t.Helper()
	c := childTask{
		Data: m.o.Data, Run: m.o.Run, Port: m.o.Port, Do: do, Source: source,
		Super: m.o.Superuser.Password(), R: m.o.Replication.Password(), Rew: m.o.Rewind.Password(),
	}
	if u := m.o.User; u != nil {
		c.UID, c.GID = u.Uid, u.Gid
	}
	text, err := json.Marshal(c)
	m.must(err)
	file := filepath.Join(m.t.TempDir(), "task")
	m.must(os.WriteFile(file, text, 0o600))
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.count=1")
	cmd.Env = append(os.Environ(), inChild+"="+file)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second
	m.must(cmd.Start())
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	err = cmd.Wait()
	if timer.Stop() && err != nil {
		m.t.Logf("%s: %v\n%s", do, err, out.String())
	}
	return err == nil
}

// agentKilled: an agent that is killed in the middle leaves nothing that is taken for a database, and its successor
// brings it to an end.
func agentKilled(t *testing.T, e *engine) {
	a, b := newMember(t, e, 0, nil), newMember(t, e, 1, nil)
	a.found()
	for i, after := 0, 100*time.Millisecond; !b.killed("clone", *a.peer(), after) && i < 12; i, after = i+1, after*3/2 {
		disk, err := b.Disk(b.ctx())
		b.must(err)
		if left, err := os.Lstat(b.unfinished()); err == nil && !disk.Empty {
			t.Fatalf("after %s the files are %+v (%v)", after, disk, left)
		}
	}
	b.join(a)
	b.process.Kill()
	b.must(os.WriteFile(filepath.Join(b.o.Data, "postgresql.auto.conf"), []byte("primary_conninfo = 'host=x'\n"), 0o600))
	b.must(b.own(filepath.Join(b.o.Data, "postgresql.auto.conf")))
	b.start(database.Configuration{Standby: true, Upstream: a.peer()})
	b.must(b.Follow(b.ctx(), nil))
	b.must(b.Promote(b.ctx()))
	a.sql("CREATE TABLE public.lost AS SELECT 1")
	a.process.Kill()
	for i, after := 0, 100*time.Millisecond; i < 12; i, after = i+1, after*2 {
		if a.killed("rewind", *b.peer(), after) {
			break
		}
		disk, err := a.Disk(a.ctx())
		a.must(err)
		if disk.Empty { // it was in the middle: only a copy helps
			a.must(a.Clone(a.ctx(), *b.peer()))
			break
		}
	}
	a.must(b.Replicas(b.ctx(), []database.Peer{*a.peer()}))
	a.start(database.Configuration{Standby: true, Upstream: b.peer()})
	a.sees(func(s failover.Database) bool { return s.Receiving })
	if n := a.sql("SELECT count(*) FROM pg_class WHERE relname = 'lost'"); n != "0" {
		t.Error("what was on the old primary only is still there")
	}
	left, err := filepath.Glob(a.o.Data + freshSuffix + "*")
	if err != nil || len(left) > 0 {
		t.Errorf("directories are left: %v %v", left, err)
	}
}
