package check

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// The scripts under testdata have these commands:
//
//	check [every=D] [threshold=N] [start=D]    begins anew
//	inherit [at=D]                             another check takes this one's place
//	EVENT [at=D]                               one input; the time stands where it was unless given
func TestMachineScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var spec Spec
		var track Track
		var now time.Duration
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "check" {
				spec, track, now = Spec{Every: 10 * time.Second, Threshold: 3}, Track{}, 0
			}
			for _, arg := range d.CmdArgs {
				value := strings.Join(arg.Vals, "")
				switch arg.Key {
				case "every":
					spec.Every = duration(t, value)
				case "start":
					spec.StartPeriod = duration(t, value)
				case "threshold":
					fmt.Sscan(value, &spec.Threshold)
				case "at":
					now = duration(t, value)
				default:
					t.Fatalf("unknown word %q", arg.Key)
				}
			}
			var actions []Action
			switch i := slices.Index(eventNames[:], d.Cmd); {
			case i >= 0:
				track, actions = Step(spec, track, Event(i), now)
			case d.Cmd == "inherit":
				track = track.Inherit(now)
			case d.Cmd != "check":
				t.Fatalf("unknown command %q", d.Cmd)
			}
			return show(track, actions)
		})
	})
}

func duration(t *testing.T, text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func show(track Track, actions []Action) string {
	var b strings.Builder
	for _, a := range actions {
		fmt.Fprintf(&b, "-> %v\n", a)
	}
	fmt.Fprintf(&b, "%v since %v", track.Health, track.Since)
	if track.Failures > 0 {
		fmt.Fprintf(&b, ", failures %d", track.Failures)
	}
	fmt.Fprintf(&b, "; probe %v", track.Flight)
	if track.Up {
		fmt.Fprintf(&b, ", next %v", track.Next)
	}
	return b.String() + "\n"
}

// world answers the machine's probes in any order and with any outcome, from a
// seed, and works out what the check should say from all that has happened.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	spec    Spec
	track   Track
	now     time.Duration
	up      bool
	started time.Duration
	last    time.Duration // a probe began or returned
	flying  bool
	counts  bool   // the probe under way is of this run, and not given up
	lost    bool   // it was given up
	results []bool // that count, of this run, in order
}

func (w *world) step(e Event) {
	next := w.track.Next
	before, told := w.track.Health, false
	var actions []Action
	w.track, actions = Step(w.spec, w.track, e, w.now)
	if e == Tick && w.up && w.lost && w.now >= next {
		w.found(false)
	}
	for _, a := range actions {
		switch a {
		case Probe:
			if w.flying || !w.up {
				w.t.Fatalf("a probe is begun while one is under way (%v), or the job does not run (up: %v)", w.flying, w.up)
			}
			w.flying, w.counts, w.last = true, true, w.now
		case Cancel:
			if !w.flying || w.lost {
				w.t.Fatal("nothing to cancel")
			}
		case Changed:
			if told || w.track.Health == before {
				w.t.Fatalf("after %v: a change is told twice, or was none", e)
			}
			told = true
		}
	}
	if want := w.health(); w.track.Health != want {
		w.t.Fatalf("after %v: %v, want %v: %v, results %v", e, w.track.Health, want, w.track, w.results)
	}
	if !told && before != w.track.Health {
		w.t.Fatalf("after %v: a change is not told", e)
	}
}

// found notes a result. Failures in the start period are none, until a success.
func (w *world) found(ok bool) {
	lenient := w.now < w.started+w.spec.StartPeriod && !slices.Contains(w.results, true)
	if ok || !lenient {
		w.results = append(w.results, ok)
	}
}

func (w *world) health() Health {
	health, failures := Unknown, 0
	for _, ok := range w.results {
		failures++
		if ok {
			health, failures = Healthy, 0
		}
		if failures >= w.spec.Threshold {
			health = Unhealthy
		}
	}
	return health
}

func (w *world) next() {
	switch n := w.rng.IntN(20); {
	case n == 0:
		w.up, w.started, w.results = true, w.now, nil
		w.counts = false
		w.step(Start)
	case n == 1:
		w.up, w.counts, w.results = false, false, nil
		w.step(Stop)
	case n < 10 && w.flying:
		w.flying, w.last = false, w.now
		ok := w.rng.IntN(2) == 0
		if w.counts {
			w.found(ok)
		}
		w.counts, w.lost = false, false
		if ok {
			w.step(Passed)
		} else {
			w.step(Failed)
		}
	case n == 10 && w.flying && !w.lost:
		if w.up {
			w.found(false)
		}
		w.counts, w.lost = false, true
		w.step(Stuck)
	default:
		w.now += time.Duration(w.rng.IntN(int(w.spec.Every)))
		w.step(Tick)
		if late := w.now - w.last; w.up && !w.flying && late > 3*w.spec.Every {
			w.t.Fatalf("no probe for %v", late)
		}
	}
}

func TestMachineSchedules(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := &world{t: t, rng: rng, track: Track{Seed: seed}, spec: Spec{
			Every: 10 * time.Second, Threshold: 1 + rng.IntN(3), StartPeriod: time.Duration(rng.IntN(3)) * 20 * time.Second,
		}}
		for range 300 {
			w.next()
		}
	}
}

func TestJitterStaysWithinATenth(t *testing.T) {
	seen := map[time.Duration]bool{}
	track, _ := Step(Spec{Every: time.Second, Threshold: 1}, Track{Seed: 1}, Start, 0)
	var sum time.Duration
	const turns = 1000
	for range turns {
		now := track.Next
		track, _ = Step(Spec{Every: time.Second, Threshold: 1}, track, Tick, now)
		wait := track.Next - now
		if wait < 900*time.Millisecond || wait > 1100*time.Millisecond {
			t.Fatalf("a period of %v", wait)
		}
		seen[wait] = true
		sum += wait
	}
	if mean := sum / turns; len(seen) < 500 || mean < 990*time.Millisecond || mean > 1010*time.Millisecond {
		t.Errorf("%d different periods of %v on average", len(seen), mean)
	}
}
