package objstoretest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"drover/internal/objstore"
)

func testCreate(t *testing.T, s objstore.Store) {
	first, err := s.PutIf(t.Context(), "dir/a", []byte("one"), objstore.IfAbsent())
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if first == "" || first != etag(t, s, "dir/a") {
		t.Errorf("PutIf returned ETag %q, Head %q", first, etag(t, s, "dir/a"))
	}
	_, err = s.PutIf(t.Context(), "dir/a", []byte("two"), objstore.IfAbsent())
	want(t, "create what exists", err, objstore.ErrConflict)
	if got := get(t, s, "dir/a"); string(got) != "one" {
		t.Errorf("after a refused create: %q", got)
	}
	if err := s.Delete(t.Context(), "dir/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutIf(t.Context(), "dir/a", []byte("three"), objstore.IfAbsent()); err != nil {
		t.Errorf("create after a delete: %v", err)
	}
}

func testSwap(t *testing.T, s objstore.Store) {
	one, err := s.PutIf(t.Context(), "a", []byte("one"), objstore.IfAbsent())
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.PutIf(t.Context(), "a", []byte("two"), objstore.IfMatch(one))
	if err != nil {
		t.Fatalf("swap with the current ETag: %v", err)
	}
	if two == one || two != etag(t, s, "a") {
		t.Errorf("ETag %q before, %q returned, %q by Head", one, two, etag(t, s, "a"))
	}
	_, err = s.PutIf(t.Context(), "a", []byte("three"), objstore.IfMatch(one))
	want(t, "swap with a stale ETag", err, objstore.ErrConflict)
	if got := get(t, s, "a"); string(got) != "two" {
		t.Errorf("after a refused swap: %q", got)
	}
	put(t, s, "a", []byte("four"))
	_, err = s.PutIf(t.Context(), "a", []byte("five"), objstore.IfMatch(two))
	want(t, "swap after a plain put", err, objstore.ErrConflict)
	if _, err := s.PutIf(t.Context(), "a", nil, objstore.IfMatch(etag(t, s, "a"))); err != nil {
		t.Errorf("swap for nothing with the ETag of a plain put: %v", err)
	}
	if got := get(t, s, "a"); len(got) != 0 {
		t.Errorf("after a swap for nothing: %q", got)
	}
}

func testSwapDeleted(t *testing.T, s objstore.Store) {
	tag, err := s.PutIf(t.Context(), "a", []byte("one"), objstore.IfAbsent())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	_, err = s.PutIf(t.Context(), "a", []byte("two"), objstore.IfMatch(tag))
	want(t, "swap of a deleted object", err, objstore.ErrConflict)
	_, err = s.PutIf(t.Context(), "never", []byte("two"), objstore.IfMatch(tag))
	want(t, "swap of an object that never was", err, objstore.ErrConflict)
	wantKeys(t, s, "")
}

func testBadCondition(t *testing.T, s objstore.Store) {
	for _, cond := range []objstore.Condition{{}, {Absent: true, ETag: "x"}} {
		_, err := s.PutIf(t.Context(), "a", []byte("x"), cond)
		if err == nil || errors.Is(err, objstore.ErrConflict) {
			t.Errorf("condition %+v: %v", cond, err)
		}
	}
	wantKeys(t, s, "")
}

const (
	racers = 32
	rounds = 5
)

func testRaceToCreate(t *testing.T, s objstore.Store) {
	for round := range rounds {
		key := fmt.Sprintf("race/%d", round)
		race(t, s, key, objstore.IfAbsent())
	}
}

func testRaceToSwap(t *testing.T, s objstore.Store) {
	tag, err := s.PutIf(t.Context(), "race", []byte("start"), objstore.IfAbsent())
	if err != nil {
		t.Fatal(err)
	}
	for range rounds {
		tag = race(t, s, "race", objstore.IfMatch(tag))
	}
}

// race has all racers write under one condition and wants one winner, whose
// bytes are then there. It returns the winner's ETag. No bytes are written twice:
// where the ETag is a hash of them, as in S3, the former winner would restore it.
func race(t *testing.T, s objstore.Store, key string, cond objstore.Condition) objstore.ETag {
	t.Helper()
	var (
		group   sync.WaitGroup
		start   = make(chan struct{})
		etags   [racers]objstore.ETag
		errs    [racers]error
		winners []int
	)
	for i := range racers {
		group.Go(func() {
			<-start
			etags[i], errs[i] = s.PutIf(t.Context(), key, fmt.Appendf(nil, "racer %d after %s", i, cond.ETag), cond)
		})
	}
	close(start)
	group.Wait()
	for i, err := range errs {
		if err == nil {
			winners = append(winners, i)
		} else if !errors.Is(err, objstore.ErrConflict) {
			t.Errorf("racer %d: %v", i, err)
		}
	}
	if len(winners) != 1 {
		t.Fatalf("%d winners of a race: %v", len(winners), winners)
	}
	w := winners[0]
	if got := get(t, s, key); string(got) != fmt.Sprintf("racer %d after %s", w, cond.ETag) {
		t.Errorf("racer %d won, %q is stored", w, got)
	}
	if got := etag(t, s, key); got != etags[w] {
		t.Errorf("the winner got ETag %q, Head says %q", etags[w], got)
	}
	return etags[w]
}
