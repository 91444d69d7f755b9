package crypto

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"runtime/debug"
	"time"

	"golang.org/x/crypto/scrypt"
)

// Cost of new key files: about 100 ms and 32 MiB on a server of today, what
// restic's own calibration gives.
const (
	scryptN  = 1 << 15
	scryptR  = 8
	scryptP  = 1
	saltSize = 64
)

// maxKDFMemory bounds what a key file from outside can make us allocate, in
// bytes; maxKDFP the time.
const (
	maxKDFMemory = 1 << 30
	maxKDFP      = 64
)

// ErrKeyFile: the bytes are not a key file of a restic repository.
var ErrKeyFile = errors.New("not a key file")

// KeyFile is an object below keys/: how to get from a password to the
// repository's key. Only Data is secret, and it is sealed.
type KeyFile struct {
	Created  time.Time `json:"created"`
	Username string    `json:"username"`
	Hostname string    `json:"hostname"`
	KDF      string    `json:"kdf"`
	N        int       `json:"N"`
	R        int       `json:"r"`
	P        int       `json:"p"`
	Salt     []byte    `json:"salt"`
	Data     []byte    `json:"data"`
}

// keyJSON is the plain text of KeyFile.Data.
type keyJSON struct {
	MAC struct {
		K []byte `json:"k"`
		R []byte `json:"r"`
	} `json:"mac"`
	Encrypt []byte `json:"encrypt"`
}

// ParseKeyFile reads a key file and checks that its parameters are sane.
func ParseKeyFile(data []byte) (*KeyFile, error) {
	var f KeyFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	return &f, f.check()
}

func (f *KeyFile) check() error {
	switch {
	case f.KDF != "scrypt":
		return fmt.Errorf("%w: key derivation %.20q instead of scrypt", ErrKeyFile, f.KDF)
	case f.N < 2 || f.N > 1<<30 || bits.OnesCount(uint(f.N)) != 1 || f.R < 1 || f.P < 1 || f.P > maxKDFP:
		return fmt.Errorf("%w: scrypt parameters N=%d r=%d p=%d", ErrKeyFile, f.N, f.R, f.P)
	case f.R > maxKDFMemory/128/f.N:
		return fmt.Errorf("%w: scrypt with N=%d r=%d needs more than %d MiB", ErrKeyFile, f.N, f.R, maxKDFMemory>>20)
	case len(f.Salt) == 0 || len(f.Data) < Overhead:
		return fmt.Errorf("%w: salt or data is missing", ErrKeyFile)
	}
	return nil
}

// NewKeyFile seals key with password. The times of its content are now.
func NewKeyFile(key *Key, password, hostname, username string, now time.Time) (*KeyFile, error) {
	f := &KeyFile{
		Created: now, Username: username, Hostname: hostname,
		KDF: "scrypt", N: scryptN, R: scryptR, P: scryptP, Salt: make([]byte, saltSize),
	}
	randomBytes(f.Salt)
	user, err := f.derive(password)
	if err != nil {
		return nil, err
	}
	var plain keyJSON
	plain.Encrypt, plain.MAC.K, plain.MAC.R = key.raw.Encrypt[:], key.raw.MACK[:], key.raw.MACR[:]
	data, err := json.Marshal(plain)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	f.Data = user.Seal(nil, data)
	return f, nil
}

// Open gets the repository's key with password. A wrong password is ErrAuthentication.
func (f *KeyFile) Open(password string) (*Key, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	user, err := f.derive(password)
	if err != nil {
		return nil, err
	}
	data, err := user.Open(append([]byte(nil), f.Data...))
	if err != nil {
		return nil, err
	}
	var plain keyJSON
	if err := json.Unmarshal(data, &plain); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	var raw RawKey
	if len(plain.Encrypt) != len(raw.Encrypt) || len(plain.MAC.K) != len(raw.MACK) || len(plain.MAC.R) != len(raw.MACR) {
		return nil, fmt.Errorf("%w: the keys in it have wrong sizes", ErrKeyFile)
	}
	copy(raw.Encrypt[:], plain.Encrypt)
	copy(raw.MACK[:], plain.MAC.K)
	copy(raw.MACR[:], plain.MAC.R)
	return NewKey(raw), nil
}

// derive makes the password's own key. scrypt leaves N·r·128 bytes of garbage,
// which an agent at rest must not keep.
func (f *KeyFile) derive(password string) (*Key, error) {
	defer debug.FreeOSMemory()
	b, err := scrypt.Key([]byte(password), f.Salt, f.N, f.R, f.P, 64)
	if err != nil {
		return nil, fmt.Errorf("derive key from password: %w", err)
	}
	var raw RawKey
	copy(raw.Encrypt[:], b[:32])
	copy(raw.MACK[:], b[32:48])
	copy(raw.MACR[:], b[48:])
	return NewKey(raw), nil
}

// Encode gives the bytes to store; their SHA-256 is the file's name.
func (f *KeyFile) Encode() ([]byte, error) {
	data, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("encode key file: %w", err)
	}
	return data, nil
}
