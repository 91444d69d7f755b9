package repo

import (
	"encoding/hex"
	"math"

	"drover/internal/repo/crypto"
	"drover/internal/repo/format"
	"drover/internal/repo/pack"
)

// scanIndex reads an index in exactly the form in which restic and we write it,
// many times faster than encoding/json does: at the start of an instance every
// index object is read. It returns false if the form is any other.
func scanIndex(data []byte) (indexFile, bool) {
	s := indexScanner{b: data}
	var file indexFile
	if !s.skip(`{"packs":[`) {
		return file, false
	}
	for !s.skip(`]}`) {
		if len(file.Packs) > 0 && !s.skip(`,`) {
			return file, false
		}
		p, ok := s.pack()
		if !ok {
			return file, false
		}
		file.Packs = append(file.Packs, p)
	}
	s.skip("\n")
	return file, len(s.b) == 0
}

type indexScanner struct{ b []byte }

func (s *indexScanner) skip(text string) bool {
	if len(s.b) < len(text) || string(s.b[:len(text)]) != text {
		return false
	}
	s.b = s.b[len(text):]
	return true
}

func (s *indexScanner) id() (id format.ID, ok bool) {
	if len(s.b) < 2*len(id) {
		return id, false
	}
	if _, err := hex.Decode(id[:], s.b[:2*len(id)]); err != nil {
		return id, false
	}
	s.b = s.b[2*len(id):]
	return id, !id.IsZero()
}

func (s *indexScanner) number() (uint32, bool) {
	n, digits := uint64(0), 0
	for ; digits < len(s.b) && digits < 10 && s.b[digits] >= '0' && s.b[digits] <= '9'; digits++ {
		n = 10*n + uint64(s.b[digits]-'0')
	}
	if digits == 0 || n > math.MaxUint32 || digits > 1 && s.b[0] == '0' {
		return 0, false
	}
	s.b = s.b[digits:]
	return uint32(n), true
}

func (s *indexScanner) pack() (p indexPack, ok bool) {
	if !s.skip(`{"id":"`) {
		return p, false
	}
	if p.ID, ok = s.id(); !ok || !s.skip(`","blobs":[`) {
		return p, false
	}
	for !s.skip(`]}`) {
		if len(p.Blobs) > 0 && !s.skip(`,`) {
			return p, false
		}
		b, ok := s.blob()
		if !ok {
			return p, false
		}
		p.Blobs = append(p.Blobs, b)
	}
	return p, true
}

func (s *indexScanner) blob() (b pack.Blob, ok bool) {
	if !s.skip(`{"id":"`) {
		return b, false
	}
	if b.ID, ok = s.id(); !ok {
		return b, false
	}
	switch {
	case s.skip(`","type":"data","offset":`):
		b.Type = format.DataBlob
	case s.skip(`","type":"tree","offset":`):
		b.Type = format.TreeBlob
	default:
		return b, false
	}
	if b.Offset, ok = s.number(); !ok || !s.skip(`,"length":`) {
		return b, false
	}
	if b.Length, ok = s.number(); !ok || b.Length < crypto.Overhead {
		return b, false
	}
	if s.skip(`,"uncompressed_length":`) {
		if b.Uncompressed, ok = s.number(); !ok {
			return b, false
		}
	}
	return b, s.skip(`}`)
}
