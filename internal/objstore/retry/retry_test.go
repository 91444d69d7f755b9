package retry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
	"drover/internal/objstore/objstoretest"
	"drover/internal/objstore/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Store { return retry.New(mem.New(), retry.Options{}) })
}

// TestConformanceWhileFailing: the contract holds on a store that fails each
// call twice, in every way but for conditional puts.
func TestConformanceWhileFailing(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Store {
		down := fmt.Errorf("%w: so said the script", objstore.ErrUnavailable)
		bad := faulty.New(mem.New(), func(c faulty.Call) faulty.Fault {
			switch {
			case c.Op == faulty.PutIf:
			case c.N%3 == 0:
				return faulty.Fault{Before: down}
			case c.N%3 == 1:
				return faulty.Fault{After: down}
			}
			return faulty.Fault{}
		})
		return retry.New(bad, retry.Options{Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }})
	})
}

var errDown = fmt.Errorf("%w: down", objstore.ErrUnavailable)

func always(f faulty.Fault) faulty.Script { return func(faulty.Call) faulty.Fault { return f } }

func TestPausesGrowToTheCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := faulty.New(mem.New(), always(faulty.Fault{Before: errDown}))
		var pauses []time.Duration
		s := retry.New(bad, retry.Options{
			First: time.Second, Cap: 5 * time.Second, Attempts: 6, Jitter: func() float64 { return 0.5 },
			Failed: func(op, key string, err error, attempt int, pause time.Duration) {
				if op != "put" || key != "a" || !errors.Is(err, objstore.ErrUnavailable) || attempt != len(pauses)+1 {
					t.Errorf("told of %s %s, %v, attempt %d", op, key, err, attempt)
				}
				pauses = append(pauses, pause)
			},
		})
		began := time.Now()
		err := s.Put(t.Context(), "a", nil)
		if !errors.Is(err, objstore.ErrUnavailable) || len(bad.Calls()) != 6 {
			t.Errorf("%v after %d calls", err, len(bad.Calls()))
		}
		want := []time.Duration{750 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second, 3750 * time.Millisecond, 3750 * time.Millisecond}
		var sum time.Duration
		for _, p := range want {
			sum += p
		}
		if !slices.Equal(pauses, want) || time.Since(began) != sum {
			t.Errorf("pauses %v, took %v", pauses, time.Since(began))
		}
	})
}

// TestJitterSpreads: pauses stay between half of the nominal one and all of it.
func TestJitterSpreads(t *testing.T) {
	for _, jitter := range []float64{0, 0.999999} {
		var got time.Duration
		s := retry.New(faulty.New(mem.New(), always(faulty.Fault{Before: errDown})), retry.Options{
			First: time.Second, Attempts: 2, Jitter: func() float64 { return jitter },
			Sleep: func(_ context.Context, d time.Duration) error { got = d; return nil },
		})
		_ = s.Delete(t.Context(), "a")
		if got < time.Second/2 || got > time.Second || jitter > 0.9 && got < 999*time.Millisecond {
			t.Errorf("jitter %v: paused %v", jitter, got)
		}
	}
}

func TestOtherErrorsAreNotRepeated(t *testing.T) {
	for _, kind := range []error{objstore.ErrNotFound, objstore.ErrUnauthorised, objstore.ErrRange, objstore.ErrUnsupported, errors.New("plain")} {
		bad := faulty.New(mem.New(), always(faulty.Fault{Before: kind}))
		s := retry.New(bad, retry.Options{})
		if _, _, err := s.Get(t.Context(), "a", 0, -1); !errors.Is(err, kind) || len(bad.Calls()) != 1 {
			t.Errorf("%v: got %v after %d calls", kind, err, len(bad.Calls()))
		}
	}
}

func TestPutIfIsNeverRepeated(t *testing.T) {
	for _, f := range []faulty.Fault{{Before: errDown}, {After: errDown}, {Before: objstore.ErrConflict}} {
		bad := faulty.New(mem.New(), always(f))
		if _, err := retry.New(bad, retry.Options{}).PutIf(t.Context(), "a", nil, objstore.IfAbsent()); err == nil || len(bad.Calls()) != 1 {
			t.Errorf("%v after %d calls", err, len(bad.Calls()))
		}
	}
}

// TestHangIsGivenUp: an attempt ends after the time for its bytes, as the
// store's fault and not the caller's.
func TestHangIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := faulty.New(mem.New(), faulty.At(1, faulty.Fault{Hang: true}))
		s := retry.New(bad, retry.Options{Base: 10 * time.Second, MinRate: 1000, Jitter: func() float64 { return 0 }})
		began := time.Now()
		if err := s.Put(t.Context(), "a", make([]byte, 5000)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 15*time.Second+100*time.Millisecond {
			t.Errorf("took %v", took)
		}
		bad.Set(always(faulty.Fault{Hang: true}))
		_, err := s.PutIf(t.Context(), "a", nil, objstore.IfAbsent())
		if !errors.Is(err, objstore.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a conditional put that hangs: %v", err)
		}
	})
}

func TestContextEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, f := range []faulty.Fault{{Before: errDown}, {Hang: true}} {
			s := retry.New(faulty.New(mem.New(), always(f)), retry.Options{})
			ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
			began := time.Now()
			_, err := s.Head(ctx, "a")
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, objstore.ErrUnavailable) || time.Since(began) != 7*time.Second {
				t.Errorf("%+v: %v after %v", f, err, time.Since(began))
			}
		}
	})
}

// breaking is a store whose listings break off, or hang, after some objects.
type breaking struct {
	objstore.Store
	after []int // objects listed by the first, second, … call; then all
	hang  bool
	calls int
}

func (b *breaking) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	n := -1
	if b.calls < len(b.after) {
		n = b.after[b.calls]
	}
	b.calls++
	err := b.Store.List(ctx, prefix, func(i objstore.Info) error {
		if n == 0 {
			return errDown
		}
		n--
		return fn(i)
	})
	if b.hang && errors.Is(err, errDown) {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func TestBrokenListing(t *testing.T) {
	for _, hang := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			under := mem.New()
			var want, got []string
			for i := range 10 {
				want = append(want, fmt.Sprintf("k%d", i))
				if err := under.Put(t.Context(), want[i], nil); err != nil {
					t.Fatal(err)
				}
			}
			b := &breaking{Store: under, after: []int{4, 0, 7}, hang: hang}
			err := retry.New(b, retry.Options{}).List(t.Context(), "k", func(i objstore.Info) error {
				got = append(got, i.Key)
				time.Sleep(time.Minute) // the caller's own time is not the store's
				return nil
			})
			if err != nil || b.calls != 4 || !slices.Equal(got, want) {
				t.Errorf("hang %v: %v after %d calls: %v", hang, err, b.calls, got)
			}
		})
	}
}

func TestCallersEndOfAListing(t *testing.T) {
	under := mem.New()
	for i := range 3 {
		if err := under.Put(t.Context(), fmt.Sprint(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	calls := 0
	err := retry.New(under, retry.Options{}).List(t.Context(), "", func(objstore.Info) error { calls++; return errDown })
	if !errors.Is(err, errDown) || calls != 1 {
		t.Errorf("%v after %d objects", err, calls)
	}
}
