package gitkv

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"drover/internal/coord"
)

// The crash test lives one life (five commits, one of them pushed by force; trees that grow old) once
// for every call that the writer makes of the coordinator, and every thing that may happen to that
// call. After each effect of any writer, a reader looks.

var errDead = errors.New("this process is dead")

type crashMode struct {
	name   string
	fault  fault
	dies   bool
	writes bool
}

func crashModes() []crashMode {
	lost := fmt.Errorf("lost: %w", coord.ErrUnavailable)
	return []crashMode{
		{name: "fails", fault: fault{before: lost}},
		{name: "answer-lost", fault: fault{after: lost}, writes: true},
		{name: "too-large", fault: fault{before: coord.ErrTooLarge}, writes: true},
		{name: "dies-before", fault: fault{before: errDead}, dies: true},
		{name: "dies-after", fault: fault{after: errDead}, dies: true},
		{name: "late", fault: fault{late: lost}, writes: true},
		{name: "dies-late", fault: fault{late: errDead}, dies: true, writes: true},
	}
}

// history is what is pushed, in order.
func history() []struct {
	name string
	files
} {
	big := many(13, "x")
	big["foo"], big["foobar/foo"] = "1", "2"
	changed := maps.Clone(big)
	for i := range 9 {
		changed[fmt.Sprintf("dir/%03d", i)] = "y"
	}
	delete(changed, "foo")
	return []struct {
		name string
		files
	}{
		{"c1", files{"a": "1", "foo": "1", "foobar/foo": "2"}},
		{"c2", big},
		{"c3", changed},
		{"c4", files{"a": "1", "foobar/foo": "3"}},
		{"c3", changed}, // by force
		{"c5", files{"a": "5"}},
	}
}

// play lives the life; look is called after each effect with the commits that may be seen: the
// one before, and the one that is being written. It returns how many calls were made, and whether the fault was met.
func (l *lab) play(at int, m crashMode, look func(old, now files)) (calls int, met bool) {
	var old, now files
	w := l.writer("first")
	dead := false
	script := func(c call) fault {
		switch {
		case dead:
			return fault{before: errDead}
		case c.n != at || m.writes && !c.writes:
			return fault{}
		}
		met, dead = true, m.dies
		return m.fault
	}
	then := func() { look(old, now) }
	w.kv.script, w.kv.then = script, then
	first := w
	until := func(compare bool) { // it is done
		for try := 0; ; try++ {
			_, err := w.pass(compare)
			switch {
			case err == nil:
				return
			case try > 3:
				l.t.Fatalf("it goes on failing: %v", err)
			case dead:
				w = l.writer(fmt.Sprintf("second%d", try))
				w.kv.then, dead = then, false
				first.kv.script = func(call) fault { return fault{before: errDead} }
			}
			if try == 1 {
				first.kv.deliver()
			}
		}
	}
	for i, c := range history() {
		l.git.push(c.name, c.files)
		old, now = now, c.files
		until(i%2 == 0)
		first.kv.deliver()
		until(true)
		look(now, now)
	}
	return first.kv.n, met
}

func (l *lab) exhaust(t *testing.T, make func(t *testing.T) *lab, look func(l *lab, old, now files), end func(l *lab)) {
	t.Helper()
	lives, points := 0, 0
	probe := make(t)
	calls, _ := probe.play(0, crashMode{}, func(old, now files) { look(probe, old, now) })
	end(probe)
	for at := 1; at <= calls; at++ {
		points++
		for _, m := range crashModes() {
			ok := t.Run(fmt.Sprintf("%s-%d", m.name, at), func(t *testing.T) {
				l := make(t)
				_, met := l.play(at, m, func(old, now files) { look(l, old, now) })
				end(l)
				if met {
					lives++
				}
			})
			if !ok {
				t.Fatalf("at call %d of %d", at, calls)
			}
		}
	}
	t.Logf("%d calls, %d lives with a fault", points, lives)
}

// TestKilledAtEveryCallAtomic: a reader sees the old or the new commit, whole.
func TestKilledAtEveryCallAtomic(t *testing.T) {
	var l *lab
	l.exhaust(t, func(t *testing.T) *lab {
		l := newLab(t, Repo{Keep: 2})
		l.maxOps = 6
		l.put("app/main/mine", "1")
		l.put("app/mainother/x", "1")
		return l
	}, func(l *lab, old, now files) {
		if got := files(l.read("app/main")); !maps.Equal(got, old) && !maps.Equal(got, now) {
			l.t.Errorf("a reader sees %s, neither %s nor %s", line(got), line(old), line(now))
		}
	}, func(l *lab) {
		trees := map[string]bool{}
		for key := range l.keys() {
			if rel, ok := strings.CutPrefix(key, "app/main/"); ok && rel != "mine" && rel != "current" {
				tree, _, _ := strings.Cut(rel, "/")
				trees[tree] = true
			}
		}
		if len(trees) != 2 || !trees[sha("c5")] || !trees[sha("c3")] {
			l.t.Errorf("in the end there are the trees %v", trees)
		}
		if all := l.keys(); all["app/main/mine"] != "1" || all["app/mainother/x"] != "1" {
			l.t.Error("a key of somebody else is gone")
		}
	})
}

// TestKilledAtEveryCallInPlace: each key has its old or its new value, and what fits into a transaction is
// seen whole.
func TestKilledAtEveryCallInPlace(t *testing.T) {
	for _, maxOps := range []int{6, 64} {
		t.Run(fmt.Sprint(maxOps), func(t *testing.T) {
			var l *lab
			l.exhaust(t, func(t *testing.T) *lab {
				l := newLab(t, Repo{Mode: InPlace})
				l.maxOps = maxOps
				l.put("app/main/mine", "1")
				l.put("app/main/foo/mine", "1")
				l.put("app/mainother", "1")
				return l
			}, func(l *lab, old, now files) {
				got := l.inPlace()
				if maxOps == 64 && !maps.Equal(got, old) && !maps.Equal(got, now) {
					l.t.Errorf("a reader sees %s, neither %s nor %s", line(got), line(old), line(now))
				}
				for key, v := range got {
					if v != old[key] && v != now[key] {
						l.t.Errorf("key %s is %q, which neither commit has", key, v)
					}
				}
				for key := range old {
					_, there := got[key]
					if _, both := now[key]; both && !there {
						l.t.Errorf("key %s of both commits is missing", key)
					} else if !both && !there {
						for key, v := range now {
							if got[key] != v {
								l.t.Errorf("something is deleted already, and key %s is not written yet", key)
							}
						}
					}
				}
			}, func(l *lab) {
				want(l.t, "in the end", l.keys(), map[string]string{
					"app/main/a": "5", "app/main.ref": sha("c5"),
					"app/main/mine": "1", "app/main/foo/mine": "1", "app/mainother": "1",
				})
			})
		})
	}
}

// inPlace are the keys that are made from files.
func (l *lab) inPlace() files {
	found := files{}
	for key, v := range l.keys() {
		if rel, ok := strings.CutPrefix(key, "app/main/"); ok && !strings.HasSuffix(rel, "mine") {
			found[rel] = v
		}
	}
	return found
}

// TestAbandoned: a writer dies at a call, and the branch has moved on when the next one comes. Nothing of
// the commit that was under way is left.
func TestAbandoned(t *testing.T) {
	for _, mode := range []Mode{Atomic, InPlace} {
		for at, met := 1, true; met; at++ {
			for _, m := range crashModes() {
				if !m.dies {
					continue
				}
				l := newLab(t, Repo{Mode: mode, Keep: 1})
				l.maxOps = 6
				met = l.abandon(at, m)
				wanted := map[string]string{"app/main/current": sha("c5"), "app/main/" + sha("c5") + "/a": "5"}
				if mode == InPlace {
					wanted = map[string]string{"app/main/a": "5", "app/main.ref": sha("c5")}
				}
				want(t, fmt.Sprintf("%s, %s at call %d", mode, m.name, at), l.keys(), wanted)
			}
		}
	}
}

func (l *lab) abandon(at int, m crashMode) (met bool) {
	first := l.writer("first")
	first.kv.script = func(c call) fault {
		switch {
		case met:
			return fault{before: errDead}
		case c.n == at:
			met = true
			return m.fault
		}
		return fault{}
	}
	for _, c := range history()[:4] {
		if l.git.push(c.name, c.files); !met {
			_, _ = first.pass(true)
		}
	}
	l.git.push("c5", files{"a": "5"})
	first.kv.deliver()
	l.writer("second").ok(true)
	return met
}

// TestPausedAndDeposed: a writer sleeps before a call, another one takes over, and the first one wakes. What it
// still sends changes nothing that the other has made, wherever the branch went meanwhile.
func TestPausedAndDeposed(t *testing.T) {
	for _, mode := range []Mode{Atomic, InPlace} {
		points := 0
		for _, late := range []bool{false, true} {
			for at := 1; ; at++ {
				met := false
				ok := t.Run(fmt.Sprintf("%s-%d-%v", mode, at, late), func(t *testing.T) {
					met = pausedAt(t, mode, at, late)
				})
				if !met || !ok {
					break
				}
				points++
			}
		}
		t.Logf("%s: %d points", mode, points)
	}
}

func pausedAt(t *testing.T, mode Mode, at int, late bool) (met bool) {
	l := newLab(t, Repo{Mode: mode, Keep: 1})
	l.maxOps = 6
	first, all := l.writer("first"), history()
	var taken map[string]string
	takeOver := func() {
		met = true
		second := l.writer("second")
		for _, c := range all[2:5] {
			l.git.push(c.name, c.files)
			second.ok(true)
		}
		taken = l.keys()
	}
	first.kv.script = func(c call) fault {
		switch {
		case c.n != at:
			return fault{}
		case late && c.writes:
			return fault{late: fmt.Errorf("lost: %w", coord.ErrUnavailable), first: takeOver}
		case late:
			met = true // a read has nothing that could come late
			return fault{}
		}
		return fault{first: takeOver}
	}
	for _, c := range all[:4] { // the fourth is larger than a batch, and so is what it removes
		if taken != nil {
			break
		}
		l.git.push(c.name, c.files)
		_, _ = first.pass(true)
	}
	first.kv.deliver()
	if taken != nil {
		want(t, "after the first one woke", l.keys(), taken)
		_, _ = first.pass(true) // it may be elected again
		want(t, "after it went on", l.keys(), taken)
	}
	return met
}

// TestRemovalFails: the removal of a branch's keys fails at a call. It is finished by the next look; if the
// branch is back by then, so are its keys.
func TestRemovalFails(t *testing.T) {
	lost := fmt.Errorf("lost: %w", coord.ErrUnavailable)
	points := 0
	for _, mode := range []Mode{Atomic, InPlace} {
		for _, f := range []fault{{before: lost}, {after: lost}} {
			for _, back := range []bool{false, true} {
				for at, met := 1, true; met; at++ {
					l := newLab(t, Repo{Mode: mode, RemoveDeleted: true, Branches: []string{"*"}})
					l.maxOps = 6
					l.git.push("keep", files{"a": "1"}, "refs/heads/keep")
					w := l.writer("a")
					w.ok(true)
					wanted := l.keys()
					l.git.push("c1", many(20, "x"))
					w.ok(true)
					if back {
						wanted = l.keys()
					}
					l.git.remove("refs/heads/main")
					w.ok(false)
					met = false
					first := w.kv.n
					w.kv.script = func(c call) fault {
						if c.n != first+at {
							return fault{}
						}
						met = true
						return f
					}
					_, err := w.pass(false)
					w.kv.script = nil
					if back {
						l.git.push("c1", many(20, "x"))
					}
					if err != nil || back {
						w.ok(false)
					}
					if !back { // a ledger that was removed, though nobody heard of it
						w.ok(true)
					}
					want(t, fmt.Sprintf("%s, call %d, back: %v", mode, at, back), l.keys(), wanted)
					points++
				}
			}
		}
	}
	t.Logf("%d points", points)
}
