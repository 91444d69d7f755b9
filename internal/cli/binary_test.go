package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/client"
	"drover/internal/repo/fstest"
	"drover/internal/testkit/s3server"
)

// machine is a directory with the real binary, a bucket and state, and the environment
// of one instance.
type machine struct {
	t      *testing.T
	binary string
	dir    string
	env    []string
	uid    uint32 // 0: our own
	disk   string // what its processes see in the place of the state's directory; "": that
	box    bool   // the agent is PID 1 of a namespace, and all in it end with it
}

// limit is how long a command of these tests may take on a busy machine.
const limit = time.Minute

func newMachine(t *testing.T, binary string) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "m") //nolint:usetesting // short, for sockets, and open to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &machine{t: t, binary: binary, dir: dir}
	for _, sub := range []string{"bucket", "state", "data"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.env = []string{
		"PATH=" + filepath.Dir(binary) + ":" + os.Getenv("PATH"), "DROVER_STORE=file://" + dir + "/bucket", "DROVER_PASSWORD=sesame", "DROVER_DATA_DIR=" + dir + "/data",
		"DROVER_SOCKET=" + dir + "/s", "DROVER_TTL=2s", "DROVER_ID=one", "STATE=" + dir + "/state",
	}
	return m
}

// with is the same machine with more environment.
func (m *machine) with(env ...string) *machine {
	other := *m
	other.env = append(append([]string{}, m.env...), env...)
	return &other
}

func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.Command(m.binary, args...)
	if m.disk != "" {
		ns := []string{"--mount"}
		if os.Geteuid() != 0 {
			ns = append(ns, "--user", "--map-root-user")
		}
		cmd = exec.Command("unshare", slices.Concat(ns, []string{"--", "sh", "-c", `mount --bind "$1" "$2" && shift 2 && exec "$@"`, "sh", m.disk, m.dir + "/state", m.binary}, args)...)
	}
	if m.box {
		ns := []string{"--pid", "--fork", "--kill-child", "--mount-proc"}
		if os.Geteuid() != 0 {
			ns = append(ns, "--user", "--map-root-user")
		}
		cmd = exec.Command("unshare", slices.Concat(ns, []string{"--", m.binary}, args)...)
	}
	cmd.Dir = m.dir
	cmd.Env = m.env
	if m.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: m.uid, Gid: m.uid}}
	}
	return cmd
}

// do runs a command to its end.
func (m *machine) do(args ...string) result {
	m.t.Helper()
	p := m.start(args...)
	return p.wait()
}

// process is a command that runs.
type process struct {
	m         *machine
	cmd       *exec.Cmd
	out, errs bytes.Buffer
	ended     chan error
}

func (m *machine) start(args ...string) *process {
	m.t.Helper()
	p := &process{m: m, cmd: m.command(args...), ended: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errs
	if err := p.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	return p
}

func (p *process) wait() result {
	p.m.t.Helper()
	select {
	case err := <-p.ended:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			p.m.t.Fatal(err)
		}
	case <-time.After(limit):
		_ = p.cmd.Process.Kill()
		<-p.ended
		p.m.t.Fatalf("%v does not end within %s\n%s", p.cmd.Args[1:], limit, p.errs.String())
	}
	return result{p.cmd.ProcessState.ExitCode(), p.out.String(), p.errs.String()}
}

func (p *process) signal(s os.Signal) {
	p.m.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.m.t.Fatal(err)
	}
}

// status asks the agent until it is as wanted.
func (m *machine) status(what string, want func(client.Status) bool) client.Status {
	m.t.Helper()
	var status client.Status
	deadline := time.After(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if got := m.do("status", "--json"); json.Unmarshal([]byte(got.out), &status) == nil && want(status) {
			return status
		}
		select {
		case <-deadline:
			m.t.Fatalf("never %s: %+v", what, status)
		case <-tick.C:
		}
	}
}

func role(want string) func(client.Status) bool {
	return func(s client.Status) bool { return s.Role == want }
}

// is fails the test unless a command ended with the code, with one line on stderr that
// has the text (none at all if the code is 0).
func (m *machine) is(code int, text string, args ...string) {
	m.t.Helper()
	got := m.do(args...)
	lines := 1
	if code == 0 {
		lines = 0
	}
	if got.code != code || strings.Count(got.err, "\n") != lines || !strings.Contains(got.err+got.out, text) || strings.Contains(got.err, "sesame") {
		m.t.Errorf("%v: want %d %q, got %+v", args, code, text, got)
	}
}

func (m *machine) write(name, text string) string {
	m.t.Helper()
	name = filepath.Join(m.dir, name)
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
	return name
}

// buildBinary builds the real one, in a directory that is open to other users.
func buildBinary(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bin") //nolint:usetesting // short, for sockets, and open to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "drover")
	build := exec.Command("go", "build", "-o", binary, "drover/cmd/drover")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

func TestBinary(t *testing.T) {
	binary := buildBinary(t)
	for name, test := range map[string]func(*testing.T, *machine){
		"supervisor": testSupervisor, "jobs by hand": testJobsByHand, "reload": testReload, "monitoring": testMonitoring, "many lines": testManyLines,
		"store": testStore, "PostgreSQL's log": testServerArchives, "agent": testAgent, "history": testHistory, "two agents": testTwoAgents,
		"warm standby": testWarmStandby, "takeover": testTakeover, "standby in the holder's directory": testStandbyInPlace,
		"same disk": testSameDisk, "slots": testSlots, "slots, strictly": testSlotsStrictly, "slots and a mirror": testSlotsMirror, "fewer slots": testFewerSlots, "killed prune": testKilledPrune, "converted": testConverted, "git": testGit,
		"same id": testSameID, "bad input": testBadStores, "careless store": testCarelessStore, "full disk": testFullDisk, "unreadable": testUnreadable, "interrupt": testInterrupt, "flipped bits": testFlippedBits,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newMachine(t, binary))
		})
	}
}

// testSupervisor: without a store, the exit status is the main job's.
func testSupervisor(_ *testing.T, m *machine) {
	plain := m.with("DROVER_STORE=", "DROVER_LOG_LEVEL=error")
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -9 $$": 137, "kill -TERM $$": 143} {
		if got := plain.do("run", "--", "sh", "-c", script); got.code != want {
			m.t.Errorf("%s: want %d, got %+v", script, want, got)
		}
	}
	if got := plain.do("run", "--", "/no/such/program"); got.code != 127 || !strings.Contains(got.err, "/no/such/program") {
		m.t.Errorf("a program that is not there: %+v", got)
	}
	if got := plain.do("run", "--", "sh", "-c", "env"); strings.Contains(got.out, "sesame") || !strings.Contains(got.out, "DROVER_SOCKET="+m.dir+"/s") {
		m.t.Errorf("environment of a job: %s", got.out)
	}
}

// testStore: the commands that need no agent, in the order of a first use.
func testStore(t *testing.T, m *machine) {
	file := m.write("state/a", "one")
	state := m.dir + "/state"
	m.is(10, "no repository", "snapshots")
	m.is(0, "created", "init")
	m.is(0, "exists already", "init")
	m.is(12, "wrong password", "init", "--password-command", "echo other")
	m.is(0, "no snapshots", "snapshots")
	m.is(0, "committed", "snapshot", state)
	m.is(0, "head", "snapshots")
	m.is(1, "--replace-paths", "snapshot", m.dir+"/data")
	m.is(0, file, "ls", "latest", state)
	m.is(0, "no problem found", "verify", "--read-data")
	m.is(0, "restored", "restore", "--target", m.dir+"/out")
	if text, err := os.ReadFile(m.dir + "/out" + file); err != nil || string(text) != "one" {
		t.Errorf("restored: %q, %v", text, err)
	}
	m.write("state/a", "two")
	extra := m.write("state/extra", "x")
	m.is(0, "restored", "restore")
	if text, err := os.ReadFile(file); err != nil || string(text) != "one" {
		t.Errorf("restored in place: %q, %v", text, err)
	}
	if _, err := os.Stat(extra); err != nil {
		t.Errorf("an extra file is gone without --delete: %v", err)
	}
	m.is(0, "restored", "restore", "--delete")
	if _, err := os.Stat(extra); err == nil {
		t.Error("an extra file is left with --delete")
	}
	m.is(1, "not found", "restore", "abcdef12")
	m.is(0, "RESTIC_REPOSITORY='"+m.dir+"/bucket/data'", "restic-env")
	m.is(0, "one wins", "probe")
}

// testAgent: an application that backs up by itself, and ends.
func testAgent(t *testing.T, m *machine) {
	if got := m.do("run", "--state", m.dir+"/state", "--", "no-such-program"); got.code != 127 || !strings.Contains(got.err, "no-such-program") {
		t.Errorf("a program that is not there: %+v", got)
	}
	if made, err := os.ReadDir(m.dir + "/bucket"); err != nil || len(made) > 0 {
		t.Errorf("for a program that is not there something was begun: %v, %v", made, err)
	}
	got := m.do("run", "--state", m.dir+"/state", "--", "sh", "-c", `echo precious >"$STATE/f" && drover backup && echo late >"$STATE/g"; exit 5`)
	if got.code != 5 || !strings.Contains(got.out, "committed") {
		t.Fatalf("got %+v", got)
	}
	m.is(0, "restored", "restore", "--target", m.dir+"/out")
	if text, err := os.ReadFile(m.dir + "/out" + m.dir + "/state/f"); err != nil || string(text) != "precious\n" {
		t.Errorf("restored: %q, %v", text, err)
	}
}

// testTwoAgents: one holds, the other stands by; what needs the volume is refused
// meanwhile; the standby takes over.
func testTwoAgents(t *testing.T, m *machine) {
	args := []string{"run", "--state", m.dir + "/state", "--", "sleep", "600"}
	one := m.start(args...)
	defer func() { _ = one.cmd.Process.Kill() }()
	m.status("holder", role("holder"))
	second := m.with("DROVER_SOCKET="+m.dir+"/s2", "DROVER_DATA_DIR="+m.dir+"/data2", "DROVER_ID=two")
	if err := os.Mkdir(m.dir+"/data2", 0o755); err != nil {
		t.Fatal(err)
	}
	two := second.start(args...)
	defer func() { _ = two.cmd.Process.Kill() }()
	second.status("standby", role("standby"))
	m.is(0, "committed", "backup")
	second.is(11, "one", "backup")
	m.is(11, "one", "snapshot", m.dir+"/state")
	m.is(11, "one", "restore")
	m.is(11, "one", "prune")
	m.is(0, "restored", "restore", "--target", m.dir+"/out")
	if got := m.do(args...); got.code == 0 || !strings.Contains(got.err, "another agent") {
		t.Errorf("a second agent on the same socket: %+v", got)
	}
	one.signal(syscall.SIGTERM)
	if got := one.wait(); got.code != 143 {
		t.Errorf("holder stopped: %+v", got)
	}
	second.status("holder", role("holder"))
	second.is(0, "committed", "backup")
	two.signal(syscall.SIGTERM)
	if got := two.wait(); got.code != 143 {
		t.Errorf("second holder stopped: %+v", got)
	}
}

// testBadStores: what is wrong with the place is one line, and nothing is changed there.
func testBadStores(t *testing.T, m *machine) {
	run := []string{"run", "--state", m.dir + "/state", "--log-level", "error", "--", "true"}
	m.with("DROVER_INIT=never").is(10, "no repository", run...)
	m.is(0, "created", "init")
	m.with("DROVER_PASSWORD=other").is(12, "wrong password", run...)
	m.with("DROVER_CONFIG="+m.write("c.yaml", "volme: x\n")).is(2, m.dir+`/c.yaml:1:1: unknown key "volme"; did you mean "volume"?`, run...)
	m.with("DROVER_PASSWORD_FILE="+m.dir+"/none", "DROVER_PASSWORD=").is(2, "cannot read password file", run...)
	m.write("state/found", "x")
	m.is(1, "", "run", "--state", m.dir+"/state", "--log-level", "error", "--", "true")
	if text, err := os.ReadFile(m.dir + "/state/found"); err != nil || string(text) != "x" {
		t.Errorf("files that were there: %q, %v", text, err)
	}
	m.is(0, "no snapshots", "snapshots")
}

// testUnreadable: a file that cannot be read means no commit, or a commit that says so.
func testUnreadable(t *testing.T, m *machine) {
	secret := m.write("state/locked", "x")
	m.write("state/open", "y")
	if os.Geteuid() == 0 {
		m.uid = 65534 // root reads everything
		if err := os.Chmod(m.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"bucket", "state", "data", "state/open"} {
			if err := os.Chown(filepath.Join(m.dir, name), 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(secret, 0); err != nil {
		t.Fatal(err)
	}
	m.is(0, "created", "init")
	m.is(3, secret, "snapshot", m.dir+"/state")
	m.is(0, "no snapshots", "snapshots")
	got := m.do("snapshot", "--on-unreadable", "skip", m.dir+"/state")
	if got.code != 0 || !strings.Contains(got.err, secret) || !strings.Contains(got.out, "committed") {
		t.Errorf("skip: %+v", got)
	}
}

// testInterrupt: SIGINT ends a command with 130.
func testInterrupt(t *testing.T, m *machine) {
	ready := filepath.Join(m.dir, "ready")
	p := m.start("init", "--password-command", "echo >"+ready+"; exec sleep 600")
	deadline := time.Now().Add(limit)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		if _, err := os.Stat(ready); err == nil || time.Now().After(deadline) {
			tick.Stop()
			break
		}
	}
	p.signal(syscall.SIGINT)
	if got := p.wait(); got.code != 130 || strings.Count(got.err, "\n") != 1 {
		t.Errorf("got %+v", got)
	}
}

// testCarelessStore: a store that ignores conditions would let two instances write
// history; nothing is begun there.
func testCarelessStore(t *testing.T, m *machine) {
	s3 := s3server.StartCareless(t)
	m = m.with("DROVER_STORE="+s3.URL("app"), "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_CA_BUNDLE=", "AWS_CONFIG_FILE=/none", "AWS_SHARED_CREDENTIALS_FILE=/none")
	const refusal = "ignores conditional writes"
	m.is(1, refusal, "probe")
	m.is(1, refusal, "init")
	m.is(1, refusal, "run", "--state", m.dir+"/state", "--log-level", "error", "--", "sh", "-c", `touch "$STATE/ran"`)
	if _, err := os.Stat(m.dir + "/state/ran"); err == nil {
		t.Error("the application ran")
	}
	if keys := s3.Keys(); len(keys) != 0 {
		t.Errorf("left in the store: %v", keys)
	}
}

// testFullDisk: a restore that does not fit names the file, and an application is not
// started on half a tree. With room, the next start goes on.
func testFullDisk(t *testing.T, m *machine) {
	if os.Geteuid() != 0 {
		return // only root can make a small disk
	}
	noise := string(fstest.Noise(2 << 20))
	big := m.write("state/big", noise)
	m.is(0, "created", "init")
	m.is(0, "committed", "snapshot", m.dir+"/state")
	fstest.Must(t, os.Remove(big), os.Mkdir(m.dir+"/small", 0o755))
	mount := func(dir, size string) {
		t.Helper()
		fstest.Must(t, unix.Mount("drover-test", dir, "tmpfs", 0, "size="+size))
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	mount(m.dir+"/small", "1m")
	m.is(1, big+": no space left on device", "restore", "--target", m.dir+"/small")

	mount(m.dir+"/state", "1m")
	run := []string{"run", "--state", m.dir + "/state", "--log-level", "warn", "--", "sh", "-c", `cp "$STATE/big" "$STATE/../ran"`}
	agent := m.start(run...)
	m.status("says that the disk is full", func(s client.Status) bool {
		return strings.Contains(s.Message, big+": no space left on device")
	})
	agent.signal(syscall.SIGTERM)
	if got := agent.wait(); got.code != 0 || !strings.Contains(got.err, "no space left on device") {
		t.Errorf("an agent that cannot restore: %+v", got)
	}
	if _, err := os.Stat(m.dir + "/ran"); err == nil {
		t.Error("the application was started on half a tree")
	}
	mount(m.dir+"/state", "8m")
	if got := m.do(run...); got.code != 0 {
		t.Errorf("with room: %+v", got)
	}
	if text, err := os.ReadFile(m.dir + "/ran"); err != nil || string(text) != noise {
		t.Errorf("with room, the application saw %d bytes: %v", len(text), err)
	}
}

// testSameDisk: two agents with one data directory are one too many.
func testSameDisk(t *testing.T, m *machine) {
	args := []string{"run", "--state", m.dir + "/state", "--log-level", "error", "--", "sleep", "600"}
	one := m.start(args...)
	defer func() { _ = one.cmd.Process.Kill() }()
	m.status("holder", role("holder"))
	m.with("DROVER_SOCKET="+m.dir+"/s2").is(11, m.dir+"/data", args...)
	m.is(0, "committed", "backup")
	one.signal(syscall.SIGTERM)
	if got := one.wait(); got.code != 143 {
		t.Errorf("the first agent: %+v", got)
	}
}

// testSameID: an instance with the id of another, but not its disk, is another one. It
// waits like any standby, and has the volume when that is free.
func testSameID(t *testing.T, m *machine) {
	args := []string{"run", "--state", m.dir + "/state", "--log-level", "error", "--", "sleep", "600"}
	one := m.start(args...)
	defer func() { _ = one.cmd.Process.Kill() }()
	m.status("holder", role("holder"))
	fstest.Must(t, os.Mkdir(m.dir+"/data2", 0o755), os.Mkdir(m.dir+"/state2", 0o755))
	twin := m.with("DROVER_SOCKET="+m.dir+"/s2", "DROVER_DATA_DIR="+m.dir+"/data2")
	two := twin.start("run", "--state", m.dir+"/state2", "--log-level", "error", "--", "sleep", "600")
	defer func() { _ = two.cmd.Process.Kill() }()
	twin.status("standby", role("standby"))
	m.is(0, "committed", "backup")
	two.signal(syscall.SIGTERM)
	if got := two.wait(); got.code != 0 {
		t.Errorf("the twin: %+v", got)
	}
	one.signal(syscall.SIGTERM)
	if got := one.wait(); got.code != 143 {
		t.Errorf("the first agent: %+v", got)
	}
}
