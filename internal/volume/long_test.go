package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
	"drover/internal/repo/restore"
	"drover/internal/testkit/gotool"
)

// The long life: three servers after one another, twenty commits, and between them
// all that people do to a volume (forget and prune, merging indexes, keys, going
// back, handing over). It is lived once for every call to the store and every thing
// that may happen to that call; whoever dies is started again on the same disk, and
// what a person asked for is asked for again until it is done.

// longLife is one play of it.
type longLife struct {
	*life
	forgotten map[string]bool // snapshots that a forget was asked to remove
	commits   int             // acknowledged
	long      []byte          // what the long file is made of
	rekeys    bool            // keys are changed in it: most of what a life costs
}

// begin names what comes next. Effects that nobody waits for any more come now. A
// lock that does is nobody's: as one of a command that was killed it is in the way
// until a person removes it, or for half an hour.
func (l *longLife) begin(step string) {
	l.mu.Lock()
	l.step = step
	l.mu.Unlock()
	if l.view.Late() == 0 {
		return
	}
	l.deliver()
	if l.at.kind == "locks" {
		removeLocks(l.t, l.openAnyway())
	}
}

// serve starts a server, and has it make n commits.
func (l *longLife) serve(step, id string, n int) *actor {
	l.t.Helper()
	l.begin(step)
	var a *actor
	for done := 0; done < n; {
		if a == nil {
			l.revive()
			a = l.boot(id)
			continue
		}
		l.edit(l.commits)
		if a.backup() {
			done++
			l.commits++
			continue
		}
		a.crash()
		a = nil
	}
	return a
}

// edit changes the files: one is new, one replaced, one removed, and a long one
// differs in a part of it.
func (l *longLife) edit(n int) {
	l.t.Helper()
	dir := filepath.Join(l.dir, "state")
	writeFile(l.t, fmt.Sprintf("%s/dir%d/new%d", dir, n%3, n), strings.Repeat(strconv.Itoa(n), 10))
	writeFile(l.t, dir+"/same", strconv.Itoa(n))
	long := bytes.Clone(l.long)
	copy(long[(n*7919)%len(long):], fmt.Sprintf("commit %d", n))
	writeFile(l.t, dir+"/long", string(long))
	if err := os.Remove(fmt.Sprintf("%s/dir%d/new%d", dir, (n+1)%3, n-2)); err != nil && !errors.Is(err, os.ErrNotExist) {
		l.t.Fatal(err)
	}
}

// command is what a person does, until it is done. If the process died, its lock is
// removed as `restic unlock` would.
func (l *longLife) command(step string, f func(ctx context.Context, v *Volume) error) {
	t := l.t
	t.Helper()
	l.begin(step)
	var err error
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		stop := context.AfterFunc(l.doomed(ctx), cancel)
		var v *Volume
		if v, _, err = Open(ctx, l.store, OpenOptions{Name: "data", Password: l.password}); err == nil {
			err = f(ctx, v)
		}
		stop()
		cancel()
		if !l.died.Load() && err == nil {
			return
		}
		if l.died.Load() {
			l.revive()
			removeLocks(t, l.openAnyway())
		}
	}
	t.Fatalf("%s: %v", step, err)
}

// doomed is a context that ends when the process dies.
func (l *longLife) doomed(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func(dead <-chan struct{}) {
		select {
		case <-dead:
			cancel()
		case <-ctx.Done():
		}
	}(l.dead)
	return ctx
}

// openAnyway opens the volume past all faults.
func (l *longLife) openAnyway() *Volume {
	l.t.Helper()
	v, err := openWith(l.t, l.base, l.password)
	if err != nil {
		l.t.Fatal(err)
	}
	return v
}

func (l *longLife) claimed(ctx context.Context, v *Volume, f func(ctx context.Context, s *Session) error) error {
	return v.Claim(ctx, sessionOptions("command"), f)
}

// forget removes the n oldest snapshots that are still there, and prunes.
func (l *longLife) forget(step string, n int) {
	l.t.Helper()
	var doomed []string
	for _, s := range l.states[:len(l.states)-1] {
		if s.snapshot != "" && !l.forgotten[s.snapshot] && len(doomed) < n {
			doomed = append(doomed, s.snapshot)
			l.forgotten[s.snapshot] = true
		}
	}
	l.command(step, func(ctx context.Context, v *Volume) error {
		return l.claimed(ctx, v, func(ctx context.Context, s *Session) error {
			for _, name := range doomed {
				id, err := format.ParseID(name)
				if err != nil {
					return err
				}
				if err := v.Repo.RemoveSnapshot(ctx, id); err != nil {
					return err
				}
			}
			_, err := s.Prune(ctx, repo.PruneOptions{})
			return err
		})
	})
}

// compact merges the index objects.
func (l *longLife) compact(step string) {
	l.t.Helper()
	l.command(step, func(ctx context.Context, v *Volume) error {
		return l.claimed(ctx, v, func(ctx context.Context, _ *Session) error {
			merged, err := v.Repo.CompactIndex(ctx, 2, nil)
			if err != nil {
				return err
			}
			return v.Repo.RemoveIndex(ctx, merged)
		})
	})
	if n := count(l.t, l.base, "index/"); n > 2 {
		l.t.Errorf("%s: %d index objects are left", step, n)
	}
}

// keys adds a password and removes it again.
func (l *longLife) keys(step string) {
	l.t.Helper()
	l.command(step, func(ctx context.Context, v *Volume) error {
		id, err := v.AddKey(ctx, "a guest's")
		if err == nil {
			err = v.RemoveKey(ctx, id)
		}
		return err
	})
	if opens(l.t, l.base, "a guest's") {
		l.t.Errorf("%s: the removed password opens the volume", step)
	}
}

// passwd replaces the password. Whoever died in it tries with the one that opens.
func (l *longLife) passwd(step string) {
	l.t.Helper()
	l.begin(step)
	for range 5 {
		done := false
		v, _, err := Open(l.doomed(l.t.Context()), l.store, OpenOptions{Name: "data", Password: l.password})
		if err == nil {
			_, err = v.ReplaceKey(l.doomed(l.t.Context()), newPassword)
			done = err == nil
		}
		died := l.died.Load()
		l.revive()
		if died && opens(l.t, l.base, newPassword) {
			l.password = newPassword
		}
		if done && !died {
			l.password = newPassword
			return
		}
	}
	l.t.Fatalf("%s: the password was not replaced", step)
}

// rollBack goes back to the nth newest acknowledged state.
func (l *longLife) rollBack(step string, n int) {
	l.t.Helper()
	var to state
	for _, s := range slices.Backward(l.states) {
		if s.snapshot == "" {
			continue
		}
		if to = s; n == 0 {
			break
		}
		n--
	}
	id, err := format.ParseID(to.snapshot)
	fstest.Must(l.t, err)
	l.states = append(l.states, state{files: to.files})
	l.command(step, func(ctx context.Context, v *Volume) error {
		opt := sessionOptions("command")
		opt.Tree.Host = "test"
		out, err := v.Rollback(ctx, opt, id)
		if err == nil {
			last := &l.states[len(l.states)-1]
			last.snapshot, last.settled = out.Head.Snapshot, true
		}
		return err
	})
}

// play acts the script out.
func (l *longLife) play() {
	a := l.serve("first", "a", 7)
	a.crash()
	l.forget("forget", 3)
	l.replace()
	b := l.serve("takeover", "b", 7)
	b.stop()
	l.revive()
	l.compact("compact")
	if l.rekeys {
		l.keys("keys")
	}
	l.rollBack("rollback", 3)
	l.replace()
	c := l.serve("back", "c", 6)
	if l.rekeys {
		l.passwd("passwd")
	}
	l.handOver(c)
	l.forget("forget-more", 6)
	l.compact("compact-more")
	l.begin("after")
	l.view.Set(nil) // nothing fails from here on
	l.replace()
	d := l.boot("d")
	if d == nil {
		l.t.Fatal("d died, and nothing was left to kill it")
	}
	l.checkLong(d)
	v := d.rt.v
	d.stop()
	l.whole(v)
}

// handOver has c give the volume to whoever comes.
func (l *longLife) handOver(c *actor) {
	l.begin("handover")
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	if err := c.rt.HandOver(l.doomed(ctx), 10*time.Second); err != nil && !l.died.Load() {
		l.t.Errorf("hand over: %v", err)
	}
	c.crash()
	l.revive()
}

// checkLong looks at the whole of what is left: each acknowledged state that nobody
// asked to forget is in the history, in order, and restores byte for byte.
func (l *longLife) checkLong(d *actor) {
	t, ctx, v := l.t, l.t.Context(), d.rt.v
	status, _ := d.rt.Status()
	entries, err := v.History(ctx, status.Head)
	fstest.Must(t, err, v.Repo.LoadIndex(ctx))
	byID := map[string]Entry{}
	for _, e := range entries {
		byID[e.ID.String()] = e
	}
	seq, checked := uint64(0), 0
	for i, s := range l.states {
		if s.snapshot == "" || l.forgotten[s.snapshot] {
			continue
		}
		e, ok := byID[s.snapshot]
		if !ok || !e.Committed || e.Diverged || e.Seq <= seq {
			t.Errorf("acknowledged state %d is %+v in the history (found: %v), after seq %d", i, e, ok, seq)
			continue
		}
		seq = e.Seq
		checked++
		target := filepath.Join(l.dir, fmt.Sprintf("restored-%d", i))
		if _, err := restore.Run(ctx, v.Repo, e.Snapshot, restore.Options{Target: target}); err != nil {
			t.Errorf("restore acknowledged state %d: %v", i, err)
		}
		if have := readFiles(t, filepath.Join(target, e.Paths[0])); !maps.Equal(have, s.files) {
			t.Errorf("acknowledged state %d has %d files, had %d, or they differ", i, len(have), len(s.files))
		}
		fstest.Must(t, os.RemoveAll(target))
	}
	if want := 20 + 1 - 9; checked < want {
		t.Errorf("%d acknowledged states were restored, want %d", checked, want)
	}
}

func newLongLife(t *testing.T, at point, m mode) *longLife {
	return &longLife{life: newLife(t, at, m), forgotten: map[string]bool{}, long: fstest.Noise(64 << 10)}
}

// longPoints lists the calls of a long life in which nothing fails.
func longPoints(t *testing.T) []point {
	l := newLongLife(t, point{}, mode{})
	l.rekeys = true
	l.play()
	if t.Failed() {
		t.FailNow()
	}
	return l.points()
}

// sampled is a life's fault in the long test.
type sampled struct {
	at point
	m  mode
}

// sample chooses n of all, spread evenly over them, each at random in its part.
func sample[T any](all []T, n int, seed uint64) (some []T) {
	if n <= 0 || n >= len(all) {
		return all
	}
	dice := rand.New(rand.NewPCG(seed, 0))
	for i := range n {
		from, to := i*len(all)/n, (i+1)*len(all)/n
		some = append(some, all[from+dice.IntN(to-from)])
	}
	return some
}

// longLives is how many lives the normal test plays; DROVER_SOAK plays all.
const longLives = 40

// TestEveryCallOfALongLifeFails: see the top of this file.
func TestEveryCallOfALongLifeFails(t *testing.T) {
	all := longPoints(t)
	var lives []sampled
	for _, m := range modes() {
		for _, p := range all {
			if !m.writes || p.op.Writes() {
				lives = append(lives, sampled{p, m})
			}
		}
	}
	n, each := longLives, 10
	if os.Getenv("DROVER_SOAK") != "" {
		n, each = 0, 1
	}
	some := sample(lives, n, 1)
	var fired, restic atomic.Int64
	t.Run("lives", func(t *testing.T) {
		slots := make(chan struct{}, 24) // lives mostly wait
		for i, s := range some {
			t.Run(s.at.String()+"/"+s.m.name, func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				l := newLongLife(t, s.at, s.m)
				l.rekeys = s.at.step == "keys" || s.at.step == "passwd" || i%4 == 0
				l.play()
				if l.fired {
					fired.Add(1)
				}
				if i%each == 0 && !t.Failed() {
					resticCheck(t, l.base, l.password)
					restic.Add(1)
				}
			})
		}
	})
	t.Logf("%d calls, %d lives possible, %d lived, %d with a fault, %d checked by restic", len(all), len(lives), len(some), fired.Load(), restic.Load())
	if fired.Load() < int64(len(some))*8/10 {
		t.Errorf("only %d of %d lives met their fault", fired.Load(), len(some))
	}
}

// resticCheck has stock restic read every byte of the repository.
func resticCheck(t *testing.T, st objstore.Store, password string, args ...string) {
	t.Helper()
	dir := filepath.Join(fastDir(t), "repository")
	for _, key := range keys(t, st, "") {
		data, _, err := st.Get(t.Context(), key, 0, -1)
		fstest.Must(t, err)
		writeFile(t, filepath.Join(dir, key), string(data))
	}
	fstest.Must(t, os.MkdirAll(dir+"/locks", 0o755))
	restic := gotool.Path(t, "restic") // it may have to be built first
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, restic, append([]string{"-r", dir, "--no-cache", "check", "--read-data"}, args...)...)
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD="+password)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("restic check: %v\n%s", err, out)
	}
	fstest.Must(t, os.RemoveAll(dir))
}
