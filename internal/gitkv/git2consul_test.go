package gitkv

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"drover/internal/coord"
)

// What went wrong with git2consul, by the numbers of its issues. That of lists (71) is
// TestGit2consul71Arrays, of changes by hand that stayed (153) TestDriftIsPutRight.

// 126: without a leader reads failed, the local copy was thought to be damaged, and keys were deleted.
func TestGit2consul126NoLeader(t *testing.T) {
	for _, mode := range []Mode{Atomic, InPlace} {
		l := newLab(t, Repo{Mode: mode, Expand: true, RemoveDeleted: true})
		all := files{"a": "1", "b.json": `{"x": 1, "y": {"z": 2}}`, "dir/c": "3"}
		l.git.push("c1", all)
		l.writer("a").ok(true)
		before := l.keys()
		lost := fmt.Errorf("no cluster leader: %w", coord.ErrUnavailable)
		for at := 1; at < 30; at++ { // from some call on, for good
			w := l.writer("b")
			w.kv.script = func(c call) fault {
				if c.n >= at {
					return fault{before: lost}
				}
				return fault{}
			}
			for range 3 {
				_, _ = w.pass(true)
			}
			want(t, fmt.Sprintf("%s, no leader from call %d on", mode, at), l.keys(), before)
		}
		changed := maps.Clone(all)
		changed["a"] = "2"
		l.git.push("c2", changed)
		w := l.writer("c")
		for at := 1; at < 30; at++ { // an election, at one call after another
			w.kv.script = func(c call) fault {
				if c.n%30 == at {
					return fault{before: lost}
				}
				return fault{}
			}
			_, _ = w.pass(true)
			for key := range before {
				if _, ok := l.keys()[key]; !ok {
					t.Errorf("%s: key %s was deleted", mode, key)
				}
			}
		}
	}
}

// 118: foo.txt was removed, and so was foobar/foo, which begins with the same letters.
func TestGit2consul118FooAndFoobar(t *testing.T) {
	for _, mode := range []Mode{Atomic, InPlace} {
		l := newLab(t, Repo{Name: "config", Mode: mode, Expand: true, OmitExtension: true, OmitBranch: true})
		see := func(wanted files) {
			t.Helper()
			got := l.read("config")
			if mode == InPlace {
				got = map[string]string{}
				for key, v := range l.keys() {
					if rel, ok := strings.CutPrefix(key, "config/"); ok && rel != "main.ref" {
						got[rel] = v
					}
				}
			}
			want(t, string(mode), got, wanted)
		}
		l.git.push("c1", files{"foo.txt": "foo", "foo.yml": "a: 1", "foo-dev.yml": "a: 2"})
		w := l.writer("a")
		w.ok(true)
		see(files{"foo.txt": "foo", "foo/a": "1", "foo-dev/a": "2"})
		l.git.push("c2", files{"foo.txt": "foo", "foo.yml": "b: 1", "foo-dev.yml": "a: 2", "foobar/foo.txt": "foo"})
		w.ok(true)
		see(files{"foo.txt": "foo", "foo/b": "1", "foo-dev/a": "2", "foobar/foo.txt": "foo"})
		l.git.push("c3", files{"foo-dev.yml": "a: 2", "foobar/foo.txt": "foo"})
		w.ok(true)
		see(files{"foo-dev/a": "2", "foobar/foo.txt": "foo"})
	}
}

// 159: a push of some thousand keys was there half for ten seconds.
func TestGit2consul159HalfAPush(t *testing.T) {
	l := newLab(t, Repo{})
	w := l.writer("a")
	seen := map[string]int{}
	w.kv.then = func() {
		all := l.read("app/main")
		distinct := map[string]bool{}
		for _, v := range all {
			distinct[v] = true
		}
		if len(all) != 0 && (len(all) != 1000 || len(distinct) != 1) {
			t.Errorf("a reader sees %d keys of %d commits", len(all), len(distinct))
		}
		for v := range distinct {
			seen[v]++
		}
	}
	for _, v := range []string{"x", "y"} {
		l.git.push("c"+v, many(1000, v))
		w.ok(true)
	}
	if seen["x"] < 10 || seen["y"] == 0 {
		t.Errorf("the commits were seen %v times", seen)
	}
}

// In place, what fits into a transaction is never there half.
func TestGit2consul159InPlace(t *testing.T) {
	l := newLab(t, Repo{Mode: InPlace})
	w := l.writer("a")
	w.kv.then = func() {
		distinct := map[string]bool{}
		for _, v := range l.inPlace() {
			distinct[v] = true
		}
		if len(distinct) > 1 {
			t.Error("a reader sees two commits")
		}
	}
	for _, v := range []string{"x", "y"} {
		l.git.push("c"+v, many(60, v))
		if targets := w.ok(true); targets[0].Parts {
			t.Error("it was written in parts")
		}
	}
	l.git.push("big", many(100, "z"))
	w.kv.then = nil
	if targets := w.ok(true); !targets[0].Parts {
		t.Error("it was written in parts, and nobody says so")
	}
}

// Keys that are there already are taken over if Git has them, and stay if not: so it goes on where
// git2consul was stopped.
func TestTakesOverFromGit2consul(t *testing.T) {
	l := newLab(t, Repo{Name: "vp_config", Mode: InPlace, Expand: true})
	for key, v := range map[string]string{
		"vp_config/main/same.json/a": "1", "vp_config/main/changed": "old", "vp_config/main/mine": "x",
		"vp_config/main.ref": "6c8b2f0", "vp_config/mainly": "x",
	} {
		l.put(key, v)
	}
	l.git.push("c1", files{"same.json": `{"a": 1}`, "changed": "new"})
	w := l.writer("a")
	if targets := w.ok(true); targets[0].Written != 2 || targets[0].Others != 1 {
		t.Errorf("told %+v", targets[0])
	}
	wanted := map[string]string{
		"vp_config/main/same.json/a": "1", "vp_config/main/changed": "new", "vp_config/main/mine": "x",
		"vp_config/main.ref": sha("c1"), "vp_config/mainly": "x",
	}
	want(t, "taken over", l.keys(), wanted)
	l.git.push("c2", files{"changed": "new"})
	w.ok(true)
	delete(wanted, "vp_config/main/same.json/a")
	wanted["vp_config/main.ref"] = sha("c2")
	want(t, "goes on", l.keys(), wanted)
}
