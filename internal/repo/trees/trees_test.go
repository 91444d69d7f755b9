package trees

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// newRepo returns a repository in memory.
func newRepo(t *testing.T) *repo.Repository {
	t.Helper()
	b, err := repo.NewBundle("secret")
	fstest.Must(t, err)
	st := mem.New()
	fstest.Must(t, repo.Materialise(t.Context(), st, b))
	r, err := repo.Open(t.Context(), st, "secret", repo.Options{PackSize: 64 << 10})
	fstest.Must(t, err)
	return r
}

// save stores a directory of width directories, and so on for depth levels, with one
// file each; every path is noted. lost is the path of a directory that is not stored.
type maker struct {
	t     *testing.T
	w     *repo.Writer
	lost  string
	paths []string
}

func (m *maker) dir(at string, width, depth int) format.ID {
	m.t.Helper()
	tree := format.NewTreeBuilder(nil)
	for i := range width {
		if depth == 0 {
			break
		}
		name := fmt.Sprintf("d%03d", i)
		m.paths = append(m.paths, at+name)
		sub := m.dir(at+name+"/", width, depth-1)
		fstest.Must(m.t, tree.Add(&format.Node{Name: name, Type: format.NodeDir, Subtree: &sub}))
	}
	m.paths = append(m.paths, at+"file")
	fstest.Must(m.t, tree.Add(&format.Node{Name: "file", Type: format.NodeFile, User: at}))
	if at == m.lost {
		return format.NewRandomID()
	}
	id, err := m.w.Save(m.t.Context(), format.TreeBlob, tree.Finish())
	fstest.Must(m.t, err)
	return id
}

func save(t *testing.T, r *repo.Repository, lost string, width, depth int) (format.ID, []string) {
	t.Helper()
	m := &maker{t: t, w: r.NewWriter(t.Context(), repo.WriterOptions{}), lost: lost}
	root := m.dir("/", width, depth)
	_, _, err := m.w.Finish(t.Context(), nil)
	fstest.Must(t, err)
	return root, m.paths
}

func TestWalkVisitsAllInOrder(t *testing.T) {
	r := newRepo(t)
	for _, size := range [][2]int{{0, 0}, {3, 3}, {200, 1}, {70, 2}} {
		root, want := save(t, r, "", size[0], size[1])
		var got []string
		dirs := 0
		err := Walk(t.Context(), r, root, Visitor{
			Tree:  func(string, format.ID, []byte) (bool, error) { dirs++; return false, nil },
			Entry: func(path string, _ *format.Node) error { got = append(got, path); return nil },
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v: %d entries, want %d: %v", size, len(got), len(want), err)
		}
		if files := len(slices.DeleteFunc(slices.Clone(want), func(p string) bool { return !strings.HasSuffix(p, "file") })); dirs != files {
			t.Errorf("%v: %d trees, want %d", size, dirs, files)
		}
	}
}

func TestWalkSkips(t *testing.T) {
	r := newRepo(t)
	root, _ := save(t, r, "", 3, 2)
	var got []string
	err := Walk(t.Context(), r, root, Visitor{
		Tree:  func(path string, _ format.ID, _ []byte) (bool, error) { return path == "/d001", nil },
		Entry: func(path string, _ *format.Node) error { got = append(got, path); return nil },
	})
	fstest.Must(t, err)
	if slices.Contains(got, "/d001/file") || !slices.Contains(got, "/d001") || !slices.Contains(got, "/d002/d002/file") {
		t.Errorf("visited %q", got)
	}
}

// A directory that is lost is named, after what came before it.
func TestWalkNamesWhatIsLost(t *testing.T) {
	r := newRepo(t)
	for _, lost := range []string{"/", "/d001/", "/d001/d002/"} {
		root, _ := save(t, r, lost, 3, 2)
		last := ""
		err := Walk(t.Context(), r, root, Visitor{Entry: func(path string, _ *format.Node) error { last = path; return nil }})
		path := "/" + strings.Trim(lost, "/")
		if !errors.Is(err, repo.ErrBlobNotFound) || !strings.Contains(err.Error(), "read directory "+path+":") {
			t.Errorf("%s: %v", path, err)
		}
		if path != "/" && last != path {
			t.Errorf("%s: the last visited is %s", path, last)
		}
	}
}

func TestWalkRefusesBadNodes(t *testing.T) {
	r := newRepo(t)
	id := format.NewRandomID()
	for _, n := range []*format.Node{{Name: "x", Type: format.NodeDir}, {Name: "x", Type: format.NodeFile, Subtree: &id}} {
		w := r.NewWriter(t.Context(), repo.WriterOptions{})
		tree := format.NewTreeBuilder(nil)
		fstest.Must(t, tree.Add(n))
		root, err := w.Save(t.Context(), format.TreeBlob, tree.Finish())
		fstest.Must(t, err)
		_, _, err = w.Finish(t.Context(), nil)
		fstest.Must(t, err)
		if err := Walk(t.Context(), r, root, Visitor{}); !errors.Is(err, repo.ErrDamaged) || !strings.Contains(err.Error(), "/x") {
			t.Errorf("%+v: %v", n, err)
		}
	}
}

func TestWalkEndsWithItsContext(t *testing.T) {
	r := newRepo(t)
	root, _ := save(t, r, "", 3, 2)
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := Walk(ctx, r, root, Visitor{Entry: func(string, *format.Node) error { n++; cancel(); return nil }})
	if !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("%d entries, %v", n, err)
	}
}

// What is read ahead is bounded in bytes, and a tree that is larger comes alone.
func TestAheadIsBounded(t *testing.T) {
	r := newRepo(t)
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	var ids []format.ID
	for i := range 12 {
		size := aheadBytes / 3
		if i == 5 {
			size = aheadBytes * 2
		}
		id, err := w.Save(t.Context(), format.TreeBlob, fstest.Noise(size))
		fstest.Must(t, err)
		ids = append(ids, id, id)
	}
	_, _, err := w.Finish(t.Context(), nil)
	fstest.Must(t, err)
	a := NewAhead(r, ids)
	for i := range ids {
		data, err := a.Next(t.Context())
		if err != nil || format.Hash(data) != ids[i] {
			t.Fatalf("tree %d: %d bytes, %v", i, len(data), err)
		}
		held := 0
		for _, tree := range a.got {
			held += len(tree.data)
		}
		if held > aheadBytes && len(a.got) > 1 {
			t.Errorf("tree %d: %d bytes are held", i, held)
		}
	}
	if _, err := a.Next(t.Context()); err == nil {
		t.Error("a tree after the last")
	}
}
