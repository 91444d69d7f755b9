package app

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/repo/fstest"
	"drover/internal/testkit/churn"
	"drover/internal/volume"
)

// churned is one commit, and what was on the disk then.
type churned struct {
	saved
	disk map[string]string
}

// TestCommitsAreWhatIsOnTheDisk: whatever changes between two commits, in every way that
// a program can change files, an agent that looks only at what was reported commits what
// a walk over the whole tree finds: its metadata and contents, links and holes and all.
func TestCommitsAreWhatIsOnTheDisk(t *testing.T) {
	rounds := 60
	if os.Getenv("DROVER_SOAK") != "" {
		rounds = 2000
	}
	w := newWorkshop(t)
	outside := filepath.Join(t.TempDir(), "outside")
	fstest.Must(t, os.Mkdir(outside, 0o755))
	r := w.run("backup: {consistency: live, allow_shrink: true}", "sleep", "600")
	tree := churn.New(w.state, outside)
	defer tree.Close()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	mounted := new(mountedPlace)
	defer mounted.end()
	walked := 0
	var all []churned
	for range rounds {
		tree.Round(dice, 1)
		mounted.maybe(dice, outside, w.state)
		b, err := r.Backup(t.Context(), false)
		if err != nil || b.Error != "" {
			t.Fatalf("%+v, %v\n%s", b, err, r.log)
		}
		if b.Walked {
			walked++
		}
		all = append(all, churned{saved{Backup: b}, onDisk(t, w.state)})
	}
	t.Logf("%d commits, %d of them by a full walk", rounds, walked)
	if walked > rounds/2 {
		t.Errorf("%d of %d commits looked at every file: the test shows little", walked, rounds)
	}
	r.end()
	compareAll(t, w, all)
}

// compareAll restores each commit and compares it with what was on the disk.
func compareAll(t *testing.T, w *workshop, all []churned) {
	t.Helper()
	o := w.ops()
	v, err := o.open(t.Context())
	fstest.Must(t, err)
	target := filepath.Join(t.TempDir(), "restored")
	for i, c := range all {
		_, err := o.restore(t.Context(), v, RestoreOptions{Snapshot: c.Snapshot, Target: target})
		fstest.Must(t, err)
		fstest.Compare(t, onDisk(t, filepath.Join(target, w.state)), c.disk)
		if t.Failed() {
			t.Fatalf("commit %d, seq %d", i, c.Seq)
		}
		fstest.Must(t, os.RemoveAll(target))
	}
}

// onDisk describes a tree without what Drover notes in it. Of a file's names those count
// that are in the tree.
func onDisk(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := fstest.Describe(t, dir)
	delete(all, volume.MarkerFile)
	all["."] = marker.ReplaceAllString(all["."], "")
	names := map[string]int{}
	for _, text := range all {
		names[links.FindString(text)]++
	}
	for path, text := range all {
		here := links.FindString(text)
		switch n := names[here]; {
		case here == "":
		case n == 1:
			all[path] = links.ReplaceAllString(text, "links 1")
		default:
			_, first, _ := strings.Cut(here, "=")
			all[path] = links.ReplaceAllString(text, fmt.Sprint("links ", n, " =", first))
		}
	}
	return all
}

var (
	marker = regexp.MustCompile(" " + regexp.QuoteMeta(volume.MarkerAttr) + "=[0-9a-f]*")
	links  = regexp.MustCompile(`links [0-9]+ = [^ ]+`)
)

// mountedPlace is a directory of the tree at which another one is mounted now and then.
type mountedPlace struct{ at string }

// maybe mounts or unmounts, and writes where it is mounted from. Only root can.
func (m *mountedPlace) maybe(dice *rand.Rand, outside, root string) {
	from := outside + "/mounted"
	switch dice.IntN(8) {
	case 0:
		m.end()
	case 1:
		at := root + "/place"
		if m.at == "" && os.MkdirAll(at, 0o755) == nil && os.MkdirAll(from, 0o755) == nil && unix.Mount(from, at, "", unix.MS_BIND, "") == nil {
			m.at = at
		}
	default:
		_ = os.WriteFile(from+"/f"+string('0'+rune(dice.IntN(4))), []byte{byte(dice.IntN(256))}, 0o644)
	}
}

func (m *mountedPlace) end() {
	if m.at != "" && unix.Unmount(m.at, unix.MNT_DETACH) == nil {
		m.at = ""
	}
}
