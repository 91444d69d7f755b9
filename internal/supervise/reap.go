package supervise

import (
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

// reapEvery is the least time between two readings of the process table, for
// jobs that shed orphans by the thousand.
const reapEvery = 50 * time.Millisecond

// reaper collects the orphans that jobs leave to us, until all jobs are gone. It
// must not take what somebody waits for: the first processes of jobs (in
// s.first), and whatever else the agent executes (in the agent's session).
func (s *Supervisor) reaper() {
	killer, err := proctree.NewKiller()
	if err != nil {
		s.log.Error("orphans will not be reaped", "error", err)
		return
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	defer signal.Stop(children)
	for {
		s.reap(killer)
		pause := time.NewTimer(reapEvery)
		select {
		case <-s.finished:
			pause.Stop()
			s.reap(killer)
			return
		case <-pause.C:
		}
		select {
		case <-s.finished:
			s.reap(killer)
			return
		case <-children:
		}
	}
}

func (s *Supervisor) reap(killer *proctree.Killer) {
	s.births.Lock()
	defer s.births.Unlock()
	_, err := killer.ReapZombies(func(p *proctree.Proc) bool {
		return p.Session != killer.Self().Session && !s.isFirst(p.PID)
	})
	if err != nil {
		s.log.Error("orphans were not reaped", "error", err)
	}
}
