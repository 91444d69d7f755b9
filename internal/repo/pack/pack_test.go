package pack

import (
	"errors"
	"slices"
	"testing"

	"drover/internal/repo/crypto"
	"drover/internal/repo/format"
)

func someBlobs() []Blob {
	var blobs []Blob
	offset := uint32(0)
	for i := range 8 {
		b := Blob{Offset: offset, Length: uint32(32 + i*100)}
		b.Type = format.DataBlob
		if i%2 == 1 {
			b.Type = format.TreeBlob
		}
		if i >= 4 {
			b.Uncompressed = uint32(1000 + i)
		}
		b.ID = format.Hash([]byte{byte(i)})
		blobs = append(blobs, b)
		offset += b.Length
	}
	return blobs
}

func packFile(key *crypto.Key, blobs []Blob) []byte {
	return AppendHeader(make([]byte, blobs[len(blobs)-1].End()), key, blobs)
}

func TestHeaderRoundTrip(t *testing.T) {
	key := crypto.NewRandomKey()
	blobs := someBlobs()
	file := packFile(key, blobs)
	if int64(len(file)) != Size(blobs) {
		t.Errorf("%d bytes, Size says %d", len(file), Size(blobs))
	}
	if n := len(file) - int(blobs[len(blobs)-1].End()); n > HeaderSize(len(blobs)) {
		t.Errorf("header of %d bytes, HeaderSize says at most %d", n, HeaderSize(len(blobs)))
	}
	got, err := ParseFile(key, file)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, blobs) {
		t.Errorf("got %+v, want %+v", got, blobs)
	}
}

func TestDamagedHeaderIsRefused(t *testing.T) {
	key := crypto.NewRandomKey()
	good := packFile(key, someBlobs())
	for name, damage := range map[string]func([]byte) []byte{
		"empty":         func([]byte) []byte { return nil },
		"three bytes":   func(b []byte) []byte { return b[:3] },
		"cut at end":    func(b []byte) []byte { return b[:len(b)-1] },
		"cut at start":  func(b []byte) []byte { return b[1:] },
		"grown":         func(b []byte) []byte { return append([]byte{0}, b...) },
		"bit flipped":   func(b []byte) []byte { b[len(b)-20] ^= 1; return b },
		"length of 0":   func(b []byte) []byte { copy(b[len(b)-4:], []byte{0, 0, 0, 0}); return b },
		"length of 4 G": func(b []byte) []byte { copy(b[len(b)-4:], []byte{255, 255, 255, 255}); return b },
	} {
		if _, err := ParseFile(key, damage(slices.Clone(good))); !errors.Is(err, ErrHeader) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := ParseFile(crypto.NewRandomKey(), good); !errors.Is(err, crypto.ErrAuthentication) {
		t.Errorf("another key: %v", err)
	}
}

// FuzzHeader: an authentic header with any content is refused or describes blobs
// side by side, and encodes to the same bytes.
func FuzzHeader(f *testing.F) {
	f.Add(encode(someBlobs()))
	f.Add(encode(someBlobs())[:40])
	f.Add([]byte{4})
	f.Fuzz(func(t *testing.T, plain []byte) {
		blobs, err := decode(plain)
		if err != nil {
			return
		}
		if !slices.Equal(encode(blobs), plain) {
			t.Fatal("what was decoded encodes to something else")
		}
		end := int64(0)
		for _, b := range blobs {
			if int64(b.Offset) != end || b.Length < crypto.Overhead {
				t.Fatalf("blob %+v begins not at %d", b, end)
			}
			end = b.End()
		}
	})
}

// FuzzFile: any bytes at all.
func FuzzFile(f *testing.F) {
	key := crypto.NewKey(crypto.RawKey{})
	f.Add(packFile(key, someBlobs()))
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, file []byte) {
		_, _ = ParseFile(key, file) // it is to return, whatever it says
	})
}
