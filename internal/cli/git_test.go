package cli

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/client"
	"drover/internal/testkit/gitserver"
)

const fromGit = `
coordinator: {url: store, every: 1s}
git:
  conf: {url: "REPO", mountpoint: shop, expand: true, ignore_file_extension: true, poll: 1s}
templates:
  level: {content: 'level=[[ with $c := key "shop/conf/main/current" ]][[ key (print "shop/conf/main/" $c "/app/level") ]][[ end ]]', destination: DIR/level}
jobs:
  app: {command: "while :; do cat DIR/level; echo; sleep 0.2; done", main: true}
`

// testGit: a push becomes keys in the store by the command, and then by the agent, whose
// template follows.
func testGit(t *testing.T, m *machine) {
	server := gitserver.Start(t, gitserver.Options{})
	repo := server.Create(t, "conf")
	repo.Push("main", map[string]string{"app.yaml": "level: 1\n"})
	m.write("drover.yaml", strings.NewReplacer("REPO", repo.URL(), "DIR", m.dir).Replace(fromGit))
	m.is(0, "changed", "git", "sync")
	m.is(0, "as it was", "git", "sync")
	agent := m.start("run", "--state", m.dir+"/state", "--first-start", "adopt")
	m.status("rendered", func(s client.Status) bool {
		return s.Role == "holder" && len(s.Templates) == 1 && s.Templates[0].State == "rendered" && s.Git != nil && s.Git.Writer
	})
	m.file("level", "level=1")
	commit := repo.Push("main", map[string]string{"app.yaml": "level: 2\n"})
	m.status("the new commit", func(s client.Status) bool {
		return len(s.Git.Repositories) == 1 && len(s.Git.Repositories[0].Targets) == 1 && s.Git.Repositories[0].Targets[0].Commit == commit
	})
	m.file("level", "level=2")
	server.Down(true)
	m.status("Git is away", func(s client.Status) bool { return s.Git.Repositories[0].Error != "" })
	m.file("level", "level=2")
	agent.signal(syscall.SIGTERM)
	if got := agent.wait(); got.code != 143 {
		t.Errorf("%+v", got)
	}
}

// file waits until a file of the machine has that content.
func (m *machine) file(name, want string) {
	m.t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := os.ReadFile(m.dir + "/" + name)
		if string(got) == want {
			return
		}
		select {
		case <-deadline:
			m.t.Fatalf("%s: %q, %v; want %q", name, got, err, want)
		case <-tick.C:
		}
	}
}
