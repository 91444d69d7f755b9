package restore

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
)

// craft stores a tree of these bytes below the path /vol and returns a snapshot.
func craft(t testing.TB, r *repo.Repository, tree []byte) *format.Snapshot {
	t.Helper()
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	_, err := w.Save(t.Context(), format.DataBlob, []byte("evil"))
	fstest.Must(t, err)
	id, err := w.Save(t.Context(), format.TreeBlob, tree)
	fstest.Must(t, err)
	b := format.NewTreeBuilder(nil)
	fstest.Must(t, b.Add(&format.Node{Name: "vol", Type: format.NodeDir, Mode: os.ModeDir | 0o755, ModTime: fstest.Old, AccessTime: fstest.Old, Subtree: &id}))
	top, err := w.Save(t.Context(), format.TreeBlob, b.Finish())
	fstest.Must(t, err)
	_, _, err = w.Finish(t.Context(), nil)
	fstest.Must(t, err)
	return &format.Snapshot{Tree: &top, Paths: []string{"/vol"}}
}

func evilNode(name string) string {
	return fmt.Sprintf(`{"name":%q,"type":"file","mode":420,"mtime":"2020-01-01T00:00:00Z","atime":"2020-01-01T00:00:00Z","ctime":"2020-01-01T00:00:00Z",`+
		`"uid":0,"gid":0,"size":4,"links":1,"content":["%s"]}`, name, format.Hash([]byte("evil")))
}

func TestHostileNamesAreRefused(t *testing.T) {
	r := sharedRepo(t)
	for _, nodes := range []string{
		evilNode("../escaped"), evilNode(".."), evilNode("."), evilNode(""), evilNode("/etc/escaped"), evilNode("a/b"),
		evilNode(`a\x2f..\x2f..\x2fescaped`), evilNode(`..\x00`), evilNode("a") + "," + evilNode("a"), evilNode("b") + "," + evilNode("a"),
		strings.Replace(evilNode("a"), `"type":"file"`, `"type":"dir"`, 1), strings.Replace(evilNode("a"), `"size":4`, `"size":5`, 1),
		strings.Replace(evilNode("a"), `"type":"file"`, `"type":"unheard-of"`, 1),
	} {
		base := t.TempDir()
		sn := craft(t, r, []byte(`{"nodes":[`+nodes+`]}`))
		if _, err := Run(t.Context(), r, sn, Options{Target: base + "/target"}); err == nil {
			t.Errorf("restored %s", nodes)
		}
		for path := range fstest.Describe(t, base) {
			if strings.Contains(path, "escaped") {
				t.Errorf("%s made %s", nodes, path)
			}
		}
	}
}

// TestSymlinksInTheWay: whatever lies where the snapshot's directories go, nothing
// is written through it.
func TestSymlinksInTheWay(t *testing.T) {
	src := filepath.Join(t.TempDir(), "vol")
	fstest.Write(t, src+"/d/e/f", "content")
	fstest.Write(t, src+"/g", "content")
	r := sharedRepo(t)
	sn := backUp(t, r, src)
	for _, exact := range []bool{false, true} {
		for _, at := range []string{"", "/d", "/d/e", "/d/e/f", "/g"} {
			outside, target := t.TempDir(), t.TempDir()
			fstest.Write(t, outside+"/e/f", "outside")
			fstest.Write(t, outside+"/f", "outside")
			before := fstest.Describe(t, outside)
			fstest.Must(t, os.MkdirAll(filepath.Dir(target+src+at), 0o755))
			victim := outside
			if at == "/d/e/f" || at == "/g" {
				victim += "/f"
			}
			fstest.Must(t, os.Symlink(victim, target+src+at))
			_, err := Run(t.Context(), r, sn, Options{Target: target, Delete: exact})
			isFile := victim != outside
			if !exact && !isFile && err == nil {
				t.Errorf("%q: restored through a symbolic link", at)
			}
			if (exact || isFile) && err != nil {
				t.Errorf("%q: %v", at, err)
			}
			fstest.Compare(t, fstest.Describe(t, outside), before)
		}
	}
}

// TestHardLinksToTheOutside: a file that has another name elsewhere is not
// written to, nor is its metadata changed.
func TestHardLinksToTheOutside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	fstest.Write(t, dir+"/same", "same")
	fstest.Write(t, dir+"/other", string(fstest.Noise(3<<20)))
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	outside := filepath.Join(filepath.Dir(dir), "outside")
	fstest.Must(t, os.Mkdir(outside, 0o755), os.Link(dir+"/same", outside+"/same"), os.Link(dir+"/other", outside+"/other"), os.Chmod(dir+"/same", 0o600))
	f, err := os.OpenFile(dir+"/other", os.O_WRONLY, 0)
	fstest.Must(t, err)
	_, err = f.WriteAt([]byte("changed"), 100)
	fstest.Must(t, err, f.Close())
	before := fstest.Describe(t, outside)
	_, err = Run(t.Context(), r, sn, Options{Delete: true, Verify: true})
	fstest.Must(t, err)
	after := fstest.Describe(t, outside)
	for path, text := range before { // the files lost a name, nothing else
		if want := strings.Replace(text, "links 2 = "+path, "links 1", 1); after[path] != want {
			t.Errorf("outside %s is %s, want %s", path, after[path], want)
		}
	}
}

// randomTree stores a random tree, some of it nonsense, and returns its id.
func randomTree(t testing.TB, w *repo.Writer, r *rand.Rand, depth int) format.ID {
	t.Helper()
	names := []string{"a", "b", "c", "d", "..", "a/b", "x\xff", "/tmp"}
	nodes := make(map[string]format.Node)
	for range r.IntN(6) {
		n := format.Node{Name: names[min(r.IntN(40)/6, 7)], ModTime: fstest.Old, AccessTime: fstest.Old, Mode: os.FileMode(r.IntN(0o1000)), Links: uint64(r.IntN(3)), Inode: uint64(r.IntN(3))}
		switch kind := r.IntN(6); {
		case kind < 2 && depth > 0:
			id := randomTree(t, w, r, depth-1)
			n.Type, n.Mode, n.Subtree = format.NodeDir, n.Mode|os.ModeDir|0o700, &id
		case kind == 2:
			n.Type, n.LinkTarget = format.NodeSymlink, []string{"/", "..", "../../outside", "a", "/proc/self/cwd"}[r.IntN(5)]
		case kind == 3:
			n.Type = format.NodeFifo
		default:
			data := []byte(strings.Repeat("x", r.IntN(3)))
			id, err := w.Save(t.Context(), format.DataBlob, data)
			fstest.Must(t, err)
			n.Type, n.Content, n.Size = format.NodeFile, []format.ID{id}, uint64(len(data))
		}
		nodes[n.Name] = n
	}
	b := format.NewTreeBuilder(nil)
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		n := nodes[name]
		fstest.Must(t, b.Add(&n))
	}
	id, err := w.Save(t.Context(), format.TreeBlob, b.Finish())
	fstest.Must(t, err)
	return id
}

// plant puts random things, links to the outside among them, where a restore goes.
func plant(t testing.TB, dir, outside string, r *rand.Rand) {
	t.Helper()
	dirs := []string{dir}
	for range r.IntN(8) {
		in := dirs[r.IntN(len(dirs))]
		path := filepath.Join(in, string("abcd"[r.IntN(4)]))
		var err error
		switch r.IntN(5) {
		case 0, 1:
			if err = os.Mkdir(path, 0o700); err == nil {
				dirs = append(dirs, path)
			}
		case 2:
			err = os.Symlink([]string{outside, outside + "/file", "..", "/"}[r.IntN(4)], path)
		case 3:
			err = os.Link(outside+"/file", path)
		case 4:
			var f *os.File
			if f, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
				_, err = f.WriteString("xx"[:r.IntN(3)])
				fstest.Must(t, f.Close())
			}
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
}

// FuzzRestoreStaysInside: random trees over random directories with links to the
// outside never touch it; and what an exact restore says that it did, it did.
func FuzzRestoreStaysInside(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed, seed%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, exact bool) {
		r := rand.New(rand.NewPCG(seed, 1))
		repository := sharedRepo(t)
		w := repository.NewWriter(t.Context(), repo.WriterOptions{})
		id := randomTree(t, w, r, 3)
		_, _, err := w.Finish(t.Context(), nil)
		fstest.Must(t, err)
		sn := craftAt(t, repository, id)
		base := t.TempDir()
		outside, target := base+"/outside", base+"/target"
		fstest.Write(t, outside+"/file", "x")
		fstest.Write(t, outside+"/a/b", "x")
		fstest.Must(t, os.MkdirAll(target+"/vol", 0o755))
		plant(t, target+"/vol", outside, r)
		before := fstest.Describe(t, outside)
		_, err = Run(t.Context(), repository, sn, Options{Target: target, Delete: exact})
		after := fstest.Describe(t, outside)
		for _, m := range []map[string]string{before, after} { // a planted link may have gone
			m["file"], _, _ = strings.Cut(m["file"], " links")
		}
		fstest.Compare(t, after, before)
		if err != nil || !exact {
			return
		}
		diffs, err := Diff(t.Context(), repository, sn, Options{Target: target})
		if err != nil || len(diffs) > 0 {
			t.Errorf("after an exact restore: %v, %v", diffs, err)
		}
	})
}

func craftAt(t testing.TB, r *repo.Repository, tree format.ID) *format.Snapshot {
	t.Helper()
	data, err := r.LoadBlob(t.Context(), format.Handle{Type: format.TreeBlob, ID: tree}, nil)
	fstest.Must(t, err)
	return craft(t, r, data)
}
