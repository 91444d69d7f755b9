package tmpfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"drover/internal/secret/tmpfile"
)

// folder is an empty one below another that ends with the test.
func folder(t *testing.T, below string) string {
	t.Helper()
	dir, err := os.MkdirTemp(below, "drover-test-") //nolint:usetesting // in memory, or on a disk
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestWriteReplacesAndCloseRemoves(t *testing.T) {
	dir := folder(t, "/dev/shm")
	path := filepath.Join(dir, "a")
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	f := tmpfile.New(false)
	for _, content := range []string{"one", "two"} {
		if err := f.Write(path, []byte(content), tmpfile.Options{}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("got %q, %v", got, err)
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	owned := filepath.Join(dir, "b")
	if err := f.Write(owned, nil, tmpfile.Options{Mode: 0o660, Owner: &tmpfile.Owner{UID: os.Getuid(), GID: os.Getgid()}}); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(owned); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestDiskIsRefused(t *testing.T) {
	dir := folder(t, "/var/tmp")
	path := filepath.Join(dir, "a")
	if err := tmpfile.New(false).Write(path, []byte("x"), tmpfile.Options{}); !errors.Is(err, tmpfile.ErrNotMemory) {
		t.Errorf("got %v", err)
	}
	// A link into memory does not make it memory: the file replaces the link.
	if err := os.Symlink(filepath.Join(folder(t, "/dev/shm"), "a"), path); err != nil {
		t.Fatal(err)
	}
	if err := tmpfile.New(false).Write(path, []byte("x"), tmpfile.Options{}); !errors.Is(err, tmpfile.ErrNotMemory) {
		t.Errorf("got %v", err)
	}
	told := tmpfile.New(true)
	if err := told.Write(path, []byte("x"), tmpfile.Options{}); err != nil {
		t.Errorf("though it was told to: %v", err)
	}
	if err := told.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestFailedWriteLeavesNothing(t *testing.T) {
	dir := folder(t, "/dev/shm")
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := tmpfile.New(false).Write(filepath.Join(dir, "a"), []byte("x"), tmpfile.Options{}); err == nil {
		t.Error("a directory is replaced")
	}
	if err := tmpfile.New(false).Write(filepath.Join(dir, "none", "a"), []byte("x"), tmpfile.Options{}); err == nil {
		t.Error("a directory is made")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestCloseLeavesWhatOthersHaveReplaced(t *testing.T) {
	path := filepath.Join(folder(t, "/dev/shm"), "a")
	f := tmpfile.New(false)
	if err := f.Write(path, []byte("ours"), tmpfile.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "theirs" {
		t.Errorf("got %q, %v", got, err)
	}
	late := tmpfile.New(false)
	if err := late.Adopt(path); err != nil {
		t.Fatal(err)
	}
	if err := late.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an adopted file stays: %v", err)
	}
}

// Whoever reads while it is written sees one content or the other, whole.
func TestReadersSeeWholeFiles(t *testing.T) {
	path := filepath.Join(folder(t, "/dev/shm"), "a")
	f := tmpfile.New(false)
	write := func(b byte) {
		content := make([]byte, 64<<10)
		for i := range content {
			content[i] = b
		}
		if err := f.Write(path, content, tmpfile.Options{}); err != nil {
			t.Error(err)
		}
	}
	write('a')
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() {
		for i := range 200 {
			write('a' + byte(i%2))
		}
	})
	for range 200 {
		content, err := os.ReadFile(path)
		if err != nil || len(content) != 64<<10 || content[0] != content[len(content)-1] {
			t.Fatalf("%d bytes, %v", len(content), err)
		}
	}
}
