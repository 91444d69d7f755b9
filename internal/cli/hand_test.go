package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/client"
	"drover/internal/repo/fstest"
)

// follower is a command whose lines are read as they come.
type follower struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
}

func (m *machine) follow(args ...string) *follower {
	m.t.Helper()
	f := &follower{t: m.t, cmd: m.command(args...), lines: make(chan string, 100_000)}
	out, err := f.cmd.StdoutPipe()
	fstest.Must(m.t, err)
	f.cmd.Stderr = os.Stderr
	fstest.Must(m.t, f.cmd.Start())
	m.t.Cleanup(func() { _ = f.cmd.Process.Kill() })
	go func() {
		defer close(f.lines)
		for text := bufio.NewScanner(out); text.Scan(); {
			f.lines <- text.Text()
		}
	}()
	return f
}

// until passes over lines to the one that has the text.
func (f *follower) until(text string) string {
	f.t.Helper()
	var seen []string
	for deadline := time.After(limit); ; {
		select {
		case line, more := <-f.lines:
			if more && strings.Contains(line, text) {
				return line
			}
			if seen = append(seen, line); !more {
				f.t.Fatalf("%v ended without %q:\n%s", f.cmd.Args[1:], text, strings.Join(seen, "\n"))
			}
		case <-deadline:
			f.t.Fatalf("%v: no %q:\n%s", f.cmd.Args[1:], text, strings.Join(seen, "\n"))
		}
	}
}

// end reads to the end, which must come in order; it returns the last line.
func (f *follower) end() (last string) {
	f.t.Helper()
	for deadline := time.After(limit); ; {
		select {
		case line, more := <-f.lines:
			if more {
				last = line
				continue
			}
		case <-deadline:
			f.t.Fatalf("%v does not end; last %q", f.cmd.Args[1:], last)
		}
		if err := f.cmd.Wait(); err != nil {
			f.t.Errorf("%v: %v", f.cmd.Args[1:], err)
		}
		return last
	}
}

// supervised is the machine with a configuration of jobs and no store, and its agent.
func (m *machine) supervised(config string) (*machine, *process) {
	m.t.Helper()
	plain := m.with("DROVER_STORE=", "DROVER_LOG_LEVEL=warn", "DROVER_CONFIG="+m.write("c.yaml", config))
	agent := plain.start("run")
	m.t.Cleanup(func() { _ = agent.cmd.Process.Kill() })
	return plain, agent
}

// job is one of a status.
func jobOf(s client.Status, name string) client.Job {
	if i := slices.IndexFunc(s.Jobs, func(j client.Job) bool { return j.Name == name }); i >= 0 {
		return s.Jobs[i]
	}
	return client.Job{}
}

func inState(name, state string) func(client.Status) bool {
	return func(s client.Status) bool { return jobOf(s, name).State == state }
}

// webJob says what its environment is, and which signals come.
const webJob = `
jobs:
  main: {command: [sleep, "600"], main: true}
  web:
    command: |
      trap 'echo hung up' HUP; trap 'echo bye; exit 0' TERM
      echo "up FEATURE=${FEATURE-unset}"
      while :; do sleep 0.05; done
    restart: always
    ready: {log: "^up"}
    signals: {USR1: HUP}
`

// testJobsByHand: one job is started, stopped, restarted and signalled, with another
// environment, while the main job runs on; logs and events tell it all, and end with
// the agent.
func testJobsByHand(t *testing.T, m *machine) {
	m, agent := m.supervised(webJob)
	first := m.status("both run", func(s client.Status) bool {
		return jobOf(s, "main").PID > 0 && jobOf(s, "web").Ready
	})
	logs, events := m.follow("logs", "web", "-f"), m.follow("events", "-f", "--json")
	logs.until("up FEATURE=unset")
	events.until(`"event":"ready","source":"web"`)

	m.is(0, "web: running, pid ", "restart", "web")
	logs.until("bye")
	logs.until("up FEATURE=unset")
	events.until(`"event":"stopping","source":"web"`)
	events.until(`"event":"ready","source":"web"`)

	for _, put := range []struct{ give, want string }{{"FEATURE=a=b=", "a=b="}, {"FEATURE=", ""}, {"FEATURE-", "unset"}} {
		m.is(0, "1 variable put", "put-env", put.give)
		m.is(0, "web: running", "restart", "web")
		if line := logs.until("up FEATURE="); line != "up FEATURE="+put.want {
			t.Errorf("put-env %s: got %q", put.give, line)
		}
	}
	m.is(2, "Drover's own", "put-env", "DROVER_SOCKET=/elsewhere")

	m.is(0, "sent", "signal", "web", "SIGHUP")
	logs.until("hung up")
	m.is(0, "sent", "signal", "web", "USR1") // which it gets as HUP
	logs.until("hung up")
	m.is(2, "NOPE", "signal", "web", "NOPE")

	m.is(0, "web: exited, exit 0, until it is started by hand", "stop", "web")
	logs.until("bye")
	m.is(11, "does not run", "signal", "web", "HUP")
	if got := m.do("status"); !strings.Contains(got.out, "● stopped") {
		t.Errorf("status of a stopped job:\n%s", got.out)
	}
	m.is(0, "web: running", "start", "web")
	logs.until("up FEATURE=unset")
	if got := jobOf(m.status("web runs", inState("web", "running")), "main").PID; got != jobOf(first, "main").PID {
		t.Errorf("the main job was process %d and is %d", jobOf(first, "main").PID, got)
	}
	for _, verb := range []string{"start", "stop", "restart"} {
		m.is(1, `there is no job "none"`, verb, "none")
	}
	m.is(1, "there is no job none", "logs", "none")
	if got := m.do("logs", "-n", "1"); got.out != "web | up FEATURE=unset\n" {
		t.Errorf("the last line: %+v", got)
	}

	agent.signal(syscall.SIGTERM)
	if got := agent.wait(); got.code != 143 {
		t.Errorf("the agent: %+v", got)
	}
	if last := logs.end(); last != "bye" {
		t.Errorf("the last line of web was %q", last)
	}
	var e client.Event
	if last := events.end(); json.Unmarshal([]byte(last), &e) != nil || e.Seq < 20 {
		t.Errorf("the last event was %s", last)
	}
}

// testReload: a new configuration touches what it changes, a bad one nothing.
func testReload(t *testing.T, m *machine) {
	config := func(web, more string) string {
		return "jobs:\n  main: {command: [sleep, '600'], main: true}\n  web: {command: '" + web + "'}\n" + more
	}
	const sleep = "exec sleep 600"
	m, agent := m.supervised(config("echo one; "+sleep, "  old: {command: [sleep, '600']}\n"))
	before := m.status("all run", func(s client.Status) bool {
		return len(s.Jobs) == 3 && jobOf(s, "old").PID > 0 && jobOf(s, "main").PID > 0
	})
	m.is(0, "no job changed", "reload")

	m.write("c.yaml", config("echo two; "+sleep, "  extra: {command: [sleep, '600']}\n"))
	m.is(0, "started extra; restarted web; stopped old; 1 job not touched", "reload")
	after := m.status("the new jobs run", func(s client.Status) bool { return jobOf(s, "extra").PID > 0 && jobOf(s, "old").Name == "" })
	if jobOf(after, "main").PID != jobOf(before, "main").PID || jobOf(after, "web").PID == jobOf(before, "web").PID {
		t.Errorf("before %+v\nafter %+v", before.Jobs, after.Jobs)
	}
	if got := m.do("logs", "web", "-n", "1"); got.out != "two\n" {
		t.Errorf("web says %+v", got)
	}

	m.write("c.yaml", "jobs: {web: {comand: x}}\n")
	m.is(2, "nothing was changed", "reload")
	m.write("c.yaml", "service: other\n"+config("echo two; "+sleep, ""))
	m.is(2, "a new start is needed for service", "reload")
	m.write("c.yaml", config("echo three; exit 3", ""))
	m.is(1, "the former configuration is back", "reload")
	last := m.status("what was runs again", func(s client.Status) bool { return jobOf(s, "web").PID > 0 && jobOf(s, "extra").PID > 0 })
	if jobOf(last, "main").PID != jobOf(before, "main").PID {
		t.Errorf("the main job was restarted: %+v", last.Jobs)
	}
	if got := m.do("reload", "--json"); got.code != 1 || !strings.Contains(got.out, `"kind": "failed"`) {
		t.Errorf("the reason as JSON: %+v", got)
	}
	agent.signal(syscall.SIGTERM)
	agent.wait()
}

// testMonitoring: health, the application's metrics, hooks and maintenance, over the
// socket and over TCP.
func testMonitoring(t *testing.T, m *machine) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fstest.Must(t, err)
	address := l.Addr().String()
	fstest.Must(t, l.Close())
	well := m.write("well", "")
	m, agent := m.supervised(fmt.Sprintf(`
listen: %s
metrics: {orders: {type: counter}, queue_length: {type: gauge}}
jobs:
  main:
    command: [sleep, "600"]
    main: true
    checks: {file: {exec: [test, -e, %s], every: 100ms, threshold: 1}}
  hooked: {command: "echo deployed", on: ["webhook:deploy"]}
  quiet: {command: "echo quiet", on: ["maintenance:on"]}
`, address, well))
	get := func(path string) (int, string) {
		answer, err := http.Get("http://" + address + path)
		fstest.Must(t, err)
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		fstest.Must(t, err)
		return answer.StatusCode, string(text)
	}
	healthy := func(want string) func(client.Status) bool {
		return func(s client.Status) bool { return jobOf(s, "main").Health == want }
	}
	m.status("healthy", healthy("healthy"))
	m.is(0, "the agent answers", "ping")
	m.is(0, "ready", "ping", "--level", "ready")
	if code, text := get("/v1/health?level=ready"); code != 200 {
		t.Errorf("health over TCP: %d %s", code, text)
	}

	m.is(0, "2 metrics put", "put-metric", "orders=2", "queue_length=7.5")
	m.is(0, "1 metric put", "put-metric", "orders=1")
	m.is(1, "there is no metric", "put-metric", "sales=1")
	m.is(2, "does not fall", "put-metric", "orders=-1")
	if _, text := get("/metrics"); !strings.Contains(text, "\norders 3\n") || !strings.Contains(text, "\nqueue_length 7.5\n") {
		t.Errorf("metrics over TCP:\n%s", text)
	}
	for _, path := range []string{"/v1/status", "/v1/logs", "/v1/events", "/"} {
		if code, text := get(path); code != 404 {
			t.Errorf("%s over TCP: %d %s", path, code, text)
		}
	}

	logs := m.follow("logs", "-f")
	m.is(0, "told", "webhook", "deploy")
	logs.until("hooked | deployed")
	m.is(1, "webhook:none", "webhook", "none")
	m.is(0, "maintenance is on", "maintenance", "on")
	logs.until("quiet | quiet")
	m.status("in maintenance", func(s client.Status) bool { return s.Maintenance })
	m.is(0, "maintenance", "status")
	m.is(0, "maintenance is off", "maintenance", "off")

	fstest.Must(t, os.Remove(well))
	m.status("unhealthy", healthy("unhealthy"))
	m.is(1, "not ready: main/file", "ping", "--level", "ready")
	m.is(0, "alive", "ping", "--level", "alive")
	if code, text := get("/v1/health?level=ready"); code != 503 || strings.Contains(text, "file") {
		t.Errorf("health over TCP: %d %s", code, text)
	}
	if got := m.do("status"); !strings.Contains(got.out, "ready check file failed") {
		t.Errorf("status:\n%s", got.out)
	}
	agent.signal(syscall.SIGTERM)
	if got := agent.wait(); got.code != 143 {
		t.Errorf("the agent: %+v", got)
	}
	logs.end()
}

// testManyLines: one who does not read holds up neither the job nor the agent's end.
func testManyLines(t *testing.T, m *machine) {
	m, agent := m.supervised(`
jobs:
  main: {command: [sleep, "600"], main: true}
  chatty: {command: "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done", output: none, every: 1h}
`)
	m.status("runs", inState("main", "running"))
	stuck := m.command("logs", "-f", "-n", "0")
	_, err := stuck.StdoutPipe() // that nobody reads
	fstest.Must(t, err)
	fstest.Must(t, stuck.Start())
	t.Cleanup(func() { _ = stuck.Process.Kill(); _ = stuck.Wait() })
	reader := m.follow("logs", "chatty", "-f", "-n", "0")
	m.is(0, "chatty:", "start", "chatty")
	reader.until("19999")
	m.status("chatty is done", func(s client.Status) bool { return jobOf(s, "chatty").Exit != nil })
	start := time.Now()
	agent.signal(syscall.SIGTERM)
	agent.wait()
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the end took %s", took)
	}
	reader.end()
}
