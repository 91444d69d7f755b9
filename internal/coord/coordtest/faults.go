package coordtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"drover/internal/coord"
)

// everyCall makes one call of each kind, and gives what they said to check.
func (s *suite) everyCall(t *testing.T, c coord.Coordinator, ctx context.Context, check func(what string, err error)) {
	t.Helper()
	key := s.key("faults")
	_, err := c.Get(ctx, key)
	check("get", err)
	_, err = c.List(ctx, key)
	check("list", err)
	_, err = c.Put(ctx, key, []byte("x"))
	check("put", err)
	_, err = c.CompareAndSwap(ctx, key, []byte("x"), "")
	check("swap", err)
	check("delete", c.Delete(ctx, key, nil))
	check("apply", c.Apply(ctx, []coord.Op{{Key: key, Value: []byte("x")}}))
	_, err = c.Holders(ctx, key)
	check("holders", err)
}

func testCancelled(t *testing.T, s *suite) {
	c := s.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.everyCall(t, c, ctx, func(what string, err error) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v, want the context's", what, err)
		}
	})
	s.wantList(t, c, "")
}

func testCutOff(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	put(t, c, s.key("a"), "before")
	s.Partition(t, c)
	s.everyCall(t, c, call(t), func(what string, err error) { want(t, what, err, coord.ErrUnavailable) })
	wantValue(t, other, s.key("a"), "before")
	put(t, other, s.key("a"), "meanwhile")
	s.Heal(t, c)
	eventually(t, s.Settle, func() string {
		if _, err := c.Get(call(t), s.key("a")); err != nil {
			return err.Error()
		}
		return ""
	})
	wantValue(t, c, s.key("a"), "meanwhile")
}

func testNoAnswer(t *testing.T, s *suite) {
	c := s.Open(t)
	put(t, c, s.key("a"), "before")
	s.Hang(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), s.Settle/10)
	defer cancel()
	began := time.Now()
	s.everyCall(t, c, ctx, func(what string, err error) {
		want(t, what, err, coord.ErrUnavailable)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: error %v, want the context's, too", what, err)
		}
	})
	if took := time.Since(began); took > hung/2 {
		t.Errorf("calls whose context ended after %v took %v", s.Settle/10, took)
	}
	s.Heal(t, c)
	eventually(t, s.Settle, func() string {
		if _, err := c.Get(call(t), s.key("a")); err != nil {
			return err.Error()
		}
		return ""
	})
}

func testRestart(t *testing.T, s *suite) {
	c := s.Open(t)
	r := put(t, c, s.key("a"), "kept")
	s.RestartServer(t)
	eventually(t, s.Settle, func() string {
		if _, err := c.Get(call(t), s.key("a")); err != nil {
			return err.Error()
		}
		return ""
	})
	wantValue(t, c, s.key("a"), "kept")
	_, err := c.CompareAndSwap(call(t), s.key("a"), []byte("new"), r)
	ok(t, "swap by a revision from before the restart", err)
}

func testStrangerKV(t *testing.T, s *suite) {
	c := s.Stranger(t)
	s.everyCall(t, c, call(t), func(what string, err error) { want(t, what, err, coord.ErrUnauthorized) })
	s.wantList(t, s.Open(t), "")
}
