package archive

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/format"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Deriving a key takes a second on a busy machine, so tests share one repository.
var shared = sync.OnceValues(emptyRepo)

func newRepo(t testing.TB) *repo.Repository {
	t.Helper()
	r, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func emptyRepo() (*repo.Repository, error) {
	ctx, st := context.Background(), mem.New()
	b, err := repo.NewBundle("secret")
	if err != nil {
		return nil, err
	}
	if err := repo.Materialise(ctx, st, b); err != nil {
		return nil, err
	}
	r, err := repo.Open(ctx, st, "secret", repo.Options{})
	if err != nil {
		return nil, err
	}
	return r, r.LoadIndex(ctx)
}

// backUp makes one backup and its index.
func backUp(t testing.TB, r *repo.Repository, opt Options) *Result {
	t.Helper()
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	res, err := Run(t.Context(), w, r, opt)
	if err != nil {
		w.Abort()
		t.Fatal(err)
	}
	if _, _, err := w.Finish(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return res
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// settled is a ParentTime that makes no file recent. (A change time cannot be
// set back.)
func settled() time.Time { return time.Now().Add(time.Hour) }

// listing reads a whole tree: path → type, and for files the content.
func listing(t testing.TB, r *repo.Repository, tree format.ID) map[string]string {
	t.Helper()
	out := make(map[string]string)
	var visit func(id format.ID, path string)
	visit = func(id format.ID, path string) {
		data, err := r.LoadBlob(t.Context(), format.Handle{Type: format.TreeBlob, ID: id}, nil)
		if err != nil {
			t.Fatal(err)
		}
		nodes, err := format.DecodeTree(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			p := path + "/" + n.Name
			out[p] = string(n.Type)
			switch n.Type {
			case format.NodeDir:
				visit(*n.Subtree, p)
			case format.NodeFile:
				var content []byte
				for _, id := range n.Content {
					blob, err := r.LoadBlob(t.Context(), format.Handle{Type: format.DataBlob, ID: id}, nil)
					if err != nil {
						t.Fatal(err)
					}
					content = append(content, blob...)
				}
				if uint64(len(content)) != n.Size {
					t.Errorf("%s: size %d, content of %d bytes", p, n.Size, len(content))
				}
				out[p] = string(content)
			case format.NodeSymlink:
				out[p] = "→ " + n.LinkTarget
			}
		}
	}
	visit(tree, "")
	return out
}

func TestTreeHoldsWhatIsOnDisk(t *testing.T) {
	dir := t.TempDir()
	big := make([]byte, 20<<20+77)
	if _, err := rand.Read(big); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"a/empty": "", "a/small": "hello", "a/b/c/deep": "d", "big": string(big), "new\nline": "1", "not\xffutf8": "2",
		"half": string(big[:512<<10]), "more": string(big[:512<<10+1]),
	}
	for name, content := range want {
		write(t, filepath.Join(dir, name), content)
	}
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "nothing"), 0o700), os.Symlink("/else\xfe", filepath.Join(dir, "link")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600), unix.Mknod(filepath.Join(dir, "sock"), unix.S_IFSOCK|0o600, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r := newRepo(t)
	res := backUp(t, r, Options{Paths: []string{dir}})
	got := listing(t, r, res.Tree)
	for name, content := range want {
		if got[filepath.Join(dir, name)] != content {
			t.Errorf("%q: %d bytes, want %d", name, len(got[filepath.Join(dir, name)]), len(content))
		}
	}
	for name, what := range map[string]string{"nothing": "dir", "link": "→ /else\xfe", "fifo": "fifo", "sock": ""} {
		if got[filepath.Join(dir, name)] != what {
			t.Errorf("%s is %q, want %q", name, got[filepath.Join(dir, name)], what)
		}
	}
	if res.Files != 10 || res.FilesNew != 10 || len(res.Unreadable)+len(res.Fuzzy) != 0 {
		t.Errorf("result %+v", res)
	}
}

func TestUnchangedFilesAreNotReadAgain(t *testing.T) {
	dir := t.TempDir()
	for i := range 50 {
		write(t, fmt.Sprintf("%s/%d/f", dir, i), fmt.Sprint(i))
	}
	r := newRepo(t)
	first := backUp(t, r, Options{Paths: []string{dir}})
	write(t, dir+"/7/f", "changed")
	opt := Options{Paths: []string{dir}, ParentTree: first.Tree, ParentTime: settled()}
	second := backUp(t, r, opt)
	if second.BytesRead != uint64(len("changed")) || second.FilesChanged != 1 || second.DirsChanged == 0 {
		t.Errorf("result %+v", second)
	}
	if got := listing(t, r, second.Tree)[dir+"/7/f"]; got != "changed" {
		t.Errorf("content is %q", got)
	}
	whole := backUp(t, r, Options{Paths: []string{dir}})
	if diff := difference(t, r, dir, whole.Tree, second.Tree); diff != "" {
		t.Errorf("an incremental backup makes another tree than a full one: %s", diff)
	}
	// Files that changed about when the parent was made may have changed after they were read.
	opt.ParentTime = time.Now().Add(-time.Minute)
	if third := backUp(t, r, opt); third.FilesChanged != 50 {
		t.Errorf("%d recent files were read again, want 50", third.FilesChanged)
	}
}

func TestMissingBlobsAreStoredAgain(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "content")
	first := backUp(t, newRepo(t), Options{Paths: []string{dir}})
	other, err := emptyRepo()
	if err != nil {
		t.Fatal(err)
	}
	second := backUp(t, other, Options{Paths: []string{dir}, ParentTree: first.Tree, ParentTime: settled()})
	if got := listing(t, other, second.Tree)[dir+"/f"]; got != "content" {
		t.Errorf("content is %q", got)
	}
}

func TestExcludesAndSkip(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.log", "keep.log", "d/x", "d/e/y", "own", "z"} {
		write(t, filepath.Join(dir, name), name)
	}
	r := newRepo(t)
	res := backUp(t, r, Options{
		Paths: []string{dir}, Exclude: []string{"*.log", "!keep.log", dir + "/d/e"},
		Skip: func(path string, ft format.NodeType) bool { return path == dir+"/own" && ft == format.NodeFile },
	})
	var got []string
	for path := range listing(t, r, res.Tree) {
		if strings.HasPrefix(path, dir+"/") {
			got = append(got, path[len(dir)+1:])
		}
	}
	slices.Sort(got)
	if want := []string{"d", "d/x", "keep.log", "z"}; !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
}

func TestFuzzyFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/once", "x")
	write(t, dir+"/always", "x")
	write(t, dir+"/never", "x")
	reads := make(map[string]int)
	opt := Options{Paths: []string{dir}, Concurrency: 1, afterRead: func(path string) {
		reads[path]++
		if strings.HasSuffix(path, "always") || strings.HasSuffix(path, "once") && reads[path] == 1 {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Error(err)
				return
			}
			_, err = f.WriteString("y")
			if err := errors.Join(err, f.Close()); err != nil {
				t.Error(err)
			}
		}
	}}
	r := newRepo(t)
	res := backUp(t, r, opt)
	if !slices.Equal(res.Fuzzy, []string{dir + "/always"}) {
		t.Errorf("fuzzy: %q", res.Fuzzy)
	}
	if got := listing(t, r, res.Tree)[dir+"/once"]; got != "xy" {
		t.Errorf("content is %q", got)
	}
	if reads[dir+"/always"] != tries || reads[dir+"/once"] != 2 || reads[dir+"/never"] != 1 {
		t.Errorf("reads: %v", reads)
	}
	if !slices.Contains(res.Racy, dir+"/once") {
		t.Errorf("racy: %q", res.Racy)
	}
	// Where a log mends them, each is read once, and none is fuzzy; the next backup looks again.
	clear(reads)
	opt.Torn, opt.ParentTree, opt.ParentTime = true, res.Tree, time.Now()
	res = backUp(t, r, opt)
	if len(res.Fuzzy) > 0 || reads[dir+"/always"] != 1 {
		t.Errorf("torn: fuzzy %q, reads %v", res.Fuzzy, reads)
	}
	clear(reads)
	backUp(t, r, Options{Paths: opt.Paths, Torn: true, ParentTree: res.Tree, ParentTime: opt.ParentTime, afterRead: func(path string) { reads[path]++ }, Concurrency: 1})
	if reads[dir+"/always"] != 1 {
		t.Errorf("what changed while it was read is not read again: %v", reads)
	}
}

func TestVanishingFiles(t *testing.T) {
	dir := t.TempDir()
	for i := range 200 {
		write(t, fmt.Sprintf("%s/%d/f", dir, i), "x")
	}
	opt := Options{Paths: []string{dir}, Progress: func(path string, _ uint64) {
		if strings.HasSuffix(path, "/f") {
			for i := range 200 {
				if i%2 == 0 {
					_ = os.RemoveAll(fmt.Sprintf("%s/%d", dir, i))
				}
			}
		}
	}}
	r := newRepo(t)
	got := listing(t, r, backUp(t, r, opt).Tree)
	for i := 1; i < 200; i += 2 {
		if got[fmt.Sprintf("%s/%d/f", dir, i)] != "x" {
			t.Errorf("file %d is missing", i)
		}
	}
}

func TestUnreadable(t *testing.T) {
	r := newRepo(t)
	base := t.TempDir()
	write(t, base+"/f", "x")
	unreadable := findUnreadable(t)
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	_, err := Run(t.Context(), w, r, Options{Paths: []string{base, unreadable}})
	w.Abort()
	if err == nil || !strings.Contains(err.Error(), unreadable) {
		t.Errorf("error %v does not name %s", err, unreadable)
	}
	res := backUp(t, r, Options{Paths: []string{base, unreadable}, OnUnreadable: Skip})
	if len(res.Unreadable) != 1 || res.Unreadable[0].Path != unreadable {
		t.Errorf("unreadable: %v", res.Unreadable)
	}
	if got := listing(t, r, res.Tree); got[base+"/f"] != "x" {
		t.Errorf("the rest was not stored: %v", got)
	}
}

// findUnreadable returns a regular file that opens but does not read.
func findUnreadable(t *testing.T) string {
	t.Helper()
	const path = "/proc/self/mem" // address 0 is not mapped
	if _, err := os.ReadFile(path); err == nil {
		t.Fatalf("%s can be read", path)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return real
}

func TestRoots(t *testing.T) {
	base := t.TempDir()
	write(t, base+"/real/f", "1")
	write(t, base+"/file", "2")
	write(t, base+"/nested/in/f", "3")
	if err := os.Symlink("real", base+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", base+"/filelink"); err != nil {
		t.Fatal(err)
	}
	r := newRepo(t)
	res := backUp(t, r, Options{Paths: []string{base + "/link", base + "/file", base + "/filelink", base + "/nested", base + "/nested/in", base + "/nested/"}})
	got := listing(t, r, res.Tree)
	for path, want := range map[string]string{"/link": "dir", "/link/f": "1", "/file": "2", "/filelink": "2", "/nested/in/f": "3", "/real": ""} {
		if got[base+path] != want {
			t.Errorf("%s is %q, want %q", path, got[base+path], want)
		}
	}
	for _, paths := range [][]string{nil, {"relative"}, {base + "/absent"}} {
		w := r.NewWriter(t.Context(), repo.WriterOptions{})
		if _, err := Run(t.Context(), w, r, Options{Paths: paths}); err == nil {
			t.Errorf("paths %q: no error", paths)
		}
		w.Abort()
	}
}

func TestCancel(t *testing.T) {
	dir := t.TempDir()
	for i := range 500 {
		write(t, fmt.Sprintf("%s/%d/f", dir, i), fmt.Sprint(i))
	}
	r := newRepo(t)
	ctx, cancel := context.WithCancel(t.Context())
	w := r.NewWriter(ctx, repo.WriterOptions{})
	_, err := Run(ctx, w, r, Options{Paths: []string{dir}, Progress: func(string, uint64) { cancel() }})
	w.Abort()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestDirCache(t *testing.T) {
	dir := t.TempDir()
	c, err := OpenDirCache(dir, 1000)
	if err != nil {
		t.Fatal(err)
	}
	put := func(s string) format.ID {
		c.Put(format.Hash([]byte(s)), []byte(s))
		return format.Hash([]byte(s))
	}
	id := put("tree")
	c.PutLinks(id, []byte("links"))
	if c, err = OpenDirCache(dir, 1000); err != nil {
		t.Fatal(err)
	}
	if data, ok := c.Get(id); !ok || string(data) != "tree" {
		t.Errorf("got %q, %v", data, ok)
	}
	if data, ok := c.GetLinks(id); !ok || string(data) != "links" {
		t.Errorf("got %q, %v", data, ok)
	}
	if err := os.WriteFile(filepath.Join(dir, id.String()), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Get(id); ok {
		t.Error("a torn file is returned")
	}
	for i := range 100 {
		put(strings.Repeat("x", 50) + fmt.Sprint(i))
	}
	if c.total > 1000 {
		t.Errorf("cache holds %d bytes", c.total)
	}
	last := strings.Repeat("x", 50) + "99"
	if data, ok := c.Get(format.Hash([]byte(last))); !ok || !bytes.Equal(data, []byte(last)) {
		t.Error("the newest entry was evicted")
	}
}
