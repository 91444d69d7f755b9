package database

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// fence is the moment at which the server is to be dead if nobody says otherwise until then. It
// is read without a lock.
type fence struct{ at atomic.Int64 } // nanoseconds since the member began; 0: it leads nobody

func (f *fence) set(until time.Duration) { f.at.Store(int64(until)) }

func (f *fence) left(now time.Duration) time.Duration {
	at := f.at.Load()
	if at == 0 {
		return math.MaxInt64
	}
	return time.Duration(at) - now
}

// watchdog kills the server when its time is over, whatever else hangs. It needs no disk and no lock.
func (m *Member) watchdog(ctx context.Context) {
	for {
		left := m.fence.left(m.now())
		if left <= 0 {
			m.fence.at.Store(0)
			m.opt.Processes.Kill("it could not prove in time that it is the primary")
			m.nudge()
			continue
		}
		if !m.rest(ctx, m.killed, min(left, time.Hour)) {
			return
		}
	}
}
