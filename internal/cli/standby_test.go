package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/client"
	"drover/internal/repo/fstest"
)

// testWarmStandby: a standby with a disk of its own has each commit soon after it was
// made, and takes over without a restore.
func testWarmStandby(t *testing.T, m *machine) {
	app := []string{"run", "--state", m.dir + "/state", "--log-level", "warn", "--", "sleep", "600"}
	fstest.Must(t, os.Mkdir(m.dir+"/disk1", 0o755), os.Mkdir(m.dir+"/disk2", 0o755), os.Mkdir(m.dir+"/data2", 0o755))
	one, two := m.with(), m.with("DROVER_SOCKET="+m.dir+"/s2", "DROVER_DATA_DIR="+m.dir+"/data2", "DROVER_ID=two")
	one.disk, two.disk = m.dir+"/disk1", m.dir+"/disk2"
	holder := one.start(app...)
	defer func() { _ = holder.cmd.Process.Kill() }()
	m.status("holder", role("holder"))
	m.write("disk1/a", "1")
	m.write("disk1/b", "1")
	m.is(0, "committed", "backup")
	standby := two.start(app...)
	defer func() { _ = standby.cmd.Process.Kill() }()
	commands := *two
	commands.disk = ""
	copied := func(seq uint64) {
		t.Helper()
		commands.status(fmt.Sprintf("a copy of commit %d", seq), func(s client.Status) bool { return s.Role == "standby" && s.Copied == seq })
	}
	copied(1)
	m.write("disk1/b", "2")
	fstest.Must(t, os.Remove(m.dir+"/disk1/a"))
	m.is(0, "committed", "backup")
	copied(2)
	commands.is(0, "of the last commit", "status")
	fstest.Must(t, holder.cmd.Process.Kill())
	if st := commands.status("holder", role("holder")); st.RTO != nil {
		t.Errorf("it restored for %v s what it had", *st.RTO)
	}
	if text, err := os.ReadFile(m.dir + "/disk2/b"); err != nil || string(text) != "2" {
		t.Errorf("the standby has %q, %v", text, err)
	}
	if _, err := os.Stat(m.dir + "/disk2/a"); err == nil {
		t.Error("the standby has a file that was removed")
	}
}

// testStandbyInPlace: a standby that was given the very directory of the holder, by
// mistake, touches nothing there.
func testStandbyInPlace(t *testing.T, m *machine) {
	app := []string{"run", "--state", m.dir + "/state", "--log-level", "error", "--", "sleep", "600"}
	holder := m.start(app...)
	defer func() { _ = holder.cmd.Process.Kill() }()
	m.status("holder", role("holder"))
	fstest.Must(t, os.Mkdir(m.dir+"/data2", 0o755))
	two := m.with("DROVER_SOCKET="+m.dir+"/s2", "DROVER_DATA_DIR="+m.dir+"/data2", "DROVER_ID=two")
	standby := two.start(app...) // the directory is empty as yet
	defer func() { _ = standby.cmd.Process.Kill() }()
	two.status("standby", role("standby"))
	file := m.write("state/a", "1")
	m.is(0, "committed", "backup")
	m.write("state/a", "2, and not backed up")
	m.write("state/b", "not backed up")
	two.status("sees the commit and does not copy it", func(s client.Status) bool {
		return s.Seq == 1 && s.Copied == 0 && strings.Contains(s.Message, "the marker of another instance")
	})
	standby.signal(syscall.SIGTERM)
	if got := standby.wait(); got.code != 0 {
		t.Errorf("the standby: %+v", got)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "2, and not backed up" {
		t.Errorf("the holder's file is %q, %v", text, err)
	}
	if _, err := os.Stat(m.dir + "/state/b"); err != nil {
		t.Error(err)
	}
}

func (agent) HandOver(_ context.Context, grace time.Duration) (client.Takeover, error) {
	return client.Takeover{Holder: "web-2", Epoch: 2, Seconds: grace.Seconds()}, nil
}

// testTakeover: a planned one loses nothing and waits for no lease; without a taker, or
// on a standby, it fails and the application runs on.
func testTakeover(t *testing.T, m *machine) {
	m = m.with("DROVER_TTL=5s")
	app := []string{"run", "--state", m.dir + "/state", "--log-level", "warn", "--", "sleep", "600"}
	fstest.Must(t, os.Mkdir(m.dir+"/disk1", 0o755), os.Mkdir(m.dir+"/disk2", 0o755), os.Mkdir(m.dir+"/data2", 0o755))
	one, two := m.with(), m.with("DROVER_SOCKET="+m.dir+"/s2", "DROVER_DATA_DIR="+m.dir+"/data2", "DROVER_ID=two")
	one.disk, two.disk = m.dir+"/disk1", m.dir+"/disk2"
	holder := one.start(app...)
	defer func() { _ = holder.cmd.Process.Kill() }()
	m.status("holder", role("holder"))
	m.is(1, "no standby took the volume", "takeover")
	m.status("holder again", func(s client.Status) bool { return s.Role == "holder" && s.Epoch == 2 && s.Jobs[0].PID > 0 })
	standby := two.start(app...)
	defer func() { _ = standby.cmd.Process.Kill() }()
	commands := *two
	commands.disk = ""
	commands.status("standby", role("standby"))
	commands.is(11, "one", "takeover")
	m.write("disk1/a", "not backed up by anybody")
	m.is(0, "two has the volume in epoch 3", "takeover")
	commands.status("holder", role("holder"))
	if text, err := os.ReadFile(m.dir + "/disk2/a"); err != nil || string(text) != "not backed up by anybody" {
		t.Errorf("the new holder has %q, %v", text, err)
	}
	m.status("standby", role("standby"))
	commands.is(0, "one has the volume in epoch 4", "takeover") // and back
}
