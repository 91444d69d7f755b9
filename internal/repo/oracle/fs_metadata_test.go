package oracle

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"drover/internal/repo"
	"drover/internal/repo/archive"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
	"drover/internal/repo/restore"
)

// archiveDir makes a snapshot of the paths.
func archiveDir(t testing.TB, r *repo.Repository, opt archive.Options) (*format.Snapshot, *archive.Result) {
	t.Helper()
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	defer w.Abort()
	start := time.Now()
	res, err := archive.Run(t.Context(), w, r, opt)
	if err != nil {
		t.Fatal(err)
	}
	sn := &format.Snapshot{Time: start, Tree: &res.Tree, Paths: opt.Paths, Excludes: opt.Exclude, Hostname: "drover", Summary: res.Summary(start, time.Now())}
	if _, _, err := w.Finish(t.Context(), sn); err != nil {
		t.Fatal(err)
	}
	return sn, res
}

// latest returns the newest snapshot.
func latest(t testing.TB, r *repo.Repository) *format.Snapshot {
	t.Helper()
	var newest *format.Snapshot
	err := r.Snapshots(t.Context(), func(_ format.ID, sn *format.Snapshot) error {
		if newest == nil || sn.Time.After(newest.Time) {
			newest = sn
		}
		return nil
	})
	if err != nil || newest == nil {
		t.Fatalf("no snapshot: %v", err)
	}
	return newest
}

func TestResticRestoresOurBackup(t *testing.T) {
	src := filepath.Join(t.TempDir(), "vol")
	fstest.RichTree(t, src)
	want := fstest.Describe(t, src)
	st, r := create(t, repo.Options{})
	archiveDir(t, r, archive.Options{Paths: []string{src}})
	d := newDir(t)
	d.dump(st)
	d.restic("check", "--read-data")
	target := t.TempDir()
	d.restic("restore", "latest", "--target", target, "--sparse", "--verify")
	fstest.Compare(t, fstest.Describe(t, target+src), want)
}

func TestWeRestoreResticsBackup(t *testing.T) {
	src := filepath.Join(t.TempDir(), "vol")
	fstest.RichTree(t, src)
	want := fstest.Describe(t, src)
	d := newDir(t)
	d.restic("init")
	d.restic("backup", src)
	r := open(t, d.load(), repo.Options{})
	sn := latest(t, r)
	opt := restore.Options{Target: t.TempDir(), StrictMetadata: true, Verify: true}
	if _, err := restore.Run(t.Context(), r, sn, opt); err != nil {
		t.Fatal(err)
	}
	fstest.Compare(t, fstest.Describe(t, opt.Target+src), want)

	if err := os.RemoveAll(src); err != nil {
		t.Fatal(err)
	}
	fstest.Write(t, src+"/extra", "x")
	if _, err := restore.Run(t.Context(), r, sn, restore.Options{Delete: true, StrictMetadata: true}); err != nil {
		t.Fatal(err)
	}
	fstest.Compare(t, fstest.Describe(t, src), want)
}

// TestTreesAreTheSame: for the same directory both make the same tree, byte by
// byte, where files are one chunk; so each takes the other's backup for its parent.
func TestTreesAreTheSame(t *testing.T) {
	base := t.TempDir()
	src := filepath.Join(base, "vol")
	fstest.RichTree(t, src)
	for _, name := range []string{"big", "sparse"} { // of several chunks
		fstest.Must(t, os.Remove(filepath.Join(src, name)))
	}
	fstest.Write(t, base+"/single", "a path that is a file")
	paths := []string{src, base + "/single"}
	d := newDir(t)
	d.restic("init")
	d.restic(append([]string{"backup"}, paths...)...)
	st := d.load()
	r := open(t, st, repo.Options{})
	theirs := latest(t, r)
	ours, res := archiveDir(t, r, archive.Options{Paths: paths, ParentTree: *theirs.Tree, ParentTime: time.Now().Add(time.Hour)})
	sameTree(t, r, *ours.Tree, *theirs.Tree, base)
	if res.BytesRead != 0 || res.FilesNew+res.FilesChanged > 6 { // links and devices are always looked at
		t.Errorf("restic's tree as the parent: %+v", res)
	}
	whole, _ := archiveDir(t, r, archive.Options{Paths: paths})
	sameTree(t, r, *whole.Tree, *theirs.Tree, base)
	d.dump(st)
	out := d.restic(append([]string{"backup", "--json", "--host", "drover"}, paths...)...)
	last := out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]
	var summary struct {
		New       int `json:"files_new"`
		Changed   int `json:"files_changed"`
		DataBlobs int `json:"data_blobs"`
	}
	fstest.Must(t, json.Unmarshal([]byte(last), &summary))
	if summary.New+summary.Changed+summary.DataBlobs != 0 {
		t.Errorf("restic with our parent: %s", last)
	}
	d.restic("check", "--read-data")
}

// sameTree compares two trees from dir on. (Other tests change what is above it.)
func sameTree(t testing.TB, r *repo.Repository, got, want format.ID, dir string) {
	t.Helper()
	var texts [2]string
	for i, id := range []format.ID{got, want} {
		for name := range strings.SplitSeq(dir[1:], "/") {
			nodes, err := format.DecodeTree([]byte(tree(t, r, id)))
			fstest.Must(t, err)
			at := slices.IndexFunc(nodes, func(n format.Node) bool { return n.Name == name })
			if at < 0 {
				t.Fatalf("no %s on the way to %s", name, dir)
			}
			id = *nodes[at].Subtree
		}
		texts[i] = tree(t, r, id)
	}
	if texts[0] != texts[1] {
		t.Errorf("the tree of %s is\n%s\nwant\n%s", dir, texts[0], texts[1])
	}
}

func tree(t testing.TB, r *repo.Repository, id format.ID) string {
	t.Helper()
	data, err := r.LoadBlob(t.Context(), format.Handle{Type: format.TreeBlob, ID: id}, nil)
	fstest.Must(t, err)
	return string(data)
}

func TestExcludesAreRestics(t *testing.T) {
	base := t.TempDir()
	src := filepath.Join(base, "vol")
	for _, name := range []string{"a.log", "b.txt", "dir/a.log", "dir/keep.log", "dir/sub/c.txt", "cache/x", "cache/y/z", "dir/cache/x", "tmp1/f", "tmp2/f",
		"deep/a/b/c/end", "deep/end", "we[ird]/f", "star*/f", "dotted.d/f", ".hidden/f"} {
		fstest.Write(t, filepath.Join(src, name), name)
	}
	d := newDir(t)
	d.restic("init")
	_, r := create(t, repo.Options{})
	sets := [][]string{
		{"*.log"}, {"*.log", "!keep.log"}, {src + "/cache"}, {"cache"}, {"/cache"}, {"cache/*"}, {"tmp?"}, {"tmp[13]"}, {"deep/**/end"}, {"**/end"},
		{src + "/**/x"}, {src + "/*/x"}, {"dir/sub/"}, {"*", "!b.txt"}, {src + "/*", "!" + src + "/dir"}, {`we\[ird\]`}, {"star[*]"}, {".*"}, {"**"},
		{"dir", "!dir/keep.log"}, {src + "/dir/**", "!*.txt"}, {"vol/dir"}, {"./dir"}, {"dir/../cache"}, {"**/**/x"}, {"deep/**"}, {src}, {"/"},
	}
	for i, patterns := range sets {
		args := []string{"backup", "--quiet", "--tag", strconv.Itoa(i), src}
		for _, p := range patterns {
			args = append(args, "--exclude", p)
		}
		d.restic(args...)
	}
	theirs := open(t, d.load(), repo.Options{}) // deriving its key takes long
	trees := make(map[string]format.ID)
	fstest.Must(t, theirs.Snapshots(t.Context(), func(_ format.ID, sn *format.Snapshot) error {
		trees[sn.Tags[0]] = *sn.Tree
		return nil
	}))
	for i, patterns := range sets {
		want := paths(t, theirs, trees[strconv.Itoa(i)])
		ours, _ := archiveDir(t, r, archive.Options{Paths: []string{src}, Exclude: patterns})
		if got := paths(t, r, *ours.Tree); !slices.Equal(got, want) {
			t.Errorf("%q leaves\n%q, restic\n%q", patterns, got, want)
		}
	}
}

// paths lists all paths of a tree.
func paths(t testing.TB, r *repo.Repository, top format.ID) []string {
	t.Helper()
	found := make(map[string]bool)
	var visit func(id format.ID, path string)
	visit = func(id format.ID, path string) {
		data, err := r.LoadBlob(t.Context(), format.Handle{Type: format.TreeBlob, ID: id}, nil)
		fstest.Must(t, err)
		nodes, err := format.DecodeTree(data)
		fstest.Must(t, err)
		for _, n := range nodes {
			found[path+"/"+n.Name] = true
			if n.Subtree != nil {
				visit(*n.Subtree, path+"/"+n.Name)
			}
		}
	}
	visit(top, "")
	return slices.Sorted(maps.Keys(found))
}
