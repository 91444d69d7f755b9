package cli

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"drover/internal/repo/fstest"
	"drover/internal/testkit/gotool"
)

// killedApp is an application that knows its own files: each that its list names must
// be there, whole. It begins with that; then it makes more, each backed up, and notes
// outside of the volume which of them were acknowledged. $OUT and $N: where, how many.
const killedApp = `set -e
cd "$STATE"
text() { for i in 1 2 3 4 5 6 7 8; do echo "file $1 line $i of a text that fills a block or two"; done; }
for f in $(cat list 2>/dev/null); do
	text "$f" | cmp -s - "d$((f % 3))/$f" || { echo "$f" >>"$OUT/half"; exit 9; }
done
touch "$OUT/ran"
for k in $(seq "$N"); do
	n=$(($(cat list 2>/dev/null | wc -l) + 1))
	mkdir -p "d$((n % 3))"; text "$n" >"d$((n % 3))/$n"
	cp list list.new 2>/dev/null || true
	echo "$n" >>list.new; mv list.new list
	drover backup >/dev/null && echo "$n" >>"$OUT/acked"
done`

// hit is one fault of a life: the nth such call of a thread.
type hit struct {
	start   string // first: on an empty bucket; restore: on an empty disk
	syscall string
	fault   string
	n       int
}

// ofTheAgent says that only the agent is to meet it, not the application, which would
// take a file that it cannot open for one that is not there.
func (h hit) ofTheAgent() bool {
	return strings.HasPrefix(h.fault, "error=") && (h.syscall == "openat" || h.syscall == "write")
}

func (h hit) String() string { return fmt.Sprintf("%s-%s-%s-%d", h.start, h.syscall, h.fault, h.n) }

func hits() (all []hit) {
	calls := map[string]int{ // of a thread that has the most
		"openat": 30, "write": 60, "pwrite64": 6, "fsync": 10, "fdatasync": 3, "renameat": 8, "renameat2": 4, "rename": 3, "unlinkat": 8,
		"mkdirat": 10, "fchmodat": 6, "fchmod": 6, "ftruncate": 4, "linkat": 4, "symlinkat": 2, "fsetxattr": 4, "setxattr": 4, "utimensat": 8, "syncfs": 3, "flock": 8,
	}
	for _, start := range []string{"first", "restore"} {
		for _, name := range slices.Sorted(maps.Keys(calls)) {
			for n := 1; n <= calls[name]; n++ {
				all = append(all, hit{start, name, "signal=KILL", n})
				all = append(all, hit{start, name, "error=EIO", n}, hit{start, name, "error=ENOSPC", n})
			}
		}
	}
	return all
}

// killedLives is how many of the hits the normal test takes; DROVER_SOAK takes all.
const killedLives = 24

// TestKilledAtEveryFileOperation: the agent dies, or is told of a broken or full disk,
// at a file operation of a life. Started again on the same disk, and then on an empty
// one, the application finds its files whole, and all that was acknowledged.
func TestKilledAtEveryFileOperation(t *testing.T) {
	binary := buildBinary(t)
	all := hits()
	some, each := all, 1
	if os.Getenv("DROVER_SOAK") == "" {
		dice := rand.New(rand.NewPCG(1, 0))
		some, each = nil, 6
		for i := range killedLives {
			from, to := i*len(all)/killedLives, (i+1)*len(all)/killedLives
			some = append(some, all[from+dice.IntN(to-from)])
		}
	}
	var met, acked atomic.Int64
	t.Run("lives", func(t *testing.T) {
		slots := make(chan struct{}, 4)
		for i, h := range some {
			t.Run(h.String(), func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				hit, n := livesAgain(t, newMachine(t, binary), h, i%each == 0)
				acked.Add(int64(n))
				if hit {
					met.Add(1)
				}
			})
		}
	})
	t.Logf("%d points, %d lived, %d met their fault, %d acknowledged backups found again", len(all), len(some), met.Load(), acked.Load())
	if met.Load() == 0 || acked.Load() == 0 {
		t.Error("nothing was tested")
	}
}

// livesAgain plays one life with its fault and the lives after it.
func livesAgain(t *testing.T, m *machine, h hit, restic bool) (met bool, acked int) {
	t.Helper()
	out := m.dir + "/out"
	fstest.Must(t, os.Mkdir(out, 0o755))
	run := func(m *machine) []string {
		return []string{"run", "--state", m.dir + "/state", "--log-level", "error", "--", "sh", "-c", killedApp}
	}
	m = m.with("OUT="+out, "DROVER_FIRST_START=adopt", "N=2")
	if h.start == "restore" {
		if got := m.do(run(m)...); got.code != 0 {
			t.Fatalf("before: %+v", got)
		}
		emptyDisk(t, m)
	}
	found := m.write("state/found", "before Drover") // adopted; or kept as diverged
	trace := m.dir + "/trace"
	args := []string{"-f", "-qq", "-o", trace, "-e", "trace=" + h.syscall, "-e", fmt.Sprintf("inject=%s:%s:when=%d", h.syscall, h.fault, h.n)}
	cmd := exec.Command("strace", slices.Concat(args, []string{m.binary}, run(m))...)
	if h.ofTheAgent() {
		// strace lets go of what the agent executes, so it stands for the shim itself.
		lifeline, end, err := os.Pipe()
		fstest.Must(t, err)
		defer func() { _ = lifeline.Close(); _ = end.Close() }()
		cmd = exec.Command("sh", slices.Concat([]string{"-c", `export _DROVER_SHIM=$$; exec strace -b execve "$@"`, "sh"}, args, []string{m.binary}, run(m))...)
		cmd.ExtraFiles = []*os.File{lifeline}
	}
	cmd.Dir, cmd.Env = m.dir, m.env
	p := &process{m: m, cmd: cmd, ended: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = &p.out, &p.errs
	cmd.WaitDelay = limit / 4 // a job that outlives the agent holds the pipes
	fstest.Must(t, cmd.Start())
	go func() { p.ended <- cmd.Wait() }()
	<-p.ended
	text, err := os.ReadFile(trace)
	fstest.Must(t, err)
	met = strings.Contains(string(text), "(INJECTED)") || strings.Contains(string(text), "SIGKILL")

	m = m.with("N=1")
	again := func(where string) {
		t.Helper()
		if got := m.do(run(m)...); got.code != 0 {
			t.Errorf("started again %s: %+v", where, got)
		}
		if half, err := os.ReadFile(out + "/half"); err == nil {
			t.Errorf("started again %s: the application met half a file: %s", where, half)
		}
	}
	again("on the same disk")
	emptyDisk(t, m)
	m = m.with("N=0")
	again("on an empty disk")
	if _, err := os.Stat(found); h.start == "first" && err != nil {
		t.Errorf("what was adopted: %v", err)
	}
	list := fields(m.dir + "/state/list")
	for _, n := range fields(out + "/acked") {
		acked++
		if !strings.Contains(" "+strings.Join(list, " ")+" ", " "+n+" ") {
			t.Errorf("acknowledged backup of %s is not in the restore of %v", n, list)
		}
	}
	if got := m.do("verify", "--read-data"); strings.Contains(got.out, "never committed, by an instance that died") {
		t.Log("it left a snapshot without its index, which a prune removes")
		m.is(0, "", "prune")
	}
	m.is(0, "no problem found", "verify", "--read-data")
	if restic {
		checkWithRestic(t, m)
	}
	return met, acked
}

func fields(path string) []string {
	text, _ := os.ReadFile(path)
	return strings.Fields(string(text))
}

// emptyDisk takes state and data directory away.
func emptyDisk(t *testing.T, m *machine) {
	t.Helper()
	for _, sub := range []string{"/state", "/data"} {
		fstest.Must(t, os.RemoveAll(m.dir+sub), os.Mkdir(m.dir+sub, 0o755))
	}
}

func checkWithRestic(t *testing.T, m *machine) {
	t.Helper()
	restic := gotool.Path(t, "restic") // it may have to be built first
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, restic, "-r", filepath.Join(m.dir, "bucket/data"), "--no-cache", "check", "--read-data")
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD=sesame")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("restic check: %v\n%s", err, text)
	}
}
