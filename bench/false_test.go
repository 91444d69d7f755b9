//go:build bench

package bench

import (
	"context"
	"flag"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/internal/testkit/appender"
	"drover/internal/testkit/etcdserver"
)

var (
	minutes = flag.Float64("minutes", 1, "how long all cores are busy (TestFalseFailovers)")
	burners = flag.Int("burners", 2, "busy processes for each core (TestFalseFailovers)")
)

// TestFalseFailovers counts how often a primary, or any server, is replaced although nothing fails but time: all cores
// are busy with processes of the same priority, and a client writes. Drover with its default TTL, and Patroni with its
// shortest times, by turns, on an etcd that has no rest either.
func TestFalseFailovers(t *testing.T) {
	etcd := etcdserver.Start(t, etcdserver.Options{})
	endpoint := strings.TrimPrefix(etcd.Endpoints[0], "http://")
	for _, m := range []func(*testing.T, string) *minder{
		func(t *testing.T, endpoint string) *minder { return droverMinder(t, endpoint, "etcd") }, patroniMinder,
	} {
		m(t, endpoint).underLoad(t)
	}
}

func (m *minder) underLoad(t *testing.T) {
	t.Helper()
	m.up(t)
	defer func() {
		for i := range m.agents {
			m.killAll(t, i)
		}
	}()
	former := m.whole(t)
	a, err := appender.Start(t.Context(), appender.Options{Hosts: m.hosts, User: "postgres", Password: m.password, Workers: 2, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatalf("%s: %v", m.name, err)
	}
	m.progress(t, a, 200)
	quiet := burn(t, *burners*runtime.NumCPU())
	servers := map[int]bool{}
	changes, none := 0, 0
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(time.Duration(*minutes * float64(time.Minute))); time.Now().Before(end); <-look.C {
		for i := range m.data {
			servers[postmaster(m.data[i])] = true
		}
		switch p := m.primary(t.Context()); {
		case p < 0:
			none++ // not known: nobody answered in time
		case p != former:
			changes, former = changes+1, p
		}
	}
	quiet()
	delete(servers, 0)
	m.whole(t)
	m.progress(t, a, 200)
	r, err := a.Check(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatalf("%s: %v", m.name, err)
	}
	t.Logf("RESULT %s, %g minutes with %d busy processes on %d cores: %d false failovers, %d servers started anew, %d looks found no primary; %s",
		m.name, *minutes, *burners*runtime.NumCPU(), runtime.NumCPU(), changes, len(servers)-dbMembers, none, r)
}

// burn keeps so many processes busy until it is told to stop.
func burn(t *testing.T, n int) (stop func()) {
	t.Helper()
	var all []*exec.Cmd
	for range n {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
	}
	stop = func() {
		for _, cmd := range all {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		all = nil
	}
	t.Cleanup(stop)
	return stop
}
