package app

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/config"
	"drover/internal/database"
	"drover/internal/database/postgres"
	"drover/internal/event"
	"drover/internal/failover"
	"drover/internal/register"
	"drover/internal/supervise"
	"drover/internal/volume"
	"drover/internal/volume/slots"
)

// Events of a database's member; the source is the cluster.
const (
	eventPrimary = "primary" // this member leads, and admits clients
	eventReplica = "replica" // it receives from the primary, or applies another cluster's archive
	eventDemoted = "demoted" // it is neither any more
)

// member is this instance's part in a database's cluster.
type member struct {
	cfg    *config.Config
	log    *slog.Logger
	driver *postgres.Driver
	user   *supervise.User
	secret []byte
	given  *config.Config   // whose parameters the server has
	run    *database.Member // nil until it runs
	store  *backups         // nil: there are none, or it does not run yet
	told   database.Role    // that an event said last; empty: none
	entry  *roleService     // in the catalog; nil: none
	follow *followed        // the cluster that it follows; nil: none
}

// newMember makes the driver; nil if there is no database. It starts nothing.
func newMember(cfg *config.Config, log *slog.Logger) (*member, error) {
	if !cfg.HasDatabase() {
		return nil, nil
	}
	d := cfg.Database
	m := &member{cfg: cfg, log: log, given: cfg}
	secret, err := os.ReadFile(d.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("read the database's secret: %w", err)
	}
	if m.secret = bytes.TrimRight(secret, "\r\n"); len(m.secret) < 8 {
		return nil, fmt.Errorf("the database's secret in %s has fewer than 8 bytes", d.PasswordFile)
	}
	if m.user, err = databaseUser(cfg); err != nil {
		return nil, err
	}
	if err := m.makeDirs(); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	host, port, err := net.SplitHostPort(d.Listen)
	if err != nil {
		return nil, err
	}
	number, _ := strconv.Atoi(port) // checked with the configuration
	o := postgres.Options{
		Data: d.Data, Run: m.runDir(), Bin: d.Bin, Listen: host, Port: number,
		Superuser:   postgres.Role{Name: d.Superuser, Password: func() string { return string(m.secret) }},
		Replication: postgres.Role{Name: "drover_replication", Password: m.derived("replication")},
		Rewind:      postgres.Role{Name: "drover_rewind", Password: m.derived("rewind")},
		Parameters:  parameters(cfg), HBA: d.HBA, DiskTimeout: max(d.TTL.Std(), 3*time.Second),
		TLS: memberTLS(cfg), Delay: d.Tags.Delayed.Std(),
	}
	if host == "0.0.0.0" || host == "::" {
		o.Listen = "*"
	}
	if m.user != nil {
		o.User = m.user.Credential()
	}
	if cfg.BacksUpDatabase() {
		o.ArchiveCommand, o.RestoreCommand, o.Taken = archiveCommand(), replicaCommand(), m.taken
	}
	if cfg.SourceConfig() != nil {
		o.SourceCommand = sourceCommand()
	}
	m.driver, err = postgres.New(o)
	return m, placed(cfg, err)
}

// databaseUser is whom the server runs as; nil: the agent's own user.
func databaseUser(cfg *config.Config) (*supervise.User, error) {
	name := cfg.Database.User
	if name == "" && os.Geteuid() == 0 {
		name = "postgres"
	}
	user, err := supervise.ResolveUser(name, "")
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	return user, nil
}

// derived is a password that who knows the secret can work out.
func (m *member) derived(purpose string) func() string {
	mac := hmac.New(sha256.New, m.secret)
	_, _ = io.WriteString(mac, "drover database "+purpose)
	password := hex.EncodeToString(mac.Sum(nil))
	return func() string { return password }
}

func (m *member) stateDir() string { return filepath.Join(m.cfg.DataDir, "database") }

// runDir is beside the socket: it need not outlive the boot.
func (m *member) runDir() string { return filepath.Join(filepath.Dir(m.cfg.Socket), "postgres") }

// makeDirs makes the directories of the server's user.
func (m *member) makeDirs() error {
	if err := os.MkdirAll(m.stateDir(), 0o700); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(m.cfg.Database.Data), m.runDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if m.user == nil {
			continue
		}
		if err := os.Chown(dir, int(m.user.UID), int(m.user.GID)); err != nil {
			return err
		}
	}
	return nil
}

// job is the server as the supervisor knows it.
func (m *member) job(stdout, stderr io.Writer, several bool) supervise.Job {
	job := supervise.Job{
		Name: m.cfg.DatabaseJob(), Command: m.driver.Command(), Main: true, User: m.user,
		Env:        supervise.JobEnv(withoutLibpq(os.Environ()), []string{"DROVER_SOCKET=" + m.cfg.Socket, "LC_ALL=C.UTF-8"}),
		StopSignal: unix.SIGINT, // a fast shutdown: sessions end, replicas get everything
		// A session that waits for replicas takes an interrupt for the wish not to, and acknowledges its commit.
		KillRest:  true,
		StopGrace: time.Minute, Signals: map[unix.Signal]unix.Signal{}, Version: "database",
	}
	give(&job, config.Job{Output: config.OutputAuto}, several, stdout, stderr)
	return job
}

// archived adds to the parameters that a segment which is not full is archived, too, after a minute: so much can be
// lost with all members at once.
func archived(parameters map[string]string) map[string]string {
	all := map[string]string{"archive_timeout": "60s"}
	maps.Copy(all, parameters)
	return all
}

// withoutLibpq leaves out what libpq reads: a PGPASSWORD that is meant for somebody else would win over the
// password files by which replicas connect.
func withoutLibpq(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, "PG") })
}

// settings are the core's.
func (m *member) settings() (failover.Config, error) {
	d := m.cfg.Database
	address, err := pickAddress(d.Address, register.Interfaces)
	if err != nil {
		return failover.Config{}, fmt.Errorf("the database's address: %w", err)
	}
	_, port, _ := net.SplitHostPort(d.Listen)
	_, api, _ := net.SplitHostPort(d.API)
	number, _ := strconv.Atoi(port)
	return failover.Config{
		Name: m.cfg.ID, Mode: failover.Mode(d.Synchronous), Acks: d.Acknowledgements, TTL: d.TTL.Std(),
		Missing: cmp.Or(d.Missing.Std(), d.TTL.Std()), Forget: d.Forget.Std(), Lost: d.RestoreAfter.Std(), Adopt: m.cfg.FirstStart == config.FirstStartAdopt,
		Standby: m.cfg.SourceConfig() != nil,
		Compare: m.driver.Compare,
		Self: failover.Member{
			Host: address, Port: number, API: net.JoinHostPort(address, api), Version: Version,
			Tags: tagsOf(d.Tags),
		},
	}, nil
}

// tagsOf are a member's: who is delayed is there for the past alone.
func tagsOf(t config.DatabaseTags) failover.Tags {
	late := t.Delayed != 0
	return failover.Tags{
		NoFailover: t.NoFailover || late, NoSync: t.NoSync || late || t.ReplicateFrom != "", NoLoadBalance: t.NoLoadBalance || late,
		Priority: t.Priority, CloneFrom: t.CloneFrom, ReplicateFrom: t.ReplicateFrom, Delayed: t.Delayed.Std(),
	}
}

// roll is how long a server that is restarted unasked may take; 0: none is.
func (m *member) roll() time.Duration {
	if m.cfg.Database.Restart != config.RestartRoll {
		return 0
	}
	return rollPatience
}

// runDatabase lives the life of a member until the instance is told to stop.
func (a *agent) runDatabase(ctx context.Context, co *coordinator) error {
	data, err := volume.OpenDataDir(a.cfg.DataDir, "database") // keeps a second agent out
	if err != nil {
		return err
	}
	defer func() { _ = data.Close() }()
	if n, err := supervise.KillSurvivors(a.jobs.record); err != nil {
		return fmt.Errorf("kill what an earlier life of this agent left: %w", err)
	} else if n > 0 {
		a.log.Warn("killed what an earlier life of this agent left", "processes", n)
	}
	if err := a.member.checkParameters(ctx, a.cfg); err != nil {
		return err
	}
	settings, err := a.member.settings()
	if err != nil {
		return err
	}
	if a.cfg.HasDatabaseTLS() {
		err := a.certify(ctx)
		if a.stopping.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		defer beside(ctx, a.followCertificates)()
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.cfg.Database.API)
	if err != nil {
		return fmt.Errorf("listen for the database's members: %w", err)
	}
	store, err := openBackups(ctx, a.cfg, a.member.driver, a.registry, a.setWALArchive, a.log)
	if err != nil {
		return err
	}
	var restorer database.Restorer // nil: there are no backups
	var tells func() json.RawMessage
	if store != nil {
		defer store.close()
		restorer, tells = store, store.tells
	}
	other, err := openFollowed(ctx, a.cfg, a.member.driver, a.setWALArchive, a.log)
	if err != nil {
		return err
	}
	var source database.Source // nil: no cluster is followed
	if other != nil {
		defer other.close()
		source = other
	}
	run, err := database.New(database.Options{
		Backup: restorer, Backups: tells, Source: source,
		Failover: settings, Driver: a.member.driver, Processes: a.jobs, KV: co.kv,
		Prefix:    a.cfg.CoordinatorPrefix() + "/database/" + a.cfg.Database.Cluster,
		StateFile: filepath.Join(a.member.stateDir(), "member.json"), Listener: listener,
		Secret: a.member.secret, Log: a.log, Changed: a.roleChanged, Relieved: a.relieved.set, Detached: a.detached.set, Roll: a.member.roll(),
	})
	if err != nil {
		return err
	}
	a.jobs.prepare(slots.None, nil, run.Ended)
	a.mu.Lock()
	a.member.run, a.member.store, a.member.follow = run, store, other
	a.mu.Unlock()
	defer context.AfterFunc(a.stopping, run.Stop)()
	if store != nil {
		store.tests = store.newDatabaseTests(run, a.maintenance.Load, a.bus.Publish)
		defer beside(ctx, func(ctx context.Context) {
			testing, end := context.WithCancel(ctx)
			defer end()
			defer context.AfterFunc(a.stopping, end)() // who is to end waits for no test
			store.run(ctx, testing, run)
		})()
	}
	if other != nil {
		defer beside(ctx, func(ctx context.Context) { other.run(ctx, run) })()
	}
	defer a.enterCatalog(co, settings)()
	err = errors.Join(run.Run(ctx), a.member.driver.Close())
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// beside runs f until what it returns is called, which waits for its end.
func beside(ctx context.Context, f func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var part sync.WaitGroup
	part.Go(func() { f(ctx) })
	return func() {
		cancel()
		part.Wait()
	}
}

// enterCatalog has the member be found by its role, if it is to be; what it returns takes it out.
func (a *agent) enterCatalog(co *coordinator, settings failover.Config) (leave func()) {
	name := a.cfg.Database.Service
	if name == "" || co.registry == nil {
		return func() {}
	}
	a.member.entry = newRoleService(co.registry, a.log, name, settings.Name, settings.Self.Host, settings.Self.Port)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.member.entry.run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// roleChanged tells of what the member has become.
func (a *agent) roleChanged(c database.Change) {
	if a.member.entry != nil {
		a.member.entry.become(c)
	}
	former := a.member.told
	if a.member.told = c.Role; former == c.Role || former == "" && c.Role == database.RoleNone {
		return
	}
	name := map[database.Role]string{
		database.RolePrimary: eventPrimary, database.RoleReplica: eventReplica, database.RoleStandby: eventReplica, database.RoleNone: eventDemoted,
	}[c.Role]
	a.bus.Publish(event.Event{Name: name, Source: a.cfg.Database.Cluster, Text: c.Primary})
}
