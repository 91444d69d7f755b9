package dockertest

import (
	"context"
	"os"
	"os/exec"
	"strings"
)

// Project is a Compose project of a run.
type Project struct {
	run     *Run
	dir     string
	env     map[string]string
	command []string
}

// Compose prepares the project whose compose.yaml is in dir. The variables are
// what its file is filled in with. Everything of it is removed when the test
// ends: by its name, which is the run's own.
func (r *Run) Compose(dir string, env map[string]string) *Project {
	r.t.Helper()
	p := &Project{run: r, dir: dir, env: env, command: []string{"docker", "compose"}}
	if _, err := docker(r.t.Context(), "compose", "version"); err != nil {
		p.command = []string{"docker-compose"} // where it is not docker's plug-in
	}
	if _, err := p.do(r.t.Context(), "version"); err != nil {
		r.t.Fatalf("this test needs Docker Compose: %v", err)
	}
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), 2*commandTimeout)
		defer cancel()
		if r.t.Failed() {
			out, err := p.do(ctx, "logs", "--no-color", "--tail", shownLogLines)
			r.t.Logf("the project's containers said (%v):\n%s", err, out)
		}
		if out, err := p.do(ctx, "down", "--volumes", "--timeout", "1", "--remove-orphans"); err != nil {
			r.t.Errorf("remove the project: %v\n%s", err, out)
		}
	})
	return p
}

// Do runs a Compose command that the test cannot go on without, and returns
// its standard output.
func (p *Project) Do(args ...string) string {
	p.run.t.Helper()
	out, err := p.do(p.run.t.Context(), args...)
	if err != nil {
		p.run.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// Containers returns the containers of one of the project's services.
func (p *Project) Containers(service string) []*Container {
	p.run.t.Helper()
	var list []*Container
	for _, id := range strings.Fields(p.Do("ps", "-q", service)) {
		list = append(list, &Container{ID: id, Name: service + "-" + id[:12], run: p.run})
	}
	return list
}

// do runs a Compose command; builds are among them, and take their time.
func (p *Project) do(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	all := append(p.command[1:len(p.command):len(p.command)], "--project-name", "drover-"+p.run.id)
	cmd := exec.CommandContext(ctx, p.command[0], append(all, args...)...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0", "COMPOSE_FILE=compose.yaml")
	for k, v := range p.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return run(ctx, cmd)
}
