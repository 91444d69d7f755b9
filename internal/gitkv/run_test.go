package gitkv

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/consul"
	"drover/internal/coord/etcd"
	"drover/internal/coord/mem"
	"drover/internal/coord/object"
	"drover/internal/event"
	storemem "drover/internal/objstore/mem"
	"drover/internal/testkit/consulserver"
	"drover/internal/testkit/etcdserver"
	"drover/internal/testkit/gitserver"
)

// agent is a running syncer of a lab, as in life: with the lease.
type agent struct {
	s      *Syncer
	client *mem.Client
	bus    *event.Bus
	stop   func()
}

func (l *lab) agent(name string, change func(*Options)) *agent {
	l.t.Helper()
	a := &agent{client: l.server.Open(), bus: event.NewBus(10)}
	o := Options{Coord: a.client, Repos: []Repo{l.repo}, Holder: name, Events: a.bus}
	if change != nil {
		change(&o)
	}
	var err error
	if a.s, err = New(o); err != nil {
		l.t.Fatal(err)
	}
	for _, w := range a.s.workers {
		w.source = l.git
	}
	return a
}

// run starts it; the test's end stops it.
func (a *agent) run(t *testing.T) {
	ctx, cancel := contextOf(t)
	var ran sync.WaitGroup
	ran.Go(func() {
		if err := a.s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	a.stop = sync.OnceFunc(func() {
		cancel()
		ran.Wait()
		_ = a.client.Close()
	})
	t.Cleanup(a.stop)
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, Repo{Poll: time.Minute})
		l.git.push("c1", files{"a": "1"})
		a := l.agent("a", nil)
		a.run(t)
		b := l.agent("b", nil)
		synctest.Wait()
		b.run(t)
		synctest.Wait()
		want(t, "at once", l.read("app/main"), files{"a": "1"})
		if !a.s.Status().Writer || b.s.Status().Writer {
			t.Error("the first is the writer, and alone")
		}
		l.git.push("c2", files{"a": "2"})
		time.Sleep(time.Minute)
		synctest.Wait()
		want(t, "after a poll", l.read("app/main"), files{"a": "2"})
		l.put("app/main/"+sha("c2")+"/a", "x")
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		want(t, "drift, after a while", l.read("app/main"), files{"a": "2"})
		status := a.s.Status().Repositories[0]
		if status.Error != "" || status.Targets[0].Commit != sha("c2") || time.Since(status.Looked) > 2*time.Minute {
			t.Errorf("status %+v", status)
		}
		e, _, err := a.bus.Subscribe(event.Options{Recent: 10, Queue: 10}).Next(t.Context())
		if err != nil || e.Name != "synced" || e.Source != "app" {
			t.Errorf("event %+v, %v", e, err)
		}
		a.stop()
		l.git.push("c3", files{"a": "3"})
		time.Sleep(time.Minute)
		synctest.Wait()
		want(t, "the other one took over", l.read("app/main"), files{"a": "3"})
		if !b.s.Status().Writer {
			t.Error("nobody is the writer")
		}
	})
}

// A call wakes the writer at once, whoever got it; a thousand calls make few looks.
func TestHookWakesTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, Repo{Poll: time.Hour})
		l.git.push("c1", files{"a": "1"})
		a, b := l.agent("a", nil), l.agent("b", nil)
		a.run(t)
		synctest.Wait()
		b.run(t)
		time.Sleep(10 * time.Second)
		for i, at := range []*agent{a, b} {
			name := string(rune('p' + i))
			l.git.push(name, files{"a": name})
			at.s.called(at.s.workers[0])
			time.Sleep(time.Second)
			synctest.Wait()
			want(t, "after the hook", l.read("app/main"), files{"a": name})
			time.Sleep(10 * time.Second)
		}
		lists := l.git.lists
		for range 1000 { // for ten seconds
			a.s.called(a.s.workers[0])
			b.s.called(b.s.workers[0])
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if n := l.git.lists - lists; n < 9 || n > 12 {
			t.Errorf("%d looks in ten seconds", n)
		}
	})
}

// While the coordinator or Git is away nothing happens; when they are back it goes on by itself.
func TestOutages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, Repo{Poll: time.Minute, RemoveDeleted: true})
		l.git.push("c1", files{"a": "1"})
		a := l.agent("a", nil)
		a.run(t)
		synctest.Wait()
		before := l.keys()
		l.server.SetAvailable(false)
		l.git.push("c2", files{"a": "2"})
		time.Sleep(10 * time.Minute)
		l.server.SetAvailable(true)
		synctest.Wait()
		for key, v := range before {
			if got := l.keys()[key]; got != v && key != "app/main/current" {
				t.Errorf("%s is %q", key, got)
			}
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		want(t, "the coordinator is back", l.read("app/main"), files{"a": "2"})
		l.git.fail(errors.New("gone"))
		l.git.push("c3", files{"a": "3"})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		want(t, "git is away", l.read("app/main"), files{"a": "2"})
		if s := a.s.Status().Repositories[0]; s.Error != "gone" || s.Targets[0].Commit != sha("c2") {
			t.Errorf("status %+v", s)
		}
		l.git.fail(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		want(t, "git is back", l.read("app/main"), files{"a": "3"})
		l.server.LoseLeases()
		l.git.push("c4", files{"a": "4"})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		want(t, "the lease was lost", l.read("app/main"), files{"a": "4"})
	})
}

func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, Repo{})
		l.git.push("c1", files{"a": "1"})
		a := l.agent("a", nil)
		defer a.client.Close()
		report, err := a.s.Once(t.Context())
		if err != nil || len(report.Targets) != 1 || !report.Targets[0].Changed || report.Targets[0].Written != 1 {
			t.Errorf("%+v, %v", report, err)
		}
		if holders, err := a.client.Holders(t.Context(), "git/git"); err != nil || len(holders) != 0 {
			t.Errorf("the lease is held by %v, %v", holders, err)
		}
		l.git.push("c2", files{})
		if report, err = a.s.Once(t.Context()); err == nil || report.Targets[0].Commit != sha("c1") || !strings.Contains(err.Error(), "no file") {
			t.Errorf("%+v, %v", report, err)
		}
		b := l.agent("b", nil)
		b.run(t)
		synctest.Wait()
		ctx, cancel := contextOf(t)
		time.AfterFunc(time.Minute, cancel)
		if _, err := a.s.Once(ctx); !errors.Is(err, ctx.Err()) || err == nil {
			t.Errorf("beside a writer: %v", err)
		}
	})
}

func TestBranchesTagsAndPatterns(t *testing.T) {
	l := newLab(t, Repo{Branches: []string{"main", "release/*"}, Tags: []string{"v?"}, Mountpoint: "m/n", Mode: InPlace})
	for i, ref := range []string{"refs/heads/main", "refs/heads/release/1", "refs/heads/other", "refs/heads/release/a/b", "refs/tags/v1", "refs/tags/v10"} {
		l.git.push(fmt.Sprintf("c%d", i), files{"a": ref}, ref)
	}
	w := l.writer("a")
	w.ok(true)
	want(t, "patterns", l.keys(), map[string]string{
		"m/n/app/main/a": "refs/heads/main", "m/n/app/main.ref": sha("c0"),
		"m/n/app/release/1/a": "refs/heads/release/1", "m/n/app/release/1.ref": sha("c1"),
		"m/n/app/v1/a": "refs/tags/v1", "m/n/app/v1.ref": sha("c4"),
	})
	l.git.push("c9", files{"a": "x"}, "refs/heads/v1", "refs/heads/release/2")
	l.repo.Branches = append(l.repo.Branches, "v1", "gone")
	targets, err := l.writer("b").pass(true)
	if err == nil {
		t.Error("a branch and a tag have one place, and nobody says so")
	}
	if got := l.keys()["m/n/app/v1/a"]; got != "x" {
		t.Errorf("the branch comes first, and has %q", got)
	}
	said := map[string]string{}
	for _, t := range targets {
		said[t.Ref] = t.Error
	}
	if !strings.Contains(said["refs/tags/v1"], "has the prefix") || !strings.Contains(said["refs/heads/gone"], "no such branch") || said["refs/heads/release/2"] != "" {
		t.Errorf("%v", said)
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		repo   Repo
		prefix string
	}{
		{Repo{}, "app/main"},
		{Repo{Mountpoint: "a/b"}, "a/b/app/main"},
		{Repo{Mountpoint: "a", OmitName: true}, "a/main"},
		{Repo{Mountpoint: "a", OmitBranch: true}, "a/app"},
		{Repo{Mountpoint: "a", OmitName: true, OmitBranch: true}, "a"},
		{Repo{OmitName: true, OmitBranch: true}, ""},
	} {
		for _, mode := range []Mode{Atomic, InPlace} {
			c.repo.Mode = mode
			l := newLab(t, c.repo)
			l.git.push("c1", files{"x/y": "1"})
			w := l.writer("a")
			w.ok(true)
			key := below(c.prefix, "x/y")
			if mode == Atomic {
				key = below(c.prefix, sha("c1")+"/x/y")
			}
			if l.keys()[key] != "1" {
				t.Errorf("%q, %s: %s", c.prefix, mode, line(l.keys()))
			}
			l.git.push("c2", files{"z": "1"})
			w.ok(true)
			w.ok(true)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for want, r := range map[string]Repo{
		"name":                {Name: "a//b"},
		"mountpoint":          {Mountpoint: "/a"},
		"ends with a slash":   {Mountpoint: "a/"},
		"no mode":             {Mode: "x"},
		"lists become":        {Arrays: "x"},
		"no branch":           {Branches: []string{}},
		"pattern":             {Branches: []string{"["}},
		"several branches":    {Branches: []string{"*"}, OmitBranch: true},
		"needs a secret":      {Hooks: []Hook{{Type: GitHub}}},
		"no web hooks of":     {Hooks: []Hook{{Type: "x", SecretFile: "f"}}},
		"begins with a slash": {Hooks: []Hook{{Type: GitHub, SecretFile: "f", Path: "x"}}},
		"two web hooks at":    {Hooks: []Hook{{Type: GitHub, SecretFile: "f"}, {Type: GitHub, SecretFile: "f"}}},
	} {
		if r.Name == "" {
			r.Name = "app"
		}
		if r.Branches == nil {
			r.Branches = []string{"main"}
		}
		r.Remote.URL = "https://example.com/app.git"
		client := mem.New()
		_, err := New(Options{Coord: client, Repos: []Repo{r}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", r, err, want)
		}
		_ = client.Close()
	}
}

// A branch that is gone keeps its keys; if they are to be removed, they are when it was not there twice.
func TestBranchIsGone(t *testing.T) {
	for _, mode := range []Mode{Atomic, InPlace} {
		for _, branches := range [][]string{{"main", "next"}, {"*"}} {
			for _, remove := range []bool{false, true} {
				l := newLab(t, Repo{Mode: mode, RemoveDeleted: remove, Branches: branches})
				l.git.push("c1", files{"a": "1"}, "refs/heads/main", "refs/heads/next")
				l.put("app/next/mine", "1")
				l.put("app/nextother", "1")
				w := l.writer("a")
				w.ok(true)
				before := l.keys()
				for range 3 { // now and then it is away for a moment
					l.git.remove("refs/heads/next")
					w.ok(false)
					l.git.push("c1", files{"a": "1"}, "refs/heads/next")
					w.ok(false)
				}
				want(t, "gone for a moment", l.keys(), before)
				l.git.remove("refs/heads/next")
				w.ok(false)
				want(t, "gone once", l.keys(), before)
				w = l.writer("b")
				targets := w.ok(false)
				if !targets[1].Missing || targets[1].Removed != remove {
					t.Errorf("told %+v", targets[1])
				}
				if !remove {
					want(t, "gone, kept", l.keys(), before)
					continue
				}
				for key := range before {
					if strings.HasPrefix(key, "app/next") && !strings.Contains(key, "other") && !strings.HasSuffix(key, "mine") {
						delete(before, key)
					}
				}
				want(t, "gone, removed", l.keys(), before)
				l.git.push("c1", files{"a": "1"}, "refs/heads/next")
				w.ok(false)
				if all := l.keys(); all["app/next/a"] != "1" && all["app/next/"+sha("c1")+"/a"] != "1" {
					t.Errorf("it is back, and its keys are not: %s", line(all))
				}
			}
		}
	}
}

// A server that shows no branch at all has perhaps lost them, or shows them to others.
func TestNoBranchAtAll(t *testing.T) {
	l := newLab(t, Repo{RemoveDeleted: true})
	l.git.push("c1", files{"a": "1"})
	w := l.writer("a")
	w.ok(true)
	before := l.keys()
	l.git.remove("refs/heads/main")
	for range 5 {
		if targets := w.ok(true); !targets[0].Missing || targets[0].Removed {
			t.Errorf("told %+v", targets[0])
		}
	}
	want(t, "no branch at all", l.keys(), before)
}

// Two repositories at one place: different keys are well, the same one is told.
func TestTwoRepositoriesAtOnePlace(t *testing.T) {
	l := newLab(t, Repo{})
	client := l.server.Open()
	defer client.Close()
	repo := func(name string) Repo {
		r := Repo{Name: name, Mode: InPlace, Mountpoint: "shared", OmitName: true, Branches: []string{name}}
		r.Remote.URL = "https://example.com/app.git"
		return r
	}
	start := func() *Syncer {
		s, err := New(Options{Coord: client, Repos: []Repo{repo("one"), repo("one/two")}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := start()
	pass := func(s *Syncer) string {
		said := ""
		for _, w := range s.workers {
			w.source = l.git
			w.begin("a")
			targets, err := w.pass(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			for _, t := range targets {
				said += t.Error
			}
		}
		return said
	}
	l.git.push("c1", files{"a": "1", "two/b": "1"}, "refs/heads/one")
	l.git.push("c2", files{"c": "2"}, "refs/heads/one/two")
	if said := pass(s); said != "" {
		t.Error(said)
	}
	want(t, "one in the other", l.keys(), map[string]string{
		"shared/one/a": "1", "shared/one/two/b": "1", "shared/one/two/c": "2", "shared/one.ref": sha("c1"), "shared/one/two.ref": sha("c2"),
	})
	l.git.push("c3", files{"b": "3"}, "refs/heads/one/two")
	for _, s := range []*Syncer{s, start()} {
		if said := pass(s); !strings.Contains(said, `key "shared/one/two/b" is made by`) {
			t.Errorf("said %q", said)
		}
	}
	if l.keys()["shared/one/two/b"] != "1" {
		t.Error("the later one has taken it")
	}
}

// All of it with a real Git server, its pushes and its web hooks.
func TestRealServer(t *testing.T) {
	for _, mode := range []Mode{Atomic, InPlace} {
		server := gitserver.Start(t, gitserver.Options{TLS: true, User: "git", Password: "s3cret"})
		repository := server.Create(t, "conf")
		l := newLab(t, Repo{Name: "conf", Mode: mode, Expand: true, Branches: []string{"main"}, Tags: []string{"*"}})
		l.repo.Remote.URL, l.repo.Remote.CAFile, l.repo.Remote.PasswordFile = repository.URL(), server.CAFile, server.PasswordFile
		client := l.server.Open()
		defer client.Close()
		s, err := New(Options{Coord: client, Repos: []Repo{l.repo}})
		if err != nil {
			t.Fatal(err)
		}
		see := func(what, ref string, wanted files) {
			t.Helper()
			report, err := s.Once(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := l.read("conf/" + ref)
			if mode == InPlace {
				got = map[string]string{}
				for key, v := range l.keys() {
					if rel, ok := strings.CutPrefix(key, "conf/"+ref+"/"); ok {
						got[rel] = v
					}
				}
			}
			want(t, what, got, wanted)
			for _, target := range report.Targets {
				if target.Ref == "refs/heads/main" && target.Commit != repository.Git("rev-parse", "main") {
					t.Errorf("%s: told %+v", what, target)
				}
			}
		}
		repository.Push("main", map[string]string{"a.json": `{"x": {"y": 1}}`, "dir/foo": "1\n", "dir/foobar/foo": "2"})
		see("first", "main", files{"a.json/x/y": "1", "dir/foo": "1", "dir/foobar/foo": "2"})
		repository.Tag("main", "v1", true)
		repository.Tag("main", "v2", false)
		repository.Push("main", map[string]string{"dir/foo": gitserver.Gone, "a.json": `{"x": {"z": 2}}`})
		see("second", "main", files{"a.json/x/z": "2", "dir/foobar/foo": "2"})
		see("a tag", "v1", files{"a.json/x/y": "1", "dir/foo": "1", "dir/foobar/foo": "2"})
		see("a light tag", "v2", files{"a.json/x/y": "1", "dir/foo": "1", "dir/foobar/foo": "2"})
		repository.Rewrite("main", "1")
		repository.Push("main", map[string]string{"b": "new"})
		see("forced", "main", files{"a.json/x/y": "1", "dir/foo": "1", "dir/foobar/foo": "2", "b": "new"})
		before := l.keys()
		server.Down(true)
		if _, err := s.Once(t.Context()); err == nil {
			t.Error("the server is down, and nothing is said")
		}
		server.Down(false)
		repository.Delete("v1")
		if _, err := s.Once(t.Context()); err != nil {
			t.Error(err)
		}
		want(t, "after all", l.keys(), before)
	}
}

// At rest the coordinator is not asked, however many branches there are.
func TestRestCostsNothing(t *testing.T) {
	for _, mode := range []Mode{Atomic, InPlace} {
		l := newLab(t, Repo{Mode: mode, Branches: []string{"*"}})
		for i := range 50 {
			l.git.push(fmt.Sprintf("c%d", i), files{"a": "1"}, fmt.Sprintf("refs/heads/b%d", i))
		}
		w := l.writer("a")
		if targets := w.ok(true); len(targets) != 50 {
			t.Errorf("%d targets", len(targets))
		}
		calls, fetches := w.kv.n, l.git.fetches
		for range 5 {
			if targets := w.ok(false); len(targets) != 50 || targets[7].Commit == "" || targets[7].Changed {
				t.Errorf("told %+v", targets)
			}
		}
		if w.kv.n != calls || l.git.fetches != fetches {
			t.Errorf("%d calls and %d fetches at rest", w.kv.n-calls, l.git.fetches-fetches)
		}
		w.ok(true)
		if l.git.fetches != fetches {
			t.Errorf("%d fetches to compare", l.git.fetches-fetches)
		}
		t.Logf("%s: %d calls to compare 50 branches", mode, w.kv.n-calls)
	}
}

// The same over each coordinator.
func TestEachCoordinator(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (coord.Coordinator, error){
		"memory": func(*testing.T) (coord.Coordinator, error) { return mem.New(), nil },
		"store":  func(*testing.T) (coord.Coordinator, error) { return object.New(storemem.New(), object.Options{}), nil },
		"consul": func(t *testing.T) (coord.Coordinator, error) {
			return consul.New(consul.Options{Address: consulserver.Start(t, consulserver.Options{}).Address})
		},
		"etcd": func(t *testing.T) (coord.Coordinator, error) {
			return etcd.Open(etcd.Options{Endpoints: etcdserver.Start(t, etcdserver.Options{}).Endpoints})
		},
	} {
		for _, mode := range []Mode{Atomic, InPlace} {
			t.Run(name+"/"+string(mode), func(t *testing.T) {
				c, err := open(t)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				overCoordinator(t, c, mode)
			})
		}
	}
}

// A Consul that is stopped and started again has lost no key.
func TestGit2consul126RealConsul(t *testing.T) {
	server := consulserver.Start(t, consulserver.Options{})
	c, err := consul.New(consul.Options{Address: server.Address})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, mode := range []Mode{Atomic, InPlace} {
		git := newGit()
		git.push("c1", many(100, "x"))
		repo := Repo{Name: string(mode), Mode: mode, Branches: []string{"main"}, RemoveDeleted: true}
		repo.Remote.URL = "https://example.com/app.git"
		s, err := New(Options{Coord: c, Repos: []Repo{repo}})
		if err != nil {
			t.Fatal(err)
		}
		w := s.workers[0]
		w.source = git
		if _, err := s.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		before, err := c.List(t.Context(), string(mode)+"/")
		if err != nil {
			t.Fatal(err)
		}
		git.push("c2", many(90, "y"))
		server.Stop()
		if targets, err := w.pass(t.Context(), true); !failed(targets, err) {
			t.Errorf("nobody is there, and it says %+v", targets)
		}
		server.StartAgain()
		after, err := c.List(t.Context(), string(mode)+"/")
		if err != nil || !coord.EqualPairs(before, after) {
			t.Errorf("%d keys were %d, %v", len(after), len(before), err)
		}
		if report, err := s.Once(t.Context()); err != nil || report.Targets[0].Commit != sha("c2") {
			t.Errorf("%+v, %v", report, err)
		}
	}
}

func overCoordinator(t *testing.T, c coord.Coordinator, mode Mode) {
	git := newGit()
	repo := Repo{Name: "app", Mode: mode, Branches: []string{"main"}, Keep: 1}
	repo.Remote.URL = "https://example.com/app.git"
	s, err := New(Options{Coord: c, Repos: []Repo{repo}})
	if err != nil {
		t.Fatal(err)
	}
	s.workers[0].source = git
	for _, step := range []struct {
		name string
		files
	}{{"c1", many(150, "x")}, {"c2", many(151, "y")}, {"c3", files{"a": "1", "b/c": "2"}}, {"c3", files{"a": "1", "b/c": "2"}}} {
		git.push(step.name, step.files)
		if _, err := s.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		prefix, extra := "app/main/", 0
		if mode == Atomic {
			prefix, extra = "app/main/"+sha(step.name)+"/", 1
		}
		all, err := c.List(t.Context(), "app/main/")
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, p := range all {
			if rel, ok := strings.CutPrefix(p.Key, prefix); ok {
				got[rel] = string(p.Value)
			}
		}
		want(t, step.name, got, step.files)
		if len(all) != len(step.files)+extra {
			t.Errorf("%s: %d keys in all", step.name, len(all))
		}
		if step.name == "c3" {
			if err := c.Delete(t.Context(), prefix+"a", nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A push, and the call that tells of it, end to end: the key is there long before the next poll.
func TestPushAndHook(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{})
	repository := server.Create(t, "conf")
	first := repository.Push("main", map[string]string{"a": "1"})
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, Repo{Name: "conf", Poll: time.Hour, Hooks: []Hook{{Type: Gitea, SecretFile: secret}}})
	l.repo.Remote.URL = repository.URL()
	a := &agent{client: l.server.Open()}
	var err error
	if a.s, err = New(Options{Coord: a.client, Repos: []Repo{l.repo}}); err != nil {
		t.Fatal(err)
	}
	hooks := httptest.NewServer(a.s.Hook())
	defer hooks.Close()
	a.run(t)
	moved := make(chan string, 10)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	var watch sync.WaitGroup
	watch.Go(func() {
		l.admin.Watch(ctx, "conf/main/current", true, func(all []coord.Pair, _ error) {
			for _, p := range all {
				moved <- string(p.Value)
			}
		})
	})
	defer watch.Wait()
	defer cancel()
	for i, commit := range []string{first, ""} {
		if i > 0 {
			commit = repository.Push("main", map[string]string{"a": "2"})
			call := gitserver.Hook{Forge: "gitea", URL: hooks.URL + "/conf/gitea", Secret: "s3cret", Body: []byte("{}")}
			r, err := call.Request(ctx)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := hooks.Client().Do(r)
			if err != nil || answer.StatusCode != http.StatusAccepted {
				t.Fatalf("%v, %v", answer, err)
			}
			_ = answer.Body.Close()
		}
		select {
		case tree := <-moved:
			if tree != commit {
				t.Errorf("current is %s, want %s", tree, commit)
			}
		case <-ctx.Done():
			t.Fatal("nothing came")
		}
	}
	want(t, "after the hook", l.read("conf/main"), files{"a": "2"})
}
