package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/restore"
)

// restoreTestKey holds the last restore test's outcome, for whoever asks next.
// Nothing depends on it: who writes last is right.
const restoreTestKey = "drover/restore-test"

// testHost begins the host name in the locks of restore tests.
const testHost = "drover-test-"

// ErrNoRoom: the scratch space has no room for a restore test.
var ErrNoRoom = errors.New("no room for a restore test")

// RestoreTestOptions of TestRestore.
type RestoreTestOptions struct {
	Instance string // who tests, for the repository's lock
	// Scratch is a directory for this test alone. What is in it is removed, before
	// and after.
	Scratch string
	// Check looks at the files that were restored below dir, each at its absolute
	// path there; nil: what is read back is compared with the snapshot, no more.
	Check func(ctx context.Context, dir string) error
	// Owner owns dir, so that Check may run as somebody else; nil: the process's user.
	Owner    *Owner
	Log      *slog.Logger
	Progress func(path string, bytes uint64) // as restore.Options has it

	statfs func(path string, st *unix.Statfs_t) error // nil: the system's
}

// Owner is a user and a group.
type Owner struct{ UID, GID uint32 }

// RestoreTest is the outcome of a restore test.
type RestoreTest struct {
	Snapshot string    `json:"snapshot"`
	Seq      uint64    `json:"seq"`
	Instance string    `json:"instance"`
	Time     time.Time `json:"time"` // of its start, by its instance's clock
	// Passed: every byte was restored, read back and right, and the check agreed.
	Passed bool `json:"passed"`
	// Begun: the files were restored, or it showed that they cannot be. Else the test
	// says nothing about the backup.
	Begun   bool    `json:"begun"`
	Error   string  `json:"error,omitempty"`
	Files   int64   `json:"files"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`         // of the whole test
	Restore float64 `json:"restore_seconds"` // of the restore alone, with reading back
}

// TestRestore restores the head's snapshot into scratch space as a new instance would,
// with a repository handle of its own, reads everything back, has it checked, and
// removes it again. It needs no claim, and disturbs nobody but by what it reads; it
// takes one file at a time. The error is the one in the outcome, and may be
// ErrNoSnapshot, ErrNoRoom, ErrIncomplete.
func (v *Volume) TestRestore(ctx context.Context, opt RestoreTestOptions) (RestoreTest, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.statfs == nil {
		opt.statfs = unix.Statfs
	}
	t := RestoreTest{Instance: opt.Instance, Time: time.Now()}
	dir, clean, err := scratch(opt.Scratch, opt.Owner)
	if err == nil {
		own := &Volume{Name: v.Name, Repo: v.Repo.Again(), st: v.st}
		err = own.testRestore(ctx, dir, opt, &t)
		err = errors.Join(err, clean())
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	t.Seconds = time.Since(t.Time).Seconds()
	if t.Passed = err == nil; err != nil {
		err = fmt.Errorf("restore test: %w", err)
		t.Error = err.Error()
	}
	return t, err
}

func (v *Volume) testRestore(ctx context.Context, dir string, opt RestoreTestOptions, t *RestoreTest) error {
	lock, err := v.Repo.Lock(ctx, repo.LockOptions{Hostname: testHost + opt.Instance})
	switch {
	case errors.Is(err, objstore.ErrUnauthorised):
		opt.Log.Warn("no lock: these credentials may only read; a prune meanwhile would disturb the restore test", "err", err)
	case err != nil:
		return err
	default:
		stop := lock.KeepFresh(ctx)
		defer func() {
			stop()
			if err := lock.Unlock(ctx); err != nil {
				opt.Log.Warn("remove lock of the restore test", "err", err)
			}
		}()
	}
	seen, err := v.ReadHead(ctx)
	if err != nil {
		return err
	}
	t.Snapshot, t.Seq = seen.Head.Snapshot, seen.Head.Seq
	sn, err := v.headSnapshot(ctx, seen.Head)
	if err != nil {
		t.Begun = seen.Head.Seq > 0 && errors.Is(err, ErrNoSnapshot)
		return err
	}
	if err := v.Repo.LoadIndex(ctx); err != nil {
		return fmt.Errorf("load index: %w", err)
	}
	ctx, stop := opt.watchRoom(ctx, dir)
	defer stop()
	err = v.restoreScratch(ctx, dir, sn, opt, t)
	if err == nil && opt.Check != nil {
		if err = opt.Check(ctx, dir); err != nil {
			err = fmt.Errorf("check of the restored files: %w", err)
		}
	}
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrNoRoom) {
		t.Begun = false
		return cause
	}
	return err
}

// restoreScratch restores sn below dir, if there is room.
func (v *Volume) restoreScratch(ctx context.Context, dir string, sn *format.Snapshot, opt RestoreTestOptions, t *RestoreTest) error {
	files, bytes := sn.Totals()
	if err := opt.room(dir, uint64(files), uint64(bytes)); err != nil {
		return err
	}
	began := time.Now()
	res, err := restore.Run(ctx, v.Repo, sn, restore.Options{
		Target: dir, Verify: true, Concurrency: 1, Progress: opt.Progress,
	})
	t.Files, t.Bytes, t.Restore = int64(res.Files), int64(res.Bytes), time.Since(began).Seconds()
	var incomplete *restore.IncompleteError
	if errors.As(err, &incomplete) {
		err = fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	t.Begun = err == nil || !says(err, objstore.ErrUnavailable, unix.ENOSPC, unix.EDQUOT, context.Canceled) &&
		says(err, ErrIncomplete, repo.ErrDamaged, repo.ErrBlobNotFound, objstore.ErrNotFound)
	return err
}

// says reports whether err is any of the kinds.
func says(err error, kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}

// scratch empties the directory of what an earlier test left, and makes room in it.
func scratch(path string, owner *Owner) (dir string, clean func() error, err error) {
	if err := os.MkdirAll(path, 0o711); err != nil {
		return "", nil, fmt.Errorf("make scratch space: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", nil, fmt.Errorf("lock scratch space: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return "", nil, errors.Join(fmt.Errorf("lock scratch space %s: another restore test runs there: %w", path, err), lock.Close())
	}
	dir = filepath.Join(path, "files")
	err = removeTree(dir)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err == nil && owner != nil {
		err = os.Chown(dir, int(owner.UID), int(owner.GID))
	}
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("make scratch space: %w", err), lock.Close())
	}
	return dir, func() error {
		if err := removeTree(dir); err != nil {
			return errors.Join(fmt.Errorf("remove what was restored: %w", err), lock.Close())
		}
		return lock.Close()
	}, nil
}

// removeTree is os.RemoveAll of what may hold directories that their owner may not
// write, since they were restored so.
func removeTree(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			return os.Chmod(path, 0o700) // before its entries are read
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return os.RemoveAll(dir)
}

// spareShare is the part of a file system, in percent, that a restore test leaves to
// the application.
const spareShare = 5

// room fails with ErrNoRoom if so much more would leave too little.
func (o RestoreTestOptions) room(dir string, files, bytes uint64) error {
	var st unix.Statfs_t
	if err := o.statfs(dir, &st); err != nil {
		return fmt.Errorf("look for free space in %s: %w", dir, err)
	}
	unit := uint64(st.Frsize)
	free, spare := st.Bavail*unit, st.Blocks*unit/100*spareShare
	if free < spare || free-spare < bytes {
		return fmt.Errorf("%w: it needs %d MiB and leaves %d %% of the disk to the application, but only %d MiB are free at %s: give it a directory with more room (restore_test.dir)",
			ErrNoRoom, bytes>>20, spareShare, free>>20, dir)
	}
	if st.Files > 0 && (st.Ffree < st.Files/100*spareShare || st.Ffree-st.Files/100*spareShare < files) {
		return fmt.Errorf("%w: it needs %d inodes, and only %d are free at %s: give it a directory with more room (restore_test.dir)",
			ErrNoRoom, files, st.Ffree, dir)
	}
	return nil
}

// watchRoom ends the context when the application, or somebody else, needs the space.
func (o RestoreTestOptions) watchRoom(ctx context.Context, dir string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := o.room(dir, 0, 0); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	return ctx, func() { cancel(nil); <-ended }
}

// SaveRestoreTest tells everybody the outcome.
func (v *Volume) SaveRestoreTest(ctx context.Context, t RestoreTest) error {
	plain, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("encode restore test: %w", err)
	}
	if err := v.st.Put(ctx, restoreTestKey, v.Repo.Seal(plain)); err != nil {
		return fmt.Errorf("save restore test: %w", err)
	}
	return nil
}

// LastRestoreTest is the newest outcome that was saved; nil: none was.
func (v *Volume) LastRestoreTest(ctx context.Context) (*RestoreTest, error) {
	sealed, _, err := v.st.Get(ctx, restoreTestKey, 0, -1)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil, nil
	}
	var t RestoreTest
	if err == nil {
		var plain []byte
		if plain, err = v.Repo.Unseal(sealed); err == nil {
			err = json.Unmarshal(plain, &t)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read last restore test: %w", err)
	}
	return &t, nil
}
