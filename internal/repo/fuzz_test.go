package repo

import (
	"slices"
	"testing"
)

func FuzzDecodeIndex(f *testing.F) {
	f.Add(encodeIndex(nil))
	f.Add(encodeIndex([]indexPack{{ID: numberedID(1), Blobs: packBlobsOf(3)}}))
	f.Add([]byte(`{"supersedes":["` + numberedID(2).String() + `"],"packs":[{"id":"` + numberedID(1).String() + `","blobs":null}]}`))
	f.Add([]byte(`{"packs":[{"id":"","blobs":[{"id":"x","type":"tree","offset":-1}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := decodeIndex(data)
		slow, slowErr := decodeAnyIndex(data)
		if (err == nil) != (slowErr == nil) || err == nil && !sameIndex(file, slow) {
			t.Fatalf("the scanner and encoding/json differ: %+v, %v; %+v, %v", file, err, slow, slowErr)
		}
		if err != nil {
			return
		}
		again, err := decodeIndex(encodeIndex(file.Packs))
		if err != nil || !sameIndex(again, file) {
			t.Fatalf("what was decoded does not survive: %+v became %+v, %v", file, again, err)
		}
		idx := newMemIndex()
		for _, p := range file.Packs {
			idx.add(p.ID, p.Blobs, true)
			for _, b := range p.Blobs {
				if _, ok := idx.has(b.Handle); !ok {
					t.Fatalf("blob %s is not found", b.Handle)
				}
			}
		}
	})
}

func sameIndex(a, b indexFile) bool {
	return slices.EqualFunc(a.Packs, b.Packs, func(a, b indexPack) bool {
		return a.ID == b.ID && slices.Equal(a.Blobs, b.Blobs)
	})
}

func FuzzDecodeSnapshot(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-02T03:04:05Z","tree":"` + numberedID(1).String() + `","paths":["/a"],"hostname":"h","tags":["epoch:7"],"summary":{"files_new":1}}`))
	f.Add([]byte(`{"tree":""}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		sn, err := decodeSnapshot(data)
		if err != nil {
			return
		}
		plain, err := encodeSnapshot(sn)
		if err != nil {
			return // a year that JSON cannot say
		}
		if again, err := decodeSnapshot(plain); err != nil || *again.Tree != *sn.Tree {
			t.Fatalf("what was decoded does not survive: %v", err)
		}
	})
}

func FuzzDecodeLock(f *testing.F) {
	f.Add([]byte(`{"time":"2015-06-27T12:18:51.759239612+02:00","exclusive":false,"hostname":"kasimir","username":"fd0","pid":13607,"uid":1000,"gid":100}`))
	f.Add([]byte(`{"pid":-1,"hostname":""}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if c, err := decodeLock(data); err == nil {
			c.stale()
		}
	})
}

func FuzzDecodeConfig(f *testing.F) {
	f.Add([]byte(`{"version":2,"id":"5956a3f67a6230d4a92cefb29529f10196c7d92582ec305fd71ff6d331d6271b","chunker_polynomial":"25b468838dcb75"}`))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if cfg, err := decodeConfig(data); err == nil && (cfg.Version != 2 || len(cfg.ID) != 64) {
			t.Fatalf("accepted %+v", cfg)
		}
	})
}

// FuzzUnpack: whatever is inside an authentic file, unpacking it ends and does not panic.
func FuzzUnpack(f *testing.F) {
	r := &Repository{zstd: newCompressor(CompressionAuto)}
	f.Add(r.zstd.all([]byte{compressedVersion}, []byte(`{"packs":[]}`)))
	f.Add([]byte(`{}`))
	f.Add([]byte{compressedVersion})
	f.Add([]byte{3})
	f.Fuzz(func(t *testing.T, data []byte) {
		if plain, err := r.unpack(data); err == nil && len(plain) > maxUnpacked {
			t.Fatalf("%d bytes", len(plain))
		}
	})
}
