package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/internal/database"
	"drover/internal/database/databasetest"
	"drover/internal/failover"

	"github.com/jackc/pgx/v5"
)

// TestServers runs what needs a database of its own on copies of one.
func TestServers(t *testing.T) {
	made := newMade(t)
	for name, test := range map[string]func(*testing.T, *engine){
		"what was received is known again": whatWasReceivedIsKnownAgain,
		"settled":                          settled,
		"two with the same timeline":       twoWithTheSameTimeline,
		"taken timelines":                  takenTimelines,
		"ALTER SYSTEM":                     alterSystem,
		"slots":                            slots,
		"agent killed":                     agentKilled,
		"detached whatever hangs":          detachedWhateverHangs,
		"synchronized by all":              synchronizedByAll,
		"silent replica":                   silentReplica,
		"adopted":                          adopted,
		"reconfigured":                     reconfigured,
		"outgrown":                         outgrown,
		"rewind of what is gone":           rewindOfWhatIsGone,
		"encrypted":                        encrypted,
		"seeded":                           seeded,
		"search path":                      searchPath,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newEngineOf(t, made))
		})
	}
}

// member is one with its server, where a test needs what only PostgreSQL has.
type member struct {
	*Driver
	t       *testing.T
	e       *engine
	n       int
	process *databasetest.Process
}

func newMember(t *testing.T, e *engine, n int, change func(*Options)) *member {
	t.Helper()
	if change != nil {
		change(&e.options[n])
	}
	m := &member{t: t, e: e, n: n, Driver: e.Driver(n).(*Driver)}
	t.Cleanup(func() {
		if m.process != nil {
			m.process.Kill()
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func (m *member) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	m.t.Cleanup(cancel)
	return ctx
}

func (m *member) id() string { return fmt.Sprintf("Id-%d", m.n) }

func (m *member) peer() *database.Peer {
	host, port := m.e.Peer(m.n)
	return &database.Peer{Name: m.id(), ID: m.id(), Host: host, Port: port}
}

func (m *member) start(c database.Configuration) {
	m.t.Helper()
	c.ID = m.id()
	m.must(m.Configure(m.ctx(), c))
	m.process = databasetest.Start(m.t, m.Command(), m.e.User())
	m.sees(func(failover.Database) bool { return true })
}

func (m *member) found() {
	m.t.Helper()
	m.must(m.e.Make(m.n))
	m.start(database.Configuration{})
	m.must(m.Admit(m.ctx(), true))
}

func (m *member) join(source *member) {
	m.t.Helper()
	m.must(m.Clone(m.ctx(), *source.peer()))
	m.must(source.Replicas(m.ctx(), []database.Peer{*m.peer()}))
	m.start(database.Configuration{Standby: true, Upstream: source.peer()})
	m.sees(func(s failover.Database) bool { return s.Receiving })
}

func (m *member) sees(holds func(failover.Database) bool) failover.Database {
	m.t.Helper()
	ctx := m.ctx()
	for {
		s, err := m.Status(ctx)
		if err == nil && holds(s) {
			return s
		}
		if m.process != nil && m.process.Ended() {
			m.t.Fatalf("the server ended: %s", m.process.Said())
		}
		if wait(ctx, 5*time.Millisecond) != nil {
			m.t.Fatalf("last seen: %+v %v", s, err)
		}
	}
}

// sql runs statements as the superuser, over the agent's socket.
func (m *member) sql(statements ...string) string {
	m.t.Helper()
	out := ""
	m.must(m.with(m.ctx(), func(conn *pgx.Conn) error {
		for _, s := range statements {
			rows, err := conn.Query(m.ctx(), s)
			if err != nil {
				return err
			}
			for rows.Next() {
				v, err := rows.Values()
				if err != nil {
					return err
				}
				out = fmt.Sprint(v...)
			}
			if err := rows.Err(); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		return nil
	}))
	return out
}

// whatWasReceivedIsKnownAgain: a replica that is killed with more received than it has applied says nothing
// after its start until it has read all of it.
func whatWasReceivedIsKnownAgain(t *testing.T, e *engine) {
	a, b := newMember(t, e, 0, nil), newMember(t, e, 1, nil)
	a.found()
	a.sql("CREATE TABLE public.test (x text)")
	b.join(a)
	b.sql("SELECT pg_wal_replay_pause()")
	a.sql("INSERT INTO public.test SELECT repeat('x', 500) FROM generate_series(1, 60000)", "SELECT pg_switch_wal()", "INSERT INTO public.test VALUES ('last')")
	end := a.sees(func(failover.Database) bool { return true }).Received
	before := b.sees(func(s failover.Database) bool {
		order, ok := b.Compare(s.Received, end)
		return ok && order >= 0
	})
	if order, ok := b.Compare(before.Applied, before.Received); !ok || order >= 0 || before.Incident == "" {
		t.Fatalf("applying is paused: %+v", before)
	}
	b.process.Kill()
	future := b.o.Data + "/pg_wal/00000007.history"
	b.must(b.writeFile(future, "1\t0/3000100\tof somebody who was followed no further\n"))
	b.start(database.Configuration{Standby: true})
	if _, err := os.Lstat(future); err == nil {
		t.Error("it may aim at a history that nobody has")
	}
	first := b.sees(func(s failover.Database) bool { return s.Received != "" })
	if order, ok := b.Compare(before.Received, first.Received); !ok || order > 0 {
		t.Errorf("it had received %s, and after its restart says first that it has %+v", before.Received, first)
	}
	b.sees(func(s failover.Database) bool { return s.Detached && s.Received == s.Applied })
	if n := b.sql("SELECT count(*) FROM public.test"); n != "60001" {
		t.Errorf("%s rows are there, want 60001", n)
	}
}

// settled: when a detached replica has applied all that it can, what it has beyond that is no whole record, and counts for nothing.
func settled(t *testing.T, e *engine) {
	a, b := newMember(t, e, 0, nil), newMember(t, e, 1, nil)
	a.found()
	b.join(a)
	b.must(b.Follow(b.ctx(), nil))
	b.sees(func(s failover.Database) bool { return s.Detached })
	b.sees(func(failover.Database) bool { // as Status has it, a few looks later
		a := <-b.status
		defer func() { b.status <- a }()
		return a.settled(general{Startup: a.quiet.process, Idle: true, Retry: 200})
	})
	if s := b.sees(func(s failover.Database) bool { return s.Detached }); s.Received != s.Applied {
		t.Errorf("it has applied all that it can, and says %+v", s)
	}
}

// takenTimelines: a timeline that another member has made, of which this one knows only by the archive, is passed over; replicas follow.
func takenTimelines(t *testing.T, e *engine) {
	const theirs = "1\t0/7654321\tno recovery target specified\n"
	asked := uint32(0)
	a, b := newMember(t, e, 0, nil), newMember(t, e, 1, nil)
	c := newMember(t, e, 2, func(o *Options) {
		o.Taken = func(_ context.Context, known uint32) (map[uint32]string, error) {
			asked = known
			return map[uint32]string{2: theirs, 3: "2\t0/7654321\tno recovery target specified\n"}, nil
		}
	})
	a.found()
	b.join(a)
	c.join(a)
	for _, m := range []*member{b, c} {
		m.must(m.Follow(m.ctx(), nil))
		m.sees(func(s failover.Database) bool { return s.Detached })
	}
	a.process.Kill()
	late, cancel := context.WithCancel(c.ctx())
	cancel()
	if err := c.Promote(late); err == nil {
		t.Fatal("promoted in no time")
	}
	if have, err := os.ReadFile(c.historyFile(2)); err != nil || len(have) > 0 { // a replica would aim at it
		t.Errorf("before it is a primary the history of timeline 2 is %q (%v)", have, err)
	}
	c.must(c.Promote(c.ctx()))
	c.sees(func(s failover.Database) bool { return s.Primary && s.Timeline == "4" })
	if asked != 1 {
		t.Errorf("asked for what follows timeline %d", asked)
	}
	if have, err := os.ReadFile(c.historyFile(2)); err != nil || string(have) != theirs {
		t.Errorf("the history of timeline 2 is %q (%v)", have, err)
	}
	c.must(c.Replicas(c.ctx(), []database.Peer{*b.peer()}))
	b.must(b.Follow(b.ctx(), c.peer()))
	b.sees(func(s failover.Database) bool { return s.Receiving && s.Timeline == "4" })
	if have, err := os.ReadFile(c.historyFile(4)); err != nil || !strings.HasPrefix(string(have), "1\t") || strings.Count(string(have), "\n1\t")+strings.Count(string(have), "\n2\t") > 0 {
		t.Errorf("the new timeline's history is %q (%v)", have, err)
	}
}

// twoWithTheSameTimeline: two that were promoted without knowing of each other have no common history, whatever
// their timelines are called.
func twoWithTheSameTimeline(t *testing.T, e *engine) {
	a, b, c := newMember(t, e, 0, nil), newMember(t, e, 1, nil), newMember(t, e, 2, nil)
	a.found()
	b.join(a)
	c.join(a)
	for _, m := range []*member{b, c} {
		m.must(m.Follow(m.ctx(), nil))
		m.sees(func(s failover.Database) bool { return s.Detached })
	}
	a.process.Kill()
	b.must(b.Promote(b.ctx()))
	c.sql("SELECT pg_promote()") // without the checkpoint that the driver asks for: its control file still says 1
	for _, m := range []*member{b, c} {
		m.sql("CREATE TABLE public.mine AS SELECT " + literal(m.id()))
	}
	for range 2 {
		c.process.Kill()
		if err := c.Rewind(c.ctx(), *b.peer()); !errors.Is(err, database.ErrDiverged) {
			t.Fatalf("rewound to a history that only has the same name: %v", err)
		}
		if d, err := c.Disk(c.ctx()); err != nil || d.Empty {
			t.Fatalf("files that nothing was done to: %+v %v", d, err)
		}
		c.start(database.Configuration{})
		c.sees(func(s failover.Database) bool { return s.Primary && s.Timeline == "2" })
		c.sql("CHECKPOINT")
	}
	c.process.Kill()
	c.join(b)
	if got := c.sql("SELECT * FROM public.mine"); got != b.id() {
		t.Errorf("it has %q", got)
	}
	// The old primary goes no further than where both left it, or a little: it can be rewound to one.
	a.must(a.Rewind(a.ctx(), *b.peer()))
	a.must(b.Replicas(b.ctx(), []database.Peer{*a.peer(), *c.peer()}))
	a.start(database.Configuration{Standby: true, Upstream: b.peer()})
	a.sees(func(s failover.Database) bool { return s.Receiving })
	c.sees(func(s failover.Database) bool { return s.Receiving })
}

// alterSystem: what a superuser sets against the agent does not stay.
func alterSystem(t *testing.T, e *engine) {
	nasty := "it's \\ 100%% \"x\" # no comment = '\n"
	a := newMember(t, e, 0, func(o *Options) {
		o.Parameters["log_line_prefix"] = nasty
		o.HBA = []string{"host all all 127.0.0.1/32 scram-sha-256"}
	})
	a.found()
	if got := a.sql("SHOW log_line_prefix"); got != nasty {
		t.Errorf("a parameter is %q, want %q", got, nasty)
	}
	want := failover.SyncSet{Acks: 1, Members: []string{"nobody-here"}}
	if _, err := a.Synchronize(a.ctx(), want); err != nil {
		t.Fatal(err)
	}
	a.alter("synchronous_standby_names = ''", "work_mem = '5MB'")
	a.sql("SELECT pg_reload_conf()")
	a.sees(func(s failover.Database) bool { return s.Set.Acks == 0 })
	if _, err := a.Synchronize(a.ctx(), want); err != nil {
		t.Fatal(err)
	}
	if s := a.sees(func(s failover.Database) bool { return s.Primary }); !s.Set.Equal(want) {
		t.Errorf("%+v", s)
	}
	if got := a.sql("SHOW work_mem"); got != "5MB" {
		t.Errorf("work_mem is %s", got)
	}
}

// alter sets parameters by ALTER SYSTEM; where that is switched off, by hand, in the file that it writes.
func (m *member) alter(settings ...string) {
	m.t.Helper()
	if m.major() < 17 {
		for _, s := range settings {
			m.sql("ALTER SYSTEM SET " + s)
		}
		return
	}
	err := m.with(m.ctx(), func(conn *pgx.Conn) error {
		_, err := conn.Exec(m.ctx(), "ALTER SYSTEM SET work_mem = '6MB'")
		return err
	})
	if err == nil {
		m.t.Error("ALTER SYSTEM is not switched off")
	}
	m.must(m.writeFile(filepath.Join(m.o.Data, "postgresql.auto.conf"), strings.Join(settings, "\n")+"\n"))
}

// reconfigured: other parameters are in effect when Reconfigure returns, or need a restart, or are refused by name.
func reconfigured(t *testing.T, e *engine) {
	a := newMember(t, e, 0, nil)
	a.found()
	change := func(name, value string) error {
		parameters := maps.Clone(a.o.Parameters)
		parameters[name] = value
		return a.Reconfigure(a.ctx(), parameters, nil)
	}
	a.must(change("work_mem", "7MB"))
	if got := a.sql("SHOW work_mem"); got != "7MB" {
		t.Errorf("work_mem is %s", got)
	}
	if s := a.sees(func(s failover.Database) bool { return s.Open }); len(s.Pending) > 0 {
		t.Errorf("%+v", s)
	}
	if err := change("work_mem", "much"); err == nil || !strings.Contains(err.Error(), "work_mem") {
		t.Errorf("a value that is none: %v", err)
	}
	if err := change("synchronous_standby_names", ""); err == nil {
		t.Error("what is the agent's was set")
	}
	if got := a.o.Parameters["work_mem"]; got != "7MB" || a.sql("SHOW work_mem") != "7MB" {
		t.Errorf("after a refusal work_mem is %s", got)
	}
	unfit := func(err error, key, why string) {
		t.Helper()
		var bad *SettingError
		if !errors.As(err, &bad) || bad.Key != key || !strings.Contains(bad.Why, why) || strings.Contains(bad.Why, "\n") {
			t.Errorf("want %s: %s, got %+v", key, why, err)
		}
	}
	check := func(name, value string) error {
		return a.CheckParameters(a.ctx(), map[string]string{"log_line_prefix": "%m ", "log_min_messages": "panic", name: value})
	}
	a.must(check("Work_Mem", "9MB"))
	unfit(check("work_mem", "much"), "parameters.work_mem", `invalid value for parameter "work_mem": "much"`)
	unfit(check("wal_sync_method", "hope"), "parameters.wal_sync_method", "Available values: ")
	unfit(check("no_such", "1"), "parameters.no_such", `configuration parameter "no_such"`)
	unfit(check("wal_level", "Minimal"), "parameters.wal_level", "nobody could follow")
	unfit(a.Reconfigure(a.ctx(), a.o.Parameters, []string{"host all all all trust", "host all all"}), "hba[1]", `"host all all" is no line`)
	if len(a.o.HBA) != 1 || a.sql("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL OR 'trust' = auth_method") != "0" {
		t.Errorf("after a refusal: %v", a.o.HBA)
	}
	a.must(a.Admit(a.ctx(), false))
	good := a.o.HBA
	a.must(a.Reconfigure(a.ctx(), a.o.Parameters, []string{"nonsense"})) // nobody is admitted, so nothing is asked
	unfit(a.Admit(a.ctx(), true), "hba[0]", "nonsense")
	if s := a.sees(func(failover.Database) bool { return true }); s.Open {
		t.Error("it says that it admits clients")
	}
	a.must(a.Reconfigure(a.ctx(), a.o.Parameters, good))
	a.must(a.Admit(a.ctx(), true))
	a.must(change("work_mem", "8MB"))
	a.must(change("max_connections", "31"))
	a.sees(func(s failover.Database) bool { return slices.Equal(s.Pending, []string{"max_connections"}) })
	a.process.Kill()
	a.must(a.Reconfigure(a.ctx(), a.o.Parameters, nil)) // nobody listens
	a.start(database.Configuration{})
	if s := a.sees(func(s failover.Database) bool { return s.Primary }); len(s.Pending) > 0 || a.sql("SHOW max_connections") != "31" {
		t.Errorf("after a restart: %+v", s)
	}
}

// outgrown: a replica whose primary has more of something applies nothing, says so, and takes as much when it is started again.
func outgrown(t *testing.T, e *engine) {
	few := func(o *Options) { o.Parameters["max_connections"] = "20" }
	a, b := newMember(t, e, 0, few), newMember(t, e, 1, few)
	a.found()
	b.join(a)
	first := a.sees(func(failover.Database) bool { return true })
	if s := b.sees(func(failover.Database) bool { return true }); s.Settings != first.Settings || s.Settings == "" || s.Version == "" {
		t.Errorf("the same settings: %q and %q; version %q", s.Settings, first.Settings, s.Version)
	}
	more := func(m *member, n string) {
		parameters := maps.Clone(m.o.Parameters)
		parameters["max_connections"] = n
		m.must(m.Reconfigure(m.ctx(), parameters, nil))
	}
	more(a, "30")
	if s := a.sees(func(s failover.Database) bool { return len(s.Pending) > 0 }); s.Lowers || s.Settings == first.Settings {
		t.Errorf("raised: %+v", s)
	}
	a.process.Kill()
	a.start(database.Configuration{})
	s := b.sees(func(s failover.Database) bool { return s.Outgrown })
	if want := "it applies nothing: max_connections is 20 here, and 30 on the primary"; s.Incident != want {
		t.Errorf("it says %q", s.Incident)
	}
	b.process.Kill()
	b.start(database.Configuration{Standby: true, Upstream: a.peer()})
	b.sees(func(s failover.Database) bool { return s.Receiving && !s.Outgrown && s.Incident == "" })
	if n := b.sql("SHOW max_connections"); n != "30" {
		t.Errorf("max_connections is %s", n)
	}
	more(b, "25") // it keeps what it needs
	if n := b.sql("SELECT setting FROM pg_file_settings WHERE name = 'max_connections' ORDER BY seqno DESC LIMIT 1"); n != "30" {
		t.Errorf("max_connections would be %s", n)
	}
	more(b, "40")
	if s := b.sees(func(s failover.Database) bool { return len(s.Pending) > 0 }); s.Lowers {
		t.Errorf("raised: %+v", s)
	}
	more(a, "20")
	a.sees(func(s failover.Database) bool { return s.Lowers })
}

// slots: each member has one while it is a member, and a new one for one whose log is lost.
func slots(t *testing.T, e *engine) {
	a := newMember(t, e, 0, func(o *Options) {
		o.Parameters["max_slot_wal_keep_size"] = "1MB"
		o.Parameters["wal_keep_size"] = "0"
		o.Parameters["max_wal_size"] = "32MB"
		o.Parameters["min_wal_size"] = "32MB"
	})
	a.found()
	slots := func() string {
		return a.sql("SELECT coalesce(string_agg(slot_name || ' ' || wal_status, ', ' ORDER BY slot_name), '') FROM pg_replication_slots")
	}
	a.sql("SELECT pg_create_physical_replication_slot('users_own', true)")
	keep := func(ids ...string) {
		t.Helper()
		var peers []database.Peer
		for _, id := range append(ids, a.id()) {
			peers = append(peers, database.Peer{ID: id})
		}
		a.must(a.Replicas(a.ctx(), peers))
	}
	keep("x", "y")
	if got := slots(); got != "drover_x reserved, drover_y reserved, users_own reserved" {
		t.Errorf("slots: %s", got)
	}
	keep("x")
	for i := 0; i < 20 && !strings.Contains(slots(), "drover_x lost"); i++ {
		a.sql("SELECT pg_switch_wal()", "CREATE TABLE public.t"+fmt.Sprint(i)+" AS SELECT 1", "CHECKPOINT")
	}
	if got := slots(); got != "drover_x lost, users_own lost" {
		t.Errorf("slots: %s", got)
	}
	keep("x")
	if got := slots(); got != "drover_x reserved, users_own lost" {
		t.Errorf("slots: %s", got)
	}
}

// rewindOfWhatIsGone: a replica whose log its primary does not keep any more has to be copied.
func rewindOfWhatIsGone(t *testing.T, e *engine) {
	small := func(o *Options) {
		o.Parameters["wal_keep_size"] = "0"
		o.Parameters["max_wal_size"], o.Parameters["min_wal_size"] = "32MB", "32MB"
	}
	a, b := newMember(t, e, 0, small), newMember(t, e, 1, small)
	a.found()
	b.join(a)
	b.must(b.Stop(b.ctx()))
	for !b.process.Ended() {
		b.must(wait(b.ctx(), pause))
	}
	b.must(b.Rewind(b.ctx(), *a.peer()))
	a.must(a.Replicas(a.ctx(), nil))
	for i := range 6 {
		a.sql("SELECT pg_switch_wal()", "CREATE TABLE public.t"+fmt.Sprint(i)+" AS SELECT 1", "CHECKPOINT")
	}
	if err := b.Rewind(b.ctx(), *a.peer()); !errors.Is(err, database.ErrDiverged) {
		t.Errorf("it can follow without what it lacks: %v", err)
	}
	pending := errors.New("the store does not answer")
	b.o.ArchivePending = func(context.Context) error { return pending }
	if err := b.Rewind(b.ctx(), *a.peer()); !errors.Is(err, pending) || errors.Is(err, database.ErrDiverged) {
		t.Errorf("what is not archived is thrown away: %v", err)
	}
	if d, err := b.Disk(b.ctx()); err != nil || d.Empty {
		t.Errorf("the files after that: %+v %v", d, err)
	}
}

func TestDiskThatFails(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.options[0].DiskTimeout = 50 * time.Millisecond
	m := newMember(t, e, 0, nil)
	said := func(what string) {
		t.Helper()
		for ctx := m.ctx(); ; {
			if got := m.incident(); strings.Contains(got, what) && (what != "" || got == "") {
				return
			} else if wait(ctx, pause) != nil {
				t.Fatalf("the incident is %q, want one with %q", got, what)
			}
		}
	}
	path := m.o.Data + probeName
	m.must(os.Mkdir(path, 0o700)) // which cannot be written
	said("cannot be written")
	m.must(os.Remove(path))
	said("")
	m.must(syscall.Mkfifo(path, 0o600)) // opening it takes until somebody reads
	said("hangs")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	m.must(err)
	defer func() { _ = f.Close() }()
	said("cannot be written") // it cannot be synced either, and is removed
	said("")
}
