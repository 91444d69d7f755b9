package supervise

// State tells what the named job is doing, for status: "waiting" (not started,
// between restarts, or unknown), "running", "stopping" or "exited"; and the PID
// of its first process, 0 if there is none.
func (s *Supervisor) State(name string) (state string, pid int) {
	for _, j := range s.jobs {
		if j.Name != name {
			continue
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.process != nil {
			pid = j.process.Pid
		}
		switch j.phase {
		case Running:
			return "running", pid
		case Stopping, Clearing, Killing:
			return "stopping", pid
		case Ended:
			return "exited", pid
		}
		return "waiting", pid
	}
	return "waiting", 0
}
