//go:build bench

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/internal/testkit/appender"
	"drover/internal/testkit/etcdserver"
	"drover/internal/testkit/process"
)

// minder keeps a cluster of three PostgreSQL servers on this machine.
type minder struct {
	name     string
	dir      string
	hosts    []string // of the servers
	apis     []string // where Patroni's paths are answered
	agents   []*exec.Cmd
	data     []string // the servers' directories
	password string
	start    func(i int) *exec.Cmd
	change   func(t *testing.T, from, to int) // a switchover
}

const (
	dbMembers  = 3
	dbPassword = "a-password-of-a-benchmark"
	// rounds of each fault, in turn.
	dbRounds = 3
)

// TestFailover measures the longest gap between two acknowledged commits of the same client when the primary is
// changed on purpose, when its server is killed, and when agent and server are killed at once. Both on
// the same etcd, synchronous; Patroni with the shortest times that it takes.
func TestFailover(t *testing.T) {
	etcd := etcdserver.Start(t, etcdserver.Options{})
	endpoint := strings.TrimPrefix(etcd.Endpoints[0], "http://")
	minders := []*minder{droverMinder(t, endpoint, "etcd"), patroniMinder(t, endpoint)}
	for _, m := range minders {
		m.up(t)
	}
	faults := []struct {
		name  string
		moves bool // to another member; who is restarted in place may go on to lead
		do    func(*minder, *testing.T, int)
	}{
		{"switchover", true, func(m *minder, t *testing.T, p int) { m.change(t, p, (p+1)%dbMembers) }},
		{"server killed", false, func(m *minder, t *testing.T, p int) { m.killServer(t, p) }},
		{"agent and server killed", true, func(m *minder, t *testing.T, p int) { m.killAll(t, p) }},
	}
	for _, f := range faults {
		gaps := map[string][]float64{}
		missing := map[string]int{}
		for range dbRounds {
			for _, m := range minders {
				r := m.measure(t, f.moves, f.do)
				gaps[m.name] = append(gaps[m.name], r.Gap.Seconds())
				missing[m.name] += len(r.Missing)
				t.Logf("%s, %s: %s", f.name, m.name, r)
			}
		}
		for _, m := range minders {
			slices.Sort(gaps[m.name])
		}
		ours, theirs := gaps["drover"], gaps["patroni"]
		t.Logf("RESULT %s: gap in s, median (least to most): drover %.2f (%.2f to %.2f), patroni %.2f (%.2f to %.2f), ratio %.1f; lost %d, %d",
			f.name, median(ours), ours[0], ours[len(ours)-1], median(theirs), theirs[0], theirs[len(theirs)-1],
			median(theirs)/median(ours), missing["drover"], missing["patroni"])
	}
}

func median(sorted []float64) float64 { return sorted[len(sorted)/2] }

// measure lets one thing go wrong under load.
func (m *minder) measure(t *testing.T, moves bool, fault func(*minder, *testing.T, int)) appender.Report {
	t.Helper()
	p := m.whole(t)
	a, err := appender.Start(t.Context(), appender.Options{Hosts: m.hosts, User: "postgres", Password: m.password, Workers: 1, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatalf("%s: %v", m.name, err)
	}
	m.progress(t, a, 200)
	fault(m, t, p)
	for deadline := time.Now().Add(2 * time.Minute); moves && (m.primary(t.Context()) == p || m.primary(t.Context()) < 0); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: no other primary", m.name)
		}
		time.Sleep(50 * time.Millisecond)
	}
	m.progress(t, a, 200)
	r, err := a.Check(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", m.name, err)
	}
	m.revive(t)
	return r
}

// progress waits for more writes.
func (m *minder) progress(t *testing.T, a *appender.Appender, more int) {
	t.Helper()
	goal := a.Acked() + more
	for deadline := time.Now().Add(2 * time.Minute); a.Acked() < goal; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: nothing is acknowledged: %v", m.name, a.LastError())
		}
	}
}

func (m *minder) up(t *testing.T) {
	t.Helper()
	m.agents = make([]*exec.Cmd, dbMembers)
	t.Cleanup(func() {
		for i := range m.agents {
			m.killAll(t, i)
		}
	})
	for i := range dbMembers {
		m.begin(t, i)
	}
	began := time.Now()
	m.whole(t)
	t.Logf("%s: three members after %.1f s", m.name, time.Since(began).Seconds())
}

func (m *minder) begin(t *testing.T, i int) {
	t.Helper()
	cmd := m.start(i)
	log, err := os.OpenFile(filepath.Join(m.dir, fmt.Sprintf("log%d", i)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	m.agents[i] = cmd
}

// revive starts agents that were killed.
func (m *minder) revive(t *testing.T) {
	t.Helper()
	for i, a := range m.agents {
		if a == nil || syscall.Kill(a.Process.Pid, 0) != nil {
			m.begin(t, i)
		}
	}
}

// postmaster is the process of the server that has a directory; 0: none.
func postmaster(data string) int {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, _ := strconv.Atoi(line)
	return pid
}

func (m *minder) killServer(t *testing.T, i int) {
	t.Helper()
	if pid := postmaster(m.data[i]); pid > 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// killAll is the loss of a host: nobody is left to say anything.
func (m *minder) killAll(t *testing.T, i int) {
	t.Helper()
	if m.agents[i] != nil {
		for _, pid := range tree(m.agents[i].Process.Pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	m.killServer(t, i)
}

// primary is who says that it leads; -1: nobody.
func (m *minder) primary(ctx context.Context) int {
	for i := range m.apis {
		if m.answers(ctx, i, "/primary") {
			return i
		}
	}
	return -1
}

func (m *minder) answers(ctx context.Context, i int, path string) bool {
	return answers(ctx, "http://"+m.apis[i]+path)
}

// whole waits for a primary and two replicas, one of them at least synchronous.
func (m *minder) whole(t *testing.T) int {
	t.Helper()
	for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		replicas, sync := 0, 0
		for i := range m.apis {
			if m.answers(t.Context(), i, "/replica") {
				replicas++
			}
			if m.answers(t.Context(), i, "/sync") {
				sync++
			}
		}
		if p := m.primary(t.Context()); p >= 0 && replicas == dbMembers-1 && sync > 0 {
			return p
		}
		if time.Now().After(deadline) {
			for i := range m.apis {
				text, _ := os.ReadFile(filepath.Join(m.dir, fmt.Sprintf("log%d", i)))
				t.Logf("%s %d: %s", m.name, i, text[max(0, len(text)-3000):])
			}
			t.Fatalf("%s: no whole cluster: primary %d, %d replicas, %d synchronous", m.name, m.primary(t.Context()), replicas, sync)
		}
	}
}

// place makes directories that the server's user may enter, and takes addresses.
func (m *minder) place(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", m.name) //nolint:usetesting // others than root must come in
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m.dir, m.password = dir, dbPassword
	free := process.FreeAddresses(t, 2*dbMembers)
	m.hosts, m.apis = free[:dbMembers], free[dbMembers:]
}

func droverMinder(t *testing.T, endpoint, kind string) *minder {
	t.Helper()
	m := &minder{name: "drover"}
	m.place(t)
	binary, err := filepath.Abs("../bin/drover")
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(m.dir, "secret"), m.password+"\n", 0o600)
	for i := range dbMembers {
		dir := filepath.Join(m.dir, strconv.Itoa(i))
		if err := os.MkdirAll(filepath.Join(dir, "pg"), 0o755); err != nil {
			t.Fatal(err)
		}
		m.data = append(m.data, filepath.Join(dir, "pg", "data"))
		put(t, filepath.Join(dir, "drover.yaml"), fmt.Sprintf(`
service: bench
id: m%d
coordinator: %s://%s
data_dir: %s/drover
socket: %s/s
database:
  engine: postgres
  data: %s
  listen: %s
  api: %s
  address: "static:127.0.0.1"
  password_file: %s/secret
  ttl: 5s
  parameters: {shared_buffers: 128MB}
`, i, kind, endpoint, dir, dir, m.data[i], m.hosts[i], m.apis[i], m.dir), 0o600)
	}
	m.start = func(i int) *exec.Cmd {
		return exec.Command(binary, "run", "-c", filepath.Join(m.dir, strconv.Itoa(i), "drover.yaml"))
	}
	m.change = func(t *testing.T, from, to int) {
		out, err := exec.CommandContext(t.Context(), binary, "switchover", "--to", fmt.Sprintf("m%d", to),
			"--socket", filepath.Join(m.dir, strconv.Itoa(from), "s")).CombinedOutput()
		if err != nil {
			t.Fatalf("drover switchover: %v: %s", err, out)
		}
	}
	return m
}

func patroniMinder(t *testing.T, endpoint string) *minder {
	t.Helper()
	m := &minder{name: "patroni"}
	m.place(t)
	who, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(who.Uid, 10, 32)
	gid, _ := strconv.ParseUint(who.Gid, 10, 32)
	for i := range dbMembers {
		dir := filepath.Join(m.dir, strconv.Itoa(i))
		m.data = append(m.data, filepath.Join(dir, "data"))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, "patroni.yaml"), patroniConfig(m, i, endpoint), 0o644)
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	m.start = func(i int) *exec.Cmd {
		cmd := exec.Command("patroni", filepath.Join(m.dir, strconv.Itoa(i), "patroni.yaml"))
		cmd.Env = []string{"PATH=/usr/lib/postgresql/15/bin:" + os.Getenv("PATH"), "HOME=/tmp", "LC_ALL=C.UTF-8"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		return cmd
	}
	m.change = func(t *testing.T, from, _ int) {
		// Patroni refuses one that is not synchronous: it is asked who is.
		to := -1
		for i := range m.apis {
			if m.answers(t.Context(), i, "/sync") {
				to = i
			}
		}
		body, _ := json.Marshal(map[string]string{"leader": fmt.Sprintf("m%d", from), "candidate": fmt.Sprintf("m%d", to)})
		resp, err := http.Post("http://"+m.apis[from]+"/switchover", "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("patroni: switchover: %s", resp.Status)
		}
	}
	return m
}

// patroniConfig is Patroni at the shortest times that it accepts.
func patroniConfig(m *minder, i int, endpoint string) string {
	_, port, _ := net.SplitHostPort(m.hosts[i])
	return fmt.Sprintf(`
scope: bench
name: m%d
restapi: {listen: "%s", connect_address: "%s"}
etcd3: {hosts: ["%s"]}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    maximum_lag_on_failover: 1048576
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      parameters: {shared_buffers: 128MB, wal_log_hints: "on"}
  initdb: [{encoding: UTF8}, data-checksums]
  pg_hba: ["host all all 127.0.0.1/32 scram-sha-256", "host replication replicator 127.0.0.1/32 scram-sha-256"]
postgresql:
  listen: "%s"
  connect_address: "%s"
  data_dir: %s
  bin_dir: /usr/lib/postgresql/15/bin
  pgpass: %s/pgpass%s
  authentication:
    superuser: {username: postgres, password: %s}
    replication: {username: replicator, password: %s}
  parameters: {unix_socket_directories: "%s"}
`, i, m.apis[i], m.apis[i], endpoint, m.hosts[i], m.hosts[i], m.data[i], filepath.Dir(m.data[i]), port, m.password, m.password, filepath.Dir(m.data[i]))
}
