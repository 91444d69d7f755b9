package lifetime

import (
	"slices"
	"time"
)

// item is one secret.
type item struct {
	grant
	watched    bool
	held       bool // something was given
	life       Life
	generation int           // of the token that it was fetched with; its lease ends with that
	extended   int           // of the token that the lease was renewed with
	looked     int           // of the token that the lease was last asked about with
	lookAt     time.Duration // when to ask about it; it may have been revoked by somebody
	blind      bool          // the token may not ask
	renewAt    time.Duration // if it is leased
	next       time.Duration // nothing before
	attempts   int           // failures in a row
	refused    bool          // the last one was that
	stale      bool          // what was given has ended, or will: fetch it anew
	stuck      bool          // the lease could not be renewed
	op         What
}

func (m *Machine) watch(id int) {
	it := m.items[id]
	if it == nil {
		it = &item{op: none, next: m.now}
		m.items[id] = it
		m.order = append(m.order, id)
	}
	it.watched = true
}

func (m *Machine) unwatch(id int) {
	if it := m.items[id]; it != nil {
		it.watched = false
	}
}

// itemDue is what is to be done next about it, and when.
func (m *Machine) itemDue(it *item) (What, time.Duration) {
	if it.op != none {
		return none, 0
	}
	what, at := it.due()
	if what == Renew && m.now >= it.end() {
		what, at = Fetch, it.next // nobody was there to renew it in time
	}
	if !it.watched && what != Renew {
		// A lease is kept for those who still use what it is for. Nothing else is.
		if what == none && it.life == Leased {
			return none, 0
		}
		if !it.held || it.stale || what == none {
			at = 0
		}
		return Forget, at
	}
	if it.leased() && !it.blind && it.lookAt < at {
		what, at = Look, it.lookAt
	}
	if !m.token.held || what == Fetch && (m.token.op == Login || m.fetches >= fetchesMost) {
		return none, 0
	}
	return what, at
}

// leased says that there is a lease which is not known to have ended.
func (it *item) leased() bool { return it.ends() && it.life == Leased }

// ends says that it is of no use any more after a while.
func (it *item) ends() bool {
	return it.held && !it.stale && it.ttl != 0 && (it.life == Leased || it.life == Ending)
}

// due is the same if there is a token and somebody wants it.
func (it *item) due() (What, time.Duration) {
	switch {
	case !it.held || it.stale || it.life == Polled || it.life == Rotating:
		return Fetch, it.next
	case it.life == Once || it.ttl == 0:
		return none, 0
	case it.life == Leased && it.renewable:
		if at := max(it.renewAt, it.next); !it.stuck || at < it.replaceAt() {
			return Renew, at
		}
	}
	return Fetch, max(it.replaceAt(), it.next)
}

func (m *Machine) actItem(id int, it *item) {
	what, at := m.itemDue(it)
	if what == none || m.now < at {
		return
	}
	if what == Forget {
		delete(m.items, id)
		m.order = slices.DeleteFunc(m.order, func(o int) bool { return o == id })
	} else {
		it.op = what
	}
	m.do(what, id)
}

// renewedToken is what a new token means: leases of the old one end with that.
func (m *Machine) renewedToken() {
	for _, it := range m.items {
		it.blind = false
		if it.held && it.life == Leased {
			it.stale, it.attempts, it.next = true, 0, m.now
		}
		if it.refused {
			it.attempts, it.next = 0, m.now
		}
	}
}

// spread is what follows an outage: what is only asked for again waits a little, the longer
// nobody answered, so that not all agents ask for everything at once.
func (m *Machine) spread(outage time.Duration) {
	for _, id := range m.order {
		if it := m.items[id]; it.held && it.life == Polled && it.next <= m.now {
			it.next = m.now + m.between(0, min(outage, m.poll/5))
		}
	}
}

func (m *Machine) itemOutcome(in Input) {
	m.heard(in)
	it := m.items[in.ID]
	it.op = none
	again := it.refused
	it.refused = in.Failure == Refused
	switch {
	case in.What == Look:
		m.looked(it, in)
	case in.Failure == None && in.What == Fetch:
		m.fetched(it, in)
	case in.Failure == None:
		it.grant, it.extended = it.renewed(in), in.Generation
		it.renewAt, it.next, it.attempts, it.stuck = m.renewAt(it.grant), 0, 0, false
		it.lookAt = m.lookAgain()
	case in.What == Fetch:
		m.fetchFailed(it, in, again)
	default:
		m.renewFailed(it, in)
	}
}

func (m *Machine) fetched(it *item, in Input) {
	*it = item{
		grant: m.grant(in), watched: it.watched, held: true, life: in.Life, generation: in.Generation, op: none,
		stale: in.Life == Leased && in.Generation != m.token.generation,
	}
	it.renewAt, it.lookAt = m.renewAt(it.grant), m.lookAgain()
	switch it.life {
	case Polled:
		it.next = in.Sent + m.between(m.poll*9/10, m.poll*11/10)
	case Rotating:
		it.next = it.end()
	}
	// However short what Vault grants: no more than about one fetch a second.
	it.next = max(it.next, in.Sent) + m.between(backOffFirst, backOffFirst*3/2)
	if it.stale { // of a token that was replaced meanwhile, and may end in a moment
		it.next = m.now
	}
}

// fetchFailed has the token checked at the first refusal in a row, whatever failed before: what is
// behind Vault may hide that the token is none any more.
func (m *Machine) fetchFailed(it *item, in Input, again bool) {
	it.attempts++
	most := refusedMost
	switch in.Failure {
	case Away:
		most = awayMost
	case Broken:
		most = brokenMost
	case Missing:
		most = min(refusedMost, m.poll)
	case Refused:
		if !again {
			m.suspect(in, it.held && it.generation == in.Generation)
		}
		if in.Generation != m.token.generation { // that token is no more
			it.attempts, it.next = 0, m.now
			return
		}
	}
	if it.ends() && (in.Failure == Away || in.Failure == Broken) {
		most = m.hurry(most, it.grant)
	}
	it.next = m.now + m.backOff(it.attempts, most)
}

func (m *Machine) renewFailed(it *item, in Input) {
	switch in.Failure {
	case Away, Broken:
		it.attempts++
		it.stuck = true
		it.next = m.retryRenewal(it.grant, it.attempts)
	case Refused: // by the token's end, or by a policy that lets nobody renew
		it.renewable = false
		m.suspect(in, it.extended == in.Generation)
	default:
		it.stale, it.attempts, it.next = true, 0, m.now
	}
}

// lookAgain is when to ask about a lease of which we have just heard.
func (m *Machine) lookAgain() time.Duration {
	return m.now + m.between(m.poll*9/10, m.poll*11/10)
}

// looked follows a question about a lease. No answer says nothing.
func (m *Machine) looked(it *item, in Input) {
	it.lookAt = m.lookAgain()
	switch in.Failure {
	case None:
		it.looked = in.Generation
	case Invalid, Missing:
		it.stale, it.attempts, it.next = true, 0, m.now
	case Refused:
		it.blind = it.looked != in.Generation
		m.suspect(in, !it.blind)
	}
}
