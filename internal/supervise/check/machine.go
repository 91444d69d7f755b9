package check

import "time"

// The state machine of one check: Step decides, the Runner does. Step has no
// clock and touches nothing; times are durations since the runner was made.

// Spec is what the machine needs to know of a check.
type Spec struct {
	Every       time.Duration
	StartPeriod time.Duration
	Threshold   int
}

// Health is what a check says of its job.
type Health uint8

const (
	Unknown Health = iota // the job does not run, or no probe has told yet
	Healthy
	Unhealthy
)

var healthNames = [...]string{"unknown", "healthy", "unhealthy"}

func (h Health) String() string { return healthNames[h] }

// Flight is what became of the last probe.
type Flight uint8

const (
	Landed Flight = iota // it has returned; none is under way
	Flying
	Stale // under way, but of an earlier run of the job: it does not count
	Lost  // it does not return: given up, and counted
)

var flightNames = [...]string{"landed", "flying", "stale", "lost"}

func (f Flight) String() string { return flightNames[f] }

// Track is the machine's whole state. Its zero value is where it begins.
type Track struct {
	Up       bool // the job runs
	Flight   Flight
	Health   Health
	Since    time.Duration // of Health
	Failures int           // in a row
	Strict   time.Duration // from when on failures count
	Next     time.Duration // when the next probe is due, if Up
	Seed     uint64        // of the jitter; 0: none
}

// Event is what happened.
type Event uint8

const (
	Start  Event = iota // the job runs, for the first time or again
	Stop                // the job is being stopped, or has ended
	Passed              // the probe returned: all is well
	Failed              // the probe returned an error
	Stuck               // the probe should have returned, and has not
	Tick                // time has passed
)

var eventNames = [...]string{"start", "stop", "passed", "failed", "stuck", "tick"}

func (e Event) String() string { return eventNames[e] }

// Action is what to do.
type Action uint8

const (
	Probe   Action = iota // begin a probe; Passed or Failed is to follow
	Cancel                // end the probe that is under way; its end is still to be told
	Changed               // Health is another than before
)

var actionNames = [...]string{"probe", "cancel", "changed"}

func (a Action) String() string { return actionNames[a] }

// Step returns the state after in and what is to be done. It does not change
// its arguments. An input that does not fit the state is ignored.
//
// No second probe is begun before the first has returned: a turn that comes
// meanwhile is dropped, or counted as one more failure if the probe is lost.
func Step(spec Spec, old Track, in Event, now time.Duration) (Track, []Action) {
	m := &machine{Track: old, spec: spec, now: now}
	switch in {
	case Start:
		m.start()
	case Stop:
		m.stop()
	case Passed, Failed:
		m.returned(in == Passed)
	case Stuck:
		m.stuck()
	case Tick:
		if m.Up && now >= m.Next {
			m.turn()
		}
	}
	return m.Track, m.actions
}

// Inherit is where a check begins that takes the place of one of the same name:
// it stands as the other stood until its own first probe, which is due now.
func (t Track) Inherit(now time.Duration) Track {
	t.Flight, t.Next = Landed, now
	return t
}

type machine struct {
	Track
	spec    Spec
	now     time.Duration
	actions []Action
}

func (m *machine) do(a Action) { m.actions = append(m.actions, a) }

func (m *machine) start() {
	m.stop()
	m.Up, m.Strict = true, m.now+m.spec.StartPeriod
	m.Next = m.now + m.interval()
	if m.Flight == Landed {
		m.probe()
	}
}

func (m *machine) stop() {
	m.Up, m.Failures = false, 0
	m.become(Unknown)
	if m.Flight == Flying {
		m.Flight = Stale
		m.do(Cancel)
	}
}

// turn is the time for a probe.
func (m *machine) turn() {
	m.Next = m.now + m.interval()
	switch m.Flight {
	case Landed:
		m.probe()
	case Lost:
		m.fail()
	}
}

func (m *machine) probe() {
	m.Flight = Flying
	m.do(Probe)
}

func (m *machine) returned(passed bool) {
	was := m.Flight
	m.Flight = Landed
	switch was {
	case Flying:
		if passed {
			m.pass()
		} else {
			m.fail()
		}
	case Stale:
		if m.Up {
			m.turn() // the first probe of this run had to wait for it
		}
	}
}

func (m *machine) stuck() {
	if m.Flight != Flying && m.Flight != Stale {
		return
	}
	m.Flight = Lost
	if m.Up {
		m.fail()
	}
}

func (m *machine) pass() {
	m.Failures, m.Strict = 0, m.now
	m.become(Healthy)
}

func (m *machine) fail() {
	if m.now < m.Strict {
		return
	}
	m.Failures++
	if m.Failures >= m.spec.Threshold {
		m.become(Unhealthy)
	}
}

func (m *machine) become(h Health) {
	if m.Health != h {
		m.Health, m.Since = h, m.now
		m.do(Changed)
	}
}

// interval is the period with a jitter of up to a tenth either way, so that
// checks of jobs that started together drift apart.
func (m *machine) interval() time.Duration {
	if m.Seed == 0 {
		return m.spec.Every
	}
	// splitmix64 (Steele, Lea, Flood 2014), one step per use.
	m.Seed += 0x9e3779b97f4a7c15
	z := m.Seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	const steps = 1000
	tenth := m.spec.Every / 10
	return m.spec.Every - tenth + 2*tenth/steps*time.Duration(z%steps)
}
