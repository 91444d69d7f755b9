package app

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/client"
	"drover/internal/coord/mem"
	"drover/internal/repo/fstest"

	"golang.org/x/sys/unix"
)

// put sets a key.
func put(t *testing.T, c *mem.Client, key, value string) {
	t.Helper()
	_, err := c.Put(t.Context(), key, []byte(value))
	fstest.Must(t, err)
}

// until waits until a condition holds, and tells what it was if not.
func (s *supervisor) until(what string, holds func(client.Status) bool) (st client.Status) {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for {
		if st = s.Status(); holds(st) {
			return st
		}
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatalf("%s: %+v\n%s", what, st, s.log)
		}
	}
}

// heard waits until the agent has shown a line that begins so.
func (s *supervisor) heard(line string) {
	s.t.Helper()
	s.until("nobody said "+line, func(client.Status) bool { return strings.Contains(s.log.String(), line) })
}

const templated = `
coordinator: consul://127.0.0.1:1
templates:
  conf:
    content: "level=[[ key \"shop/level\" ]]"
    destination: %[1]s/conf
    mode: 0640
    check: {command: [grep, -v, "level=bad", "{file}"]}
    on_change: {signal: app}
jobs:
  early: {command: [sleep, "1000"], early: true}
  app:
    command: "trap 'echo got $(cat %[1]s/conf)' HUP; echo first $(cat %[1]s/conf) $SIZE $(cat <&4); while :; do sleep 0.02; done"
    env_templates: {SIZE: "[[ keyOrDefault \"shop/size\" \"7\" ]]"}
    fd_templates: {4: "[[ keyOrDefault \"shop/depth\" \"deep\" ]]"}
`

// What waits for all waits for the templates that state nothing, variables of jobs included.
func TestWaitForAllTemplates(t *testing.T) {
	co, _, other := inMemory(t)
	put(t, other, "shop/level", "1")
	dir := t.TempDir()
	s := runsWith(t, fmt.Sprintf(`
coordinator: consul://127.0.0.1:1
wait: 1h
templates:
  slow: {content: "[[ key \"shop/level\" ]]", destination: %[1]s/slow}
  quick: {content: "[[ key \"shop/level\" ]]", destination: %[1]s/quick, wait: 1ms}
jobs:
  app: {command: "exec sleep 1000"}
`, dir), co)
	s.event("ready", "app")
	put(t, other, "shop/level", "2")
	s.until("the quick one", func(client.Status) bool {
		text, _ := os.ReadFile(dir + "/quick")
		return string(text) == "2"
	})
	if text, err := os.ReadFile(dir + "/slow"); err != nil || string(text) != "1" {
		t.Errorf("%q, %v", text, err)
	}
}

// What templates read may be secret: neither the agent nor its jobs leave it in a core file, but
// a job that asks for one.
func TestTemplatesLeaveNoCores(t *testing.T) {
	fstest.Must(t, unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 8192, Max: unix.RLIM_INFINITY}))
	const jobs = `
jobs:
  app: {command: "echo cores of $(ulimit -c) $SIZE; exec sleep 1000"%s}
  asks: {command: "echo cores of $(ulimit -c); exec sleep 1000", limits: {core: 4096}}
`
	co, _, _ := inMemory(t)
	plain := runsWith(t, fmt.Sprintf(jobs, ""), co)
	plain.heard("app: cores of 16")
	s := runsWith(t, "coordinator: consul://127.0.0.1:1"+fmt.Sprintf(jobs, `, env_templates: {SIZE: "[[ keyOrDefault \"shop/size\" \"7\" ]]"}`), co)
	s.heard("app: cores of 0 7")
	s.heard("asks: cores of 8") // of 512 bytes
}

// Jobs wait for their files. A change of a key reaches the file and the job; one that the
// check refuses reaches neither; a variable's restarts its job.
func TestTemplatesOfJobs(t *testing.T) {
	co, server, other := inMemory(t)
	dir := t.TempDir()
	s := runsWith(t, fmt.Sprintf(templated, dir), co)
	s.event("ready", "early")
	st := s.until("blocked", func(st client.Status) bool { return st.Templates[0].State == "blocked" })
	if st.Health != "degraded" || !strings.Contains(st.Message, "template conf: waits for") || !strings.Contains(st.Message, "shop/level") || s.job("app").State != "waiting" {
		t.Errorf("%s: %s; app is %s", st.Health, st.Message, s.job("app").State)
	}
	put(t, other, "shop/level", "1")
	s.heard("app: first level=1 7 deep")
	if info, err := os.Stat(dir + "/conf"); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	put(t, other, "shop/level", "2")
	s.event("rendered", "conf")
	s.heard("app: got level=2")
	put(t, other, "shop/level", "bad")
	st = s.until("refused", func(st client.Status) bool { return st.Templates[0].Error != "" })
	if got, err := os.ReadFile(dir + "/conf"); err != nil || string(got) != "level=2" || !strings.Contains(st.Message, "template conf: check refused the file") {
		t.Errorf("%q, %v; %s", got, err, st.Message)
	}
	put(t, other, "shop/level", "3")
	s.heard("app: got level=3")
	pid := s.job("early").PID
	put(t, other, "shop/size", "8")
	s.heard("app: first level=3 8 deep")
	put(t, other, "shop/depth", "deeper")
	s.heard("app: first level=3 8 deeper")
	server.SetAvailable(false)
	st = s.until("stale", func(st client.Status) bool { return len(st.Templates[0].Stale) > 0 })
	if st.Templates[0].State != "rendered" || st.Health != "ok" {
		t.Errorf("while the coordinator is away: %+v", st)
	}
	server.SetAvailable(true)
	s.until("known again", func(st client.Status) bool { return len(st.Templates[0].Stale) == 0 })
	if now := s.job("early").PID; now != pid {
		t.Error("the early job was restarted")
	}

	// Another template: it is rendered before the jobs that changed with it start.
	s.write(strings.Replace(fmt.Sprintf(templated, dir), "level=[[", "depth=[[", 1))
	if r, err := s.Reload(t.Context()); err != nil || !slices.Equal(r.Kept, []string{"app", "early"}) {
		t.Fatalf("%+v, %v", r, err)
	}
	if got, _ := os.ReadFile(dir + "/conf"); string(got) != "depth=3" {
		t.Errorf("%q", got)
	}
	s.write(strings.Replace(fmt.Sprintf(templated, dir), "level=[[", "depth=[[ nope ", 1))
	if _, err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "nope") {
		t.Errorf("%v", err)
	}
}

// A job gets no signal before it is ready: it could not handle it yet, and would end.
func TestNoSignalBeforeTheJobIsReady(t *testing.T) {
	co, _, other := inMemory(t)
	dir := t.TempDir()
	put(t, other, "level", "1")
	s := runsWith(t, fmt.Sprintf(`
coordinator: consul://127.0.0.1:1
templates:
  conf:
    content: "[[ key \"level\" ]]"
    destination: %[1]s/conf
    on_change: {signal: app, with: USR2}
jobs:
  app:
    command: "while ! test -e %[1]s/go; do sleep 0.02; done; trap 'echo got $(cat %[1]s/conf)' USR2; echo >&3; while :; do sleep 0.02; done"
    main: true
    ready: {fd: 3}
`, dir), co)
	s.event("started", "app")
	put(t, other, "level", "2")
	s.heard("templates have changed")
	if job := s.job("app"); job.Ready || job.State != "running" {
		t.Errorf("%+v", job)
	}
	fstest.Write(t, dir+"/go", "")
	s.heard("got 2")
}

// A template that waits for what never comes is mended by a reload: the jobs start then.
func TestReloadWhileJobsWait(t *testing.T) {
	co, _, other := inMemory(t)
	dir := t.TempDir()
	put(t, other, "shop/level", "1")
	text := fmt.Sprintf(templated, dir)
	s := runsWith(t, strings.Replace(text, "shop/level", "shop/heights", 1), co)
	s.event("ready", "early")
	s.until("blocked", func(st client.Status) bool { return st.Templates[0].State == "blocked" })
	if state := s.job("app").State; state != "waiting" {
		t.Errorf("it is %s", state)
	}
	s.write(text)
	if _, err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.heard("app: first level=1 7")
	put(t, other, "shop/level", "2")
	s.heard("app: got level=2")
}
