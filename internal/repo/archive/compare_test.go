package archive

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"drover/internal/repo"
	"drover/internal/repo/chunk"
)

// edits are changes of a long file, each with the most bytes that should be stored
// after it.
func edits(r *rand.Rand) []struct {
	name string
	most uint64
	do   func([]byte) []byte
} {
	noise := func(n int) []byte { return randomBytes(r.Uint64(), n) }
	return []struct {
		name string
		most uint64
		do   func([]byte) []byte
	}{
		{"a page", 2 * chunk.MaxSize, func(b []byte) []byte { copy(b[r.IntN(len(b)-16<<10):], noise(16<<10)); return b }},
		{"a byte at each end", 3 * chunk.MaxSize, func(b []byte) []byte { b[0]++; b[len(b)-1]++; return b }},
		{"an insertion", 100 << 20, func(b []byte) []byte {
			at := r.IntN(len(b))
			return append(append(bytes.Clone(b[:at]), noise(12345)...), b[at:]...)
		}},
		{"longer", 3 * chunk.MaxSize, func(b []byte) []byte { return append(b, noise(3<<20)...) }},
		{"shorter", 2 * chunk.MaxSize, func(b []byte) []byte { return b[:len(b)-len(b)/3] }},
		{"another", 100 << 20, func(b []byte) []byte { return noise(len(b)) }},
		{"nothing", 0, func(b []byte) []byte { return b }},
		{"short", 4 << 20, func([]byte) []byte { return noise(1 << 20) }},
		{"long again", 100 << 20, func([]byte) []byte { return noise(16 << 20) }},
	}
}

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

// Whatever became of a long file, what is stored is what stands in it, and not much
// more of it is stored, nor copied in two steps, than changed.
func TestLongFilesAreCompared(t *testing.T) {
	for _, steps := range []int{1, 2} {
		t.Run(fmt.Sprint(steps, " steps"), func(t *testing.T) {
			r, dir := newRepo(t), t.TempDir()
			file := filepath.Join(dir, "long")
			random := rand.New(rand.NewPCG(1, uint64(steps)))
			content := randomBytes(0, 24<<20)
			write(t, file, string(content))
			opt := Options{Paths: []string{dir}}
			res := backUp(t, r, opt)
			const trees = 8 << 10 // bytes
			for round := range 2 {
				for _, e := range edits(random) {
					content = e.do(content)
					write(t, file, string(content))
					opt.ParentTree, opt.ParentTime = res.Tree, settled()
					opt.Changed = &ChangedSet{Paths: []string{file}}
					var stored uint64
					res, stored = storedBy(t, r, opt, steps, e.most)
					if stored > e.most+trees {
						t.Errorf("round %d, %s: %d bytes were stored", round, e.name, stored)
					}
					if got := listing(t, r, res.Tree)[file]; got != string(content) {
						t.Fatalf("round %d, %s: other content, %d bytes, want %d", round, e.name, len(got), len(content))
					}
				}
			}
		})
	}
}

// storedBy backs up in one step or two, of which the first may copy at most most bytes.
func storedBy(t *testing.T, r *repo.Repository, opt Options, steps int, most uint64) (*Result, uint64) {
	t.Helper()
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	defer w.Abort()
	var res *Result
	var err error
	if steps == 1 {
		res, err = Run(t.Context(), w, r, opt)
	} else {
		stage := NewStage(t.TempDir(), 1<<20)
		defer stage.Close()
		stage.noClone.Store(true)
		var l *Looked
		if l, err = Look(t.Context(), w, r, opt, stage); err == nil {
			if copied := uint64(stage.Bytes()); copied > most {
				t.Errorf("%d bytes were copied, want at most %d", copied, most)
			}
			res, err = l.Store(t.Context())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	_, stats, err := w.Finish(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res, stats.Stored
}

// In a later pass of the same writer the chunks are in no index yet.
func TestChunksOfAnEarlierPassAreKnown(t *testing.T) {
	r, dir := newRepo(t), t.TempDir()
	file := filepath.Join(dir, "long")
	content := randomBytes(1, 20<<20)
	write(t, file, string(content))
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	defer w.Abort()
	cache, err := OpenDirCache(t.TempDir(), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Paths: []string{dir}, Cache: cache}
	first, err := Run(t.Context(), w, r, opt)
	if err != nil {
		t.Fatal(err)
	}
	content[10<<20]++
	write(t, file, string(content))
	opt.ParentTree, opt.ParentTime, opt.Changed = first.Tree, settled(), &ChangedSet{Paths: []string{file}}
	stage := NewStage(t.TempDir(), 1<<30)
	defer stage.Close()
	stage.noClone.Store(true)
	l, err := Look(t.Context(), w, r, opt, stage)
	if err != nil {
		t.Fatal(err)
	}
	if stage.Bytes() > chunk.MaxSize {
		t.Errorf("%d bytes were copied", stage.Bytes())
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	res, err := l.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Finish(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, r, res.Tree)[file]; got != string(content) {
		t.Errorf("other content, %d bytes", len(got))
	}
}
