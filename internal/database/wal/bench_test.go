package wal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drover/internal/objstore/faulty"
)

// BenchmarkSeal is what a segment costs besides its way.
func BenchmarkSeal(b *testing.B) {
	s, err := newSealer(secret)
	if err != nil {
		b.Fatal(err)
	}
	plain := content(segment(1), 1)
	b.SetBytes(size)
	sealed := s.Seal("key", plain)
	b.ReportMetric(float64(len(sealed))/size, "ratio")
	b.Run("seal", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			s.Seal("key", plain)
		}
	})
	b.Run("open", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if _, err := s.Open("key", append([]byte(nil), sealed...)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkStore archives segments, asked for one by one, in a store 20 ms away; without
// storing ahead each would cost that.
func BenchmarkStore(b *testing.B) {
	const many = 40
	for b.Loop() {
		b.StopTimer()
		dir := newDirectory(b, 1, many)
		st := faulty.New(newStore(b), faulty.Slow(20*time.Millisecond))
		c := NewCourier(open(b, st), CourierOptions{Directory: dir})
		b.StartTimer()
		for n := uint64(1); n <= many; n++ {
			if err := c.Store(context.Background(), at(dir, segment(n))); err != nil {
				b.Fatal(err)
			}
			archived(b, dir, segment(n))
		}
		b.StopTimer()
		_ = c.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(many*b.N)/b.Elapsed().Seconds(), "segments/s")
}

// BenchmarkBring fetches segments, asked for one by one, from a store 20 ms away.
func BenchmarkBring(b *testing.B) {
	const many = 40
	under := newStore(b)
	for n := uint64(1); n <= many; n++ {
		push(b, open(b, under), segment(n), n)
	}
	st := faulty.New(under, faulty.Slow(20*time.Millisecond))
	dir := newDirectory(b, 1, 0)
	to := filepath.Join(dir, walFolder, "RECOVERYXLOG")
	for b.Loop() {
		c := NewCourier(open(b, st), CourierOptions{Directory: dir})
		for n := uint64(1); n <= many; n++ {
			if err := c.Bring(context.Background(), segment(n).String(), to); err != nil {
				b.Fatal(err)
			}
		}
		_ = c.Close()
	}
	if _, err := os.Stat(to); err != nil {
		b.Fatal(fmt.Errorf("nothing came: %w", err))
	}
	b.ReportMetric(float64(many*b.N)/b.Elapsed().Seconds(), "segments/s")
}
