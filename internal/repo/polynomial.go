package repo

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
)

// polynomialDegree is what restic's chunker uses.
const polynomialDegree = 53

// newPolynomial returns a random irreducible polynomial over GF(2) of degree 53,
// which restic demands of a config. About one in 27 candidates is irreducible.
func newPolynomial() uint64 {
	for {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			panic(err) // crypto/rand never returns an error since Go 1.24
		}
		p := binary.LittleEndian.Uint64(b[:])&(1<<polynomialDegree-1) | 1<<polynomialDegree | 1
		if irreducible(p) {
			return p
		}
	}
}

// irreducible is Ben-Or's test: f of degree n is irreducible if it has no factor
// in common with x^(2^i) - x for any i up to n/2.
func irreducible(f uint64) bool {
	power := uint64(2) // x^(2^0)
	for range (bits.Len64(f) - 1) / 2 {
		power = mulMod(power, power, f)
		if gcd(f, power^2) != 1 {
			return false
		}
	}
	return true
}

// mulMod multiplies in GF(2)[x]/f; a and b are reduced.
func mulMod(a, b, f uint64) uint64 {
	high := uint64(1) << (bits.Len64(f) - 1)
	var product uint64
	for ; b != 0; b >>= 1 {
		if b&1 != 0 {
			product ^= a
		}
		a <<= 1
		if a&high != 0 {
			a ^= f
		}
	}
	return product
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		for bits.Len64(a) >= bits.Len64(b) {
			a ^= b << (bits.Len64(a) - bits.Len64(b))
		}
		a, b = b, a
	}
	return a
}
