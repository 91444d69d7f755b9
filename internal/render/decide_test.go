package render

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"drover/internal/render/language"
)

// The scripts under testdata/decide have these commands:
//
//	templates                  one a line: NAME [min=D] [max=D] [deadline=D] [act=KEY]
//	tick [at=D]                nothing more has happened until then
//	value DEP [at=D]           a dependency has a new value
//	failure DEP fault=X [never]
//	executed NAME [used=(A,B)] [missing=(C)] [fault=X]
//	wrote NAME [changed] [fault=X]
//	acted [fault=X]
//	again [at=D]               what failed is due
//
// The answer is what is to be done, then the templates that are not at rest, the actions
// that wait, and when something is due.
func TestDecideScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/decide", func(t *testing.T, path string) {
		var names []string
		var specs []spec
		var s state
		var now time.Duration
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "templates" {
				names, specs, now = nil, nil, 0
				for line := range strings.Lines(d.Input) {
					name, sp := readSpec(t, line)
					names, specs = append(names, name), append(specs, sp)
				}
				s = state{templates: make([]templateState, len(specs))}
				return show(names, specs, &s, nil, now)
			}
			var in input
			in, now = readInput(t, d, names, now)
			return show(names, specs, &s, step(specs, &s, in, now), now)
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

func readSpec(t *testing.T, line string) (string, spec) {
	var s spec
	words := strings.Fields(line)
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "min":
			s.wait.Min = duration(t, value)
		case "max":
			s.wait.Max = duration(t, value)
		case "deadline":
			s.deadline = duration(t, value)
		case "act":
			s.act = value
		default:
			t.Fatalf("no word %q", word)
		}
	}
	return words[0], s
}

func key(name string) language.Dependency {
	return language.Dependency{Kind: language.Key, Name: name}
}

var inputNames = map[string]inputKind{
	"tick": tick, "value": value, "failure": failure, "executed": executionEnded, "wrote": writeEnded, "acted": actEnded, "again": again,
}

func readInput(t *testing.T, d *datadriven.TestData, names []string, now time.Duration) (input, time.Duration) {
	kind, ok := inputNames[d.Cmd]
	if !ok {
		t.Fatalf("no command %q", d.Cmd)
	}
	in := input{kind: kind}
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "at":
			now = duration(t, arg.Vals[0])
		case "fault":
			in.fault = arg.Vals[0]
		case "never":
			in.never = true
		case "changed":
			in.changed = true
		case "used":
			for _, v := range arg.Vals {
				in.used = append(in.used, key(v))
			}
		case "missing":
			for _, v := range arg.Vals {
				in.missing = append(in.missing, language.Missing{Dependency: key(v)})
			}
		default:
			in.dep = key(arg.Key)
			in.template = max(0, slices.Index(names, arg.Key))
		}
	}
	return in, now
}

func show(names []string, specs []spec, s *state, actions []action, now time.Duration) string {
	var b strings.Builder
	for _, a := range actions {
		switch a.kind {
		case watch, unwatch:
			fmt.Fprintf(&b, "%s %s\n", map[actionKind]string{watch: "watch", unwatch: "unwatch"}[a.kind], a.dep.Name)
		case act:
			fmt.Fprintf(&b, "act for %s", nameAll(names, a.templates))
			if a.first {
				b.WriteString(" (first)")
			}
			b.WriteString("\n")
		default:
			fmt.Fprintf(&b, "%s %s\n", map[actionKind]string{execute: "execute", write: "write", tell: "late"}[a.kind], names[a.template])
		}
	}
	for i, t := range s.templates {
		fmt.Fprintf(&b, "  %s:%s\n", names[i], showTemplate(t))
	}
	for _, d := range s.order {
		if dep := s.deps[d]; !dep.known || dep.fault != "" {
			fmt.Fprintf(&b, "  %s unknown %s\n", d.Name, dep.fault)
		}
	}
	for _, a := range s.acts {
		fmt.Fprintf(&b, "  act %s for %s at %v %s\n", a.key, nameAll(names, a.templates), a.at, a.fault)
	}
	if at, is := s.next(specs); is {
		fmt.Fprintf(&b, "  next at %v\n", max(at, now))
	}
	if s.settled() {
		b.WriteString("  settled\n")
	}
	return b.String()
}

func nameAll(names []string, templates []int) string {
	var list []string
	for _, i := range templates {
		list = append(list, names[i])
	}
	return strings.Join(list, " ")
}

func showTemplate(t templateState) string {
	var words []string
	words = append(words, map[phase]string{idle: "", executing: "executing", executed: "executed", writing: "writing"}[t.phase])
	if t.rendered {
		words = append(words, "rendered")
	}
	if t.dirty {
		words = append(words, "dirty")
	}
	if len(t.missing) > 0 {
		var list []string
		for _, m := range t.missing {
			list = append(list, m.Name)
		}
		words = append(words, "misses "+strings.Join(list, ","))
	}
	if t.fault != "" {
		words = append(words, fmt.Sprintf("failed %d times: %s", t.tries, t.fault))
	}
	var uses []string
	for d := range maps.Keys(t.uses) {
		uses = append(uses, d.Name)
	}
	if len(uses) > 0 {
		slices.Sort(uses)
		words = append(words, "uses "+strings.Join(uses, ","))
	}
	text := strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), ", ")
	if text == "" {
		return ""
	}
	return " " + text
}
