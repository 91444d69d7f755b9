package supervise

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is something that the agent runs and that is no job: a hook, a check, what
// asks a job to stop.
type Command struct {
	Argv []string
	Env  []string // nil: the agent's
	Dir  string
	User *User // nil: the agent's own
}

// outputTail is how much of a command's last output an error tells, in bytes.
const outputTail = 1 << 10

// Run runs the command in a process group of its own, in the agent's session, and
// returns the group; 0: it did not start. When ctx ends the group is killed. An error
// has the cause, and the last of what the command said. KillGroup is the caller's.
func (c Command) Run(ctx context.Context) (group int, err error) {
	var out tail
	return c.run(ctx, &out)
}

// Output runs the command and returns the end of what it wrote, at most 1 KiB.
func (c Command) Output(ctx context.Context) (text string, group int, err error) {
	var out tail
	group, err = c.run(ctx, &out)
	return string(out), group, err
}

func (c Command) run(ctx context.Context, out *tail) (group int, err error) {
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Env, cmd.Dir = c.Env, c.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.User.Credential()}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second // for a grandchild that holds our pipe
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	if cmd.Process != nil {
		group = cmd.Process.Pid
	}
	if err == nil {
		return group, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if said := strings.TrimSpace(string(*out)); said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return group, err
}

// KillGroup kills what is left of a command's group, and collects what of it was left
// to us; 0: nothing.
func KillGroup(group int) {
	if group <= 0 {
		return
	}
	_ = unix.Kill(-group, unix.SIGKILL) // what is not there needs no killing
	for {
		if _, err := unix.Wait4(-group, nil, 0, nil); err != nil && err != unix.EINTR {
			return // ECHILD
		}
	}
}

// tail keeps the end of what is written to it.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-outputTail):]
	return len(p), nil
}
