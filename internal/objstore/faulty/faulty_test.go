package faulty_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
	"drover/internal/objstore/objstoretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Store { return faulty.New(mem.New(), nil) })
}

var errScript = errors.New("so says the script")

// content is what the store under the faulty one holds; "-" is nothing.
func content(t *testing.T, s objstore.Store) string {
	t.Helper()
	data, _, err := s.Get(t.Context(), "a", 0, -1)
	if errors.Is(err, objstore.ErrNotFound) {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestEffects(t *testing.T) {
	for _, c := range []struct {
		name    string
		fault   faulty.Fault
		err     error
		content string
	}{
		{"none", faulty.Fault{}, nil, "x"},
		{"before", faulty.Fault{Before: errScript}, errScript, "-"},
		{"after", faulty.Fault{After: errScript}, errScript, "x"},
		{"late", faulty.Fault{Late: errScript}, errScript, "-"},
		{"twice", faulty.Fault{Twice: true}, objstore.ErrConflict, "x"},
		{"hang", faulty.Fault{Hang: true}, context.DeadlineExceeded, "-"},
		{"stuck", faulty.Fault{Stuck: true}, context.DeadlineExceeded, "x"},
		{"slow", faulty.Fault{Delay: time.Second}, nil, "x"},
		{"too slow", faulty.Fault{Delay: time.Hour}, context.DeadlineExceeded, "-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				under := mem.New()
				s := faulty.New(under, faulty.At(1, c.fault))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				tag, err := s.PutIf(ctx, "a", []byte("x"), objstore.IfAbsent())
				if !errors.Is(err, c.err) || (err == nil) != (tag != "") {
					t.Errorf("got %q, %v", tag, err)
				}
				if got := content(t, under); got != c.content {
					t.Errorf("stored is %q, want %q", got, c.content)
				}
			})
		})
	}
}

func TestDeliver(t *testing.T) {
	under := mem.New()
	s := faulty.New(under, func(c faulty.Call) faulty.Fault {
		if c.N <= 2 {
			return faulty.Fault{Late: errScript}
		}
		return faulty.Fault{}
	})
	ctx, cancel := context.WithCancel(t.Context())
	_ = s.Put(ctx, "a", []byte("first"))
	_, _ = s.PutIf(ctx, "a", []byte("second"), objstore.IfAbsent())
	cancel() // what is on its way arrives all the same
	if err := s.Put(t.Context(), "a", []byte("third")); err != nil || s.Late() != 2 {
		t.Fatalf("%v, %d late", err, s.Late())
	}
	if err := s.Deliver(1); !errors.Is(err, objstore.ErrConflict) || content(t, under) != "third" {
		t.Errorf("a late conditional put: %v, %q", err, content(t, under))
	}
	if err := s.Deliver(0); err != nil || content(t, under) != "first" || s.Late() != 0 {
		t.Errorf("a late put: %v, %q", err, content(t, under))
	}
}

func TestCalls(t *testing.T) {
	s := faulty.New(mem.New(), func(c faulty.Call) faulty.Fault {
		if c.Op.Writes() && c.Key == "b" {
			return faulty.Fault{Before: errScript}
		}
		return faulty.Fault{}
	})
	data := []byte("one")
	_ = s.Put(t.Context(), "a", data)
	data[0] = 'X'
	_ = s.Put(t.Context(), "b", nil)
	_ = s.List(t.Context(), "p/", func(objstore.Info) error { return nil })
	_ = s.Delete(t.Context(), "b")
	_, _ = s.Head(t.Context(), "b")
	calls := s.Calls()
	for i, want := range []struct {
		op  faulty.Op
		key string
		err error
	}{
		{faulty.Put, "a", nil}, {faulty.Put, "b", errScript}, {faulty.List, "p/", nil}, {faulty.Delete, "b", errScript},
		{faulty.Head, "b", objstore.ErrNotFound},
	} {
		got := calls[i]
		if got.N != i+1 || got.Op != want.op || got.Key != want.key || !got.Done || !errors.Is(got.Err, want.err) {
			t.Errorf("call %d is %+v, want %+v", i+1, got, want)
		}
	}
	if string(calls[0].Data) != "one" {
		t.Errorf("recorded %q", calls[0].Data)
	}
	s.Set(nil)
	if err := s.Put(t.Context(), "b", nil); err != nil {
		t.Errorf("without a script: %v", err)
	}
}

func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := faulty.New(mem.New(), faulty.Slow(20*time.Millisecond))
		began := time.Now()
		for range 3 {
			if err := s.Put(t.Context(), "a", nil); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 60*time.Millisecond {
			t.Errorf("three calls took %v", took)
		}
	})
}
