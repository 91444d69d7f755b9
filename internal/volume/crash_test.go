package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
	"drover/internal/objstore/retry"
	"drover/internal/repo"
	"drover/internal/repo/restore"
	"drover/internal/volume/protocol"
)

// The crash test lives one short life of a volume (init, claim, commits, loss of
// the server, takeover, commit, release) once for every call that it makes to
// the store and every thing that may happen to that call.

const crashTTL = 300 * time.Millisecond

// point is one call of a life: the nth of its method on keys of its kind.
// (Polls and parallel uploads make plain counting differ from life to life.)
type point struct {
	step string // of the long life
	op   faulty.Op
	kind string
	n    int
}

func (p point) String() string {
	return strings.TrimPrefix(fmt.Sprintf("%s-%s-%s-%d", p.step, p.op, p.kind, p.n), "-")
}

// kindOfKey drops what is random in a key.
func kindOfKey(key string) string {
	kind := strings.TrimPrefix(key, "drover/")
	kind, _, _ = strings.Cut(kind, "/")
	return kind
}

// mode is what happens to the call.
type mode struct {
	name   string
	fault  faulty.Fault
	dies   bool // and the process ends there, sending nothing more
	writes bool // makes sense for writes only
	soak   bool // only in the long run
	after  int  // a late effect comes when so many more calls were made; 0: when the next server has started
}

var errDead = errors.New("this process is dead")

func modes() []mode {
	lost := fmt.Errorf("lost: %w", objstore.ErrUnavailable)
	return []mode{
		{name: "fails", fault: faulty.Fault{Before: lost}},
		{name: "answer-lost", fault: faulty.Fault{After: lost}, writes: true},
		{name: "hangs", fault: faulty.Fault{Hang: true}},
		{name: "hangs-done", fault: faulty.Fault{Stuck: true}, writes: true, soak: true},
		{name: "dies-before", fault: faulty.Fault{Before: errDead}, dies: true},
		{name: "dies-after", fault: faulty.Fault{After: errDead}, dies: true, writes: true},
		{name: "twice", fault: faulty.Fault{Twice: true}, writes: true},
		{name: "late", fault: faulty.Fault{Late: lost}, writes: true, after: 2},
		{name: "late-takeover", fault: faulty.Fault{Late: lost}, writes: true},
	}
}

// life is one play of the script.
type life struct {
	t     *testing.T
	dir   string
	base  *mem.Store
	view  *faulty.Store
	store objstore.Store // what the servers use

	mu      sync.Mutex
	step    string        // of the long life
	counts  map[point]int // n is 0 in the keys
	at      point         // where the fault is; n is 0: nowhere
	mode    mode
	fired   bool
	pending int // calls until a late effect comes; -1: not by counting
	dead    chan struct{}
	died    atomic.Bool

	password string
	states   []state // what was on a server's disk when a backup was asked for, oldest first
}

type state struct {
	files    map[string]string
	snapshot string // acknowledged as; "": not
	settled  bool   // a later server started on it, or it was acknowledged
}

func newLife(t *testing.T, at point, m mode) *life {
	l := &life{t: t, dir: fastDir(t), base: newStore(t), at: at, mode: m, counts: map[point]int{}, dead: make(chan struct{}), pending: -1, password: password}
	l.states = []state{{files: map[string]string{}, settled: true}}
	l.view = faulty.New(l.base, l.script)
	l.store = retry.New(l.view, retry.Options{
		First: 2 * time.Millisecond, Cap: 10 * time.Millisecond, Base: 150 * time.Millisecond, Unknown: 1,
	})
	return l
}

func (l *life) script(c faulty.Call) faulty.Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending >= 0 {
		if l.pending--; l.pending < 0 {
			l.deliver()
		}
	}
	p := point{step: l.step, op: c.Op, kind: kindOfKey(c.Key)}
	l.counts[p]++
	p.n = l.counts[p]
	switch {
	case l.died.Load():
		return faulty.Fault{Before: errDead}
	case l.fired || p != l.at:
		return faulty.Fault{}
	}
	l.fired = true
	if l.mode.fault.Late != nil && l.mode.after > 0 {
		l.pending = l.mode.after
	}
	if l.mode.dies {
		l.died.Store(true)
		close(l.dead)
	}
	return l.mode.fault
}

// deliver lets late effects happen; what the store says to them nobody hears.
func (l *life) deliver() {
	for l.view.Late() > 0 {
		_ = l.view.Deliver(0)
	}
}

// actor is one server's process.
type actor struct {
	l      *life
	id     string
	state  string // the same path on every server
	data   *DataDir
	rt     *Runtime
	jobs   *fakeJobs
	cancel context.CancelFunc
	ended  chan error
}

// replace takes the disk of the server before away.
func (l *life) replace() {
	if err := os.RemoveAll(filepath.Join(l.dir, "state")); err != nil {
		l.t.Fatal(err)
	}
}

// boot starts a process; nil if it died of it.
func (l *life) boot(id string) *actor {
	l.t.Helper()
	a := &actor{l: l, id: id, state: filepath.Join(l.dir, "state"), jobs: &fakeJobs{started: make(chan struct{}, 10)}, ended: make(chan error, 1)}
	if err := os.MkdirAll(a.state, 0o755); err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	v, _, err := Open(ctx, l.store, OpenOptions{Name: "data", Password: l.password, Create: true})
	for errors.Is(err, objstore.ErrUnavailable) { // as app does
		v, _, err = Open(ctx, l.store, OpenOptions{Name: "data", Password: l.password, Create: true})
	}
	if l.died.Load() {
		cancel()
		return nil
	}
	if err != nil {
		l.t.Fatalf("%s: open: %v", id, err)
	}
	if a.data, err = OpenDataDir(filepath.Join(l.dir, id), "data"); err != nil {
		l.t.Fatal(err)
	}
	a.jobs.onStart = func() { l.settle(a) }
	a.rt = NewRuntime(v, Options{
		Protocol: protocol.Config{
			Volume: "data", Self: protocol.Holder{ID: id}, TTL: crashTTL,
			Fence: protocol.FenceHistory, FinalCommit: true,
		},
		Tree: TreeOptions{Paths: []string{a.state}, Host: "test"},
		Jobs: a.jobs, DataDir: a.data, Log: slog.New(slog.DiscardHandler),
	})
	go func() { a.ended <- a.rt.Run(ctx) }()
	select {
	case <-a.jobs.started:
		return a
	case <-l.dead:
		a.crash()
		return nil
	case err := <-a.ended:
		l.t.Errorf("%s ended: %v", id, err)
		a.ended <- err
	case <-time.After(20 * time.Second):
		status, stats := a.rt.Status()
		l.t.Errorf("%s does not start: %+v %+v", id, status, stats)
	}
	a.crash()
	l.t.FailNow()
	return nil
}

func (a *actor) crash() {
	a.cancel()
	<-a.ended
	_ = a.data.Close()
}

// settle checks that jobs start on exactly one of the states that may be the
// newest, and that nothing acknowledged is older than it.
func (l *life) settle(a *actor) {
	have := readFiles(l.t, a.state)
	for i := len(l.states) - 1; i >= 0; i-- {
		if maps.Equal(l.states[i].files, have) {
			l.states = l.states[:i+1]
			l.states[i].settled = true
			return
		}
		if l.states[i].settled {
			break
		}
	}
	l.t.Errorf("jobs of %s start on %v; expected one of %+v", a.id, have, l.states)
}

func readFiles(t *testing.T, dir string) map[string]string {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == MarkerFile {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files[rel] = string(data)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return files
}

// change writes files and asks for a backup; false if the process died meanwhile.
func (a *actor) change(files map[string]string) bool {
	t := a.l.t
	t.Helper()
	for name, content := range files {
		path := filepath.Join(a.state, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return a.backup()
}

// backup asks for a backup of what is there; false if the process died meanwhile.
func (a *actor) backup() bool {
	t := a.l.t
	t.Helper()
	a.l.states = append(a.l.states, state{files: readFiles(t, a.state)})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go func(dead <-chan struct{}) {
		select {
		case <-dead:
			cancel()
		case <-ctx.Done():
		}
	}(a.l.dead)
	out, err := a.rt.Backup(ctx)
	if err == nil {
		last := &a.l.states[len(a.l.states)-1]
		last.snapshot, last.settled = out.Head.Snapshot, true
	} else if !a.l.died.Load() {
		t.Errorf("%s backup: %v", a.id, err)
	}
	return !a.l.died.Load()
}

// stop ends the process in order.
func (a *actor) stop() {
	stopped := make(chan struct{})
	defer close(stopped)
	go func(dead <-chan struct{}) {
		select {
		case <-dead:
			a.cancel()
		case <-stopped:
		}
	}(a.l.dead)
	a.rt.Stop(10 * time.Second)
	err := <-a.ended
	_ = a.data.Close()
	if err != nil && !a.l.died.Load() {
		a.l.t.Errorf("%s stop: %v", a.id, err)
	}
	a.cancel()
}

// play acts the script out.
func (l *life) play() {
	if a := l.boot("a"); a != nil {
		_ = a.change(map[string]string{"one": "1", "dir/two": "2"}) &&
			a.change(map[string]string{"one": "11", "three": "333"})
		a.crash()
	}
	l.revive()
	l.replace()
	if b := l.boot("b"); b != nil {
		l.mu.Lock()
		l.deliver()
		l.mu.Unlock()
		if b.change(map[string]string{"four": "4"}) {
			b.stop()
		} else {
			b.crash()
		}
	}
	l.revive()
	l.deliver()
	l.view.Set(nil) // nothing fails from here on
	l.replace()
	c := l.boot("c")
	if c == nil {
		l.t.Fatal("c died, and nothing was left to kill it")
	}
	l.check(c)
	v := c.rt.v
	c.stop()
	l.whole(v)
}

// whole checks that the repository is: at once, or, if a commit died with its
// snapshot object stored and its index not, after a prune.
func (l *life) whole(v *Volume) {
	t, ctx := l.t, l.t.Context()
	check := func() []repo.Problem {
		report, err := v.Repo.Check(ctx, repo.CheckOptions{ReadData: true})
		if err != nil {
			t.Fatal(err)
		}
		return report.Problems
	}
	problems := check()
	if len(problems) > 0 && l.mode.dies && (l.at.kind == "snapshots" || l.at.kind == "index") {
		err := v.Claim(ctx, sessionOptions("pruner"), func(ctx context.Context, s *Session) error {
			_, err := s.Prune(ctx, repo.PruneOptions{})
			return err
		})
		if err != nil {
			t.Fatalf("prune: %v", err)
		}
		problems = check()
	}
	for _, p := range problems {
		t.Errorf("check: %s: %v", p.Object, p.Err)
	}
}

func sessionOptions(id string) Options {
	return Options{Protocol: protocol.Config{Volume: "data", TTL: crashTTL, Self: protocol.Holder{ID: id}}}
}

// revive lets the next process use the store.
func (l *life) revive() {
	if l.died.CompareAndSwap(true, false) {
		l.dead = make(chan struct{})
	}
}

// check looks at the whole of what is left.
func (l *life) check(c *actor) {
	t, ctx := l.t, l.t.Context()
	status, _ := c.rt.Status()
	line := committedLine(t, c.rt.v, status.Head)
	if err := c.rt.v.Repo.LoadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	for i, s := range l.states {
		if s.snapshot == "" {
			continue
		}
		if !slices.Contains(line, s.snapshot) {
			t.Errorf("acknowledged snapshot %s is not in the line %v", s.snapshot, line)
		}
		_, sn, err := c.rt.v.Repo.FindSnapshot(ctx, s.snapshot)
		if err != nil {
			t.Error(err)
			continue
		}
		target := filepath.Join(l.dir, fmt.Sprintf("restored-%d", i))
		if _, err := restore.Run(ctx, c.rt.v.Repo, sn, restore.Options{Target: target}); err != nil {
			t.Errorf("restore acknowledged state %d: %v", i, err)
		}
		if have := readFiles(t, filepath.Join(target, sn.Paths[0])); !maps.Equal(have, s.files) {
			t.Errorf("acknowledged state %d is %v, was %v", i, have, s.files)
		}
	}
}

// committedLine returns the ids of the history, newest first, and checks that
// it is a line: each commit's parent is the commit before it.
func committedLine(t *testing.T, v *Volume, h protocol.Head) []string {
	t.Helper()
	entries, err := v.History(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]Entry{}
	committed := 0
	for _, e := range entries {
		byID[e.ID.String()] = e
		if e.Committed {
			committed++
		}
	}
	var line []string
	for id, seq := h.Snapshot, h.Seq; seq > 0; seq-- {
		e, ok := byID[id]
		if !ok || !e.Committed || e.Seq != seq || e.Head != (seq == h.Seq) || e.Diverged {
			t.Fatalf("commit %d of the line is %+v (found: %v)", seq, e, ok)
		}
		line = append(line, id)
		id = ""
		if e.Parent != nil {
			id = e.Parent.String()
		}
		if (id == "") != (seq == 1) {
			t.Fatalf("commit %d has parent %q", seq, id)
		}
	}
	if len(line) != committed {
		t.Errorf("%d snapshots are marked as committed, the line has %d", committed, len(line))
	}
	return line
}

// points lists the calls of a life in which nothing fails.
func points(t *testing.T) []point {
	l := newLife(t, point{}, mode{})
	l.play()
	return l.points()
}

func (l *life) points() []point {
	var all []point
	for p, n := range l.counts {
		if p.op == faulty.Get && p.kind == "head" {
			n = min(n, 12) // the rest are a standby's polls
		}
		for p.n = 1; p.n <= n; p.n++ {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b point) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// TestEveryCallOfALifeFails: see the top of this file.
func TestEveryCallOfALifeFails(t *testing.T) {
	soak := os.Getenv("DROVER_SOAK") != ""
	var lives, fired atomic.Int64
	all := points(t)
	t.Run("lives", func(t *testing.T) {
		slots := make(chan struct{}, 24) // lives mostly wait
		for i, p := range all {
			for j, m := range modes() {
				if m.writes && !p.op.Writes() || !soak && (m.soak || !p.op.Writes() && i%3 != j%3 || p.op.Writes() && !m.dies && i%2 != j%2) {
					continue // in the short run a call meets some of its modes, and deaths always if it writes
				}
				t.Run(p.String()+"/"+m.name, func(t *testing.T) {
					t.Parallel()
					slots <- struct{}{}
					defer func() { <-slots }()
					l := newLife(t, p, m)
					l.play()
					lives.Add(1)
					if l.fired {
						fired.Add(1)
					}
				})
			}
		}
	})
	t.Logf("%d calls, %d lives, %d with a fault", len(all), lives.Load(), fired.Load())
	if fired.Load() < lives.Load()*8/10 {
		t.Errorf("only %d of %d lives met their fault", fired.Load(), lives.Load())
	}
}
