package changes

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
func uncovered(before, after map[string]entry, linked map[uint64]bool, set Set) []string {
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
		if !now.isDir() && was && (now.nlink > 1 || then.nlink > 1 || linked[now.ino]) && then.ino == now.ino {
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

// actor does random things to a tree. Failures are part of it: others move
// things away under its feet.
type actor struct {
	rng     *rand.Rand
	root    string
	outside string
	mapped  *mappings
}

// mappings are shared by all actors, and last until the end of the test.
type mappings struct {
	mu     sync.Mutex
	all    [][]byte
	inodes map[uint64]bool // ever mapped
	linked map[uint64]bool // given another name in this round
}

func (a *actor) name(dir bool) string {
	parts := []string{a.root}
	for range a.rng.IntN(4) {
		parts = append(parts, "d"+strconv.Itoa(a.rng.IntN(3)))
	}
	if !dir {
		parts = append(parts, "f"+strconv.Itoa(a.rng.IntN(4)))
	}
	return strings.Join(parts, "/")
}

func (a *actor) act() {
	n := a.rng.IntN(1000)
	text := []byte(strconv.Itoa(n))
	file, dir := a.name(false), a.name(true)
	away := a.outside + "/" + strconv.Itoa(a.rng.IntN(4))
	switch a.rng.IntN(18) {
	case 0, 1:
		_ = os.WriteFile(file, text, 0o644)
	case 2:
		if f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0); err == nil {
			_, _ = f.Write(text)
			f.Close()
		}
	case 3:
		_ = os.Truncate(file, int64(n%50))
	case 4:
		_ = os.Rename(file, a.name(false))
	case 5:
		if dir != a.root {
			_ = os.Rename(dir, a.name(true))
		}
	case 6:
		if dir != a.root {
			_ = os.Rename(dir, away)
		}
	case 7:
		_ = os.Rename(away, dir)
	case 8, 9:
		_ = os.MkdirAll(dir, 0o755)
	case 10:
		if dir != a.root {
			_ = os.RemoveAll(dir)
		}
	case 11:
		_ = os.Chmod(file, fs.FileMode(0o600+n%8))
	case 12:
		_ = os.Chmod(dir, fs.FileMode(0o700+n%8))
	case 13:
		_ = os.Symlink(string(text), file)
	case 14:
		a.link(file, a.name(false))
	case 15:
		a.mapAndWrite(file, byte(n))
	case 16:
		_ = os.Chtimes(file, time.Unix(int64(n), 0), time.Unix(int64(n), 0))
	case 17:
		_ = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, a.name(true), unix.RENAME_EXCHANGE)
	}
}

// link gives a file another name. A file that is mapped keeps one: a write by a
// mapping whose own name is gone is not seen.
func (a *actor) link(file, other string) {
	a.mapped.mu.Lock()
	defer a.mapped.mu.Unlock()
	var st unix.Stat_t
	if unix.Lstat(file, &st) == nil && !a.mapped.inodes[st.Ino] && os.Link(file, other) == nil {
		a.mapped.linked[st.Ino] = true
		// Another actor may have replaced the file in between.
		if unix.Lstat(other, &st) == nil {
			a.mapped.linked[st.Ino] = true
		}
	}
}

// mapAndWrite writes through a new mapping, and through those made before.
func (a *actor) mapAndWrite(file string, b byte) {
	a.mapped.mu.Lock()
	defer a.mapped.mu.Unlock()
	if f, err := os.OpenFile(file, os.O_RDWR|unix.O_NOFOLLOW, 0); err == nil {
		size := os.Getpagesize()
		var st unix.Stat_t
		_ = unix.Fstat(int(f.Fd()), &st)
		if err := f.Truncate(int64(size)); err == nil && len(a.mapped.all) < 8 && st.Nlink == 1 {
			a.mapped.inodes[st.Ino] = true
			if m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
				a.mapped.all = append(a.mapped.all, m)
			}
		}
		f.Close()
	}
	if len(a.mapped.all) > 0 && b%4 == 0 {
		i := int(b/4) % len(a.mapped.all)
		_ = unix.Munmap(a.mapped.all[i])
		a.mapped.all = slices.Delete(a.mapped.all, i, i+1)
	}
	for _, m := range a.mapped.all {
		poke(m, b)
	}
}

// poke writes to a mapping whose file others may have truncated, by way of the
// kernel, which returns an error where the processor would raise SIGBUS.
func poke(m []byte, b byte) {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer r.Close()
	defer w.Close()
	_, _ = w.Write([]byte{b})
	_, _ = unix.Read(int(r.Fd()), m[:1])
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
	maps := &mappings{inodes: map[uint64]bool{}}
	defer func() {
		for _, m := range maps.all {
			_ = unix.Munmap(m)
		}
	}()
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	alls, changed := 0, 0
	before := snapshot(t, root)
	for round := range rounds {
		var group sync.WaitGroup
		maps.linked = map[uint64]bool{}
		for range 1 + rng.IntN(3) {
			a := &actor{rng: rand.New(rand.NewPCG(rng.Uint64(), 1)), root: root, outside: outside, mapped: maps}
			steps := 1 + rng.IntN(60)
			group.Go(func() {
				for range steps {
					a.act()
				}
			})
		}
		group.Wait()
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
		if missed := uncovered(before, after, maps.linked, set); len(missed) > 0 {
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
	if missed := uncovered(before, after, nil, Set{Paths: []string{dir, dir + "/a"}}); len(missed) != 1 {
		t.Errorf("missed %q", missed)
	}
	if missed := uncovered(after, before, nil, Set{Paths: []string{dir + "/a"}}); len(missed) != 2 {
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
