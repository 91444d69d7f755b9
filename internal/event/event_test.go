package event

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func next(t *testing.T, s *Subscription) (Event, int) {
	t.Helper()
	e, missed, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e, missed
}

// All see one order, whoever publishes at once, and each publisher's own order in it.
func TestOneOrderForAll(t *testing.T) {
	const publishers, each, subscribers = 4, 500, 3
	b := NewBus(0)
	var subs []*Subscription
	for range subscribers {
		subs = append(subs, b.Subscribe(Options{Queue: publishers * each}))
	}
	var all sync.WaitGroup
	for p := range publishers {
		all.Go(func() {
			for n := range each {
				b.Publish(Event{Name: "n", Source: fmt.Sprint(p), Text: fmt.Sprint(n)})
			}
		})
	}
	seen := make([][]Event, subscribers)
	for i, s := range subs {
		all.Go(func() {
			for range publishers * each {
				e, missed, err := s.Next(context.Background())
				if err != nil || missed > 0 {
					t.Errorf("missed %d, %v", missed, err)
					return
				}
				seen[i] = append(seen[i], e)
			}
		})
	}
	all.Wait()
	last := map[string]int{}
	for n, e := range seen[0] {
		if e.Seq != uint64(n+1) || e != seen[1][n] || e != seen[2][n] {
			t.Fatalf("event %d: %v, %v, %v", n, e, seen[1][n], seen[2][n])
		}
		if e.Text != fmt.Sprint(last[e.Source]) {
			t.Fatalf("publisher %s: %s after %d others", e.Source, e.Text, last[e.Source])
		}
		last[e.Source]++
	}
}

// The ancestor hung when a queue was full.
func TestHangWhenAnEventQueueFilled(t *testing.T) {
	b := NewBus(3)
	slow := b.Subscribe(Options{Queue: 2})
	merged := b.Subscribe(Options{Coalesce: true, Only: func(e Event) bool { return e.Name != "noise" }})
	for n := range 1000 {
		b.Publish(Event{Name: "exit", Source: fmt.Sprint(n % 3), Text: fmt.Sprint(n)})
		b.Publish(Event{Name: "noise"})
	}
	if e, missed := next(t, slow); e.Seq != 1999 || missed != 1998 {
		t.Errorf("the slow one got %d after %d missed", e.Seq, missed)
	}
	if e, missed := next(t, slow); e.Seq != 2000 || missed != 0 {
		t.Errorf("the slow one got %d after %d missed", e.Seq, missed)
	}
	for _, want := range []string{"997", "998", "999"} {
		if e, missed := next(t, merged); e.Text != want || missed != 0 {
			t.Errorf("got %v after %d missed, want the newest of its source, %s", e, missed, want)
		}
	}
	late := b.Subscribe(Options{Queue: 10, Recent: 2})
	if e, _ := next(t, late); e.Seq != 1999 {
		t.Errorf("who came late got %v", e)
	}
}

func TestNextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBus(1)
		s := b.Subscribe(Options{})
		ended := make(chan error)
		go func() {
			_, _, err := s.Next(context.Background())
			ended <- err
		}()
		synctest.Wait()
		s.Close()
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		b.Publish(Event{Name: "n"})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := b.Subscribe(Options{}).Next(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if len(b.subs) != 1 {
			t.Errorf("%d subscribers are left", len(b.subs))
		}
	})
}
