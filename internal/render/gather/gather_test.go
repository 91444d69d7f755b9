package gather

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/mem"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// counting counts the watches that run.
type counting struct {
	coord.KV
	mu           sync.Mutex
	keys, others int
	hide         error                // what watches of folders say
	lag          func() time.Duration // how late a state is told; nil: it is not
}

func (c *counting) Watch(ctx context.Context, prefix string, exact bool, fn func([]coord.Pair, error)) {
	which := &c.others
	if exact {
		which = &c.keys
	}
	c.mu.Lock()
	*which++
	hide := c.hide
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		*which--
	}()
	if hide != nil && !exact {
		fn(nil, hide)
		<-ctx.Done()
		return
	}
	c.KV.Watch(ctx, prefix, exact, func(pairs []coord.Pair, err error) {
		if c.lag != nil {
			time.Sleep(c.lag())
		}
		if ctx.Err() == nil {
			fn(pairs, err)
		}
	})
}

func (c *counting) running() (keys, others int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys, c.others
}

// bed has a coordinator and watches on it.
type bed struct {
	t      *testing.T
	server *mem.Server
	kv     *mem.Client
	count  *counting
	keys   *Keys
	work   sync.WaitGroup

	mu   sync.Mutex
	seen map[string][]string
}

func newBed(t *testing.T) *bed {
	server := mem.NewServer()
	b := &bed{t: t, server: server, kv: server.Open(), count: &counting{KV: server.Open()}, seen: map[string][]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	b.keys = New(ctx, b.count, b.work.Go)
	t.Cleanup(func() {
		cancel()
		b.work.Wait()
	})
	return b
}

func (b *bed) put(key, value string) {
	b.t.Helper()
	if _, err := b.kv.Put(b.t.Context(), key, []byte(value)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) drop(key string) {
	b.t.Helper()
	if err := b.kv.Delete(b.t.Context(), key, nil); err != nil {
		b.t.Fatal(err)
	}
}

// watch begins a watch and returns what ends it.
func (b *bed) watch(key string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	b.t.Cleanup(cancel)
	b.work.Go(func() {
		b.keys.Watch(ctx, key, func(pairs []coord.Pair, err error) {
			text := "none"
			switch {
			case err != nil:
				text = "error"
			case len(pairs) > 0:
				text = string(pairs[0].Value)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.seen[key] = append(b.seen[key], text)
		})
	})
	return cancel
}

func (b *bed) last(key string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.seen[key]; len(s) > 0 {
		return s[len(s)-1]
	}
	return "nothing"
}

func (b *bed) want(keys, others int) {
	b.t.Helper()
	if k, o := b.count.running(); k != keys || o != others {
		b.t.Errorf("%d watches of keys and %d of folders, want %d and %d", k, o, keys, others)
	}
}

func name(i int) string { return fmt.Sprintf("app/k%04d", i) }

func TestAFolderIsWatchedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		const n = 100
		var stops []func()
		for i := range n {
			b.put(name(i), "1")
		}
		for i := range n {
			stops = append(stops, b.watch(name(i)))
			if i == alone-1 {
				synctest.Wait()
				b.want(alone, 0)
			}
		}
		synctest.Wait()
		b.want(0, 1)
		for i := range n {
			if got := b.seen[name(i)]; !slices.Equal(got, []string{"1"}) {
				t.Errorf("%s: %v", name(i), got)
			}
		}
		b.put(name(3), "2")
		synctest.Wait()
		if got := b.seen[name(3)]; !slices.Equal(got, []string{"1", "2"}) || len(b.seen[name(4)]) != 1 {
			t.Errorf("%v, another one %v", got, b.seen[name(4)])
		}
		// One that is gone is watched by itself until it is back.
		b.drop(name(5))
		synctest.Wait()
		b.want(1, 1)
		b.put(name(5), "3")
		synctest.Wait()
		b.want(0, 1)
		if got := b.seen[name(5)]; !slices.Equal(got, []string{"1", "none", "3"}) {
			t.Errorf("%v", got)
		}
		// An outage is told to all, once.
		b.server.SetAvailable(false)
		synctest.Wait()
		if b.last(name(7)) != "error" || len(b.seen[name(7)]) != 2 {
			t.Errorf("%v", b.seen[name(7)])
		}
		b.server.SetAvailable(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if b.last(name(7)) != "1" {
			t.Errorf("%v", b.seen[name(7)])
		}
		// When few are left, each is watched by itself again.
		for _, stop := range stops[:n-alone/2] {
			stop()
		}
		synctest.Wait()
		b.want(alone/2, 0)
		for _, stop := range stops {
			stop()
		}
	})
}

func TestAFolderThatIsTooLargeIsNotWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		for i := range 600 {
			b.put(name(i), "1")
		}
		var stops []func()
		for i := range 20 {
			stops = append(stops, b.watch(name(i)))
		}
		synctest.Wait()
		b.want(20, 0)
		for i := 20; i < 200; i++ {
			stops = append(stops, b.watch(name(i)))
		}
		synctest.Wait()
		b.want(0, 1)
		// It grows, and then it is.
		for i := range 2000 {
			b.put(fmt.Sprintf("app/below/%d", i), "x")
		}
		synctest.Wait()
		b.want(200, 0)
		if got := b.seen[name(7)]; !slices.Equal(got, []string{"1"}) {
			t.Errorf("%v", got)
		}
		for _, stop := range stops {
			stop()
		}
	})
}

// Who may read keys may not be allowed to list them.
func TestAFolderThatMayNotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.count.hide = errors.Join(coord.ErrUnauthorized)
		var stops []func()
		for i := range 50 {
			b.put(name(i), "1")
			stops = append(stops, b.watch(name(i)))
		}
		synctest.Wait()
		b.want(50, 0)
		for i := range 50 {
			if b.last(name(i)) != "1" {
				t.Errorf("%s: %v", name(i), b.seen[name(i)])
			}
		}
		for _, stop := range stops {
			stop()
		}
	})
}

// Whatever happens, each watch sees what a watch of its key alone would: the states of the
// key in their order, and the newest at the end.
func TestNeverBack(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			b := newBed(t)
			b.count.lag = func() time.Duration { return rand.N(5 * time.Millisecond) }
			const n = 30
			stops := map[int]func(){}
			count := map[int]int{}
			for range 600 {
				i := r.IntN(n)
				switch r.IntN(6) {
				case 0:
					if stops[i] == nil {
						b.mu.Lock()
						b.seen[name(i)] = nil
						b.mu.Unlock()
						stops[i] = b.watch(name(i))
					} else if r.IntN(3) == 0 {
						stops[i]()
						synctest.Wait()
						delete(stops, i)
					}
				case 1:
					b.drop(name(i))
				case 2:
					time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
				default:
					count[i]++
					b.put(name(i), fmt.Sprintf("%06d", count[i]))
				}
			}
			time.Sleep(time.Second)
			synctest.Wait()
			for i := range stops {
				want := "none"
				if p, err := b.kv.Get(t.Context(), name(i)); err == nil {
					want = string(p.Value)
				}
				if got := b.last(name(i)); got != want {
					t.Errorf("seed %d: %s ends with %s, want %s", seed, name(i), got, want)
				}
				states := slices.DeleteFunc(slices.Clone(b.seen[name(i)]), func(s string) bool { return s == "none" })
				if !slices.IsSorted(states) || len(slices.Compact(slices.Clone(b.seen[name(i)]))) != len(b.seen[name(i)]) {
					t.Errorf("seed %d: %s saw %v", seed, name(i), b.seen[name(i)])
				}
			}
			for _, stop := range stops {
				stop()
			}
		})
	}
}
