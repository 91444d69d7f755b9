package wal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// An object is: one byte with the format, a nonce, and AES-256-GCM of (a byte that says how,
// the content's length, the content compressed by zstd or as it is), with the object's key as
// authenticated data: so none can be put in another's place.
const (
	objectFormat = 1
	nonceSize    = 12
	stored       = 0
	compressed   = 1
	prefixSize   = 1 + 8
	// maxContent bounds what an object may unfold to, in bytes: the largest segment.
	maxContent = 1 << 30
)

// sealer makes and opens objects.
type sealer struct {
	gcm      cipher.AEAD
	encoders sync.Pool // of *zstd.Encoder
	decoders sync.Pool // of *zstd.Decoder
}

func newSealer(secret []byte) (*sealer, error) {
	if len(secret) != 32 {
		return nil, fmt.Errorf("a key of %d bytes is none of 32", len(secret))
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("make a cipher: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make a cipher: %w", err)
	}
	s := &sealer{gcm: gcm}
	s.encoders.New = func() any {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // only wrong options, and these are constants
		}
		return e
	}
	s.decoders.New = func() any {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic(err) // only wrong options, and these are constants
		}
		return d
	}
	return s, nil
}

// Seal makes the object for key.
func (s *sealer) Seal(key string, content []byte) []byte {
	const head = 1 + nonceSize
	room := head + prefixSize + len(content) + s.gcm.Overhead()
	out := make([]byte, head+prefixSize, room)
	out[0] = objectFormat
	_, _ = rand.Read(out[1:head]) // it never fails, or ends the process
	e := s.encoders.Get().(*zstd.Encoder)
	out = e.EncodeAll(content, out)
	s.encoders.Put(e)
	out[head] = compressed
	if len(out)-head-prefixSize >= len(content) {
		out = append(out[:head+prefixSize], content...)
		out[head] = stored
	}
	binary.LittleEndian.PutUint64(out[head+1:], uint64(len(content)))
	plain := out[head:]
	out = slices.Grow(out, s.gcm.Overhead())
	return s.gcm.Seal(out[:head], out[1:head], plain, additional(key))
}

func additional(key string) []byte { return []byte("drover database log\x00" + key) }

var errTooNew = errors.New("a newer version stored it: upgrade this drover")

// Open returns the content of the object of key. It changes sealed. Errors: ErrDamaged.
func (s *sealer) Open(key string, sealed []byte) ([]byte, error) {
	const head = 1 + nonceSize
	if len(sealed) < head+prefixSize+s.gcm.Overhead() {
		return nil, fmt.Errorf("%s: %w: %d bytes are no object", key, ErrDamaged, len(sealed))
	}
	if sealed[0] > objectFormat {
		return nil, fmt.Errorf("%s: %w", key, errTooNew)
	}
	body := sealed[head:]
	plain, err := s.gcm.Open(body[:0], sealed[1:head], body, additional(key))
	if err != nil || len(plain) < prefixSize || sealed[0] != objectFormat {
		return nil, fmt.Errorf("%s: %w", key, ErrDamaged)
	}
	how, size, body := plain[0], binary.LittleEndian.Uint64(plain[1:]), plain[prefixSize:]
	switch {
	case how == stored && uint64(len(body)) == size:
		return body, nil
	case how != compressed || size > maxContent:
		return nil, fmt.Errorf("%s: %w: it contradicts itself", key, ErrDamaged)
	}
	d := s.decoders.Get().(*zstd.Decoder)
	defer s.decoders.Put(d)
	content, err := d.DecodeAll(body, make([]byte, 0, size))
	if err != nil || uint64(len(content)) != size {
		return nil, fmt.Errorf("%s: %w: it does not unfold", key, ErrDamaged)
	}
	return content, nil
}
