package file

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The pause between two looks at a lock that another holds. It is held for one
// rename, some tens of microseconds.
const (
	lockPauseMin = 200 * time.Microsecond
	lockPauseMax = 10 * time.Millisecond
)

// lock takes the lock that guards key: unix.LOCK_EX to compare and swap,
// unix.LOCK_SH to change the object without comparing. It belongs to the open
// file, so it excludes goroutines as well as processes, and the kernel releases
// it when its holder dies. The lock files are never removed: a lock on a
// removed file would exclude nobody.
func lock(ctx context.Context, root *os.Root, key string, how int) (*os.File, error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	name := fmt.Sprintf("%s/lock-%02x", ownDir, h.Sum32()&0xff)
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for pause := lockPauseMin; ; pause = min(2*pause, lockPauseMax) {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-timer.C:
		}
	}
}
