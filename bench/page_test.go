//go:build bench

package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// TestPage: a database's file, of which one page of 16 KiB changes.
func TestPage(t *testing.T) {
	b := newBed(t, perCall)
	state := filepath.Join(b.dir, "state")
	file, size := filepath.Join(state, "table"), int64(*gigabytes)<<30
	large(t, file, size, 3, true)
	b.increments(state, fmt.Sprintf("one page of 16 KiB changed in a file of %d GB, 20 ms a call", *gigabytes),
		"uploads < 2 MB", func(i int) {
			const page = 16 << 10
			data := make([]byte, page)
			_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(data)
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			b.must(err)
			_, err = f.WriteAt(data, int64(i*7919+13)*page%size)
			b.must(err)
			b.must(f.Close())
		})
}

// TestFlat: one file of 100,000 in a single directory changes, of which the whole
// list is one object of the repository's.
func TestFlat(t *testing.T) {
	b := newBed(t, perCall)
	const n = 100_000
	state := filepath.Join(b.dir, "state")
	b.must(os.MkdirAll(filepath.Join(state, "flat"), 0o755))
	write := func(i int, text string) {
		b.must(os.WriteFile(filepath.Join(state, "flat", strconv.Itoa(i)), []byte(text), 0o644))
	}
	for i := range n {
		write(i, strconv.Itoa(i))
	}
	b.increments(state, "one changed file of 100,000 in one directory, 20 ms a call", "bounded",
		func(i int) { write((i*7919+13)%n, fmt.Sprint("changed ", i)) })
}
