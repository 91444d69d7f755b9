package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/database"
	"drover/internal/failover"
)

// searchPath: what a user names like PostgreSQL's own functions is not taken for them, whatever is set for the superuser.
func searchPath(t *testing.T, e *engine) {
	a := newMember(t, e, 0, nil)
	a.found()
	a.sql(
		"CREATE SCHEMA lies",
		"CREATE FUNCTION lies.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
		"CREATE FUNCTION lies.pg_current_wal_flush_lsn() RETURNS pg_lsn LANGUAGE sql AS $$SELECT 'F/0'::pg_lsn$$",
		"ALTER ROLE super SET search_path = lies, pg_catalog",
		"ALTER DATABASE postgres SET search_path = lies, pg_catalog",
	)
	s, err := e.Session(a.ctx(), 0)
	a.must(err)
	defer s.Close()
	var lied bool
	a.must(s.(session).conn.QueryRow(a.ctx(), "SELECT pg_is_in_recovery()").Scan(&lied))
	if !lied {
		t.Fatal("the lies are not believed by anybody: this test shows nothing")
	}
	again := newMember(t, e, 0, nil) // another agent, with sessions that begin now
	st := again.sees(func(failover.Database) bool { return true })
	if order, ok := a.Compare(st.Received, a.sees(func(failover.Database) bool { return true }).Received); !st.Primary || !ok || order > 0 {
		t.Errorf("the agent believes what a user has made: %+v", st)
	}
}

// TestPasswordsAreInFilesOnly: of all that the driver starts, for a database, its copy and its way back, nobody
// sees a password: not as an argument, in the environment or in the log.
func TestPasswordsAreInFilesOnly(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	secrets := []string{"of-the-superuser", "of-replication", "of-the-rewind"}
	bin, seen := programs(t)
	guard := func(o *Options) {
		o.Bin = bin
		o.Superuser, o.Replication, o.Rewind = role("super", secrets[0]), role("repl", secrets[1]), role("rewinder", secrets[2])
	}
	a, b := newMember(t, e, 0, guard), newMember(t, e, 1, guard)
	a.must(a.Init(a.ctx()))
	a.start(database.Configuration{})
	a.must(a.Admit(a.ctx(), true))
	b.join(a)
	b.must(b.Follow(b.ctx(), nil))
	b.sees(func(s failover.Database) bool { return s.Detached })
	a.sql("CREATE TABLE public.more AS SELECT 1")
	a.process.Kill()
	b.must(b.Promote(b.ctx()))
	b.must(b.Replicas(b.ctx(), []database.Peer{*a.peer()}))
	a.must(a.Rewind(a.ctx(), *b.peer()))
	a.start(database.Configuration{Standby: true, Upstream: b.peer()})
	a.sees(func(s failover.Database) bool { return s.Receiving })

	text, err := os.ReadFile(seen)
	a.must(err)
	for _, program := range []string{"initdb", "postgres", "pg_basebackup", "pg_rewind"} {
		if !strings.Contains(string(text), "\n"+program+" ") {
			t.Errorf("%s was not started: this test shows nothing of it", program)
		}
	}
	said := string(text) + a.process.Said() + b.process.Said()
	for _, s := range secrets {
		if i := strings.Index(said, s); i >= 0 {
			t.Errorf("a password is there to see: %q", said[max(0, i-200):i])
		}
	}
}

// programs are PostgreSQL's, each of which writes down its name, its arguments and its environment first.
func programs(t *testing.T) (bin, seen string) {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/*")
	if err != nil || len(found) == 0 {
		t.Fatalf("PostgreSQL is not installed: apt-get install postgresql (%v)", err)
	}
	bin, err = os.MkdirTemp("", "programs-") //nolint:usetesting // not the test's folder, which only we may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(bin) })
	seen = filepath.Join(bin, "seen")
	if err := os.WriteFile(seen, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range found { // of several versions the newest, which comes last
		script := fmt.Sprintf("#!/bin/sh\n{ echo; echo \"%s $*\"; env; } >>%s\nexec %s \"$@\"\n", filepath.Base(path), seen, path)
		if err := os.WriteFile(filepath.Join(bin, filepath.Base(path)), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{bin, seen} { // the server's user comes in, and writes, too
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return bin, seen
}
