package probe_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/file"
	"drover/internal/objstore/mem"
	"drover/internal/objstore/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func count(t *testing.T, s objstore.Store, prefix string) int {
	t.Helper()
	n := 0
	if err := s.List(t.Context(), prefix, func(objstore.Info) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGoodStores(t *testing.T) {
	onDisk, err := file.Open(filepath.Join(t.TempDir(), "store"), file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer onDisk.Close()
	for _, s := range []objstore.Store{mem.New(), onDisk} {
		for _, level := range []probe.Level{probe.Start, probe.Full} {
			report, err := probe.Check(t.Context(), s, level)
			if err != nil {
				t.Errorf("%T, level %d: %v", s, level, err)
			}
			for _, step := range report.Steps {
				if !step.OK || step.Error != "" {
					t.Errorf("%T: %+v", s, step)
				}
			}
			if n := count(t, s, ""); n != 0 {
				t.Errorf("%T: %d scratch objects left", s, n)
			}
			if level == probe.Full && (len(report.Steps) < 8 || len(report.Latency) != 6) || report.Store == "" {
				t.Errorf("%T: report %+v", s, report)
			}
		}
	}
}

func TestStartIsCheap(t *testing.T) {
	s := faulty.New(mem.New(), nil)
	if _, err := probe.Check(t.Context(), s, probe.Start); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Calls()); n != 4 {
		t.Errorf("%d calls", n)
	}
	for _, c := range s.Calls() {
		if !strings.HasPrefix(c.Key, "drover/probe/") {
			t.Errorf("it touched %s", c.Key)
		}
	}
}

// bad is a store with one of the faults that servers really have.
type bad struct {
	objstore.Store
	fault string
	mu    sync.Mutex
	n     int
}

func (b *bad) PutIf(ctx context.Context, key string, data []byte, cond objstore.Condition) (objstore.ETag, error) {
	ignore := b.fault == "ignores all" || b.fault == "ignores If-Match" && cond.ETag != "" || b.fault == "ignores If-None-Match" && cond.Absent
	if b.fault == "checks, then writes" {
		info, err := b.Head(ctx, key)
		if cond.Absent != errors.Is(err, objstore.ErrNotFound) || cond.ETag != info.ETag {
			return "", objstore.ErrConflict
		}
		time.Sleep(5 * time.Millisecond) // the gap in which another writer passes the same check
		ignore = true
	}
	if b.fault == "refuses all" {
		return "", objstore.ErrConflict
	}
	if b.fault == "repeats" && cond.Absent {
		_, _ = b.Store.PutIf(ctx, key, data, cond)
	}
	if !ignore {
		return b.Store.PutIf(ctx, key, data, cond)
	}
	if err := b.Store.Put(ctx, key, data); err != nil {
		return "", err
	}
	info, err := b.Head(ctx, key)
	return info.ETag, err
}

func (b *bad) Get(ctx context.Context, key string, offset, length int64) ([]byte, objstore.Info, error) {
	if b.fault == "ignores ranges" {
		return b.Store.Get(ctx, key, 0, -1)
	}
	return b.Store.Get(ctx, key, offset, length)
}

func (b *bad) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	return b.Store.List(ctx, prefix, func(i objstore.Info) error {
		b.mu.Lock()
		b.n++
		skip := b.fault == "lists with gaps" && b.n%3 == 0
		b.mu.Unlock()
		if skip {
			return nil
		}
		return fn(i)
	})
}

func TestBadStoresAreFound(t *testing.T) {
	for _, c := range []struct {
		fault       string
		atStart     bool // the start check finds it
		unsupported bool
	}{
		{"ignores all", true, true},
		{"ignores If-Match", true, true},
		{"ignores If-None-Match", true, true},
		{"checks, then writes", false, true},
		{"refuses all", true, false},
		{"ignores ranges", false, false},
		{"lists with gaps", false, false},
	} {
		t.Run(c.fault, func(t *testing.T) {
			under := mem.New()
			for _, level := range []probe.Level{probe.Start, probe.Full} {
				report, err := probe.Check(t.Context(), &bad{Store: under, fault: c.fault}, level)
				if found := err != nil; found != (c.atStart || level == probe.Full) {
					t.Fatalf("level %d: %v", level, err)
				}
				if err == nil {
					continue
				}
				if errors.Is(err, objstore.ErrUnsupported) != c.unsupported || strings.Contains(err.Error(), "\n") {
					t.Errorf("level %d: %v", level, err)
				}
				if c.unsupported && !strings.Contains(err.Error(), "ignores conditional writes") {
					t.Errorf("level %d: %v", level, err)
				}
				if len(report.Steps) == 0 {
					t.Error("no report")
				}
			}
			if n := count(t, under, ""); n != 0 {
				t.Errorf("%d scratch objects left", n)
			}
		})
	}
}

// TestRepeatingProxy: a proxy that sends a request twice makes no store bad.
func TestRepeatingProxy(t *testing.T) {
	for _, level := range []probe.Level{probe.Start} {
		if _, err := probe.Check(t.Context(), &bad{Store: mem.New(), fault: "repeats"}, level); err != nil {
			t.Errorf("level %d: %v", level, err)
		}
	}
}

// TestUnknownIsNotUnsupported: a store that does not answer is not called bad.
func TestUnknownIsNotUnsupported(t *testing.T) {
	for n := 1; n <= 3; n++ {
		for _, kind := range []error{objstore.ErrUnavailable, objstore.ErrUnauthorised} {
			under := mem.New()
			s := faulty.New(under, faulty.At(n, faulty.Fault{After: kind}))
			_, err := probe.Check(t.Context(), s, probe.Start)
			if !errors.Is(err, kind) || errors.Is(err, objstore.ErrUnsupported) {
				t.Errorf("call %d: %v", n, err)
			}
			if left := count(t, under, ""); left != 0 {
				t.Errorf("call %d: %d scratch objects left", n, left)
			}
		}
	}
}

func TestCancelledProbeCleansUp(t *testing.T) {
	under := mem.New()
	ctx, cancel := context.WithCancel(t.Context())
	s := faulty.New(under, func(c faulty.Call) faulty.Fault {
		if c.N == 10 {
			cancel()
		}
		return faulty.Fault{}
	})
	if _, err := probe.Check(ctx, s, probe.Full); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left := count(t, under, ""); left != 0 {
		t.Errorf("%d scratch objects left", left)
	}
}

// old is a store whose objects under drover/probe/crashed are two hours old.
type old struct{ objstore.Store }

func (o old) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	return o.Store.List(ctx, prefix, func(i objstore.Info) error {
		if strings.HasPrefix(i.Key, "drover/probe/crashed") {
			i.ModTime = i.ModTime.Add(-2 * time.Hour)
		}
		return fn(i)
	})
}

func TestStaleScratchGoes(t *testing.T) {
	under := mem.New()
	for _, key := range []string{"drover/probe/crashed/x", "drover/probe/running/x", "vol/config"} {
		if err := under.Put(t.Context(), key, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := probe.Check(t.Context(), old{under}, probe.Full); err != nil {
		t.Fatal(err)
	}
	if count(t, under, "") != 2 || count(t, under, "drover/probe/crashed") != 0 {
		t.Errorf("%d objects are left", count(t, under, ""))
	}
}

func TestProbesSideBySide(t *testing.T) {
	s := mem.New()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := probe.Check(t.Context(), s, probe.Full); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := count(t, s, ""); n != 0 {
		t.Errorf("%d scratch objects left", n)
	}
}
