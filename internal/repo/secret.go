package repo

import (
	"crypto/hkdf"
	"crypto/sha256"
	"slices"
)

// Secret derives a key of 32 bytes from the repository's master key: the same for everyone
// who can open the repository, whatever the password, and telling nothing of the master
// key or of another purpose's. It is for what lies beside the repository and is no part of it.
func (r *Repository) Secret(purpose string) []byte {
	raw := r.key.Raw()
	key, err := hkdf.Key(sha256.New, slices.Concat(raw.Encrypt[:], raw.MACK[:], raw.MACR[:]), nil, "drover "+purpose, 32)
	if err != nil {
		panic(err) // only a length that the hash cannot give
	}
	return key
}
