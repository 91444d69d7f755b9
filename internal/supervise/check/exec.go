package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

// Exec runs a command: exit status 0 is well.
type Exec struct {
	Command    []string // looked up in the PATH of Env if it has no slash
	Dir        string   // empty: the agent's
	Env        []string // the whole environment
	Credential *syscall.Credential
}

const (
	// outputTail is how much of a command's last output an error tells, in bytes.
	outputTail = 1 << 10
	// holderDelay is how long to wait for the end of the output when the command
	// has ended and something outside of its group still holds the pipe.
	holderDelay = 100 * time.Millisecond
)

// Probe runs the command in a process group of its own, in the agent's session.
// When ctx ends, all that descends from it is killed; when the command ends,
// what is left of its group.
func (e *Exec) Probe(ctx context.Context) error {
	path, err := lookPath(e.Command[0], e.Dir, e.Env)
	if err != nil {
		return err
	}
	var out tail
	cmd := &exec.Cmd{
		Path: path, Args: e.Command, Dir: e.Dir, Env: append([]string{}, e.Env...),
		Stdout: &out, Stderr: &out, WaitDelay: holderDelay,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL, Credential: e.Credential},
	}
	switch err := run(ctx, cmd); {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return nil
	case len(out) > 0:
		return fmt.Errorf("run %s: %w: %s", e.Command[0], err, strings.TrimSpace(string(out)))
	default:
		return fmt.Errorf("run %s: %w", e.Command[0], err)
	}
}

// run starts cmd and waits for it on one OS thread: the kernel sends a child its
// parent-death signal when the thread that forked it ends.
func run(ctx context.Context, cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	group := cmd.Process.Pid
	killed := make(chan struct{})
	spare := context.AfterFunc(ctx, func() {
		defer close(killed)
		killTree(group)
	})
	awaitEnd(group)
	intime := spare()
	if !intime {
		<-killed
	}
	// Until it is collected, the first process keeps the group's number ours.
	_ = unix.Kill(-group, unix.SIGKILL)
	err := cmd.Wait()
	for {
		if _, err := unix.Wait4(-group, nil, 0, nil); err != nil && err != unix.EINTR {
			break // ECHILD
		}
	}
	if !intime {
		return context.Cause(ctx)
	}
	return err
}

// awaitEnd returns when a child has ended, without collecting it.
func awaitEnd(pid int) {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			return
		}
	}
}

// killTree kills a process and what descends from it, wherever that has put
// itself, and the group of the process.
func killTree(pid int) {
	// Without /proc it is the group at least.
	if killer, err := proctree.NewKiller(); err == nil {
		_, _ = killer.KillOnce(func(p *proctree.Proc) bool { return p.PID == pid })
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
}

// strays finds what commands of checks left to us: orphans in our session that
// have ended. Nothing marks a zombie as a check's, but whatever else is executed
// is waited for: what is a zombie for two looks in a row is nobody's.
type strays struct {
	seen map[stray]bool
}

type stray struct {
	pid   int
	start uint64
}

func (s *strays) collect() error {
	var seen map[stray]bool
	defer func() { s.seen = seen }()
	if !proctree.AnyZombie() {
		return nil
	}
	killer, err := proctree.NewKiller()
	if err != nil {
		return err
	}
	seen = map[stray]bool{}
	_, err = killer.ReapZombies(func(p *proctree.Proc) bool {
		if p.Session != killer.Self().Session {
			return false // the supervisor's
		}
		id := stray{p.PID, p.Start}
		seen[id] = true
		return s.seen[id]
	})
	return err
}

// lookPath finds a command in the PATH that it will have. A relative entry or
// command counts from its directory.
func lookPath(command, dir string, env []string) (string, error) {
	if strings.Contains(command, "/") {
		return command, nil
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			path = value
		}
	}
	for _, entry := range filepath.SplitList(path) {
		full := filepath.Join(entry, command)
		place := full
		if !filepath.IsAbs(full) {
			full = "./" + full
			place = filepath.Join(dir, full)
		}
		if info, err := os.Stat(place); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return full, nil
		}
	}
	return "", fmt.Errorf("find %q in PATH: %w", command, fs.ErrNotExist)
}

// tail keeps the end of what is written to it.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p[max(0, len(p)-outputTail):]...)
	*t = (*t)[max(0, len(*t)-outputTail):]
	return len(p), nil
}
