package volume

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/file"
	"drover/internal/testkit/gotool"
	"drover/internal/volume/protocol"
)

// The process is killed at each call of a commit, before and after its effect,
// and started again on the same disk: the newer local files stay.
func TestRestartInPlaceAfterAKillInACommit(t *testing.T) {
	t.Parallel()
	// The calls of a commit that follows another: at most these many.
	for n := 1; n <= 8; n++ {
		for _, fault := range []faulty.Fault{{Before: errDead}, {After: errDead}} {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				st := newStore(t)
				view := faulty.New(st, nil)
				a := newServer(t, view, "a", fastDir(t)+"/state").start().waitStarted()
				a.write("old", "1")
				a.backup()
				a.write("old", "2")
				a.write("newer", "1")
				dead := make(chan struct{})
				var mu sync.Mutex
				calls := 0
				view.Set(func(c faulty.Call) faulty.Fault {
					mu.Lock()
					defer mu.Unlock()
					if c.Op == faulty.Get && c.Key == headKey {
						return faulty.Fault{}
					}
					switch calls++; {
					case calls == n:
						close(dead)
						return fault
					case calls > n:
						return faulty.Fault{Before: errDead}
					}
					return faulty.Fault{}
				})
				ctx, cancel := context.WithCancel(t.Context())
				go func() { <-dead; cancel() }()
				_, _ = a.rt.Backup(ctx)
				<-dead // at the latest by a renewal
				a.crash()
				view.Set(nil)
				a.write("newest", "written after the kill, by a job that lived a moment longer")
				a.start().waitStarted()
				a.want("old", "2")
				a.want("newer", "1")
				a.want("newest", "written after the kill, by a job that lived a moment longer")
				if _, stats := a.rt.Status(); stats.Restore != 0 || len(stats.Diverged) != 0 {
					t.Errorf("restored or diverged: %+v", stats)
				}
				out := a.backup()
				committedLine(t, a.rt.v, out.Head)
				want := readFiles(t, a.state)
				a.lose()
				b := newServer(t, st, "b", a.state).start().waitStarted()
				if have := readFiles(t, b.state); len(have) != len(want) {
					t.Errorf("elsewhere there is %v, want %v", have, want)
				}
			})
		}
	}
}

// A restored server is restarted in place as well as one that never restored.
func TestRestartInPlaceAfterARestore(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	a := newServer(t, st, "a", fastDir(t)+"/state").start().waitStarted()
	a.write("file", "1")
	a.backup()
	a.lose()
	b := newServer(t, st, "b", a.state).start().waitStarted()
	b.write("newer", "1")
	b.crash()
	b.start().waitStarted().want("newer", "1")
	if _, stats := b.rt.Status(); stats.Restore != 0 {
		t.Errorf("restored: %+v", stats)
	}
}

// fakeChanges tells what the test wrote since the last Drain, once.
type fakeChanges struct {
	mu    sync.Mutex
	paths []string
	all   bool
}

func (c *fakeChanges) Drain(context.Context) ChangeSet {
	c.mu.Lock()
	defer c.mu.Unlock()
	set := ChangeSet{All: c.all, Paths: c.paths}
	c.all, c.paths = false, nil
	return set
}

func (c *fakeChanges) Return(set ChangeSet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = c.all || set.All
	c.paths = append(c.paths, set.Paths...)
}

func (c *fakeChanges) note(paths ...string) { c.Return(ChangeSet{Paths: paths}) }

// Our lock vanishes while a commit is under way: the snapshot is made again, with
// what changed before the first try too.
func TestCommitThatStartsOverForgetsNoChange(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	view := faulty.New(st, nil)
	changes := &fakeChanges{all: true}
	a := newServer(t, view, "a", fastDir(t)+"/state")
	a.opt = func(o *Options) { o.Changes = changes }
	a.start().waitStarted()
	a.write("file", "1")
	a.backup()
	a.write("file", "22")
	changes.note(filepath.Join(a.state, "file"))
	var once sync.Once
	view.Set(func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.Put && strings.HasPrefix(c.Key, "snapshots/") {
			once.Do(func() { removeLocks(t, a.rt.v) })
		}
		return faulty.Fault{}
	})
	a.backup()
	a.lose()
	b := newServer(t, st, "b", a.state).start().waitStarted()
	b.want("file", "22")
}

func TestInstanceWithOtherPathsDoesNotClaim(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	a := newServer(t, st, "a", fastDir(t)+"/state").start().waitStarted()
	a.write("file", "1")
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	b := newServer(t, st, "b", fastDir(t)+"/elsewhere").start()
	if err := <-b.ended; !errors.Is(err, ErrPaths) || !strings.Contains(err.Error(), a.state) {
		t.Fatalf("%v, want ErrPaths that names %s", err, a.state)
	}
	if b.jobs.starts != 0 {
		t.Error("jobs were started on an empty directory")
	}
}

func TestTwoAgents(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	a := newServer(t, st, "same", fastDir(t)+"/state").start().waitStarted()
	if _, err := OpenDataDir(a.base, "data"); !errors.Is(err, ErrDataDirInUse) || !strings.Contains(err.Error(), a.base) {
		t.Errorf("%v, want ErrDataDirInUse that names it", err)
	}
	// One with the same id and a data directory of its own stands by.
	b := newServer(t, st, "same", fastDir(t)+"/state")
	b.start()
	b.waitPhase(protocol.PhaseStandby)
	a.write("file", "1")
	a.backup()
	if b.jobs.starts != 0 {
		t.Error("both run")
	}
}

// slowJobs takes its time to start, until it is let go.
type slowJobs struct {
	fakeJobs
	entered, proceed chan struct{}
}

func (j *slowJobs) Start(ctx context.Context) error {
	close(j.entered)
	<-j.proceed
	return j.fakeJobs.Start(ctx)
}

// Jobs that are being started when the kill comes are killed when they run.
func TestKillComesAfterTheStartUnderWay(t *testing.T) {
	j := &slowJobs{entered: make(chan struct{}), proceed: make(chan struct{})}
	j.started = make(chan struct{}, 1)
	r := NewRuntime(nil, Options{Jobs: j})
	r.do(t.Context(), protocol.StartJobs{})
	<-j.entered
	r.do(t.Context(), protocol.KillJobs{Reason: "deposed"})
	close(j.proceed)
	if in := <-r.in; in != (protocol.JobsExited{}) {
		t.Errorf("%T", in)
	}
	if j.kills != 1 || j.alive() {
		t.Errorf("killed %d times; alive: %v", j.kills, j.alive())
	}
	r.effects.Wait()
}

// However many backups are queued while none can start, one waits.
func TestQueueCoalesces(t *testing.T) {
	r := NewRuntime(nil, Options{})
	got := make(chan int)
	stop := make(chan struct{})
	go func() {
		n := 0
		for {
			select {
			case <-r.in:
				n++
			case <-stop:
				got <- n
				return
			}
		}
	}()
	for range 1000 {
		r.Queue()
	}
	r.reply(protocol.Reply{Requests: []uint64{1}, Err: protocol.ErrDeposed})
	r.Queue() // the one before has ended
	close(stop)
	if n := <-got; n != 2 || len(r.waiting) != 1 {
		t.Errorf("%d requests were sent, %d wait", n, len(r.waiting))
	}
}

func TestRefusedBackupIsNoFaultOfTheStandby(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	newServer(t, st, "a", fastDir(t)+"/state").start().waitStarted()
	b := newServer(t, st, "b", fastDir(t)+"/state").start()
	b.waitPhase(protocol.PhaseStandby)
	if _, err := b.rt.Backup(t.Context()); !errors.Is(err, ErrHeld) {
		t.Errorf("%v, want ErrHeld", err)
	}
	if _, stats := b.rt.Status(); stats.LastError != nil {
		t.Errorf("last error %v", stats.LastError)
	}
}

// One life over a directory as the store, with stock restic's opinion of it.
func TestFileStoreAndRestic(t *testing.T) {
	t.Parallel()
	dir := fastDir(t)
	open := func() objstore.Store {
		st, err := file.Open(dir+"/store", file.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return objstore.WithPrefix(st, "data")
	}
	beginVolume(t, open())
	a := newServer(t, open(), "a", dir+"/state").start().waitStarted()
	a.write("one", "1")
	a.backup()
	a.write("two", "2")
	a.backup()
	a.lose()
	b := newServer(t, open(), "b", dir+"/state").start().waitStarted()
	b.want("two", "2")
	b.write("three", "3")
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	restic := gotool.Path(t, "restic")
	run := func(args ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, restic, append([]string{"-r", dir + "/store/data", "--no-cache"}, args...)...)
		cmd.Env = append(os.Environ(), "RESTIC_PASSWORD="+password)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("restic %s: %v\n%s", args[0], err, out)
		}
		return string(out)
	}
	run("check", "--read-data")
	run("restore", "latest", "--target", dir+"/restored")
	want := []string{"one", "three", "two"}
	var have []string
	for name := range readFiles(t, filepath.Join(dir, "restored", b.state)) {
		have = append(have, name)
	}
	if slices.Sort(have); !slices.Equal(have, want) {
		t.Errorf("restic restores %v, want %v", have, want)
	}
	run("forget", "latest", "--dry-run")
}
