// Package churn changes a tree of files at random, in every way that a program can, for
// tests of what notices changes.
//
// It promises that all of a round is done when it returns, and, with one actor, that the
// same seed does the same. Failures of single calls are part of it. What nobody can
// notice without looking at every file it does not do: it writes through no descriptor
// or mapping whose own name is gone while the file has another one. What must be noticed
// is left to the test.
package churn

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Tree is what is changed. The directories are there; the mappings last until Close.
type Tree struct {
	Root    string
	Outside string // a directory in the same file system, which things move to and from

	mu     sync.Mutex
	maps   [][]byte
	mapped map[uint64]bool // inodes, ever
	linked map[uint64]bool // inodes that were given another name in this round
}

// New prepares to change what is in root.
func New(root, outside string) *Tree {
	return &Tree{Root: root, Outside: outside, mapped: map[uint64]bool{}, linked: map[uint64]bool{}}
}

// Close ends the mappings.
func (t *Tree) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.maps {
		_ = unix.Munmap(m)
	}
	t.maps = nil
}

// Round has so many actors change the tree at once.
func (t *Tree) Round(rng *rand.Rand, actors int) {
	t.linked = map[uint64]bool{}
	var group sync.WaitGroup
	for range actors {
		a := &actor{Tree: t, rng: rand.New(rand.NewPCG(rng.Uint64(), 1))}
		steps := 1 + rng.IntN(60)
		group.Go(func() {
			for range steps {
				a.step()
			}
		})
	}
	group.Wait()
}

// Linked reports whether the file was given another name in the last round, be it gone.
func (t *Tree) Linked(inode uint64) bool { return t.linked[inode] }

type actor struct {
	*Tree
	rng *rand.Rand
}

// step does one thing to a file and a directory that may be there.
func (a *actor) step() {
	all := slices.Concat(contents, names, metadata)
	all[a.rng.IntN(len(all))](a, a.name(false), a.name(true), a.rng.IntN(1000))
}

// name is a path in the tree: few, so that actions meet.
func (a *actor) name(dir bool) string {
	parts := []string{a.Root}
	for range a.rng.IntN(4) {
		parts = append(parts, "d"+strconv.Itoa(a.rng.IntN(3)))
	}
	if !dir {
		parts = append(parts, "f"+strconv.Itoa(a.rng.IntN(4)))
	}
	return strings.Join(parts, "/")
}

func (a *actor) away() string { return a.Outside + "/" + strconv.Itoa(a.rng.IntN(4)) }

type action func(a *actor, file, dir string, n int)

// open has f write to a file that is there; no FIFO keeps it waiting.
func open(file string, f func(fd int)) { openWith(file, unix.O_RDWR|unix.O_NOFOLLOW, f) }

func openWith(file string, flags int, f func(fd int)) {
	if fd, err := unix.Open(file, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o644); err == nil {
		f(fd)
		_ = unix.Close(fd)
	}
}

func overwrite(file string, text []byte) {
	openWith(file, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, func(fd int) { _, _ = unix.Write(fd, text) })
}

// page is a file's size that can be mapped and punched.
var page = int64(os.Getpagesize())

var contents = []action{
	func(_ *actor, file, _ string, n int) { overwrite(file, []byte(strconv.Itoa(n))) },
	func(_ *actor, file, _ string, n int) { overwrite(file, slices.Repeat([]byte{byte(n)}, int(2*page))) },
	func(_ *actor, file, _ string, n int) { // the size stays, and perhaps the time
		open(file, func(fd int) { _, _ = unix.Pwrite(fd, []byte{byte(n)}, 0) })
	},
	func(_ *actor, file, _ string, n int) {
		open(file, func(fd int) {
			_, _ = unix.Seek(fd, 0, unix.SEEK_END)
			_, _ = unix.Write(fd, []byte(strconv.Itoa(n)))
		})
	},
	func(_ *actor, file, _ string, n int) { _ = os.Truncate(file, int64(n%50)) },
	func(_ *actor, file, _ string, n int) {
		open(file, func(fd int) { _ = unix.Fallocate(fd, 0, 0, page+int64(n)) })
	},
	func(_ *actor, file, _ string, _ int) {
		open(file, func(fd int) {
			_ = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, page)
		})
	},
	func(_ *actor, file, _ string, n int) {
		open(file, func(fd int) { _ = unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, int64(n%7), page/2) })
	},
	func(a *actor, file, _ string, n int) { a.copyRange(a.name(false), file, n) },
	func(a *actor, file, _ string, n int) { a.mapAndWrite(file, byte(n)) },
	func(a *actor, file, _ string, n int) { a.removeWhileOpen(file, n) },
}

var names = []action{
	func(a *actor, file, _ string, _ int) { _ = os.Rename(file, a.name(false)) },
	func(a *actor, _, dir string, _ int) { a.move(dir, a.name(true), 0) },
	func(a *actor, _, dir string, _ int) { a.move(dir, a.away(), 0) },
	func(a *actor, _, dir string, _ int) { a.move(a.away(), dir, 0) },
	func(a *actor, _, dir string, _ int) { a.move(dir, a.name(true), unix.RENAME_EXCHANGE) },
	func(_ *actor, _, dir string, _ int) { _ = os.MkdirAll(dir, 0o755) },
	func(_ *actor, _, dir string, _ int) { _ = os.MkdirAll(dir, 0o755) },
	func(a *actor, _, dir string, _ int) {
		if dir != a.Root {
			_ = os.RemoveAll(dir)
		}
	},
	func(_ *actor, file, _ string, n int) { _ = os.Symlink(strconv.Itoa(n), file) },
	func(_ *actor, file, _ string, _ int) { _ = unix.Mkfifo(file, 0o600) },
	func(a *actor, file, _ string, _ int) { a.link(file, a.name(false)) },
	func(a *actor, file, dir string, n int) { // written before it has a name
		if fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY, 0o600); err == nil {
			_, _ = unix.Write(fd, []byte(strconv.Itoa(n)))
			_ = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), unix.AT_FDCWD, file, unix.AT_SYMLINK_FOLLOW)
			_ = unix.Close(fd)
		}
	},
}

var metadata = []action{
	func(_ *actor, file, _ string, n int) { _ = os.Chmod(file, fs.FileMode(0o600+n%8)) },
	func(_ *actor, _, dir string, n int) { _ = os.Chmod(dir, fs.FileMode(0o700+n%8)) },
	func(_ *actor, file, _ string, n int) { _ = os.Lchown(file, n%3, n%5) },
	func(_ *actor, file, _ string, n int) { _ = unix.Lsetxattr(file, "user.a", []byte(strconv.Itoa(n)), 0) },
	func(_ *actor, _, dir string, n int) { _ = unix.Lsetxattr(dir, "user.a", []byte(strconv.Itoa(n)), 0) },
	func(_ *actor, file, dir string, _ int) {
		_ = unix.Lremovexattr(file, "user.a")
		_ = unix.Lremovexattr(dir, "user.a")
	},
	func(_ *actor, file, _ string, n int) {
		_ = os.Chtimes(file, time.Unix(int64(n), 0), time.Unix(int64(n), 0))
	},
}

// move renames what is below the root.
func (a *actor) move(from, to string, flags uint) {
	if from != a.Root && to != a.Root {
		_ = unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
	}
}

// copyRange copies within the kernel, to the beginning or behind the end.
func (a *actor) copyRange(from, to string, n int) {
	open(from, func(in int) {
		open(to, func(out int) {
			at := int64(n % 2 * 100)
			_, _ = unix.CopyFileRange(in, nil, out, &at, 64, 0)
		})
	})
}

// removeWhileOpen writes to a file without a name.
func (a *actor) removeWhileOpen(file string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	open(file, func(fd int) {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Nlink == 1 && os.Remove(file) == nil {
			_, _ = unix.Write(fd, []byte(strconv.Itoa(n)))
		}
	})
}

// link gives a file another name. A file that is mapped keeps one.
func (a *actor) link(file, other string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var st unix.Stat_t
	if unix.Lstat(file, &st) == nil && !a.mapped[st.Ino] && os.Link(file, other) == nil {
		a.linked[st.Ino] = true
		// Another actor may have replaced the file in between.
		if unix.Lstat(other, &st) == nil {
			a.linked[st.Ino] = true
		}
	}
}

// mapAndWrite writes through a new mapping, and through those made before.
func (a *actor) mapAndWrite(file string, b byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	open(file, func(fd int) {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || unix.Ftruncate(fd, page) != nil || len(a.maps) >= 8 || st.Nlink != 1 {
			return
		}
		a.mapped[st.Ino] = true
		if m, err := unix.Mmap(fd, 0, int(page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
			a.maps = append(a.maps, m)
		}
	})
	if len(a.maps) > 0 && b%4 == 0 {
		i := int(b/4) % len(a.maps)
		_ = unix.Munmap(a.maps[i])
		a.maps = slices.Delete(a.maps, i, i+1)
	}
	for _, m := range a.maps {
		poke(m, b)
	}
}

// poke writes to a mapping whose file others may have truncated, by way of the kernel,
// which returns an error where the processor would raise SIGBUS.
func poke(m []byte, b byte) {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	_, _ = w.Write([]byte{b})
	_, _ = unix.Read(int(r.Fd()), m[:1])
	_ = r.Close()
	_ = w.Close()
}
