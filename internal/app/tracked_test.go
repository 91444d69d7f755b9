package app

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"drover/internal/config"
)

// What no event tells is found by a look at everything, which comes again and again.
func TestEverythingIsLookedAtNowAndThen(t *testing.T) {
	dir := t.TempDir()
	tr := newTracked(&config.Config{State: []config.StatePath{{Path: dir}}}, slog.New(slog.DiscardHandler))
	tr.walk = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { tr.run(ctx) })
	defer group.Wait()
	defer cancel()
	tr.start(ctx)
	var due, quiet int
	for deadline := time.Now().Add(patience); due < 2 || quiet == 0; {
		if time.Now().After(deadline) {
			t.Fatalf("a full walk was due %d times, and %d times nothing was", due, quiet)
		}
		switch set := tr.Drain(ctx); {
		case set.All && set.Reason == "a full walk is due":
			due++
		case !set.All && len(set.Paths) == 0:
			quiet++
		}
	}
}
