package supervise

// State tells what the named job is doing, for status: "waiting" (not started,
// or between restarts, or unknown) or "running", and the PID of its first process.
func (s *Supervisor) State(name string) (state string, pid int) {
	for _, j := range s.jobs {
		if j.Name != name {
			continue
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.process != nil {
			return "running", j.pid
		}
	}
	return "waiting", 0
}
