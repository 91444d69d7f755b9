package lifetime

import (
	"testing"
	"time"
)

// A thousand agents with ten polled secrets and a lease each, at one Vault that is away for
// five minutes: what they ask for, second by second. Leases of a minute all end meanwhile.
func TestHerd(t *testing.T) {
	for _, lease := range []time.Duration{time.Hour, time.Minute} {
		t.Run(lease.String(), func(t *testing.T) { herd(t, lease) })
	}
}

func herd(t *testing.T, lease time.Duration) {
	const (
		agents, secrets = 1000, 10
		away, back      = 20 * time.Minute, 25 * time.Minute
		end             = 40 * time.Minute
	)
	second := make([]int, int(end/time.Second)+1)
	var now time.Duration
	var tell func(m *Machine, in Input)
	tell = func(m *Machine, in Input) {
		for _, a := range m.Step(in, now) {
			second[now/time.Second]++
			out := Input{What: a.What, ID: a.ID, Generation: a.Generation, Sent: now, Life: Polled}
			switch {
			case now >= away && now < back:
				out.Failure = Away
			case a.What == Login || a.What == Extend:
				out.TTL, out.Renewable, out.Checkable = time.Hour, true, true
			case a.What == Renew || a.What == Fetch && a.ID == 0:
				out.TTL, out.Renewable, out.Life = lease, true, Leased
			}
			tell(m, out)
		}
	}
	machines := make([]*Machine, agents)
	next := make([]time.Duration, agents)
	for i := range machines {
		machines[i] = New(5*time.Minute, uint64(i)+1)
		for id := range secrets + 1 {
			tell(machines[i], Input{What: Watch, ID: id})
		}
	}
	for ; now < end; now += 100 * time.Millisecond {
		for i, m := range machines {
			if next[i] > now {
				continue
			}
			tell(m, Input{What: Tick})
			at, ok := m.Next()
			if !ok {
				t.Fatal("nothing is to be done")
			}
			next[i] = at
		}
	}
	peak := func(from, to time.Duration) int {
		most := 0
		for _, n := range second[from/time.Second : to/time.Second] {
			most = max(most, n)
		}
		return most
	}
	rest, first, outage, after := peak(15*time.Minute, away), peak(away, away+time.Minute), peak(away+time.Minute, back), peak(back, end)
	t.Logf("requests in the busiest second: at rest %d, in the first minute in which nobody answers %d, later %d, afterwards %d", rest, first, outage, after)
	if first > agents*3/4 || outage > agents/5 || after > agents/2 {
		t.Errorf("a herd: at rest %d, in the first minute in which nobody answers %d, later %d, afterwards %d", rest, first, outage, after)
	}
}
