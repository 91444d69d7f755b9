package object

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// NewSealer returns a sealer that encrypts and authenticates with AES-256-GCM. The secret is
// one of at least 16 random bytes, the same for all agents: a password that people
// think of is none, since nothing here slows down who guesses. Nonces are random, which is good for
// 2^32 writes with one secret.
func NewSealer(secret []byte) (Sealer, error) {
	if len(secret) < 16 {
		return nil, fmt.Errorf("secret of %d bytes is shorter than 16", len(secret))
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "drover coordinator 1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make a cipher: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make a cipher: %w", err)
	}
	return sealer{gcm}, nil
}

type sealer struct{ gcm cipher.AEAD }

// Seal implements Sealer.
func (s sealer) Seal(name string, plain []byte) []byte {
	nonce := make([]byte, s.gcm.NonceSize())
	_, _ = rand.Read(nonce) // it never fails, or ends the process
	return s.gcm.Seal(nonce, nonce, plain, []byte(name))
}

// Open implements Sealer.
func (s sealer) Open(name string, sealed []byte) ([]byte, error) {
	n := s.gcm.NonceSize()
	if len(sealed) < n {
		return nil, errors.New("it is not sealed")
	}
	plain, err := s.gcm.Open(nil, sealed[:n], sealed[n:], []byte(name))
	if err != nil {
		return nil, errors.New("it is sealed with another secret, or not by us")
	}
	return plain, nil
}
