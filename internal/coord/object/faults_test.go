package object_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/object"
	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
)

// rounds is how many seeds a test takes: more where make soak sets DROVER_SOAK.
func rounds(normal, soak uint64) uint64 {
	if os.Getenv("DROVER_SOAK") != "" {
		return soak
	}
	return normal
}

// wild is a script of every fault that a write can meet, from a seed.
func wild(seed uint64, rate float64) faulty.Script {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 1))
	return func(c faulty.Call) faulty.Fault {
		mu.Lock()
		defer mu.Unlock()
		f := faulty.Fault{Delay: time.Duration(r.IntN(300)) * time.Millisecond}
		if r.Float64() > rate {
			return f
		}
		switch n := r.IntN(6); {
		case n == 0:
			f.Before = objstore.ErrUnavailable
		case n == 1:
			f.After = objstore.ErrUnavailable
		case n == 2 && c.Op == faulty.PutIf:
			f.Twice = true
		case n == 3 && c.Op.Writes():
			f.Late = objstore.ErrUnavailable
		case n == 4:
			f.Stuck = true
		case n == 5:
			f.Delay = time.Duration(r.IntN(40)) * time.Second
		}
		return f
	}
}

// deliver has late writes land at random moments, until ctx ends.
func deliver(ctx context.Context, seed uint64, w *wire) {
	r := rand.New(rand.NewPCG(seed, 2))
	for coord.Wait(ctx, time.Duration(r.IntN(20000))*time.Millisecond) {
		if n := w.calls.Late(); n > 0 {
			_ = w.calls.Deliver(r.IntN(n))
		}
	}
}

// TestKeysUnderFaults has many append to one value by compare-and-swap over lines that lose
// answers and deliver late: what was acknowledged is there once, what was not at most once.
func TestKeysUnderFaults(t *testing.T) {
	late := 0
	for seed := range rounds(30, 3000) {
		synctest.Test(t, func(t *testing.T) {
			store := mem.New()
			ctx, cancel := context.WithCancel(t.Context())
			var (
				group, deliveries sync.WaitGroup
				mu                sync.Mutex
				acked, unknown    []string
			)
			for i := range 4 {
				w := lines{under: store, whole: func() faulty.Script { return wild(seed*10+uint64(i), 0.3) }}.open(t)
				deliveries.Go(func() { deliver(ctx, seed*10+uint64(i), w) })
				group.Go(func() {
					for n := range 12 {
						token := fmt.Sprintf("%d.%d ", i, n)
						p, err := w.Get(ctx, "list")
						if err != nil && !errors.Is(err, coord.ErrNotFound) {
							continue
						}
						_, err = w.CompareAndSwap(ctx, "list", append(p.Value, token...), p.Revision)
						mu.Lock()
						switch coord.Kind(err) {
						case nil:
							acked = append(acked, token)
						case coord.ErrUnavailable:
							unknown = append(unknown, token)
						}
						mu.Unlock()
						if err != nil && coord.Kind(err) == nil {
							t.Errorf("swap: %v", err)
						}
					}
					mu.Lock()
					defer mu.Unlock()
					late += w.calls.Late()
				})
			}
			group.Wait()
			time.Sleep(time.Minute)
			cancel()
			deliveries.Wait()
			p, err := object.New(store, object.Options{}).Get(t.Context(), "list")
			if err != nil {
				t.Fatal(err)
			}
			for _, token := range acked {
				if n := strings.Count(" "+string(p.Value), " "+token); n != 1 {
					t.Errorf("seed %d: %q was acknowledged and is there %d times", seed, token, n)
				}
			}
			for _, token := range unknown {
				if n := strings.Count(" "+string(p.Value), " "+token); n > 1 {
					t.Errorf("seed %d: %q is there %d times", seed, token, n)
				}
			}
			if n := len(strings.Fields(string(p.Value))); n > len(acked)+len(unknown) {
				t.Errorf("seed %d: %d tokens of %d, and a refused one is among them", seed, n, len(acked)+len(unknown))
			}
		})
	}
	if late == 0 {
		t.Error("no write was late")
	}
}

// TestLeasesUnderFaults has contenders for two slots over such lines, and counts at every
// moment who believes to hold one.
func TestLeasesUnderFaults(t *testing.T) {
	const slots, ttl = 2, 30 * time.Second
	taken, lost := 0, 0
	for seed := range rounds(40, 5000) {
		synctest.Test(t, func(t *testing.T) {
			store := mem.New()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
			defer cancel()
			var (
				group sync.WaitGroup
				mu    sync.Mutex
				held  = map[int]bool{}
			)
			set := func(i int, yes bool) {
				mu.Lock()
				defer mu.Unlock()
				delete(held, i)
				if yes {
					held[i] = true
				}
				if len(held) > slots {
					t.Errorf("seed %d: %d hold %d slots", seed, len(held), slots)
				}
			}
			for i := range 5 {
				w := lines{under: store, whole: func() faulty.Script { return wild(seed*10+uint64(i), 0.4) }}.open(t)
				group.Go(func() { deliver(ctx, seed*10+uint64(i), w) })
				group.Go(func() {
					r := rand.New(rand.NewPCG(seed, uint64(i)))
					for ctx.Err() == nil {
						l, err := w.Acquire(ctx, "lock", coord.LeaseOptions{Holder: fmt.Sprint(i), TTL: ttl, Slots: slots})
						if err != nil {
							if ctx.Err() == nil {
								t.Errorf("acquire: %v", err)
							}
							return
						}
						set(i, true)
						mu.Lock()
						taken++
						mu.Unlock()
						select {
						case <-l.Done():
							mu.Lock()
							lost++
							mu.Unlock()
						case <-time.After(time.Duration(r.IntN(180)) * time.Second):
						case <-ctx.Done():
						}
						set(i, false)
						limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
						_ = l.Release(limited)
						cancel()
					}
				})
			}
			group.Wait()
		})
	}
	t.Logf("%d leases were taken, %d of them lost to faults", taken, lost)
	if taken < 1000 || lost == 0 {
		t.Errorf("%d leases taken, %d lost: the faults are not what they are for", taken, lost)
	}
}

// TestEveryCallFails makes each call of a short life fail in each way, in turn. With the
// line whole again, the same life goes through, whatever was left.
func TestEveryCallFails(t *testing.T) {
	life := func(ctx context.Context, c coord.Coordinator) error {
		l, err := c.Acquire(ctx, "lock", coord.LeaseOptions{Holder: "a", TTL: 30 * time.Second})
		if err != nil {
			return err
		}
		_, errPut := c.Put(ctx, "a", []byte("1"))
		p, errGet := c.Get(ctx, "a")
		_, errSwap := c.CompareAndSwap(ctx, "a", []byte("2"), p.Revision)
		errRegister := c.Register(ctx, coord.Registration{ID: "i", Name: "web", TTL: 30 * time.Second})
		errReport := c.Report(ctx, "i", coord.Passing, "")
		if errRegister != nil && errors.Is(errReport, coord.ErrNotFound) {
			errReport = nil
		}
		return errors.Join(errPut, errGet, errSwap, errRegister, errReport, c.Deregister(ctx, "i"), l.Release(ctx))
	}
	points := 0
	for name, f := range map[string]faulty.Fault{
		"before": {Before: objstore.ErrUnavailable}, "after": {After: objstore.ErrUnavailable}, "late": {Late: objstore.ErrUnavailable},
		"stuck": {Stuck: true}, "hang": {Hang: true}, "twice": {Twice: true},
	} {
		for n := 1; ; n++ {
			met := false
			synctest.Test(t, func(t *testing.T) {
				store := mem.New()
				w := lines{under: store, whole: func() faulty.Script { return faulty.At(n, f) }}.open(t)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				err := life(ctx, w)
				met = len(w.calls.Calls()) >= n
				if err != nil && coord.Kind(err) == nil {
					t.Errorf("%s at call %d: %v", name, n, err)
				}
				for w.calls.Late() > 0 {
					_ = w.calls.Deliver(0)
				}
				again := lines{under: store}.open(t)
				if err := life(ctx, again); err != nil {
					t.Errorf("the life after %s at call %d: %v", name, n, err)
				}
				holders, err := again.Holders(ctx, "lock")
				if err != nil || len(holders) > 1 { // one that could not release falls free by itself
					t.Errorf("%s at call %d: held by %q, %v", name, n, holders, err)
				}
				if p, err := again.Get(ctx, "a"); err != nil || string(p.Value) != "2" {
					t.Errorf("%s at call %d: %q, %v", name, n, p.Value, err)
				}
			})
			if !met {
				break
			}
			points++
		}
	}
	t.Logf("%d points", points)
}

// TestForeignObject: what cannot be read is never taken for nothing, nor written over.
func TestForeignObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, text := range []string{"", "garbage", "{}", "null", "[]", `{"version":2,"count":1,"writes":["a"],"value":{}}`, `{"version":1,"value":{}}`} {
			store, ctx := mem.New(), t.Context()
			for _, key := range []string{"kv", "leases/lock", "services/web/i/about"} {
				if err := store.Put(ctx, "drover/coord/"+key, []byte(text)); err != nil {
					t.Fatal(err)
				}
			}
			c := lines{under: store}.open(t)
			_, errGet := c.Get(ctx, "a")
			_, errList := c.List(ctx, "")
			_, errPut := c.Put(ctx, "a", nil)
			_, errSwap := c.CompareAndSwap(ctx, "a", nil, "")
			_, errAcquire := c.Acquire(ctx, "lock", coord.LeaseOptions{Holder: "a", TTL: time.Minute})
			_, errHolders := c.Holders(ctx, "lock")
			errRegister := c.Register(ctx, coord.Registration{ID: "i", Name: "web", TTL: time.Minute})
			for i, err := range []error{errGet, errList, errPut, errSwap, errAcquire, errHolders, errRegister} {
				if err == nil || coord.Kind(err) != nil {
					t.Errorf("%q, call %d: %v", text, i, err)
				}
			}
			limited, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			calls := 0
			c.WatchService(limited, coord.Query{Name: "web"}, func(found []coord.Instance, err error) {
				if calls++; err == nil {
					t.Errorf("%q: told as %v", text, found)
				}
			})
			if calls != 1 {
				t.Errorf("%q: %d calls", text, calls)
			}
			for _, call := range c.calls.Calls() {
				if call.Op.Writes() {
					t.Errorf("%q: %s %s", text, call.Op, call.Key)
				}
			}
		}
	})
}

func TestTooManyKeys(t *testing.T) {
	c := object.New(mem.New(), object.Options{MaxBytes: 10000})
	defer func() { _ = c.Close() }()
	var n int
	for n = range 1000 {
		_, err := c.Put(t.Context(), fmt.Sprintf("key/%d", n), make([]byte, 100))
		if errors.Is(err, coord.ErrTooLarge) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	pairs, err := c.List(t.Context(), "")
	if err != nil || len(pairs) != n || n < 20 {
		t.Errorf("%d keys of %d, %v", len(pairs), n, err)
	}
	if err := c.Delete(t.Context(), "key/0", nil); err != nil {
		t.Errorf("delete when it is full: %v", err)
	}
}

// TestNothingPlain: with a sealer, no value stands in the store.
func TestNothingPlain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, ctx := mem.New(), t.Context()
		c := lines{under: store, opt: object.Options{Sealer: seal(t, "0123456789abcdef")}}.open(t)
		_, errPut := c.Put(ctx, "plain-key", []byte("plain-value"))
		l, err := c.Acquire(ctx, "lock", coord.LeaseOptions{Holder: "plain-holder", TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		errRegister := c.Register(ctx, coord.Registration{ID: "i", Name: "web", Address: "plain-address", TTL: time.Minute})
		if err := errors.Join(errPut, errRegister, l.Release(ctx)); err != nil {
			t.Fatal(err)
		}
		var seen []string
		if err := store.List(ctx, "", func(i objstore.Info) error {
			data, _, err := store.Get(ctx, i.Key, 0, -1)
			if strings.Contains(string(data), "plain") {
				t.Errorf("%s: %q", i.Key, data)
			}
			seen = append(seen, i.Key)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(seen)
		if want := []string{"drover/coord/kv", "drover/coord/leases/lock", "drover/coord/services/web/i/about", "drover/coord/services/web/i/beat"}; !slices.Equal(seen, want) {
			t.Errorf("objects %q", seen)
		}
	})
}

// TestSealedObjects: what another secret sealed, what was moved to another place and what was
// changed is an error, and never nothing.
func TestSealedObjects(t *testing.T) {
	one, other := seal(t, "0123456789abcdef"), seal(t, "0123456789abcdeg")
	sealed := one.Seal("kv", []byte("plain"))
	if again := one.Seal("kv", []byte("plain")); string(again) == string(sealed) {
		t.Error("twice the same")
	}
	if plain, err := one.Open("kv", sealed); err != nil || string(plain) != "plain" {
		t.Errorf("%q, %v", plain, err)
	}
	for i := range sealed {
		changed := slices.Clone(sealed)
		changed[i] ^= 1
		if _, err := one.Open("kv", changed); err == nil {
			t.Errorf("byte %d was changed", i)
		}
		if _, err := one.Open("kv", sealed[:i]); err == nil {
			t.Errorf("%d bytes were opened", i)
		}
	}
	if _, err := one.Open("leases/kv", sealed); err == nil {
		t.Error("it was opened in another place")
	}
	if _, err := other.Open("kv", sealed); err == nil {
		t.Error("it was opened with another secret")
	}
	if _, err := object.NewSealer(make([]byte, 15)); err == nil {
		t.Error("a short secret is accepted")
	}
	synctest.Test(t, func(t *testing.T) {
		store := mem.New()
		if _, err := (lines{under: store}).open(t).Put(t.Context(), "a", []byte("1")); err != nil {
			t.Fatal(err)
		}
		c := lines{under: store, opt: object.Options{Sealer: one}}.open(t)
		if _, err := c.Get(t.Context(), "a"); err == nil || coord.Kind(err) != nil {
			t.Errorf("what is plain was read by one that seals: %v", err)
		}
		if _, err := c.Put(t.Context(), "a", nil); err == nil {
			t.Error("what is plain was overwritten by one that seals")
		}
	})
}
