package render

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	// outputLimit is how much of a check's output is kept, in bytes: the first.
	outputLimit = 2 << 10
	// holderDelay is how long to wait for the end of the output when the command has
	// ended and something still holds the pipe.
	holderDelay = 100 * time.Millisecond
)

// runCommand runs a check command in a process group of its own, which is killed when ctx
// ends.
func runCommand(ctx context.Context, command, env []string) ([]byte, error) {
	var out head
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = holderDelay
	err := cmd.Run()
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return out, nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return out, fmt.Errorf("run %s: %w", command[0], err)
}

// head keeps the beginning of what is written to it.
type head []byte

func (h *head) Write(p []byte) (int, error) {
	*h = append(*h, p[:min(len(p), outputLimit-len(*h))]...)
	return len(p), nil
}

// fileMode are the permissions of octal digits.
func fileMode(bits uint32) fs.FileMode { return fs.FileMode(bits).Perm() }
