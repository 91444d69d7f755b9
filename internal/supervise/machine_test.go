package supervise

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"golang.org/x/sys/unix"
)

// The scripts under testdata have these commands:
//
//	jobs            one job a line: NAME [main] [grace=D] [signal=TERM]
//	                [restart=never|on-failure|always] [count=N] [delay=D] [max=D] [reset=D]
//	EVENT [NAME] [status=N] [left] [at=D]    one input; the time stands where it was unless given
func TestMachineScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var specs []Spec
		var state State
		var now time.Duration
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "jobs" {
				specs, now = parseSpecs(t, d.Input), 0
				state = State{Jobs: make([]JobState, len(specs))}
				return show(specs, state, nil)
			}
			in := Input{}
			for i, name := range eventNames {
				if name == d.Cmd {
					in.Event = Event(i)
				}
			}
			for _, arg := range d.CmdArgs {
				value := strings.Join(arg.Vals, "")
				switch arg.Key {
				case "status":
					fmt.Sscan(value, &in.Status)
				case "left":
					in.Left = true
				case "at":
					now = duration(t, value)
				default:
					in.Job = index(t, specs, arg.Key)
				}
			}
			var actions []Action
			state, actions = Step(specs, state, in, now)
			return show(specs, state, actions)
		})
	})
}

func parseSpecs(t *testing.T, text string) []Spec {
	var specs []Spec
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		spec := Spec{Name: words[0], StopSignal: unix.SIGTERM, StopGrace: 10 * time.Second}
		for _, word := range words[1:] {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "main":
				spec.Main = true
			case "grace":
				spec.StopGrace = duration(t, value)
			case "signal":
				spec.StopSignal = unix.SignalNum("SIG" + value)
			case "restart":
				spec.Restart.Policy = map[string]Policy{"never": Never, "on-failure": OnFailure, "always": Always}[value]
			case "count":
				fmt.Sscan(value, &spec.Restart.Count)
			case "delay":
				spec.Restart.Delay = duration(t, value)
			case "max":
				spec.Restart.Max = duration(t, value)
			case "reset":
				spec.Restart.Reset = duration(t, value)
			default:
				t.Fatalf("unknown word %q", word)
			}
		}
		specs = append(specs, spec)
	}
	return specs
}

func duration(t *testing.T, text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func index(t *testing.T, specs []Spec, name string) int {
	for i := range specs {
		if specs[i].Name == name {
			return i
		}
	}
	t.Fatalf("no job %q", name)
	return 0
}

func show(specs []Spec, state State, actions []Action) string {
	var b strings.Builder
	for _, a := range actions {
		fmt.Fprintf(&b, "-> %v", a.Act)
		switch a.Act {
		case Finish:
			fmt.Fprintf(&b, " status=%d", a.Status)
		case Signal, SignalRest:
			fmt.Fprintf(&b, " %s %s", specs[a.Job].Name, unix.SignalName(a.Signal))
		default:
			fmt.Fprintf(&b, " %s", specs[a.Job].Name)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%v:", state.Mode)
	for i, j := range state.Jobs {
		fmt.Fprintf(&b, " %s=%v", specs[i].Name, j.Phase)
		switch j.Phase {
		case Stopping, Clearing, Waiting:
			fmt.Fprintf(&b, "(until %v)", j.Due)
		case Ended:
			fmt.Fprintf(&b, "(%d)", j.Status)
		}
	}
	return b.String() + "\n"
}

// world is a dumb model of what the Supervisor does with the actions: it answers
// spawns and signals in any order and with any outcome, from a seed.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	specs   []Spec
	state   State
	now     time.Duration
	pending []Input // what may happen next, in any order
	alive   map[int]bool
	left    map[int]bool
	stopped bool
	killed  bool
	spawned int
}

func (w *world) step(in Input) {
	before := State{Mode: w.state.Mode, Seed: w.state.Seed, Jobs: append([]JobState(nil), w.state.Jobs...)}
	next, actions := Step(w.specs, w.state, in, w.now)
	if !reflect.DeepEqual(before, w.state) {
		w.t.Fatal("Step changed its argument")
	}
	w.state = next
	for _, a := range actions {
		w.act(a)
	}
}

func (w *world) act(a Action) {
	switch a.Act {
	case Spawn:
		if w.alive[a.Job] || w.left[a.Job] {
			w.t.Fatalf("job %d is started while it lives", a.Job)
		}
		if w.stopped || w.killed {
			w.t.Fatalf("job %d is started after the end was decided", a.Job)
		}
		w.spawned++
		if w.rng.IntN(5) == 0 {
			w.pending = append(w.pending, Input{Event: Failed, Job: a.Job, Status: 127})
			return
		}
		w.alive[a.Job] = true
		w.pending = append(w.pending, Input{Event: Started, Job: a.Job})
	case KillJob:
		if w.alive[a.Job] {
			w.exit(a.Job, 137)
		}
		w.pending = append(w.pending, Input{Event: Cleared, Job: a.Job})
	case Signal:
		if w.rng.IntN(2) == 0 {
			w.exit(a.Job, 0)
		}
	case Finish:
		if len(w.alive)+len(w.left) > 0 {
			w.t.Fatalf("finished while jobs %v live and %v are not cleared", w.alive, w.left)
		}
	}
}

func (w *world) exit(job, status int) {
	if !w.alive[job] {
		return
	}
	delete(w.alive, job)
	left := w.rng.IntN(3) == 0
	if left {
		w.left[job] = true
	}
	w.pending = append(w.pending, Input{Event: Exited, Job: job, Status: status, Left: left})
}

// next lets one thing happen. Exits of a job are never before its start.
func (w *world) next() {
	if len(w.pending) > 0 && w.rng.IntN(3) > 0 {
		i := w.rng.IntN(len(w.pending))
		in := w.pending[i]
		for k := range i {
			if w.pending[k].Job == in.Job {
				i, in = k, w.pending[k]
				break
			}
		}
		w.pending = append(w.pending[:i:i], w.pending[i+1:]...)
		if in.Event == Cleared {
			delete(w.left, in.Job)
		}
		w.step(in)
		return
	}
	switch w.rng.IntN(12) {
	case 0:
		w.exit(w.rng.IntN(len(w.specs)), w.rng.IntN(2))
	case 1:
		if w.rng.IntN(10) == 0 {
			w.stopped = true
			w.step(Input{Event: Stop})
		}
	case 2:
		if w.rng.IntN(10) == 0 {
			w.killed = true
			w.step(Input{Event: Kill})
		}
	default:
		if at, ok := w.state.Deadline(); ok {
			w.now = max(w.now, at)
			w.step(Input{Event: Tick})
		}
	}
}

// Whatever the order of things: no job is started while it lives or after the
// end was decided, and an end that was asked for comes.
func TestMachineSchedules(t *testing.T) {
	for seed := range uint64(5000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := &world{t: t, rng: rng, alive: map[int]bool{}, left: map[int]bool{}}
		for i := range 1 + rng.IntN(4) {
			w.specs = append(w.specs, Spec{
				Name: fmt.Sprint(i), Main: i == 0 && rng.IntN(2) == 0, StopGrace: time.Second,
				Restart: Restart{Policy: Policy(rng.IntN(3)), Count: rng.IntN(3)},
			})
		}
		w.state = State{Jobs: make([]JobState, len(w.specs)), Seed: seed}
		w.step(Input{Event: Start})
		for range 200 {
			w.next()
		}
		w.stopped = true
		w.step(Input{Event: Stop})
		for n := 0; w.state.Mode != Settled; n++ {
			if n > 2000 {
				t.Fatalf("seed %d: no end: %s", seed, show(w.specs, w.state, nil))
			}
			w.next()
		}
	}
}

func TestJitterStaysWithinAFifth(t *testing.T) {
	specs := []Spec{{Name: "j", Restart: Restart{Policy: Always}}}
	seen := map[time.Duration]bool{}
	for seed := range uint64(100) {
		state := State{Jobs: make([]JobState, 1), Seed: seed + 1}
		state, _ = Step(specs, state, Input{Event: Start}, 0)
		state, _ = Step(specs, state, Input{Event: Failed, Status: 1}, 0)
		due := state.Jobs[0].Due
		if due < 400*time.Millisecond || due > 600*time.Millisecond {
			t.Errorf("delay %v", due)
		}
		seen[due] = true
	}
	if len(seen) < 50 {
		t.Errorf("only %d different delays", len(seen))
	}
}
