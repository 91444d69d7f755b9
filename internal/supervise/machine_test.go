package supervise

import (
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"golang.org/x/sys/unix"
)

// The scripts under testdata have these commands:
//
//	jobs            one job a line: NAME [main] [grace=D] [signal=TERM] [stop-command] [kill-rest]
//	                [restart=never|on-failure|always] [count=N] [delay=D] [max=D] [reset=D]
//	                [timeout=D] [drain=D] [ready=D] [after=JOB:started|ready|healthy|completed|succeeded]
//	                [on=EVENT[:SOURCE]] [once=EVENT[:SOURCE]] [every=D] [turns] [early] [before-stop=JOB] [after-stop=JOB]
//	EVENT [NAME] [status=N] [left] [shut] [at=D]    one input; the time stands where it was unless given
//	happened EVENT[:SOURCE] [at=D]           an event from outside
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
				if d.Cmd == "happened" && arg.Key != "at" {
					in.Name, in.Source, _ = strings.Cut(arg.Key, ":")
					continue
				}
				switch arg.Key {
				case "shut":
					state.Shut = true
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

var milestones = map[string]Milestone{"started": WasStarted, "ready": WasReady, "healthy": WasHealthy, "completed": HasCompleted, "succeeded": HasSucceeded}

func parseSpecs(t *testing.T, text string) []Spec {
	var specs []Spec
	for line := range strings.Lines(text) {
		specs = append(specs, Spec{Name: strings.Fields(line)[0], StopSignal: unix.SIGTERM, StopGrace: 10 * time.Second})
	}
	i := 0
	for line := range strings.Lines(text) {
		for _, word := range strings.Fields(line)[1:] {
			parseWord(t, specs, &specs[i], word)
		}
		i++
	}
	return specs
}

func parseWord(t *testing.T, specs []Spec, spec *Spec, word string) {
	key, value, _ := strings.Cut(word, "=")
	name, source, _ := strings.Cut(value, ":")
	switch key {
	case "main":
		spec.Main = true
	case "stop-command":
		spec.StopBy = true
	case "kill-rest":
		spec.KillRest = true
	case "early":
		spec.Early = true
	case "turns":
		spec.Turns = true
	case "signal":
		spec.StopSignal = unix.SignalNum("SIG" + value)
	case "restart":
		spec.Restart.Policy = map[string]Policy{"never": Never, "on-failure": OnFailure, "always": Always}[value]
	case "count":
		fmt.Sscan(value, &spec.Restart.Count)
	case "ready":
		spec.TellsReady, spec.ReadyLimit = true, duration(t, value)
	case "after":
		spec.After = append(spec.After, After{index(t, specs, name), milestones[source]})
	case "on":
		spec.On = append(spec.On, Cause{name, source})
	case "once":
		spec.Once = append(spec.Once, Cause{name, source})
	case "before-stop":
		spec.BeforeStop = append(spec.BeforeStop, index(t, specs, value))
	case "after-stop":
		spec.AfterStop = append(spec.AfterStop, index(t, specs, value))
	default:
		to := map[string]*time.Duration{
			"grace": &spec.StopGrace, "delay": &spec.Restart.Delay, "max": &spec.Restart.Max, "reset": &spec.Restart.Reset,
			"timeout": &spec.Timeout, "drain": &spec.Drain, "every": &spec.Every,
		}[key]
		if to == nil {
			t.Fatalf("unknown word %q", word)
		}
		*to = duration(t, value)
	}
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
		case Emit:
			fmt.Fprintf(&b, " %s %s", a.Name, a.Source)
		case NeverStarts:
			fmt.Fprintf(&b, " %s because of %s", specs[a.Job].Name, a.Source)
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
		case Draining, Stopping, Clearing, Waiting:
			fmt.Fprintf(&b, "(until %v)", j.Due)
		case Ended:
			fmt.Fprintf(&b, "(%d)", j.Status)
		}
		for _, flag := range []struct {
			on   bool
			name string
		}{{j.Held, "held"}, {j.Pending, "due"}, {j.Closing, "closing"}, {j.Gone, "gone"}} {
			if flag.on {
				b.WriteString("," + flag.name)
			}
		}
	}
	return b.String() + "\n"
}

// world is a dumb model of what the Supervisor does with the actions: it answers
// spawns and signals in any order and with any outcome, from a seed.
type world struct {
	t        *testing.T
	rng      *rand.Rand
	specs    []Spec
	before   State
	log      []string
	state    State
	now      time.Duration
	pending  []Input // what may happen next, in any order
	alive    map[int]bool
	left     map[int]bool
	asked    map[int]bool // started by hand
	earlier  map[int]bool // its end was told before that of all was asked for
	stopped  bool
	killed   bool
	draining bool // no kill comes to help
	spawned  int
}

func (w *world) step(in Input) {
	before := State{Mode: w.state.Mode, Shut: w.state.Shut, Seed: w.state.Seed, Jobs: append([]JobState(nil), w.state.Jobs...)}
	next, actions := Step(w.specs, w.state, in, w.now)
	if !reflect.DeepEqual(before, w.state) {
		w.t.Fatal("Step changed its argument")
	}
	w.before, w.state = before, next
	w.log = append(w.log, fmt.Sprintf("%v %v job=%d alive=%v\n%s", w.now, in.Event, in.Job, w.alive, show(w.specs, w.state, actions)))
	for _, a := range actions {
		w.act(a)
	}
}

func (w *world) act(a Action) {
	switch a.Act {
	case Emit:
		if a.Name == EventStopping && w.before.Mode == Up {
			w.earlier[a.Job] = true
		}
	case Spawn:
		delete(w.earlier, a.Job)
		if w.alive[a.Job] || w.left[a.Job] {
			w.t.Fatalf("job %d is started while it lives", a.Job)
		}
		spec := &w.specs[a.Job]
		if w.killed || w.state.Mode != Up && !spec.hook() && !spec.caused() {
			w.t.Fatalf("job %d is started after the end was decided", a.Job)
		}
		for _, after := range spec.After {
			if w.state.Mode == Up && w.before.Jobs[a.Job].Phase == Idle && w.state.Jobs[after.Job].Reached&after.Is == 0 && !w.asked[a.Job] {
				w.t.Fatalf("job %d is started before %d has come so far", a.Job, after.Job)
			}
		}
		if w.state.Mode == Up && w.state.Shut && !spec.Early && !w.asked[a.Job] && w.before.Jobs[a.Job].Phase == Idle {
			w.t.Fatalf("job %d is started before the others may", a.Job)
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
	case Signal, RunStop:
		w.mayBeAsked(a.Job)
		if a.Act == RunStop && w.rng.IntN(3) == 0 {
			w.pending = append(w.pending, Input{Event: StopFailed, Job: a.Job})
		} else if w.rng.IntN(2) == 0 {
			w.exit(a.Job, 0)
		}
	case Replace:
		w.step(Input{Event: Replaced, Job: a.Job})
	case Finish:
		if len(w.alive)+len(w.left) > 0 {
			w.t.Log(strings.Join(w.log[max(0, len(w.log)-25):], ""))
			w.t.Fatalf("finished while jobs %v live and %v are not cleared", w.alive, w.left)
		}
	}
}

// mayBeAsked: on the way down no job is asked to end before those that came after it
// are gone, and the hooks before its stop have run.
func (w *world) mayBeAsked(job int) {
	if w.earlier[job] {
		return
	}
	for i := range w.specs {
		live := w.alive[i] || w.left[i]
		for _, after := range w.specs[i].After {
			if after.Job == job && live && w.state.Mode == Down && !w.state.Jobs[job].TimedOut {
				w.t.Fatalf("job %d is asked to end while %d, which came after it, lives", job, i)
			}
		}
		if contains(w.specs[i].BeforeStop, job) && live && w.state.Mode == Down && !w.state.Jobs[job].TimedOut && !w.state.Jobs[i].Pending {
			w.t.Fatalf("job %d is asked to end while the hook %d before that lives", job, i)
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
		// In the end nothing ends of itself: what should end must be asked, or limited.
		if job := w.rng.IntN(len(w.specs)); !w.draining || w.state.Jobs[job].Phase != Running {
			w.exit(job, w.rng.IntN(2))
		}
	case 1:
		if w.rng.IntN(10) == 0 {
			w.stopped = true
			w.step(Input{Event: Stop})
		}
	case 2:
		if w.rng.IntN(10) == 0 && !w.draining {
			w.killed = true
			w.step(Input{Event: Kill})
		}
	case 3, 4:
		in := Input{Event: Ready + Event(w.rng.IntN(3)), Job: w.rng.IntN(len(w.specs))}
		if w.alive[in.Job] {
			w.step(in)
		}
	case 5:
		if job := w.rng.IntN(len(w.specs)); w.alive[job] {
			w.step(Input{Event: Drained, Job: job})
		}
		if w.rng.IntN(3) == 0 {
			w.step(Input{Event: Open})
		}
		w.step(Input{Event: Happened, Name: "changed", Source: "w"})
		w.step(Input{Event: Turn, Job: w.rng.IntN(len(w.specs))})
	case 6:
		if w.rng.IntN(4) == 0 {
			in := Input{Event: StartJob + Event(w.rng.IntN(4)), Job: w.rng.IntN(len(w.specs))}
			w.asked[in.Job] = true
			w.step(in)
		}
	default:
		if at, ok := w.state.Deadline(w.specs); ok {
			w.now = max(w.now, at)
			w.step(Input{Event: Tick})
		}
	}
}

// randomSpecs are jobs with all kinds of conditions.
func randomSpecs(rng *rand.Rand) []Spec {
	var specs []Spec
	count := 1 + rng.IntN(6)
	for i := range count {
		spec := Spec{
			Name: fmt.Sprint(i), Main: i == 0 && rng.IntN(2) == 0, StopGrace: time.Second, StopBy: rng.IntN(5) == 0,
			Restart: Restart{Policy: Policy(rng.IntN(3)), Count: rng.IntN(3)}, TellsReady: rng.IntN(4) == 0, Early: rng.IntN(4) == 0,
		}
		if rng.IntN(3) == 0 {
			spec.Timeout, spec.ReadyLimit = time.Duration(rng.IntN(5))*time.Second, time.Duration(rng.IntN(5))*time.Second
		}
		if rng.IntN(4) == 0 {
			spec.Drain = time.Duration(1+rng.IntN(3)) * time.Second
		}
		for j := range i {
			if rng.IntN(3) == 0 && !specs[j].hook() {
				spec.After = append(spec.After, After{j, 1 << rng.IntN(5)})
			}
		}
		switch {
		case spec.Main:
		case rng.IntN(6) == 0:
			spec.On = []Cause{{"changed", ""}, {"exit", fmt.Sprint(rng.IntN(count))}}
		case rng.IntN(6) == 0: //nolint:gocritic // a new number
			spec.Once = []Cause{{EventShutdown, ""}}
		case rng.IntN(6) == 0: //nolint:gocritic // a new number
			spec.Every = time.Duration(1+rng.IntN(9)) * time.Second
		case rng.IntN(6) == 0: //nolint:gocritic // a new number
			spec.Turns = true
		case rng.IntN(4) == 0 && i > 0 && !specs[i-1].hook():
			spec.BeforeStop, spec.After = []int{i - 1}, nil
		case rng.IntN(4) == 0 && i > 0 && !specs[i-1].hook(): //nolint:gocritic // a new number
			spec.AfterStop, spec.After = []int{i - 1}, nil
		}
		specs = append(specs, spec)
	}
	return specs
}

// Whatever the order of things: no job is started while it lives, before its conditions
// hold, or after the end was decided; none is asked to end before those that need it
// have ended; and an end that was asked for comes.
func TestMachineSchedules(t *testing.T) {
	schedules := uint64(5000)
	if os.Getenv("DROVER_SOAK") != "" {
		schedules = 500_000
	}
	spawned := 0
	for seed := range schedules {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := &world{t: t, rng: rng, alive: map[int]bool{}, left: map[int]bool{}, asked: map[int]bool{}, earlier: map[int]bool{}, specs: randomSpecs(rng)}
		w.state = State{Jobs: make([]JobState, len(w.specs)), Seed: seed, Shut: rng.IntN(3) == 0}
		w.step(Input{Event: Start})
		for range 200 {
			w.next()
		}
		w.stopped, w.draining = true, true
		w.step(Input{Event: Stop})
		for n := 0; w.state.Mode != Settled; n++ {
			if n > 5000 {
				t.Fatalf("seed %d: no end: %s", seed, show(w.specs, w.state, nil))
			}
			w.next()
		}
		if len(w.alive) > 0 {
			t.Fatalf("seed %d: %v live after the end", seed, w.alive)
		}
		spawned += w.spawned
	}
	if spawned < int(schedules) {
		t.Errorf("only %d runs in %d schedules", spawned, schedules)
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
