package changes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEachKindOfChange(t *testing.T) {
	dir := t.TempDir()
	outside := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write(t, in("f"), "one")
	write(t, in("g"), "one")
	must(t, os.MkdirAll(in("d/e"), 0o755))
	write(t, in("d/e/h"), "one")
	write(t, filepath.Join(outside, "x"), "one")
	tr := watch(t, Options{}, dir)
	steps := []struct {
		what string
		do   func() error
		want []string
	}{
		{"nothing", func() error { return nil }, nil},
		{"write", func() error { return os.WriteFile(in("f"), []byte("two"), 0) }, []string{"f"}},
		{"truncate", func() error { return os.Truncate(in("f"), 1) }, []string{"f"}},
		{"chmod", func() error { return os.Chmod(in("g"), 0o600) }, []string{"g"}},
		{"touch", func() error { return os.Chtimes(in("g"), time.Unix(1, 0), time.Unix(1, 0)) }, []string{"g"}},
		{"xattr", func() error { return unix.Setxattr(in("g"), "user.a", []byte("b"), 0) }, []string{"g"}},
		{"xattr of a directory", func() error { return unix.Setxattr(in("d/e"), "user.a", []byte("b"), 0) }, []string{"d/e"}},
		{"chmod of the root", func() error { return os.Chmod(dir, 0o755) }, []string{"."}},
		{"create", func() error { return os.WriteFile(in("d/new"), nil, 0o644) }, []string{"d", "d/new"}},
		{"remove", func() error { return os.Remove(in("d/new")) }, []string{"d", "d/new"}},
		{"symlink", func() error { return os.Symlink("/etc", in("d/link")) }, []string{"d", "d/link"}},
		{"replace", func() error { return os.Rename(in("g"), in("f")) }, []string{".", "f", "g"}},
		{"hard link", func() error { return os.Link(in("f"), in("d/f2")) }, []string{"d", "d/f2"}},
		{"fifo", func() error { return unix.Mkfifo(in("d/fifo"), 0o600) }, []string{"d", "d/fifo"}},
		{"mkdir", func() error { return os.Mkdir(in("n"), 0o755) }, []string{".", "n"}},
		{"in the new directory", func() error { return os.WriteFile(in("n/x"), nil, 0o644) }, []string{"n", "n/x"}},
		{"rename a directory", func() error { return os.Rename(in("d"), in("n/d")) },
			[]string{".", "d", "n", "n/d", "n/d/e", "n/d/e/h", "n/d/f2", "n/d/fifo", "n/d/link"}},
		{"below the renamed", func() error { return os.WriteFile(in("n/d/e/h"), []byte("2"), 0) }, []string{"n/d/e/h"}},
		{"move out", func() error { return os.Rename(in("n/d"), outside+"/d") }, []string{"n", "n/d"}},
		{"no longer ours", func() error { return os.WriteFile(outside+"/d/e/h", []byte("3"), 0) }, nil},
		{"move in", func() error { return os.Rename(outside, in("o")) },
			[]string{".", "o", "o/d", "o/d/e", "o/d/e/h", "o/d/f2", "o/d/fifo", "o/d/link", "o/x"}},
		{"remove all", func() error { return os.RemoveAll(in("n")) }, []string{".", "n", "n/x"}},
		{"odd name", func() error { return os.WriteFile(in("o/\xff\n%"), nil, 0o644) }, []string{"o", "o/\xff\n%"}},
	}
	for _, s := range steps {
		must(t, s.do())
		got := drain(t, tr, dir)
		if s.what == "remove all" { // the directory itself may be reported or not
			continue
		}
		expect(t, s.what, got, s.want...)
	}
}

func TestManyDirectoriesAtOnce(t *testing.T) {
	dir := t.TempDir()
	tr := watch(t, Options{}, dir)
	deep := filepath.Join(dir, "a/b/c/d/e/f")
	must(t, os.MkdirAll(deep, 0o755))
	write(t, filepath.Join(deep, "x"), "1")
	expect(t, "mkdir -p", drain(t, tr, dir), ".", "a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/e", "a/b/c/d/e/f", "a/b/c/d/e/f/x")
	write(t, filepath.Join(deep, "x"), "2")
	expect(t, "write", drain(t, tr, dir), "a/b/c/d/e/f/x")
}

func TestExchangedDirectories(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a", "b"} {
		must(t, os.MkdirAll(filepath.Join(dir, d, "sub"), 0o755))
		write(t, filepath.Join(dir, d, "sub", "in-"+d), d)
	}
	tr := watch(t, Options{}, dir)
	must(t, unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/b", unix.RENAME_EXCHANGE))
	got := strings.Join(drain(t, tr, dir), " ")
	for _, want := range []string{"a/sub/in-b", "b/sub/in-a"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %s", got, want)
		}
	}
	write(t, dir+"/a/sub/in-b", "2")
	expect(t, "write after the exchange", drain(t, tr, dir), "a/sub/in-b")
	write(t, dir+"/b/sub/in-a", "2")
	expect(t, "write after the exchange", drain(t, tr, dir), "b/sub/in-a")
}

func TestExclude(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/cache/deep", 0o755))
	tr := watch(t, Options{Exclude: func(path string, isDir bool) bool {
		return isDir && filepath.Base(path) == "cache" || strings.HasSuffix(path, ".lock")
	}}, dir)
	write(t, dir+"/cache/deep/x", "1")
	expect(t, "below an excluded directory", drain(t, tr, dir))
	write(t, dir+"/a.lock", "1")
	expect(t, "an excluded file changes its directory's times", drain(t, tr, dir), ".")
	select {
	case <-tr.Notify():
		t.Error("an excluded file wakes")
	case <-time.After(10 * readPause):
	}
	write(t, dir+"/a", "1")
	<-tr.Notify()
	expect(t, "another file", drain(t, tr, dir), ".", "a")
}

func TestSingleFileAsRoot(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/one", "1")
	write(t, dir+"/two", "1")
	tr := watch(t, Options{}, dir+"/one")
	write(t, dir+"/two", "2")
	expect(t, "the neighbour", drain(t, tr, dir))
	write(t, dir+"/one", "2")
	expect(t, "the file", drain(t, tr, dir), "one")
	write(t, dir+"/three", "3")
	must(t, os.Rename(dir+"/three", dir+"/one"))
	expect(t, "replaced", drain(t, tr, dir), "one")
	must(t, os.Remove(dir+"/one"))
	expect(t, "removed", drain(t, tr, dir), "one")
}

func TestLinkAsRoot(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/real/sub", 0o755))
	must(t, os.MkdirAll(dir+"/other", 0o755))
	must(t, os.Symlink("real", dir+"/link"))
	tr := watch(t, Options{}, dir+"/link")
	write(t, dir+"/real/sub/x", "1")
	expect(t, "under the link's name", drain(t, tr, dir), "link/sub", "link/sub/x")
	must(t, os.Mkdir(dir+"/real/sub/new", 0o755))
	expect(t, "new directory", drain(t, tr, dir), "link/sub", "link/sub/new")
	write(t, dir+"/real/sub/new/y", "1")
	expect(t, "in the new directory", drain(t, tr, dir), "link/sub/new", "link/sub/new/y")
	must(t, os.Remove(dir+"/link"))
	must(t, os.Symlink("other", dir+"/link"))
	expect(t, "another target", drain(t, tr, dir), "ALL: replaced: "+dir+"/link")
	write(t, dir+"/other/z", "1")
	expect(t, "in the other target", drain(t, tr, dir), "link", "link/z")
}

func TestReplacedRoot(t *testing.T) {
	parent := t.TempDir()
	dir := parent + "/a/root"
	must(t, os.MkdirAll(dir, 0o755))
	tr := watch(t, Options{}, dir)
	must(t, os.Rename(parent+"/a", parent+"/b"))
	must(t, os.MkdirAll(dir, 0o755))
	expect(t, "ancestor renamed", drain(t, tr, dir), "ALL: replaced: "+dir)
	write(t, dir+"/x", "1")
	expect(t, "afterwards", drain(t, tr, dir), ".", "x")
	must(t, os.RemoveAll(dir))
	if set := tr.Drain(t.Context()); !set.All {
		t.Errorf("root removed: %+v", set)
	}
	if set := tr.Drain(t.Context()); !set.All {
		t.Errorf("root still removed: %+v", set)
	}
	must(t, os.MkdirAll(dir, 0o755))
	if set := tr.Drain(t.Context()); !set.All {
		t.Errorf("root back: %+v", set)
	}
	expect(t, "settled", drain(t, tr, dir))
}

func TestReturnedSetComesAgain(t *testing.T) {
	dir := t.TempDir()
	tr := watch(t, Options{}, dir)
	write(t, dir+"/a", "1")
	set := tr.Drain(t.Context())
	write(t, dir+"/b", "1")
	tr.Return(set)
	expect(t, "merged", drain(t, tr, dir), ".", "a", "b")
	tr.Return(Set{All: true, Reason: "broken"})
	expect(t, "all", drain(t, tr, dir), "ALL: broken")
	tr.MarkAll("a full walk")
	expect(t, "marked", drain(t, tr, dir), "ALL: a full walk")
	expect(t, "settled", drain(t, tr, dir))
}

func TestTooManyPaths(t *testing.T) {
	dir := t.TempDir()
	tr := watch(t, Options{MaxPaths: 10}, dir)
	for i := range 30 {
		write(t, fmt.Sprint(dir, "/", i), "1")
	}
	if set := tr.Drain(t.Context()); !set.All || len(set.Paths) > 10 {
		t.Errorf("%+v", set)
	}
	write(t, dir+"/1", "2")
	expect(t, "afterwards", drain(t, tr, dir), "1")
}

func TestOverflow(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"/a", "/b"} {
		write(t, dir+f, "1")
	}
	tr := watch(t, Options{}, dir)
	limit, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	must(t, err)
	var events int
	fmt.Sscan(string(limit), &events)
	a, err := os.OpenFile(dir+"/a", os.O_WRONLY, 0)
	must(t, err)
	defer a.Close()
	b, err := os.OpenFile(dir+"/b", os.O_WRONLY, 0)
	must(t, err)
	defer b.Close()
	tr.mu.Lock() // nobody reads
	for range events {
		_, err := a.WriteAt([]byte("x"), 0)
		must(t, err)
		_, err = b.WriteAt([]byte("x"), 0)
		must(t, err)
	}
	must(t, os.Mkdir(dir+"/lost", 0o755))
	tr.mu.Unlock()
	<-tr.Notify()
	expect(t, "overflow", drain(t, tr, dir), "ALL: the kernel's queue of events overflowed")
	write(t, dir+"/lost/x", "1")
	expect(t, "in the directory whose creation was lost", drain(t, tr, dir), "lost", "lost/x")
}

// Run as another user than root, who reads everything.
func TestUnreadableDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		again(t, &unix.SysProcAttr{Credential: credential(4242, 17)})
		return
	}
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/closed", 0))
	t.Cleanup(func() { _ = os.Chmod(dir+"/closed", 0o700) })
	tr, err := New([]string{dir}, Options{})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tr.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	for !tr.watching() {
		runtime.Gosched()
	}
	for range 3 {
		if set := tr.Drain(t.Context()); !set.All {
			t.Errorf("a directory cannot be watched: %+v", set)
		}
	}
	must(t, os.Chmod(dir+"/closed", 0o700))
	for tr.Drain(t.Context()).All {
		// Once for what happened in it until it was watched.
	}
	write(t, dir+"/closed/x", "1")
	expect(t, "opened", drain(t, tr, dir), "closed", "closed/x")
}

func TestMountBelowARoot(t *testing.T) {
	if os.Geteuid() != 0 {
		again(t, nil, "unshare", "--user", "--map-root-user", "--mount")
		return
	}
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/m/x", 0o755))
	must(t, os.MkdirAll(dir+"/n", 0o755))
	tr := watch(t, Options{}, dir)
	must(t, unix.Mount("none", dir+"/m", "tmpfs", 0, ""))
	mounted := true
	t.Cleanup(func() {
		if mounted {
			_ = unix.Unmount(dir+"/m", unix.MNT_DETACH)
		}
	})
	expect(t, "mounted", drain(t, tr, dir), "ALL: a file system was mounted or unmounted")
	write(t, dir+"/m/in", "1")
	expect(t, "in the mount", drain(t, tr, dir), "m", "m/in")
	must(t, unix.Mount(dir+"/m", dir+"/n", "", unix.MS_BIND, ""))
	for range 2 {
		if set := tr.Drain(t.Context()); !set.All {
			t.Errorf("the same directory in two places: %+v", set)
		}
	}
	must(t, unix.Unmount(dir+"/n", 0))
	must(t, unix.Unmount(dir+"/m", 0))
	mounted = false
	if set := tr.Drain(t.Context()); !set.All {
		t.Errorf("unmounted: %+v", set)
	}
	expect(t, "settled", drain(t, tr, dir))
	write(t, dir+"/m/x/y", "1")
	expect(t, "where the mount was", drain(t, tr, dir), "m/x", "m/x/y")
}

func TestMappedFiles(t *testing.T) {
	dir := t.TempDir()
	name := dir + "/mapped\nfile (1)"
	write(t, name, strings.Repeat("x", os.Getpagesize()))
	write(t, dir+"/mapped.lock", strings.Repeat("x", os.Getpagesize()))
	tr := watch(t, Options{Exclude: func(path string, _ bool) bool { return strings.HasSuffix(path, ".lock") }}, dir)
	s := startSilent(t, "map "+name, nil)
	startSilent(t, "map "+dir+"/mapped.lock", nil)
	for range 3 {
		s.write(t)
		expect(t, "while mapped", drain(t, tr, dir), "mapped\nfile (1)")
	}
	must(t, s.cmd.Process.Kill())
	_, _ = s.cmd.Process.Wait()
	expect(t, "let go", drain(t, tr, dir), "mapped\nfile (1)")
	expect(t, "afterwards", drain(t, tr, dir))
}

func TestAsynchronousWrites(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/table", "x")
	tr := watch(t, Options{}, dir)
	s := startSilent(t, "aio "+dir+"/table", nil)
	for range 3 {
		s.write(t)
		expect(t, "while open", drain(t, tr, dir), "table")
	}
}

// Root with few capabilities is what an agent in a container is; jobs of another
// user are looked into all the same.
func TestMappingsOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		// No job of ours is another user's then, and of the rest we know nothing.
		if err := new(silentSearch).inspectAs(1); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("looked into another user's process: %v", err)
		}
		return
	}
	if os.Getenv(againVar) == "" {
		again(t, nil, "setpriv", "--bounding-set=-all,+setuid,+setgid,+chown,+dac_override,+fowner,+kill")
		return
	}
	dir := t.TempDir()
	open(t, dir)
	name := dir + "/mapped"
	write(t, name, strings.Repeat("x", os.Getpagesize()))
	must(t, os.Chown(name, 4242, 17))
	s := startSilent(t, "map "+name, &unix.SysProcAttr{Credential: credential(4242, 17)})
	search := &silentSearch{places: []place{{root: dir, real: dir}}}
	if err := search.inspect(s.cmd.Process.Pid); !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("the test proves nothing: inspect: %v", err)
	}
	tr := watch(t, Options{}, dir)
	s.write(t)
	expect(t, "while mapped", drain(t, tr, dir), "mapped")
	write(t, dir+"/table", "x")
	must(t, os.Chown(dir+"/table", 4242, 17))
	s = startSilent(t, "aio "+dir+"/table", &unix.SysProcAttr{Credential: credential(4242, 17)})
	drain(t, tr, dir)
	s.write(t)
	expect(t, "while open", drain(t, tr, dir), "mapped", "table")
}

// Whatever was written before Drain was called is in its set, however many
// write at once.
func TestDrainIsComplete(t *testing.T) {
	dir := t.TempDir()
	const writers, rounds = 8, 40
	tr := watch(t, Options{}, dir)
	var drains sync.Mutex
	var mu sync.Mutex
	seen := map[string]bool{}
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range rounds {
				name := fmt.Sprintf("%s/w%d/%d/%d", dir, w, i%7, i)
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
					t.Error(err)
					return
				}
				if i%11 == 0 {
					_ = os.RemoveAll(fmt.Sprintf("%s/w%d/%d", dir, w, (i+3)%7))
				}
				// Another's drain may have our change: its set counts once it is noted.
				drains.Lock()
				set := tr.Drain(context.Background())
				mu.Lock()
				for _, p := range set.Paths {
					seen[p] = true
				}
				if !set.All && !seen[name] {
					t.Errorf("%s was written before the drain and is in no set", name)
				}
				mu.Unlock()
				drains.Unlock()
			}
		})
	}
	group.Wait()
}

func TestDrainWithoutRun(t *testing.T) {
	tr, err := New([]string{t.TempDir()}, Options{})
	must(t, err)
	for range 2 {
		if set := tr.Drain(t.Context()); !set.All {
			t.Errorf("%+v", set)
		}
	}
}

func TestBadRoots(t *testing.T) {
	for _, roots := range [][]string{nil, {"relative"}, {""}} {
		if _, err := New(roots, Options{}); err == nil {
			t.Errorf("%q was accepted", roots)
		}
	}
}

// The directory is found in its new place before the event that it left the old.
func TestMovedIntoANewDirectory(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/d/sub", 0o755))
	write(t, dir+"/d/sub/x", "1")
	tr := watch(t, Options{}, dir)
	tr.mu.Lock() // so that all of it is in the queue at once
	must(t, os.Mkdir(dir+"/new", 0o755))
	must(t, os.Rename(dir+"/d", dir+"/new/d"))
	tr.mu.Unlock()
	expect(t, "move", drain(t, tr, dir), ".", "d", "new", "new/d", "new/d/sub", "new/d/sub/x")
	write(t, dir+"/new/d/sub/x", "2")
	expect(t, "write", drain(t, tr, dir), "new/d/sub/x")
}
