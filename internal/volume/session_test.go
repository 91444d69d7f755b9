package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/repo"
	"drover/internal/volume/protocol"
)

func snapshotOptions(paths ...string) Options {
	opt := sessionOptions("command")
	opt.Tree = TreeOptions{Paths: paths, Host: "test"}
	return opt
}

// commit is what `drover snapshot` does.
func commit(t *testing.T, v *Volume, opt Options) (Outcome, error) {
	t.Helper()
	var out Outcome
	err := v.Claim(t.Context(), opt, func(ctx context.Context, s *Session) (err error) {
		out, err = s.Backup(ctx)
		return err
	})
	return out, err
}

func mustCommit(t *testing.T, v *Volume, opt Options) Outcome {
	t.Helper()
	out, err := commit(t, v, opt)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestClaimIsRefusedWhileAnAgentLives(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	a := newServer(t, st, "a", fastDir(t)+"/state").start().waitStarted()
	began := time.Now()
	err := openVolume(t, st).Claim(t.Context(), sessionOptions("command"), func(context.Context, *Session) error {
		t.Error("claimed although an agent holds")
		return nil
	})
	if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), `"a"`) {
		t.Fatalf("%v, want ErrHeld that names the holder", err)
	}
	// The holder renews every third of the TTL, and that tells.
	if took := time.Since(began); took > 10*testTTL {
		t.Errorf("refused after %v", took)
	}
	a.crash()
	mustCommit(t, openVolume(t, st), snapshotOptions(a.state))
	if got := count(t, st, "locks/"); got != 0 {
		t.Errorf("%d locks are left", got)
	}
}

func TestInterruptedSessionReleases(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	v := openVolume(t, st)
	ctx, interrupt := context.WithCancel(t.Context())
	err := v.Claim(ctx, sessionOptions("command"), func(ctx context.Context, _ *Session) error {
		interrupt()
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	seen, err := v.ReadHead(t.Context())
	if err != nil || seen.Head.State != protocol.Released {
		t.Fatalf("%+v, %v; want it released", seen.Head, err)
	}
	if got := count(t, st, "locks/"); got != 0 {
		t.Errorf("%d locks are left", got)
	}
}

// A command that slept while another one claimed must not go on with its work.
func TestWorkOfASessionEndsWithItsClaim(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	view := &cuttable{Store: st}
	opt := sessionOptions("sleeper")
	opt.Protocol.TTL = testTTL
	err := openVolume(t, view).Claim(t.Context(), opt, func(ctx context.Context, _ *Session) error {
		view.cut.Store(true)
		claimElsewhere(t, st)
		view.cut.Store(false)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Second):
			return errors.New("the work was not told that the claim is lost")
		}
	})
	if !errors.Is(err, ErrHeld) {
		t.Fatal(err)
	}
}

func TestShrinkIsRefused(t *testing.T) {
	t.Parallel()
	v, dir := openVolume(t, newStore(t)), fastDir(t)+"/state"
	for i := range 120 {
		writeFile(t, fmt.Sprintf("%s/%d/%d", dir, i%7, i), "x")
	}
	first := mustCommit(t, v, snapshotOptions(dir))
	for i := range 7 {
		if err := os.RemoveAll(fmt.Sprintf("%s/%d", dir, i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := commit(t, v, snapshotOptions(dir)); !errors.Is(err, ErrShrunk) {
		t.Fatalf("%v, want ErrShrunk", err)
	}
	if seen, err := v.ReadHead(t.Context()); err != nil || seen.Head.Snapshot != first.Head.Snapshot {
		t.Fatalf("head %+v, %v", seen.Head, err)
	}
	opt := snapshotOptions(dir)
	opt.Tree.AllowShrink = true
	mustCommit(t, v, opt)
	// What there is to compare with is gone: that refuses no commit.
	seen, err := v.ReadHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := v.st.Delete(t.Context(), "snapshots/"+seen.Head.Snapshot); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir+"/new", "x")
	mustCommit(t, v, snapshotOptions(dir))
}

// Reading the start of a process's memory fails for everybody, root included.
func TestUnreadableFileCommitsNothing(t *testing.T) {
	t.Parallel()
	v, dir := openVolume(t, newStore(t)), fastDir(t)+"/state"
	writeFile(t, dir+"/fine", "x")
	bad := fmt.Sprintf("/proc/%d/mem", os.Getpid())
	_, err := commit(t, v, snapshotOptions(dir, bad))
	if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), bad) {
		t.Fatalf("%v, want ErrIncomplete that names %s", err, bad)
	}
	if seen, err := v.ReadHead(t.Context()); err != nil || seen.Head.Seq != 0 {
		t.Fatalf("head %+v, %v; want nothing committed", seen.Head, err)
	}
	opt := snapshotOptions(dir, bad)
	opt.Tree.SkipUnreadable = true
	if out := mustCommit(t, v, opt); !slices.Equal(out.Capture.Unreadable, []string{bad}) {
		t.Errorf("left out %v", out.Capture.Unreadable)
	}
}

func TestFuzzyIsCommittedButNoSuccess(t *testing.T) {
	t.Parallel()
	v, dir := openVolume(t, newStore(t)), fastDir(t)+"/state"
	path := dir + "/busy"
	writeFile(t, path, strings.Repeat("0123456789abcdef", 1<<18))
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		for i := int64(0); ctx.Err() == nil; i++ {
			_ = os.Chtimes(path, time.Time{}, time.Unix(i, i))
		}
	})
	out, err := commit(t, v, snapshotOptions(dir))
	cancel()
	group.Wait()
	if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), path) {
		t.Fatalf("%v, want ErrIncomplete that names %s", err, path)
	}
	if out.Head.Seq != 1 || !slices.Equal(out.Capture.Fuzzy, []string{path}) {
		t.Errorf("%+v", out)
	}
	_, sn, err := v.Latest(t.Context())
	if err != nil || !slices.Contains(sn.Tags, "fuzzy") {
		t.Errorf("%v, %v", sn, err)
	}
}

// prunable makes a volume in which a prune has something to do.
func prunable(t *testing.T, st objstore.Store) (dir string, keep Outcome) {
	t.Helper()
	v := openVolume(t, st)
	dir = fastDir(t) + "/state"
	writeFile(t, dir+"/a", "first")
	old := mustCommit(t, v, snapshotOptions(dir))
	writeFile(t, dir+"/a", "second")
	keep = mustCommit(t, v, snapshotOptions(dir))
	if err := st.Delete(t.Context(), "snapshots/"+old.Head.Snapshot); err != nil {
		t.Fatal(err)
	}
	return dir, keep
}

func prune(ctx context.Context, v *Volume) (report repo.PruneReport, err error) {
	err = v.Claim(ctx, sessionOptions("pruner"), func(ctx context.Context, s *Session) error {
		report, err = s.Prune(ctx, repo.PruneOptions{})
		return err
	})
	return report, err
}

// A prune dies at each of its calls in turn; the next one does the rest, and
// takes what is gone off the head's list.
func TestPruneThatDies(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	prunable(t, st)
	clean := faulty.New(st, nil)
	v := openVolume(t, clean)
	skip := len(clean.Calls())
	if report, err := prune(t.Context(), v); err != nil || len(report.Deleted)+len(report.Repacked) == 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	for n := skip + 1; n <= len(clean.Calls()); n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			st := newStore(t)
			dir, keep := prunable(t, st)
			ctx, kill := context.WithCancel(t.Context())
			defer kill()
			var mu sync.Mutex
			dead := false
			view := faulty.New(st, func(c faulty.Call) faulty.Fault {
				mu.Lock()
				defer mu.Unlock()
				if dead || c.N == n {
					dead = true
					kill()
					return faulty.Fault{Before: errDead}
				}
				return faulty.Fault{}
			})
			if v, _, err := Open(ctx, view, OpenOptions{Name: "data", Password: password}); err == nil {
				_, _ = prune(ctx, v)
			}
			v := openVolume(t, st)
			removeLocks(t, v) // of the dead one: by hand, as a person would
			writeFile(t, dir+"/b", "third")
			mustCommit(t, v, snapshotOptions(dir))
			if _, err := prune(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			if seen, err := v.ReadHead(t.Context()); err != nil || len(seen.Head.Condemned) != 0 {
				t.Errorf("still condemned: %v, %v", seen.Head.Condemned, err)
			}
			report, err := v.Repo.Check(t.Context(), repo.CheckOptions{ReadData: true})
			if err != nil || len(report.Problems) != 0 || report.Snapshots != 2 {
				t.Errorf("%+v, %v; snapshot %s was to stay", report, err, keep.Head.Snapshot)
			}
		})
	}
}

func removeLocks(t *testing.T, v *Volume) {
	t.Helper()
	locks, err := v.Repo.Locks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range locks {
		if err := v.Repo.RemoveLock(t.Context(), l.ID); err != nil {
			t.Fatal(err)
		}
	}
}
