package archive

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/repo"
	"drover/internal/repo/format"
)

// churn changes a directory at random and says what it changed, as a watcher would.
type churn struct {
	t    *testing.T
	r    *rand.Rand
	dir  string
	set  ChangedSet
	next int
}

func (c *churn) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *churn) named(path string) string {
	c.set.Paths = append(c.set.Paths, path)
	return path
}

// pick returns a random file or directory below dir, "" if there is none.
func (c *churn) pick(dirs bool) string {
	var all []string
	c.must(filepath.WalkDir(c.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && path != c.dir && d.IsDir() == dirs && (dirs || d.Type().IsRegular()) {
			all = append(all, path)
		}
		return err
	}))
	if dirs {
		all = append(all, c.dir)
	}
	if len(all) == 0 {
		return ""
	}
	return all[c.r.IntN(len(all))]
}

func (c *churn) fresh() string {
	c.next++
	return filepath.Join(c.pick(true), fmt.Sprintf("n%d", c.next))
}

func (c *churn) step() {
	file, dir := c.pick(false), c.pick(true)
	switch op := c.r.IntN(10); {
	case op < 2 || file == "":
		c.must(os.WriteFile(c.named(c.fresh()), []byte(fmt.Sprint(c.next)), 0o644))
	case op == 2:
		path := c.fresh()
		write(c.t, filepath.Join(c.named(path), "sub", "file"), fmt.Sprint(c.next))
	case op == 3:
		c.must(os.WriteFile(c.named(file), []byte(fmt.Sprint("again", c.next)), 0o644))
	case op == 4:
		c.must(os.Remove(c.named(file)))
	case op == 5 && dir != c.dir:
		c.must(os.RemoveAll(c.named(dir)))
	case op == 6:
		to := c.fresh()
		c.must(os.Rename(c.named(file), c.named(to)))
	case op == 7:
		c.must(os.Link(file, c.named(c.fresh()))) // the other name is not reported
	case op == 8:
		c.must(os.Chmod(c.named(dir), 0o700+os.FileMode(c.r.IntN(8))))
	case op == 9:
		from := dir
		to := filepath.Join(c.dir, fmt.Sprintf("moved%d", c.next))
		if from != c.dir {
			c.next++
			c.must(os.Rename(c.named(from), c.named(to)))
		}
	}
}

// TestHintedBackupsMakeTheSameTree: whatever changed, looking only at what was
// named gives the tree that a full walk gives.
func TestHintedBackupsMakeTheSameTree(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := &churn{t: t, r: rand.New(rand.NewPCG(seed, 9)), dir: filepath.Join(t.TempDir(), "vol")}
			write(t, c.dir+"/first", "1")
			r := newRepo(t)
			cache, err := OpenDirCache(filepath.Join(t.TempDir(), "cache"), 64<<20)
			if err != nil {
				t.Fatal(err)
			}
			opt := Options{Paths: []string{c.dir}, Cache: cache}
			last := backUp(t, r, opt)
			total := Totals{int64(last.Files), int64(last.Bytes)}
			hinted := 0
			for round := range 25 {
				c.set = ChangedSet{}
				for range 1 + c.r.IntN(5) {
					c.step()
				}
				opt.ParentTree, opt.ParentTime, opt.Changed = last.Tree, settled(), &c.set
				if c.r.IntN(4) == 0 {
					c.set.Trees = append(c.set.Trees, c.pick(true))
				}
				before := last
				last = backUp(t, r, opt)
				if !last.FullWalk {
					hinted++
				}
				whole := backUp(t, r, Options{Paths: []string{c.dir}})
				more, err := Delta(t.Context(), r, cache, before.Tree, last.Tree)
				all, allErr := Delta(t.Context(), r, cache, format.ID{}, last.Tree)
				if err != nil || allErr != nil {
					t.Fatal(err, allErr)
				}
				if all != (Totals{int64(whole.Files), int64(whole.Bytes)}) || sum(total, more) != all {
					t.Fatalf("round %d: %+v and %+v more are not %+v; a full walk found %d files, %d bytes", round, total, more, all, whole.Files, whole.Bytes)
				}
				total = all
				if diff := difference(t, r, c.dir, whole.Tree, last.Tree); diff != "" {
					t.Fatalf("round %d, full walk %v: the trees differ after changes of %+v%s", round, last.FullWalk, c.set, diff)
				}
			}
			if hinted < 10 {
				t.Errorf("only %d of 25 backups used the hints", hinted)
			}
		})
	}
}

func sum(a, b Totals) Totals { return Totals{a.Files + b.Files, a.Bytes + b.Bytes} }

// difference shows the nodes in dir that only one of the trees has. It passes over the
// change time of files: a link that was made and removed again between two
// backups leaves nothing else behind under the file's other name, and is not
// reported there.
func difference(t *testing.T, r *repo.Repository, dir string, a, b format.ID) string {
	nodes := [2]map[string]string{{}, {}}
	for i, id := range []format.ID{a, b} {
		var visit func(id format.ID, path string)
		visit = func(id format.ID, path string) {
			data, err := r.LoadBlob(t.Context(), format.Handle{Type: format.TreeBlob, ID: id}, nil)
			if err != nil {
				t.Fatal(err)
			}
			all, err := format.DecodeTree(data)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range all {
				if n.Subtree != nil {
					visit(*n.Subtree, path+"/"+n.Name)
					n.Subtree = nil
				} else {
					n.ChangeTime = time.Time{}
				}
				if within(dir, path) {
					nodes[i][path+"/"+n.Name] = string(n.AppendJSON(nil))
				}
			}
		}
		visit(id, "")
	}
	out := ""
	for i, name := range []string{"whole", "hinted"} {
		for path, n := range nodes[i] {
			if nodes[1-i][path] != n {
				out += fmt.Sprintf("\nonly in the %s tree: %s %s", name, path, n)
			}
		}
	}
	return out
}

func TestHintedBackupLooksOnlyAtWhatIsNamed(t *testing.T) {
	dir := t.TempDir()
	for i := range 30 {
		write(t, fmt.Sprintf("%s/%d/f", dir, i), "x")
		write(t, fmt.Sprintf("%s/%d/g", dir, i), "x")
	}
	r := newRepo(t)
	cache, err := OpenDirCache(t.TempDir(), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	first := backUp(t, r, Options{Paths: []string{dir}, Cache: cache})
	write(t, dir+"/3/f", "named")
	write(t, dir+"/4/f", "not named")
	looked := 0
	opt := Options{Paths: []string{dir}, Cache: cache, ParentTree: first.Tree, ParentTime: settled(),
		Changed: &ChangedSet{Paths: []string{dir + "/3/f"}}, Progress: func(string, uint64) { looked++ }, Concurrency: 1}
	second := backUp(t, r, opt)
	if looked != 3 { // the file and the two directories above it
		t.Errorf("looked at %d entries", looked)
	}
	got := listing(t, r, second.Tree)
	if got[dir+"/3/f"] != "named" || got[dir+"/4/f"] != "x" || got[dir+"/5/g"] != "x" {
		t.Errorf("tree holds %q, %q, %q", got[dir+"/3/f"], got[dir+"/4/f"], got[dir+"/5/g"])
	}
}

// What is changed by one name of a file is so by the others, be it a FIFO or a link.
func TestOtherNamesOfWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"/a", "/b"} {
		if err := os.Mkdir(dir+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		unix.Mkfifo(dir+"/a/fifo", 0o600), os.Link(dir+"/a/fifo", dir+"/b/fifo"),
		os.Symlink("x", dir+"/a/link"), unix.Linkat(unix.AT_FDCWD, dir+"/a/link", unix.AT_FDCWD, dir+"/b/link", 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r := newRepo(t)
	cache, err := OpenDirCache(t.TempDir(), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	first := backUp(t, r, Options{Paths: []string{dir}, Cache: cache})
	stamp := []unix.Timespec{{Sec: 1}, {Sec: 1}}
	if err := errors.Join(os.Chmod(dir+"/a/fifo", 0o640), unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/a/link", stamp, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		t.Fatal(err)
	}
	changed := &ChangedSet{Paths: []string{dir + "/a/fifo", dir + "/a/link"}}
	second := backUp(t, r, Options{Paths: []string{dir}, Cache: cache, ParentTree: first.Tree, ParentTime: settled(), Changed: changed})
	whole := backUp(t, r, Options{Paths: []string{dir}})
	if diff := difference(t, r, dir, whole.Tree, second.Tree); diff != "" || second.FullWalk {
		t.Errorf("full walk %v%s", second.FullWalk, diff)
	}
}

func TestNamedFilesAreReadWhateverTheyLookLike(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "x")
	r := newRepo(t)
	first := backUp(t, r, Options{Paths: []string{dir}})
	for _, set := range []*ChangedSet{{Paths: []string{dir + "/f"}}, {Paths: []string{dir + "/f"}, All: true}} {
		res := backUp(t, r, Options{Paths: []string{dir}, ParentTree: first.Tree, ParentTime: settled(), Changed: set})
		if res.BytesRead != 1 || difference(t, r, dir, first.Tree, res.Tree) != "" {
			t.Errorf("all %v: %d bytes read", set.All, res.BytesRead)
		}
	}
}

func TestParentThatIsGone(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "x")
	r := newRepo(t)
	res := backUp(t, r, Options{Paths: []string{dir}, ParentTree: format.NewRandomID(), Changed: &ChangedSet{Paths: []string{dir + "/g"}}})
	if !res.FullWalk || res.FullWalkCause == "" {
		t.Errorf("result %+v", res)
	}
	if got := listing(t, r, res.Tree)[dir+"/f"]; got != "x" {
		t.Errorf("content is %q", got)
	}
}

func benchTree(b *testing.B) (dir string, r *repo.Repository, cache *DirCache) {
	b.Helper()
	dir = b.TempDir()
	for i := range 1000 {
		for j := range 100 {
			write(b, fmt.Sprintf("%s/%d/%d/%d", dir, i/32, i, j), fmt.Sprint(i, j, "some content of a small file"))
		}
	}
	cache, err := OpenDirCache(b.TempDir(), 256<<20)
	if err != nil {
		b.Fatal(err)
	}
	return dir, newRepo(b), cache
}

// BenchmarkArchive100k measures 100,000 files in 1,000 directories: all new,
// none changed, one changed and named.
func BenchmarkArchive100k(b *testing.B) {
	dir, r, cache := benchTree(b)
	opt := Options{Paths: []string{dir}, Cache: cache}
	start := time.Now()
	first := backUp(b, r, opt)
	cold := time.Since(start)
	opt.ParentTree, opt.ParentTime = first.Tree, settled()
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			backUp(b, r, opt)
		}
		b.ReportMetric(float64(cold.Milliseconds()), "cold-ms")
	})
	b.Run("hinted", func(b *testing.B) {
		opt := opt
		path := dir + "/3/100/7"
		opt.Changed = &ChangedSet{Paths: []string{path}}
		i := 0
		for b.Loop() {
			i++
			write(b, path, fmt.Sprint("change", i))
			res := backUp(b, r, opt)
			if res.FullWalk {
				b.Fatal(res.FullWalkCause)
			}
			opt.ParentTree = res.Tree
		}
	})
}
