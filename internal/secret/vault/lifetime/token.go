package lifetime

import "time"

// token is what every call but a login is made with.
type token struct {
	grant
	held       bool
	generation int // counts the logins that succeeded
	checkable  bool
	suspect    bool // a call was refused that the token should be able to make
	worked     bool // it was one that had been made with the token before
	stuck      bool // it could not be renewed
	renewAt    time.Duration
	next       time.Duration // nothing before
	attempts   int           // logins that failed in a row
	op         What
}

// due is what is to be done with the token next, and when.
func (t *token) due() (What, time.Duration) {
	switch {
	case t.op != none:
		return none, 0
	case !t.held:
		return Login, t.next
	case t.suspect:
		return Check, 0
	case t.ttl == 0:
		return none, 0
	}
	at := max(t.renewAt, t.next)
	if t.renewable && !(t.stuck && at >= t.replaceAt()) {
		return Extend, at
	}
	return Login, max(t.replaceAt(), t.next)
}

func (m *Machine) actToken() {
	if what, at := m.token.due(); what != none && m.now >= at {
		m.token.op = what
		m.do(what, 0)
	}
}

// expire lets a token go that has ended.
func (m *Machine) expire() {
	if t := &m.token; t.held && t.ttl > 0 && m.now >= t.end() {
		t.held = false
	}
}

func (m *Machine) tokenOutcome(in Input) {
	m.heard(in)
	m.token.op = none
	switch in.What {
	case Login:
		m.loggedIn(in)
	case Extend:
		m.extended(in)
	case Check:
		m.checked(in)
	}
}

func (m *Machine) loggedIn(in Input) {
	t := &m.token
	switch in.Failure {
	case None:
		*t = token{grant: m.grant(in), held: true, generation: t.generation + 1, checkable: in.Checkable, op: none}
		t.renewAt = m.renewAt(t.grant)
		m.renewedToken()
	case Away:
		t.next = m.now // the gate is closed
	case Broken:
		t.attempts++
		most := brokenMost
		if t.held && t.ttl > 0 {
			most = m.hurry(most, t.grant)
		}
		t.next = m.now + m.backOff(t.attempts, most)
	default:
		t.attempts++
		t.next = m.now + m.backOff(t.attempts, refusedMost)
	}
}

func (m *Machine) extended(in Input) {
	t := &m.token
	switch in.Failure {
	case None:
		t.grant, t.held, t.stuck, t.attempts = t.renewed(in), true, false, 0
		t.renewAt, t.next = m.renewAt(t.grant), 0
	case Away, Broken:
		t.attempts++
		t.stuck = true
		t.next = m.retryRenewal(t.grant, t.attempts)
	default: // it is none any more, or may not renew itself
		t.renewable = false
		t.suspect = t.held
	}
}

// checked follows a suspicion. A token that cannot ask about itself counts as gone if it
// could do before what was refused.
func (m *Machine) checked(in Input) {
	t := &m.token
	if in.Failure == Away || in.Failure == Broken {
		return // it is asked again
	}
	gone := in.Failure != None && (t.checkable || t.worked)
	t.suspect, t.worked = false, false
	if gone {
		t.held, t.next, t.attempts = false, m.now, 0
	}
}

// suspect has the token checked, after a call with it was refused. worked: such a call
// had been made with it before.
func (m *Machine) suspect(in Input, worked bool) {
	if in.Generation == m.token.generation && m.token.held {
		m.token.suspect = true
		m.token.worked = m.token.worked || worked
	}
}
