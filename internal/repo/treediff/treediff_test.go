package treediff

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func newRepo(t *testing.T) *repo.Repository {
	t.Helper()
	b, err := repo.NewBundle("secret")
	fstest.Must(t, err)
	st := mem.New()
	fstest.Must(t, repo.Materialise(t.Context(), st, b))
	r, err := repo.Open(t.Context(), st, "secret", repo.Options{})
	fstest.Must(t, err)
	return r
}

// files is a snapshot as a flat list, by path; directories are among them.
type files map[string]format.Node

// save stores it as trees.
func save(t *testing.T, r *repo.Repository, all files) format.ID {
	t.Helper()
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	id := saveDir(t, w, all, "/")
	_, _, err := w.Finish(t.Context(), nil)
	fstest.Must(t, err)
	return id
}

func saveDir(t *testing.T, w *repo.Writer, all files, dir string) format.ID {
	t.Helper()
	tree := format.NewTreeBuilder(nil)
	for _, p := range slices.Sorted(maps.Keys(all)) {
		if path.Dir(p) != dir {
			continue
		}
		n := all[p]
		n.Name = path.Base(p)
		if n.Type == format.NodeDir && n.Subtree == nil {
			id := saveDir(t, w, all, p)
			n.Subtree = &id
		}
		fstest.Must(t, tree.Add(&n))
	}
	id, err := w.Save(t.Context(), format.TreeBlob, tree.Finish())
	fstest.Must(t, err)
	return id
}

// naive compares path by path, in the order in which a walk meets them.
func naive(a, b files) (want []Change) {
	paths := slices.SortedFunc(maps.Keys(merged(a, b)), func(x, y string) int {
		return slices.Compare(strings.Split(x, "/"), strings.Split(y, "/"))
	})
	for _, p := range paths {
		o, before := a[p]
		n, now := b[p]
		switch {
		case !before:
			want = append(want, Change{Path: p, Kind: Added, Type: n.Type})
		case !now:
			want = append(want, Change{Path: p, Kind: Removed, Type: o.Type})
		default:
			if what := differing(&o, &n); len(what) > 0 {
				want = append(want, Change{Path: p, Kind: Changed, Type: n.Type, What: what})
			}
		}
	}
	return want
}

func merged(a, b files) files {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

func diff(t *testing.T, r *repo.Repository, a, b format.ID) (got []Change) {
	t.Helper()
	fstest.Must(t, Run(t.Context(), r, a, b, func(c Change) error { got = append(got, c); return nil }))
	return got
}

func text(changes []Change) string {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintln(&b, c.Kind, c.Type, c.Path, c.What)
	}
	return b.String()
}

// TestRandomTrees compares with a comparison of flat lists, over many pairs.
func TestRandomTrees(t *testing.T) {
	r := newRepo(t)
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	for round := range 300 {
		a := make(files)
		grow(rnd, a, "/", 3)
		b := mutate(rnd, a)
		got, want := text(diff(t, r, save(t, r, a), save(t, r, b))), text(naive(a, b))
		if got != want {
			t.Fatalf("seed %d, round %d: got\n%s\nwant\n%s", seed, round, got, want)
		}
	}
}

// grow fills a directory at random.
func grow(rnd *rand.Rand, all files, dir string, depth int) {
	for i := range rnd.IntN(5) {
		p := path.Join(dir, fmt.Sprintf("%c%d", 'a'+rnd.IntN(3), i))
		n := format.Node{Type: format.NodeFile, Size: uint64(rnd.IntN(2)), Inode: rnd.Uint64()}
		if depth > 0 && rnd.IntN(2) == 0 {
			n = format.Node{Type: format.NodeDir, Inode: rnd.Uint64()}
			grow(rnd, all, p, depth-1)
		}
		all[p] = n
	}
}

// mutate changes, adds and removes some of it, and kinds of file.
func mutate(rnd *rand.Rand, a files) files {
	b := make(files)
	gone := ""
	for _, p := range slices.Sorted(maps.Keys(a)) {
		if gone != "" && strings.HasPrefix(p, gone+"/") {
			continue
		}
		n := a[p]
		switch rnd.IntN(8) {
		case 0:
			gone = p
			continue
		case 1:
			n.Mode = 0o600
		case 2:
			n.Inode, n.ChangeTime = rnd.Uint64(), time.Unix(int64(rnd.IntN(1e9)), 0)
		case 3:
			if n.Type == format.NodeDir {
				gone, n = p, format.Node{Type: format.NodeSymlink, LinkTarget: "x"}
			} else {
				n = format.Node{Type: format.NodeDir}
				b[p+"/new"] = format.Node{Type: format.NodeFile}
			}
		}
		b[p] = n
	}
	return b
}

// TestWhatDiffers: each kind of difference has its name, and what says nothing has none.
func TestWhatDiffers(t *testing.T) {
	id, other := format.Hash([]byte("a")), format.Hash([]byte("b"))
	file := format.Node{Type: format.NodeFile, Mode: 0o644, Size: 1, Content: []format.ID{id}, ModTime: fstest.Old,
		Xattrs: []format.Xattr{{Name: "user.a", Value: []byte("1")}, {Name: "user.b"}}}
	dir := format.Node{Type: format.NodeDir, Mode: fs.ModeDir | 0o755, ModTime: fstest.Old}
	with := func(n format.Node, f func(*format.Node)) format.Node { f(&n); return n }
	for name, c := range map[string]struct {
		a, b format.Node
		want []string
	}{
		"content": {file, with(file, func(n *format.Node) { n.Content = []format.ID{other} }), []string{Content}},
		"size":    {file, with(file, func(n *format.Node) { n.Content, n.Size = []format.ID{id, id}, 2 }), []string{Content}},
		"mode":    {file, with(file, func(n *format.Node) { n.Mode = 0o600 }), []string{Mode}},
		"owner":   {file, with(file, func(n *format.Node) { n.UID = 5 }), []string{Owner}},
		"group":   {file, with(file, func(n *format.Node) { n.GID = 5 }), []string{Owner}},
		"mtime":   {file, with(file, func(n *format.Node) { n.ModTime = time.Unix(5, 0) }), []string{ModTime}},
		"zone":    {file, with(file, func(n *format.Node) { n.ModTime = n.ModTime.UTC() }), nil},
		"xattr":   {file, with(file, func(n *format.Node) { n.Xattrs = n.Xattrs[:1] }), []string{Xattr}},
		"order of xattrs": {file, with(file, func(n *format.Node) {
			n.Xattrs = []format.Xattr{n.Xattrs[1], n.Xattrs[0]}
		}), nil},
		"several": {file, with(file, func(n *format.Node) { n.Mode, n.UID, n.ModTime = 0, 1, time.Unix(1, 0) }), []string{Mode, Owner, ModTime}},
		"type":    {file, format.Node{Type: format.NodeFifo}, []string{Type}},
		"target":  {format.Node{Type: format.NodeSymlink, LinkTarget: "a"}, format.Node{Type: format.NodeSymlink, LinkTarget: "b"}, []string{Content}},
		"device":  {format.Node{Type: format.NodeDevice, Device: 1}, format.Node{Type: format.NodeDevice, Device: 2}, []string{Content}},
		"inode": {file, with(file, func(n *format.Node) {
			n.Inode, n.DeviceID, n.Links, n.ChangeTime, n.AccessTime = 1, 2, 3, fstest.Old, fstest.Old
		}), nil},
		"dir's time":   {dir, with(dir, func(n *format.Node) { n.ModTime = time.Unix(5, 0) }), nil},
		"dir's mode":   {dir, with(dir, func(n *format.Node) { n.Mode = fs.ModeDir | 0o700 }), []string{Mode}},
		"dir's xattrs": {dir, with(dir, func(n *format.Node) { n.Xattrs = file.Xattrs }), []string{Xattr}},
	} {
		if got := differing(&c.a, &c.b); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestReadsOnlyWhatDiffers: a directory that is the same on both sides need not even
// be in the repository.
func TestReadsOnlyWhatDiffers(t *testing.T) {
	r := newRepo(t)
	lost := format.NewRandomID()
	a := files{"/same": {Type: format.NodeDir, Subtree: &lost}, "/deep": {Type: format.NodeDir}, "/deep/f": {Type: format.NodeFile}}
	b := maps.Clone(a)
	b["/deep/f"] = format.Node{Type: format.NodeFile, Mode: 1}
	b["/same"] = format.Node{Type: format.NodeDir, Subtree: &lost, Mode: fs.ModeDir | 1}
	ids := [2]format.ID{save(t, r, a), save(t, r, b)}
	if got, want := text(diff(t, r, ids[0], ids[1])), "changed file /deep/f [mode]\nchanged dir /same [mode]\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := diff(t, r, lost, lost); got != nil {
		t.Errorf("a tree and itself: %v", got)
	}
	other := format.NewRandomID()
	b["/same"] = format.Node{Type: format.NodeDir, Subtree: &other}
	err := Run(t.Context(), r, ids[0], save(t, r, b), func(Change) error { return nil })
	if !errors.Is(err, repo.ErrBlobNotFound) || !strings.Contains(err.Error(), "read directory /same") {
		t.Errorf("a tree that is lost: %v", err)
	}
}
