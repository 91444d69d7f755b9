package initproc

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

// Exit statuses of the shim itself, where there is no worker's to return.
const (
	exitFailure  = 1
	signalOffset = 128 // added to the signal that ended the worker, as shells do
)

// Shim is what PID 1 runs.
type Shim struct {
	Args []string // argv of the worker, Args[0] included; empty: our own
	Env  []string // environment of the worker; nil: our own
	// The worker's standard streams; nil: our own.
	Stdin, Stdout, Stderr *os.File
	// Log takes the one line about a worker that died; nil: Stderr.
	Log io.Writer
}

// Run starts the worker, waits for it, kills whatever it left, and returns the
// status to exit with: the worker's, or 128 + n if signal n ended it. It takes
// over the process: it collects every child, whoever started it. Call it from
// the main goroutine before anything else runs.
func (s Shim) Run() int {
	s.fillIn()
	isInit := os.Getpid() == 1
	if !isInit {
		if err := proctree.BecomeSubreaper(); err != nil {
			return s.fail(err)
		}
	}
	// Before the worker lives, so that its death costs no allocation.
	killer, err := proctree.NewKiller()
	if err != nil {
		return s.fail(err)
	}
	signals := catchSignals()
	defer signal.Stop(signals)
	worker, lifeline, err := s.start()
	if err != nil {
		return s.fail(err)
	}
	defer lifeline.Close()
	sent := &forwarder{worker: worker}
	var forwarding sync.WaitGroup
	forwarding.Go(func() { sent.run(signals) })
	becomeSmall()

	status := reapUntil(worker.Pid)
	left, killErr := killRest(isInit, killer)
	signal.Stop(signals)
	close(signals)
	forwarding.Wait()
	return s.report(status, sent, left, killErr)
}

func (s *Shim) fillIn() {
	if len(s.Args) == 0 {
		s.Args = os.Args
	}
	if s.Env == nil {
		s.Env = os.Environ()
	}
	if s.Stdin == nil {
		s.Stdin = os.Stdin
	}
	if s.Stdout == nil {
		s.Stdout = os.Stdout
	}
	if s.Stderr == nil {
		s.Stderr = os.Stderr
	}
	if s.Log == nil {
		s.Log = s.Stderr
	}
}

func (s *Shim) fail(err error) int {
	fmt.Fprintf(s.Log, "drover: start the worker: %v\n", err)
	return exitFailure
}

// start runs this binary again. The worker gets a session of its own, hence
// also a process group: a signal from the terminal reaches it once, by us.
func (s *Shim) start() (*os.Process, *os.File, error) {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make the worker's pipe: %w", err)
	}
	defer theirs.Close()
	exe, err := executable()
	if err != nil {
		ours.Close()
		return nil, nil, err
	}
	worker, err := os.StartProcess(exe, s.Args, &os.ProcAttr{
		Env:   append(s.Env[:len(s.Env):len(s.Env)], marker+"="+strconv.Itoa(os.Getpid())),
		Files: []*os.File{s.Stdin, s.Stdout, s.Stderr, theirs},
		Sys:   &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		ours.Close()
		return nil, nil, err
	}
	return worker, ours, nil
}

// executable prefers the path, which names the process in ps; the file may have
// been replaced or removed since we started, so /proc/self/exe decides.
func executable() (string, error) {
	const self = "/proc/self/exe"
	running, err := os.Stat(self)
	if err != nil {
		return "", fmt.Errorf("find this binary: %w", err)
	}
	if path, err := os.Executable(); err == nil {
		if named, err := os.Stat(path); err == nil && os.SameFile(running, named) {
			return path, nil
		}
	}
	return self, nil
}

// catchSignals subscribes to what is forwarded. Left out are the signals of
// faults and of the Go runtime (SIGURG), SIGCHLD, and the terminal's stop
// signals, which stop a shim that is not PID 1 and leave the jobs alone. What
// the caller had us ignore (nohup) stays ignored.
func catchSignals() chan os.Signal {
	wanted := []unix.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGALRM, unix.SIGWINCH, unix.SIGIO, unix.SIGPWR,
	}
	const firstRealTime, lastRealTime = 35, 64 // C libraries keep 32 to 34, and Go does not deliver them
	for n := unix.Signal(firstRealTime); n <= lastRealTime; n++ {
		wanted = append(wanted, n)
	}
	signals := make(chan os.Signal, len(wanted))
	for _, sig := range wanted {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	// Caught, not ignored (children inherit that): a reader of our stderr that
	// went away must not end PID 1.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	return signals
}

// forwarder passes signals on, and remembers which, to tell a worker that was
// asked to die from one that crashed.
type forwarder struct {
	worker *os.Process
	mu     sync.Mutex
	sent   [65]bool
}

func (f *forwarder) run(signals <-chan os.Signal) {
	for sig := range signals {
		n, ok := sig.(unix.Signal)
		if !ok {
			continue
		}
		f.mu.Lock()
		f.sent[n] = true
		f.mu.Unlock()
		// Sent through a pidfd: it fails, harmlessly, once the worker is gone.
		_ = f.worker.Signal(n)
	}
}

func (f *forwarder) has(sig unix.Signal) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int(sig) < len(f.sent) && f.sent[sig]
}

// reapUntil collects every child that ends, until the worker does.
func reapUntil(worker int) unix.WaitStatus {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil: // ECHILD: the worker was collected by somebody else
			return unix.WaitStatus(exitFailure << 8)
		case pid == worker && (status.Exited() || status.Signaled()):
			return status
		}
	}
}

// killRest kills what the worker left and collects it.
func killRest(isInit bool, killer *proctree.Killer) (int, error) {
	if isInit {
		// Everything in the PID namespace but us, in one step.
		_ = unix.Kill(-1, unix.SIGKILL)
		return reapAll(0), nil
	}
	self := killer.Self().PID
	n, err := killer.Kill(func(p *proctree.Proc) bool { return p.PPID == self })
	reapAll(unix.WNOHANG)
	return n, err
}

// reapAll collects children until there is none, or none that is dead already
// (WNOHANG), and returns how many SIGKILL ended.
func reapAll(options int) int {
	killed := 0
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, options, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || pid <= 0:
			return killed
		case status.Signaled() && status.Signal() == unix.SIGKILL:
			killed++
		}
	}
}

// report says in one line what was not as it should be.
func (s *Shim) report(status unix.WaitStatus, sent *forwarder, left int, killErr error) int {
	var said []string
	code := status.ExitStatus()
	if status.Signaled() {
		sig := status.Signal()
		code = signalOffset + int(sig)
		if !sent.has(sig) {
			said = append(said, "the worker died of "+unix.SignalName(sig))
		}
	}
	if left > 0 {
		said = append(said, fmt.Sprintf("killed the %d processes it left", left))
	}
	if killErr != nil {
		said = append(said, killErr.Error())
		if code == 0 {
			code = exitFailure
		}
	}
	if len(said) > 0 {
		fmt.Fprintf(s.Log, "drover: %s (exit status %d)\n", strings.Join(said, "; "), code)
	}
	return code
}

// becomeSmall gives back what starting cost: from here on the shim waits.
func becomeSmall() {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(10)
	debug.FreeOSMemory()
	DropFilePages()
}
