package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"
)

// DatabaseTLS is how a database's members know one another. The files are read again when they change.
type DatabaseTLS struct {
	CA     string    `yaml:"ca" doc:"File of the certificates that the members' are signed by, in PEM form."`
	Cert   string    `yaml:"cert" doc:"File of the certificate that this member's server shows, with those between it and the CA."`
	Key    string    `yaml:"key" doc:"File of that certificate's key; it may be the same file. The server gets a copy that only its user can read."`
	Verify TLSVerify `yaml:"verify" doc:"ca: another member's certificate must be signed by the CA. full: it must also have the address that the member is reached at."`
}

// TLSVerify is what is asked of a member's certificate.
type TLSVerify string

// Its values.
const (
	VerifyCA   TLSVerify = "ca"
	VerifyFull TLSVerify = "full"
)

func (TLSVerify) choices() []string { return words(VerifyCA, VerifyFull) }

// UnmarshalText takes one of the words.
func (v *TLSVerify) UnmarshalText(text []byte) error { return choose(v, text) }

func (t DatabaseTLS) given() bool { return t.CA != "" || t.Cert != "" || t.Key != "" }

// files are those of t, by their keys.
func (t DatabaseTLS) files() []struct{ key, name string } {
	return []struct{ key, name string }{{"ca", t.CA}, {"cert", t.Cert}, {"key", t.Key}}
}

// HasDatabaseTLS says whether the database's members speak TLS.
func (c *Config) HasDatabaseTLS() bool { return c.Database.TLS.given() }

func (c *Config) checkDatabaseTLS() error {
	t := c.Database.TLS
	if !t.given() {
		if c.Given("database.tls.verify") {
			return c.origin.at("database.tls", "the database's TLS has no certificates", "add ca, cert and key")
		}
		return nil
	}
	for _, f := range t.files() {
		if f.name == "" {
			return c.origin.at("database.tls", fmt.Sprintf("the database's TLS has no %s", f.key), "give ca, cert and key, or none of them")
		}
	}
	for _, name := range []string{"ssl", "ssl_cert_file", "ssl_key_file"} {
		if _, ok := c.Database.Parameters[name]; ok {
			return c.origin.at("database.parameters."+name, fmt.Sprintf("the parameter %s is set by database.tls", name), "keep one")
		}
	}
	return nil
}

// Certificates are the contents of a member's files.
type Certificates struct {
	CA   []byte // PEM
	Pair []byte // PEM: the member's own, those between it and the CA, and the key
}

// ReadDatabaseTLS reads the files of now. What cannot be used is an *Error: a file that is not there, a key that is another
// certificate's, a certificate that the CA has not signed. That one has expired is none: who is asked to believe it says so.
func (c *Config) ReadDatabaseTLS() (Certificates, error) {
	t := c.Database.TLS
	var files [3][]byte
	for i, f := range t.files() {
		var err error
		if files[i], err = readBounded(f.name); err != nil {
			return Certificates{}, c.origin.at("database.tls."+f.key, "cannot read "+reason(err), "")
		}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(files[0]) {
		return Certificates{}, c.origin.at("database.tls.ca", fmt.Sprintf("%s has no certificate in PEM form", t.CA), "")
	}
	pair, err := tls.X509KeyPair(files[1], files[2])
	if err != nil { // it says nothing of the key but what is wrong with it
		return Certificates{}, c.origin.at("database.tls.cert", fmt.Sprintf("%s and %s are no pair: %v", t.Cert, t.Key, err), "")
	}
	if err := signed(pair, roots); err != nil {
		return Certificates{}, c.origin.at("database.tls.cert", fmt.Sprintf("%s is not signed by %s: %v", t.Cert, t.CA, err), "")
	}
	own, err := encoded(pair)
	return Certificates{CA: files[0], Pair: own}, err
}

// encoded is a certificate with those between it and the CA and its key, and nothing else that was in the files.
func encoded(pair tls.Certificate) ([]byte, error) {
	var all []byte
	for _, der := range pair.Certificate {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	return append(all, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...), err
}

// signed says whether others will believe a certificate, while it is valid.
func signed(pair tls.Certificate, roots *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(c)
	}
	at := time.Now()
	if end := pair.Leaf.NotAfter; at.After(end) {
		at = end
	}
	_, err := pair.Leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}
