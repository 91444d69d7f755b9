package mem_test

import (
	"errors"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/objstore/objstoretest"
)

func TestETagNeverRepeats(t *testing.T) {
	s, ctx := mem.New(), t.Context()
	seen := map[objstore.ETag]bool{}
	for range 3 {
		if err := s.Put(ctx, "a", []byte("same")); err != nil {
			t.Fatal(err)
		}
		info, err := s.Head(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		if seen[info.ETag] {
			t.Fatalf("ETag %q twice", info.ETag)
		}
		seen[info.ETag] = true
		if err := s.Delete(ctx, "a"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStoredBytesAreItsOwn(t *testing.T) {
	s, ctx := mem.New(), t.Context()
	data := []byte("abc")
	if err := s.Put(ctx, "a", data); err != nil {
		t.Fatal(err)
	}
	data[0] = 'X'
	got, _, err := s.Get(ctx, "a", 0, -1)
	if err != nil || string(got) != "abc" {
		t.Fatalf("got %q, %v after the caller changed its slice", got, err)
	}
	got[1] = 'X'
	if again, _, _ := s.Get(ctx, "a", 0, -1); string(again) != "abc" {
		t.Fatalf("got %q after a reader changed its slice", again)
	}
}

func TestInvalidCondition(t *testing.T) {
	s := mem.New()
	for _, cond := range []objstore.Condition{{}, {Absent: true, ETag: "v1"}} {
		if _, err := s.PutIf(t.Context(), "a", nil, cond); err == nil || errors.Is(err, objstore.ErrConflict) {
			t.Errorf("condition %+v: %v", cond, err)
		}
	}
}

func TestConformance(t *testing.T) {
	t.Run("store", func(t *testing.T) {
		objstoretest.Run(t, func(*testing.T) objstore.Store { return mem.New() })
	})
	t.Run("view", func(t *testing.T) {
		objstoretest.Run(t, func(t *testing.T) objstore.Store {
			under := mem.New()
			if err := under.Put(t.Context(), "viewed", []byte("beside the view")); err != nil {
				t.Fatal(err)
			}
			return objstore.WithPrefix(under, "view")
		})
	})
}
