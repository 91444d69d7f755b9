package etcd

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/coord"
)

// renewals runs keep with a TTL of 30 s and answers each renewal by its number, from 1 on. It
// returns when, since the first was sent, the thing was lost.
func renewals(t *testing.T, answer func(ctx context.Context, n int) error) (after time.Duration, asked int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, lose := context.WithCancel(t.Context())
		defer lose()
		began := time.Now()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			keep(ctx, 30*time.Second, began, func(ctx context.Context) error {
				asked++
				return answer(ctx, asked)
			}, lose)
		}()
		<-ctx.Done()
		after = time.Since(began)
		<-ended
	})
	return after, asked
}

func TestRenewalIsTheThirdOfATTL(t *testing.T) {
	after, asked := renewals(t, func(_ context.Context, n int) error {
		if n == 10 {
			return coord.ErrNotFound
		}
		time.Sleep(time.Second) // on the way
		return nil
	})
	if after != 100*time.Second || asked != 10 {
		t.Errorf("lost after %v and %d renewals", after, asked)
	}
}

func TestLostWhateverHangs(t *testing.T) {
	after, _ := renewals(t, func(_ context.Context, n int) error {
		if n == 1 {
			time.Sleep(3 * time.Second)
			return nil
		}
		time.Sleep(time.Hour) // it does not listen to its context
		return nil
	})
	if after != 40*time.Second {
		t.Errorf("lost after %v, not a TTL after the last good renewal was sent", after)
	}
}

func TestLateAnswerRevivesNothing(t *testing.T) {
	after, asked := renewals(t, func(context.Context, int) error {
		time.Sleep(21 * time.Second)
		return nil
	})
	if after != 30*time.Second || asked != 1 {
		t.Errorf("lost after %v and %d renewals", after, asked)
	}
}

func TestRenewalTriesAgain(t *testing.T) {
	away := errors.New("away")
	after, asked := renewals(t, func(ctx context.Context, n int) error {
		switch {
		case n < 3:
			return away
		case n == 3:
			return nil
		}
		<-ctx.Done() // each try ends after a third
		return ctx.Err()
	})
	if after < 41*time.Second || after > 46*time.Second || asked < 5 {
		t.Errorf("lost after %v and %d renewals", after, asked)
	}
}
