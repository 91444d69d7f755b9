//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/internal/testkit/process"
	"drover/internal/testkit/s3server"
)

// member is an agent of this machine that has a PostgreSQL.
type member struct {
	database
	*process.Process

	dir, api, etcd, cluster string
	env                     []string
	top, more               string // further lines of its configuration, and of its database's
}

// newMember makes a member's directory. The members of a cluster share its name, and an etcd.
func newMember(t *testing.T, name, cluster, etcd string) *member {
	t.Helper()
	m := &member{dir: shelter(t, name), etcd: etcd, cluster: cluster, env: os.Environ()}
	free := process.FreeAddresses(t, 2)
	m.database = database{t: t, name: name, host: free[0], data: filepath.Join(m.dir, "pg", "data")}
	m.api = free[1]
	mkdir(t, filepath.Dir(m.data))
	m.Process = process.New(t, name, syscall.SIGTERM, time.Minute)
	t.Cleanup(m.kill) // before it is asked to stop: nobody needs it any more
	return m
}

// binary is what is measured.
func (m *member) binary() string {
	m.t.Helper()
	binary, err := filepath.Abs("../bin/drover")
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := os.Stat(binary); err != nil {
		m.t.Fatalf("no binary to measure: %v (make build)", err)
	}
	return binary
}

// start does not wait for anything.
func (m *member) start() {
	m.t.Helper()
	put(m.t, filepath.Join(m.dir, "secret"), dbPassword+"\n", 0o600)
	file := filepath.Join(m.dir, "drover.yaml")
	put(m.t, file, fmt.Sprintf(`
service: bench
id: %s
coordinator: etcd://%s
data_dir: %[3]s/drover
socket: %[3]s/s
%[4]s
database:
  engine: postgres
  cluster: %[5]s
  data: %[6]s
  listen: %[7]s
  api: %[8]s
  address: "static:127.0.0.1"
  password_file: %[3]s/secret
  parameters: {shared_buffers: 128MB}
%[9]s
`, m.name, m.etcd, m.dir, m.top, m.cluster, m.data, m.host, m.api, m.more), 0o600)
	cmd := exec.Command(m.binary(), "run", "-c", file, "--log-format", "json")
	cmd.Env = m.env
	if err := m.Start(cmd); err != nil {
		m.t.Fatal(err)
	}
}

// kill ends agent and server at once.
func (m *member) kill() {
	if m.Running() {
		for _, pid := range tree(m.Pid()) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if pid := postmaster(m.data); pid > 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	m.Stop()
}

// forget removes the files of a member that was killed.
func (m *member) forget() {
	m.t.Helper()
	remove(m.t, filepath.Join(m.dir, "drover"))
	remove(m.t, filepath.Dir(m.data))
	mkdir(m.t, filepath.Dir(m.data))
}

// is asks one of Patroni's paths.
func (m *member) is(ctx context.Context, path string) bool {
	return answers(ctx, "http://"+m.api+path)
}

// answers says whether a path is answered by 200.
func answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// await waits until the member is what one of Patroni's paths asks for.
func (m *member) await(path string) {
	m.t.Helper()
	m.until(path, 10*time.Minute, func(ctx context.Context) bool { return m.is(ctx, path) })
}

// backsUp has the member's database go to a volume of the server, with a base backup so often.
func (m *member) backsUp(s3 *s3server.Server, volume, every string) {
	m.t.Helper()
	put(m.t, filepath.Join(m.dir, "store"), password+"\n", 0o600)
	m.env = s3.Env()
	m.top = fmt.Sprintf("store: {url: %q, password_file: %s/store}\nvolume: %s", s3.URL("drover"), m.dir, volume)
	m.more = fmt.Sprintf("  backup: {every: %s}", every)
}

// baseBackups is how many the agent has made, in all of its lives, and how long the last one took, with the log that it needs.
func (m *member) baseBackups() (n int, last took) {
	var committed time.Time
	for line := range strings.SplitSeq(m.Output(), "\n") {
		var said struct {
			Time time.Time
			Msg  string
			Took time.Duration
		}
		if json.Unmarshal([]byte(line), &said) != nil {
			continue
		}
		switch {
		case strings.HasPrefix(said.Msg, "base backup: the files are committed"):
			committed = said.Time
		case said.Msg == "made a base backup":
			n++
			last = took{wall: said.Took + said.Time.Sub(committed)}
		}
	}
	return n, last
}

// awaitBackups waits until there are so many.
func (m *member) awaitBackups(n int) (last took) {
	m.t.Helper()
	m.until("a base backup", 30*time.Minute, func(context.Context) bool {
		var made int
		made, last = m.baseBackups()
		return made >= n
	})
	return last
}
