//go:build bench

package bench

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// TestWatch: an agent that watches many files: a first backup of them, one after a
// change, and what it needs while nothing happens.
func TestWatch(t *testing.T) {
	b := newBed(t, 0)
	state := filepath.Join(b.dir, "state")
	makeSmallFiles(t, state, *watched)
	cmd, _ := b.agent("watch", "", state, "--store", b.storeURL("watch"), "--first-start", "adopt", "--", "sleep", "infinity")
	b.waitFor("the holder", time.Minute, func() bool { return b.status("watch").Role == "holder" })
	pids := tree(cmd.Process.Pid)
	most := func() string { return fmt.Sprintf("%.0f MB", float64(peakKiB(pids))/1024) }
	t.Logf("RESULT %d files, first backup: %v; RSS at most %s", *watched, round(b.run("watch", b.drover, "backup").wall), most())
	var later figures
	for i := range *rounds {
		touch(t, state, *watched, i)
		flush(t)
		later = append(later, b.run("watch", b.drover, "backup").wall)
	}
	t.Logf("RESULT %d files watched, one changed: %v", *watched, later)
	const rest = time.Minute
	before := cpu(pids)
	time.Sleep(rest)
	t.Logf("RESULT %d files watched, at rest: RSS %.0f MB (goal < 300), CPU %.2f %% of a core (goal < 1), most ever %s",
		*watched, float64(rssKiB(pids))/1024, 100*(cpu(pids)-before).Seconds()/rest.Seconds(), most())
}

// TestPause: how long the application is held still while 100 changed files of
// 64 KiB are captured.
func TestPause(t *testing.T) {
	b := newBed(t, 0)
	state := filepath.Join(b.dir, "state")
	const n, size, backups = 100, 64 << 10, 200
	b.agent("pause", "", state, "--store", b.storeURL("pause"), "--", "sleep", "infinity")
	b.waitFor("the holder", time.Minute, func() bool { return b.status("pause").Role == "holder" })
	var pauses figures
	for i := range backups {
		for f := range n {
			large(t, filepath.Join(state, fmt.Sprint(f)), size, i*n+f, false)
		}
		b.run("pause", b.drover, "backup")
		last := b.status("pause").LastBackup
		if !last.Consistent || last.Files != n {
			t.Fatalf("%+v", last)
		}
		pauses = append(pauses, time.Duration(last.Pause*float64(time.Second)))
	}
	t.Logf("RESULT pause for %d changed files of 64 KiB: %v; p99 %v (goal < 20 ms)", n, pauses, pauses.quantile(0.99))
}
