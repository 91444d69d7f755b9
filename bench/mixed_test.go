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
// files, on the same S3 server.
func TestMixed(t *testing.T) {
	b := newBed(t, 0)
	tree := filepath.Join(b.dir, "tree")
	n, bytes := makeMixed(t, tree)
	t.Logf("tree: %d files, %.2f GB", n, float64(bytes)/1e9)
	tools := choose(b.droverTool(), b.tarTool(), b.resticTool(), b.kopiaTool())
	backup := b.inTurn(tools, *rounds, func(i int, tl tool) took {
		tl.prepare(strconv.Itoa(i))
		return tl.backup(strconv.Itoa(i), tree)
	})
	// On a disk what was restored stays until the end: ext4 searches long for an
	// inode where many were freed in the last minutes.
	disk := b.restores(tools, tree, func(i int, tl tool) string { return filepath.Join(b.dir, strconv.Itoa(i)+tl.name) })
	same(t, tree, filepath.Join(b.dir, "0drover", tree))
	inMemory := inMemory(t)
	memory := b.restores(tools, tree, func(int, tool) string {
		remove(t, filepath.Join(inMemory, "restored"))
		return filepath.Join(inMemory, "restored")
	})
	backup.report(t, "first backup, mixed tree", "at most 1.5 × tar|zstd; restic 2.4×, kopia 1.5×")
	memory.report(t, "full restore to memory, mixed tree", "at most 1.3 × tar|zstd; restic 1.5×, kopia 2×")
	disk.report(t, "full restore to disk, mixed tree", "the same")
	rate := func(f figures) float64 { return float64(bytes) / 1e6 / f.median().Seconds() }
	t.Logf("RESULT drover: backup %.0f MB/s; restore %.0f MB/s to memory, %.0f to disk",
		rate(backup[0].figures), rate(memory[0].figures), rate(disk[0].figures))
	remove(t, filepath.Join(inMemory, "restored"))
	toDisk, toMemory := b.copies(tree, b.dir), b.copies(tree, inMemory)
	t.Logf("RESULT limits: cp -a to memory %.0f MB/s, to disk %.0f MB/s; SHA-256 on one core %.0f MB/s",
		rate(toMemory), rate(toDisk), hashRate())
}

// restores restores what is in the repositories of the rounds.
func (b *bed) restores(tools []tool, path string, target func(round int, tl tool) string) compared {
	b.t.Helper()
	return b.inTurn(tools, *rounds, func(i int, tl tool) took {
		dir := target(i, tl)
		tl.arrive(strconv.Itoa(i))
		return tl.restore(strconv.Itoa(i), path, dir)
	})
}

// TestSmallFiles: first backup and full restore of many small files, with 20 ms
// added to each call of the store.
func TestSmallFiles(t *testing.T) {
	b := newBed(t, perCall)
	tree := filepath.Join(b.dir, "tree")
	const n = 20_000
	makeSmallFiles(t, tree, n)
	tools := choose(b.droverTool(), b.tarTool(), b.resticTool(), b.kopiaTool())
	backup := b.inTurn(tools, *rounds, func(i int, tl tool) took {
		tl.prepare(strconv.Itoa(i))
		return tl.backup(strconv.Itoa(i), tree)
	})
	memory := b.restores(tools, tree, func(i int, tl tool) string {
		return filepath.Join(b.dir, "restored", strconv.Itoa(i)+tl.name)
	})
	same(t, tree, filepath.Join(b.dir, "restored", "0drover", tree))
	backup.report(t, "first backup, 20,000 small files, 20 ms a call", "none")
	memory.report(t, "full restore to disk, 20,000 small files, 20 ms a call", "kopia 5×")
}

// copies is how long a plain copy of the tree takes.
func (b *bed) copies(tree, dir string) figures {
	b.t.Helper()
	var f figures
	for i := range 3 {
		flush(b.t)
		f = append(f, b.run("cp", "cp", "-a", tree, filepath.Join(dir, "copy"+strconv.Itoa(i))).wall)
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

// flush lets the disk come to rest, so that one run does not pay for another.
func flush(t *testing.T) {
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
	const size = 150 << 20
	large(t, filepath.Join(dir, "large", "random0"), size, 0, false)
	large(t, filepath.Join(dir, "large", "random1"), size, 1, false)
	large(t, filepath.Join(dir, "large", "table"), size, 2, true)
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
