package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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

	statfs func(path string, st *unix.Statfs_t) error // of tests; nil: the system's
}

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
	// Of a database: the end of the base backup, and how far the log led from there.
	Backup  *time.Time `json:"backup,omitempty"`
	Reached string     `json:"reached,omitempty"`
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
	t := RestoreTest{Instance: opt.Instance, Time: time.Now()}
	s, err := OpenScratch(opt.Scratch, opt.Owner, "restore_test.dir")
	if err == nil {
		if opt.statfs != nil {
			s.statfs = opt.statfs
		}
		own := &Volume{Name: v.Name, Repo: v.Repo.Again(), st: v.st}
		err = own.testRestore(ctx, s, opt, &t)
		err = errors.Join(err, s.Close())
	}
	return t, t.End(ctx, err)
}

// End notes how a test that ran under ctx has ended, and returns the outcome's error.
func (t *RestoreTest) End(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		err = cause
	}
	t.Seconds = time.Since(t.Time).Seconds()
	if t.Passed = err == nil; err != nil {
		err = fmt.Errorf("restore test: %w", err)
		t.Error = err.Error()
	}
	return err
}

func (v *Volume) testRestore(ctx context.Context, s *Scratch, opt RestoreTestOptions, t *RestoreTest) error {
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
	ctx, stop := s.Watch(ctx)
	defer stop()
	err = v.restoreScratch(ctx, s, sn, opt, t)
	if err == nil && opt.Check != nil {
		if err = opt.Check(ctx, s.Dir); err != nil {
			err = fmt.Errorf("check of the restored files: %w", err)
		}
	}
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrNoRoom) {
		t.Begun = false
		return cause
	}
	return err
}

// restoreScratch restores sn there, if there is room.
func (v *Volume) restoreScratch(ctx context.Context, s *Scratch, sn *format.Snapshot, opt RestoreTestOptions, t *RestoreTest) error {
	files, bytes := sn.Totals()
	if err := s.Room(uint64(files), uint64(bytes)); err != nil {
		return err
	}
	began := time.Now()
	res, err := restore.Run(ctx, v.Repo, sn, restore.Options{
		Target: s.Dir, Verify: true, Concurrency: 1, Progress: opt.Progress,
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
