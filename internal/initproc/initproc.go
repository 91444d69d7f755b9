// Package initproc is PID 1: a small shim that runs the agent itself, the
// worker, as its child.
//
// It promises that jobs never run unsupervised. The shim forwards signals,
// reaps every orphan and returns the worker's exit status; when the worker ends,
// whatever the reason, everything that it left behind is killed. When the shim
// is killed instead (possible only where it is not PID 1: the kernel ends a
// PID namespace with its init), the worker learns it by ShimGone. As PID 1 or
// not, nothing that a job started survives, however it detached itself: the
// shim and the worker are both child subreapers.
//
// The worker is the same binary, recognised by a private environment variable.
// It has a session of its own, so a terminal's job control never stops it;
// the terminal's signals reach the shim, which forwards them. What the worker
// does is none of this package's business, but it must kill its jobs when
// ShimGone is closed.
package initproc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

// marker holds the shim's PID in the worker's environment. Attach removes it,
// so that an agent started by a job is a shim again.
const marker = "_DROVER_SHIM"

// lifelineFD is the worker's end of a pipe that only the shim holds open for
// writing: its end of file means that the shim is gone. The parent-death signal
// (prctl(2), PR_SET_PDEATHSIG) would not do: SIGKILL leaves the worker no time to
// kill what its jobs forked, and it is sent when the forking thread ends, not
// the process.
const lifelineFD = 3

// ErrNoShim: this process was not started by a shim.
var ErrNoShim = errors.New("not started by the shim")

// IsWorker tells whether this process was started by Shim.Run. It is false
// after Attach.
func IsWorker() bool { return os.Getenv(marker) != "" }

// Worker is the worker's side of the link to its shim.
type Worker struct {
	lifeline *os.File
	gone     chan struct{}
	group    sync.WaitGroup
}

// Attach makes the calling process the worker: it takes the marker out of the
// environment, becomes a child subreaper and starts to watch the shim. Call it
// once, early, from the main goroutine; close the Worker at the end.
func Attach() (*Worker, error) {
	shim, err := strconv.Atoi(os.Getenv(marker))
	if err != nil {
		return nil, ErrNoShim
	}
	if err := os.Unsetenv(marker); err != nil {
		return nil, fmt.Errorf("clear the shim's marker: %w", err)
	}
	unix.CloseOnExec(lifelineFD)
	if err := unix.SetNonblock(lifelineFD, true); err != nil {
		return nil, fmt.Errorf("take the shim's pipe: %w", err)
	}
	if err := proctree.BecomeSubreaper(); err != nil {
		return nil, err
	}
	w := &Worker{lifeline: os.NewFile(lifelineFD, "shim"), gone: make(chan struct{})}
	if os.Getppid() != shim {
		close(w.gone)
		return w, nil
	}
	w.group.Go(w.watch)
	return w, nil
}

// watch ends at the pipe's end of file or when Close closes our side of it.
func (w *Worker) watch() {
	var b [1]byte
	_, err := w.lifeline.Read(b[:])
	if !errors.Is(err, os.ErrClosed) {
		close(w.gone)
	}
}

// ShimGone is closed when the shim has ended. Nobody forwards signals or
// reports an exit status then: kill the jobs and exit.
func (w *Worker) ShimGone() <-chan struct{} { return w.gone }

// Close stops watching.
func (w *Worker) Close() error {
	err := w.lifeline.Close()
	w.group.Wait()
	if err != nil {
		return fmt.Errorf("close the shim's pipe: %w", err)
	}
	return nil
}
