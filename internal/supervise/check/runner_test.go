package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// started is a Runner that runs, in a bubble; stop ends it and waits.
func started(t *testing.T, checks []Check, notify func(Change)) (r *Runner, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	r = New(checks, notify, testLog(t))
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	return r, func() { cancel(); <-done }
}

func ignore(Change) {}

// answers is a prober that says what it is told to.
type answers struct {
	err    atomic.Pointer[error]
	probes atomic.Int64
}

func (a *answers) Probe(context.Context) error {
	a.probes.Add(1)
	if err := a.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (a *answers) fail(text string) {
	err := errors.New(text)
	a.err.Store(&err)
}

func stateOf(t *testing.T, r *Runner, name string) State {
	t.Helper()
	states := r.States()
	i := slices.IndexFunc(states, func(s State) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no check %q in %v", name, states)
	}
	return states[i]
}

// A slow check blocked the event bus of an ancestor, and hung everything.
func TestSlowCheckBlockedEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// More of them than slots, none of which cares for its context.
		free := make(chan struct{})
		var returned sync.WaitGroup
		var checks []Check
		for i := range 300 {
			returned.Add(1)
			checks = append(checks, Check{
				Name: fmt.Sprint("hangs", i), Job: "a", Every: time.Second, Timeout: 2 * time.Second,
				Prober: probeFunc(func(context.Context) error { defer returned.Done(); <-free; return nil }),
			})
		}
		quick := &answers{}
		checks = append(checks, Check{Name: "quick", Job: "b", Every: time.Second, Prober: quick})
		var unhealthy int
		r, stop := started(t, checks, func(c Change) {
			if c.To == Unhealthy {
				unhealthy++
			}
		})
		r.Started("a")
		began := time.Now()
		r.Started("b")
		synctest.Wait()
		time.Sleep(1500 * time.Millisecond) // all have begun, none has been given up
		if s := stateOf(t, r, "quick"); s.Health != Healthy || quick.probes.Load() < 1 {
			t.Errorf("the quick check is %v after %d probes", s.Health, quick.probes.Load())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := quick.probes.Load(); n < 55 || n > 68 {
			t.Errorf("%d probes of the quick check in a minute", n)
		}
		if s := stateOf(t, r, "hangs7"); s.Health != Unhealthy || s.Error == "" || s.Failures < 50 {
			t.Errorf("a check that hangs for a minute: %+v", s)
		}
		if unhealthy != 300 {
			t.Errorf("%d checks of 300 were told to be unhealthy", unhealthy)
		}
		if r.Healthy("a", Ready) || !r.Healthy("b", Ready) {
			t.Error("the quick check's job is to be ready, the other not")
		}
		before := time.Now()
		stop()
		if took := time.Since(before); took > 2*grace {
			t.Errorf("Run took %v to end, %v after the start", took, before.Sub(began))
		}
		close(free)
		returned.Wait()
	})
}

// A probe that hangs when Run ends, and has not been given up yet.
func TestRunEndsWithinItsGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		r, stop := started(t, []Check{{Name: "hangs", Job: "a", Prober: probeFunc(func(context.Context) error { <-free; return nil })}}, ignore)
		r.Started("a")
		synctest.Wait()
		before := time.Now()
		stop()
		if took := time.Since(before); took != grace {
			t.Errorf("Run took %v to end", took)
		}
		close(free)
	})
}

// The end of Run is no failure of what it interrupts.
func TestEndIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []Change
		r, stop := started(t, []Check{{Name: "c", Job: "a", Threshold: 1, Prober: probeFunc(func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})}}, func(c Change) { changes = append(changes, c) })
		r.Started("a")
		synctest.Wait()
		before := time.Now()
		stop()
		if len(changes) > 0 || time.Since(before) > 0 {
			t.Errorf("%v after %v", changes, time.Since(before))
		}
		r.Started("a") // too late, and harmless
		r.Stopped("a")
	})
}

func TestChangesAreToldInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		probe := &answers{}
		var r *Runner
		r, stop := started(t, []Check{{Name: "c", Job: "a", Every: time.Second, Threshold: 2, OnFailure: Restart, Prober: probe}}, func(c Change) {
			// Under a lock, this would hang.
			_, _ = r.States(), r.Healthy("a", Ready)
			told = append(told, fmt.Sprintf("%v/%v/%v: %v -> %v (%v %d) %s", c.Check.Job, c.Check.Name, c.Check.OnFailure, c.From, c.To, c.At.Sub(r.begin).Round(time.Second), c.Failures, c.Error))
			if c.To == Unhealthy {
				r.Started("a") // it was restarted
			}
		})
		r.Started("a")
		time.Sleep(2500 * time.Millisecond)
		probe.fail("down")
		time.Sleep(3 * time.Second)
		probe.err.Store(nil)
		time.Sleep(3 * time.Second)
		stop()
		want := []string{
			"a/c/restart: unknown -> healthy (0s 0) ",
			"a/c/restart: healthy -> unhealthy (4s 2) down",
			"a/c/restart: unhealthy -> unknown (4s 0) ",
			"a/c/restart: unknown -> unhealthy (5s 2) down",
			"a/c/restart: unhealthy -> unknown (5s 0) ",
			"a/c/restart: unknown -> healthy (6s 0) ",
		}
		if !slices.Equal(told, want) {
			t.Errorf("told:\n%s\nwant:\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestProbesEndWithTheirTimeAndTheirJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		r, stop := started(t, []Check{{Name: "c", Job: "a", Timeout: 3 * time.Second, Every: 10 * time.Second, Prober: probeFunc(func(ctx context.Context) error {
			began := time.Now()
			<-ctx.Done()
			ended = append(ended, fmt.Sprintf("%v %v", time.Since(began), context.Cause(ctx)))
			return context.Cause(ctx)
		})}}, ignore)
		r.Started("a")
		time.Sleep(5 * time.Second)
		if s := stateOf(t, r, "c"); s.Error != "no answer within 3s" || s.Took != 3*time.Second || s.Failures != 1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(7 * time.Second) // the second probe has begun
		r.Stopped("a")
		synctest.Wait()
		if s := stateOf(t, r, "c"); s.Health != Unknown || s.Error != "" || s.Failures != 0 {
			t.Errorf("stopped: %+v", s)
		}
		if len(ended) != 2 {
			t.Error("the probe goes on when its job is stopped")
		}
		stop()
		if len(ended) != 2 || ended[0] != "3s no answer within 3s" || !strings.HasSuffix(ended[1], "context canceled") {
			t.Errorf("%q", ended)
		}
	})
}

func TestWhatIsStoppedBeforeItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := &answers{}
		r := New([]Check{{Name: "c", Job: "a", Prober: probe}}, ignore, testLog(t))
		r.Started("a")
		r.Stopped("a")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		synctest.Wait()
		if n := probe.probes.Load(); n != 0 {
			t.Errorf("%d probes of a job that does not run", n)
		}
		r.Started("a")
		r.Started("a")
		synctest.Wait()
		if n := probe.probes.Load(); n != 1 || !r.Healthy("a", Ready) {
			t.Errorf("%d probes, healthy: %v", n, r.Healthy("a", Ready))
		}
		cancel()
		<-done
	})
}

// An answer that comes when its time is over is none.
func TestLateSuccessIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stop := started(t, []Check{{Name: "c", Job: "a", Timeout: time.Second, Threshold: 1, Prober: probeFunc(func(context.Context) error {
			time.Sleep(1100 * time.Millisecond)
			return nil
		})}}, ignore)
		r.Started("a")
		time.Sleep(2 * time.Second)
		if s := stateOf(t, r, "c"); s.Health != Unhealthy {
			t.Errorf("%+v", s)
		}
		stop()
	})
}

func TestHealthyAggregates(t *testing.T) {
	probe := probeFunc(func(context.Context) error { return nil })
	for _, c := range []struct {
		alive, ready       Health
		isAlive, isReadyTo bool
	}{
		{Unknown, Unknown, true, false},
		{Unknown, Healthy, true, false},
		{Healthy, Unknown, true, false},
		{Healthy, Healthy, true, true},
		{Healthy, Unhealthy, true, false},
		{Unhealthy, Healthy, false, false},
		{Unhealthy, Unknown, false, false},
	} {
		r := New([]Check{
			{Name: "l", Job: "a", Level: Alive, Prober: probe}, {Name: "r", Job: "a", Prober: probe},
			{Name: "x", Job: "other", Level: Alive, Prober: probe},
		}, ignore, slog.New(slog.DiscardHandler))
		r.checks[0].track.Health, r.checks[1].track.Health, r.checks[2].track.Health = c.alive, c.ready, Unhealthy
		if alive, ready := r.Healthy("a", Alive), r.Healthy("a", Ready); alive != c.isAlive || ready != c.isReadyTo {
			t.Errorf("%v and %v: alive %v, ready %v", c.alive, c.ready, alive, ready)
		}
		if !r.Healthy("none", Ready) {
			t.Error("a job without checks has none that fails")
		}
	}
}

func TestReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		first, second, third := &answers{}, &answers{}, &answers{}
		hang := make(chan struct{})
		var ended time.Time
		r, stop := started(t, []Check{
			{Name: "kept", Job: "a", Prober: first}, {Name: "dropped", Job: "a", Prober: first},
			{Name: "hangs", Job: "a", Threshold: 1, Prober: probeFunc(func(ctx context.Context) error {
				<-ctx.Done()
				ended = time.Now()
				<-hang
				return errors.New("too late")
			})},
			{Name: "other", Job: "b", Prober: third},
		}, func(c Change) { told = append(told, fmt.Sprintf("%s %v", c.Check.Name, c.To)) })
		r.Started("a")
		time.Sleep(time.Second)
		synctest.Wait()
		told = nil
		second.fail("other than before")
		r.Replace("a", []Check{
			{Name: "kept", Prober: second, Threshold: 1}, {Name: "new", Prober: third}, {Name: "hangs", Prober: third},
		})
		if s := stateOf(t, r, "kept"); s.Health != Healthy {
			t.Errorf("at once: %+v", s)
		}
		replaced := time.Now()
		synctest.Wait()
		if !ended.Equal(replaced) {
			t.Error("the probe of a replaced check is not cancelled")
		}
		slices.Sort(told)
		if want := []string{"hangs healthy", "kept unhealthy", "new healthy"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		close(hang) // the old one says its word
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(told) != 3 {
			t.Errorf("told %q", told)
		}
		if s := stateOf(t, r, "hangs"); s.Health != Healthy || s.Failures > 0 {
			t.Errorf("%+v", s)
		}
		if n := first.probes.Load(); n != 2 {
			t.Errorf("%d probes of what was replaced", n)
		}
		if s := stateOf(t, r, "other"); s.Health != Unknown || len(r.States()) != 4 {
			t.Errorf("another job's: %+v", s)
		}
		// A job that does not run.
		r.Replace("b", []Check{{Name: "other", Prober: second}})
		time.Sleep(time.Minute)
		if s := stateOf(t, r, "other"); s.Health != Unknown {
			t.Errorf("%+v", s)
		}
		stop()
	})
}

// Not all at once, then not together: what comes due in the same moment is
// spread over slots, and drifts apart.
func TestManyChecksAreNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, probes atomic.Int64
		perSlice := map[time.Duration]int{}
		var mu sync.Mutex
		begin := time.Now()
		var checks []Check
		for i := range 200 {
			checks = append(checks, Check{Name: fmt.Sprint(i), Job: "a", Every: time.Second, Prober: probeFunc(func(context.Context) error {
				defer now.Add(-1)
				probes.Add(1)
				mu.Lock()
				most.Store(max(most.Load(), now.Add(1)))
				perSlice[time.Since(begin).Truncate(20*time.Millisecond)]++
				mu.Unlock()
				time.Sleep(time.Millisecond)
				return nil
			})})
		}
		r, stop := started(t, checks, ignore)
		r.Started("a")
		time.Sleep(2 * time.Minute)
		stop()
		if n := most.Load(); n > slots {
			t.Errorf("%d probes at once", n)
		}
		if n := probes.Load(); n < 200*110 || n > 200*130 {
			t.Errorf("%d probes", n)
		}
		for slice, n := range perSlice {
			if slice > time.Minute && n > 20 { // 4 on average
				t.Errorf("%d probes begin within 20 ms, %v after the start", n, slice)
			}
		}
	})
}

func TestDefaults(t *testing.T) {
	it := newItem(Check{})
	if it.Every != 10*time.Second || it.Timeout != 3*time.Second || it.Threshold != 3 || it.Level != Ready || it.OnFailure != Ignore {
		t.Errorf("%+v", it.Check)
	}
}

// Any order of calls from any goroutine: for the race detector.
func TestCallsFromEverywhere(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	probe := &answers{}
	checks := []Check{{Name: "c", Job: "a", Every: time.Millisecond, Timeout: time.Millisecond, Threshold: 1, Prober: probe}, {Name: "d", Job: "a", Every: time.Millisecond, Prober: probe}}
	r := New(checks, ignore, slog.New(slog.NewTextHandler(io.Discard, nil)))
	var group sync.WaitGroup
	group.Go(func() { r.Run(ctx) })
	var callers sync.WaitGroup
	for _, call := range []func(){
		func() { r.Started("a") }, func() { r.Stopped("a") }, func() { r.States() },
		func() { r.Healthy("a", Ready) }, func() { r.Replace("a", checks) },
		func() { probe.fail("x") }, func() { probe.err.Store(nil) },
	} {
		callers.Go(func() {
			for range 500 {
				call()
			}
		})
	}
	callers.Wait()
	cancel()
	group.Wait()
}
