package cli

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/client"
)

// newest is the id of the newest committed snapshot.
func (m *machine) newest() string {
	m.t.Helper()
	var list []client.Snapshot
	got := m.do("snapshots", "--json")
	if err := json.Unmarshal([]byte(got.out), &list); err != nil || len(list) == 0 {
		m.t.Fatalf("%v: %+v", err, got)
	}
	return list[len(list)-1].ID
}

// has fails the test unless a file of the machine has the text.
func (m *machine) has(name, want string) {
	m.t.Helper()
	if text, err := os.ReadFile(name); err != nil || string(text) != want {
		m.t.Errorf("%s: %q, %v; want %q", name, text, err, want)
	}
}

// exports fails the test unless tar finds the text under name in what export writes,
// to a file and to a pipe.
func (m *machine) exports(snapshot, name, want string) {
	m.t.Helper()
	m.is(0, "exported "+snapshot[:8], "export", snapshot, "--output", m.dir+"/x.tar")
	for script, text := range map[string]string{
		`mkdir from-file && tar -x -C from-file -f x.tar`:                         m.dir + "/from-file" + name,
		`mkdir from-pipe && drover export ` + snapshot + ` | tar -x -C from-pipe`: m.dir + "/from-pipe" + name,
	} {
		cmd := m.command()
		cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-e", "-o", "pipefail", "-c", script}
		if said, err := cmd.CombinedOutput(); err != nil {
			m.t.Errorf("%s: %v\n%s", script, err, said)
		}
		m.has(text, want)
	}
}

// clones fails the test unless a clone is a volume of its own, with that file, and
// the place that it has taken is taken.
func (m *machine) clones(snapshot, name, want string) {
	m.t.Helper()
	clone := []string{"clone", snapshot, "--to-volume", "second"}
	m.is(2, "no password given for the new volume", clone...)
	with := m.with("DROVER_TO_PASSWORD=opens it")
	with.is(0, "cloned "+snapshot[:8]+" to volume second", clone...)
	with.is(1, "is there already", clone...)
	second := m.with("DROVER_VOLUME=second", "DROVER_PASSWORD=opens it", "DROVER_SOCKET="+m.dir+"/none")
	second.is(0, "no problem found: 1 snapshot", "verify", "--read-data")
	second.is(0, "restored", "restore", "--target", m.dir+"/second")
	m.has(m.dir+"/second"+name, want)
	m.with("DROVER_VOLUME=second").is(12, "wrong password", "snapshots")
}

// testHistory: an application breaks its data; its operator looks back, and goes back.
func testHistory(t *testing.T, m *machine) {
	file := m.write("state/f", "good")
	run := []string{"run", "--state", m.dir + "/state", "--first-start", "adopt", "--log-level", "error", "--", "sleep", "600"}
	agent := m.start(run...)
	defer func() { _ = agent.cmd.Process.Kill() }()
	m.status("holder", role("holder"))
	m.is(0, "committed", "backup")
	good, moment := m.newest(), time.Now().Format(time.RFC3339Nano)
	m.write("state/f", "bad")
	broken := m.write("state/debris", "x")
	m.is(0, "committed", "backup")
	m.is(0, "+ "+broken+"\nM "+file+" (content, mtime)\n1 added, 0 removed, 1 changed from "+good[:8], "diff")
	m.is(11, "stop the application", "rollback", good)

	looked := m.do("restore", "--at", moment, "--target", m.dir+"/then")
	if looked.code != 0 || !strings.Contains(looked.err, "the newest was "+good[:8]) {
		t.Errorf("restore --at: %+v", looked)
	}
	m.has(m.dir+"/then"+file, "good")
	m.exports(good, file, "good")
	m.clones(good, file, "good")
	m.is(1, "the oldest that there is, "+good[:8], "restore", "--at", "1d", "--target", m.dir+"/then")

	m.write("state/f", "worse")
	if err := agent.cmd.Process.Kill(); err != nil { // the disk keeps what was never committed
		t.Fatal(err)
	}
	agent.wait()
	m.is(0, "with the state of "+good[:8]+": 1 file", "rollback", good)
	m.is(0, "nothing to do", "rollback", good)
	agent = m.start(run...)
	defer func() { _ = agent.cmd.Process.Kill() }()
	m.status("holder", role("holder"))
	m.has(file, "good")
	if _, err := os.Stat(broken); err == nil {
		t.Error("what the bad state added is still there")
	}
	var all []client.Snapshot
	if err := json.Unmarshal([]byte(m.do("snapshots", "--all", "--json").out), &all); err != nil {
		t.Fatal(err)
	}
	for _, sn := range all {
		if sn.Diverged {
			m.is(0, "restored", "restore", sn.ID, "--target", m.dir+"/kept")
		}
	}
	m.has(m.dir+"/kept"+file, "worse")
	agent.signal(syscall.SIGTERM)
	agent.wait()
	m.is(0, "no problem found", "verify", "--read-data")
}
