package render

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/render/language"
)

// world is what a simulated engine sees: values that change, templates that read the
// first key and then those that its value names, files, and actions that fail at times.
type world struct {
	r       *rand.Rand
	specs   []spec
	s       state
	now     time.Duration
	values  map[string]int
	known   map[language.Dependency]int // what was told
	watched map[language.Dependency]bool
	files   []string
	results []string       // of the last execution
	late    []input        // answers that are on their way
	acted   map[string]int // by action: the number of the file that it last saw
	wrote   map[string]int // by action: the number of the last file that changed
	count   int
	t       *testing.T
}

const simulatedKeys = 6

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, r: rand.New(rand.NewPCG(seed, 7)), values: map[string]int{}, known: map[language.Dependency]int{},
		watched: map[language.Dependency]bool{}, acted: map[string]int{}, wrote: map[string]int{},
	}
	for i := range 1 + w.r.IntN(4) {
		w.specs = append(w.specs, spec{act: fmt.Sprint("act", i%2), wait: Wait{Min: time.Duration(w.r.IntN(3)) * time.Second, Max: 5 * time.Second}})
	}
	w.files, w.results = make([]string, len(w.specs)), make([]string, len(w.specs))
	w.s.templates = make([]templateState, len(w.specs))
	return w
}

func keyOf(i int) string { return fmt.Sprint("k", i%simulatedKeys) }

// run is template i: it reads key i, and the keys that its value names.
func (w *world) run(i int, lookup func(string) (int, bool)) (text string, used []language.Dependency, missing []language.Missing) {
	var words []string
	name := keyOf(i)
	for depth := 0; depth < 3; depth++ {
		used = append(used, key(name))
		v, ok := lookup(name)
		if !ok {
			return "", used, append(missing, language.Missing{Dependency: key(name)})
		}
		words = append(words, fmt.Sprint(name, "=", v))
		name = keyOf(v + depth + i)
	}
	return strings.Join(words, " "), used, nil
}

func (w *world) input(in input) {
	for _, a := range step(w.specs, &w.s, in, w.now) {
		switch a.kind {
		case watch:
			if w.watched[a.dep] {
				w.t.Fatalf("%v is watched twice", a.dep)
			}
			w.watched[a.dep] = true
			if w.r.IntN(4) == 0 {
				w.late = append(w.late, input{kind: failure, dep: a.dep, fault: "away"})
			}
			w.late = append(w.late, input{kind: value, dep: a.dep})
		case unwatch:
			delete(w.watched, a.dep)
			delete(w.known, a.dep)
		case execute:
			text, used, missing := w.run(a.template, func(name string) (int, bool) { v, ok := w.known[key(name)]; return v, ok })
			w.results[a.template] = text
			out := input{kind: executionEnded, template: a.template, used: used, missing: missing}
			if w.r.IntN(10) == 0 && len(missing) == 0 {
				out.fault = "cannot"
			}
			w.late = append([]input{out}, w.late...)
		case write:
			if len(w.s.templates[a.template].missing) > 0 {
				w.t.Fatal("a template that misses something is written")
			}
			out := input{kind: writeEnded, template: a.template}
			switch {
			case w.r.IntN(5) == 0:
				out.fault = "refused"
			case w.files[a.template] != w.results[a.template]:
				w.files[a.template], out.changed = w.results[a.template], true
				w.count++
				w.wrote[w.specs[a.template].act] = w.count
			}
			w.late = append(w.late, out)
		case act:
			name := w.specs[a.templates[0]].act
			out := input{kind: actEnded}
			if w.r.IntN(3) == 0 {
				out.fault = "no"
			} else {
				w.acted[name] = w.count
			}
			w.late = append(w.late, out)
		}
	}
}

// deliver gives one of the answers that are on their way. Those of an execution come
// first, as in the engine.
func (w *world) deliver() {
	i := 0
	if w.late[0].kind != executionEnded {
		i = w.r.IntN(len(w.late))
	}
	in := w.late[i]
	w.late = slices.Delete(w.late, i, i+1)
	if in.kind == value {
		if !w.watched[in.dep] {
			return
		}
		w.known[in.dep] = w.values[in.dep.Name]
	}
	w.input(in)
}

// change gives a key another value, and tells it to who watches.
func (w *world) change() {
	name := keyOf(w.r.IntN(simulatedKeys))
	w.values[name] = w.r.IntN(20)
	if w.watched[key(name)] {
		w.late = append(w.late, input{kind: value, dep: key(name)})
	}
}

// Whatever comes in whichever order, and whatever fails: in the end each file is the output
// of its template on the newest values, nothing else is watched, and each action has run
// since the last change that asks for it.
func TestSimulatedEngines(t *testing.T) {
	for seed := range uint64(3000) {
		w := newWorld(t, seed)
		for range 60 {
			switch w.r.IntN(4) {
			case 0:
				w.change()
			case 1:
				w.now += time.Duration(w.r.IntN(4000)) * time.Millisecond
			default:
				if len(w.late) > 0 {
					w.deliver()
				}
			}
			if len(w.late) == 0 || w.late[0].kind != executionEnded {
				w.input(input{kind: tick})
			}
		}
		for rounds := 0; ; rounds++ {
			if rounds > 10_000 {
				t.Fatalf("seed %d: it does not come to rest", seed)
			}
			if len(w.late) > 0 {
				w.deliver()
				continue
			}
			w.input(input{kind: tick})
			if len(w.late) > 0 {
				continue
			}
			at, is := w.s.next(w.specs)
			if !is {
				break
			}
			w.now = max(at, w.now)
		}
		w.check(seed)
		if t.Failed() {
			return
		}
	}
}

func (w *world) check(seed uint64) {
	needed := map[language.Dependency]bool{}
	for i := range w.specs {
		want, used, _ := w.run(i, func(name string) (int, bool) { return w.values[name], true })
		for _, d := range used {
			needed[d] = true
		}
		if w.files[i] != want {
			w.t.Errorf("seed %d: file %d is %q, want %q", seed, i, w.files[i], want)
		}
		if name := w.specs[i].act; w.acted[name] < w.wrote[name] {
			w.t.Errorf("seed %d: %s saw file %d, and the last is %d", seed, name, w.acted[name], w.wrote[name])
		}
	}
	if len(needed) != len(w.watched) {
		w.t.Errorf("seed %d: %d are watched, want %d", seed, len(w.watched), len(needed))
	}
	if !w.s.settled() {
		w.t.Errorf("seed %d: it is not settled", seed)
	}
}
