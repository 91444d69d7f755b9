package supervise

import "time"

func (m *machine) take(in Input) {
	switch in.Event {
	case Start:
		m.start()
	case Stop:
		m.goDown()
	case Kill:
		m.die()
	case Tick:
		m.tick()
	case Open:
		m.Shut = false
	case Happened:
		m.happened(in.Name, in.Source)
	default:
		if !m.Jobs[in.Job].Gone {
			m.takeOf(in)
		}
	}
}

// takeOf takes what concerns one job.
func (m *machine) takeOf(in Input) {
	i, job := in.Job, &m.Jobs[in.Job]
	switch in.Event {
	case Started:
		m.started(i)
	case Failed:
		if job.Phase == Starting {
			job.Status, job.Since = in.Status, m.now
			m.ended(i)
		}
	case Exited:
		m.exited(in)
	case Cleared:
		if job.Phase == Clearing || job.Phase == Killing {
			m.ended(i)
		}
	case Ready:
		m.ready(i)
	case Healthy, Unhealthy:
		m.health(i, in.Event == Healthy)
	case Turn:
		m.turn(i)
	case StartJob:
		m.startByHand(i)
	case StopJob:
		m.stopJob(i, ThenHeld)
	case RestartJob:
		m.stopJob(i, ThenAgain)
	case Change:
		m.stopJob(i, ThenReplace)
	case Remove:
		m.stopJob(i, ThenRemove)
	case Replaced:
		if !job.Phase.lives() {
			m.begin(i)
		}
	case Drained:
		if job.Phase == Draining {
			m.signalStop(i)
		}
	case StopFailed:
		if job.Phase == Stopping {
			m.do(Action{Act: Signal, Job: i, Signal: m.specs[i].StopSignal})
		}
	}
}

func (m *machine) start() {
	for i := range m.Jobs {
		m.arm(i)
	}
	m.tell(EventStartup)
}

// arm sets the first turn of a job that runs at an interval.
func (m *machine) arm(i int) {
	if every := m.specs[i].Every; every > 0 {
		m.Jobs[i].Next = m.now + every
	}
}

// begin makes a job what it was never before.
func (m *machine) begin(i int) {
	m.Jobs[i] = JobState{}
	m.arm(i)
}

func (m *machine) spawn(i int) {
	job := &m.Jobs[i]
	job.Phase, job.Pending, job.Ready, job.TimedOut = Starting, false, false, false
	job.Hooked, job.Held, job.Asked = false, false, false
	m.do(Action{Act: Spawn, Job: i})
}

func (m *machine) started(i int) {
	job, spec := &m.Jobs[i], &m.specs[i]
	if job.Phase != Starting {
		return
	}
	job.Phase, job.Since, job.Over, job.ReadyBy = Running, m.now, 0, 0
	if m.Mode == Dead {
		m.kill(i)
		return
	}
	if limit := spec.limit(m.Mode); limit > 0 {
		job.Over = m.now + limit
	}
	if spec.TellsReady && spec.ReadyLimit > 0 {
		job.ReadyBy = m.now + spec.ReadyLimit
	}
	job.Reached |= WasStarted
	m.emit(EventStarted, i)
	if !spec.TellsReady {
		m.ready(i)
	}
}

func (m *machine) ready(i int) {
	job := &m.Jobs[i]
	if job.Phase != Running || job.Ready {
		return
	}
	job.Ready, job.ReadyBy = true, 0
	job.Reached |= WasReady
	m.emit(EventReady, i)
}

func (m *machine) health(i int, good bool) {
	if m.Jobs[i].Phase != Running {
		return
	}
	if good {
		m.Jobs[i].Reached |= WasHealthy
		m.emit(EventHealthy, i)
		return
	}
	m.emit(EventUnhealthy, i)
}

func (m *machine) exited(in Input) {
	job := &m.Jobs[in.Job]
	switch job.Phase {
	case Running, Draining, Stopping, Killing:
	default:
		return
	}
	job.Status, job.Ready = in.Status, false
	if !in.Left {
		m.ended(in.Job)
		return
	}
	if m.specs[in.Job].KillRest {
		m.kill(in.Job)
		return
	}
	// The rest gets the same signal and grace: the first process may have been
	// a shell that died of the signal while the application still shuts down.
	switch job.Phase {
	case Running, Draining:
		job.Due = m.now + m.specs[in.Job].StopGrace
		fallthrough
	case Stopping:
		job.Phase = Clearing
		m.do(Action{Act: SignalRest, Job: in.Job, Signal: m.specs[in.Job].StopSignal})
	}
}

// ended decides what follows when all of a job is gone.
func (m *machine) ended(i int) {
	job, spec := &m.Jobs[i], &m.specs[i]
	told, ran := job.Told, job.Phase.lives()
	job.Ready, job.Over, job.ReadyBy = false, 0, 0
	if job.TimedOut {
		job.Status = statusTimedOut
	}
	job.Phase = m.restingPhase(i)
	if ran && !told && job.Phase != Waiting {
		job.Reached |= HasCompleted
	}
	if ran && job.Status == 0 {
		job.Reached |= HasSucceeded
	}
	if ran {
		m.emit(EventExit, i) // also of what was killed: who watches the job must hear of it
		switch {
		case m.Mode == Dead:
		case job.Asked && !job.TimedOut:
			m.emit(EventStopped, i)
		case job.Status == 0:
			m.emit(EventSucceeded, i)
		default:
			m.emit(EventFailed, i)
		}
	}
	if job.Phase == Ended && spec.Main && !told {
		m.goDown()
	}
	m.follow(i)
}

// restingPhase is where a job is between its runs.
func (m *machine) restingPhase(i int) Phase {
	job, spec := &m.Jobs[i], &m.specs[i]
	switch {
	case m.Mode != Up:
		if m.Mode == Down && (spec.hook() || job.Pending) {
			return Idle
		}
		return Ended
	case job.Told:
		return Ended // follow says what comes then
	case m.again(i):
		if m.longUp(i) {
			job.Restarts = 0
		}
		job.Due = m.now + m.delay(i)
		job.Restarts++
		return Waiting
	}
	if spec.timed() || spec.hook() || len(spec.On) > 0 || job.Pending {
		job.Restarts = 0
		return Idle
	}
	return Ended
}

// follow starts the hooks after the end of a job that is not started again, and does
// what was to follow a stop.
func (m *machine) follow(i int) {
	job := &m.Jobs[i]
	if job.Phase == Waiting {
		return
	}
	if m.Mode == Up || m.Mode == Down {
		job.Closing = m.runHooks(i, func(s *Spec) []int { return s.AfterStop })
	}
	if !job.Told {
		return
	}
	then := job.Then
	job.Told, job.Then, job.Hooked = false, ThenPolicy, false
	if m.Mode != Up {
		return
	}
	switch then {
	case ThenHeld:
		job.Held = true
	case ThenAgain:
		job.Phase, job.Pending, job.Forced = Idle, true, true
	case ThenReplace:
		job.Changing = true
		m.do(Action{Act: Replace, Job: i})
	case ThenRemove:
		job.Gone = true
		m.do(Action{Act: Replace, Job: i})
	}
}

// runHooks marks the runs that belong to the end of job i, and says whether there are any.
func (m *machine) runHooks(i int, of func(*Spec) []int) bool {
	any := false
	for h := range m.specs {
		if !m.Jobs[h].Gone && contains(of(&m.specs[h]), i) && (m.Jobs[h].Phase == Idle || m.Jobs[h].Phase.lives()) {
			m.Jobs[h].Pending, any = true, true
		}
	}
	return any
}

// hooksLive says whether a run that belongs to the end of job i is due or under way.
func (m *machine) hooksLive(i int, of func(*Spec) []int) bool {
	for h := range m.specs {
		if job := &m.Jobs[h]; contains(of(&m.specs[h]), i) && (job.Phase.lives() || job.Phase == Idle && job.Pending) {
			return true
		}
	}
	return false
}

func contains(list []int, i int) bool {
	for _, have := range list {
		if have == i {
			return true
		}
	}
	return false
}

func (m *machine) again(i int) bool {
	job, restart := &m.Jobs[i], &m.specs[i].Restart
	wanted := restart.Policy == Always || restart.Policy == OnFailure && job.Status != 0
	return wanted && (restart.Count == 0 || m.longUp(i) || job.Restarts < restart.Count)
}

func (m *machine) longUp(i int) bool {
	return m.now-m.Jobs[i].Since >= orDefault(m.specs[i].Restart.Reset, defaultReset)
}

// delay is the back-off with a jitter of up to a fifth either way, so that jobs
// that failed together do not come back together.
func (m *machine) delay(i int) time.Duration {
	restart := &m.specs[i].Restart
	delay, longest := orDefault(restart.Delay, defaultDelay), orDefault(restart.Max, defaultMax)
	for n := 0; n < m.Jobs[i].Restarts && delay < longest; n++ {
		delay *= 2
	}
	delay = min(delay, longest)
	if m.Seed == 0 {
		return delay
	}
	// splitmix64 (Steele, Lea, Flood 2014), one step per use.
	m.Seed += 0x9e3779b97f4a7c15
	z := m.Seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	const steps = 1000
	fifth := delay / 5
	return delay - fifth + 2*fifth/steps*time.Duration(z%steps)
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

func (m *machine) startByHand(i int) {
	job := &m.Jobs[i]
	if m.Mode != Up || job.Told {
		return
	}
	switch job.Phase {
	case Idle, Waiting, Ended:
		job.Phase, job.Pending, job.Forced, job.Restarts = Idle, true, true, 0
	}
}

// stopJob asks one job to stop while the others go on.
func (m *machine) stopJob(i int, then Then) {
	job := &m.Jobs[i]
	if m.Mode != Up {
		return
	}
	if job.Told && job.Then >= ThenReplace && then < ThenReplace {
		return // what a new configuration says stands
	}
	job.Told, job.Then = true, then
	job.Pending = false
	if !job.Phase.lives() {
		m.ended(i)
	}
}

// turn is the time of a run; one that still runs misses it.
func (m *machine) turn(i int) {
	if job := &m.Jobs[i]; m.Mode == Up && job.Phase == Idle && !job.Told {
		job.Pending = true
	}
}

func (m *machine) goDown() {
	if m.Mode != Up {
		return
	}
	m.Mode = Down
	for i := range m.Jobs {
		job := &m.Jobs[i]
		job.Pending = false // what was due is not any more
		if job.Phase == Running && job.Over == 0 && m.endsItself(i) {
			job.Over = m.now + hookLimit
		}
	}
	m.tell(EventShutdown)
	m.startNone()
}

// die: whatever lives is being killed already; no job starts any more.
func (m *machine) die() {
	m.Mode = Dead
	for i := range m.Jobs {
		job := &m.Jobs[i]
		job.Pending, job.Closing = false, false
		switch job.Phase {
		case Running, Draining, Stopping, Clearing:
			m.kill(i)
		case Idle, Waiting:
			job.Phase = Ended
		}
	}
}

// startNone: what does not run will not, but for what belongs to the end.
func (m *machine) startNone() {
	for i := range m.Jobs {
		job := &m.Jobs[i]
		if job.Phase == Waiting || job.Phase == Idle && !job.Pending && !m.specs[i].hook() {
			job.Phase = Ended
		}
	}
}

func (m *machine) kill(i int) {
	m.Jobs[i].Phase = Killing
	m.do(Action{Act: KillJob, Job: i})
}

// ask tells that a job that runs is to end, and asks it when others know.
func (m *machine) ask(i int) {
	job, spec := &m.Jobs[i], &m.specs[i]
	job.Asked = true
	m.emit(EventStopping, i)
	if spec.Drain > 0 {
		job.Phase, job.Due = Draining, m.now+spec.Drain
		return
	}
	m.signalStop(i)
}

func (m *machine) signalStop(i int) {
	job, spec := &m.Jobs[i], &m.specs[i]
	job.Phase, job.Due = Stopping, m.now+spec.StopGrace
	if spec.StopBy {
		m.do(Action{Act: RunStop, Job: i})
		return
	}
	m.do(Action{Act: Signal, Job: i, Signal: spec.StopSignal})
}

func (m *machine) tick() {
	for i := range m.Jobs {
		job, spec := &m.Jobs[i], &m.specs[i]
		switch job.Phase {
		case Draining:
			if m.now >= job.Due {
				m.signalStop(i)
			}
		case Stopping, Clearing:
			if m.now >= job.Due {
				m.kill(i)
			}
		case Waiting:
			if m.now >= job.Due && m.Mode == Up {
				m.spawn(i)
			}
		case Running:
			if job.Over > 0 && m.now >= job.Over || job.ReadyBy > 0 && m.now >= job.ReadyBy {
				job.TimedOut, job.Over, job.ReadyBy = true, 0, 0
				m.ask(i)
			}
		}
		if m.Mode == Up && spec.Every > 0 && job.Next > 0 && m.now >= job.Next {
			// Turns that were missed while the machine slept are not made up for.
			job.Next += spec.Every
			if job.Next <= m.now {
				job.Next = m.now + spec.Every
			}
			m.turn(i)
		}
	}
}
