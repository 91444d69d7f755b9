package sim

import (
	"os"
	"strconv"
	"testing"
	"time"

	"drover/internal/failover"
)

// schedules is how many are played: DROVER_SOAK of them in a soak.
func schedules(t *testing.T, usual int) int {
	t.Helper()
	if s := os.Getenv("DROVER_SOAK"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return usual
}

func options(seed uint64) Options {
	modes := []failover.Mode{failover.On, failover.On, failover.Strict, failover.Off}
	o := Options{Seed: seed, Members: 2 + int(seed/4%4), Mode: modes[seed%4], Acks: 1 + int(seed/16%2), Faults: 30 * time.Second}
	if o.Mode == failover.Strict { // it asks for no more than there can be
		o.Acks = min(o.Acks, o.Members-1)
	}
	return o
}

func TestPromisesHold(t *testing.T) {
	n := schedules(t, 300)
	first := uint64(1)
	if s := os.Getenv("DROVER_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		o := options(v)
		o.Trace = func(line string) { t.Log(line) }
		if _, err := Run(o); err != nil {
			t.Fatal(err)
		}
		return
	}
	var sum Report
	failed := 0
	for seed := first; seed < first+uint64(n); seed++ {
		r, err := Run(options(seed))
		if err != nil {
			t.Error(err)
			if failed++; failed == 5 {
				break
			}
		}
		sum.Acked += r.Acked
		sum.Lost += r.Lost
		sum.Faults += r.Faults
		sum.Reigns += r.Reigns
	}
	t.Logf("%d schedules: %d faults, %d epochs, %d commits acknowledged, %d lost in mode off", n, sum.Faults, sum.Reigns, sum.Acked, sum.Lost)
}
