package tarexport

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/archive"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
	"drover/internal/repo/restore"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func newRepo(t *testing.T) (*repo.Repository, *mem.Store) {
	t.Helper()
	b, err := repo.NewBundle("secret")
	fstest.Must(t, err)
	st := mem.New()
	fstest.Must(t, repo.Materialise(t.Context(), st, b))
	return open(t, st), st
}

func open(t *testing.T, st *mem.Store) *repo.Repository {
	t.Helper()
	r, err := repo.Open(t.Context(), st, "secret", repo.Options{})
	fstest.Must(t, err)
	fstest.Must(t, r.LoadIndex(t.Context()))
	return r
}

func backUp(t *testing.T, r *repo.Repository, paths ...string) *format.Snapshot {
	t.Helper()
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	res, err := archive.Run(t.Context(), w, r, archive.Options{Paths: paths})
	if err != nil {
		w.Abort()
		t.Fatal(err)
	}
	sn := &format.Snapshot{Time: time.Now(), Tree: &res.Tree, Paths: paths}
	_, _, err = w.Finish(t.Context(), sn)
	fstest.Must(t, err)
	return sn
}

// TestTarExtractsWhatARestoreRestores: the real GNU tar, every kind of file, every
// kind of metadata.
func TestTarExtractsWhatARestoreRestores(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	fstest.RichTree(t, dir)
	fstest.Write(t, filepath.Join(dir, strings.Repeat("deep/", 60)+"file"), "far below")
	for i := range 500 {
		fstest.Write(t, filepath.Join(dir, fmt.Sprintf("many/%d/%d", i%7, i)), fmt.Sprint(i))
	}
	r, _ := newRepo(t)
	sn := backUp(t, r, dir)
	restored, extracted, file := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "tar")
	_, err := restore.Run(t.Context(), r, sn, restore.Options{Target: restored, StrictMetadata: true})
	fstest.Must(t, err)
	out, err := os.Create(file)
	fstest.Must(t, err)
	res, err := Run(t.Context(), r, sn, out, Options{})
	fstest.Must(t, err, out.Close())
	for _, locale := range []string{"C", "C.UTF-8"} {
		cmd := exec.CommandContext(t.Context(), "tar", "-x", "-p", "-f", file, "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", extracted)
		cmd.Env = append(os.Environ(), "LC_ALL="+locale)
		if said, err := cmd.CombinedOutput(); err != nil || len(said) > 0 {
			t.Fatalf("%s: tar: %v\n%s", locale, err, said)
		}
		want := fstest.Describe(t, restored)
		delete(want, ".") // made by the test
		got := fstest.Describe(t, extracted)
		delete(got, ".")
		fstest.Compare(t, got, want)
		if n := uint64(len(want)); n != res.Files+res.Dirs {
			t.Errorf("%s: %d entries are restored, %+v written", locale, n, res)
		}
		fstest.Must(t, os.RemoveAll(filepath.Join(extracted, strings.Split(dir, "/")[1])))
	}
}

// tree stores a snapshot of one directory with these entries.
func tree(t *testing.T, r *repo.Repository, w *repo.Writer, nodes ...*format.Node) *format.Snapshot {
	t.Helper()
	b := format.NewTreeBuilder(nil)
	for _, n := range nodes {
		fstest.Must(t, b.Add(n))
	}
	id, err := w.Save(t.Context(), format.TreeBlob, b.Finish())
	fstest.Must(t, err)
	_, _, err = w.Finish(t.Context(), nil)
	fstest.Must(t, err)
	return &format.Snapshot{Tree: &id, Paths: []string{"/"}}
}

func blob(t *testing.T, w *repo.Writer, data []byte) format.ID {
	t.Helper()
	id, err := w.Save(t.Context(), format.DataBlob, data)
	fstest.Must(t, err)
	return id
}

// TestHeaders: what the other test's file system cannot have.
func TestHeaders(t *testing.T) {
	r, _ := newRepo(t)
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	a, b := blob(t, w, []byte("a")), blob(t, w, []byte("b"))
	file := func(name string, inode, links uint64, content format.ID) *format.Node {
		return &format.Node{Name: name, Type: format.NodeFile, Mode: 0o644, Size: 1, Content: []format.ID{content}, Inode: inode, DeviceID: 9, Links: links}
	}
	named := file("named", 1, 1, a)
	named.User, named.Group, named.UID, named.GID = "gärtner", "web", 1<<31+5, 1<<32-2
	named.ModTime = time.Unix(-5, 123456789)
	named.Xattrs = []format.Xattr{{Name: "user.a=b%", Value: []byte("=\n\x00x")}, {Name: "user.empty"}}
	sn := tree(t, r, w,
		&format.Node{Name: "device", Type: format.NodeDevice, Mode: fs.ModeDevice | 0o600, Device: 0xfff<<8 | 0xff | 0xfff00<<12},
		file("l1", 7, 3, a), file("l2", 7, 3, b), file("l3", 7, 3, b), named,
		file("other", 7, 1, b), // the number of its names says that it is no link
	)
	var out bytes.Buffer
	_, err := Run(t.Context(), r, sn, &out, Options{})
	fstest.Must(t, err)
	got := make(map[string]*tar.Header)
	for in := tar.NewReader(&out); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		fstest.Must(t, err)
		got[h.Name] = h
	}
	h := got["named"]
	if h.Uname != "gärtner" || h.Gname != "web" || h.Uid != 1<<31+5 || h.Gid != 1<<32-2 || !h.ModTime.Equal(named.ModTime) ||
		h.PAXRecords["SCHILY.xattr.user.a%3Db%25"] != "=\n\x00x" {
		t.Errorf("named: %+v", h)
	}
	if h := got["device"]; h.Typeflag != tar.TypeBlock || h.Devmajor != 0xfff || h.Devminor != 0xfffff {
		t.Errorf("device: %+v", h)
	}
	// The file was replaced between the readings of its first name and its second.
	for name, want := range map[string]string{"l1": "", "l2": "", "l3": "l2", "other": ""} {
		if got[name].Linkname != want {
			t.Errorf("%s is a link to %q, want %q", name, got[name].Linkname, want)
		}
	}
}

// count keeps the first bytes and counts all.
type count struct {
	begin []byte
	n     int64
}

func (c *count) Write(p []byte) (int, error) {
	c.begin = append(c.begin, p[:min(len(p), 4096-len(c.begin))]...)
	c.n += int64(len(p))
	return len(p), nil
}

// TestLargerThanTheOldFormat: a file of more than 8 GiB, which is more than the
// memory that these tests may take.
func TestLargerThanTheOldFormat(t *testing.T) {
	r, _ := newRepo(t)
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	const piece, pieces = 8 << 20, 1030
	id := blob(t, w, make([]byte, piece))
	n := &format.Node{Name: "huge", Type: format.NodeFile, Size: piece * pieces, Links: 1}
	for range pieces {
		n.Content = append(n.Content, id)
	}
	var out count
	res, err := Run(t.Context(), r, tree(t, r, w, n), &out, Options{})
	fstest.Must(t, err)
	h, err := tar.NewReader(bytes.NewReader(out.begin)).Next()
	if err != nil || h.Size != piece*pieces || res.Bytes != piece*pieces || out.n < h.Size {
		t.Errorf("%+v, %v; %+v, %d bytes", h, err, res, out.n)
	}
}

func TestBatchesAreBounded(t *testing.T) {
	r, _ := newRepo(t)
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	n := &format.Node{Name: "big", Type: format.NodeFile, Links: 1}
	for range 20 {
		data := fstest.Noise(3 << 20)
		n.Content, n.Size = append(n.Content, blob(t, w, data)), n.Size+uint64(len(data))
	}
	nodes := []*format.Node{n}
	for i := range 10 { // five files of two names each
		nodes = append(nodes, &format.Node{Name: fmt.Sprintf("linked%d", i), Type: format.NodeFile, Inode: uint64(i / 2), Links: 2})
	}
	for i := range 3 * batchPieces {
		nodes = append(nodes, &format.Node{Name: fmt.Sprintf("small%05d", i), Type: format.NodeFile})
	}
	sn := tree(t, r, w, nodes...)
	pieces := 0
	p := planner{r: r, send: func(b *batch) error {
		if pieces += len(b.pieces); b.bytes > batchBytes || len(b.pieces) > batchPieces || len(b.pieces) == 0 {
			t.Errorf("a batch of %d bytes, %d pieces", b.bytes, len(b.pieces))
		}
		return nil
	}, links: make(map[inode]*first)}
	fstest.Must(t, p.plan(t.Context(), *sn.Tree))
	if want := len(nodes) + len(n.Content); pieces != want {
		t.Errorf("%d pieces, want %d", pieces, want)
	}
	if len(p.links) != 0 {
		t.Errorf("%d names are kept", len(p.links))
	}
}

// TestWhatIsLostIsNamed: without any of its packs, or with one that is damaged, an
// export fails, names a path, and leaves an archive without an end.
func TestWhatIsLostIsNamed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	fstest.Write(t, filepath.Join(dir, "a/small"), "x")
	fstest.Write(t, filepath.Join(dir, "big"), string(fstest.Noise(40<<20)))
	r, st := newRepo(t)
	sn := backUp(t, r, dir)
	var packs []string
	fstest.Must(t, st.List(t.Context(), "data/", func(i objstore.Info) error { packs = append(packs, i.Key); return nil }))
	if len(packs) < 3 {
		t.Fatalf("%d packs", len(packs))
	}
	for _, key := range packs {
		whole, _, err := st.Get(t.Context(), key, 0, -1)
		fstest.Must(t, err)
		damaged := slices.Clone(whole)
		damaged[100] ^= 1
		for what, spoil := range map[string]func() error{
			"gone":    func() error { return st.Delete(t.Context(), key) },
			"damaged": func() error { return st.Put(t.Context(), key, damaged) },
		} {
			fstest.Must(t, spoil())
			var out bytes.Buffer
			_, err := Run(t.Context(), open(t, st), sn, &out, Options{})
			if err == nil || !strings.Contains(err.Error(), "/") || !errors.Is(err, repo.ErrDamaged) && !errors.Is(err, objstore.ErrNotFound) {
				t.Errorf("%s %s: %v", key, what, err)
			}
			if bytes.HasSuffix(out.Bytes(), make([]byte, 1024)) {
				t.Errorf("%s %s: the archive has an end", key, what)
			}
			fstest.Must(t, st.Put(t.Context(), key, whole))
		}
	}
	_, err := Run(t.Context(), open(t, st), sn, io.Discard, Options{})
	fstest.Must(t, err)
}

func TestBadNodes(t *testing.T) {
	r, _ := newRepo(t)
	unknown := format.NewRandomID()
	for want, n := range map[string]*format.Node{
		`/x: a tar archive cannot hold a file of type "socket"`:      {Name: "x", Type: "socket"},
		"/x: data blob " + unknown.Short() + ": blob is in no index": {Name: "x", Type: format.NodeFile, Size: 1, Content: []format.ID{unknown}},
		"/x: damaged: its size is 5 bytes, its content has 0":        {Name: "x", Type: format.NodeFile, Size: 5},
		`/x: archive/tar: cannot encode header: invalid PAX record`:  {Name: "x", Type: format.NodeFile, User: "a\x00b"},
	} {
		sn := tree(t, r, r.NewWriter(t.Context(), repo.WriterOptions{}), n)
		if _, err := Run(t.Context(), r, sn, io.Discard, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

type broken struct{ after int }

var errBroken = errors.New("broken pipe")

func (b *broken) Write(p []byte) (int, error) {
	if b.after -= len(p); b.after < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

// TestEndsWhenNobodyReads: at any moment, and nothing is left running.
func TestEndsWhenNobodyReads(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	for i := range 10 {
		fstest.Write(t, filepath.Join(dir, fmt.Sprint(i)), string(fstest.Noise(5<<20)))
	}
	r, _ := newRepo(t)
	sn := backUp(t, r, dir)
	for _, after := range []int{0, 2000, 10 << 20, 50 << 20} {
		if _, err := Run(t.Context(), r, sn, &broken{after}, Options{}); !errors.Is(err, errBroken) {
			t.Errorf("after %d bytes: %v", after, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		_, err := Run(ctx, r, sn, writerFunc(func(p []byte) (int, error) {
			if after -= len(p); after < 0 {
				cancel()
			}
			return len(p), nil
		}), Options{})
		if cancel(); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
