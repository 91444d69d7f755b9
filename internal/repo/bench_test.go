package repo

import (
	"context"
	"fmt"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/repo/crypto"
	"drover/internal/repo/format"

	"golang.org/x/sys/unix"
)

// perCore reports the bytes that were processed per second of processor time,
// which other load on the machine changes less than the time on the clock.
func perCore(b *testing.B, bytes int) {
	start := cpuTime(b)
	b.Cleanup(func() {
		b.ReportMetric(float64(bytes)*float64(b.N)/(cpuTime(b)-start).Seconds()/1e6, "MB/s-core")
	})
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// discard accepts packs and forgets them, so that only our own work is measured.
type discard struct{ *mem.Store }

func (discard) Put(context.Context, string, []byte) error { return nil }

// The limits: what a blob has to pass through at least.
func BenchmarkLimits(b *testing.B) {
	data := testData(1, 1<<20, false)
	b.Run("sha256", func(b *testing.B) {
		perCore(b, len(data))
		for b.Loop() {
			format.Hash(data)
		}
	})
	key := crypto.NewRandomKey()
	b.Run("seal", func(b *testing.B) {
		out := make([]byte, len(data)+crypto.Overhead)
		perCore(b, len(data))
		for b.Loop() {
			key.SealInto(out, data)
		}
	})
	for _, text := range []bool{false, true} {
		b.Run(fmt.Sprintf("zstd/text=%v", text), func(b *testing.B) {
			data := testData(1, 1<<20, text)
			c := newCompressor(CompressionAuto)
			var out []byte
			perCore(b, len(data))
			for b.Loop() {
				out, _ = c.blob(out[:0], data)
			}
		})
	}
}

// Run with -cpu 1: MB/s are then per core. Everything a new blob needs: its id,
// compression, encryption, the pack's id.
func BenchmarkSave(b *testing.B) {
	for _, size := range []int{1 << 20, 4 << 10} {
		for _, text := range []bool{false, true} {
			b.Run(fmt.Sprintf("size=%d/text=%v", size, text), func(b *testing.B) {
				r := newRepo(b, mem.New(), Options{})
				r.st = discard{mem.New()}
				data := testData(1, size, text)
				w := r.NewWriter(b.Context(), WriterOptions{})
				defer w.Abort()
				perCore(b, size)
				for i := 0; b.Loop(); i++ {
					copy(data, fmt.Sprintf("%08d", i))
					if _, err := w.Save(b.Context(), format.DataBlob, data); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// lend hands out its packs without a copy for each reader's request but one, as a
// real store would fill one buffer from the network.
func BenchmarkLoadPackBlobs(b *testing.B) {
	for _, text := range []bool{false, true} {
		b.Run(fmt.Sprintf("text=%v", text), func(b *testing.B) {
			st := mem.New()
			r := newRepo(b, st, Options{})
			w := r.NewWriter(b.Context(), WriterOptions{})
			for i := range 15 {
				if _, err := w.Save(b.Context(), format.DataBlob, testData(uint64(i), 1<<20, text)); err != nil {
					b.Fatal(err)
				}
			}
			if _, _, err := w.Finish(b.Context(), nil); err != nil {
				b.Fatal(err)
			}
			var st2 objstore.Store = st
			r.st = st2
			packs := r.idx().packBlobs()
			perCore(b, 15<<20)
			for b.Loop() {
				for id, blobs := range packs {
					err := r.LoadPackBlobs(b.Context(), id, blobs, func(_ format.Handle, _ []byte, err error) error { return err })
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkIndex(b *testing.B) {
	idx := newMemIndex()
	fillIndex(idx, 1_000_000)
	b.Run("has", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			idx.has(format.Handle{Type: format.DataBlob, ID: numberedID(i % 2_000_000)})
		}
	})
	b.Run("decode", func(b *testing.B) {
		packs := []indexPack{{ID: numberedID(1)}}
		for i := range indexBlobs {
			packs[0].Blobs = append(packs[0].Blobs, numberedBlob(i))
		}
		data := encodeIndex(packs)
		perCore(b, len(data))
		for b.Loop() {
			if _, err := decodeIndex(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
