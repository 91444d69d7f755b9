package protocol

import (
	"errors"
	"fmt"
)

// stage is how far the stopping of a holder has come.
type stage int

const (
	stageRunning stage = iota // a commit while the jobs still run, so that the last one is small
	stageJobs                 // the jobs end
	stageDelta                // the last commit
	stageRelease
)

type stopping struct {
	stage     stage
	limited   bool
	half      Time // from then on the jobs are stopped, commit or not
	deadline  Time
	want      bool // a commit is to be begun
	commitErr error
	err       error  // what Exit will say
	handOver  uint64 // the request to become a standby; 0: this is the end
}

func (m *Machine) takeStop(in StopWanted) {
	deadline, half := m.now+in.Grace, m.now+in.Grace/2
	if in.Running > 0 {
		half = min(half, m.now+in.Running)
	}
	if m.stop == nil {
		m.beginStop(&stopping{limited: true, half: half, deadline: deadline, want: m.cfg.FinalCommit})
		return
	}
	s := m.stop
	if s.handOver != 0 {
		m.reply([]uint64{s.handOver}, m.headSeen(), ErrStopping)
		s.handOver, s.limited = 0, false
	}
	if !s.limited || deadline < s.deadline {
		s.limited, s.half, s.deadline = true, half, deadline
	}
}

func (m *Machine) beginStop(s *stopping) {
	if m.stop != nil {
		return
	}
	m.stop = s
	if m.broken(ReleaseUncaptured) && m.jobs.alive() {
		return
	}
	if !m.jobs.alive() {
		s.stage, s.want = stageDelta, m.cfg.FinalCommit || s.handOver != 0
	}
}

func (m *Machine) actStop() bool {
	s := m.stop
	switch {
	case s == nil:
		return false
	case s.handOver != 0 && m.own == nil:
		return m.endHandOver(ErrDeposed)
	case s.handOver != 0 && m.now >= s.deadline:
		return m.lateHandOver()
	case s.limited && m.now >= s.deadline:
		m.giveUp()
		return true
	case m.own == nil:
		return m.stopStandby()
	case !m.own.ready:
		return !m.own.keep && m.stopUnready()
	}
	switch s.stage {
	case stageRunning:
		return m.stopRunning()
	case stageJobs:
		return m.stopStage()
	case stageDelta:
		return m.stopDelta()
	}
	return m.release(ErrStopping)
}

// settledCommits says whether no commit is under way or wanted.
func (m *Machine) settledCommits() bool {
	return m.commit == nil && len(m.waiting) == 0 && !m.stop.want
}

// stopRunning: the store being away must not eat the time that the jobs need to
// stop, hence the half.
func (m *Machine) stopRunning() bool {
	s := m.stop
	if m.jobs.state == jobsOn && m.fault == "" && !(s.limited && m.now >= s.half) && !m.settledCommits() {
		return false
	}
	s.stage = stageJobs
	return true
}

func (m *Machine) stopStage() bool {
	s := m.stop
	switch m.jobs.state {
	case jobsOn:
		m.stopJobs()
	case jobsEnding:
		return false
	case jobsOff:
		s.stage, s.commitErr = stageDelta, nil
		s.want = (m.cfg.FinalCommit || s.handOver != 0) && !m.broken(ReleaseUncaptured)
	}
	return true
}

func (m *Machine) stopDelta() bool {
	s := m.stop
	switch {
	case s.commitErr != nil && s.handOver != 0:
		return m.endHandOver(fmt.Errorf("%w: last commit: %w", ErrUnfinished, s.commitErr))
	case s.commitErr != nil:
		s.err = fmt.Errorf("%w: last commit: %w", ErrUnfinished, s.commitErr)
		m.giveUp()
		return true
	case !m.settledCommits():
		return false
	}
	s.stage = stageRelease
	return true
}

// release gives the head back; whoever comes next need not wait. Requests end with err.
func (m *Machine) release(err error) bool {
	if m.write != nil || m.fault != "" {
		return false
	}
	m.failAll(err)
	h := m.ownHead()
	h.State, h.Holder.Lock = Released, ""
	m.startWrite(releaseWrite, h)
	return true
}

func (m *Machine) released() {
	m.own = nil
	if m.lock.id != "" {
		m.dropLock()
	}
	switch {
	case m.stop == nil:
		m.yielded()
		return
	case m.stop.handOver != 0:
		m.handedOver()
		return
	}
	m.exit(m.stop.err)
}

// leftBehind says whether a former life that ended without release left files
// here that a last commit can still save.
func (m *Machine) leftBehind() bool {
	return m.cfg.FinalCommit && m.seen != nil && m.seen.Head.State == Held && m.keepable()
}

// stopUnready: the claim has landed, but no job has run under it.
func (m *Machine) stopUnready() bool {
	if m.work.busy() {
		return m.cancelWork()
	}
	return m.recording == nil && m.release(ErrStopping)
}

// stopStandby waits for what must not be left half done: a claim that may yet
// land, jobs that are being killed, used files that are being saved.
func (m *Machine) stopStandby() bool {
	if m.following() && !m.work.cancelled {
		return m.cancelWork()
	}
	busy := m.write != nil || m.jobs.alive() || m.work.busy() || m.recording != nil || m.lock.taking
	if m.fault == "" && (busy || m.mustSettle() || m.leftBehind()) {
		return false
	}
	if m.lock.id != "" {
		m.dropLock()
	}
	m.exit(m.stop.err)
	return true
}

// giveUp ends with what is missing: the head stays held, the record says so, and
// the next life on this disk goes on from there.
func (m *Machine) giveUp() {
	s := m.stop
	m.killJobs("the time to stop is over")
	err := s.err
	if m.own != nil && err == nil {
		err = fmt.Errorf("%w: %s", ErrUnfinished, m.missing())
	}
	if m.own == nil && m.write != nil {
		err = errors.Join(err, fmt.Errorf("%w: a claim may yet reach the store", ErrUnfinished))
	}
	if m.own == nil && m.leftBehind() {
		err = errors.Join(err, fmt.Errorf("%w: the files here are newer than the newest snapshot, and stay", ErrUnfinished))
	}
	if m.own == nil && m.mustSettle() {
		err = errors.Join(err, fmt.Errorf("%w: local changes are not kept as a diverged snapshot yet", ErrUnfinished))
	}
	m.failAll(ErrStopping)
	m.exit(err)
}

func (m *Machine) missing() string {
	switch {
	case m.fault != "":
		return m.fault
	case m.stop.stage < stageRelease && m.own.ready:
		return "the last commit did not reach the store"
	}
	return "the release did not reach the store"
}
