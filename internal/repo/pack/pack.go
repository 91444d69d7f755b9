// Package pack is the layout of a pack file: sealed blobs, one after the other,
// then a sealed header that lists them, then the header's length.
//
// It promises that a header it parsed describes blobs that lie inside the pack,
// side by side. Sealing and hashing are left to the callers; it does no I/O.
//
// Source: doc/design.rst of restic, "Pack Format".
package pack

import (
	"encoding/binary"
	"errors"
	"fmt"

	"drover/internal/repo/crypto"
	"drover/internal/repo/format"
)

// Types of header entries.
const (
	typeData = iota
	typeTree
	typeCompressedData
	typeCompressedTree
)

const (
	plainEntry      = 1 + 4 + 32     // type, length, id
	compressedEntry = plainEntry + 4 // and the plain length
	lengthSize      = 4
	// maxHeader is what restic accepts as a header, in bytes.
	maxHeader = 16<<20 + crypto.Overhead
	// MaxEntries keeps a pack's header far below what readers accept.
	MaxEntries = 1 << 15
)

// ErrHeader: the header is not one of a pack file, or does not fit the pack.
var ErrHeader = errors.New("invalid pack header")

// Blob is one blob of a pack.
type Blob struct {
	format.Handle
	Offset       uint32 // bytes from the pack's start
	Length       uint32 // sealed
	Uncompressed uint32 // length of the plain blob if it is compressed, else 0
}

// End is the offset of the byte after the blob.
func (b Blob) End() int64 { return int64(b.Offset) + int64(b.Length) }

// Size is the length of the whole pack file with those blobs.
func Size(blobs []Blob) int64 {
	size := int64(crypto.Overhead + lengthSize)
	for _, b := range blobs {
		size += int64(b.Length) + int64(entrySize(b))
	}
	return size
}

// HeaderSize is the most bytes that a header of n blobs takes, with its length.
func HeaderSize(n int) int { return n*compressedEntry + crypto.Overhead + lengthSize }

func entrySize(b Blob) int {
	if b.Uncompressed != 0 {
		return compressedEntry
	}
	return plainEntry
}

// AppendHeader appends the sealed header and its length to dst. The blobs are
// in the order of their offsets, without gaps, from 0.
func AppendHeader(dst []byte, key *crypto.Key, blobs []Blob) []byte {
	start := len(dst)
	dst = key.Seal(dst, encode(blobs))
	return binary.LittleEndian.AppendUint32(dst, uint32(len(dst)-start))
}

func encode(blobs []Blob) []byte {
	out := make([]byte, 0, len(blobs)*compressedEntry)
	for _, b := range blobs {
		kind := byte(typeData)
		if b.Type == format.TreeBlob {
			kind = typeTree
		}
		if b.Uncompressed != 0 {
			kind += typeCompressedData
		}
		out = append(out, kind)
		out = binary.LittleEndian.AppendUint32(out, b.Length)
		if b.Uncompressed != 0 {
			out = binary.LittleEndian.AppendUint32(out, b.Uncompressed)
		}
		out = append(out, b.ID[:]...)
	}
	return out
}

// HeaderLength reads the sealed header's length from a pack's last bytes (at
// least four of them), for a pack of size bytes.
func HeaderLength(tail []byte, size int64) (int, error) {
	if len(tail) < lengthSize || int64(len(tail)) > size {
		return 0, fmt.Errorf("%w: the pack has %d bytes", ErrHeader, size)
	}
	n := int64(binary.LittleEndian.Uint32(tail[len(tail)-lengthSize:]))
	if n < crypto.Overhead+plainEntry || n > maxHeader || n > size-lengthSize {
		return 0, fmt.Errorf("%w: %d bytes of header in a pack of %d", ErrHeader, n, size)
	}
	return int(n), nil
}

// ParseHeader opens a sealed header, in place, of a pack of size bytes.
func ParseHeader(key *crypto.Key, sealed []byte, size int64) ([]Blob, error) {
	plain, err := key.Open(sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHeader, err)
	}
	blobs, err := decode(plain)
	if err != nil {
		return nil, err
	}
	end := size - int64(len(sealed)) - lengthSize
	if last := blobs[len(blobs)-1].End(); last != end {
		return nil, fmt.Errorf("%w: its blobs end at %d instead of %d", ErrHeader, last, end)
	}
	return blobs, nil
}

// ParseFile reads the header of a whole pack file, whose bytes stay as they are.
func ParseFile(key *crypto.Key, file []byte) ([]Blob, error) {
	size := int64(len(file))
	n, err := HeaderLength(file, size)
	if err != nil {
		return nil, err
	}
	end := len(file) - lengthSize
	return ParseHeader(key, append([]byte(nil), file[end-n:end]...), size)
}

func decode(plain []byte) ([]Blob, error) {
	blobs := make([]Blob, 0, len(plain)/plainEntry)
	offset := int64(0)
	for len(plain) > 0 {
		b, rest, err := decodeEntry(plain)
		if err != nil {
			return nil, fmt.Errorf("%w: entry %d: %w", ErrHeader, len(blobs), err)
		}
		if offset+int64(b.Length) > 1<<32-1 {
			return nil, fmt.Errorf("%w: blobs of more than 4 GiB", ErrHeader)
		}
		b.Offset = uint32(offset)
		offset += int64(b.Length)
		blobs, plain = append(blobs, b), rest
	}
	if len(blobs) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrHeader)
	}
	return blobs, nil
}

func decodeEntry(in []byte) (b Blob, rest []byte, err error) {
	kind := in[0]
	if kind > typeCompressedTree {
		return b, nil, fmt.Errorf("unknown type %d", kind)
	}
	b.Type = format.DataBlob
	if kind == typeTree || kind == typeCompressedTree {
		b.Type = format.TreeBlob
	}
	size := plainEntry
	if kind >= typeCompressedData {
		size = compressedEntry
	}
	if len(in) < size {
		return b, nil, fmt.Errorf("%d of %d bytes", len(in), size)
	}
	b.Length = binary.LittleEndian.Uint32(in[1:])
	if kind >= typeCompressedData {
		b.Uncompressed = binary.LittleEndian.Uint32(in[5:])
		if b.Uncompressed == 0 {
			return b, nil, errors.New("compressed blob of 0 bytes")
		}
	}
	copy(b.ID[:], in[size-len(b.ID):size])
	if b.Length < crypto.Overhead {
		return b, nil, fmt.Errorf("sealed length %d", b.Length)
	}
	return b, in[size:], nil
}
