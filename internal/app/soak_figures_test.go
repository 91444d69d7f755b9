package app

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/client"
	"drover/internal/proctree"
	"drover/internal/repo/fstest"
)

// soakSample is what the agent uses at one time; figures of memory in KiB.
type soakSample struct {
	at      time.Duration
	figures map[string]float64
}

// soakFigure are the figures in their order; those that are bounded may not grow.
var soakFigures = []struct {
	name    string
	bounded bool
}{
	{"descriptors", true}, {"goroutines", true}, {"threads", true}, {"live heap, MiB", true}, {"RSS of the worker, MiB", true},
	{"RSS of the shim, MiB", true}, {"processes of jobs", false},
}

// soakTrip is how long a call took.
type soakTrip struct{ at, took time.Duration }

type soakProcess struct {
	pid   int
	start uint64
}

// soakSuspect is out of place; a thing may be so for a moment, not for long.
type soakSuspect struct {
	since time.Time
	what  string
}

// suspectFor is how long something may be out of place on a machine that is busy.
const suspectFor = 30 * time.Second

// watch takes figures and looks for what is out of place.
func (s *soak) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.inspect()
		for p, suspect := range s.suspects {
			if time.Since(suspect.since) > suspectFor {
				s.t.Errorf("process %d, for %v: %s", p.pid, suspectFor, suspect.what)
			}
		}
		if s.t.Failed() {
			return
		}
	}
}

// ask takes the time of cheap calls.
func (s *soak) ask(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.trip("ping", time.Since(s.begin), s.timed(func() error { return s.control.Ping(context.WithoutCancel(ctx)) }))
		s.trip("status", time.Since(s.begin), s.timed(func() error { _, err := s.control.Status(context.WithoutCancel(ctx)); return err }))
		s.trip("the supervisor's loop", time.Since(s.begin), s.look(false).Loop)
	}
}

func (s *soak) timed(call func() error) time.Duration {
	began := time.Now()
	if err := call(); err != nil {
		s.t.Errorf("the agent does not answer: %v", err)
	}
	return time.Since(began)
}

func (s *soak) trip(what string, at, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trips[what] = append(s.trips[what], soakTrip{at, took})
}

// inspect looks once at the agent and at everything below it.
func (s *soak) inspect() {
	table := proctree.NewTable()
	fstest.Must(s.t, table.Read())
	f := s.look(true)
	jobs := map[string]client.Job{}
	for _, j := range f.Jobs {
		jobs[j.Name] = j
	}
	shim := s.agent.Process.Pid
	now := map[soakProcess]string{}
	count := 0
	worker := table.Find(f.PID)
	table.Select(shim, func(p *proctree.Proc) bool { return p.PPID == shim || p.PPID == f.PID })
	for i := range table.Procs {
		p := &table.Procs[i]
		if p.PID == f.PID || p.PID == shim || !descends(table, p, shim) || worker == nil {
			continue
		}
		count++
		if !p.Alive() && p.PPID != f.PID && p.PPID != shim {
			continue // a job's own to collect, which it does not while it is stopped
		}
		if what := outOfPlace(p, worker.Session, jobs, table); what != "" {
			now[soakProcess{p.PID, p.Start}] = what
		}
	}
	s.suspects = following(s.suspects, now)
	s.sample(f, shim, count)
}

func descends(table *proctree.Table, p *proctree.Proc, of int) bool {
	for p != nil && p.PID != of {
		p = table.Find(p.PPID)
	}
	return p != nil
}

// following dates the suspects of now by those before.
func following(before map[soakProcess]soakSuspect, now map[soakProcess]string) map[soakProcess]soakSuspect {
	all := map[soakProcess]soakSuspect{}
	for p, what := range now {
		since := time.Now()
		if old, known := before[p]; known {
			since = old.since
		}
		all[p] = soakSuspect{since, what}
	}
	return all
}

// outOfPlace says why a process below the agent should not be there; "": it may.
func outOfPlace(p *proctree.Proc, session int, jobs map[string]client.Job, table *proctree.Table) string {
	command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
	about := fmt.Sprintf("(%c, parent %d) %s", p.State, p.PPID, strings.ReplaceAll(string(command), "\x00", " "))
	if !p.Alive() {
		return "a zombie " + about
	}
	if p.Session == session {
		return "a command of the agent's own " + about // each is bounded by a second or two
	}
	name := variable(p.PID, "DROVER_JOB")
	job, known := jobs[name]
	switch {
	case name == "":
		return "it is nobody's " + about
	case !known:
		return "its job " + name + " is not defined any more " + about
	case job.State == "waiting", job.State == "restarting", job.State == "exited":
		return "its job " + name + " is " + job.State + " " + about
	}
	if first := table.Find(job.PID); first != nil && p.Start < first.Start {
		return "it is of an earlier run of " + name + " " + about
	}
	return ""
}

func variable(pid int, name string) string {
	environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	for e := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := bytes.CutPrefix(e, []byte(name+"=")); ok {
			return string(value)
		}
	}
	return ""
}

func (s *soak) sample(f SoakFigures, shim, processes int) {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", f.PID))
	if err != nil {
		s.t.Errorf("count descriptors: %v", err)
	}
	s.samples = append(s.samples, soakSample{time.Since(s.begin), map[string]float64{
		"descriptors": float64(len(fds)), "goroutines": float64(f.Goroutines), "live heap, MiB": float64(f.Heap) / (1 << 20),
		"threads":                statusField(f.PID, "Threads:"),
		"RSS of the worker, MiB": statusField(f.PID, "VmRSS:") / 1024, "RSS of the shim, MiB": statusField(shim, "VmRSS:") / 1024,
		"processes of jobs": float64(processes),
	}})
}

func statusField(pid int, name string) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.SplitSeq(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return n
		}
	}
	return 0
}

// report prints the second and the last fifth, and holds the bounds.
func (s *soak) report() {
	fifth := s.length / 5
	early := func(at time.Duration) bool { return at >= fifth && at < 2*fifth }
	late := func(at time.Duration) bool { return at >= s.length-fifth }
	s.t.Logf("RESULT %d jobs for %v; of the second and of the last fifth:", s.jobs, s.length)
	for _, f := range soakFigures {
		var a, b []float64
		for _, sample := range s.samples {
			if early(sample.at) {
				a = append(a, sample.figures[f.name])
			}
			if late(sample.at) {
				b = append(b, sample.figures[f.name])
			}
		}
		s.t.Logf("RESULT   %-24s median %8.1f %8.1f", f.name, quantile(a, 0.5), quantile(b, 0.5))
		if f.bounded && !s.bound(quantile(a, 0.5), quantile(b, 0.5)) {
			s.t.Errorf("%s grow", f.name)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(s.trips)) {
		var a, b []time.Duration
		for _, trip := range s.trips[what] {
			if early(trip.at) {
				a = append(a, trip.took)
			}
			if late(trip.at) {
				b = append(b, trip.took)
			}
		}
		s.t.Logf("RESULT   %-24s p50 %8v %8v   p99 %8v %8v   most %v", what, soakRound(quantile(a, 0.5)), soakRound(quantile(b, 0.5)),
			soakRound(quantile(a, 0.99)), soakRound(quantile(b, 0.99)), soakRound(quantile(b, 1)))
	}
	for _, what := range slices.Sorted(maps.Keys(s.counts)) {
		s.t.Logf("RESULT   %6d × %s", s.counts[what], what)
	}
}

func soakRound(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// quantile of no values is zero.
func quantile[T float64 | time.Duration](all []T, q float64) (v T) {
	if len(all) == 0 {
		return v
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
