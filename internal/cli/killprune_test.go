package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/repo/fstest"
	"drover/internal/testkit/gotool"
)

// testKilledPrune: a prune is killed at one removal after another. Its exclusive lock
// keeps nobody out who runs beside it: the next prune, and the next agent, see that its
// process is gone.
func testKilledPrune(t *testing.T, m *machine) {
	m = m.with("DROVER_TTL=1s")
	m.is(0, "created", "init")
	state := m.dir + "/state"
	garbage := func(n int) {
		t.Helper()
		for i := range 2 {
			m.write("state/a", string(fstest.Noise(200<<10+2*n+i)))
			m.is(0, "committed", "snapshot", state)
		}
		m.is(0, "", "forget", "--keep-last", "1")
	}
	locked := 0
	// strace counts each thread's calls by themselves: the higher the number, the less likely
	// that any thread comes to it, so that the low ones are tried again.
	for n := 1; n <= 30 && locked < 2; n++ {
		garbage(n)
		cmd := exec.Command("strace", "-f", "-qq", "-o", m.dir+"/trace", "-e", "trace=unlinkat", "-e", fmt.Sprintf("inject=unlinkat:signal=KILL:when=%d", 1+(n-1)%5), m.binary, "prune")
		cmd.Dir, cmd.Env = m.dir, m.env
		_ = cmd.Run() // killed, or not if there is less to remove
		left := exclusiveLocks(t, m)
		if locked += left; locked == 2 {
			break // for the agent
		}
		if got := m.do("prune"); got.code != 0 || strings.Count(got.err, "removing a stale lock") != left {
			t.Errorf("after a kill at removal %d, with %d exclusive locks left: %+v", n, left, got)
		}
	}
	if locked < 2 {
		t.Errorf("%d prunes were killed while they had their lock", locked)
	}
	if got := m.do("run", "--state", state, "--", "true"); got.code != 0 || !strings.Contains(got.err, "removing a stale lock") {
		t.Errorf("an agent after a killed prune: %+v", got)
	}
	m.is(0, "", "prune")
	m.is(0, "no problem found", "verify", "--read-data")
	checkWithRestic(t, m)
}

// exclusiveLocks counts them, as restic reads them.
func exclusiveLocks(t *testing.T, m *machine) (n int) {
	t.Helper()
	names, err := filepath.Glob(m.dir + "/bucket/data/locks/*")
	fstest.Must(t, err)
	for _, name := range names {
		cmd := exec.Command(gotool.Path(t, "restic"), "-r", m.dir+"/bucket/data", "--no-cache", "--no-lock", "cat", "lock", filepath.Base(name))
		cmd.Env = append(os.Environ(), "RESTIC_PASSWORD=sesame")
		text, err := cmd.Output()
		fstest.Must(t, err)
		var lock struct{ Exclusive bool }
		fstest.Must(t, json.Unmarshal(text, &lock))
		if lock.Exclusive {
			n++
		}
	}
	return n
}
