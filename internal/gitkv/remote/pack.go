package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/storage/memory"
)

// objects are what a pack has, by hash.
type objects = map[plumbing.Hash]plumbing.EncodedObject

// unpack takes a pack apart, within limits. What inflates to too much is found before
// anything is kept of it: a small pack may hold gigabytes.
func unpack(pack []byte, l Limits) (objects, error) {
	if err := weigh(pack, l); err != nil {
		return nil, err
	}
	store := memory.NewStorage()
	parser, err := packfile.NewParserWithStorage(packfile.NewScanner(bytes.NewReader(pack)), store)
	if err != nil {
		return nil, err
	}
	if _, err := parser.Parse(); err != nil {
		return nil, fmt.Errorf("read the pack: %w", err)
	}
	return store.Objects, nil
}

// weigh adds up what the objects of a pack will take.
func weigh(pack []byte, l Limits) error {
	scanner := packfile.NewScanner(bytes.NewReader(pack))
	_, n, err := scanner.Header()
	if err != nil {
		return fmt.Errorf("read the pack: %w", err)
	}
	var total int64
	for range n {
		header, err := scanner.NextObjectHeader()
		if err != nil {
			return fmt.Errorf("read the pack: %w", err)
		}
		sum := int64(256) // what an object takes beside its content, about
		head := &headOf{}
		if total += sum + header.Length; header.Length < 0 || total > l.Total {
			return fmt.Errorf("the commit's objects have more than %d bytes: %w", l.Total, errTooMuch)
		}
		if _, _, err := scanner.NextObject(head); err != nil { // no longer than the header says
			return fmt.Errorf("read the pack: %w", err)
		}
		if header.Type.IsDelta() {
			size, err := deltaSize(head.data)
			if err != nil {
				return fmt.Errorf("read the pack: %w", err)
			}
			if total += size; total > l.Total {
				return fmt.Errorf("the commit's objects have more than %d bytes: %w", l.Total, errTooMuch)
			}
		}
	}
	return nil
}

// headOf keeps the first few bytes that are written to it.
type headOf struct{ data []byte }

func (h *headOf) Write(p []byte) (int, error) {
	if room := 20 - len(h.data); room > 0 {
		h.data = append(h.data, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

var errDelta = errors.New("a delta without its size")

// deltaSize is how large the object is that a delta makes: the second of the two numbers
// that it begins with, seven bits in a byte, the lowest first.
func deltaSize(delta []byte) (int64, error) {
	r := bytes.NewReader(delta)
	var size int64
	for range 2 {
		size = 0
		for shift := 0; ; shift += 7 {
			b, err := r.ReadByte()
			if errors.Is(err, io.EOF) || shift > 42 {
				return 0, errDelta
			}
			size |= int64(b&0x7f) << shift
			if b&0x80 == 0 {
				break
			}
		}
	}
	return size, nil
}
