package gitkv

import (
	"errors"
	"fmt"
	"testing"
)

func many(n int, v string) files {
	f := files{}
	for i := range n {
		f[fmt.Sprintf("dir/%03d", i)] = v
	}
	return f
}

func TestAtomic(t *testing.T) {
	l := newLab(t, Repo{Mountpoint: "config", Keep: 2})
	w := l.writer("a")
	for i, f := range []files{{"a": "1", "b/c": "2"}, {"a": "1"}, many(300, "x"), {"a": "3"}} {
		name := fmt.Sprintf("c%d", i)
		l.git.push(name, f)
		targets := w.ok(false)
		want(t, name, l.read("config/app/main"), f)
		if targets[0].Commit != sha(name) || !targets[0].Changed || targets[0].Prefix != "config/app/main" {
			t.Errorf("told %+v", targets[0])
		}
		w.ok(false)
	}
	trees := map[string]string{"config/app/main/current": sha("c3"), "config/app/main/" + sha("c3") + "/a": "3"}
	for key, v := range many(300, "x") {
		trees["config/app/main/"+sha("c2")+"/"+key] = v
	}
	want(t, "two trees are kept", l.keys(), trees)
	writes := w.kv.writes
	w.ok(false)
	w.ok(true)
	if w.kv.writes != writes {
		t.Errorf("%d writes though nothing happened", w.kv.writes-writes)
	}
}

// Once more with a new writer, who knows nothing of before.
func TestAtomicGoesOn(t *testing.T) {
	l := newLab(t, Repo{})
	l.git.push("c1", files{"a": "1"})
	l.writer("a").ok(true)
	l.git.push("c2", files{"b": "2"})
	w := l.writer("b")
	w.ok(true)
	want(t, "the second", l.read("app/main"), files{"b": "2"})
	l.git.push("c1", files{"a": "1"}) // pushed by force: the first again
	w.ok(false)
	want(t, "forced back", l.read("app/main"), files{"a": "1"})
}

func TestDriftIsPutRight(t *testing.T) {
	l := newLab(t, Repo{})
	l.git.push("c1", files{"a": "1", "b": "2", "c": "3"})
	w := l.writer("a")
	w.ok(true)
	clean := l.keys()
	for name, change := range map[string]func(){
		"changed":         func() { l.put("app/main/"+sha("c1")+"/a", "x") },
		"deleted":         func() { l.del("app/main/" + sha("c1") + "/b") },
		"added":           func() { l.put("app/main/"+sha("c1")+"/new", "x") },
		"current deleted": func() { l.del("app/main/current") },
		"current changed": func() { l.put("app/main/current", "x") },
	} {
		for _, w := range []*writer{w, l.writer("other")} {
			change()
			targets := w.ok(true)
			want(t, name, l.keys(), clean)
			if targets[0].Drift != 1 {
				t.Errorf("%s: %d keys drifted, want 1", name, targets[0].Drift)
			}
		}
	}
	fetches := l.git.fetches
	w.ok(true)
	l.writer("a third").ok(true)
	if l.git.fetches != fetches {
		t.Error("it fetched to compare though nothing had changed")
	}
}

// An unknown repository is not an empty one.
func TestGitFails(t *testing.T) {
	for _, mode := range []Mode{Atomic, InPlace} {
		l := newLab(t, Repo{Mode: mode, RemoveDeleted: true})
		l.git.push("c1", files{"a": "1"})
		w := l.writer("a")
		w.ok(true)
		before := l.keys()
		l.git.fail(errors.New("gone fishing"))
		for range 5 {
			if _, err := w.pass(true); err == nil {
				t.Error("nothing was said")
			}
		}
		want(t, "git fails", l.keys(), before)
	}
}

// A commit that cannot be made into keys changes none.
func TestCommitIsRefused(t *testing.T) {
	for _, mode := range []Mode{Atomic, InPlace} {
		l := newLab(t, Repo{Mode: mode, Expand: true, OmitExtension: true, SourceRoot: "conf"})
		l.git.push("c1", files{"conf/a": "1"})
		w := l.writer("a")
		w.ok(true)
		before := l.keys()
		for name, f := range map[string]files{
			"not UTF-8":     {"conf/a": "1", "conf/caf\xe9": "x"},
			"no files":      {},
			"no such root":  {"a": "1"},
			"one key twice": {"conf/a": "1", "conf/b.json": `{"x":1}`, "conf/b.yaml": "x: 1"},
			"no printable":  {"conf/a": "1", "conf/a\nb": "x"},
			"a long name":   {"conf/a": "1", "conf/" + string(make([]byte, 600)): "x"},
		} {
			l.git.push("bad", f)
			if _, err := w.pass(true); err == nil {
				t.Errorf("%s: %s was taken", mode, name)
			}
			want(t, name, l.keys(), before)
			w.s.workers[0].targets["refs/heads/main"].bad = refused{}
		}
		fetches := l.git.fetches
		l.git.push("bad", files{})
		_, _ = w.pass(true)
		_, _ = w.pass(true)
		if l.git.fetches != fetches+1 {
			t.Error("it fetched what it had refused")
		}
		l.git.push("good", files{"conf/a": "2"})
		w.ok(false)
	}
}

func TestOptionsChangeTheTree(t *testing.T) {
	l := newLab(t, Repo{})
	l.git.push("c1", files{"a.json": `{"x":{"y":1}}`})
	l.writer("a").ok(true)
	want(t, "plain", l.read("app/main"), files{"a.json": `{"x":{"y":1}}`})
	l.repo.Expand = true
	l.writer("b").ok(false)
	want(t, "expanded", l.read("app/main"), files{"a.json/x/y": "1"})
	if l.keys()["app/main/current"] == sha("c1") {
		t.Error("the tree that was current has been changed")
	}
}

func TestModeIsNotChanged(t *testing.T) {
	l := newLab(t, Repo{})
	l.git.push("c1", files{"a": "1"})
	l.writer("a").ok(true)
	before := l.keys()
	l.repo.Mode = InPlace
	if _, err := l.writer("b").pass(true); err == nil {
		t.Error("keys of two modes at one place")
	}
	want(t, "the mode", l.keys(), before)
}
