//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const (
	files       = 100_000
	filesPerDir = 100
	perCall     = 20 * time.Millisecond
	rounds      = 5
)

// TestIncrement: one file of 100,000 changes; how long until that is durable, with
// 20 ms added to each call of the store.
func TestIncrement(t *testing.T) {
	b := newBed(t, perCall)
	state := filepath.Join(b.dir, "state")
	makeSmallFiles(t, state)
	b.agent("holder", "", state, "--store", b.storeURL("increment"), "--first-start", "adopt", "--", "sleep", "infinity")
	b.waitFor("the holder", time.Minute, func() bool { return b.status("holder").Role == "holder" })
	first := b.timed("holder", b.drover, "backup")
	b.timed("restic", b.restic, "-r", b.resticRepo("restic"), "init")
	resticFirst := b.timed("restic", b.restic, "-r", b.resticRepo("restic"), "backup", "-q", state)
	t.Logf("first backup of %d files: drover %v, restic %v", files, round(first), round(resticFirst))
	var ours, theirs figures
	for i := range rounds {
		touch(t, state, i)
		ours = append(ours, b.timed("holder", b.drover, "backup"))
		touch(t, state, rounds+i)
		theirs = append(theirs, b.timed("restic", b.restic, "-r", b.resticRepo("restic"), "backup", "-q", state))
	}
	report(t, "one changed file of 100,000, 20 ms a call", ours, theirs, "restic",
		fmt.Sprintf("three round trips + 100 ms = %v", 3*perCall+100*time.Millisecond))
}

func makeSmallFiles(t *testing.T, dir string) {
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

func touch(t *testing.T, dir string, i int) {
	t.Helper()
	d := (i*7919 + 13) % (files / filesPerDir)
	path := filepath.Join(dir, fmt.Sprintf("%02d/%04d", d%32, d), "file7")
	if err := os.WriteFile(path, fmt.Appendf(nil, "changed %d at %v\n", i, time.Now()), 0o644); err != nil {
		t.Fatal(err)
	}
}
