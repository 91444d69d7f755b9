package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo/format"

	"golang.org/x/sys/unix"
)

// staleAfter is restic's: a lock that was not refreshed for so long is dead.
// restic refreshes every 5 minutes.
const staleAfter = 30 * time.Minute

// LockOptions of Lock.
type LockOptions struct {
	Exclusive bool
	Hostname  string        // "": the machine's
	Username  string        // "": the process's user
	PID       int           // 0: the process's
	Wait      time.Duration // how long to wait for conflicting locks to go
}

// lockJSON is the content of a lock object.
type lockJSON struct {
	Time      time.Time `json:"time"`
	Exclusive bool      `json:"exclusive"`
	Hostname  string    `json:"hostname"`
	Username  string    `json:"username"`
	PID       int       `json:"pid"`
	UID       uint32    `json:"uid,omitempty"`
	GID       uint32    `json:"gid,omitempty"`
	Origin    *origin   `json:"drover_origin,omitempty"`
}

// LockInfo describes a lock object.
type LockInfo struct {
	ID        format.ID
	Time      time.Time // its maker's clock
	Exclusive bool
	Hostname  string
	Username  string
	PID       int
	ModTime   time.Time // the store's clock
	// Stale is for people: by its own time it is older than restic lets a lock
	// be, or it is of a process of this machine that is gone.
	Stale bool
	// Dead: it is certain that the process which made it is gone.
	Dead bool
	// Err says why the object's content is not known; it may be exclusive then.
	Err error
}

func (l LockInfo) String() string {
	if l.Err != nil {
		return fmt.Sprintf("lock %s of %s, which cannot be read, and counts for half an hour (restic unlock --remove-all removes it, if nobody works there): %v",
			l.ID.Short(), l.ModTime.Format(time.RFC3339), l.Err)
	}
	kind := "shared"
	if l.Exclusive {
		kind = "exclusive"
	}
	return fmt.Sprintf("%s lock %s of %s@%s, process %d, since %s", kind, l.ID.Short(), l.Username, l.Hostname, l.PID, l.Time.Format(time.RFC3339))
}

// Lock is a lock object of ours in the repository. It is for one goroutine at a
// time, but for ID.
type Lock struct {
	r    *Repository
	json lockJSON

	mu  sync.Mutex
	id  format.ID
	old []format.ID // replaced, and perhaps still there
}

// Lock stores a lock object and makes sure that no other one conflicts with it:
// an exclusive one conflicts with every other, a shared one with exclusive ones.
// While Wait lasts it tries again. A conflicting lock that by the store's own
// clock was not refreshed for 30 minutes is removed, and so is one of a process that
// ran beside this one and is certainly gone.
//
// It looks after it has stored its own: of two that race, at least one sees the
// other, and gives way. (restic waits between the two for stores that list late;
// the port does not allow such.) Errors: ErrLocked.
func (r *Repository) Lock(ctx context.Context, opt LockOptions) (*Lock, error) {
	if err := r.writable(); err != nil {
		return nil, fmt.Errorf("lock repository: %w", err)
	}
	end := time.Now().Add(opt.Wait)
	pause := 100 * time.Millisecond
	for attempt := 0; ; attempt++ {
		l, err := r.tryLock(ctx, opt, attempt > 0 || opt.Exclusive)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, ErrLocked) || time.Until(end) <= 0 {
			return nil, fmt.Errorf("lock repository: %w", err)
		}
		pause = min(2*pause, time.Minute)
		timer := time.NewTimer(min(time.Until(end), pause/2+rand.N(pause/2)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("lock repository: %w", errors.Join(ctx.Err(), err))
		case <-timer.C:
		}
	}
}

// tryLock looks first if look says so, in order not to disturb in vain.
func (r *Repository) tryLock(ctx context.Context, opt LockOptions, look bool) (*Lock, error) {
	if look {
		locks, err := r.Locks(ctx)
		if err != nil {
			return nil, err
		}
		for _, other := range locks {
			// Whether it is really stale is decided below, by the store's clock.
			if opt.conflicts(other) && !other.Dead && time.Since(other.ModTime) < staleAfter {
				return nil, fmt.Errorf("%w: %s", ErrLocked, other)
			}
		}
	}
	l := &Lock{r: r, json: opt.content()}
	if err := l.put(ctx); err != nil {
		return nil, err
	}
	if err := l.settle(ctx, opt); err != nil {
		return nil, errors.Join(err, l.Unlock(ctx))
	}
	return l, nil
}

func (o LockOptions) conflicts(other LockInfo) bool {
	return o.Exclusive || other.Exclusive || other.Err != nil
}

func (o LockOptions) content() lockJSON {
	c := lockJSON{
		Exclusive: o.Exclusive, Hostname: o.Hostname, Username: o.Username, PID: o.PID,
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
	}
	host, name := identity()
	if c.Hostname == "" {
		c.Hostname = host
	}
	if c.Username == "" {
		c.Username = name
	}
	if c.PID == 0 {
		c.PID, c.Origin = os.Getpid(), ownOrigin()
	}
	return c
}

// settle makes sure that no lock conflicts with ours, which is stored. Our own
// object's age is the store's present time.
func (l *Lock) settle(ctx context.Context, opt LockOptions) error {
	locks, err := l.r.Locks(ctx)
	if err != nil {
		return err
	}
	var now time.Time
	for _, other := range locks {
		if other.ID == l.id {
			now = other.ModTime
		}
	}
	if now.IsZero() {
		return fmt.Errorf("%w: somebody removed it at once", ErrLockLost)
	}
	for _, other := range locks {
		if other.ID == l.id || !opt.conflicts(other) {
			continue
		}
		if !other.Dead && (other.ModTime.IsZero() || now.Sub(other.ModTime) < staleAfter) {
			return fmt.Errorf("%w: %s", ErrLocked, other)
		}
		l.r.opt.Log.Warn("removing a stale lock", "lock", other.String())
		if err := l.r.RemoveLock(ctx, other.ID); err != nil {
			return err
		}
	}
	return nil
}

// put stores the lock anew, with the present time.
func (l *Lock) put(ctx context.Context) error {
	l.json.Time = time.Now()
	plain, err := json.Marshal(l.json)
	if err != nil {
		return fmt.Errorf("encode lock: %w", err)
	}
	id, sealed := l.r.encodeFile(plain)
	l.mu.Lock()
	if !l.id.IsZero() {
		l.old = append(l.old, l.id)
	}
	l.id = id // noted first: a put that failed may have taken effect
	l.mu.Unlock()
	return l.r.st.Put(ctx, format.LockFile.Key(id), sealed)
}

// ID is the present lock object's id; it changes with every Refresh.
func (l *Lock) ID() format.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

// Objects are all lock objects that are there for this lock, or may be.
func (l *Lock) Objects() []format.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(slices.Clone(l.old), l.id)
}

// Exclusive reports whether the lock excludes all others.
func (l *Lock) Exclusive() bool { return l.json.Exclusive }

// Refresh replaces the lock object by one with the present time. If it fails the
// lock is as old as it was. Errors: ErrLockLost.
func (l *Lock) Refresh(ctx context.Context) error {
	if err := l.Check(ctx); err != nil {
		return fmt.Errorf("refresh lock: %w", err)
	}
	before := l.ID()
	if err := l.put(ctx); err != nil {
		l.mu.Lock()
		l.id, l.old = before, append(l.old[:len(l.old)-1], l.id)
		l.mu.Unlock()
		return fmt.Errorf("refresh lock: %w", err)
	}
	if err := l.removeOld(ctx); err != nil {
		return fmt.Errorf("refresh lock: %w", err)
	}
	return nil
}

// refreshEvery is how often restic's own locks are refreshed.
const refreshEvery = 5 * time.Minute

// KeepFresh refreshes the lock until stop is called or ctx ends, so that nobody
// calls it stale. A refresh that fails is logged, and tried again in its turn.
func (l *Lock) KeepFresh(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(refreshEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := l.Refresh(ctx); err != nil && ctx.Err() == nil {
					l.r.opt.Log.Warn("refresh repository lock: a prune meanwhile would disturb", "err", err)
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

func (l *Lock) removeOld(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.old) > 0 {
		if err := l.r.RemoveLock(ctx, l.old[0]); err != nil {
			return err
		}
		l.old = l.old[1:]
	}
	return nil
}

// Check makes sure that the lock object is still there. Errors: ErrLockLost.
func (l *Lock) Check(ctx context.Context) error {
	_, err := l.r.st.Head(ctx, format.LockFile.Key(l.ID()))
	if errors.Is(err, objstore.ErrNotFound) {
		return fmt.Errorf("%w: %s", ErrLockLost, l.ID().Short())
	}
	if err != nil {
		return fmt.Errorf("check lock: %w", err)
	}
	return nil
}

// unlockTimeout is how long Unlock tries although its context has ended.
const unlockTimeout = 10 * time.Second

// Unlock removes the lock's objects, even if ctx has ended.
func (l *Lock) Unlock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	l.mu.Lock()
	if !l.id.IsZero() {
		l.old = append(l.old, l.id)
		l.id = format.ID{}
	}
	l.mu.Unlock()
	return l.removeOld(ctx)
}

// Locks describes all lock objects, ours too.
func (r *Repository) Locks(ctx context.Context) ([]LockInfo, error) {
	times := make(map[format.ID]time.Time)
	var ids []format.ID
	err := listFiles(ctx, r.st, format.LockFile, func(id format.ID, info objstore.Info) error {
		ids = append(ids, id)
		times[id] = info.ModTime
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list locks: %w", err)
	}
	var locks []LockInfo
	err = r.loadFiles(ctx, format.LockFile, ids, func(id format.ID, plain []byte, err error) error {
		if errors.Is(err, objstore.ErrNotFound) {
			return nil
		}
		info := LockInfo{ID: id, ModTime: times[id]}
		var content lockJSON
		if err == nil {
			content, err = decodeLock(plain)
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			return fmt.Errorf("load lock: %w", err)
		}
		info.Err = err
		info.Time, info.Exclusive = content.Time, content.Exclusive
		info.Hostname, info.Username, info.PID = content.Hostname, content.Username, content.PID
		info.Dead = err == nil && content.dead()
		info.Stale = info.Dead || err == nil && content.stale()
		locks = append(locks, info)
		return nil
	})
	return locks, err
}

func decodeLock(plain []byte) (lockJSON, error) {
	var c lockJSON
	if err := json.Unmarshal(plain, &c); err != nil {
		return lockJSON{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return c, nil
}

// stale is restic's rule. Nothing is removed because of it without being asked: see
// origin.
func (c lockJSON) stale() bool {
	if time.Since(c.Time) > staleAfter {
		return true
	}
	host, _ := identity()
	return host != "" && c.Hostname == host && c.PID > 0 && errors.Is(unix.Kill(c.PID, 0), unix.ESRCH)
}

// RemoveLock deletes a lock object, whoever made it.
func (r *Repository) RemoveLock(ctx context.Context, id format.ID) error {
	if err := r.removeFile(ctx, format.LockFile, id); err != nil {
		return fmt.Errorf("remove lock %s: %w", id.Short(), err)
	}
	return nil
}
