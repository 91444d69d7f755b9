//go:build bench

package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"drover/client"
)

// role asks the agent with the socket of id.
func (b *bed) role(id string) string {
	cmd := exec.Command(b.drover, "status", "--json")
	cmd.Env = b.env(id)
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	var s client.Status
	if json.Unmarshal(out, &s) != nil {
		return ""
	}
	return s.Role
}

// TestTakeover: from SIGKILL of the holder (all of it) to the application serving
// on the standby, beside the TTL.
func TestTakeover(t *testing.T) {
	for _, ttl := range []time.Duration{2 * time.Second, 10 * time.Second} {
		b := newBed(t, 0)
		var took figures
		for i := range rounds {
			took = append(took, b.takeover(ttl, fmt.Sprintf("takeover-%v-%d", ttl, i)))
		}
		t.Logf("RESULT takeover after SIGKILL, TTL %v: %v; beyond the TTL: %v", ttl, took, round(took.median()-ttl))
	}
}

func (b *bed) takeover(ttl time.Duration, prefix string) time.Duration {
	b.t.Helper()
	serving := filepath.Join(b.dir, "serving")
	_ = os.Remove(serving)
	agent := func(id string) func() {
		args := []string{"--store", b.storeURL(prefix), "--state", filepath.Join(b.dir, prefix, "state"), "--ttl", ttl.String(),
			"--", "sh", "-c", "echo " + id + " > " + serving + "; exec sleep infinity"}
		_, kill := b.agent(prefix+id, args...)
		return kill
	}
	killA := agent("a")
	b.waitFor("the holder's application", time.Minute, func() bool { return content(serving) == "a" })
	killB := agent("b")
	defer killB()
	b.waitFor("the standby", time.Minute, func() bool { return b.role(prefix+"b") == "standby" })
	start := time.Now()
	killA()
	return b.waitFor("the takeover", ttl+time.Minute, func() bool { return content(serving) == "b" }).Sub(start)
}

func content(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// TestAtRest: memory and CPU of shim and worker while nothing happens, and the binary's size.
func TestAtRest(t *testing.T) {
	b := newBed(t, 0)
	state := filepath.Join(b.dir, "state")
	cmd, _ := b.agent("rest", "--store", b.storeURL("rest"), "--state", state, "--on-change", "2s", "--", "sleep", "infinity")
	b.waitFor("the holder", time.Minute, func() bool { return b.role("rest") == "holder" })
	if err := os.MkdirAll(state, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(state, strconv.Itoa(i)), []byte(strings.Repeat("x", 10_000)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.timed("rest", b.drover, "backup")
	const rest = time.Minute
	pids := tree(cmd.Process.Pid)
	before := cpu(pids)
	time.Sleep(rest)
	used := cpu(pids) - before
	rss := 0
	for _, pid := range pids {
		rss += rssKiB(pid)
	}
	info, err := os.Stat(b.drover)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("RESULT at rest, %v after a backup of 1,000 files: RSS %.1f MB in %d processes (goal < 30), CPU %.2f %% of a core (goal < 0.5); binary %.1f MB (goal < 30)",
		rest, float64(rss)/1024, len(pids), 100*used.Seconds()/rest.Seconds(), float64(info.Size())/(1<<20))
}

// tree lists pid and those of its descendants that are drover themselves.
func tree(pid int) []int {
	all := []int{pid}
	out, _ := exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	for _, f := range strings.Fields(string(out)) {
		child, _ := strconv.Atoi(f)
		if comm := content(fmt.Sprintf("/proc/%d/comm", child)); comm == "drover" {
			all = append(all, tree(child)...)
		}
	}
	return all
}

func rssKiB(pid int) int {
	for line := range strings.SplitSeq(content(fmt.Sprintf("/proc/%d/status", pid)), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// cpu is user and system time; a tick is 10 ms.
func cpu(pids []int) time.Duration {
	var sum int
	for _, pid := range pids {
		stat := content(fmt.Sprintf("/proc/%d/stat", pid))
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		utime, _ := strconv.Atoi(fields[11])
		stime, _ := strconv.Atoi(fields[12])
		sum += utime + stime
	}
	return time.Duration(sum) * 10 * time.Millisecond
}
