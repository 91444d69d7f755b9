package chunk

import (
	"crypto/sha256"
	"math/rand/v2"
	"slices"
	"testing"
)

func random(seed uint64, n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(data)
	return data
}

func cuts(c *Chunker, data []byte) (lengths []int) {
	for len(data) > 0 {
		n := c.Cut(data)
		lengths = append(lengths, n)
		data = data[n:]
	}
	return lengths
}

// slowCut is the definition: one byte at a time.
func slowCut(c *Chunker, data []byte) int {
	hash := uint64(0)
	for i, b := range data {
		if i == MaxSize {
			return i
		}
		if i >= MinSize-64 {
			hash = hash<<1 + c.gear[b]
		}
		limit := uint64(1) << (64 - hardBits)
		if i >= normalSize {
			limit = 1 << (64 - easyBits)
		}
		if i >= MinSize && hash < limit {
			return i + 1
		}
	}
	return len(data)
}

func TestCutsAreThoseOfTheDefinition(t *testing.T) {
	c := New(0x3DA3358B4DC173)
	data := random(1, 40<<20+12345)
	for off := 0; off < len(data); {
		want := slowCut(c, data[off:])
		if got := c.Cut(data[off:]); got != want {
			t.Fatalf("at %d: cut after %d, want %d", off, got, want)
		}
		off += want
	}
}

func TestScannerCutsLikeCut(t *testing.T) {
	c := New(5)
	data := random(6, 30<<20)
	want := cuts(c, data)
	r := rand.New(rand.NewPCG(1, 1))
	s := c.Scan()
	var got []int
	from, to := 0, 0
	for to < len(data) {
		to = min(to+1+r.IntN(700<<10), len(data))
		for {
			n, ok := s.Next(data[from:to])
			if !ok {
				break
			}
			got = append(got, n)
			from += n
		}
	}
	if got = append(got, to-from); !slices.Equal(got, want) {
		t.Errorf("cut into %v, want %v", got, want)
	}
}

func TestBounds(t *testing.T) {
	c := New(7)
	for _, n := range []int{0, 1, MinSize - 1, MinSize} {
		if got := c.Cut(make([]byte, n)); got != n {
			t.Errorf("%d bytes are cut after %d", n, got)
		}
	}
	if got := c.Cut(make([]byte, 3*MaxSize)); got > MaxSize || got < MinSize {
		t.Errorf("zeros are cut after %d", got)
	}
	lengths := cuts(c, random(2, 200<<20))
	total := 0
	for _, n := range lengths[:len(lengths)-1] {
		if n < MinSize || n > MaxSize {
			t.Errorf("chunk of %d bytes", n)
		}
		total += n
	}
	if mean := total / (len(lengths) - 1); mean < 1<<20 || mean > 3<<19 {
		t.Errorf("chunks have %d bytes on average", mean)
	}
}

func TestAnInsertionChangesOnlyWhatIsNear(t *testing.T) {
	c := New(11)
	data := random(3, 32<<20)
	sums := func(data []byte) map[[32]byte]bool {
		m := make(map[[32]byte]bool)
		for _, n := range cuts(c, data) {
			m[sha256.Sum256(data[:n])] = true
			data = data[n:]
		}
		return m
	}
	before := sums(data)
	after := sums(slices.Insert(slices.Clone(data), 16<<20, 'x'))
	fresh := 0
	for sum := range after {
		if !before[sum] {
			fresh++
		}
	}
	if fresh == 0 || fresh > 3 {
		t.Errorf("one byte more made %d of %d chunks new", fresh, len(after))
	}
}

func TestBoundariesDependOnThePolynomial(t *testing.T) {
	data := random(4, 8<<20)
	if slices.Equal(cuts(New(1), data), cuts(New(2), data)) {
		t.Error("two repositories cut at the same places")
	}
}

func BenchmarkCut(b *testing.B) {
	c := New(0x3DA3358B4DC173)
	data := random(5, 64<<20)
	b.Run("chunks", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			cuts(c, data)
		}
	})
	b.Run("scan", func(b *testing.B) { // without the skipped minimum
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			c.scan(data, 0, 0)
		}
	})
}
