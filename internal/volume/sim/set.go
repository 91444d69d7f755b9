package sim

import (
	"fmt"
	"math/bits"
	"strings"
)

// set is a set of small numbers: the writes that files contain, or packs.
type set [4]uint64

const setSize = 4 * 64

func (s *set) add(n int) { s[n/64] |= 1 << (n % 64) }

func (s set) union(o set) set {
	for i := range s {
		s[i] |= o[i]
	}
	return s
}

func (s set) minus(o set) set {
	for i := range s {
		s[i] &^= o[i]
	}
	return s
}

func (s set) within(o set) bool { return s.minus(o) == set{} }

func (s set) members() []int {
	var all []int
	for i, word := range s {
		for ; word != 0; word &= word - 1 {
			all = append(all, i*64+bits.TrailingZeros64(word))
		}
	}
	return all
}

func (s set) String() string {
	var b strings.Builder
	for _, n := range s.members() {
		fmt.Fprintf(&b, " %d", n)
	}
	return "{" + strings.TrimSpace(b.String()) + "}"
}
