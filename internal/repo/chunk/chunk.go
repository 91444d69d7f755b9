// Package chunk cuts a byte stream where its content says so, so that an
// insertion changes only the chunks near it.
//
// It is FastCDC (Xia et al., USENIX ATC 2016: a gear hash, a skipped minimum,
// normalised sizes) with restic's bounds. The gear table is derived from the
// repository's chunker polynomial, which is secret, so the lengths of chunks do
// not tell which known file they come from. restic reads whatever chunks there
// are; it cuts in other places, so what both back up is stored twice. Reading
// the stream and hashing chunks is left to the caller.
package chunk

import (
	"crypto/sha256"
	"encoding/binary"
)

// The bounds of a chunk, in bytes. Input of at most MinSize is one chunk.
const (
	MinSize = 512 << 10
	MaxSize = 8 << 20

	// normalSize is where the cutting condition becomes easier. With it the mean
	// is about 1.2 MiB on random data.
	normalSize = 1 << 20
	hardBits   = 21 // a cut at one byte in 2^21 before normalSize
	easyBits   = 18 // and at one in 2^18 after it
)

// Chunker finds cut points. It is constant, and many goroutines may use it.
type Chunker struct {
	gear [256]uint64
}

// New returns the Chunker of a repository with this polynomial.
func New(polynomial uint64) *Chunker {
	c := new(Chunker)
	var seed [24]byte
	copy(seed[:], "drover gear 1")
	binary.LittleEndian.PutUint64(seed[14:], polynomial)
	for i := range c.gear {
		seed[23] = byte(i)
		sum := sha256.Sum256(seed[:])
		c.gear[i] = binary.LittleEndian.Uint64(sum[:])
	}
	return c
}

// Cut returns the length of the first chunk of data. If data does not end the
// stream it must hold at least MaxSize bytes, else the cut may be another one.
func (c *Chunker) Cut(data []byte) int {
	n, ok := c.Scan().Next(data)
	if !ok {
		n = len(data)
	}
	return n
}

// Scan returns a Scanner for the first chunk.
func (c *Chunker) Scan() *Scanner { return &Scanner{c: c} }

// Scanner finds the end of one chunk after another in a stream that arrives
// piece by piece.
type Scanner struct {
	c    *Chunker
	pos  int // bytes of the chunk that were looked at
	hash uint64
}

// Next looks at data, all that is there of the chunk so far: what the last call
// got and more. It returns the chunk's length and true once its end is known,
// after which the Scanner is ready for the next chunk. At the end of the stream
// what is left is the last chunk.
func (s *Scanner) Next(data []byte) (int, bool) {
	n := min(len(data), MaxSize)
	if s.pos < MinSize {
		if n <= MinSize {
			return 0, false
		}
		// The hash covers the last 64 bytes, so begin early enough that the first
		// place where a cut may be already depends on a full window.
		for _, b := range data[MinSize-64 : MinSize] {
			s.hash = s.hash<<1 + s.c.gear[b]
		}
		s.pos = MinSize
	}
	if s.scan(data[:min(n, normalSize)], 1<<(64-hardBits)) || s.scan(data[:n], 1<<(64-easyBits)) || s.pos == MaxSize {
		n = s.pos
		s.pos, s.hash = 0, 0
		return n, true
	}
	return 0, false
}

// scan goes on to the end of data, or to a cut.
func (s *Scanner) scan(data []byte, limit uint64) bool {
	if s.pos >= len(data) {
		return false
	}
	n, hash := s.c.scan(data[s.pos:], s.hash, limit)
	s.hash = hash
	if n < 0 {
		s.pos = len(data)
		return false
	}
	s.pos += n
	return true
}

// scan returns the length after which the hash is below limit, -1 for none.
// The hash's high bits, which a comparison looks at, depend on the most bytes.
func (c *Chunker) scan(data []byte, hash, limit uint64) (int, uint64) {
	gear := &c.gear
	i := 0
	for ; i+8 <= len(data); i += 8 {
		d := data[i : i+8 : i+8]
		h0 := hash<<1 + gear[d[0]]
		h1 := h0<<1 + gear[d[1]]
		h2 := h1<<1 + gear[d[2]]
		h3 := h2<<1 + gear[d[3]]
		h4 := h3<<1 + gear[d[4]]
		h5 := h4<<1 + gear[d[5]]
		h6 := h5<<1 + gear[d[6]]
		h7 := h6<<1 + gear[d[7]]
		if min(h0, h1, h2, h3, h4, h5, h6, h7) < limit {
			break // the loop below finds which
		}
		hash = h7
	}
	for ; i < len(data); i++ {
		if hash = hash<<1 + gear[data[i]]; hash < limit {
			return i + 1, hash
		}
	}
	return -1, hash
}
