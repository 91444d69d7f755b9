package supervise

import (
	"fmt"
	"time"

	"drover/internal/proctree"
)

// Kill is the fence: SIGKILL to every process of every job at once. It returns
// when all of them are dead, and none starts after it; it may be called at any
// time, from any goroutine, more than once. A process in an uninterruptible
// sleep is not dead, and Kill waits for it. The one error is a process that runs
// as somebody whom we may not signal (a set-user-ID program under an
// unprivileged agent).
func (s *Supervisor) Kill() error {
	s.fenced.Store(true)
	s.killOnce.Do(func() { close(s.killed) })
	s.fence.Lock()
	defer s.fence.Unlock()
	for {
		// Read before the table: a fork that is over by now is in it.
		forking := s.forking.Load()
		_, err := s.killer.Kill(s.isJobs)
		if err != nil {
			return fmt.Errorf("kill jobs: %w", err)
		}
		if !forking {
			return nil
		}
		time.Sleep(forkPause)
	}
}

// forkPause is how long to wait before looking again for a process whose fork
// had begun before the fence. The fork ends as soon as the process is killed.
const forkPause = 200 * time.Microsecond

// isJobs tells whether a process is a child of ours that a job started: jobs get
// a session of their own, and no process can move into an existing session.
func (s *Supervisor) isJobs(p *proctree.Proc) bool {
	self := s.killer.Self()
	return p.PPID == self.PID && p.Session != self.Session
}

func (s *Supervisor) isFirst(pid int) bool {
	s.pids.Lock()
	defer s.pids.Unlock()
	return s.first[pid] != nil
}
