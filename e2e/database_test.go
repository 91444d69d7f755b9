//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/testkit/appender"
	"drover/internal/testkit/consulserver"
	"drover/internal/testkit/dockertest"
	"drover/internal/testkit/gotool"
)

// cluster is a PostgreSQL cluster of examples/postgres: members, a coordinator, and a client outside.
type cluster struct {
	t       *testing.T // of the fault
	top     *testing.T // of the cluster
	run     *dockertest.Run
	net     *dockertest.Network
	env     map[string]string
	image   string
	secret  string // file
	pass    string
	store   *dockertest.Container // the bucket
	coord   *dockertest.Container // it, etcd or Consul
	members []*dbMember
	next    int
	client  *http.Client
	harsh   bool // members have disks of their own, and clocks that can be set
}

type dbMember struct {
	*dockertest.Container
	c    *cluster
	ip   string
	disk *disk // of a harsh cluster
}

// releases are Debian's that have a version of PostgreSQL.
var releases = map[string]string{"17": "trixie", "18": "sid"}

var pgImages = map[string]*sync.Once{"17": new(sync.Once), "18": new(sync.Once)}

// postgresImage builds examples/postgres with that version.
func postgresImage(t *testing.T, version string) string {
	t.Helper()
	tag := "drover-test/postgres-" + version
	pgImages[version].Do(func() {
		dockertest.Debian(t, releases[version])
		buildExample(t, "postgres", tag, map[string]string{"DEBIAN": releases[version], "POSTGRES": version})
	})
	return tag
}

// newCluster starts the coordinator of a kind: bucket, etcd or consul, for members with that version of PostgreSQL.
func newCluster(t *testing.T, version, kind, synchronous string) *cluster {
	t.Helper()
	run := dockertest.New(t)
	c := &cluster{t: t, top: t, run: run, net: run.Network("db"), image: postgresImage(t, version), pass: rand.Text(), client: &http.Client{Timeout: time.Second}}
	c.secret = filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(c.secret, []byte(c.pass+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	access, secret := "drover-e2e", rand.Text()
	c.store = run.Start(dockertest.Spec{
		Name: "s3", Image: storeImage(t), Networks: []*dockertest.Network{c.net},
		Env: map[string]string{"ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret},
	})
	c.coord = c.store
	c.env = map[string]string{
		"DROVER_STORE": "s3://state/postgres?endpoint=http://s3:9000", "DROVER_PASSWORD": rand.Text(),
		"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret, "SYNCHRONOUS": synchronous, "RESTORE_AFTER": "15s",
	}
	switch kind {
	case "etcd":
		c.coord = run.Start(dockertest.Spec{Name: "etcd", Image: etcdImage(t), Networks: []*dockertest.Network{c.net}})
		c.env["COORDINATOR"] = "etcd://etcd:2379"
	case "consul":
		c.coord = run.Start(dockertest.Spec{Name: "consul", Image: consulImage(t), Networks: []*dockertest.Network{c.net}})
		c.env["COORDINATOR"] = "consul://consul:8500"
	}
	return c
}

var etcdOnce, consulOnce sync.Once

// etcdImage builds an image of a real etcd.
func etcdImage(t *testing.T) string {
	t.Helper()
	return programImage(t, &etcdOnce, "etcd", gotool.Path(t, "etcd"),
		`"--data-dir=/var/lib/etcd", "--listen-client-urls=http://0.0.0.0:2379", "--advertise-client-urls=http://etcd:2379"`)
}

// consulImage builds an image of a real Consul.
func consulImage(t *testing.T) string {
	t.Helper()
	return programImage(t, &consulOnce, "consul", consulserver.Program(t),
		`"agent", "-server", "-bootstrap-expect=1", "-client=0.0.0.0", "-data-dir=/var/lib/consul"`)
}

// programImage builds an image that has one program.
func programImage(t *testing.T, once *sync.Once, name, path, args string) string {
	t.Helper()
	tag := "drover-test/" + name
	once.Do(func() {
		dir := t.TempDir()
		copyProgram(t, path, filepath.Join(dir, name))
		dockertest.Build{Tag: tag, Context: dir, Dockerfile: "FROM " + dockertest.BaseImage(t) + "\nCOPY " + name + " /usr/bin/\nENTRYPOINT [\"" + name + "\", " + args + "]\n"}.Build(t)
	})
	return tag
}

// add starts one more member.
func (c *cluster) add() *dbMember {
	c.t.Helper()
	c.next++
	name := "pg" + strconv.Itoa(c.next)
	m := &dbMember{c: c}
	options := []string{"--mount", "type=bind,readonly,src=" + c.secret + ",dst=/run/secrets/database", "--shm-size=256m"}
	if c.harsh {
		m.disk = newDisk(c.top)
		options = append(options, "--mount", "type=bind,src="+m.disk.path+",dst=/var/lib/postgresql/drover")
	}
	m.Container = c.run.Start(dockertest.Spec{Name: name, Image: c.image, Networks: []*dockertest.Network{c.net}, Env: c.env, Options: options})
	c.members = append(c.members, m)
	m.find()
	return m
}

// find finds the member's address, which another start may have changed.
func (m *dbMember) find() {
	m.c.t.Helper()
	m.ip = address(m.c.t, m.Container)
}

// is asks the member's health path.
func (m *dbMember) is(ctx context.Context, path string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(m.ip, "8008")+path, nil)
	if err != nil {
		return false
	}
	resp, err := m.c.client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// view is what the member says of itself.
func (m *dbMember) view(ctx context.Context) (v view) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(m.ip, "8008")+"/patroni", nil)
	if err != nil {
		return v
	}
	resp, err := m.c.client.Do(req)
	if err != nil {
		return v
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct{ Drover view }
	_ = json.NewDecoder(resp.Body).Decode(&body)
	return body.Drover
}

// view is what is looked at of a member.
type view struct {
	Epoch     uint64
	Role, Why string
}

// awaitWhole waits until there is one primary and so many replicas, for which it waits unless that is off, and returns the primary.
func (c *cluster) awaitWhole(replicas int, within time.Duration) *dbMember {
	c.t.Helper()
	var primary *dbMember
	took := dockertest.Await(c.t, within, fmt.Sprintf("a primary and %d replicas", replicas), func(ctx context.Context) error {
		var primaries, others, waited int
		var said []string
		for _, m := range c.members {
			switch v := m.view(ctx); {
			case m.is(ctx, "/primary"):
				primaries, primary = primaries+1, m
			case m.is(ctx, "/replica"):
				others++
				if m.is(ctx, "/sync") {
					waited++
				}
			default:
				said = append(said, fmt.Sprintf("%s: %s %q", m.Name, v.Role, v.Why))
			}
		}
		if primaries != 1 || others < replicas || waited < replicas && c.env["SYNCHRONOUS"] != "off" {
			return fmt.Errorf("%d primaries, %d replicas, of which %d are waited for; %s", primaries, others, waited, strings.Join(said, "; "))
		}
		return nil
	})
	c.t.Logf("%s leads, %d replicas, after %.1f s", primary.Name, replicas, took.Seconds())
	return primary
}

// awaitEpoch waits until a primary of that epoch, or a later one, leads.
func (c *cluster) awaitEpoch(epoch uint64, within time.Duration) {
	c.t.Helper()
	dockertest.Await(c.t, within, fmt.Sprintf("epoch %d", epoch), func(ctx context.Context) error {
		for _, m := range c.members {
			if v := m.view(ctx); v.Epoch >= epoch && v.Role == "primary" {
				return nil
			}
		}
		return errors.New("nobody leads in it")
	})
}

// write starts a client.
func (c *cluster) write() *appender.Appender {
	c.t.Helper()
	a, err := appender.Start(c.t.Context(), appender.Options{Hosts: c.hosts(), User: "postgres", Password: c.pass})
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

// hosts are the members' servers.
func (c *cluster) hosts() []string {
	var hosts []string
	for _, m := range c.members {
		hosts = append(hosts, net.JoinHostPort(m.ip, "5432"))
	}
	return hosts
}

// awaitWrites waits until so many more writes were acknowledged.
func (c *cluster) awaitWrites(a *appender.Appender, more int, within time.Duration) {
	c.t.Helper()
	goal := a.Acked() + more
	dockertest.Await(c.t, within, "writes to be acknowledged", func(context.Context) error {
		if n := a.Acked(); n < goal {
			return fmt.Errorf("%d of %d; the last error was %w", n, goal, a.LastError())
		}
		return nil
	})
}

// within runs a command in the container's network, with the machine's own programs.
func (m *dbMember) network(args ...string) {
	m.c.t.Helper()
	ctx := context.WithoutCancel(m.c.t.Context()) // cuts are mended after the end, too
	out, err := exec.CommandContext(ctx, "docker", "inspect", "--format", "{{.State.Pid}}", m.ID).Output()
	if err != nil {
		m.c.t.Fatal(err)
	}
	args = slices.Concat([]string{"--target", strings.TrimSpace(string(out)), "--net", "--"}, args)
	if out, err := exec.CommandContext(ctx, "nsenter", args...).CombinedOutput(); err != nil {
		m.c.t.Fatalf("nsenter %v: %v: %s", args, err, out)
	}
}

// cut drops what comes from, or goes to, these addresses until mend.
func (m *dbMember) cut(chain string, ips ...string) {
	m.c.t.Helper()
	flag := map[string]string{"INPUT": "-s", "OUTPUT": "-d"}[chain]
	for _, ip := range ips {
		m.network("iptables", "-A", chain, flag, ip, "-j", "DROP")
	}
}

func (m *dbMember) mend() {
	m.c.t.Helper()
	m.network("iptables", "-F")
}

// others are the addresses of the other members.
func (m *dbMember) others() []string {
	var ips []string
	for _, o := range m.c.members {
		if o != m {
			ips = append(ips, o.ip)
		}
	}
	return ips
}

// ip is the coordinator's address.
func (c *cluster) coordIP() string {
	c.t.Helper()
	m := &dbMember{c: c, Container: c.coord}
	m.find()
	return m.ip
}

// fault is one thing that goes wrong, and how it ends.
type fault struct {
	name  string
	moves bool // another epoch begins by it
	halts bool // nothing is acknowledged until it is mended
	do    func(c *cluster, primary *dbMember) (mend func())
}

// faults are those of the fault matrix that need nothing but containers.
var faults = []fault{
	{"postmaster killed", true, false, func(_ *cluster, p *dbMember) func() {
		p.MustExec("sh", "-c", "kill -9 $(head -1 /var/lib/postgresql/drover/data/postmaster.pid)")
		return nil
	}},
	{"agent killed", true, false, func(_ *cluster, p *dbMember) func() { p.Kill(); return p.again }},
	{"container paused", true, false, func(_ *cluster, p *dbMember) func() { p.Pause(); return p.Unpause }},
	{"postmaster stopped", true, false, func(_ *cluster, p *dbMember) func() {
		p.MustExec("sh", "-c", "kill -STOP $(head -1 /var/lib/postgresql/drover/data/postmaster.pid)")
		return nil // the agent kills it
	}},
	{"cut off from the coordinator", false, false, func(c *cluster, p *dbMember) func() { p.cut("OUTPUT", c.coordIP()); return p.mend }},
	{"cut off from its peers", false, false, func(_ *cluster, p *dbMember) func() { p.cut("OUTPUT", p.others()...); return p.mend }},
	{"hears nothing of its peers", false, false, func(_ *cluster, p *dbMember) func() { p.cut("INPUT", p.others()...); return p.mend }},
	{"cut off from all", true, false, func(c *cluster, p *dbMember) func() {
		p.cut("OUTPUT", append(p.others(), c.coordIP())...)
		p.cut("INPUT", append(p.others(), c.coordIP())...)
		return p.mend
	}},
	{"coordinator restarted", false, false, func(c *cluster, _ *dbMember) func() { c.coord.Restart(5 * time.Second); return nil }},
	{"replica killed", false, false, func(c *cluster, p *dbMember) func() { r := c.replica(p); r.Kill(); return r.again }},
	{"told to stop", true, false, func(_ *cluster, p *dbMember) func() { p.Stop(60 * time.Second); return p.again }},
	{"destroyed", true, false, func(c *cluster, p *dbMember) func() {
		p.destroy()
		c.members = slices.DeleteFunc(c.members, func(m *dbMember) bool { return m == p })
		c.add()
		return nil
	}},
	{"two killed", false, true, func(c *cluster, p *dbMember) func() {
		r := c.replica(p)
		p.Kill()
		r.Kill()
		return func() { r.again(); p.again() }
	}},
}

// harshFaults are those that need a harsh cluster.
var harshFaults = []fault{
	{"disk full", true, false, func(_ *cluster, p *dbMember) func() { p.disk.fill(); return p.disk.free }},
	{"disk hangs", true, false, func(_ *cluster, p *dbMember) func() { p.disk.hang(); return p.disk.resume }},
	{"disk slow", false, false, func(_ *cluster, p *dbMember) func() { return p.disk.slow() }},
	{"clock stepped", false, false, func(_ *cluster, p *dbMember) func() {
		p.setClock(3600)
		p.setClock(-7200)
		return func() { p.setClock(0) }
	}},
}

// stopWithoutStore holds that a planned change waits for no store.
var stopWithoutStore = fault{"told to stop while the store hangs", true, false, func(c *cluster, p *dbMember) func() {
	c.store.Pause()
	if code := p.Stop(30 * time.Second); code != 0 {
		c.t.Errorf("it did not end in order: %d", code)
	}
	return func() { c.store.Unpause(); p.again() }
}}

// replica is one that does not lead.
func (c *cluster) replica(p *dbMember) *dbMember {
	return c.members[slices.IndexFunc(c.members, func(m *dbMember) bool { return m != p })]
}

// setClock sets the clock of the member's server, in seconds from the right time.
func (m *dbMember) setClock(seconds int) {
	m.c.t.Helper()
	m.MustExec("sh", "-c", fmt.Sprintf("echo %+d > /tmp/clock.new && mv /tmp/clock.new /tmp/clock", seconds))
	dockertest.Await(m.c.t, time.Minute, "another time", func(context.Context) error {
		said, err := strconv.ParseFloat(m.psql("SELECT extract(epoch FROM clock_timestamp())"), 64)
		if err != nil {
			return err
		}
		if off := said - float64(time.Now().Unix()) - float64(seconds); math.Abs(off) > 60 {
			return fmt.Errorf("the server's clock is %.0f s from it", off)
		}
		return nil
	})
}

// harshImage is the example's, with a clock that can be set for the server alone.
func harshImage(t *testing.T, image string) string {
	t.Helper()
	tag := image + "-harsh"
	dockertest.Build{Tag: tag, Context: t.TempDir(), Dockerfile: "FROM " + image + `
RUN apt-get update && apt-get install -y --no-install-recommends libfaketime && rm -rf /var/lib/apt/lists/* && echo +0 > /tmp/clock
ENV LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 FAKETIME_TIMESTAMP_FILE=/tmp/clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1
`}.Build(t)
	return tag
}

// destroy leaves nothing of the member.
func (m *dbMember) destroy() {
	m.c.t.Helper()
	m.Kill()
	m.Remove()
	if m.disk != nil {
		m.disk.gone()
	}
}

// again starts the same container again.
func (m *dbMember) again() {
	m.StartAgain()
	m.find()
}

// TestDatabase: three members form a cluster from one image, with nothing but a bucket, and lose
// their primary in several ways; a client writes throughout. Then all of them are lost, and come back
// from the bucket.
func TestDatabase(t *testing.T) { suffersAndIsLost(t, "17") }

// TestDatabaseNext: the same with the version of PostgreSQL that the example does not have yet.
func TestDatabaseNext(t *testing.T) {
	if os.Getenv("DROVER_SOAK") == "" {
		return // the driver's own tests are TestDriver's
	}
	suffersAndIsLost(t, "18")
}

func suffersAndIsLost(t *testing.T, version string) {
	t.Helper()
	c := startCluster(t, version, "bucket", "on")
	for _, name := range []string{"postmaster killed", "container paused", "cut off from all", "destroyed"} {
		c.suffer(t, faultOf(name), "on")
	}
	c.loseAll(t)
}

// TestDatabaseElsewhere: the same with other coordinators, in other modes.
func TestDatabaseElsewhere(t *testing.T) {
	for _, cell := range []struct {
		kind, mode string
		faults     []string
	}{
		{"etcd", "strict", []string{"postmaster killed", "agent killed"}},
		{"consul", "off", []string{"told to stop", "cut off from the coordinator"}},
	} {
		t.Run(cell.kind+" "+cell.mode, func(t *testing.T) {
			c := startCluster(t, "17", cell.kind, cell.mode)
			for _, name := range cell.faults {
				c.suffer(t, faultOf(name), cell.mode)
			}
		})
	}
}

func faultOf(name string) fault {
	return faults[slices.IndexFunc(faults, func(f fault) bool { return f.name == name })]
}

// TestDatabaseSoak is the whole matrix: every fault on every coordinator in every mode.
func TestDatabaseSoak(t *testing.T) {
	if os.Getenv("DROVER_SOAK") == "" {
		return // the usual cells are TestDatabase's
	}
	for _, kind := range []string{"bucket", "etcd", "consul"} {
		for _, mode := range []string{"on", "strict", "off"} {
			t.Run(kind+" "+mode, func(t *testing.T) {
				c := newCluster(t, "17", kind, mode)
				c.harsh, c.image = true, harshImage(t, c.image)
				c.form()
				for _, f := range slices.Concat(faults, harshFaults) {
					c.suffer(t, f, mode)
				}
				if c.store != c.coord {
					c.suffer(t, stopWithoutStore, mode)
				}
				c.loseAll(t)
			})
		}
	}
}

func startCluster(t *testing.T, version, kind, mode string) *cluster {
	t.Helper()
	c := newCluster(t, version, kind, mode)
	c.form()
	return c
}

// form starts three members.
func (c *cluster) form() {
	c.t.Helper()
	for range 3 {
		c.add()
	}
	c.awaitWhole(2, 3*time.Minute)
}

// suffer lets one thing go wrong while a client writes, and holds what it was told.
func (c *cluster) suffer(t *testing.T, f fault, mode string) {
	t.Helper()
	t.Run(f.name, func(t *testing.T) {
		c.t = t
		p := c.awaitWhole(2, 3*time.Minute)
		a := c.write()
		c.awaitWrites(a, 50, time.Minute)
		began := p.view(t.Context()).Epoch
		mend := f.do(c, p)
		if mend != nil {
			mend = sync.OnceFunc(mend)
			t.Cleanup(mend) // the next fault is another one
		}
		if f.moves {
			c.awaitEpoch(began+1, time.Minute)
		}
		if !f.halts && (f.moves || mode != "strict") { // strict: a primary without its replicas acknowledges nothing
			c.awaitWrites(a, 50, 2*time.Minute)
		}
		if mend != nil {
			mend()
		}
		p = c.awaitWhole(2, 3*time.Minute)
		c.awaitWrites(a, 50, time.Minute)
		r, err := a.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		reigns := p.view(t.Context()).Epoch - began
		t.Logf("RESULT %s: %s, %d new epochs", f.name, r, reigns)
		if mode != "off" && len(r.Missing) > 0 || len(r.Duplicated) > 0 || uint64(r.Changes) > reigns {
			t.Errorf("missing %v, duplicated %v, %d changes of primary in %d epochs", r.Missing, r.Duplicated, r.Changes, reigns)
		}
	})
}

// loseAll destroys all members, and starts new ones, which have the bucket alone. What had been archived is there.
func (c *cluster) loseAll(t *testing.T) {
	t.Helper()
	t.Run("all destroyed", func(t *testing.T) {
		c.t = t
		p := c.awaitWhole(2, 3*time.Minute)
		p.awaitBackup()
		a := c.write()
		c.awaitWrites(a, 50, time.Minute)
		a.Stop()
		p.archive()
		c.awaitArchived()
		for _, m := range c.members {
			m.destroy()
		}
		c.members = nil
		for range 3 {
			c.add()
		}
		c.awaitWhole(2, 5*time.Minute)
		a.Move(c.hosts())
		r, err := a.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("RESULT all destroyed: %s", r)
		if len(r.Missing) > 0 || len(r.Duplicated) > 0 {
			t.Errorf("missing %v, duplicated %v", r.Missing, r.Duplicated)
		}
	})
}

// awaitArchived waits until no member has anything left to archive: whoever leads next could not go on behind it.
func (c *cluster) awaitArchived() {
	c.t.Helper()
	for _, m := range c.members {
		dockertest.Await(c.t, 2*time.Minute, "the log of "+m.Name+" to be archived", func(ctx context.Context) error {
			out, err := m.Exec(ctx, "sh", "-c", "cd /var/lib/postgresql/drover/data/pg_wal/archive_status && ls | grep ready || true")
			if err == nil && strings.TrimSpace(out) != "" {
				err = fmt.Errorf("left: %s", strings.Join(strings.Fields(out), " "))
			}
			return err
		})
	}
}

// awaitBackup waits until the cluster has a base backup.
func (m *dbMember) awaitBackup() {
	m.c.t.Helper()
	dockertest.Await(m.c.t, 3*time.Minute, "a base backup", func(ctx context.Context) error {
		out, err := m.Exec(ctx, "drover", "members", "--json")
		if err != nil {
			return err
		}
		return contains(out, `"last_backup"`)
	})
}

// psql asks the member's server.
func (m *dbMember) psql(sql string) string {
	m.c.t.Helper()
	return strings.TrimSpace(m.MustExec("sh", "-c", `PGPASSWORD=$(cat /run/secrets/database) psql -X -q -At -h 127.0.0.1 -U postgres postgres -c "$1"`, "sh", sql))
}

// archive has the log archived as far as it goes.
func (m *dbMember) archive() {
	m.c.t.Helper()
	file := m.psql("SELECT pg_walfile_name(pg_switch_wal() - 1)")
	dockertest.Await(m.c.t, time.Minute, "the log to be archived", func(context.Context) error {
		if last := m.psql("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver"); last < file {
			return fmt.Errorf("%q is archived, %s not yet", last, file)
		}
		return nil
	})
}
