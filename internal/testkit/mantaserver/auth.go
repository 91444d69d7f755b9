package mantaserver

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// maxAge is how far a request's date may be from the server's.
const maxAge = 5 * time.Minute

// refusal is an error as Manta answers it.
type refusal struct {
	status  int
	code    string
	message string
}

// keys is who may sign, and with what.
type keys struct {
	account, subuser string
	id               string
	public           crypto.PublicKey
}

// Key is a private key in a file.
type Key struct {
	File   string
	ID     string // its fingerprint, as aa:bb:…
	public crypto.PublicKey
}

// NewKey makes a key, "rsa" or "ecdsa", in PEM form. Its fingerprint is taken
// here and not with the code under test.
func NewKey(t testing.TB, kind string) Key {
	t.Helper()
	k := Key{File: filepath.Join(t.TempDir(), kind)}
	var private any
	var wire []byte // as RFC 4253, section 6.6, and RFC 5656, section 3.1, write a public key
	switch kind {
	case "rsa":
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		private, k.public = key, key.Public()
		wire = sshFields([]byte("ssh-rsa"), sshNumber(big.NewInt(int64(key.E))), sshNumber(key.N))
	case "ecdsa":
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		private, k.public = key, key.Public()
		wire = sshFields([]byte("ecdsa-sha2-nistp256"), []byte("nistp256"), point)
	default:
		t.Fatalf("no kind of key is called %q", kind)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(k.File, text, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum(wire)
	k.ID = strings.ReplaceAll(fmt.Sprintf("% x", sum[:]), " ", ":")
	return k
}

func sshFields(fields ...[]byte) []byte {
	var wire []byte
	for _, f := range fields {
		wire = binary.BigEndian.AppendUint32(wire, uint32(len(f)))
		wire = append(wire, f...)
	}
	return wire
}

// sshNumber has a leading zero where the first bit would be taken for a sign.
func sshNumber(n *big.Int) []byte {
	b := n.Bytes()
	if b[0] >= 0x80 {
		return append([]byte{0}, b...)
	}
	return b
}

var parameter = regexp.MustCompile(`([A-Za-z]+)="([^"]*)"`)

// refuse says why a request is not let in, or nil.
func (k *keys) refuse(r *http.Request, now time.Time) *refusal {
	date := r.Header.Get("Date")
	sent, err := http.ParseTime(date)
	if err != nil {
		return &refusal{400, "InvalidHeader", "Date header is invalid"}
	}
	if now.Sub(sent) > maxAge {
		return &refusal{400, "RequestExpired", "Date header " + date + " is too old"}
	}
	authorisation := r.Header.Get("Authorization")
	scheme, rest, _ := strings.Cut(authorisation, " ")
	switch {
	case authorisation == "":
		return &refusal{401, "AuthorizationRequired", "Authorization is required"}
	case !strings.EqualFold(scheme, "signature"):
		return &refusal{403, "AuthorizationSchemeNotAllowed", scheme + " is not allowed (use 'signature')"}
	case sent.Sub(now) > maxAge:
		return &refusal{400, "InvalidHeader", "Authorization header invalid: the clocks differ too much"}
	}
	params := map[string]string{}
	for _, m := range parameter.FindAllStringSubmatch(rest, -1) {
		params[m[1]] = m[2]
	}
	if signed := params["headers"]; signed != "" && signed != "date" {
		return &refusal{400, "InvalidHeader", "this simulator verifies a signature of the date alone"}
	}
	if why := k.refuseKey(params["keyId"]); why != nil {
		return why
	}
	return k.refuseSignature(params["algorithm"], params["signature"], "date: "+date)
}

// refuseKey looks at /account/keys/fingerprint or /account/subuser/keys/fingerprint.
func (k *keys) refuseKey(keyID string) *refusal {
	parts := strings.Split(keyID, "/")
	if len(parts) < 4 || len(parts) > 5 || parts[0] != "" || parts[len(parts)-2] != "keys" {
		return &refusal{403, "InvalidKeyId", "the KeyId token you provided is invalid"}
	}
	subuser := ""
	if len(parts) == 5 {
		subuser = parts[2]
	}
	switch {
	case parts[1] != k.account:
		return &refusal{403, "AccountDoesNotExist", parts[1] + " does not exist"}
	case subuser != "" && subuser != k.subuser:
		return &refusal{403, "UserDoesNotExist", parts[1] + "/" + subuser + " does not exist"}
	case subuser != k.subuser || parts[len(parts)-1] != k.id:
		return &refusal{403, "KeyDoesNotExist", keyID + " does not exist"}
	}
	return nil
}

func (k *keys) refuseSignature(algorithm, signature, text string) *refusal {
	bytes, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return &refusal{400, "InvalidHeader", "the signature is not base64"}
	}
	digest := sha256.Sum256([]byte(text))
	good := false
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		good = algorithm == "rsa-sha256" && rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], bytes) == nil
	case *ecdsa.PublicKey:
		good = algorithm == "ecdsa-sha256" && ecdsa.VerifyASN1(public, digest[:], bytes)
	}
	if !good {
		return &refusal{403, "InvalidSignature", "The signature we calculated does not match the one you sent"}
	}
	return nil
}
