package crew

import (
	"errors"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRecursionNeverBlocksAndStaysBounded(t *testing.T) {
	for _, size := range []int{1, 2, 5} {
		c := New(size)
		var working, most, leaves atomic.Int64
		var visit func(depth int) error
		visit = func(depth int) error {
			if depth == 0 {
				if n := working.Add(1); n > most.Load() {
					most.Store(n)
				}
				leaves.Add(1)
				working.Add(-1)
				return nil
			}
			g := c.Group()
			g.Run(func() error { return visit(depth - 1) })
			if err := c.Each(3, func(int) error { return visit(depth - 1) }); err != nil {
				return err
			}
			return g.Wait()
		}
		if err := visit(6); err != nil {
			t.Fatal(err)
		}
		if leaves.Load() != 4096 {
			t.Errorf("crew of %d: %d calls, want 4096", size, leaves.Load())
		}
		if most.Load() > int64(size) {
			t.Errorf("crew of %d: %d worked at once", size, most.Load())
		}
	}
}

func TestFirstErrorEndsTheRest(t *testing.T) {
	c := New(1)
	stop := errors.New("stop")
	calls := 0
	err := c.Each(100, func(i int) error {
		calls++
		if i == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || calls != 4 {
		t.Errorf("%d calls, error %v", calls, err)
	}
	g := c.Group()
	g.Run(func() error { return stop })
	g.Run(func() error { t.Error("called after an error"); return nil })
	if err := g.Wait(); !errors.Is(err, stop) || !g.Failed() {
		t.Errorf("error %v", err)
	}
}
