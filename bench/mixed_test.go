//go:build bench

package bench

import (
	"crypto/sha256"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMixed: first backup and full restore of sources, binaries and incompressible
// files, over 2 GB in all, on the same S3 server.
func TestMixed(t *testing.T) {
	b := newBed(t, 0)
	tree := filepath.Join(b.dir, "tree")
	n, bytes := makeMixed(t, tree)
	t.Logf("tree: %d files, %.2f GB", n, float64(bytes)/1e9)
	var backup, disk, memory pair
	for i := range 5 {
		prefix := strconv.Itoa(i)
		b.inTurn(i, &backup, func() time.Duration {
			b.timed("d", b.drover, "init", "--store", b.storeURL("drover-"+prefix))
			return b.timed("d", b.drover, "snapshot", "--store", b.storeURL("drover-"+prefix), tree)
		}, func() time.Duration {
			b.timed("r", b.restic, "-r", b.resticRepo("restic-"+prefix), "init")
			return b.timed("r", b.restic, "-r", b.resticRepo("restic-"+prefix), "backup", "-q", tree)
		})
		onDisk := filepath.Join(b.dir, prefix)
		b.restores(i, &disk, prefix, onDisk)
		if i == 0 {
			same(t, tree, filepath.Join(onDisk, "ours", tree))
		}
		inMemory := inMemory(t)
		b.restores(i, &memory, prefix, inMemory)
		remove(t, inMemory)
	}
	report(t, "first backup, mixed tree", backup.drover, backup.restic, "restic", "at least 1.5×")
	report(t, "full restore to memory, mixed tree", memory.drover, memory.restic, "restic", "at least 2×")
	report(t, "full restore to disk, mixed tree", disk.drover, disk.restic, "restic", "at least 2×, or the machine's limit")
	rate := func(f figures) float64 { return float64(bytes) / 1e6 / f.median().Seconds() }
	t.Logf("RESULT drover: backup %.0f MB/s; restore %.0f MB/s to memory, %.0f to disk", rate(backup.drover), rate(memory.drover), rate(disk.drover))
	toDisk, toMemory := b.copies(tree, b.dir), b.copies(tree, inMemory(t))
	t.Logf("RESULT limits: cp -a to memory %.0f MB/s, to disk %.0f MB/s; SHA-256 on one core %.0f MB/s",
		rate(toMemory), rate(toDisk), hashRate())
}

// pair is the same thing measured of both.
type pair struct{ drover, restic figures }

// inTurn measures both, with one of them first in even rounds and the other in odd ones.
func (b *bed) inTurn(round int, p *pair, drover, restic func() time.Duration) {
	b.t.Helper()
	ours := func() { sync(b.t); p.drover = append(p.drover, drover()) }
	theirs := func() { sync(b.t); p.restic = append(p.restic, restic()) }
	if round%2 == 1 {
		ours, theirs = theirs, ours
	}
	ours()
	theirs()
}

// restores restores both repositories below dir. On a disk what they made stays until
// the end: ext4 searches long for an inode where many were freed in the last minutes.
func (b *bed) restores(round int, p *pair, prefix, dir string) {
	b.t.Helper()
	b.inTurn(round, p, func() time.Duration {
		return b.timed("d", b.drover, "restore", "--store", b.storeURL("drover-"+prefix), "--target", filepath.Join(dir, "ours"))
	}, func() time.Duration {
		return b.timed("r", b.restic, "-r", b.resticRepo("restic-"+prefix), "restore", "latest", "-q", "--target", filepath.Join(dir, "theirs"))
	})
}

// copies is how long a plain copy of the tree takes.
func (b *bed) copies(tree, dir string) figures {
	b.t.Helper()
	var f figures
	for i := range 3 {
		sync(b.t)
		f = append(f, b.timed("cp", "cp", "-a", tree, filepath.Join(dir, "copy"+strconv.Itoa(i))))
	}
	return f
}

// hashRate is how many MB one core hashes in a second.
func hashRate() float64 {
	const size = 1 << 20
	data, n, start := make([]byte, size), 0, time.Now()
	for time.Since(start) < time.Second {
		sha256.Sum256(data)
		n++
	}
	return float64(n) * size / 1e6 / time.Since(start).Seconds()
}

func remove(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// inMemory is a directory on a file system in memory.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "drover-bench-") //nolint:usetesting // TempDir is not there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, dir) })
	return dir
}

// sync lets the disk come to rest, so that one run does not pay for another.
func sync(t *testing.T) {
	t.Helper()
	if err := exec.Command("sync").Run(); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, a, b string) {
	t.Helper()
	if out, err := exec.Command("diff", "-r", "--no-dereference", a, b).CombinedOutput(); err != nil {
		t.Fatalf("restored tree differs: %v\n%s", err, out)
	}
}

// makeMixed copies the Go toolchain and adds large files: some random, some that compress.
func makeMixed(t *testing.T, dir string) (n int, bytes int64) {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "go"), os.DirFS(strings.TrimSpace(string(out)))); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		large(t, filepath.Join(dir, "large", "random"+string(rune('0'+i))), 300<<20, i, false)
	}
	for i := range 2 {
		large(t, filepath.Join(dir, "large", "table"+string(rune('0'+i))), 300<<20, i, true)
	}
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			n, bytes = n+1, bytes+info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, bytes
}

// large writes a file of size bytes: random, or words of a small vocabulary.
func large(t *testing.T, path string, size int64, seed int, words bool) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.NewChaCha8([32]byte{byte(seed), 1})
	var src io.Reader = r
	if words {
		src = &rows{r: rand.New(r)}
	}
	if _, err := io.CopyN(f, src, size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// rows yields something like a database's pages: structure, numbers, text.
type rows struct {
	r   *rand.Rand
	buf []byte
}

func (s *rows) Read(p []byte) (int, error) {
	if len(s.buf) == 0 {
		vocabulary := []string{"customer", "invoice", "paid", "open", "2026-11", "EUR", "Berlin", "Lyon"}
		for range 512 {
			s.buf = append(s.buf, vocabulary[s.r.IntN(len(vocabulary))]...)
			s.buf = append(s.buf, byte(s.r.Uint32()), byte(s.r.Uint32()), 0, 0, '|')
		}
	}
	n := copy(p, s.buf)
	s.buf = s.buf[n:]
	return n, nil
}
