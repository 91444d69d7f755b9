package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/volume/protocol"
)

func TestRacingStartsMakeOneVolume(t *testing.T) {
	st := mem.New()
	const racers = 8
	var (
		group   sync.WaitGroup
		created atomic.Int64
		ids     sync.Map
	)
	for range racers {
		group.Go(func() {
			v, made, err := Open(t.Context(), st, OpenOptions{Name: "data", Password: password, Create: true})
			if err != nil {
				t.Error(err)
				return
			}
			if made {
				created.Add(1)
			}
			ids.Store(v.Repo.Config().ID, true)
		})
	}
	group.Wait()
	n := 0
	ids.Range(func(_, _ any) bool { n++; return true })
	if n != 1 || created.Load() != 1 {
		t.Errorf("%d repositories, %d say that they created it", n, created.Load())
	}
	for prefix, want := range map[string]int{"keys/": 1, "config": 1, headKey: 1, initKey: 1} {
		if got := count(t, st, prefix); got != want {
			t.Errorf("%d objects %s*, want %d", got, prefix, want)
		}
	}
}

func count(t *testing.T, st objstore.Store, prefix string) int {
	t.Helper()
	n := 0
	if err := st.List(t.Context(), prefix, func(objstore.Info) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// A start that dies at any call leaves what the next one finishes.
func TestStartThatDiesIsFinishedByTheNext(t *testing.T) {
	clean := faulty.New(newStore(t), nil)
	openVolume(t, clean)
	for n := 1; n <= len(clean.Calls()); n++ {
		for _, done := range []bool{false, true} {
			st := newStore(t)
			var mu sync.Mutex
			dead := false
			view := faulty.New(st, func(c faulty.Call) faulty.Fault {
				mu.Lock()
				defer mu.Unlock()
				switch {
				case dead || c.N == n && !done:
					dead = true
					return faulty.Fault{Before: errDead}
				case c.N == n:
					dead = true
					return faulty.Fault{After: errDead}
				}
				return faulty.Fault{}
			})
			if _, _, err := Open(t.Context(), view, OpenOptions{Name: "data", Password: password, Create: true}); err == nil {
				t.Errorf("call %d of a start failed, and it opened", n)
			}
			openVolume(t, st)
		}
	}
}

// The creation of drover/init itself, whose outcome may be unclear.
func TestUnclearCreationOfInit(t *testing.T) {
	lost := fmt.Errorf("lost: %w", objstore.ErrUnavailable)
	for _, f := range []faulty.Fault{{After: lost}, {Before: lost}} {
		st := mem.New()
		view := faulty.New(st, func(c faulty.Call) faulty.Fault {
			if c.Op == faulty.PutIf && c.Key == initKey {
				return f
			}
			return faulty.Fault{}
		})
		_, created, err := Open(t.Context(), view, OpenOptions{Name: "data", Password: password, Create: true})
		if f.After != nil && (err != nil || !created) {
			t.Errorf("created, and the answer lost: %v, %v", created, err)
		}
		if f.Before != nil && !errors.Is(err, objstore.ErrUnavailable) {
			t.Errorf("not created: %v, want ErrUnavailable", err)
		}
	}
}

// A racer's key and config may appear between our look at drover/init and our
// look for strangers.
func TestRacerIsNoStranger(t *testing.T) {
	st := mem.New()
	view := faulty.New(st, nil)
	view.Set(func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.List && c.Key == "config" {
			beginVolume(t, st)
			openVolume(t, st)
		}
		return faulty.Fault{}
	})
	if _, created, err := Open(t.Context(), view, OpenOptions{Name: "data", Password: password, Create: true}); err != nil || created {
		t.Fatalf("%v, %v", created, err)
	}
}

func TestLostHeadIsNoFirstStart(t *testing.T) {
	st := newStore(t)
	openVolume(t, st)
	if err := st.Put(t.Context(), "snapshots/"+strings.Repeat("ab", 32), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := st.Delete(t.Context(), headKey); err != nil {
		t.Fatal(err)
	}
	_, _, err := Open(t.Context(), st, OpenOptions{Name: "data", Password: password, Create: true})
	if !errors.Is(err, ErrForeign) {
		t.Fatalf("%v, want ErrForeign", err)
	}
}

// putHead seals a head of the test's making.
func putHead(t *testing.T, v *Volume, h any) {
	t.Helper()
	plain, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.st.Put(t.Context(), headKey, v.Repo.Seal(plain)); err != nil {
		t.Fatal(err)
	}
}

func TestHeadsThatAreNotForUs(t *testing.T) {
	st := newStore(t)
	v := openVolume(t, st)
	open := func() error {
		_, _, err := Open(t.Context(), st, OpenOptions{Name: "data", Password: password, Create: true})
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("more than one line: %q", err)
		}
		return err
	}
	putHead(t, v, map[string]any{"version": protocol.HeadVersion + 1, "volume": "data", "epoch": "seven"})
	if err := open(); !errors.Is(err, ErrNewer) {
		t.Errorf("newer head: %v", err)
	}
	putHead(t, v, protocol.Head{Version: protocol.HeadVersion, Volume: "other"})
	if err := open(); !errors.Is(err, errOtherVolume) {
		t.Errorf("head of another volume: %v", err)
	}
	if err := st.Put(t.Context(), headKey, []byte("no head at all, but long enough to be one")); err != nil {
		t.Fatal(err)
	}
	if err := open(); err == nil {
		t.Error("damaged head: opened")
	}
	other := newStore(t)
	if _, _, err := Open(t.Context(), other, OpenOptions{Name: "other", Password: password, Create: true}); !errors.Is(err, ErrForeign) {
		t.Errorf("drover/init of another volume: %v", err)
	}
}

// A running agent that meets a newer head stops writing, and says why.
func TestHeadThatBecomesNewerIsAFault(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	a := newServer(t, st, "a", fastDir(t)+"/state").start().waitStarted()
	putHead(t, a.rt.v, protocol.Head{Version: protocol.HeadVersion + 1, Volume: "data"})
	a.waitPhase(protocol.PhaseFault)
	if status, _ := a.rt.Status(); !strings.Contains(status.Reason, "update") {
		t.Errorf("reason %q", status.Reason)
	}
}

func TestWrongPasswordNeverCreates(t *testing.T) {
	st := newStore(t)
	openVolume(t, st)
	before := count(t, st, "")
	if _, _, err := Open(t.Context(), st, OpenOptions{Name: "data", Password: "wrong", Create: true}); !errors.Is(err, repo.ErrWrongPassword) {
		t.Fatal(err)
	}
	if after := count(t, st, ""); after != before {
		t.Errorf("%d objects became %d", before, after)
	}
}

func FuzzParseHead(f *testing.F) {
	good, err := json.Marshal(protocol.Head{Version: 1, Volume: "data", Epoch: 3, Paths: []string{"/a"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"volume":"data","ttl":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseHead(data, "data")
		if err == nil && (h.Volume != "data" || h.Version > protocol.HeadVersion) {
			t.Errorf("accepted %+v", h)
		}
	})
}

func TestOpenHonoursItsContext(t *testing.T) {
	view := faulty.New(newStore(t), faulty.At(1, faulty.Fault{Hang: true}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Open(ctx, view, OpenOptions{Name: "data", Password: password}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
