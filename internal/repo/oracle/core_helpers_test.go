package oracle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
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
	"drover/internal/repo/format"
	"drover/internal/testkit/gotool"
)

const password = "correct horse"

// limit of one restic call; it takes seconds on a busy machine.
const limit = 5 * time.Minute

// dir is a local repository that restic and we use in turn.
type dir struct {
	t    testing.TB
	path string
	exe  string
}

func newDir(t testing.TB) *dir {
	return &dir{t: t, path: t.TempDir(), exe: gotool.Path(t, "restic")}
}

// try runs restic on the repository and returns its output and error.
func (d *dir) try(args ...string) (string, error) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.exe, append([]string{"--no-cache", "--repo", d.path}, args...)...)
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD="+password, "RESTIC_READ_CONCURRENCY=1", "TZ=UTC")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), errors.Join(err, errors.New(out.String()+errOut.String()))
	}
	return out.String(), nil
}

func (d *dir) restic(args ...string) string {
	d.t.Helper()
	out, err := d.try(args...)
	if err != nil {
		d.t.Fatalf("restic %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// load reads the folder into a store in memory.
func (d *dir) load() *mem.Store {
	d.t.Helper()
	st := mem.New()
	err := filepath.WalkDir(d.path, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		key, err := filepath.Rel(d.path, path)
		if err != nil {
			return err
		}
		return st.Put(d.t.Context(), filepath.ToSlash(key), data)
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return st
}

// dump makes the folder hold exactly what the store holds.
func (d *dir) dump(st objstore.Store) {
	d.t.Helper()
	if err := os.RemoveAll(d.path); err != nil {
		d.t.Fatal(err)
	}
	for _, name := range []string{"data", "index", "keys", "locks", "snapshots"} {
		if err := os.MkdirAll(filepath.Join(d.path, name), 0o700); err != nil {
			d.t.Fatal(err)
		}
	}
	err := st.List(d.t.Context(), "", func(info objstore.Info) error {
		data, _, err := st.Get(d.t.Context(), info.Key, 0, -1)
		if err != nil {
			return err
		}
		path := filepath.Join(d.path, filepath.FromSlash(info.Key))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o600)
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

func open(t testing.TB, st objstore.Store, opt repo.Options) *repo.Repository {
	t.Helper()
	r, err := repo.Open(t.Context(), st, password, opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.LoadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func create(t testing.TB, opt repo.Options) (*mem.Store, *repo.Repository) {
	t.Helper()
	st := mem.New()
	b, err := repo.NewBundle(password)
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.Materialise(t.Context(), st, b); err != nil {
		t.Fatal(err)
	}
	return st, open(t, st, opt)
}

// save stores a snapshot, taken at the time at, of a directory with one file per content.
func save(t testing.TB, r *repo.Repository, at time.Time, files map[string][]byte) format.ID {
	t.Helper()
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	defer w.Abort()
	tree := format.NewTreeBuilder(nil)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content := files[name]
		node := &format.Node{Name: name, Type: format.NodeFile, Mode: 0o644, ModTime: at, AccessTime: at, ChangeTime: at, Links: 1, Size: uint64(len(content)), Content: []format.ID{}}
		for len(content) > 0 {
			n := min(len(content), 1<<20)
			id, err := w.Save(t.Context(), format.DataBlob, content[:n])
			if err != nil {
				t.Fatal(err)
			}
			node.Content = append(node.Content, id)
			content = content[n:]
		}
		if err := tree.Add(node); err != nil {
			t.Fatal(err)
		}
	}
	root, err := w.Save(t.Context(), format.TreeBlob, tree.Finish())
	if err != nil {
		t.Fatal(err)
	}
	sn := &format.Snapshot{Time: at, Tree: &root, Paths: []string{"/files"}, Hostname: "here", Tags: []string{"epoch:7"}, Summary: &format.Summary{}}
	id, _, err := w.Finish(t.Context(), sn)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func decode[T any](t testing.TB, in string) T {
	t.Helper()
	var out T
	if err := json.Unmarshal([]byte(in), &out); err != nil {
		t.Fatalf("%v in %s", err, in)
	}
	return out
}

func objects(t testing.TB, st objstore.Store) (all []objstore.Info) {
	t.Helper()
	err := st.List(t.Context(), "", func(info objstore.Info) error {
		all = append(all, info)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
