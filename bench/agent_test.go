//go:build bench

package bench

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/client"
)

// status asks the agent with the socket of id; nothing is known if it does not answer.
func (b *bed) status(id string) (s client.Status) {
	cmd := exec.Command(b.drover, "status", "--json")
	cmd.Env = b.env(id)
	if out, err := cmd.Output(); err != nil || json.Unmarshal(out, &s) != nil {
		return client.Status{}
	}
	return s
}

// TestTakeover: from the end of the holder to the application serving on the
// standby. Lost is SIGKILL of all of it, which only a TTL tells; ended is SIGKILL of
// the application alone, after which the agent commits and releases. The size of
// the volume must not show.
func TestTakeover(t *testing.T) {
	b := newBed(t, 0)
	for _, c := range []struct {
		how    string
		ttl    time.Duration
		files  int
		rounds int
	}{
		{"lost", 2 * time.Second, 1, *rounds}, {"lost", 10 * time.Second, 1, 3}, {"lost", 2 * time.Second, 10_000, 3},
		{"ended", 10 * time.Second, 1, *rounds}, {"ended", 10 * time.Second, 10_000, 3},
	} {
		var took figures
		for i := range c.rounds {
			took = append(took, b.takeover(c.how == "lost", c.ttl, c.files, fmt.Sprintf("%s-%v-%d-%d", c.how, c.ttl, c.files, i)))
		}
		t.Logf("RESULT takeover, holder %s, TTL %v, %d files of 100 kB: %v; beyond the TTL: %v", c.how, c.ttl, c.files, took, round(took.median()-c.ttl))
	}
}

func (b *bed) takeover(lost bool, ttl time.Duration, files int, prefix string) time.Duration {
	b.t.Helper()
	serving, state := filepath.Join(b.dir, "serving"), filepath.Join(b.dir, prefix, "state")
	_ = os.Remove(serving)
	disk := func(id string) string { return filepath.Join(b.dir, prefix, id) }
	for _, dir := range []string{state, disk("a"), disk("b")} {
		b.must(os.MkdirAll(dir, 0o755))
	}
	defer remove(b.t, filepath.Join(b.dir, prefix))
	agent := func(id string) func() {
		args := []string{"--store", b.storeURL(prefix), "--ttl", ttl.String(),
			"--", "sh", "-c", "echo " + id + " $$ > " + serving + "; exec sleep infinity"}
		_, kill := b.agent(prefix+id, disk(id), state, args...)
		return kill
	}
	serves := func() (id string, pid int) {
		_, _ = fmt.Sscan(content(serving), &id, &pid)
		return id, pid
	}
	killA := agent("a")
	defer killA()
	b.waitFor("the holder's application", time.Minute, func() bool { _, pid := serves(); return pid > 0 })
	b.fill(disk("a"), files)
	b.run(prefix+"a", b.drover, "backup")
	killB := agent("b")
	defer killB()
	b.waitFor("the standby's copy", 5*time.Minute, func() bool { s := b.status(prefix + "b"); return s.Role == "standby" && s.Copied == 1 })
	_, pid := serves()
	start := time.Now()
	if lost {
		killA()
	} else {
		b.must(syscall.Kill(pid, syscall.SIGKILL))
	}
	took := b.waitFor("the takeover", ttl+time.Minute, func() bool { id, _ := serves(); return id == "b" }).Sub(start)
	if entries, err := os.ReadDir(disk("b")); err != nil || len(entries) != files {
		b.t.Fatalf("the standby has %d files, want %d: %v", len(entries), files, err)
	}
	return took
}

// fill writes files of 100 kB.
func (b *bed) fill(dir string, files int) {
	b.t.Helper()
	r := rand.NewChaCha8([32]byte{1})
	data := make([]byte, 100_000)
	for i := range files {
		_, _ = r.Read(data)
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), data, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
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
	cmd, _ := b.agent("rest", "", state, "--store", b.storeURL("rest"), "--on-change", "2s", "--", "sleep", "infinity")
	b.waitFor("the holder", time.Minute, func() bool { return b.status("rest").Role == "holder" })
	if err := os.MkdirAll(state, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(state, strconv.Itoa(i)), []byte(strings.Repeat("x", 10_000)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.run("rest", b.drover, "backup")
	const rest = time.Minute
	pids := tree(cmd.Process.Pid)
	before := cpu(pids)
	time.Sleep(rest)
	used := cpu(pids) - before
	rss := rssKiB(pids)
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

// rssKiB is the memory that processes have, in all; peakKiB the most that they ever had.
func rssKiB(pids []int) int  { return memory(pids, "VmRSS:") }
func peakKiB(pids []int) int { return memory(pids, "VmHWM:") }

func memory(pids []int, field string) (sum int) {
	for _, pid := range pids {
		for line := range strings.SplitSeq(content(fmt.Sprintf("/proc/%d/status", pid)), "\n") {
			if rest, ok := strings.CutPrefix(line, field); ok {
				n, _ := strconv.Atoi(strings.Fields(rest)[0])
				sum += n
			}
		}
	}
	return sum
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
