package protocol

import "fmt"

// jobState is what we know of the jobs of this instance.
type jobState int

const (
	jobsOff jobState = iota
	jobsOn
	jobsEnding // asked to stop, or killed
)

type jobs struct {
	state  jobState
	asked  int // StopJobs and KillJobs that are not answered yet
	killed bool
}

func (j *jobs) alive() bool { return j.state != jobsOff }

func (m *Machine) actStartJobs() bool {
	o := m.own
	if o == nil || !o.ready || m.jobs.alive() || m.cfg.Detached || m.stop != nil || m.fault != "" {
		return false
	}
	if m.strict() && m.now >= o.deadline {
		return false // a renewal is due first
	}
	m.jobs, m.yields = jobs{state: jobsOn}, 0
	if !m.broken(CopyUsed) {
		m.copied = copied{}
	}
	m.local.FilesPresent = true
	m.emit(StartJobs{})
	return true
}

func (m *Machine) stopJobs() {
	m.jobs.state = jobsEnding
	m.jobs.asked++
	m.emit(StopJobs{})
}

func (m *Machine) killJobs(reason string) {
	if !m.jobs.alive() || m.jobs.killed {
		return
	}
	m.jobs.state, m.jobs.killed = jobsEnding, true
	m.jobs.asked++
	m.emit(KillJobs{Reason: reason})
}

// takeExited: a main job that ends by itself ends the instance, in order.
func (m *Machine) takeExited(in JobsExited) {
	if !in.Main && m.jobs.asked > 0 {
		m.jobs.asked--
		if m.jobs.asked == 0 {
			m.jobs = jobs{}
		}
		return
	}
	if m.jobs.state == jobsOn {
		m.jobs = jobs{}
		if m.stop != nil && m.stop.handOver != 0 {
			m.endHandOver(ErrStopping)
		}
		m.beginStop(&stopping{})
	}
}

// renewed moves the lease on: a write of the head that was sent then has landed.
func (m *Machine) renewed(sent Time) {
	o := m.own
	if o == nil {
		return
	}
	if m.broken(DeadlineOnAnswer) {
		sent = m.now
	}
	o.renewed = max(o.renewed, sent)
	o.deadline = o.renewed + m.cfg.TTL - m.cfg.Margin
}

func (m *Machine) renewDue() Time { return m.own.renewed + m.cfg.TTL/3 }

// actRenew writes the head anew with nothing changed but the write id.
func (m *Machine) actRenew() bool {
	if m.own == nil || m.write != nil || m.fault != "" || m.now < m.renewDue() && !m.proofWanted() {
		return false
	}
	m.startWrite(renewWrite, m.ownHead())
	return true
}

// actFence kills the jobs under strict before anybody else may claim.
func (m *Machine) actFence() bool {
	if !m.strict() || m.own == nil || !m.jobs.alive() || m.jobs.killed || m.now < m.own.deadline {
		return false
	}
	m.killJobs("the lease could not be renewed in time (fence: strict)")
	return true
}

// depose: another one holds. The jobs die first; nothing is deleted; what was
// not committed is kept by actSettle, and then we are a standby.
func (m *Machine) depose(s *Seen, sent Time) {
	m.deposed = fmt.Sprintf("%s took the volume over in epoch %d", s.Head.Holder.ID, s.Head.Epoch)
	if m.own != nil && s.Head.Epoch == m.own.epoch {
		m.deposed = fmt.Sprintf("a twin of this instance writes in epoch %d: a cloned disk, or a machine that was rolled back", s.Head.Epoch)
	}
	if !m.broken(NoKill) {
		m.killJobs(m.deposed)
	}
	m.own, m.write, m.intent, m.watch = nil, nil, nil, Watch{}
	m.failAll(fmt.Errorf("%w: %s", ErrDeposed, m.deposed))
	m.cancelWork()
	if m.lock.id != "" {
		m.dropLock()
	}
	err := fmt.Errorf("%w: %s", ErrDeposed, m.deposed)
	if m.cfg.Detached {
		m.seen = s
		m.exit(err)
		return
	}
	m.observe(s, sent)
	if m.stop != nil {
		m.stop.err = err
	}
}
