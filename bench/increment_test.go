//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drover/client"
)

const (
	filesPerDir = 100
	perCall     = 20 * time.Millisecond
)

// TestIncrement: one file of many changes; how long until that is durable, with
// 20 ms added to each call of the store.
func TestIncrement(t *testing.T) {
	b := newBed(t, perCall)
	state := filepath.Join(b.dir, "state")
	makeSmallFiles(t, state, *files)
	b.increments(state, fmt.Sprintf("one changed file of %d, 20 ms a call", *files),
		fmt.Sprintf("three round trips + 50 ms = %v; 50×", 3*perCall+50*time.Millisecond),
		func(i int) { touch(t, state, *files, i) })
}

// increments measures a first backup of state and then one after each change. One
// tool at a time: Drover's agent, which watches, is gone when the others begin.
func (b *bed) increments(state, what, goal string, change func(i int)) {
	b.t.Helper()
	var first, later compared
	n := 0
	for _, tl := range choose(b.agentTool(state), b.resticTool(), b.kopiaTool()) {
		f, l := measured{name: tl.name}, measured{name: tl.name}
		var bare figures
		tl.prepare("increment")
		flush(b.t)
		f.add(tl.backup("increment", state))
		for range *rounds {
			change(n)
			n++
			flush(b.t)
			l.add(tl.backup("increment", state))
			if tl.direct == nil {
				continue
			}
			change(n)
			n++
			flush(b.t)
			bare = append(bare, tl.direct())
		}
		if bare != nil {
			b.t.Logf("RESULT %s, without the start of a command: %s %v", what, tl.name, bare)
		}
		tl.arrive("increment")
		first, later = append(first, f), append(later, l)
	}
	first.report(b.t, "first backup before: "+what, "none")
	later.report(b.t, what, goal)
}

// agentTool is Drover as it is meant to run: an agent that watches. It is started
// by prepare and ended by arrive.
func (b *bed) agentTool(state string) tool {
	var end func()
	var agent int
	return tool{
		name: "drover",
		prepare: func(prefix string) {
			cmd, kill := b.agent("holder", "", state, "--store", b.storeURL("drover-"+prefix), "--first-start", "adopt", "--", "sleep", "infinity")
			agent, end = cmd.Process.Pid, kill
			b.waitFor("the holder", time.Minute, func() bool { return b.status("holder").Role == "holder" })
		},
		backup: func(string, string) took {
			pids := tree(agent)
			before := cpu(pids)
			t := b.run("holder", b.drover, "backup")
			used := t.cpu + cpu(pids) - before
			last := b.status("holder").LastBackup
			b.t.Logf("  drover: %v; files %d, added %d bytes, the application stood %v",
				round(t.wall), last.Files, last.Added, round(time.Duration(last.Pause*float64(time.Second))))
			return took{t.wall, used}
		},
		direct: func() time.Duration {
			c := client.New(b.socket("holder"))
			defer c.Close()
			start := time.Now()
			_, err := c.Backup(b.t.Context(), false)
			b.must(err)
			return time.Since(start)
		},
		arrive: func(string) { end() },
	}
}

func makeSmallFiles(t *testing.T, dir string, files int) {
	t.Helper()
	for d := range files / filesPerDir {
		sub := filepath.Join(dir, fmt.Sprintf("%02d/%04d", d%32, d))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for f := range filesPerDir {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file%d", f)), fmt.Appendf(nil, "%d %d\n", d, f), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func touch(t *testing.T, dir string, files, i int) {
	t.Helper()
	d := (i*7919 + 13) % (files / filesPerDir)
	path := filepath.Join(dir, fmt.Sprintf("%02d/%04d", d%32, d), "file7")
	if err := os.WriteFile(path, fmt.Appendf(nil, "changed %d at %v\n", i, time.Now()), 0o644); err != nil {
		t.Fatal(err)
	}
}
