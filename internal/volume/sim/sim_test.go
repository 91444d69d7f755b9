package sim

import (
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"drover/internal/volume/protocol"
)

// schedules is how many seeds the normal tests play. DROVER_SOAK=n plays n;
// DROVER_SEED=s plays that one and shows its trace.
const schedules = 3000

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func TestPromisesHold(t *testing.T) {
	if os.Getenv("DROVER_SEED") != "" {
		r := Run(Options{
			Seed: number(t, "DROVER_SEED", 0), Class: Class(os.Getenv("DROVER_CLASS")),
			Mutant: protocol.Mutant(os.Getenv("DROVER_MUTANT")), Trace: true,
		})
		t.Logf("%s\n%v", r.Trace, r.Err)
		return
	}
	n := number(t, "DROVER_SOAK", schedules)
	start := time.Now()
	sum := tallies{}
	forSeeds(n, func(seed uint64) bool {
		r := Run(Options{Seed: seed})
		sum.add(r)
		if r.Err == nil {
			return true
		}
		t.Errorf("%s\n%v\nplay it again: DROVER_SEED=%d go test -run TestPromisesHold -v .",
			Run(Options{Seed: seed, Trace: true}).Trace, r.Err, seed)
		return false
	})
	sum.log(t)
	t.Logf("%d schedules in %s", sum.total(), time.Since(start).Round(time.Millisecond))
}

// forSeeds plays seeds 0 to n-1 on two processors, until play says to stop.
func forSeeds(n uint64, play func(seed uint64) bool) {
	var next atomic.Uint64
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for seed := next.Add(1) - 1; seed < n; seed = next.Add(1) - 1 {
				if !play(seed) {
					next.Store(n)
				}
			}
		})
	}
	group.Wait()
}

// tallies show what the schedules came to, so that one sees that something happened.
type tallies struct {
	mu sync.Mutex
	by map[Class]*tally
}

type tally struct {
	n, events, commits, claims, kept int
	lived                            time.Duration
}

func (s *tallies) add(r Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[Class]*tally{}
	}
	if s.by[r.Class] == nil {
		s.by[r.Class] = &tally{}
	}
	t := s.by[r.Class]
	t.n++
	t.events += r.Events
	t.commits += r.Commits
	t.claims += r.Claims
	t.kept += r.Kept
	t.lived += r.Lived
}

func (s *tallies) total() (n int) {
	for _, y := range s.by {
		n += y.n
	}
	return n
}

func (s *tallies) log(t *testing.T) {
	for _, c := range Classes() {
		if y := s.by[c]; y != nil {
			t.Logf("%-8s %6d schedules: %d events, %d acknowledged backups, %d claims, %d diverged snapshots, %s simulated",
				c, y.n, y.events, y.commits, y.claims, y.kept, y.lived.Round(time.Second))
			if y.commits == 0 || y.claims == 0 {
				t.Errorf("%s: nothing was committed", c)
			}
		}
	}
}

// TestSameSeedSameSchedule: a failure can be played again.
func TestSameSeedSameSchedule(t *testing.T) {
	for seed := range uint64(60) {
		a, b := Run(Options{Seed: seed, Trace: true}), Run(Options{Seed: seed, Trace: true})
		if a.Trace != b.Trace {
			t.Fatalf("seed %d went two ways", seed)
		}
	}
}

// TestMutantsAreFound: the simulator notices when a rule is left out.
func TestMutantsAreFound(t *testing.T) {
	for _, m := range []struct {
		rule  protocol.Mutant
		class Class
		most  uint64 // seeds
	}{
		{protocol.UnknownIsYes, Plain, 500},
		{protocol.UnknownIsNo, Outage, 2000},
		{protocol.NewBase, Twins, 500},
		{protocol.CompareClaim, Twins, 500},
		{protocol.ResumeClaim, Strict, 500},
		{protocol.KeepUnchecked, Twins, 500},
		{protocol.KeepUnsynced, Plain, 2000},
		{protocol.KeepUnmarked, Plain, 2000},
		{protocol.NoIntent, Plain, 2000},
		{protocol.NoClaimIntent, Plain, 2000},
		{protocol.NoGap, Outage, 500},
		{protocol.CountFromSending, Strict, 4000},
		{protocol.DeadlineOnAnswer, Strict, 4000},
		{protocol.StrictReclaim, Strict, 2000},
		{protocol.UnchangedUnproven, Twins, 4000},
		{protocol.JoinLate, Plain, 500},
		{protocol.NoLockCheck, Pruning, 1000},
		{protocol.ReuseCondemned, Pruning, 4000},
		{protocol.StaleCondemn, Pruning, 4000},
		{NoSecondLook, Pruning, 4000},
		{protocol.NoRestoring, Plain, 2000},
		{protocol.JobsBeforeRecord, Plain, 2000},
		{protocol.NoDiverged, Plain, 500},
		{protocol.RecordBeforeSave, Plain, 500},
		{protocol.LowerHead, PutBack, 500},
		{protocol.NoKill, Plain, 500},
		{protocol.ReleaseUncaptured, Plain, 500},
		{protocol.NoYield, Plain, 500},
		{protocol.CopyUsed, Plain, 4000},
	} {
		t.Run(string(m.rule), func(t *testing.T) {
			found := uint64(0)
			var first error
			var mu sync.Mutex
			forSeeds(m.most, func(seed uint64) bool {
				if m.rule == protocol.CountFromSending {
					seed += 10_000 // it takes a rare delay: begin near one
				}
				r := Run(Options{Seed: seed, Class: m.class, Mutant: m.rule})
				if r.Err == nil {
					return true
				}
				if whole := Run(Options{Seed: seed, Class: m.class}); whole.Err != nil {
					t.Errorf("with all rules in force: %v", whole.Err)
				}
				mu.Lock()
				defer mu.Unlock()
				found, first = seed, r.Err
				return false
			})
			if first == nil {
				t.Fatalf("nobody noticed in %d schedules", m.most)
			}
			t.Logf("noticed by seed %d: %v", found, first)
		})
	}
}
