package wal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// An object is: one byte with the format, a digest, a nonce, and AES-256-GCM of (a byte that says how,
// the content's length, the content compressed by zstd or as it is), with the object's key and the digest
// as authenticated data: so none can be put in another's place. The digest is HMAC-SHA-256 of
// key and content: who has the content tells by it, without the rest, whether it is the one that is stored.
const (
	objectFormat = 1
	digestSize   = sha256.Size
	nonceSize    = 12
	digestEnd    = 1 + digestSize
	headEnd      = digestEnd + nonceSize
	stored       = 0
	compressed   = 1
	prefixSize   = 1 + 8
	// maxContent bounds what an object may unfold to, in bytes: the largest segment.
	maxContent = 1 << 30
)

// sealer makes and opens objects.
type sealer struct {
	gcm      cipher.AEAD
	digests  []byte    // key of the digests
	encoders sync.Pool // of *zstd.Encoder
	decoders sync.Pool // of *zstd.Decoder
}

func newSealer(secret []byte) (*sealer, error) {
	if len(secret) != 32 {
		return nil, fmt.Errorf("a key of %d bytes is none of 32", len(secret))
	}
	keys, err := hkdf.Expand(sha256.New, secret, "drover database log: seal, digest", 64)
	if err != nil {
		return nil, fmt.Errorf("derive keys: %w", err)
	}
	block, err := aes.NewCipher(keys[:32])
	if err != nil {
		return nil, fmt.Errorf("make a cipher: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make a cipher: %w", err)
	}
	s := &sealer{gcm: gcm, digests: keys[32:]}
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

// digest is what an object of key with that content has in its head.
func (s *sealer) digest(key string, content []byte) []byte {
	h := hmac.New(sha256.New, s.digests)
	_, _ = h.Write([]byte(key + "\x00")) // a hash takes everything
	_, _ = h.Write(content)
	return h.Sum(nil)
}

// Seal makes the object for key.
func (s *sealer) Seal(key string, content []byte) []byte {
	out := make([]byte, headEnd+prefixSize, headEnd+prefixSize+len(content)+s.gcm.Overhead())
	out[0] = objectFormat
	copy(out[1:], s.digest(key, content))
	_, _ = rand.Read(out[digestEnd:headEnd]) // it never fails, or ends the process
	e := s.encoders.Get().(*zstd.Encoder)
	out = e.EncodeAll(content, out)
	s.encoders.Put(e)
	out[headEnd] = compressed
	if len(out)-headEnd-prefixSize >= len(content) {
		out = append(out[:headEnd+prefixSize], content...)
		out[headEnd] = stored
	}
	binary.LittleEndian.PutUint64(out[headEnd+1:], uint64(len(content)))
	out = slices.Grow(out, s.gcm.Overhead())
	return s.gcm.Seal(out[:headEnd], out[digestEnd:headEnd], out[headEnd:], additional(key, out[1:digestEnd]))
}

// Same tells by the head of an object of key whether its content is that. known is false
// if the head does not say.
func (s *sealer) Same(key string, head, content []byte) (same, known bool) {
	if len(head) < digestEnd || head[0] != objectFormat {
		return false, false
	}
	return hmac.Equal(head[1:digestEnd], s.digest(key, content)), true
}

func additional(key string, digest []byte) []byte {
	return slices.Concat([]byte("drover database log\x00"), digest, []byte(key))
}

var errTooNew = errors.New("a newer version stored it: upgrade this drover")

// Open returns the content of the object of key. It changes sealed. Errors: ErrDamaged.
func (s *sealer) Open(key string, sealed []byte) ([]byte, error) {
	if len(sealed) < headEnd+prefixSize+s.gcm.Overhead() {
		return nil, fmt.Errorf("%s: %w: %d bytes are no object", key, ErrDamaged, len(sealed))
	}
	if sealed[0] > objectFormat {
		return nil, fmt.Errorf("%s: %w", key, errTooNew)
	}
	body := sealed[headEnd:]
	plain, err := s.gcm.Open(body[:0], sealed[digestEnd:headEnd], body, additional(key, sealed[1:digestEnd]))
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
