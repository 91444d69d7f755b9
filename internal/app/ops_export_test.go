package app

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/repo"
	"drover/internal/repo/fstest"
)

// names lists the entries of an archive.
func names(t *testing.T, archive []byte) string {
	t.Helper()
	all := ""
	for in := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		fstest.Must(t, err)
		all += h.Name + "\n"
	}
}

func TestExport(t *testing.T) {
	w := newWorkshop(t)
	w.write("a", "1")
	first := w.commit()
	w.write("b", "2")
	w.commit()
	var out bytes.Buffer
	res, err := w.ops().Export(t.Context(), ExportOptions{Snapshot: "latest", Out: &out})
	below := strings.TrimPrefix(w.state, "/")
	if got := names(t, out.Bytes()); err != nil || !strings.HasSuffix(got, below+"/a\n"+below+"/b\n") || res.Files != 2 || res.Bytes != 2 {
		t.Errorf("%+v, %v:\n%s", res, err, got)
	}
	file := filepath.Join(t.TempDir(), "x.tar")
	for range 2 { // the second time it replaces the first one
		res, err = w.ops().Export(t.Context(), ExportOptions{Snapshot: first[:8], File: file})
		data, readErr := os.ReadFile(file)
		fstest.Must(t, err, readErr)
		if got := names(t, data); !strings.HasSuffix(got, below+"/a\n") || res.Snapshot != first || res.Files != 1 {
			t.Errorf("%+v:\n%s", res, got)
		}
	}
	locks, err := filepath.Glob(w.bucket + "/data/locks/*")
	if err != nil || len(locks) != 0 {
		t.Errorf("locks %q are left, %v", locks, err)
	}
}

// TestExportIsWholeOrNotThere: of a snapshot that lacks a blob nothing is left, and a
// file that was there stays.
func TestExportIsWholeOrNotThere(t *testing.T) {
	w := newWorkshop(t)
	w.write("a", "1")
	w.commit()
	dir := t.TempDir()
	file := filepath.Join(dir, "x.tar")
	fstest.Write(t, file, "as it was")
	packs, err := filepath.Glob(w.bucket + "/data/data/*/*")
	fstest.Must(t, err)
	for _, pack := range packs {
		fstest.Must(t, os.Rename(pack, pack+".away"))
		_, err := w.ops().Export(t.Context(), ExportOptions{Snapshot: "latest", File: file})
		if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "/") {
			t.Errorf("without %s: %v", pack, err)
		}
		fstest.Must(t, os.Rename(pack+".away", pack))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.ops().Export(ctx, ExportOptions{Snapshot: "latest", File: file}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	left, err := os.ReadDir(dir)
	fstest.Must(t, err)
	text, err := os.ReadFile(file)
	if err != nil || string(text) != "as it was" || len(left) != 1 {
		t.Errorf("%q, %v; left: %v", text, err, left)
	}
	if _, err := w.ops().Export(t.Context(), ExportOptions{Snapshot: "latest", File: os.DevNull}); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("to a device: %v", err)
	}
}

// TestHeld: the lock is there while the work lasts, and goes.
func TestHeld(t *testing.T) {
	w := newWorkshop(t)
	o := w.ops()
	v, err := o.open(t.Context())
	fstest.Must(t, err)
	fstest.Must(t, o.held(t.Context(), v, func(ctx context.Context) error {
		if _, err := v.Repo.Lock(ctx, repo.LockOptions{Exclusive: true}); !errors.Is(err, ErrLocked) {
			t.Errorf("an exclusive lock beside ours: %v", err)
		}
		return nil
	}))
	lock, err := v.Repo.Lock(t.Context(), repo.LockOptions{Exclusive: true})
	fstest.Must(t, err)
	fstest.Must(t, lock.Unlock(t.Context()))
}
