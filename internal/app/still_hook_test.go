package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// quiescent is an application that writes until it is told to hold still, by a
// file, and says so by another.
const quiescent = `
import os, time
state, acks = os.environ["STATE"], os.environ["ACKS"]
log = os.open(state + "/log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
length = os.open(state + "/length", os.O_CREAT | os.O_WRONLY)
n = 0
while True:
    if os.path.exists(acks + ".pause"):
        open(acks + ".quiet", "w").close()
        while os.path.exists(acks + ".pause"): time.sleep(0.001)
        os.unlink(acks + ".quiet")
    os.write(log, b"x" * 100)
    n += 100
    os.pwrite(length, b"%020d" % n, 0)
    if n == 100: open(acks, "w").write("up")
    if n >= 2000000: # or each backup takes longer than the one before
        os.ftruncate(log, 0); os.pwrite(length, b"%020d" % 0, 0); n = 0
`

const hooks = `
backup:
  consistency: hook
  quiesce: {command: "echo quiesce >> $ACKS.calls; touch $ACKS.pause; until [ -e $ACKS.quiet ]; do sleep 0.002; done"}
  resume: {command: "echo resume >> $ACKS.calls; rm -f $ACKS.pause; while [ -e $ACKS.quiet ]; do sleep 0.002; done"}
`

func (r *running) calls() string {
	text, _ := os.ReadFile(r.acks + ".calls")
	return strings.ReplaceAll(string(text), "\n", " ")
}

func TestHooks(t *testing.T) {
	r := newWorkshop(t).run(hooks, "python3", "-c", quiescent)
	const n = 20
	all := r.backups(n)
	if got, want := r.calls(), strings.Repeat("quiesce resume ", n); got != want {
		t.Errorf("the hooks were called as %q", got)
	}
	r.restoreAll(all, func(dir string, s saved) {
		if !s.Consistent || s.Pause <= 0 || ahead(t, dir) != 0 {
			t.Errorf("seq %d: %+v, %d ahead", s.Seq, s.Backup, ahead(t, dir))
		}
	})
}

func TestFailedQuiesceIsNoCommit(t *testing.T) {
	r := newWorkshop(t).run(`
backup:
  consistency: hook
  quiesce: {command: "echo quiesce >> $ACKS.calls; echo 'the disk is busy' >&2; exit 3"}
  resume: {command: "echo resume >> $ACKS.calls"}
`, "sh", "-c", "echo 1 > $STATE/a; exec sleep 600")
	b, err := r.Backup(t.Context(), false)
	if err == nil || b.Seq != 0 || !strings.Contains(err.Error(), "quiesce hook: exit status 3: the disk is busy") {
		t.Errorf("%+v, %v", b, err)
	}
	if got := r.calls(); got != "quiesce resume " {
		t.Errorf("the hooks were called as %q", got)
	}
	s, err := r.Status(t.Context())
	if err != nil || s.Seq != 0 || s.Health != "degraded" || !strings.Contains(s.Message, "the disk is busy") {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestQuiesceHasATimeout(t *testing.T) {
	r := newWorkshop(t).run(`
backup:
  consistency: hook
  quiesce: {command: "sleep 600 & wait", timeout: 100ms}
  resume: {command: "echo resume >> $ACKS.calls"}
`, "sh", "-c", "echo 1 > $STATE/a; exec sleep 600")
	if b, err := r.Backup(t.Context(), false); err == nil || !strings.Contains(err.Error(), "quiesce hook: context deadline exceeded") {
		t.Errorf("%+v, %v", b, err)
	}
	if got := r.calls(); got != "resume " {
		t.Errorf("the hooks were called as %q", got)
	}
}

// A stop in the middle of a quiesced moment, and another, which gives the last
// backup up.
func TestResumeRunsWhenTheAgentStops(t *testing.T) {
	r := newWorkshop(t).run(`
backup:
  consistency: hook
  quiesce: {command: "echo quiesce >> $ACKS.calls; until [ -e $ACKS.go ]; do sleep 0.002; done", timeout: 1m}
  resume: {command: "echo resume >> $ACKS.calls", timeout: 1m}
`, "sh", "-c", "echo 1 > $STATE/a; trap 'cp $ACKS.calls $ACKS.atstop; exit 0' TERM; while :; do sleep 0.01; done")
	if _, err := r.Backup(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	r.until("it is quiesced", func() bool { return r.calls() == "quiesce " })
	for n := 1; n <= 2; n++ { // two at once may be one
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		r.until("it has heard", func() bool { return strings.Count(r.log.String(), "msg=stopping") == n })
	}
	err := <-r.ended
	r.ended <- nil
	if got := r.calls(); !strings.HasPrefix(got, "quiesce resume ") || strings.Count(got, "quiesce") != strings.Count(got, "resume") {
		t.Errorf("the hooks were called as %q", got)
	}
	if err == nil || !strings.Contains(err.Error(), "did not reach the store") {
		t.Errorf("the agent ended with %v", err)
	}
}

// A job without privileges, a hook of the same user.
func TestHooksRunAsTheMainJob(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: all is one user")
	}
	r := newWorkshop(t).run(`
backup:
  consistency: hook
  quiesce: {command: "id -u > $ACKS.calls; pwd >> $ACKS.calls; env | grep -c PASSWORD >> $ACKS.calls; true"}
  resume: {command: "true"}
`, "sh", "-c", "echo 1 > $STATE/a; exec sleep 600")
	if _, err := r.Backup(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	here, _ := filepath.Abs(".")
	if got, want := r.calls(), fmt.Sprintf("%d %s 0 ", os.Geteuid(), here); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
