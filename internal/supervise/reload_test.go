package supervise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func versioned(name, script, version string) Job {
	j := sh(name, script)
	j.Version = version
	return j
}

const forever = "exec sleep 600"

// The ancestor restarted every process.
func TestReloadRestartedEveryProcess(t *testing.T) {
	out := newBuffer()
	changed := versioned("changed", "echo one; "+forever, "1")
	changed.Stdout = out
	s := runWith(t, Config{Jobs: []Job{versioned("kept", forever, "1"), changed, versioned("gone", forever, "1")}})
	out.waitFor(t, "one")
	kept := await(t, s, "kept", Running)
	changed2 := versioned("changed", "echo two; "+forever, "2")
	changed2.Stdout = out
	added := versioned("added", "echo three; "+forever, "1")
	added.Stdout, added.After = out, map[string]Milestone{"changed": WasReady}
	if err := s.Reload(t.Context(), []Job{versioned("kept", forever, "1"), changed2, added}); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "three")
	if said := strings.Fields(out.String()); len(said) != 3 {
		t.Errorf("%q", said)
	}
	if now := await(t, s, "kept", Running); now.PID != kept.PID || now.Runs != 1 {
		t.Errorf("before %+v, now %+v", kept, now)
	}
	if _, err := s.Await(t.Context(), "gone", func(JobStatus) bool { return true }); !errors.Is(err, ErrUnknownJob) {
		t.Errorf("the job that was taken out: %v", err)
	}
	if left := descendants(t); len(left) != 3 {
		t.Errorf("%d processes: %q", len(left), left)
	}
}

// A start that fails goes back to the old graph, with what was taken out and changed.
func TestReloadThatFailsGoesBack(t *testing.T) {
	for name, bad := range map[string]Job{
		"nowhere":     {Name: "new", Command: []string{"/nonexistent"}},
		"fails":       sh("new", "exit 3"),
		"fails later": sh("new", "sleep 0.2; exit 3"),
		"not ready":   {Name: "new", Command: []string{"sleep", "600"}, Ready: Readiness{FD: 3, Limit: 200 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			bad.Version = "1"
			old := []Job{versioned("kept", forever, "1"), versioned("changed", forever, "1"), versioned("gone", forever, "1")}
			s := runWith(t, Config{Jobs: old})
			kept := await(t, s, "kept", Running)
			for _, j := range old {
				await(t, s, j.Name, Running)
			}
			err := s.Reload(t.Context(), []Job{old[0], versioned("changed", forever, "2"), bad})
			if err == nil || !strings.Contains(err.Error(), "job new") || !strings.Contains(err.Error(), "is back") {
				t.Fatalf("error %v", err)
			}
			var names []string
			for _, j := range s.Jobs() {
				names = append(names, j.Name)
				if j.Phase != Running {
					t.Errorf("%+v", j)
				}
			}
			slices.Sort(names)
			if !slices.Equal(names, []string{"changed", "gone", "kept"}) {
				t.Errorf("jobs %v", names)
			}
			if now := await(t, s, "kept", Running); now.PID != kept.PID {
				t.Errorf("before %+v, now %+v", kept, now)
			}
		})
	}
}

func TestReloadRefuses(t *testing.T) {
	s := runWith(t, Config{Jobs: []Job{versioned("a", forever, "1")}})
	if err := s.Reload(t.Context(), []Job{{Name: "a"}}); err == nil {
		t.Error("a job without a command")
	}
	slow := Job{Name: "slow", Version: "1", Command: []string{"sleep", "600"}, Ready: Readiness{FD: 3}}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { first <- s.Reload(ctx, []Job{versioned("a", forever, "1"), slow}) }()
	await(t, s, "a", Running)
	if _, err := s.Await(t.Context(), "a", func(JobStatus) bool {
		return slices.ContainsFunc(s.Jobs(), func(j JobStatus) bool { return j.Name == "slow" })
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context(), []Job{versioned("a", forever, "1")}); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context(), nil); !errors.Is(err, ErrKilled) {
		t.Error(err)
	}
}

// Places of jobs that were taken out are used again, and nothing of them is left.
func TestManyReloads(t *testing.T) {
	s := runWith(t, Config{Jobs: []Job{versioned("kept", forever, "1")}})
	for n := range 30 {
		j := versioned(fmt.Sprint("j", n), "exit 0", "1")
		if err := s.Reload(t.Context(), []Job{versioned("kept", forever, "1"), j}); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.jobs) > 4 {
		t.Errorf("%d places after 30 reloads of 2 jobs", len(s.jobs))
	}
}

func TestJournals(t *testing.T) {
	all := NewJournals()
	noisy := sh("noisy", `i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i+1)); done; printf end`)
	noisy.Journal = all.Of("noisy")
	s := runWith(t, Config{Jobs: []Job{noisy}})
	f := all.Follow("noisy", 1)
	<-s.Done()
	lines := f.Next()
	if len(lines) == 0 || len(lines) > journalLines {
		t.Fatalf("%d lines", len(lines))
	}
	// The follower began with the newest one, if there was any: a thousand are left at most.
	if all := len(lines) + f.Missed(); all > 3001 || f.Missed() < 1000 {
		t.Errorf("%d lines and %d missed", len(lines), f.Missed())
	}
	if last := lines[len(lines)-1]; last.Text != "end" || last.Stream != 1 || last.Job != "noisy" {
		t.Errorf("the last is %+v", last)
	}
	if again := f.Next(); len(again) != 0 {
		t.Errorf("%d lines again", len(again))
	}
	if newest := all.Follow("", 3).Next(); len(newest) != 3 {
		t.Errorf("%d of the newest 3", len(newest))
	}
	for i := range 3 * journalLines {
		all.Of("noisy").add(Line{Text: fmt.Sprint(i)})
	}
	all.Of("quiet").add(Line{Text: "there"})
	if lines, missed := f.Next(), f.Missed(); len(lines) != journalLines || missed != 2*journalLines || lines[0].Text != fmt.Sprint(missed) {
		t.Errorf("%d lines, %d missed", len(lines), missed)
	}
	both := all.Follow("", 2)
	if lines, missed := both.Next(), both.Missed(); len(lines) != 2 || missed != 0 {
		t.Errorf("%d of the newest 2, %d missed", len(lines), missed)
	}
	for range journalLines + 7 {
		all.Of("new").add(Line{Text: "x"})
	}
	if lines, missed := both.Next(), both.Missed(); len(lines) != journalLines || missed != 7 {
		t.Errorf("%d lines of a new job, %d missed", len(lines), missed)
	}
	all.Keep(nil)
	if rest := all.Follow("", 10).Next(); len(rest) != 0 {
		t.Errorf("%v", rest)
	}
}

func TestForms(t *testing.T) {
	f := form{kind: FormJSON, job: "a\"b", stream: "stdout"}
	for line, want := range map[string]string{
		`{"level":"info"}`:    `{"job":"a\"b","level":"info"}`,
		`{}`:                  `{"job":"a\"b"}`,
		` {"job":"x","n":1} `: `{"job":"x","n":1}`, //nolint:gocritic // with the space around it
	} {
		if got := string(f.line(nil, []byte(line))); got != want+"\n" {
			t.Errorf("%s: %s", line, got)
		}
	}
	for _, line := range []string{"plain \x00\xff text", `{"broken"`, `[1]`, ""} {
		if got := string(f.line(nil, []byte(line))); !strings.Contains(got, `"stream":"stdout","msg":`) || strings.Count(got, "\n") != 1 {
			t.Errorf("%q: %s", line, got)
		}
	}
}
