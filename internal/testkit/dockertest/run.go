package dockertest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const (
	// label marks everything that any run has made; its value is the run's id.
	label = "drover.test.run"

	// commandTimeout bounds one docker command other than a build.
	commandTimeout = 90 * time.Second

	// pollInterval is the pause between two looks at a condition.
	pollInterval = 50 * time.Millisecond

	// shownLogLines is how much of each container's log a failed test shows.
	shownLogLines = "80"
)

// Run owns the containers, networks and volumes of one test.
type Run struct {
	t  testing.TB
	id string
}

// New returns a run that removes what it made when t ends. It fails t if no
// Docker Engine answers.
func New(t testing.TB) *Run {
	t.Helper()
	r := &Run{t: t, id: strings.ToLower(rand.Text()[:10])}
	if _, err := docker(t.Context(), "version", "--format", "{{.Server.Version}}"); err != nil {
		t.Fatalf("this test needs a Docker Engine: %v", err)
	}
	t.Cleanup(r.remove)
	return r
}

// remove deletes the run's containers, with their anonymous volumes, its named
// volumes and its networks. The test's own context has ended by then.
func (r *Run) remove() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), 2*commandTimeout)
	defer cancel()
	ours := "label=" + label + "=" + r.id
	containers, err := docker(ctx, "ps", "-aq", "--filter", ours)
	if err != nil {
		r.t.Errorf("list containers to remove: %v", err)
	}
	for _, c := range strings.Fields(containers) {
		if r.t.Failed() {
			r.show(ctx, c)
		}
		if _, err := docker(ctx, "rm", "-f", "-v", c); err != nil {
			r.t.Errorf("remove container: %v", err)
		}
	}
	volumes, err := docker(ctx, "volume", "ls", "-q", "--filter", ours)
	if err != nil {
		r.t.Errorf("list volumes to remove: %v", err)
	}
	for _, v := range strings.Fields(volumes) {
		if _, err := docker(ctx, "volume", "rm", v); err != nil {
			r.t.Errorf("remove volume: %v", err)
		}
	}
	networks, err := docker(ctx, "network", "ls", "-q", "--filter", ours)
	if err != nil {
		r.t.Errorf("list networks to remove: %v", err)
	}
	for _, n := range strings.Fields(networks) {
		if _, err := docker(ctx, "network", "rm", n); err != nil {
			r.t.Errorf("remove network: %v", err)
		}
	}
}

// show logs the end of a container's output, for a test that has failed.
func (r *Run) show(ctx context.Context, id string) {
	name, _ := docker(ctx, "inspect", "--format", "{{.Name}} {{.State.Status}} exit={{.State.ExitCode}}", id)
	cmd := exec.CommandContext(ctx, "docker", "logs", "--timestamps", "--tail", shownLogLines, id)
	out, err := cmd.CombinedOutput()
	if err != nil {
		out = fmt.Appendf(out, "(logs: %v)", err)
	}
	r.t.Logf("container %s:\n%s", strings.TrimSpace(name), out)
}

// Network is a private bridge network.
type Network struct {
	Name string
}

// Network makes a private network of its own for this run.
func (r *Run) Network(name string) *Network {
	r.t.Helper()
	full := "drover-" + r.id + "-" + name
	r.must("network", "create", "--label", label+"="+r.id, full)
	return &Network{Name: full}
}

// Volume makes a Docker volume of this run, and returns its name. What is under test
// has none: it is for what must be found.
func (r *Run) Volume(name string) string {
	r.t.Helper()
	full := "drover-" + r.id + "-" + name
	r.must("volume", "create", "--label", label+"="+r.id, full)
	return full
}

// must runs a docker command that the test cannot go on without.
func (r *Run) must(args ...string) string {
	r.t.Helper()
	out, err := docker(r.t.Context(), args...)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// ExitError is a command that ran and ended with a status other than 0.
type ExitError struct {
	Command string
	Code    int
	Stderr  string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: exit %d: %s", e.Command, e.Code, strings.TrimSpace(e.Stderr))
}

// docker runs one docker command and returns its standard output.
func docker(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	return run(ctx, exec.CommandContext(ctx, "docker", args...))
}

// run returns a command's standard output, or an error that says what the
// command was and what it wrote to standard error.
func run(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	shown := strings.Join(cmd.Args, " ")
	if len(shown) > 200 {
		shown = shown[:200] + "…"
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return stdout.String(), fmt.Errorf("%s: %w", shown, context.Cause(ctx))
	case errors.As(err, &exit):
		return stdout.String(), &ExitError{Command: shown, Code: exit.ExitCode(), Stderr: stderr.String()}
	case err != nil:
		return stdout.String(), fmt.Errorf("%s: %w", shown, err)
	}
	return stdout.String(), nil
}

// Await looks at a condition until it holds, that is returns nil, and fails t
// with the condition's last error if it does not within the time given. It
// returns how long that took.
func Await(t testing.TB, within time.Duration, what string, holds func(context.Context) error) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	last := errors.New("never looked at")
	for {
		err := holds(ctx)
		if err == nil {
			return time.Since(began)
		}
		// The deadline's own error would hide what was last seen.
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited %v for %s: %v", within, what, last)
		case <-tick.C:
		}
	}
}
