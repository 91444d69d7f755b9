package dockertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Spec says which container to start.
type Spec struct {
	// Name is the container's host name, and its name on its networks.
	Name string
	// Image is what it is made from, as in docker run.
	Image string
	// Networks are what it is attached to, all of them before it starts.
	Networks []*Network
	// Env is its environment, beside the image's.
	Env map[string]string
	// Entrypoint replaces the image's, if not empty.
	Entrypoint string
	// Args are the arguments of the entry point.
	Args []string
	// Options are further options of docker create.
	Options []string
}

// Container is a container of a run.
type Container struct {
	// ID is Docker's.
	ID string
	// Name is its name within the run, that of its Spec.
	Name string

	run *Run
}

// Start makes a container and starts it.
func (r *Run) Start(s Spec) *Container {
	r.t.Helper()
	args := []string{
		"create", "--label", label + "=" + r.id,
		"--hostname", s.Name, "--name", "drover-" + r.id + "-" + s.Name + "-" + strconv.FormatInt(time.Now().UnixNano(), 36),
	}
	if len(s.Networks) > 0 {
		args = append(args, "--network", s.Networks[0].Name, "--network-alias", s.Name)
	} else {
		args = append(args, "--network", "none")
	}
	for k, v := range s.Env {
		args = append(args, "--env", k+"="+v)
	}
	if s.Entrypoint != "" {
		args = append(args, "--entrypoint", s.Entrypoint)
	}
	args = append(args, s.Options...)
	args = append(args, s.Image)
	c := &Container{Name: s.Name, run: r}
	c.ID = strings.TrimSpace(r.must(append(args, s.Args...)...))
	for _, n := range s.Networks[min(1, len(s.Networks)):] {
		c.Connect(n)
	}
	r.must("start", c.ID)
	return c
}

// Kill ends every process of the container at once, as a lost server does.
func (c *Container) Kill() { c.run.t.Helper(); c.run.must("kill", "--signal", "KILL", c.ID) }

// Signal sends a signal to the container's first process.
func (c *Container) Signal(name string) {
	c.run.t.Helper()
	c.run.must("kill", "--signal", name, c.ID)
}

// Remove deletes the container and everything that was written in it.
func (c *Container) Remove() { c.run.t.Helper(); c.run.must("rm", "-f", "-v", c.ID) }

// Stop asks the container to stop and waits for it, as docker stop does: SIGTERM,
// and SIGKILL after the grace period, in whole seconds. It returns the exit status.
func (c *Container) Stop(grace time.Duration) int {
	c.run.t.Helper()
	c.run.must("stop", "--time", strconv.Itoa(int(grace/time.Second)), c.ID)
	return c.State().ExitCode
}

// Restart stops the container, with that grace period in whole seconds, and
// starts it again in place.
func (c *Container) Restart(grace time.Duration) {
	c.run.t.Helper()
	c.run.must("restart", "--time", strconv.Itoa(int(grace/time.Second)), c.ID)
}

// StartAgain starts a container that has ended, on the files that it left.
func (c *Container) StartAgain() { c.run.t.Helper(); c.run.must("start", c.ID) }

// Pause freezes every process of the container.
func (c *Container) Pause() { c.run.t.Helper(); c.run.must("pause", c.ID) }

// Unpause lets them go on.
func (c *Container) Unpause() { c.run.t.Helper(); c.run.must("unpause", c.ID) }

// Connect attaches the container to a network, under its name.
func (c *Container) Connect(n *Network) {
	c.run.t.Helper()
	c.run.must("network", "connect", "--alias", c.Name, n.Name, c.ID)
}

// Disconnect cuts the container off a network.
func (c *Container) Disconnect(n *Network) {
	c.run.t.Helper()
	c.run.must("network", "disconnect", n.Name, c.ID)
}

// Exec runs a command in the container and returns its standard output. A
// status other than 0 is an [ExitError].
func (c *Container) Exec(ctx context.Context, command ...string) (string, error) {
	return docker(ctx, append([]string{"exec", c.ID}, command...)...)
}

// MustExec is Exec for a command that the test cannot go on without.
func (c *Container) MustExec(command ...string) string {
	c.run.t.Helper()
	out, err := c.Exec(c.run.t.Context(), command...)
	if err != nil {
		c.run.t.Fatalf("in %s: %v", c.Name, err)
	}
	return out
}

// Running is a command that goes on in a container.
type Running struct {
	done chan struct{}
	err  error
}

// Go runs a command in the container while the test goes on. The end of the
// test ends it.
func (c *Container) Go(command ...string) *Running {
	c.run.t.Helper()
	ctx, cancel := context.WithCancel(c.run.t.Context())
	p := &Running{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_, p.err = run(ctx, exec.CommandContext(ctx, "docker", append([]string{"exec", c.ID}, command...)...))
	}()
	c.run.t.Cleanup(func() { cancel(); <-p.done })
	return p
}

// Ended tells whether the command has ended.
func (p *Running) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Wait waits for the command's end, for at most the time given, and returns its
// error, which is nil for status 0.
func (p *Running) Wait(within time.Duration) error {
	limit := time.NewTimer(within)
	defer limit.Stop()
	select {
	case <-p.done:
		return p.err
	case <-limit.C:
		return fmt.Errorf("still running after %v", within)
	}
}

// Logs returns what the container has written to both of its streams.
func (c *Container) Logs() string {
	c.run.t.Helper()
	ctx, cancel := context.WithTimeout(c.run.t.Context(), commandTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "logs", c.ID).CombinedOutput()
	if err != nil {
		c.run.t.Fatalf("logs of %s: %v", c.Name, err)
	}
	return string(bytes.ToValidUTF8(out, []byte("?")))
}

// State is what Docker says about a container.
type State struct {
	Status    string // created, running, paused, exited, …
	Running   bool
	Paused    bool
	ExitCode  int
	OOMKilled bool
}

// State asks Docker.
func (c *Container) State() State {
	c.run.t.Helper()
	var s State
	c.inspect("{{json .State}}", &s)
	return s
}

// AwaitExit waits for the container's end and returns its exit status.
func (c *Container) AwaitExit(within time.Duration) int {
	c.run.t.Helper()
	var s State
	Await(c.run.t, within, "the end of "+c.Name, func(context.Context) error {
		if s = c.State(); s.Running {
			return fmt.Errorf("it is %s", s.Status)
		}
		return nil
	})
	return s.ExitCode
}

// Processes returns the command lines of the container's processes.
func (c *Container) Processes() []string {
	c.run.t.Helper()
	lines := strings.Split(strings.TrimSpace(c.run.must("top", c.ID, "-eo", "pid,args")), "\n")
	var out []string
	for _, line := range lines[1:] {
		_, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		out = append(out, strings.TrimSpace(command))
	}
	return out
}

// NoVolumes fails t if any file of the container is kept outside of it: a
// Docker volume, named, anonymous or declared by the image, or a mount of the
// host's.
func (c *Container) NoVolumes(t testing.TB) {
	t.Helper()
	var mounts []struct{ Type, Name, Source, Destination string }
	c.inspect("{{json .Mounts}}", &mounts)
	for _, m := range mounts {
		t.Errorf("container %s keeps %s outside: %s %s%s", c.Name, m.Destination, m.Type, m.Name, m.Source)
	}
	var declared map[string]struct{}
	c.inspect("{{json .Config.Volumes}}", &declared)
	for path := range declared {
		t.Errorf("the image of container %s declares a Docker volume at %s", c.Name, path)
	}
	var from []string
	c.inspect("{{json .HostConfig.VolumesFrom}}", &from)
	if len(from) > 0 {
		t.Errorf("container %s takes volumes from %s", c.Name, strings.Join(slices.Sorted(slices.Values(from)), ", "))
	}
}

// inspect decodes one part of what Docker knows about the container.
func (c *Container) inspect(format string, into any) {
	c.run.t.Helper()
	out := c.run.must("inspect", "--format", format, c.ID)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		c.run.t.Fatalf("inspect %s: %v", c.Name, err)
	}
}

// Exists tells whether the engine knows a container, running or not.
func Exists(t testing.TB, id string) bool {
	t.Helper()
	return strings.TrimSpace(must(t, "ps", "-aq", "--no-trunc", "--filter", "id="+id)) != ""
}
