package supervise

// advance does everything that the state allows: it starts what may start, stops what
// may be stopped, and ends the machine when nothing will do anything any more.
func (m *machine) advance() {
	for changed := true; changed; {
		changed = false
		for i := range m.Jobs {
			if m.startOne(i) || m.giveUpOn(i) || m.stopTold(i) || m.close(i) {
				changed = true
			}
		}
		if m.Mode == Down && m.stopSome() {
			changed = true
		}
		if m.Mode == Up && m.over() {
			m.goDown()
			changed = true
		}
	}
	m.settle()
}

// startOne starts job i if it is to run and may.
func (m *machine) startOne(i int) bool {
	job, spec := &m.Jobs[i], &m.specs[i]
	if job.Gone || job.Phase != Idle || m.Mode > Down {
		return false
	}
	if !job.Pending && (!spec.plain() || m.Mode == Down) {
		return false
	}
	if !job.Forced && m.Mode == Up && (m.Shut && !spec.Early || !m.mayStart(i)) {
		return false
	}
	job.Forced = false
	m.spawn(i)
	return true
}

func (m *machine) mayStart(i int) bool {
	for _, a := range m.specs[i].After {
		if m.Jobs[a.Job].Reached&a.Is == 0 {
			return false
		}
	}
	return true
}

// giveUpOn ends a job that waits for what cannot come any more.
func (m *machine) giveUpOn(i int) bool {
	job, spec := &m.Jobs[i], &m.specs[i]
	if job.Gone || job.Phase != Idle || m.Mode != Up || !spec.plain() || job.Told || job.Forced {
		return false
	}
	for _, a := range spec.After {
		on := &m.Jobs[a.Job]
		if on.Reached&a.Is != 0 || !on.Gone && on.Phase != Ended || on.Held {
			continue
		}
		job.Status = on.Status
		if job.Status == 0 {
			job.Status = statusNeverStarted
		}
		m.do(Action{Act: NeverStarts, Job: i, Source: m.specs[a.Job].Name})
		job.Phase = Ended
		m.emit(EventFailed, i)
		if spec.Main {
			m.goDown()
		}
		return true
	}
	return false
}

// stopTold asks a job that is to stop by itself, once the hooks before its stop have run.
func (m *machine) stopTold(i int) bool {
	job := &m.Jobs[i]
	if m.Mode != Up || !job.Told || job.Phase != Running {
		return false
	}
	return m.hookedStop(i)
}

// close notes that the hooks after the end of job i have ended.
func (m *machine) close(i int) bool {
	if !m.Jobs[i].Closing || m.hooksLive(i, func(s *Spec) []int { return s.AfterStop }) {
		return false
	}
	m.Jobs[i].Closing = false
	return true
}

// hookedStop runs the hooks before the stop of job i, and asks it when they have ended.
func (m *machine) hookedStop(i int) bool {
	job := &m.Jobs[i]
	before := func(s *Spec) []int { return s.BeforeStop }
	if !job.Hooked {
		job.Hooked = true
		if m.runHooks(i, before) {
			return true
		}
	}
	if m.hooksLive(i, before) {
		return false
	}
	m.ask(i)
	return true
}

// stopSome asks all jobs to end that no other needs any more: the reverse of the
// start. Who came after another goes before it; what has nothing to do with the main
// job goes after it. The others go at once.
func (m *machine) stopSome() bool {
	needed := m.needed()
	changed := false
	for i := range m.Jobs {
		if m.Jobs[i].Phase == Running && !needed[i] && !m.endsItself(i) {
			changed = m.hookedStop(i) || changed
		}
	}
	return changed
}

// endsItself says whether the end of the instance waits for job i, which runs as a
// part of it, until its limit.
func (m *machine) endsItself(i int) bool {
	spec := &m.specs[i]
	return spec.hook() || anyMatches(spec.On, EventShutdown, "") || anyMatches(spec.Once, EventShutdown, "")
}

// standing says whether job i, or a hook after its end, is not gone yet.
func (m *machine) standing(i int) bool {
	return m.Jobs[i].Phase.lives() || m.Jobs[i].Closing
}

// needed tells of each job whether it must stay while others end.
func (m *machine) needed() []bool {
	needed := make([]bool, len(m.Jobs))
	main := -1
	for i := range m.Jobs {
		if m.specs[i].Main && !m.Jobs[i].Gone {
			main = i
		}
		if !m.standing(i) {
			continue
		}
		for _, a := range m.specs[i].After {
			needed[a.Job] = true
		}
	}
	if main < 0 || !m.standing(main) {
		return needed
	}
	before := m.comeAfter(main)
	for i := range m.Jobs {
		needed[i] = needed[i] || i != main && !before[i]
	}
	return needed
}

// comeAfter tells which jobs start after job i, by whatever way round.
func (m *machine) comeAfter(i int) []bool {
	after := make([]bool, len(m.Jobs))
	for changed := true; changed; {
		changed = false
		for j := range m.Jobs {
			for _, a := range m.specs[j].After {
				if !after[j] && (a.Job == i || after[a.Job]) {
					after[j], changed = true, true
				}
			}
		}
	}
	return after
}

// over says whether the instance has nothing left to do. Jobs that have turns keep it,
// and so do those that wait for an event, if there are no others.
func (m *machine) over() bool {
	if m.Shut {
		return false
	}
	plain, waiting := false, false
	for i := range m.Jobs {
		job, spec := &m.Jobs[i], &m.specs[i]
		if job.Gone {
			continue
		}
		switch {
		case job.Phase.lives(), job.Phase == Waiting, job.Pending, job.Closing, job.Held, job.Changing:
			return false
		case spec.timed():
			return false
		case spec.plain():
			plain = true
			if job.Phase != Ended {
				return false
			}
		case spec.caused() && job.Phase == Idle:
			waiting = true
		}
	}
	return plain || !waiting
}

// settle ends the machine when no job will do anything any more.
func (m *machine) settle() {
	if m.Mode == Up || m.Mode == Settled {
		return
	}
	for i := range m.Jobs {
		job := &m.Jobs[i]
		if job.Phase.lives() || job.Phase == Waiting || job.Closing || job.Phase == Idle && job.Pending {
			return
		}
	}
	for i := range m.Jobs {
		m.Jobs[i].Phase = Ended
	}
	m.Mode = Settled
	m.do(Action{Act: Finish, Status: m.status()})
}

// status is the main job's; without one, that of the first plain job that failed.
func (m *machine) status() int {
	first := 0
	for i := range m.Jobs {
		if m.Jobs[i].Gone {
			continue
		}
		if m.specs[i].Main {
			return m.Jobs[i].Status
		}
		if first == 0 && m.specs[i].plain() {
			first = m.Jobs[i].Status
		}
	}
	return first
}
