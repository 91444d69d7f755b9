package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

// Exit statuses of a job that never ran, as shells have them.
const (
	statusNotStarted    = 126
	statusNotFound      = 127
	statusSignalledFrom = 128
)

// launcher forks all jobs from one OS thread that lives until they are gone.
// The kernel sends a child its parent-death signal when the *thread* that forked
// it ends, and the Go runtime ends threads as it likes, save one that a
// goroutine is locked to.
func (s *Supervisor) launcher(launch <-chan *job) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for j := range launch {
		m, err := s.spawn(j)
		if err != nil {
			m = message{input: Input{Event: Failed, Job: j.index, Status: startStatus(err)}, err: err}
		}
		s.messages <- m
		if err != nil {
			continue
		}
		close(m.sent)
		if err := s.writeRecord(); err != nil {
			s.log.Warn("should the agent die, the next one will not know this job", "job", j.Name, "error", err)
		}
		s.group.Go(func() { s.await(j, m.process, m.kin) })
	}
}

func startStatus(err error) int {
	if errors.Is(err, fs.ErrNotExist) {
		return statusNotFound
	}
	return statusNotStarted
}

// spawn starts the job's first process, its output's pumps and who waits for its
// readiness.
func (s *Supervisor) spawn(j *job) (message, error) {
	path, err := lookPath(j.Command[0], j.Dir, j.env)
	if err != nil {
		return message{}, err
	}
	o, err := j.open(s.stall)
	defer o.closeTheirs()
	if err == nil {
		err = o.openContents()
	}
	if err == nil {
		err = o.openReadiness(s.run)
	}
	if err != nil {
		o.closeOurs()
		return message{}, fmt.Errorf("start job %s: %w", j.Name, err)
	}
	attr := &os.ProcAttr{
		Dir: j.Dir, Env: append(s.put(j.more()), o.env...), Files: o.files,
		Sys: &unix.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL, Credential: j.User.Credential(), Ptrace: j.Limits.set()},
	}
	process, err := s.fork(j, path, attr)
	if err == nil && j.Limits.set() {
		if err = j.Limits.apply(process); err != nil { // it is killed
			_, _ = process.Wait() // how it ended is known
			s.forget(j, process)
		}
	}
	if err != nil {
		o.closeOurs()
		return message{}, err
	}
	m := message{
		input: Input{Event: Started, Job: j.index}, process: process, streams: o, sent: make(chan struct{}),
		kin: &kin{job: j.index, name: j.Name, pid: process.Pid},
	}
	o.start(&s.group, func() {
		<-m.sent // a quick job is ready before anyone knows that it was started
		s.send(message{input: Input{Event: Ready, Job: j.index}, run: process})
	})
	if p, ok := proctree.Lookup(process.Pid); ok {
		m.kin.start = p.Start
	}
	return m, nil
}

// more is the environment of a run that starts now.
func (j *job) more() []string {
	if j.More == nil {
		return j.env
	}
	return JobEnv(j.env, j.More())
}

// fork starts the process unless the fence is up, and makes it known.
func (s *Supervisor) fork(j *job, path string, attr *os.ProcAttr) (*os.Process, error) {
	s.births.Lock()
	defer s.births.Unlock()
	s.forking.Store(true)
	defer s.forking.Store(false)
	if s.fenced.Load() {
		return nil, ErrKilled
	}
	process, err := os.StartProcess(path, j.Command, attr)
	if err != nil {
		return nil, fmt.Errorf("start job %s: %w", j.Name, err)
	}
	s.pids.Lock()
	s.first[process.Pid] = j
	s.pids.Unlock()
	j.mu.Lock()
	j.process = process
	j.mu.Unlock()
	return process, nil
}

// await collects the job's first process.
func (s *Supervisor) await(j *job, process *os.Process, k *kin) {
	awaitEnd(process.Pid)
	state, err := process.Wait()
	status := statusNotStarted
	if err == nil {
		ws := state.Sys().(syscall.WaitStatus)
		status = ws.ExitStatus()
		if ws.Signaled() {
			status = statusSignalledFrom + int(ws.Signal())
		}
	} else {
		s.log.Error("the exit status of a job is lost", "job", j.Name, "error", err)
	}
	s.forget(j, process)
	s.census.ended(k, status)
}

// awaitEnd returns when a child has ended, without collecting it. It holds no thread
// meanwhile, as Wait would for each job (50 KiB). Where the kernel does not let it, it
// returns at once.
func awaitEnd(pid int) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	defer func() { _ = file.Close() }()
	conn, err := file.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Read(func(fd uintptr) bool {
		ended, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return ended > 0 || err != nil && err != unix.EINTR
	})
}

// forget takes a first process that was collected off the books.
func (s *Supervisor) forget(j *job, process *os.Process) {
	j.mu.Lock()
	j.process = nil
	j.mu.Unlock()
	s.pids.Lock()
	delete(s.first, process.Pid)
	s.pids.Unlock()
}

// pathOf is the PATH of an environment, or the usual one.
func pathOf(env []string) string {
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			path = value
		}
	}
	return path
}

// lookPath finds the command in the PATH that the job will have. A relative
// entry or command counts from the job's directory.
func lookPath(command, dir string, env []string) (string, error) {
	if strings.Contains(command, "/") {
		return command, nil
	}
	found := fs.ErrNotExist
	for _, entry := range filepath.SplitList(pathOf(env)) {
		full := filepath.Join(entry, command)
		probe := full
		if !filepath.IsAbs(full) {
			full = "./" + full
			probe = filepath.Join(dir, full)
		}
		info, err := os.Stat(probe)
		if err != nil || info.IsDir() {
			continue
		}
		if info.Mode()&0o111 != 0 {
			return full, nil
		}
		found = fs.ErrPermission
	}
	return "", fmt.Errorf("find %q in PATH: %w", command, found)
}
