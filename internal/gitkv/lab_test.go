package gitkv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"drover/internal/coord"
	"drover/internal/coord/mem"
	"drover/internal/gitkv/remote"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// files are the files of a commit.
type files map[string]string

// fakeGit is a repository in memory.
type fakeGit struct {
	mu      sync.Mutex
	refs    map[string]string
	commits map[string]files
	err     error // of every call
	lists   int
	fetches int
}

func newGit() *fakeGit { return &fakeGit{refs: map[string]string{}, commits: map[string]files{}} }

// sha makes a commit's name out of a short one.
func sha(name string) string { return strings.Repeat("0", 40-len(name)) + name }

// push makes a commit, and moves refs/heads/main, or the refs that are named, to it.
func (g *fakeGit) push(name string, f files, refs ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.commits[sha(name)] = f
	if len(refs) == 0 {
		refs = []string{"refs/heads/main"}
	}
	for _, ref := range refs {
		g.refs[ref] = sha(name)
	}
}

func (g *fakeGit) remove(ref string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.refs, ref)
}

func (g *fakeGit) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
}

func (g *fakeGit) Refs(context.Context) (map[string]string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lists++
	return maps.Clone(g.refs), g.err
}

func (g *fakeGit) Fetch(_ context.Context, ref string, want func(string) bool) (remote.Snapshot, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fetches++
	if g.err != nil {
		return remote.Snapshot{}, g.err
	}
	commit, ok := g.refs[ref]
	if !ok {
		return remote.Snapshot{}, remote.ErrGone
	}
	s := remote.Snapshot{Commit: commit}
	for _, path := range slices.Sorted(maps.Keys(g.commits[commit])) {
		if want(path) {
			s.Files = append(s.Files, remote.File{Path: path, Data: []byte(g.commits[commit][path])})
		}
	}
	return s, nil
}

// call is one call of a coordinator.
type call struct {
	n      int
	op     string
	key    string
	writes bool
}

// fault is what happens to a call: see faulty of objstore, which does this for stores.
type fault struct {
	before, after, late error
	first               func() // happens first: others are at work meanwhile
}

// faultyKV makes a coordinator fail, and counts.
type faultyKV struct {
	coord.Coordinator
	maxOps int

	mu     sync.Mutex
	script func(call) fault
	n      int
	writes int
	late   []func()
	then   func() // after each effect
}

func (f *faultyKV) MaxOps() int { return f.maxOps }

func (f *faultyKV) do(op, key string, writes bool, effect func() error) error {
	f.mu.Lock()
	f.n++
	if writes {
		f.writes++
	}
	c := call{f.n, op, key, writes}
	script, then := f.script, f.then
	f.mu.Unlock()
	var what fault
	if script != nil {
		what = script(c)
	}
	if what.first != nil {
		what.first()
	}
	if what.before != nil {
		return what.before
	}
	all := func() error {
		err := effect()
		if then != nil {
			then()
		}
		return err
	}
	if what.late != nil {
		f.mu.Lock()
		f.late = append(f.late, func() { _ = all() })
		f.mu.Unlock()
		return what.late
	}
	err := all()
	if what.after != nil {
		return what.after
	}
	return err
}

// deliver lets what is late happen.
func (f *faultyKV) deliver() {
	f.mu.Lock()
	late := f.late
	f.late = nil
	f.mu.Unlock()
	for _, effect := range late {
		effect()
	}
}

func (f *faultyKV) Get(ctx context.Context, key string) (p coord.Pair, err error) {
	err = f.do("get", key, false, func() error {
		p, err = f.Coordinator.Get(ctx, key)
		return err
	})
	if err != nil {
		return coord.Pair{}, err
	}
	return p, nil
}

func (f *faultyKV) List(ctx context.Context, prefix string) (all []coord.Pair, err error) {
	err = f.do("list", prefix, false, func() error {
		all, err = f.Coordinator.List(ctx, prefix)
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

func (f *faultyKV) Apply(ctx context.Context, ops []coord.Op) error {
	if len(ops) > f.maxOps {
		return coord.ErrTooLarge
	}
	ops = slices.Clone(ops)
	return f.do("apply", ops[0].Key, true, func() error { return f.Coordinator.Apply(ctx, ops) })
}

func (f *faultyKV) Put(ctx context.Context, key string, v []byte) (r coord.Revision, err error) {
	return r, errors.New("only a ledger guards a write: no put")
}

func (f *faultyKV) CompareAndSwap(context.Context, string, []byte, coord.Revision) (coord.Revision, error) {
	return "", errors.New("only a ledger guards a write: no swap")
}

func (f *faultyKV) Delete(context.Context, string, *coord.Revision) error {
	return errors.New("only a ledger guards a write: no delete")
}

// lab is a coordinator, a repository and writers.
type lab struct {
	t      testing.TB
	git    *fakeGit
	server *mem.Server
	admin  *mem.Client
	repo   Repo
	maxOps int
}

func newLab(t testing.TB, repo Repo) *lab {
	l := &lab{t: t, git: newGit(), server: mem.NewServer(), repo: repo, maxOps: 64}
	l.admin = l.server.Open()
	t.Cleanup(func() { _ = l.admin.Close() })
	if l.repo.Name == "" {
		l.repo.Name = "app"
	}
	if l.repo.Branches == nil && l.repo.Tags == nil {
		l.repo.Branches = []string{"main"}
	}
	l.repo.Remote.URL = "https://example.com/app.git"
	return l
}

// writer is one instance, and its coordinator.
type writer struct {
	l  *lab
	s  *Syncer
	kv *faultyKV
}

// writer starts an instance; its pass is called without the lease.
func (l *lab) writer(name string) *writer {
	l.t.Helper()
	client := l.server.Open()
	l.t.Cleanup(func() { _ = client.Close() })
	kv := &faultyKV{Coordinator: client, maxOps: l.maxOps}
	s, err := New(Options{Coord: kv, Repos: []Repo{l.repo}, Holder: name})
	if err != nil {
		l.t.Fatal(err)
	}
	s.workers[0].source = l.git
	s.workers[0].begin(name)
	return &writer{l, s, kv}
}

// pass makes one pass; the error is the first of all.
func (w *writer) pass(compare bool) ([]Target, error) {
	targets, err := w.s.workers[0].pass(w.l.t.Context(), compare)
	for _, t := range targets {
		if err == nil && t.Error != "" {
			err = errors.New(t.Error)
		}
	}
	return targets, err
}

func (w *writer) ok(compare bool) []Target {
	w.l.t.Helper()
	targets, err := w.pass(compare)
	if err != nil {
		w.l.t.Fatal(err)
	}
	return targets
}

// keys are all keys but the ledgers.
func (l *lab) keys() map[string]string {
	l.t.Helper()
	all, err := l.admin.List(context.Background(), "")
	if err != nil {
		l.t.Fatal(err)
	}
	found := map[string]string{}
	for _, p := range all {
		if !strings.HasPrefix(p.Key, "drover/git/") {
			found[p.Key] = string(p.Value)
		}
	}
	return found
}

// read is what a reader of atomic keys sees: the current tree.
func (l *lab) read(prefix string) map[string]string {
	all := l.keys()
	tree, ok := all[prefix+"/current"]
	if !ok {
		return nil
	}
	found := map[string]string{}
	for key, v := range all {
		if rel, ok := strings.CutPrefix(key, prefix+"/"+tree+"/"); ok {
			found[rel] = v
		}
	}
	return found
}

func (l *lab) put(key, v string) {
	l.t.Helper()
	if _, err := l.admin.Put(context.Background(), key, []byte(v)); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) del(key string) {
	l.t.Helper()
	if err := l.admin.Delete(context.Background(), key, nil); err != nil {
		l.t.Fatal(err)
	}
}

// want checks that two sets of keys are the same.
func want[M ~map[string]string](t testing.TB, what string, got map[string]string, wanted M) {
	t.Helper()
	if !maps.Equal(got, map[string]string(wanted)) {
		t.Errorf("%s: %s, want %s", what, line(got), line(wanted))
	}
}

func line(m map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, " %s=%.30q", strings.TrimLeft(key, "0"), m[key])
	}
	return "{" + strings.TrimSpace(b.String()) + "}"
}

func contextOf(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}
