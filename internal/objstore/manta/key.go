package manta

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
)

// identity is who signs: an account, or a user of one.
type identity struct{ account, subuser string }

// signer signs requests as "Signing HTTP Messages" (draft-cavage-http-signatures)
// has it, over the Date header alone, which is what Manta asks for.
type signer struct {
	key       crypto.Signer
	keyID     string // /account/keys/fingerprint
	algorithm string
}

// newSigner reads the key in file. keyID, the key's fingerprint, may be empty;
// if it is not, the key has to be that one.
func newSigner(file, keyID string, who identity) (*signer, error) {
	if file == "" {
		return nil, errors.New("no key: set MANTA_KEY_PATH to the file of an SSH key that the account knows")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the key of MANTA_KEY_PATH: %w", err)
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("read the key %s: %w", file, err)
	}
	if keyID != "" && !key.is(keyID) {
		return nil, fmt.Errorf("the key %s has the fingerprint %s, MANTA_KEY_ID says %s", file, key.md5, keyID)
	}
	for _, name := range []string{who.account, who.subuser} {
		if name == "" {
			continue
		}
		if err := checkLogin(name); err != nil {
			return nil, fmt.Errorf("MANTA_USER or MANTA_SUBUSER: %w", err)
		}
	}
	user := who.account
	if who.subuser != "" {
		user += "/" + who.subuser
	}
	return &signer{key: key.private, algorithm: key.algorithm, keyID: "/" + user + "/keys/" + key.md5}, nil
}

// sign returns the Authorization header for a request with this Date.
func (s *signer) sign(date string) (string, error) {
	digest := sha256.Sum256([]byte("date: " + date))
	signature, err := s.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("sign the request: %w", err)
	}
	return fmt.Sprintf(`Signature keyId="%s",algorithm="%s",headers="date",signature="%s"`,
		s.keyID, s.algorithm, base64.StdEncoding.EncodeToString(signature)), nil
}

// privateKey is a key with its names.
type privateKey struct {
	private   crypto.Signer
	algorithm string
	md5       string // aa:bb:…, what Manta calls it
	sha256    string // SHA256:…
}

// is says whether id, in any of the ways in which fingerprints are written, is
// this key's.
func (k *privateKey) is(id string) bool {
	bare := func(s string) string {
		return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(s, "MD5:"), ":", ""))
	}
	return bare(id) == bare(k.md5) || strings.TrimRight(id, "=") == k.sha256
}

// parseKey reads a private key in PEM or OpenSSH's form.
func parseKey(text []byte) (*privateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it has no private key in PEM or OpenSSH's form")
	}
	encrypted := errors.New("it is encrypted, and there is nobody to ask for its passphrase: give a key of its own without one")
	if block.Type == "ENCRYPTED PRIVATE KEY" {
		return nil, encrypted
	}
	raw, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		if _, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
			return nil, encrypted
		}
		return nil, err
	}
	k := &privateKey{}
	switch key := raw.(type) {
	case *rsa.PrivateKey:
		k.private, k.algorithm = key, "rsa-sha256"
	case *ecdsa.PrivateKey:
		k.private, k.algorithm = key, "ecdsa-sha256"
	default:
		return nil, errors.New("it is neither an RSA nor an ECDSA key")
	}
	public, err := ssh.NewPublicKey(k.private.Public())
	if err != nil {
		return nil, fmt.Errorf("take its fingerprint: %w", err)
	}
	k.md5, k.sha256 = ssh.FingerprintLegacyMD5(public), ssh.FingerprintSHA256(public)
	return k, nil
}
