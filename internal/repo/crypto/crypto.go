// Package crypto is the encryption of a restic repository: AES-256 in counter
// mode with Poly1305-AES, keys from passwords with scrypt, and the key file.
//
// It promises that nothing it opens was changed by somebody without the key.
// Which objects are sealed, and where keys are kept, is left to the packages above.
//
// Source: doc/design.rst of restic; D. J. Bernstein, "The Poly1305-AES
// message-authentication code" (2005).
package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/poly1305" //nolint:staticcheck // the format demands Poly1305-AES, which no AEAD offers
)

// Sizes in bytes.
const (
	NonceSize = aes.BlockSize
	MACSize   = poly1305.TagSize
	Overhead  = NonceSize + MACSize // of a sealed message over its plain text
)

// ErrAuthentication: the message was not sealed with this key, or was changed.
var ErrAuthentication = errors.New("authentication failed: wrong key or changed data")

// Key encrypts and authenticates. It is immutable and safe for concurrent use.
type Key struct {
	raw   RawKey
	enc   cipher.Block
	nonce cipher.Block // Poly1305-AES's AES key
	r     [16]byte     // Poly1305's r, masked
}

// RawKey is a key's content, as the key file holds it.
type RawKey struct {
	Encrypt [32]byte
	MACK    [16]byte
	MACR    [16]byte
}

// NewKey makes a key from its content.
func NewKey(raw RawKey) *Key {
	k := &Key{raw: raw, enc: mustAES(raw.Encrypt[:]), nonce: mustAES(raw.MACK[:]), r: raw.MACR}
	maskR(&k.r)
	return k
}

// NewRandomKey makes a key from the kernel's random source.
func NewRandomKey() *Key {
	var raw RawKey
	randomBytes(raw.Encrypt[:])
	randomBytes(raw.MACK[:])
	randomBytes(raw.MACR[:])
	maskR(&raw.MACR)
	return NewKey(raw)
}

// Raw returns the key's content: a secret.
func (k *Key) Raw() RawKey { return k.raw }

// String keeps the key out of logs.
func (k *Key) String() string { return "[key]" }

// GoString keeps the key out of logs.
func (k *Key) GoString() string { return "[key]" }

func mustAES(key []byte) cipher.Block {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only a wrong key size, and ours are arrays
	}
	return block
}

func randomBytes(b []byte) {
	if _, err := rand.Read(b); err != nil {
		panic(err) // crypto/rand never returns an error since Go 1.24
	}
}

// maskR clears the bits that Poly1305 wants clear in r.
func maskR(r *[16]byte) {
	for _, i := range []int{3, 7, 11, 15} {
		r[i] &= 0x0f
	}
	for _, i := range []int{4, 8, 12} {
		r[i] &= 0xfc
	}
}

// Seal appends nonce, cipher text and MAC of plain to dst, and returns it. The
// part of dst's array that it writes must not overlap plain.
func (k *Key) Seal(dst, plain []byte) []byte {
	start := len(dst)
	dst = slices.Grow(dst, len(plain)+Overhead)[:start+len(plain)+Overhead]
	k.SealInto(dst[start:], plain)
	return dst
}

// SealInto seals plain into out, which is len(plain)+Overhead bytes long and
// does not overlap plain.
func (k *Key) SealInto(out, plain []byte) {
	nonce, body, mac := split(out)
	randomBytes(nonce)
	cipher.NewCTR(k.enc, nonce).XORKeyStream(body, plain)
	sum := k.mac(nonce, body)
	copy(mac, sum[:])
}

// Open checks sealed and decrypts it in place: the plain text it returns is a
// part of sealed. On an error sealed is unchanged.
func (k *Key) Open(sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, fmt.Errorf("%w: %d bytes are less than an empty message", ErrAuthentication, len(sealed))
	}
	nonce, body, mac := split(sealed)
	sum := k.mac(nonce, body)
	if subtle.ConstantTimeCompare(sum[:], mac) != 1 {
		return nil, ErrAuthentication
	}
	cipher.NewCTR(k.enc, nonce).XORKeyStream(body, body)
	return body, nil
}

func split(sealed []byte) (nonce, body, mac []byte) {
	end := len(sealed) - MACSize
	return sealed[:NonceSize], sealed[NonceSize:end:end], sealed[end:]
}

// mac is Poly1305 with the one-time key (r, AES_k(nonce)).
func (k *Key) mac(nonce, body []byte) [MACSize]byte {
	var oneTime [32]byte
	copy(oneTime[:16], k.r[:])
	k.nonce.Encrypt(oneTime[16:], nonce)
	var sum [MACSize]byte
	poly1305.Sum(&sum, body, &oneTime)
	return sum
}
