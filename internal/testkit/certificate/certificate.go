// Package certificate makes the certificates that real servers and their clients show in tests.
// They hold for the loopback address and for a day.
package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// SelfSigned makes a certificate that is its own authority, good for a server and a client. It
// returns the files of it and of its key: DIR/NAME.pem and DIR/NAME-key.pem.
func SelfSigned(t testing.TB, dir, name string, subject pkix.Name) (cert, key string) {
	t.Helper()
	template := leaf(subject)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign
	private := newKey(t)
	return write(t, dir, name, template, private, template, private)
}

// Authority signs certificates.
type Authority struct {
	File string // of its own certificate

	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes one that keeps its files in dir.
func NewAuthority(t testing.TB, dir string) *Authority {
	t.Helper()
	a := &Authority{t: t, dir: dir, key: newKey(t)}
	a.cert = &x509.Certificate{
		Subject: pkix.Name{CommonName: "drover test authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	a.File, _ = write(t, dir, "ca", a.cert, a.key, a.cert, a.key)
	return a
}

// Leaf makes a certificate, good for a server and a client, and returns the files of it and of
// its key.
func (a *Authority) Leaf(name string) (cert, key string) {
	a.t.Helper()
	return write(a.t, a.dir, name, leaf(pkix.Name{CommonName: name}), newKey(a.t), a.cert, a.key)
}

func leaf(subject pkix.Name) *x509.Certificate {
	return &x509.Certificate{
		Subject: subject, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// write signs the template with the parent's key and writes the two files.
func write(t testing.TB, dir, name string, template *x509.Certificate, private *ecdsa.PrivateKey,
	parent *x509.Certificate, parentKey *ecdsa.PrivateKey,
) (cert, key string) {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, private.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	for file, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: der},
		key:  {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
