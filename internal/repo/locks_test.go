package repo

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/repo/format"
)

// putLock stores somebody else's lock.
func putLock(t *testing.T, r *Repository, c lockJSON) format.ID {
	t.Helper()
	plain, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	id, err := r.saveFile(t.Context(), format.LockFile, plain)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestLockConflicts(t *testing.T) {
	r := newRepo(t, mem.New(), Options{})
	shared, err := r.Lock(t.Context(), LockOptions{Hostname: "a", Username: "u", PID: 7})
	if err != nil {
		t.Fatal(err)
	}
	second, err := r.Lock(t.Context(), LockOptions{Hostname: "b"})
	if err != nil {
		t.Fatalf("two shared locks: %v", err)
	}
	_, err = r.Lock(t.Context(), LockOptions{Exclusive: true})
	wantError(t, err, ErrLocked)
	unlock(t, second)
	_, err = r.Lock(t.Context(), LockOptions{Exclusive: true})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "u@a, process 7") {
		t.Errorf("the error does not say who: %v", err)
	}
	unlock(t, shared)
	exclusive, err := r.Lock(t.Context(), LockOptions{Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Lock(t.Context(), LockOptions{})
	wantError(t, err, ErrLocked)
	unlock(t, exclusive)
	if left := keys(t, r.st, "locks/"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func unlock(t *testing.T, l *Lock) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it must work at the very end, too
	if err := l.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestLockWaits(t *testing.T) {
	st := mem.New()
	newRepo(t, st, Options{}) // before the bubble: it makes the bundle
	synctest.Test(t, func(t *testing.T) {
		r := openRepo(t, st, Options{})
		first, err := r.Lock(t.Context(), LockOptions{Exclusive: true})
		if err != nil {
			t.Fatal(err)
		}
		released := make(chan struct{})
		go func() {
			defer close(released)
			time.Sleep(10 * time.Minute)
			unlock(t, first)
		}()
		start := time.Now()
		_, err = r.Lock(t.Context(), LockOptions{Wait: time.Minute})
		wantError(t, err, ErrLocked)
		if took := time.Since(start); took != time.Minute {
			t.Errorf("gave up after %v", took)
		}
		second, err := r.Lock(t.Context(), LockOptions{Wait: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 10*time.Minute || took > 12*time.Minute {
			t.Errorf("locked after %v", took)
		}
		<-released
		unlock(t, second)
	})
}

// A lock that the store has seen for 30 minutes without a refresh is removed when
// it is in the way; what its maker's clock says does not matter.
func TestStaleLockIsJudgedByTheStoresClock(t *testing.T) {
	st := mem.New()
	newRepo(t, st, Options{})
	synctest.Test(t, func(t *testing.T) {
		r := openRepo(t, st, Options{})
		old := lockJSON{Time: time.Now().Add(-10 * time.Hour), Exclusive: true, Hostname: "slow clock", PID: 1}
		id := putLock(t, r, old)
		_, err := r.Lock(t.Context(), LockOptions{})
		wantError(t, err, ErrLocked)
		locks, err := r.Locks(t.Context())
		if err != nil || len(locks) != 1 || !locks[0].Stale || locks[0].ID != id {
			t.Errorf("locks %+v, %v", locks, err)
		}
		time.Sleep(31 * time.Minute)
		l, err := r.Lock(t.Context(), LockOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if left := keys(t, st, "locks/"); len(left) != 1 || left[0] != format.LockFile.Key(l.ID()) {
			t.Errorf("locks left: %v", left)
		}
		unlock(t, l)
	})
}

func TestLockRefreshAndLoss(t *testing.T) {
	st := watch(mem.New())
	r := newRepo(t, st, Options{})
	l, err := r.Lock(t.Context(), LockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := l.ID()
	if err := l.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.ID() == before {
		t.Error("the lock object was not replaced")
	}
	if left := keys(t, st, "locks/"); len(left) != 1 {
		t.Errorf("locks after a refresh: %v", left)
	}
	st.setHook(func(op, _ string) error {
		if op == "put" {
			return errInjected
		}
		return nil
	})
	before = l.ID()
	wantError(t, l.Refresh(t.Context()), errInjected)
	st.setHook(nil)
	if l.ID() != before || l.Check(t.Context()) != nil {
		t.Error("a refresh that failed lost the lock")
	}
	if err := r.RemoveLock(t.Context(), l.ID()); err != nil {
		t.Fatal(err)
	}
	wantError(t, l.Check(t.Context()), ErrLockLost)
	wantError(t, l.Refresh(t.Context()), ErrLockLost)
	unlock(t, l)
}

// A lock that is held for hours is never stale, also if some refresh fails.
func TestLockKeepFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := watch(mem.New())
		r := newRepo(t, st, Options{})
		l, err := r.Lock(t.Context(), LockOptions{})
		if err != nil {
			t.Fatal(err)
		}
		stop := l.KeepFresh(t.Context())
		var down atomic.Bool
		st.setHook(func(op, _ string) error {
			if down.Load() && op == "put" {
				return errInjected
			}
			return nil
		})
		for i := range 40 {
			down.Store(i%2 == 0)
			time.Sleep(refreshEvery)
			synctest.Wait()
			locks, err := r.Locks(t.Context())
			if err != nil || len(locks) != 1 || locks[0].ID != l.ID() || time.Since(locks[0].Time) > 2*refreshEvery {
				t.Fatalf("after %d refreshes: %v, %v", i+1, locks, err)
			}
		}
		stop()
		last := l.ID()
		time.Sleep(2 * refreshEvery)
		synctest.Wait()
		if l.ID() != last {
			t.Error("refreshed after the stop")
		}
		st.setHook(nil)
		unlock(t, l)
	})
}

// A listing that fails half-way is not taken for "no locks".
func TestLockFailsIfItCannotLook(t *testing.T) {
	st := watch(mem.New())
	r := newRepo(t, st, Options{})
	putLock(t, r, lockJSON{Time: time.Now(), Exclusive: true})
	for _, op := range []string{"list", "listed", "get"} {
		st.setHook(func(o, key string) error {
			if o == op && strings.HasPrefix(key, "locks/") {
				return objstore.ErrUnavailable
			}
			return nil
		})
		_, err := r.Lock(t.Context(), LockOptions{})
		wantError(t, err, objstore.ErrUnavailable)
	}
	st.setHook(nil)
	if left := keys(t, st, "locks/"); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestUnreadableLockIsInTheWay(t *testing.T) {
	st := mem.New()
	r := newRepo(t, st, Options{})
	put(t, st, format.LockFile.Key(numberedID(1)), []byte("garbage"))
	_, err := r.Lock(t.Context(), LockOptions{})
	wantError(t, err, ErrLocked)
}
