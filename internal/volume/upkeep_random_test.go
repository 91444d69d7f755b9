package volume

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/archive"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
)

// The holder commits, its upkeep collects, and a writer beside the head stores and
// forgets snapshots of the same few contents, all at once and each as slowly as dice
// say. Whatever the order, every snapshot that is there in the end is whole.
func TestUpkeepBesideWriters(t *testing.T) {
	seeds := 3
	if n, err := strconv.Atoi(os.Getenv("DROVER_SOAK")); err == nil {
		seeds = n / 500
	}
	var deleted, collected int
	for seed := range seeds {
		d := besideWriters(t, uint64(seed))
		deleted += d
		if d > 0 {
			collected++
		}
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
	t.Logf("%d seeds, %d packs deleted in %d of them", seeds, deleted, collected)
	if deleted == 0 {
		t.Error("nothing was collected: this tests nothing")
	}
}

func besideWriters(t *testing.T, seed uint64) (deleted int) {
	base := mem.New()
	slow := func(stream uint64, most time.Duration) *faulty.Store {
		var mu sync.Mutex
		dice := rand.New(rand.NewPCG(seed, stream))
		return faulty.New(base, func(faulty.Call) faulty.Fault {
			mu.Lock()
			defer mu.Unlock()
			if dice.IntN(3) > 0 {
				return faulty.Fault{}
			}
			return faulty.Fault{Delay: time.Duration(dice.Int64N(int64(most)))}
		})
	}
	a := newServer(t, slow(1, 3*time.Millisecond), "a", filepath.Join(fastDir(t), "state")).start().waitStarted()
	a.write("file", "state 0")
	a.backup()
	k := newKeeper(a, Retention{Committed: repo.Policy{Last: 2}})
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { // the upkeep
		dice := rand.New(rand.NewPCG(seed, 2))
		for ctx.Err() == nil {
			if _, err := k.once(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("upkeep: %v", err)
				return
			}
			k.clock += time.Duration(dice.IntN(180)) * time.Minute
		}
	})
	other := openVolume(t, slow(3, 80*time.Millisecond)).Repo
	work.Go(func() { // somebody's restic
		dice := rand.New(rand.NewPCG(seed, 4))
		dir := fastDir(t)
		for ctx.Err() == nil { // what was begun is ended
			if err := writeBeside(context.WithoutCancel(ctx), other, dir, dice); err != nil && ctx.Err() == nil {
				t.Errorf("the other writer: %v", err)
				return
			}
		}
	})
	dice := rand.New(rand.NewPCG(seed, 5))
	last := ""
	for range 25 {
		last = fmt.Sprint("state ", dice.IntN(5))
		a.write("file", last)
		a.backup()
	}
	stop()
	work.Wait()
	wholeAndCount(t, a)
	eachObject(t, base, "locks/", func(key string) { // of a writer that was stopped
		if key != format.LockFile.Key(a.rt.lock.ID()) {
			fstest.Must(t, base.Delete(t.Context(), key))
		}
	})
	for range 4 {
		k.run()
		k.clock += 2 * time.Hour
	}
	wholeAndCount(t, a)
	deleted = k.Stats().Deleted
	a.lose()
	newServer(t, base, "b", a.state).start().waitStarted().want("file", last)
	return deleted
}

// writeBeside does what a restic does: it locks, stores a snapshot or removes one of
// its own, looks that its lock is there still, and unlocks.
func writeBeside(ctx context.Context, r *repo.Repository, dir string, dice *rand.Rand) (err error) {
	lock, err := r.Lock(ctx, repo.LockOptions{Hostname: "elsewhere"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock(ctx)) }()
	if dice.IntN(3) == 0 {
		var own []format.ID
		err := r.Snapshots(ctx, func(id format.ID, sn *format.Snapshot) error {
			if sn.Hostname == "elsewhere" {
				own = append(own, id)
			}
			return nil
		})
		if err != nil || len(own) == 0 {
			return err
		}
		return r.RemoveSnapshot(ctx, own[dice.IntN(len(own))])
	}
	if err := r.LoadIndex(ctx); err != nil {
		return err
	}
	name := filepath.Join(dir, "other")
	if err := os.WriteFile(name, fmt.Appendf(nil, "state %d", dice.IntN(5)), 0o600); err != nil {
		return err
	}
	w := r.NewWriter(ctx, repo.WriterOptions{})
	defer w.Abort()
	res, err := archive.Run(ctx, w, r, archive.Options{Paths: []string{dir}})
	if err != nil {
		return err
	}
	if _, _, err := w.Finish(ctx, &format.Snapshot{Time: time.Now(), Tree: &res.Tree, Paths: []string{dir}, Hostname: "elsewhere"}); err != nil {
		return err
	}
	return lock.Check(ctx)
}
