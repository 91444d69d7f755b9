package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/repo"
	"drover/internal/repo/fstest"
)

// tested is a volume with a few commits, and its state directory.
func tested(t *testing.T, st objstore.Store) (v *Volume, state string) {
	t.Helper()
	v, state = openVolume(t, st), fastDir(t)+"/state"
	for i := range 3 {
		writeFile(t, filepath.Join(state, "sub", fmt.Sprint("f", i)), strings.Repeat(fmt.Sprint(i), 1000*(i+1)))
		mustCommit(t, v, snapshotOptions(state))
	}
	fstest.Must(t, os.WriteFile(filepath.Join(state, "noise"), fstest.Noise(1<<20), 0o600))
	mustCommit(t, v, snapshotOptions(state))
	return v, state
}

// A test restores what a new instance would, tells so, and leaves nothing: not in its
// scratch space, not in the store but the outcome, and nothing of an earlier one that died.
func TestRestoreTestPasses(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	v, state := tested(t, st)
	scratch := filepath.Join(t.TempDir(), "scratch")
	writeFile(t, scratch+"/files/left/by/a/dead/one", "x")
	fstest.Must(t, os.Chmod(scratch+"/files/left/by", 0o500))
	if last, err := v.LastRestoreTest(t.Context()); last != nil || err != nil {
		t.Fatalf("before the first: %+v, %v", last, err)
	}
	var seen string
	res, err := v.TestRestore(t.Context(), RestoreTestOptions{Instance: "i", Scratch: scratch, Check: func(ctx context.Context, dir string) error {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("beside what is restored: %v, %v", entries, err)
		}
		data, err := os.ReadFile(dir + state + "/sub/f2")
		seen = string(data)
		if _, err := v.Repo.Lock(ctx, repo.LockOptions{Exclusive: true}); !errors.Is(err, repo.ErrLocked) {
			t.Errorf("a prune is not kept out: %v", err)
		}
		return err
	}})
	if err != nil || !res.Passed || !res.Begun || res.Seq != 4 || res.Files != 4 || res.Bytes != 1<<20+6000 || res.Error != "" || res.Restore <= 0 || res.Seconds < res.Restore {
		t.Errorf("%+v, %v", res, err)
	}
	if seen != strings.Repeat("2", 3000) {
		t.Errorf("restored %.20q", seen)
	}
	if _, err := os.Lstat(scratch + "/files"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	if n := count(t, st, "locks/"); n != 0 {
		t.Errorf("%d locks are left", n)
	}
	fstest.Must(t, v.SaveRestoreTest(t.Context(), res))
	last, err := openVolume(t, st).LastRestoreTest(t.Context())
	if err != nil || last == nil || !last.Time.Equal(res.Time) || last.Snapshot != res.Snapshot || !last.Passed {
		t.Errorf("%+v, %v", last, err)
	}
	fstest.Must(t, st.Put(t.Context(), restoreTestKey, []byte("scribble")))
	if last, err := v.LastRestoreTest(t.Context()); last != nil || err == nil {
		t.Errorf("scribble: %+v, %v", last, err)
	}
}

// What is wrong with the backup fails the test; what is wrong with the test says
// nothing about the backup. Whatever happens, nothing is left and nothing else changed.
func TestRestoreTestFails(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		break_ func(t *testing.T, st objstore.Store, opt *RestoreTestOptions)
		begun  bool
		want   error
		text   string
	}{
		"a pack is gone": {func(t *testing.T, st objstore.Store, _ *RestoreTestOptions) {
			eachObject(t, st, "data/", func(key string) { fstest.Must(t, st.Delete(t.Context(), key)) })
		}, true, nil, ""},
		"a bit is flipped": {func(t *testing.T, st objstore.Store, _ *RestoreTestOptions) {
			largest, size := "", 0
			eachObject(t, st, "data/", func(key string) {
				if data, _, err := st.Get(t.Context(), key, 0, -1); err == nil && len(data) > size {
					largest, size = key, len(data)
				}
			})
			data, _, err := st.Get(t.Context(), largest, 0, -1)
			fstest.Must(t, err)
			data = append([]byte{}, data...)
			data[size/2] ^= 1
			fstest.Must(t, st.Put(t.Context(), largest, data))
		}, true, ErrIncomplete, "/noise"},
		"the check fails": {func(_ *testing.T, _ objstore.Store, opt *RestoreTestOptions) {
			opt.Check = func(context.Context, string) error { return boom }
		}, true, boom, "check of the restored files"},
		"the head's snapshot is gone": {func(t *testing.T, st objstore.Store, _ *RestoreTestOptions) {
			eachObject(t, st, "snapshots/", func(key string) { fstest.Must(t, st.Delete(t.Context(), key)) })
		}, true, ErrNoSnapshot, "was removed"},
		"another test runs there": {func(t *testing.T, _ objstore.Store, opt *RestoreTestOptions) {
			s, err := OpenScratch(opt.Scratch, nil, "")
			fstest.Must(t, err)
			t.Cleanup(func() { fstest.Must(t, s.Close()) })
		}, false, unix.EWOULDBLOCK, "another restore test"},
		"the directory cannot be made": {func(t *testing.T, _ objstore.Store, opt *RestoreTestOptions) {
			fstest.Must(t, os.WriteFile(opt.Scratch, nil, 0o600))
		}, false, unix.ENOTDIR, "scratch"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newStore(t)
			_, state := tested(t, st)
			opt := RestoreTestOptions{Instance: "i", Scratch: filepath.Join(fastDir(t), "scratch")}
			c.break_(t, st, &opt)
			v := openVolume(t, st)
			res, err := v.TestRestore(t.Context(), opt)
			if err == nil || res.Passed || res.Begun != c.begun || res.Error != err.Error() || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(res.Error, c.text) {
				t.Errorf("%+v, %v; want begun %t, %v", res, err, c.begun, c.want)
			}
			if name != "another test runs there" {
				if left, err := os.ReadDir(opt.Scratch + "/files"); err == nil {
					t.Errorf("left: %v", left)
				}
			}
			if n := count(t, st, "locks/"); n != 0 {
				t.Errorf("%d locks are left", n)
			}
			if data, err := os.ReadFile(state + "/noise"); err != nil || len(data) != 1<<20 {
				t.Errorf("the application's own file: %d bytes, %v", len(data), err)
			}
		})
	}
}

// eachObject calls f with each key below prefix.
func eachObject(t *testing.T, st objstore.Store, prefix string, f func(key string)) {
	t.Helper()
	var all []string
	fstest.Must(t, st.List(t.Context(), prefix, func(i objstore.Info) error { all = append(all, i.Key); return nil }))
	for _, key := range all {
		f(key)
	}
}

// At any call, a store that fails makes a test that says nothing about the backup, or
// one that passed; never one that blames the backup.
func TestRestoreTestOnAFailingStore(t *testing.T) {
	t.Parallel()
	inner := newStore(t)
	tested(t, inner)
	calls := 0
	for at := -1; at < calls; at++ {
		st := faulty.New(inner, nil)
		v := openVolume(t, st)
		begun := len(st.Calls())
		st.Set(faulty.At(begun+1+at, faulty.Fault{Before: objstore.ErrUnavailable}))
		dir := filepath.Join(fastDir(t), "scratch")
		res, err := v.TestRestore(t.Context(), RestoreTestOptions{Instance: "i", Scratch: dir})
		switch {
		case at < 0:
			if calls = len(st.Calls()) - begun; err != nil || calls < 8 {
				t.Fatalf("%d calls, %v", calls, err)
			}
		case res.Passed != (err == nil), err != nil && res.Begun && errors.Is(err, objstore.ErrUnavailable):
			t.Errorf("call %d fails: %+v, %v", at, res, err)
		}
		eachObject(t, inner, "locks/", func(key string) { fstest.Must(t, inner.Delete(t.Context(), key)) })
	}
	t.Logf("%d calls", calls)
}

// A test leaves room to the application: it does not begin, or ends at once.
func TestRestoreTestLeavesRoom(t *testing.T) {
	t.Parallel()
	v, _ := tested(t, newStore(t))
	const mib = 1 << 20
	var free atomic.Int64 // of 100 MiB and 1000 inodes, in MiB
	disk := func(inodes uint64) func(string, *unix.Statfs_t) error {
		return func(_ string, st *unix.Statfs_t) error {
			*st = unix.Statfs_t{Bsize: mib, Frsize: mib, Blocks: 100, Bavail: uint64(free.Load()), Files: 1000, Ffree: inodes}
			return nil
		}
	}
	for _, c := range []struct {
		free   int64
		inodes uint64
		fits   bool
	}{{7, 900, true}, {6, 900, false}, {4, 900, false}, {90, 54, true}, {90, 53, false}, {90, 10, false}} {
		free.Store(c.free)
		res, err := v.TestRestore(t.Context(), RestoreTestOptions{Scratch: fastDir(t), statfs: disk(c.inodes)})
		if res.Passed != c.fits || !c.fits && (!errors.Is(err, ErrNoRoom) || res.Begun || res.Files > 0 || !strings.Contains(err.Error(), "restore_test.dir")) {
			t.Errorf("%+v: %+v, %v", c, res, err)
		}
	}
	free.Store(90)
	scratch := fastDir(t)
	res, err := v.TestRestore(t.Context(), RestoreTestOptions{Scratch: scratch, statfs: disk(900), Check: func(ctx context.Context, _ string) error {
		free.Store(4)
		<-ctx.Done()
		return ctx.Err()
	}})
	if !errors.Is(err, ErrNoRoom) || res.Begun || res.Files != 4 {
		t.Errorf("%+v, %v", res, err)
	}
	if left, err := os.ReadDir(scratch + "/files"); err == nil {
		t.Errorf("left: %v", left)
	}
}
