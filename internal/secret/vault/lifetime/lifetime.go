// Package lifetime decides when a client of Vault logs in, renews, fetches and asks again.
//
// It decides alone: time is passed in, as the duration since some beginning, and what is to
// be done comes out, so that scripts and random schedules can replay it. It promises one
// call under way per secret, that what ends is replaced in the last tenth to fifth of
// its life, that nothing given is taken back because of an error, and that no failure is retried
// more often than its back-off allows, which is shorter only around the end of what is in
// hand. Making the calls is left to vault.
package lifetime

import (
	"slices"
	"time"
)

// The periods that do not depend on what Vault grants.
const (
	// backOffFirst is the pause after a first failure; it doubles.
	backOffFirst = time.Second
	// refusedMost is the longest pause after something that will hardly change by itself.
	refusedMost = 5 * time.Minute
	// brokenMost is the longest pause after what may be mended behind Vault: a database.
	brokenMost = 30 * time.Second
	// awayMost is the longest pause while nobody answers: what ran out meanwhile is
	// replaced that soon after Vault is back.
	awayMost = 15 * time.Second
	// hurryLeast is the longest pause when something that lasts for seconds is about to end.
	hurryLeast = 500 * time.Millisecond
	// marginLeast is how early what ends is replaced at least, if it lasts long enough.
	marginLeast = 1500 * time.Millisecond
	// fetchesMost bounds the fetches that are under way at once. Renewals never wait for
	// one, which may hang at a database behind Vault.
	fetchesMost = 8
)

// Failure is why a call gave nothing.
type Failure uint8

// The failures that are treated differently.
const (
	None    Failure = iota
	Away            // nobody answered, or who answered can serve nobody (sealed)
	Broken          // Vault answers, and this thing does not work at present
	Invalid         // Vault does not take the request: a lease that is gone, a wrong parameter
	Missing         // there is no such secret
	Refused         // the token may not do it, or is none
)

var failureNames = [...]string{"ok", "away", "broken", "invalid", "missing", "refused"}

func (f Failure) String() string { return failureNames[f] }

// Life is how a secret is kept good.
type Life uint8

// The lives that secrets have.
const (
	Polled   Life = iota // it does not end; newer states are found by asking
	Leased               // it ends unless it is renewed, and with the token at the latest
	Ending               // it ends, and cannot be renewed: a certificate
	Rotating             // it is another one after its TTL, and asked for then
	Once                 // asking again would give another one: it is asked for once
)

var lifeNames = [...]string{"polled", "leased", "ending", "rotating", "once"}

func (l Life) String() string { return lifeNames[l] }

// What is an input or an action.
type What uint8

// The first group are actions and, with the outcome, inputs; then come pure inputs, then
// pure actions.
const (
	Login  What = iota // get a token
	Extend             // renew the token
	Check              // ask whether the token is one
	Probe              // ask whether Vault serves
	Fetch              // read a secret
	Renew              // renew its lease
	Look               // ask whether its lease is one

	Watch   // somebody wants a secret
	Unwatch // nobody wants it any more
	Tick    // time has passed

	Forget // nobody wants it and it has ended: drop it

	none
)

var whatNames = [...]string{"login", "extend", "check", "probe", "fetch", "renew", "look", "watch", "unwatch", "tick", "forget", "none"}

func (w What) String() string { return whatNames[w] }

// Input is what happened.
type Input struct {
	What What
	ID   int // of the secret
	// Failure of the call; None: it succeeded, and what follows is what was granted.
	Failure Failure
	// Sent is when the call was begun: what was granted is measured from there.
	Sent time.Duration
	// TTL that was granted; 0: it does not end.
	TTL time.Duration
	// Full is how much it was once, if that is known to be more (a token that is used again).
	Full      time.Duration
	Renewable bool
	// Checkable says of a token that Check succeeds with it as long as it is one.
	Checkable bool
	Life      Life
	// Generation of the token that the call was made with: that of its action.
	Generation int
}

// Action is what to do. Its outcome is to be told as an Input with the same What, ID and
// Generation.
type Action struct {
	What       What
	ID         int
	Generation int
}

// Step tells what happened and returns what is to be done.
func (m *Machine) Step(in Input, now time.Duration) []Action {
	m.now, m.actions = now, nil
	switch in.What {
	case Login, Extend, Check:
		m.tokenOutcome(in)
	case Probe:
		m.probed(in)
	case Fetch, Renew, Look:
		m.itemOutcome(in)
	case Watch:
		m.watch(in.ID)
	case Unwatch:
		m.unwatch(in.ID)
	}
	m.act()
	return m.actions
}

// grant is what Vault gave.
type grant struct {
	sent, ttl time.Duration // ttl 0: it does not end
	full      time.Duration // the longest TTL that it had
	margin    time.Duration // how long before its end it is replaced
	renewable bool          // and renewals still make it longer
}

func (m *Machine) grant(in Input) grant {
	g := grant{sent: in.Sent, ttl: in.TTL, full: max(in.TTL, in.Full), renewable: in.Renewable}
	g.margin = max(m.between(g.full/10, g.full/5), min(marginLeast, g.full/2))
	return g
}

// renewed is the grant after a renewal. One that gave less than before has met a maximum.
func (g grant) renewed(in Input) grant {
	g.sent, g.ttl = in.Sent, in.TTL
	if in.TTL != 0 && in.TTL < g.full-g.full/10 || !in.Renewable {
		g.renewable = false
	}
	g.full = max(g.full, in.TTL)
	return g
}

func (g grant) end() time.Duration { return g.sent + g.ttl }

// replaceAt is when something else has to take its place.
func (g grant) replaceAt() time.Duration { return g.end() - g.margin }

// renewAt is two thirds of the way, a little less so that many do not come at once.
func (m *Machine) renewAt(g grant) time.Duration {
	return g.sent + m.between(g.ttl*60/100, g.ttl*2/3)
}

// retryRenewal is when to try again to renew, which is not after the time to replace.
func (m *Machine) retryRenewal(g grant, attempts int) time.Duration {
	return min(m.now+m.backOff(attempts, m.hurry(awayMost, g)), max(m.now+hurryLeast, g.replaceAt()))
}

// hurry makes the longest pause a shorter one around the end of what is in hand: half of
// the time until then, so that it is saved if that can be, and half of the time since, so that what
// has just ended is soon replaced. It is a twentieth of its life at least: what lasts long ends
// seldom in the few seconds that are saved, and many agents would ask for them.
func (m *Machine) hurry(most time.Duration, g grant) time.Duration {
	return min(most, max((g.end()-m.now).Abs()/2, g.full/20, hurryLeast))
}

// urgent is hurry for all that is in hand.
func (m *Machine) urgent(most time.Duration) time.Duration {
	if m.token.held && m.token.ttl > 0 {
		most = m.hurry(most, m.token.grant)
	}
	for _, it := range m.items {
		if it.ends() {
			most = m.hurry(most, it.grant)
		}
	}
	return most
}

// Machine is the whole state.
type Machine struct {
	poll time.Duration
	seed uint64
	now  time.Duration

	token token
	gate  gate
	items map[int]*item
	order []int // the items in the order of their first watch

	fetches int // under way
	actions []Action
}

// New returns a machine that has seen nothing. What does not end is asked for again
// every poll. The seed is that of the jitter.
func New(poll time.Duration, seed uint64) *Machine {
	return &Machine{poll: poll, seed: seed, token: token{op: none}, items: map[int]*item{}}
}

// gate is closed while nobody answers, so that one asks and not all do.
type gate struct {
	away     bool
	since    time.Duration
	probing  bool
	next     time.Duration
	attempts int
	answered time.Duration // when the newest call that was answered was sent
}

// Away says that nobody answers: nothing but probes is asked for.
func (m *Machine) Away() bool { return m.gate.away }

// noAnswer closes the gate, unless a later call was answered.
func (m *Machine) noAnswer(sent time.Duration) {
	if m.gate.away || sent < m.gate.answered {
		return
	}
	m.gate.away, m.gate.since = true, m.now
	m.gate.attempts++
	m.gate.next = m.now + m.backOff(m.gate.attempts, m.urgent(awayMost))
}

func (m *Machine) probed(in Input) {
	m.gate.probing = false
	if in.Failure == None {
		m.gate.away = false
		m.spread(m.now - m.gate.since)
		m.gate.answered = max(m.gate.answered, in.Sent)
		return
	}
	m.gate.attempts++
	m.gate.next = m.now + m.backOff(m.gate.attempts, m.urgent(awayMost))
}

// heard notes the outcome of a call other than a probe.
func (m *Machine) heard(in Input) {
	if in.What == Fetch {
		m.fetches--
	}
	if in.Failure == Away {
		m.noAnswer(in.Sent)
		return
	}
	m.gate.answered = max(m.gate.answered, in.Sent)
	m.gate.attempts = 0
}

// act begins what is due.
func (m *Machine) act() {
	m.expire()
	if m.gate.away {
		if !m.gate.probing && m.now >= m.gate.next {
			m.gate.probing = true
			m.do(Probe, 0)
		}
		return
	}
	m.actToken()
	for _, id := range slices.Clone(m.order) {
		m.actItem(id, m.items[id])
	}
}

func (m *Machine) do(w What, id int) {
	if w == Fetch {
		m.fetches++
	}
	m.actions = append(m.actions, Action{What: w, ID: id, Generation: m.token.generation})
}

// Next is when Step is to be called with a Tick, unless something happens before; false:
// only something that happens can be next.
func (m *Machine) Next() (at time.Duration, ok bool) {
	consider := func(t time.Duration) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	if m.token.held && m.token.ttl > 0 {
		consider(m.token.end())
	}
	if m.gate.away {
		if !m.gate.probing {
			consider(m.gate.next)
		}
		return at, ok
	}
	if what, t := m.token.due(); what != none {
		consider(t)
	}
	for _, it := range m.items {
		if what, t := m.itemDue(it); what != none {
			consider(t)
		}
	}
	return at, ok
}

// backOff doubles from backOffFirst to most, less up to half of it.
func (m *Machine) backOff(attempts int, most time.Duration) time.Duration {
	d := most
	if attempts < 20 {
		d = min(most, backOffFirst<<max(0, attempts-1))
	}
	return m.between(d/2, d)
}

// between is a random duration from low to high.
func (m *Machine) between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	// splitmix64 (Steele, Lea, Flood 2014), one step per use.
	m.seed += 0x9e3779b97f4a7c15
	z := m.seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return low + time.Duration(z%uint64(high-low+1))
}
