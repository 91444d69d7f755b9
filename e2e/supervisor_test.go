//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/testkit/dockertest"
)

// supervisors is built once, like the images of world_test.go.
var supervisors sync.Once

// supervisorImage builds testdata/supervisor.
func supervisorImage(t *testing.T) string {
	t.Helper()
	const tag = "drover-test/supervisor"
	supervisors.Do(func() {
		dockertest.Build{
			Tag: tag, Context: "testdata/supervisor",
			Args: map[string]string{"DROVER_IMAGE": droverImage(t), "BASE_IMAGE": dockertest.BaseImage(t)},
		}.Build(t)
	})
	return tag
}

// supervised starts drover run with these arguments, without a store.
func supervised(t *testing.T, run *dockertest.Run, name string, options []string, args ...string) *dockertest.Container {
	t.Helper()
	c := run.Start(dockertest.Spec{Name: name, Image: supervisorImage(t), Options: options, Args: args})
	c.NoVolumes(t)
	return c
}

// awaitLog waits until the container has written each of the texts, in this order.
func awaitLog(t *testing.T, c *dockertest.Container, texts ...string) {
	t.Helper()
	dockertest.Await(t, soon, c.Name+" to write", func(context.Context) error { return inOrder(c.Logs(), texts...) })
}

// inOrder is an error if the texts do not stand in text one after another.
func inOrder(text string, texts ...string) error {
	rest := text
	for _, want := range texts {
		_, after, found := strings.Cut(rest, want)
		if !found {
			return fmt.Errorf("no %q in its place in %q", want, text)
		}
		rest = after
	}
	return nil
}

// lives tells whether one of the container's processes has this in its command line.
func lives(c *dockertest.Container, command string) error {
	for _, p := range c.Processes() {
		if strings.Contains(p, command) {
			return nil
		}
	}
	return fmt.Errorf("no %q among %q", command, c.Processes())
}

// TestSupervisorInSmallContainers: whoever runs it, whatever is taken from it, whoever is
// PID 1: the job runs, the agent answers it, and its exit status is the container's.
func TestSupervisorInSmallContainers(t *testing.T) {
	const script = `echo "uid $(id -u)"; drover status; drover backup; exit 7`
	shut := []string{"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"}
	run := dockertest.New(t)
	cases := []struct {
		name, uid string
		options   []string
	}{
		{"root", "0", nil},
		{"not-root", "1000", []string{"--user=1000:1000"}},
		{"no-passwd-entry", "12345", []string{"--user=12345:0"}},
		{"no-capabilities", "0", []string{"--cap-drop=ALL"}},
		{"read-only", "0", []string{"--read-only", "--tmpfs=/run"}},
		{"read-only-not-root", "1000", append([]string{"--user=1000:1000", "--tmpfs=/tmp"}, shut...)},
		// Docker gives every container a small writable /dev/shm.
		{"read-only-no-tmpfs", "0", append([]string{"--env=DROVER_SOCKET=/dev/shm/drover.sock"}, shut...)},
		{"another-init", "0", []string{"--init"}},
		{"host-pids", "0", []string{"--pid=host"}},
	}
	all := map[string]*dockertest.Container{}
	for _, c := range cases {
		all[c.name] = supervised(t, run, c.name, c.options, "--", "sh", "-c", script)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if code := all[c.name].AwaitExit(soon); code != 7 {
				t.Errorf("exit status %d, want the job's, 7", code)
			}
			awaitLog(t, all[c.name], "uid "+c.uid+"\n", "supervisor", "main (main)  ● running")
			awaitLog(t, all[c.name], "no backup: no store is configured") // in another stream, in whichever order
		})
	}
}

// TestReadOnlyWithoutAPlaceForTheSocket: nothing is begun, and one line says what to give.
func TestReadOnlyWithoutAPlaceForTheSocket(t *testing.T) {
	run := dockertest.New(t)
	c := supervised(t, run, "shut", []string{"--read-only"}, "--", "echo", "began")
	if code := c.AwaitExit(soon); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	said := strings.TrimSpace(c.Logs())
	for _, want := range []string{"/run/drover", "read-only file system", "tmpfs", "--socket"} {
		if err := contains(said, want); err != nil {
			t.Error(err)
		}
	}
	if strings.Contains(said, "\n") || strings.Contains(said, "began") {
		t.Errorf("it said more than one line: %q", said)
	}
}

// TestJobsStopInOrder: docker stop ends well within its grace: what was started last is
// stopped first, the hooks run in their places, and the main job's status is the container's.
func TestJobsStopInOrder(t *testing.T) {
	c := supervised(t, dockertest.New(t), "ordered", nil, "-c", "/etc/drover/ordered.yaml")
	awaitLog(t, c, "db: up", "web: up")
	began := time.Now()
	if code := c.Stop(10 * time.Second); code != 9 {
		t.Errorf("exit status %d, want the main job's, 9", code)
	}
	t.Logf("stopped in %.1f s", time.Since(began).Seconds())
	awaitLog(t, c, "drain: done", "web: stopped", "db: stopped", "archive: done")
}

// TestSignalsReachTheJob: as docker kill -s sends them, rewritten where the file says so,
// at the stop too. (Apache's image asks Docker to stop it by WINCH.)
func TestSignalsReachTheJob(t *testing.T) {
	run := dockertest.New(t)
	c := supervised(t, run, "signals", nil, "-c", "/etc/drover/signals.yaml")
	awaitLog(t, c, "up\n")
	c.Signal("HUP")
	awaitLog(t, c, "got USR1")
	c.Signal("WINCH")
	awaitLog(t, c, "got USR1", "got WINCH")
	if code := c.Stop(10 * time.Second); code != 5 {
		t.Errorf("exit status %d, want that of the job at QUIT, 5", code)
	}
	awaitLog(t, c, "got QUIT")
	for _, not := range []string{"got HUP", "got TERM"} {
		if strings.Contains(c.Logs(), not) {
			t.Errorf("%q: the signal was not rewritten", not)
		}
	}
}

// signalAgent sends, within a container, signal $1 to the agent's shim or to its worker, $2:
// the worker is the drover whose parent is one.
const signalAgent = `for p in /proc/[0-9]*; do
  read -r pid name state parent rest <$p/stat && [ "$name" = "(drover)" ] || continue
  of=; [ "$parent" = 0 ] || read -r pid_ of rest </proc/$parent/stat
  part=shim; [ "$of" != "(drover)" ] || part=worker
  [ $part != "$2" ] || kill -$1 $pid
done; :`

// TestWorkerIsKilled: the half of the agent that supervises is killed, as by the kernel for
// want of memory. The container ends, fails, and says why: jobs never run unsupervised.
func TestWorkerIsKilled(t *testing.T) {
	for _, init := range []bool{false, true} {
		t.Run(fmt.Sprintf("init=%v", init), func(t *testing.T) {
			c := supervised(t, dockertest.New(t), "worker", []string{fmt.Sprintf("--init=%v", init)}, "--", "sleep", "infinity")
			awaitLog(t, c, "job started")
			// The container's end may cut the command short.
			_, _ = c.Exec(t.Context(), "sh", "-c", signalAgent, "sh", "KILL", "worker")
			if code := c.AwaitExit(soon); code != 128+9 {
				t.Errorf("exit status %d, want 137", code)
			}
			awaitLog(t, c, "the worker died of SIGKILL", "exit status 137")
		})
	}
}

// outlive is what the agent says of processes that it finds when their job has ended.
const outlive = "outlive its first"

// TestDaemonsDieWithTheirJob: what a job has forked twice, out of its session, is found
// when the job ends, and again at its second end.
func TestDaemonsDieWithTheirJob(t *testing.T) {
	c := supervised(t, dockertest.New(t), "daemons", nil, "-c", "/etc/drover/daemons.yaml")
	awaitLog(t, c, "forks: forked", outlive, "forks: forked", outlive)
	dockertest.Await(t, soon, "the daemons to be gone", func(context.Context) error {
		if lives(c, "4.44") == nil {
			return errors.New("one lives")
		}
		return lives(c, "sleep infinity")
	})
	if code := c.Stop(10 * time.Second); code != 128+15 {
		t.Errorf("exit status %d, want that of the main job, which TERM ended", code)
	}
}

// TestSupervisorUnderAShell: as the child of a shell the agent is no PID 1, and its end does
// not end the container. Nothing that a job started outlives it: not when it ends, not when
// it is told to stop, not when half of it is killed.
func TestSupervisorUnderAShell(t *testing.T) {
	c := dockertest.New(t).Start(dockertest.Spec{
		Name: "shell", Image: supervisorImage(t), Entrypoint: "sleep", Args: []string{"infinity"},
	})
	cases := []struct {
		how, life, signal, part string
		status                  int
	}{
		{"its job ends", "1", "", "", 4},
		{"it is stopped", "600", "TERM", "shim", 128 + 15},
		{"its shim is killed", "600", "KILL", "shim", 128 + 9},
		{"its worker is killed", "600", "KILL", "worker", 128 + 9},
	}
	for _, k := range cases {
		t.Run(k.how, func(t *testing.T) {
			agent := c.Go("sh", "-c", `LIFE=$1 drover run -c /etc/drover/shell.yaml; exit $?`, "sh", k.life)
			dockertest.Await(t, soon, "the daemon", func(context.Context) error { return lives(c, "4.44") })
			if k.signal != "" {
				c.MustExec("sh", "-c", signalAgent, "sh", k.signal, k.part)
			}
			var exit *dockertest.ExitError
			if err := agent.Wait(soon); !errors.As(err, &exit) || exit.Code != k.status {
				t.Errorf("the agent ended with %v, want status %d", err, k.status)
			}
			dockertest.Await(t, soon, "everything to be gone", func(context.Context) error {
				if ps := c.Processes(); len(ps) != 1 {
					return fmt.Errorf("processes %q", ps)
				}
				return nil
			})
		})
	}
}

// ofInit lists the children of a PID namespace's first process: number, name, state.
const ofInit = `for p in /proc/[0-9]*; do
  read -r pid name state parent rest <$p/stat && [ "$parent" != 1 ] || echo "$pid $name $state"
done; :`

// TestSharedPIDNamespace: beside another container's processes the agent is one of many. It
// finds the orphans of its own jobs, and lets those of the other alone, living and dead.
func TestSharedPIDNamespace(t *testing.T) {
	run := dockertest.New(t)
	// Its PID 1 reaps nothing: that a zombie stays shows that nobody else did.
	other := run.Start(dockertest.Spec{
		Name: "other", Image: supervisorImage(t), Entrypoint: "sh",
		Args: []string{"-c", "(setsid sleep 5.55 &); (exit 0) & exec sleep infinity"},
	})
	orphans := func() string { return strings.TrimSpace(other.MustExec("sh", "-c", ofInit)) }
	before := ""
	dockertest.Await(t, soon, "the other container's orphans", func(context.Context) error {
		before = orphans()
		for _, want := range []string{"(sleep) S", "(sh) Z"} { // in any order
			if !strings.Contains(before, want) {
				return fmt.Errorf("no %q in %q", want, before)
			}
		}
		return nil
	})
	c := supervised(t, run, "agent", []string{"--pid=container:" + other.ID}, "-c", "/etc/drover/daemons.yaml")
	awaitLog(t, c, "forks: forked", outlive, "forks: forked", outlive)
	dockertest.Await(t, soon, "the job's orphans to be gone", func(context.Context) error {
		if lives(c, "4.44") == nil {
			return errors.New("one lives")
		}
		return nil
	})
	if code := c.Stop(10 * time.Second); code != 128+15 {
		t.Errorf("exit status %d, want 143", code)
	}
	if after := orphans(); after != before {
		t.Errorf("the other container's orphans were %q, and are %q", before, after)
	}
}
