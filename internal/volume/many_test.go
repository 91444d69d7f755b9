package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/repo/archive"
	"drover/internal/repo/fstest"
)

// However many commits a volume has, a commit and a start make as many calls to the
// store, and there are as few index objects, since the upkeep merges them. DROVER_SOAK
// makes 100,000 commits; times and memory, which the store in memory takes part of, are only told.
func TestManyCommitsStayFlat(t *testing.T) {
	commits := 600
	if os.Getenv("DROVER_SOAK") != "" {
		commits = 100_000
	}
	st := mem.New()
	view := &tally{Store: st, n: map[string]int{}}
	a := newServer(t, view, "a", filepath.Join(fastDir(t), "state"))
	cache, err := archive.OpenDirCache(filepath.Join(fastDir(t), "trees"), 1<<30)
	fstest.Must(t, err)
	a.opt = func(o *Options) { o.Protocol.TTL, o.Tree.Cache = time.Minute, cache } // few renewals among the calls
	a.start().waitStarted()
	k := newKeeper(a, Retention{})
	calls := func(f func()) map[string]int {
		view.reset()
		f()
		return view.reset()
	}
	commit := func(i int) func() {
		return func() {
			a.write("file", fmt.Sprint("state ", i))
			a.backup()
		}
	}
	for i := range 10 {
		commit(i)()
	}
	k.run()
	early := calls(commit(10))
	began, last := time.Now(), time.Now()
	for i := 11; i < commits; i++ {
		if commit(i)(); i%(2*smallIndexes) == 0 {
			fstest.Must(t, compactOnly(k))
		}
		if i%(commits/6) == 0 {
			t.Logf("%6d commits: %s each, heap %d MiB, %d index objects", i, time.Since(last)/time.Duration(commits/6), heap()>>20, count(t, st, "index/"))
			last = time.Now()
		}
	}
	fstest.Must(t, compactOnly(k))
	late := calls(commit(commits))
	if late["put"] != early["put"] || late["get"] > early["get"] || late["list"] > early["list"] {
		t.Errorf("a commit after %d: %v calls, after ten: %v", commits, late, early)
	}
	if n := count(t, st, "index/"); n > 2*smallIndexes {
		t.Errorf("%d index objects", n)
	}
	t.Logf("%d commits in %s", commits, time.Since(began).Round(time.Second))
	a.crash()
	began = time.Now()
	b := newServer(t, view, "a", a.state)
	b.base, b.opt = a.base, a.opt
	start := calls(func() { b.start().waitStarted() })
	first := calls(func() { b.write("file", "again"); b.backup() })
	if start["get"]+first["get"] > 2*smallIndexes+20 || start["list"]+first["list"] > 12 {
		t.Errorf("a start and its first commit make %v and %v calls", start, first)
	}
	t.Logf("opened and committed in %s: %v, %v calls", time.Since(began).Round(time.Millisecond), start, first)
}

// tally counts the calls that can grow with the history, looks at the head aside. (A
// faulty.Store would keep each of them.)
type tally struct {
	objstore.Store
	mu sync.Mutex
	n  map[string]int
}

func (c *tally) count(op string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[op]++
}

// reset returns the counts since the last one.
func (c *tally) reset() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	c.n = map[string]int{}
	return n
}

func (c *tally) Get(ctx context.Context, key string, offset, length int64) ([]byte, objstore.Info, error) {
	if key != headKey {
		c.count("get")
	}
	return c.Store.Get(ctx, key, offset, length)
}

func (c *tally) Put(ctx context.Context, key string, data []byte) error {
	c.count("put")
	return c.Store.Put(ctx, key, data)
}

func (c *tally) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	c.count("list")
	return c.Store.List(ctx, prefix, fn)
}

// compactOnly is a run of the upkeep without a survey, which reads all snapshots.
func compactOnly(k *keeper) error {
	h, _ := k.r.head()
	c := &run{u: k.Upkeep, repo: k.aside(), head: h}
	if err := c.begin(k.s.t.Context()); err != nil {
		return err
	}
	return c.compact(k.s.t.Context())
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
