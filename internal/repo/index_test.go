package repo

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"drover/internal/repo/format"
	"drover/internal/repo/pack"
)

func numberedID(i int) format.ID { return format.Hash(fmt.Append(nil, i)) }

func numberedBlob(i int) pack.Blob {
	b := pack.Blob{Offset: uint32(i) * 1000, Length: 1000, Uncompressed: uint32(i%3) * 500}
	b.Type, b.ID = format.DataBlob, numberedID(i)
	if i%5 == 0 {
		b.Type = format.TreeBlob
	}
	return b
}

const blobsPerPack = 16

func fillIndex(idx *memIndex, n int) {
	for i := 0; i < n; i += blobsPerPack {
		var blobs []pack.Blob
		for j := range blobsPerPack {
			blobs = append(blobs, numberedBlob(i+j))
		}
		idx.add(numberedID(-i-1), blobs, true)
	}
}

// A million blobs take about 60 MB.
func TestIndexIsCompact(t *testing.T) {
	before := heapBytes()
	idx := newMemIndex()
	const n = 1_000_000
	fillIndex(idx, n)
	used := heapBytes() - before
	t.Logf("%d blobs take %.1f MB", n, float64(used)/1e6)
	if used > 70e6 {
		t.Errorf("%d blobs take %d bytes", n, used)
	}
	for i := range n {
		b := numberedBlob(i)
		l := idx.lookup(b.Handle)
		if len(l) != 1 || l[0].Offset != b.Offset || l[0].Length != b.Length || l[0].Uncompressed != b.Uncompressed || l[0].Pack != numberedID(-(i-i%blobsPerPack)-1) {
			t.Fatalf("blob %d found at %+v", i, l)
		}
	}
	if _, ok := idx.has(format.Handle{Type: format.DataBlob, ID: numberedID(n + 1)}); ok {
		t.Error("a blob is found that was never added")
	}
}

func heapBytes() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestIndexKeepsAllCopiesAndTypesApart(t *testing.T) {
	idx := newMemIndex()
	b := numberedBlob(1)
	tree := b
	tree.Type = format.TreeBlob
	p1, p2, p3 := numberedID(101), numberedID(102), numberedID(103)
	idx.add(p1, []pack.Blob{b}, true)
	idx.add(p1, []pack.Blob{b}, true)
	idx.add(p2, []pack.Blob{b}, true)
	idx.add(p3, []pack.Blob{b}, false)
	if n := idx.len(); n != 3 {
		t.Errorf("%d entries, want 3", n)
	}
	if _, ok := idx.has(tree.Handle); ok {
		t.Error("a data blob was taken for a tree")
	}
	idx.setCondemned(map[format.ID]struct{}{p2: {}})
	var order []format.ID
	for _, l := range idx.lookup(b.Handle) {
		order = append(order, l.Pack)
	}
	if !slices.Equal(order, []format.ID{p1, p2, p3}) {
		t.Errorf("copies in the order %v, want good, condemned, missing", order)
	}
	idx.drop(map[format.ID]struct{}{p1: {}})
	if _, ok := idx.has(b.Handle); ok {
		t.Error("a dropped or condemned copy counts")
	}
	idx.add(p1, []pack.Blob{b}, true)
	if _, ok := idx.has(b.Handle); !ok {
		t.Error("a pack that was added again does not count")
	}
}

func TestIndexIsSafeForConcurrentUse(t *testing.T) {
	idx := newMemIndex()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				n := g*10_000 + i
				idx.add(numberedID(-n-1), []pack.Blob{numberedBlob(n)}, true)
				if _, ok := idx.has(numberedBlob(n).Handle); !ok {
					t.Errorf("blob %d is gone", n)
				}
				idx.lookup(numberedBlob(n / 2).Handle)
				if i%100 == 0 {
					idx.setCondemned(nil)
					idx.missing()
				}
			}
		})
	}
	wg.Wait()
}

// What we write is JSON that any reader understands, and we read it back.
func TestIndexFileRoundTrip(t *testing.T) {
	var packs []indexPack
	for i := range 3 {
		p := indexPack{ID: numberedID(1000 + i), Blobs: []pack.Blob{}}
		for j := range i {
			p.Blobs = append(p.Blobs, numberedBlob(10*i+j))
		}
		packs = append(packs, p)
	}
	data := encodeIndex(packs)
	if !json.Valid(data) {
		t.Fatalf("not JSON: %s", data)
	}
	file, ok := scanIndex(data)
	if !ok {
		t.Fatal("the scanner does not know our own form")
	}
	for i, p := range file.Packs {
		if p.ID != packs[i].ID || !slices.Equal(p.Blobs, packs[i].Blobs) {
			t.Errorf("pack %d came back as %+v", i, p)
		}
	}
}

func packBlobsOf(n int) (blobs []pack.Blob) {
	for i := range n {
		blobs = append(blobs, numberedBlob(i))
	}
	return blobs
}
