package lifetime

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

// server is a Vault as far as lifetimes go: what it granted, and until when.
type server struct {
	tokens []*paper
	leases []*paper
	up     bool
	works  bool // what is behind it
	admits bool // logins
}

// paper is a token or a lease.
type paper struct {
	item      int
	born, end time.Duration
	ttl, most time.Duration
	parent    *paper
	revoked   bool
	renewable bool
}

func (p *paper) good(now time.Duration) bool {
	return p != nil && !p.revoked && now < p.end && (p.parent == nil || p.parent.good(now))
}

// left is what a renewal grants.
func (p *paper) left(now time.Duration) time.Duration { return min(p.ttl, p.born+p.most-now) }

// flight is a call under way.
type flight struct {
	Action
	sent, back time.Duration
	lost       bool // it takes effect, and nobody hears of it
	reached    bool
	in         Input
}

// client is the machine and what it has been given.
type world struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	now     time.Duration
	machine *Machine
	server  server
	flights []*flight
	tokens  map[int]*paper // by generation
	logins  int
	held    map[int]*paper
	polled  map[int]time.Duration
	ttl     map[int]time.Duration
	watched map[int]bool
	trouble time.Duration // the end of the last one
	fetches int
	history [60]note // the last, in a ring
	notes   int
}

type note struct {
	at   time.Duration
	what any
}

const (
	pollEvery = time.Minute
	// calm is how long after the last trouble all must be well: the longest pauses, and
	// what is under way.
	calm = awayMost + brokenMost + 15*time.Second
)

func (w *world) say(what any) {
	w.history[w.notes%len(w.history)] = note{w.now, what}
	w.notes++
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	for i := max(0, w.notes-len(w.history)); i < w.notes; i++ {
		n := w.history[i%len(w.history)]
		w.t.Logf("%v %+v", n.at, n.what)
	}
	w.t.Fatalf("seed %d at %v: %s", w.seed, w.now, fmt.Sprintf(format, args...))
}

func (w *world) step(in Input) {
	w.t.Helper()
	if in.What != Tick {
		w.say(in)
	}
	for _, a := range w.machine.Step(in, w.now) {
		w.say(a)
		w.begin(a)
	}
}

func (w *world) begin(a Action) {
	w.t.Helper()
	if a.What == Forget {
		if w.watched[a.ID] {
			w.fail("it forgets what is watched")
		}
		delete(w.held, a.ID)
		return
	}
	if w.machine.gate.away && a.What != Probe {
		w.fail("%v while nobody answers", a.What)
	}
	for _, f := range w.flights {
		switch {
		case f.What >= Fetch:
			if a.ID == f.ID && a.What >= Fetch {
				w.fail("a second call for %d", a.ID)
			}
		case a.What == f.What, a.What < Probe && f.What < Probe:
			w.fail("%v while %v is under way", a.What, f.What)
		}
	}
	if a.What == Fetch {
		w.fetches++
		if !w.watched[a.ID] {
			w.fail("it fetches what nobody watches")
		}
	}
	f := &flight{Action: a, sent: w.now, back: w.now + time.Duration(w.rng.IntN(200))*time.Millisecond}
	if !w.server.up {
		f.lost, f.back = true, w.now+time.Duration(w.rng.IntN(5000))*time.Millisecond
	}
	w.flights = append(w.flights, f)
}

// serve is the call's effect on the server, and what it would answer.
func (w *world) serve(f *flight) {
	f.reached = true
	f.in = Input{What: f.What, ID: f.ID, Generation: f.Generation, Sent: f.sent}
	s, token := &w.server, w.tokens[f.Generation]
	switch {
	case f.What == Probe:
	case f.What == Login && !s.admits:
		f.in.Failure = []Failure{Refused, Broken, Invalid}[w.rng.IntN(3)]
	case f.What == Login:
		p := &paper{born: w.now, ttl: w.ttl[0], most: w.ttl[0] * time.Duration(1+w.rng.IntN(5)), end: w.now + w.ttl[0]}
		s.tokens = append(s.tokens, p)
		w.logins++
		f.in.TTL, f.in.Renewable, f.in.Checkable = p.ttl, true, true
	case !token.good(w.now):
		f.in.Failure = Refused
	case f.What == Extend:
		token.end = w.now + token.left(w.now)
		f.in.TTL, f.in.Renewable = token.left(w.now), true
	case f.What == Check:
	case f.ID%3 == 0: // KV
		f.in.Life = Polled
	case f.What == Look:
		if !w.held[f.ID].good(w.now) {
			f.in.Failure = Invalid
		}
	case !s.works:
		f.in.Failure = Broken
	case f.What == Fetch:
		ttl := w.ttl[f.ID]
		p := &paper{item: f.ID, born: w.now, ttl: ttl, most: ttl * time.Duration(1+w.rng.IntN(4)), end: w.now + ttl, parent: token, renewable: f.ID%3 == 1}
		s.leases = append(s.leases, p)
		f.in.Life, f.in.TTL, f.in.Renewable = Leased, ttl, p.renewable
	case f.What == Renew:
		lease := w.held[f.ID]
		if !lease.good(w.now) {
			f.in.Failure = Invalid
			break
		}
		lease.end = w.now + lease.left(w.now)
		f.in.TTL, f.in.Renewable = lease.left(w.now), true
	}
}

// land tells the machine of the outcome.
func (w *world) land(f *flight) {
	w.flights = slices.DeleteFunc(w.flights, func(o *flight) bool { return o == f })
	if f.lost || !f.reached {
		w.step(Input{What: f.What, ID: f.ID, Generation: f.Generation, Sent: f.sent, Failure: Away})
		return
	}
	if f.in.Failure == None {
		switch {
		case f.What == Login:
			w.tokens[f.Generation+1] = w.server.tokens[len(w.server.tokens)-1]
		case f.What == Fetch && f.in.Life == Leased:
			for _, p := range w.server.leases {
				if p.item == f.ID {
					w.held[f.ID] = p // the newest
				}
			}
		case f.What == Fetch:
			w.polled[f.ID] = w.now
		}
	}
	w.step(f.in)
}

// disturb is trouble, or its end.
func (w *world) disturb() {
	s := &w.server
	admitted := s.admits
	switch n := w.rng.IntN(12); {
	case n == 0:
		s.up = !s.up
		if !s.up {
			for _, f := range w.flights {
				f.lost = f.lost || w.rng.IntN(2) == 0
			}
		}
	case n == 1:
		s.works = !s.works
	case n == 2:
		s.admits = !s.admits
	case n == 3 && len(s.tokens) > 0:
		s.tokens[len(s.tokens)-1].revoked = true
	case n == 4 && len(s.leases) > 0:
		s.leases[w.rng.IntN(len(s.leases))].revoked = true
	case n == 5:
		id := 1 + w.rng.IntN(6)
		w.watched[id] = !w.watched[id]
		if w.watched[id] {
			w.step(Input{What: Watch, ID: id})
		} else {
			w.step(Input{What: Unwatch, ID: id})
		}
	default:
		s.up, s.works, s.admits = true, true, true
	}
	w.say([]bool{s.up, s.works, s.admits})
	dead := func(p *paper) bool { return !p.good(w.now) }
	s.leases = slices.DeleteFunc(s.leases, dead)
	// A revocation is noticed when the lease is renewed or asked about.
	end := w.now + min(w.longest(), pollEvery*11/10)
	if !admitted {
		end += refusedMost // a login that was refused is not tried more often
	}
	w.trouble = max(w.trouble, end)
}

func (w *world) longest() time.Duration {
	most := time.Duration(0)
	for _, ttl := range w.ttl {
		most = max(most, ttl)
	}
	return most
}

// next lets time pass until something is due, and does that.
func (w *world) next(until time.Duration) bool {
	at := until
	if t, ok := w.machine.Next(); ok {
		at = min(at, max(t, w.now))
	}
	var first *flight
	for _, f := range w.flights {
		if f.back <= at && (first == nil || f.back < first.back) {
			first = f
		}
	}
	if first != nil {
		w.now = max(w.now, first.back)
		if !first.reached && (w.server.up || !first.lost) {
			w.serve(first)
		}
		w.land(first)
		return true
	}
	w.now = at
	w.step(Input{What: Tick})
	return at < until
}

// check holds that all is well when it has been calm for a while.
func (w *world) check() {
	if s := w.server; !s.up || !s.works || !s.admits || w.now < w.trouble+calm {
		return
	}
	for id, on := range w.watched {
		switch {
		case !on:
		case id%3 == 0:
			if late := w.now - w.polled[id]; late > pollEvery*11/10+calm {
				w.fail("%d was not asked for since %v", id, late)
			}
		case w.held[id] == nil:
			w.fail("%d is not held", id)
		case !w.held[id].good(w.now):
			w.fail("%d has ended: %+v, of token %+v", id, *w.held[id], *w.held[id].parent)
		}
	}
	if w.now < w.trouble+calm+4*w.longest() {
		return
	}
	alive := map[int]int{}
	for _, p := range w.server.leases {
		if p.good(w.now) {
			alive[p.item]++
		}
	}
	for id, n := range alive {
		if n > 3 {
			w.fail("%d has %d leases alive: they run away", id, n)
		}
	}
}

func TestSchedules(t *testing.T) {
	seeds := uint64(25)
	if os.Getenv("DROVER_SOAK") != "" {
		seeds = 5_000
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 1))
		ttls := []time.Duration{6 * time.Second, 20 * time.Second, time.Minute, 10 * time.Minute}
		w := &world{
			t: t, seed: seed, rng: rng, machine: New(pollEvery, seed), server: server{up: true, works: true, admits: true},
			tokens: map[int]*paper{}, held: map[int]*paper{}, polled: map[int]time.Duration{}, ttl: map[int]time.Duration{}, watched: map[int]bool{},
		}
		for id := range 7 { // 0 is the token
			w.ttl[id] = ttls[rng.IntN(len(ttls))]
		}
		for id := 1; id < 7; id++ {
			w.watched[id] = true
			w.step(Input{What: Watch, ID: id})
		}
		for range 40 {
			until := w.now + time.Duration(rng.IntN(int(5*w.longest())))
			if rng.IntN(3) == 0 {
				until = w.now + time.Duration(rng.IntN(int(20*time.Second)))
			}
			for n := 0; w.next(until); n++ {
				w.check()
				if n > 200_000 {
					w.fail("it does not come to an end")
				}
			}
			w.disturb()
		}
		if most := int(w.now/time.Second) * 2; w.fetches > most {
			w.fail("%d fetches in %v", w.fetches, w.now)
		}
	}
}
