package app

import (
	"context"
	"time"
)

// triggers asks for backups on change and on schedule, until ctx ends.
type triggers struct {
	onChange time.Duration   // quiet time after the last change; 0: never
	every    time.Duration   // 0: never
	changed  <-chan struct{} // a value when something changed
	backup   func()          // asks, and does not wait
}

// longestDebounce bounds how long ceaseless changes may put a backup off, in
// quiet times.
const longestDebounce = 10

func (t triggers) run(ctx context.Context) {
	var every <-chan time.Time
	if t.every > 0 {
		ticker := time.NewTicker(t.every)
		defer ticker.Stop()
		every = ticker.C
	}
	changed := t.changed
	if t.onChange == 0 {
		changed = nil
	}
	var quiet, latest <-chan time.Time // timers of one burst of changes; nil outside of one
	fire := func() { quiet, latest = nil, nil; t.backup() }
	for {
		select {
		case <-ctx.Done():
			return
		case <-every:
			t.backup()
		case <-changed:
			quiet = time.After(t.onChange)
			if latest == nil {
				latest = time.After(longestDebounce * t.onChange)
			}
		case <-quiet:
			fire()
		case <-latest:
			fire()
		}
	}
}
