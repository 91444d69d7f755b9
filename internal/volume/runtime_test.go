package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/volume/protocol"
)

const password = "correct horse"

// server is a disposable server of the tests: state, data directory, jobs.
type server struct {
	t      *testing.T
	id     string
	state  string
	data   *DataDir
	base   string
	st     objstore.Store
	rt     *Runtime
	jobs   *fakeJobs
	ended  chan error
	cancel context.CancelFunc
	opt    func(*Options)
	became chan struct{} // a value after the status changed
}

// fakeJobs counts; the processes themselves are another package's.
type fakeJobs struct {
	mu                   sync.Mutex
	starts, kills, stops int
	running              bool
	onStart              func()
	started              chan struct{}
}

func (j *fakeJobs) Start(context.Context) error {
	j.mu.Lock()
	j.starts++
	j.running = true
	f := j.onStart
	j.mu.Unlock()
	if f != nil {
		f()
	}
	j.started <- struct{}{}
	return nil
}

func (j *fakeJobs) Stop(context.Context) { j.end(&j.stops) }
func (j *fakeJobs) Kill(string)          { j.end(&j.kills) }

func (j *fakeJobs) end(n *int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	*n++
	j.running = false
}

func (j *fakeJobs) alive() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.running
}

const testTTL = 600 * time.Millisecond

func newServer(t *testing.T, st objstore.Store, id, state string) *server {
	t.Helper()
	s := &server{t: t, id: id, state: state, base: t.TempDir(), st: st}
	t.Cleanup(s.crash)
	return s
}

// start opens the volume and runs an agent's runtime upon it.
func (s *server) start() *server {
	s.t.Helper()
	if err := os.MkdirAll(s.state, 0o755); err != nil {
		s.t.Fatal(err)
	}
	v, _, err := Open(s.t.Context(), s.st, OpenOptions{Name: "data", Password: password, Create: true})
	if err != nil {
		s.t.Fatal(err)
	}
	if s.data, err = OpenDataDir(s.base, "data"); err != nil {
		s.t.Fatal(err)
	}
	s.jobs = &fakeJobs{started: make(chan struct{}, 100)}
	opt := Options{
		Protocol: protocol.Config{
			Volume: "data", Self: protocol.Holder{ID: s.id}, TTL: testTTL,
			Fence: protocol.FenceHistory, FinalCommit: true,
		},
		Tree: TreeOptions{Paths: []string{s.state}, Host: "test"},
		Jobs: s.jobs, DataDir: s.data, Log: slog.New(slog.NewTextHandler(testWriter{s.t, s.id}, nil)),
	}
	s.became = make(chan struct{}, 1)
	opt.Notify = func(protocol.Status) {
		select {
		case s.became <- struct{}{}:
		default:
		}
	}
	if s.opt != nil {
		s.opt(&opt)
	}
	rt, ended := NewRuntime(v, opt), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	s.rt, s.cancel, s.ended = rt, cancel, ended
	go func() { ended <- rt.Run(ctx) }()
	return s
}

type testWriter struct {
	t  *testing.T
	id string
}

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(w.id, strings.TrimSpace(string(p)))
	return len(p), nil
}

// crash ends the process as a kill would: nothing is released.
func (s *server) crash() {
	if s.cancel == nil {
		return
	}
	s.cancel()
	<-s.rt.Done()
	_ = s.data.Close()
	s.cancel = nil
}

// lose crashes the server and removes its disk.
func (s *server) lose() {
	s.crash()
	for _, dir := range []string{s.state, s.base} {
		if err := os.RemoveAll(dir); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *server) stop() error {
	s.rt.Stop(time.Minute)
	err := <-s.ended
	_ = s.data.Close()
	s.cancel = nil
	return err
}

func (s *server) waitStarted() *server {
	s.t.Helper()
	select {
	case <-s.jobs.started:
	case err := <-s.ended:
		s.t.Fatalf("%s ended: %v", s.id, err)
	case <-time.After(time.Minute):
		st, _ := s.rt.Status()
		s.t.Fatalf("%s did not start its jobs: %+v", s.id, st)
	}
	return s
}

func (s *server) waitPhase(want protocol.Phase) {
	s.t.Helper()
	limit := time.After(time.Minute)
	for {
		st, _ := s.rt.Status()
		if st.Phase == want {
			return
		}
		select {
		case <-s.became:
		case <-limit:
			s.t.Fatalf("%s is %s (%s), want %s", s.id, st.Phase, st.Reason, want)
		}
	}
}

func (s *server) write(name, content string) {
	s.t.Helper()
	path := filepath.Join(s.state, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) want(name, content string) {
	s.t.Helper()
	got, err := os.ReadFile(filepath.Join(s.state, name))
	if err != nil || string(got) != content {
		s.t.Fatalf("%s has %s = %q, %v; want %q", s.id, name, got, err, content)
	}
}

func (s *server) wantNone(name string) {
	s.t.Helper()
	if _, err := os.Lstat(filepath.Join(s.state, name)); !errors.Is(err, os.ErrNotExist) {
		s.t.Fatalf("%s has %s: %v; want none", s.id, name, err)
	}
}

func (s *server) backup() Outcome {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	out, err := s.rt.Backup(ctx)
	if err != nil {
		s.t.Fatalf("%s backup: %v", s.id, err)
	}
	return out
}

func TestLostServerComesBackElsewhere(t *testing.T) {
	st, state := mem.New(), filepath.Join(t.TempDir(), "state")
	a := newServer(t, st, "a", state).start().waitStarted()
	a.write("repo/one", "1")
	a.backup()
	a.write("repo/two", "2")
	if out := a.backup(); out.Head.Seq != 2 {
		t.Fatalf("seq %d after two backups", out.Head.Seq)
	}
	a.write("repo/three", "never backed up")
	a.lose()
	b := newServer(t, st, "b", state).start().waitStarted()
	b.want("repo/one", "1")
	b.want("repo/two", "2")
	b.wantNone("repo/three")
	status, _ := b.rt.Status()
	if status.Head.Epoch != 2 || status.Head.Holder.ID != "b" {
		t.Fatalf("head %+v", status.Head)
	}
}

func TestReleaseHandsOverAtOnce(t *testing.T) {
	st, state := mem.New(), filepath.Join(t.TempDir(), "state")
	a := newServer(t, st, "a", state).start().waitStarted()
	a.write("last", "byte")
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	if a.jobs.stops != 1 || a.jobs.kills != 0 {
		t.Fatalf("jobs stopped %d times, killed %d", a.jobs.stops, a.jobs.kills)
	}
	a.lose()
	b := newServer(t, st, "b", state)
	b.opt = func(o *Options) { o.Protocol.TTL = time.Hour }
	b.start().waitStarted()
	b.want("last", "byte")
}

func TestRestartInPlaceKeepsNewerFiles(t *testing.T) {
	st, state := mem.New(), filepath.Join(t.TempDir(), "state")
	a := newServer(t, st, "a", state).start().waitStarted()
	a.write("committed", "1")
	a.backup()
	a.write("newer", "than the last backup")
	a.crash()
	a.start().waitStarted()
	a.want("newer", "than the last backup")
	if _, stats := a.rt.Status(); stats.Restore != 0 || len(stats.Diverged) != 0 {
		t.Fatalf("restored or diverged: %+v", stats)
	}
	a.backup()
	a.lose()
	b := newServer(t, st, "b", state).start().waitStarted()
	b.want("newer", "than the last backup")
}

// cuttable is a server's view of the store, which can be cut off.
type cuttable struct {
	objstore.Store
	cut atomic.Bool
}

var errCut = fmt.Errorf("cut off: %w", objstore.ErrUnavailable)

func (c *cuttable) Get(ctx context.Context, key string, o, n int64) ([]byte, objstore.Info, error) {
	if c.cut.Load() {
		return nil, objstore.Info{}, errCut
	}
	return c.Store.Get(ctx, key, o, n)
}

func (c *cuttable) Put(ctx context.Context, key string, data []byte) error {
	if c.cut.Load() {
		return errCut
	}
	return c.Store.Put(ctx, key, data)
}

func (c *cuttable) PutIf(ctx context.Context, key string, data []byte, cond objstore.Condition) (objstore.ETag, error) {
	if c.cut.Load() {
		return "", errCut
	}
	return c.Store.PutIf(ctx, key, data, cond)
}

// claimElsewhere is another server that takes the volume over and gives it back.
func claimElsewhere(t *testing.T, st objstore.Store) {
	t.Helper()
	v, _, err := Open(t.Context(), st, OpenOptions{Name: "data", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Protocol: protocol.Config{Volume: "data", TTL: testTTL, Self: protocol.Holder{ID: "elsewhere"}}}
	if err := v.Claim(t.Context(), opt, func(context.Context, *Session) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestDeposedHolderKillsItsJobsAndKeepsItsRest(t *testing.T) {
	st := mem.New()
	view := &cuttable{Store: st}
	a := newServer(t, view, "a", filepath.Join(t.TempDir(), "state")).start().waitStarted()
	a.write("file", "committed")
	a.backup()
	view.cut.Store(true)
	a.write("late", "not committed")
	claimElsewhere(t, st)
	if !a.jobs.alive() {
		t.Fatal("under fence: history the jobs run on while the store is away")
	}
	view.cut.Store(false)
	a.waitStarted() // again: the head was released
	if a.jobs.kills != 1 {
		t.Fatalf("jobs killed %d times, want once", a.jobs.kills)
	}
	a.want("file", "committed")
	a.wantNone("late")
	_, stats := a.rt.Status()
	if len(stats.Diverged) != 1 {
		t.Fatalf("diverged snapshots %v, want one", stats.Diverged)
	}
	id, sn, err := a.rt.v.Repo.FindSnapshot(t.Context(), stats.Diverged[0])
	if err != nil || !slices.Contains(sn.Tags, "diverged") {
		t.Fatalf("%v %v %v", id, sn, err)
	}
}

func TestStrictKillsBeforeTheTTLAndGoesOnWhenTheStoreIsBack(t *testing.T) {
	view := &cuttable{Store: mem.New()}
	a := newServer(t, view, "a", filepath.Join(t.TempDir(), "state"))
	a.opt = func(o *Options) { o.Protocol.Fence = protocol.FenceStrict }
	a.start().waitStarted()
	a.write("file", "1")
	view.cut.Store(true)
	a.waitPhase(protocol.PhaseFenced)
	a.want("file", "1")
	view.cut.Store(false)
	a.waitStarted()
	a.want("file", "1")
	if a.jobs.kills != 1 {
		t.Fatalf("jobs killed %d times, want once", a.jobs.kills)
	}
}

func TestBackupWaitsForTheStore(t *testing.T) {
	view := &cuttable{Store: mem.New()}
	a := newServer(t, view, "a", filepath.Join(t.TempDir(), "state")).start().waitStarted()
	view.cut.Store(true)
	a.write("file", "1")
	short, cancel := context.WithTimeout(t.Context(), 2*testTTL)
	defer cancel()
	if _, err := a.rt.Backup(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("backup without a store: %v, want it to wait", err)
	}
	view.cut.Store(false)
	if out := a.backup(); out.Head.Seq == 0 {
		t.Fatalf("%+v", out)
	}
	if a.jobs.kills != 0 {
		t.Fatal("jobs were killed for an outage of the store")
	}
}

func TestFilesWithoutAnyHistoryAreRefusedOrAdopted(t *testing.T) {
	st, state := mem.New(), filepath.Join(t.TempDir(), "state")
	a := newServer(t, st, "a", state)
	a.write("precious", "from before Drover")
	a.start()
	if err := <-a.ended; !errors.Is(err, protocol.ErrFilesPresent) {
		t.Fatalf("ended with %v, want ErrFilesPresent", err)
	}
	a.ended <- nil
	a.crash()
	a.want("precious", "from before Drover")
	a.opt = func(o *Options) { o.Protocol.AdoptFiles = true }
	a.start().waitStarted()
	a.backup()
	a.lose()
	newServer(t, st, "b", state).start().waitStarted().want("precious", "from before Drover")
}

func TestWrongPassword(t *testing.T) {
	st := mem.New()
	if _, created, err := Open(t.Context(), st, OpenOptions{Name: "data", Password: password, Create: true}); err != nil || !created {
		t.Fatal(created, err)
	}
	_, created, err := Open(t.Context(), st, OpenOptions{Name: "data", Password: "wrong", Create: true})
	if !errors.Is(err, repo.ErrWrongPassword) || created {
		t.Fatalf("%v, %v", created, err)
	}
}

func TestOpenRefusesWhatIsNotOurs(t *testing.T) {
	for _, key := range []string{"config", "keys/" + strings.Repeat("ab", 32), "snapshots/" + strings.Repeat("ab", 32)} {
		st := mem.New()
		if err := st.Put(t.Context(), key, []byte("x")); err != nil {
			t.Fatal(err)
		}
		_, _, err := Open(t.Context(), st, OpenOptions{Name: "data", Password: password, Create: true})
		if !errors.Is(err, ErrForeign) {
			t.Errorf("beside %s: %v, want ErrForeign", key, err)
		}
	}
	_, _, err := Open(t.Context(), mem.New(), OpenOptions{Name: "data", Password: password})
	if !errors.Is(err, repo.ErrNoRepository) {
		t.Errorf("empty: %v, want ErrNoRepository", err)
	}
}

func TestFilesThatAppearOnAStandbyAreKept(t *testing.T) {
	st := mem.New()
	state := filepath.Join(t.TempDir(), "state")
	a := newServer(t, st, "a", state).start().waitStarted()
	a.write("file", "committed")
	a.backup()
	a.crash()
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	b := newServer(t, st, "b", state).start()
	b.waitPhase(protocol.PhaseStandby)
	b.write("note", "somebody's")
	b.waitStarted()
	b.want("file", "committed")
	b.wantNone("note")
	if _, stats := b.rt.Status(); len(stats.Diverged) != 1 {
		t.Fatalf("diverged snapshots %v, want one", stats.Diverged)
	}
}
