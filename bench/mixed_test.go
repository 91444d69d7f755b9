//go:build bench

package bench

import (
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestMixed: first backup and full restore of sources, binaries and incompressible
// files, over 2 GB in all, on the same S3 server.
func TestMixed(t *testing.T) {
	b := newBed(t, 0)
	tree := filepath.Join(b.dir, "tree")
	n, bytes := makeMixed(t, tree)
	t.Logf("tree: %d files, %.2f GB", n, float64(bytes)/1e9)
	var backup, resticBackup figures
	var disk, memory pair
	for i := range 3 {
		prefix := string(rune('a' + i))
		sync(t)
		b.timed("d", b.drover, "init", "--store", b.storeURL("drover-"+prefix))
		backup = append(backup, b.timed("d", b.drover, "snapshot", "--store", b.storeURL("drover-"+prefix), tree))
		sync(t)
		b.timed("r", b.restic, "-r", b.resticRepo("restic-"+prefix), "init")
		resticBackup = append(resticBackup, b.timed("r", b.restic, "-r", b.resticRepo("restic-"+prefix), "backup", "-q", tree))
		b.restores(&disk, prefix, tree, b.dir, i == 0)
		b.restores(&memory, prefix, tree, inMemory(t), false)
	}
	limit := b.writeLimit(bytes)
	report(t, "first backup, mixed tree", backup, resticBackup, "restic", "at least 1.5×")
	report(t, "full restore to memory, mixed tree", memory.drover, memory.restic, "restic", "at least 2×")
	report(t, "full restore to disk, mixed tree", disk.drover, disk.restic, "restic", "at least 2×, or the disk's limit")
	rate := func(f figures) float64 { return float64(bytes) / 1e6 / f.median().Seconds() }
	t.Logf("RESULT drover: backup %.0f MB/s; restore %.0f MB/s to memory, %.0f to disk, where writing as many zeros takes %v (%.0f MB/s)",
		rate(backup), rate(memory.drover), rate(disk.drover), round(limit.median()), rate(limit))
}

// pair is the same thing measured of both.
type pair struct{ drover, restic figures }

// restores restores both repositories below dir, and removes what they made.
func (b *bed) restores(p *pair, prefix, tree, dir string, compare bool) {
	b.t.Helper()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	sync(b.t)
	p.drover = append(p.drover, b.timed("d", b.drover, "restore", "--store", b.storeURL("drover-"+prefix), "--target", ours))
	if compare {
		same(b.t, tree, filepath.Join(ours, tree))
	}
	remove(b.t, ours)
	sync(b.t)
	p.restic = append(p.restic, b.timed("r", b.restic, "-r", b.resticRepo("restic-"+prefix), "restore", "latest", "-q", "--target", theirs))
	remove(b.t, theirs)
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

// writeLimit is how long the disk takes for so many bytes, with nothing to compute.
func (b *bed) writeLimit(bytes int64) figures {
	b.t.Helper()
	var f figures
	for range 3 {
		sync(b.t)
		path := filepath.Join(b.dir, "zeros")
		f = append(f, b.timed("limit", "dd", "if=/dev/zero", "of="+path, "bs=1M", "status=none", "count="+strconv.FormatInt(bytes>>20, 10)))
		remove(b.t, path)
	}
	return f
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
