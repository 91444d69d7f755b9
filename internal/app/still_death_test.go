package app

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drover/client"
	"drover/internal/proctree"
	"drover/internal/repo/fstest"
)

// restless always changes a file that takes a while to copy, and names its
// process; a helper of it has left the session.
const restless = `
import os, random, subprocess
state, acks = os.environ["STATE"], os.environ["ACKS"]
if not os.path.exists(state + "/large"):
    with open(state + "/large", "wb") as f: f.write(os.urandom(1 << 20) * 400)
f = os.open(state + "/large", os.O_RDWR)
escaped = subprocess.Popen(["setsid", "sleep", "600"])
with open(acks + ".new", "w") as a: a.write("%d %d\n" % (os.getpid(), escaped.pid))
os.rename(acks + ".new", acks)
while True: os.pwrite(f, os.urandom(16), random.randrange(400 << 20))
`

// binary is the real one: with its shim.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "drover")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "drover/cmd/drover").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// instance is one life of the real agent.
type instance struct {
	*running
	cmd *exec.Cmd
	out *os.File // not a pipe: whoever outlives the agent holds it open
}

func (i *instance) said() string {
	text, err := os.ReadFile(i.out.Name())
	fstest.Must(i.t, err)
	return string(text)
}

func (w *workshop) instance(binary, dir string) *instance {
	w.t.Helper()
	acks := filepath.Join(dir, "acks")
	_ = os.Remove(acks)
	fstest.Write(w.t, dir+"/drover.yaml", fmt.Sprintf(`
jobs: {app: {command: [sh, -c, "python3 %s & wait"], env: {STATE: %q, ACKS: %q}}}
state: [%q]
data_dir: %q
socket: %q
backup: {freeze_limit: 30s, on_stop: false}
`, dir+"/app.py", w.state, acks, w.state, dir+"/data", dir+"/s"))
	fstest.Write(w.t, dir+"/app.py", restless)
	out, err := os.CreateTemp(w.t.TempDir(), "out")
	fstest.Must(w.t, err)
	w.t.Cleanup(func() { _ = out.Close() })
	i := &instance{out: out, cmd: exec.Command(binary, "run", "-c", dir+"/drover.yaml")}
	i.cmd.Env = append(os.Environ(), "DROVER_DATA_DIR="+dir+"/data")
	for name, value := range w.env() {
		i.cmd.Env = append(i.cmd.Env, name+"="+value)
	}
	i.cmd.Stdout, i.cmd.Stderr = i.out, i.out
	fstest.Must(w.t, i.cmd.Start())
	i.running = &running{t: w.t, w: w, state: w.state, acks: acks, socket: dir + "/s", log: new(logBuffer), ended: make(chan error, 1), Client: client.New(dir + "/s")}
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Log(i.said())
		}
		i.Close()
		_ = i.cmd.Process.Kill()
		_ = i.cmd.Wait()
		i.reap()
	})
	i.until("it is the holder", func() bool {
		s, err := i.Status(w.t.Context())
		return err == nil && s.Role == "holder"
	})
	return i
}

// reap ends what outlived the agent and was given to us, a subreaper since another
// test or this one.
func (i *instance) reap() {
	killer, err := proctree.NewKiller()
	fstest.Must(i.t, err)
	self := killer.Self()
	_, err = killer.Kill(func(p *proctree.Proc) bool { return p.PPID == self.PID && p.Session != self.Session })
	fstest.Must(i.t, err)
	_, err = killer.ReapZombies(func(*proctree.Proc) bool { return true })
	fstest.Must(i.t, err)
}

// processes are those that the application named.
func (i *instance) processes() (app, escaped proctree.Proc) {
	i.t.Helper()
	var pids [2]int
	if _, err := fmt.Sscan(i.acked(), &pids[0], &pids[1]); err != nil {
		i.t.Fatal(err)
	}
	app, ok := proctree.Lookup(pids[0])
	escaped, ok2 := proctree.Lookup(pids[1])
	if !ok || !ok2 {
		i.t.Fatal("the application is not there")
	}
	return app, escaped
}

// worker is the shim's child.
func (i *instance) worker() int {
	i.t.Helper()
	table := proctree.NewTable()
	fstest.Must(i.t, table.Read())
	for _, p := range table.Procs {
		if p.PPID == i.cmd.Process.Pid {
			return p.PID
		}
	}
	i.t.Fatal("the shim has no worker")
	return 0
}

// gone reports whether a process is no more, or only waits to be collected.
func gone(p proctree.Proc) bool {
	now, ok := proctree.Lookup(p.PID)
	return !ok || now.Start != p.Start || now.State == 'Z'
}

// The agent dies by SIGKILL while the application stands still, alone or with its
// shim: no process of it is left standing, and the next life runs it again.
func TestAgentDiesWhileTheJobsAreFrozen(t *testing.T) {
	drover := binary(t)
	fstest.Must(t, proctree.BecomeSubreaper()) // so that nothing gets away
	for _, c := range []struct {
		name string
		shim bool
	}{{"worker", false}, {"worker and shim", true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorkshop(t)
			dir, err := os.MkdirTemp("", "d") //nolint:usetesting // short, for the socket
			fstest.Must(t, err)
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			first := w.instance(drover, dir)
			app, escaped := first.processes()
			worker, _ := proctree.Lookup(first.worker())
			if _, err := first.Backup(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			first.until("all stand", func() bool {
				a, _ := proctree.Lookup(app.PID)
				e, _ := proctree.Lookup(escaped.PID)
				return a.State == 'T' && e.State == 'T'
			})
			if c.shim {
				fstest.Must(t, unix.Kill(first.cmd.Process.Pid, unix.SIGKILL))
			}
			fstest.Must(t, unix.Kill(worker.PID, unix.SIGKILL))
			_ = first.cmd.Wait()
			first.until("the agent is gone", func() bool { return gone(worker) })
			if !c.shim {
				first.until("the shim has killed them", func() bool { return gone(app) && gone(escaped) })
				if said := first.said(); !strings.Contains(said, "the worker died of SIGKILL") {
					t.Errorf("the shim said %q", said)
				}
			}
			second := w.instance(drover, dir)
			second.until("the next start has ended them", func() bool { return gone(app) && gone(escaped) })
			again, _ := second.processes()
			if again.PID == app.PID || again.State == 'T' {
				t.Errorf("the application: %+v", again)
			}
			if left, err := os.ReadDir(dir + "/data/data/staging"); err == nil && len(left) > 0 {
				t.Errorf("staged copies are left: %v", left)
			}
			fstest.Must(t, second.cmd.Process.Signal(unix.SIGTERM))
			if err := second.cmd.Wait(); err != nil {
				t.Logf("the agent ended: %v", err) // with the job's status
			}
		})
	}
}
