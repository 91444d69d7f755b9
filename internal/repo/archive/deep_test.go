package archive

import (
	"fmt"
	"os"
	"testing"

	"drover/internal/repo/format"

	"golang.org/x/sys/unix"
)

// TestDeepTree: deeper than any path that the kernel takes at once.
func TestDeepTree(t *testing.T) {
	const depth, name = 300, "a-name-of-twenty-byte" // 6,600 bytes of path
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for i := 0; i < depth && err == nil; i++ {
		if err = unix.Mkdirat(fd, name, 0o755); err != nil {
			break
		}
		var next int
		if next, err = unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0); err == nil {
			err = unix.Close(fd)
			fd = next
		}
	}
	if err == nil {
		err = unix.Close(fd)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := newRepo(t)
	res := backUp(t, r, Options{Paths: []string{dir}})
	id, levels := res.Tree, 0
	for {
		data, err := r.LoadBlob(t.Context(), format.Handle{Type: format.TreeBlob, ID: id}, nil)
		if err != nil {
			t.Fatal(err)
		}
		nodes, err := format.DecodeTree(data)
		if err != nil {
			t.Fatal(err)
		}
		if len(nodes) == 0 {
			break
		}
		id = *nodes[0].Subtree
		if nodes[0].Name == name {
			levels++
		}
	}
	if levels != depth {
		t.Errorf("the tree is %d levels deep, want %d", levels, depth)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// TestWideDirectory: a directory of 20,000 entries, also with one of them named.
func TestWideDirectory(t *testing.T) {
	dir := t.TempDir()
	for i := range 20_000 {
		if err := os.Symlink(fmt.Sprint(i), fmt.Sprintf("%s/%d", dir, i)); err != nil {
			t.Fatal(err)
		}
	}
	r := newRepo(t)
	first := backUp(t, r, Options{Paths: []string{dir}})
	write(t, dir+"/new", "x")
	res := backUp(t, r, Options{Paths: []string{dir}, ParentTree: first.Tree, ParentTime: settled(), Changed: &ChangedSet{Paths: []string{dir + "/new"}}})
	if got := listing(t, r, res.Tree); got[dir+"/new"] != "x" || got[dir+"/19999"] != "→ 19999" || res.Files != 1 {
		t.Errorf("%d entries, %+v", len(got), res)
	}
}
