package limited_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/limited"
	"drover/internal/objstore/mem"
	"drover/internal/objstore/objstoretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Store {
		return limited.New(mem.New(), limited.Options{Upload: 1 << 40, Download: 1 << 40, Concurrency: 3})
	})
}

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limited.New(mem.New(), limited.Options{Upload: 1000, Download: 2000})
		timed := func(what string, want time.Duration, do func() error) {
			t.Helper()
			began := time.Now()
			if err := do(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			// A tenth of a second's bytes pass at once.
			if took := time.Since(began); took < want-100*time.Millisecond || took > want {
				t.Errorf("%s took %v, want %v", what, took, want)
			}
		}
		data := make([]byte, 10_000)
		timed("upload", 10*time.Second, func() error { return s.Put(t.Context(), "a", data) })
		timed("conditional put", 0, func() error {
			_, err := s.PutIf(t.Context(), "b", data, objstore.IfAbsent())
			return err
		})
		timed("download", 5*time.Second, func() error { _, _, err := s.Get(t.Context(), "a", 0, -1); return err })
	})
}

func TestRateHonoursContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		under := mem.New()
		s := limited.New(under, limited.Options{Upload: 1000})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Put(ctx, "a", make([]byte, 10_000)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if _, err := under.Head(t.Context(), "a"); !errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("it was uploaded: %v", err)
		}
	})
}

func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limited.New(faulty.New(mem.New(), faulty.Slow(time.Second)), limited.Options{Concurrency: 2})
		began := time.Now()
		var group sync.WaitGroup
		for i := range 6 {
			group.Go(func() {
				if err := s.Put(t.Context(), fmt.Sprint(i), nil); err != nil {
					t.Error(err)
				}
			})
		}
		if _, err := s.PutIf(t.Context(), "head", nil, objstore.IfAbsent()); err != nil || time.Since(began) != time.Second {
			t.Errorf("a conditional put waited: %v, %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := s.Delete(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call without a turn: %v", err)
		}
		group.Wait()
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("6 calls of 1 s, 2 at once, took %v", took)
		}
	})
}
