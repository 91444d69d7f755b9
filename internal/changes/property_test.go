package changes

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/testkit/churn"
)

// entry is what a backup would keep of a path.
type entry struct {
	ino, nlink uint64
	mode       uint32
	size       int64
	mtime      int64
	ctime      int64
	content    string // of a file, or a link's target
}

func (e entry) isDir() bool { return e.mode&unix.S_IFMT == unix.S_IFDIR }

func snapshot(t *testing.T, root string) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		e := entry{ino: st.Ino, nlink: uint64(st.Nlink), mode: st.Mode, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()} //nolint:unconvert // 32 bits on arm64
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			e.content = string(b)
		case unix.S_IFLNK:
			e.content, err = os.Readlink(path)
		case unix.S_IFDIR:
			e.size, e.nlink = 0, 0
		}
		all[path] = e
		return err
	}))
	return all
}

// uncovered returns the paths that differ and that a reader of the set would
// not look at.
func uncovered(before, after map[string]entry, linked func(inode uint64) bool, set Set) []string {
	if set.All {
		return nil
	}
	named := map[string]bool{}
	for _, p := range set.Paths {
		named[p] = true
	}
	var missed []string
	for path, now := range after {
		then, was := before[path]
		if was && then == now || named[path] {
			continue
		}
		// Written or linked under another name: the archiver's business.
		if !now.isDir() && was && (now.nlink > 1 || then.nlink > 1 || linked(now.ino)) && then.ino == now.ino {
			continue
		}
		missed = append(missed, fmt.Sprintf("%s: %v before, now %v", path, then, now))
	}
	for path := range before {
		if _, is := after[path]; is || named[path] {
			continue
		}
		// Whoever compares the list of entries of a named directory sees what
		// is missing there, and so all below it.
		top := path
		for _, is := after[filepath.Dir(top)]; !is; _, is = after[filepath.Dir(top)] {
			top = filepath.Dir(top)
		}
		if !named[top] && !named[filepath.Dir(top)] {
			missed = append(missed, "removed: "+path)
		}
	}
	return missed
}

// Long with DROVER_SOAK set, as the soak target has it.
func TestSoakEveryChangeIsCovered(t *testing.T) {
	rounds := 60
	if os.Getenv("DROVER_SOAK") != "" {
		rounds = 20_000
	}
	base := t.TempDir()
	root, outside := base+"/root", base+"/outside"
	must(t, os.Mkdir(root, 0o755))
	must(t, os.Mkdir(outside, 0o755))
	tr := watch(t, Options{}, root)
	tree := churn.New(root, outside)
	defer tree.Close()
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	alls, changed := 0, 0
	before := snapshot(t, root)
	for round := range rounds {
		tree.Round(rng, 1+rng.IntN(3))
		set := tr.Drain(t.Context())
		after := snapshot(t, root)
		for path, e := range after {
			if before[path] != e {
				changed++
			}
		}
		if set.All {
			alls++
			t.Logf("round %d: all: %s", round, set.Reason)
		}
		if missed := uncovered(before, after, tree.Linked, set); len(missed) > 0 {
			t.Fatalf("seed %d, round %d: not in the set: %q", seed, round, missed)
		}
		before = after
	}
	t.Logf("%d rounds, %d changed paths, %d sets said All", rounds, changed, alls)
	if alls > rounds/100+3 {
		t.Errorf("%d of %d sets say All", alls, rounds)
	}
}

// The check itself must bite.
func TestUncoveredIsNoticed(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a", "1")
	before := snapshot(t, dir)
	write(t, dir+"/a", "2")
	write(t, dir+"/b", "2")
	after := snapshot(t, dir)
	none := func(uint64) bool { return false }
	if missed := uncovered(before, after, none, Set{Paths: []string{dir, dir + "/a"}}); len(missed) != 1 {
		t.Errorf("missed %q", missed)
	}
	if missed := uncovered(after, before, none, Set{Paths: []string{dir + "/a"}}); len(missed) != 2 {
		t.Errorf("missed %q", missed)
	}
}

func BenchmarkHundredThousandFiles(b *testing.B) {
	dir := b.TempDir()
	const dirs, files = 5000, 20
	for i := range dirs {
		d := fmt.Sprintf("%s/%d/%d", dir, i/100, i)
		if err := os.MkdirAll(d, 0o755); err != nil {
			b.Fatal(err)
		}
		for k := range files {
			if err := os.WriteFile(d+"/"+strconv.Itoa(k), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	tr, err := New([]string{dir}, Options{})
	if err != nil {
		b.Fatal(err)
	}
	if tr.fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		b.Fatal(err)
	}
	defer unix.Close(tr.fd)
	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			tr.rewatch(b.Context())
		}
		b.ReportMetric(float64(len(tr.watches.byWD)), "directories")
	})
	tr.Drain(b.Context())
	b.Run("drain nothing", func(b *testing.B) {
		for b.Loop() {
			tr.Drain(b.Context())
		}
	})
	b.Run("drain 1000", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			for i := range 1000 {
				if err := os.WriteFile(fmt.Sprintf("%s/%d/%d/%d", dir, i/100, i, i%files), []byte("x"), 0); err != nil {
					b.Fatal(err)
				}
			}
			b.StartTimer()
			if set := tr.Drain(b.Context()); set.All || len(set.Paths) != 1000 {
				b.Fatalf("%v %s %d", set.All, set.Reason, len(set.Paths))
			}
		}
	})
	b.Run("events of the process table alone", func(b *testing.B) {
		for b.Loop() {
			findSilent(tr.watches.places)
		}
	})
}
