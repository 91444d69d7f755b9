package sim

import (
	"os"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"drover/internal/failover"
)

// number is that of an environment variable; usual: if it is not set.
func number(t *testing.T, name string, usual uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return usual
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func options(seed uint64) Options {
	modes := []failover.Mode{failover.On, failover.On, failover.Strict, failover.Off}
	o := Options{
		Seed: seed, Members: []int{3, 2, 3, 5}[seed/4%4], Mode: modes[seed%4], Acks: []int{1, 2, 1, 1}[seed/16%4], Faults: 30 * time.Second,
	}
	o.Relay = seed/3%4 == 0 && o.Members > 2 && o.Acks < o.Members-1
	if o.Awake = seed/64%8 == 0; o.Mode == failover.Off {
		o.Awake = !o.Awake
	}
	if o.Mode == failover.Strict { // it asks for no more than there can be
		o.Acks = min(o.Acks, o.Members-1)
	}
	return o
}

// TestPromisesHold plays DROVER_SOAK schedules, from DROVER_FIRST on; DROVER_SEED traces one.
func TestPromisesHold(t *testing.T) {
	if seed := number(t, "DROVER_SEED", 0); seed != 0 {
		o := options(seed)
		o.Trace = func(line string) { t.Log(line) }
		if _, err := Run(o); err != nil {
			t.Fatal(err)
		}
		return
	}
	debug.SetGCPercent(400) // a schedule needs little, and soon nothing of it
	n, first := number(t, "DROVER_SOAK", 150), number(t, "DROVER_FIRST", 1)
	var sum Report
	for seed, failed := first, 0; seed < first+n && failed < 5; seed++ {
		r, err := Run(options(seed))
		if err != nil {
			t.Error(err)
			failed++
		}
		sum.Acked += r.Acked
		sum.Lost += r.Lost
		sum.Faults += r.Faults
		sum.Reigns += r.Reigns
		sum.Gap = max(sum.Gap, r.Gap)
	}
	if sum.Acked == 0 && n > 0 {
		t.Error("nothing was acknowledged")
	}
	t.Logf("%d schedules: %d faults, %d epochs, %d commits acknowledged, %d lost in mode off", n, sum.Faults, sum.Reigns, sum.Acked, sum.Lost)
}

// TestMutant plays until the first schedule that breaks a promise, see mutants_test.go.
func TestMutant(t *testing.T) {
	debug.SetGCPercent(400)
	n := number(t, "DROVER_MUTANT", 0)
	for seed := uint64(1); seed <= n; seed++ {
		if _, err := Run(options(seed)); err != nil {
			t.Fatalf("%d schedules: %.300v", seed, err)
		}
	}
}
