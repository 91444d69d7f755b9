package lifetime

import (
	"math/rand/v2"
	"testing"
	"time"
)

// failing is a Vault that fails from begin to end, whose calls take a tenth of a second.
type failing struct {
	m          *Machine
	how        Failure
	begin, end time.Duration
	lease      time.Duration // what it grants
	ends       time.Duration // the newest lease; 0: none yet
	now        time.Duration
}

// call is an action's outcome, a tenth of a second later.
func (f *failing) call(a Action) Input {
	in := Input{What: a.What, ID: a.ID, Generation: a.Generation, Sent: f.now}
	f.now += 100 * time.Millisecond
	trouble := f.now >= f.begin && f.now < f.end
	switch {
	case trouble && (f.how == Away || a.What == Fetch || a.What == Renew):
		in.Failure = f.how
	case a.What == Login || a.What == Extend:
		in.TTL, in.Renewable, in.Checkable = time.Hour, true, true
	case a.What == Fetch || a.What == Renew:
		in.Life, in.TTL, in.Renewable = Leased, f.lease, true
		f.ends = in.Sent + f.lease
	}
	return in
}

// keeps says whether there is always a good lease until a time.
func (f *failing) keeps(until time.Duration) bool {
	pending := f.m.Step(Input{What: Watch, ID: 1}, f.now)
	for f.now < until {
		if f.ends != 0 && f.now >= f.ends {
			return false
		}
		if len(pending) > 0 {
			in := f.call(pending[0])
			pending = append(pending[1:], f.m.Step(in, f.now)...)
			continue
		}
		at, _ := f.m.Next()
		f.now = max(f.now, at)
		pending = f.m.Step(Input{What: Tick}, f.now)
	}
	return true
}

// A Vault, or a database behind it, that is back a second, or a tenth of the lease, before
// that ends is back in time, however long it was away.
func TestBackBeforeTheEnd(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 5))
		lease := []time.Duration{3 * time.Second, 6 * time.Second, 20 * time.Second, time.Minute, 10 * time.Minute}[rng.IntN(5)]
		how := []Failure{Away, Broken}[rng.IntN(2)]
		before := max(time.Second, lease/10)
		// The first renewal, at 60 % at the earliest, meets the trouble.
		f := &failing{
			m: New(5*time.Minute, seed), how: how, lease: lease, begin: time.Second,
			end: 200*time.Millisecond + lease - before - time.Duration(rng.Int64N(int64(lease/4))),
		}
		if !f.keeps(3 * lease) {
			t.Errorf("seed %d: a lease of %v ended %v after it worked again, after it was %v", seed, lease, f.ends-f.end, how)
		}
	}
}
