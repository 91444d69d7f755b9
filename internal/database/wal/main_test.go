package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const (
	system = 7300000000000000001
	size   = 1 << 20
)

var secret = bytes.Repeat([]byte{7}, 32)

// newStore is one that has a volume.
func newStore(t testing.TB) *mem.Store {
	t.Helper()
	st := mem.New()
	if err := st.Put(t.Context(), anchor, []byte("x")); err != nil {
		t.Fatal(err)
	}
	return st
}

func open(t testing.TB, st objstore.Store) *Archive {
	t.Helper()
	a, err := New(st, Options{Secret: secret, System: system})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// content is a segment's, of a seed.
func content(n Name, seed uint64) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	_, _ = r.Read(b[:size/4]) // the rest compresses
	binary.LittleEndian.PutUint16(b, 0xD110)
	binary.LittleEndian.PutUint16(b[2:], 2)
	binary.LittleEndian.PutUint32(b[4:], uint32(n.Timeline))
	binary.LittleEndian.PutUint64(b[8:], uint64(n.Begin(size)))
	binary.LittleEndian.PutUint64(b[24:], system)
	binary.LittleEndian.PutUint32(b[32:], size)
	binary.LittleEndian.PutUint32(b[36:], 8192)
	return b
}

func segment(number uint64) Name { return numbered(1, number, size) }

func push(t testing.TB, a *Archive, n Name, seed uint64) {
	t.Helper()
	if err := a.Push(t.Context(), n, content(n, seed)); err != nil {
		t.Fatal(err)
	}
}

// newDirectory is a data directory with segments that are ready to be archived.
func newDirectory(t testing.TB, first, last uint64) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, readyFolder), 0o700); err != nil {
		t.Fatal(err)
	}
	for n := first; n <= last; n++ {
		write(t, dir, segment(n), content(segment(n), n))
	}
	return dir
}

func write(t testing.TB, dir string, n Name, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, walFolder, n.String()), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, readyFolder, n.String()+".ready"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func carry(t testing.TB, a *Archive, dir string) *Courier {
	t.Helper()
	c := NewCourier(a, CourierOptions{Directory: dir})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func at(dir string, n Name) string { return filepath.Join(dir, walFolder, n.String()) }

func archived(t testing.TB, dir string, n Name) {
	t.Helper()
	ready := filepath.Join(dir, readyFolder, n.String())
	if err := os.Rename(ready+".ready", ready+".done"); err != nil {
		t.Fatal(err)
	}
}

func canceled(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
