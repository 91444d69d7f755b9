package postgres

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"drover/internal/database"
)

// TLS of a member: with it nothing passes between members in the clear.
type TLS struct {
	// Certificates are those of now.
	Certificates func() (Certificates, error)
	// Full asks of another member's certificate that it has the member's address. Else the CA's signature is enough.
	Full bool
}

// Certificates are what members know one another by.
type Certificates struct {
	CA   []byte // PEM: who signs the members'
	Pair []byte // PEM: the server's own, those between it and the CA, and its key
}

func (d *Driver) caFile() string { return filepath.Join(d.o.Run, "ca.pem") }

// pairFile has certificate and key, so that one rename exchanges both.
func (d *Driver) pairFile() string { return filepath.Join(d.o.Run, "server.pem") }

// Renew puts the certificates of now where the server and PostgreSQL's programs read them, and has a running server read
// them. It must have succeeded once before a start, Clone or Rewind; it may be called beside all other methods, by one
// goroutine. Without TLS it does nothing. After an error it is tried again by the next call.
func (d *Driver) Renew() (renewed bool, err error) {
	if d.o.TLS == nil {
		return false, nil
	}
	c, err := d.o.TLS.Certificates()
	if err != nil {
		return false, err
	}
	if err := d.makeDir(d.o.Run); err != nil {
		return false, fmt.Errorf("renew certificates: %w", err)
	}
	for _, f := range []struct {
		path string
		want []byte
	}{{d.caFile(), c.CA}, {d.pairFile(), c.Pair}} {
		have, err := os.ReadFile(f.path)
		if err == nil && bytes.Equal(have, f.want) {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("renew certificates: %w", err)
		}
		if err := d.writeRun(f.path, string(f.want)); err != nil {
			return false, fmt.Errorf("renew certificates: %w", err)
		}
		d.unread, renewed = true, true
	}
	if !d.unread {
		return false, nil
	}
	s, err := d.postmaster()
	if err == nil {
		err = s.signal(syscall.SIGHUP)
	}
	if err != nil && !errors.Is(err, database.ErrNotRunning) { // which reads them when it starts
		return renewed, fmt.Errorf("renew certificates: %w", err)
	}
	d.unread = false
	return renewed, nil
}

// sslSettings are the server's; none without TLS.
func (d *Driver) sslSettings() []setting {
	if d.o.TLS == nil {
		return nil
	}
	return []setting{{"ssl", "on"}, {"ssl_cert_file", d.pairFile()}, {"ssl_key_file", d.pairFile()}}
}

// sslInfo is the part of a connection string that says how another member is known.
func (d *Driver) sslInfo() []string {
	if d.o.TLS == nil {
		return nil
	}
	mode := "verify-ca"
	if d.o.TLS.Full {
		mode = "verify-full"
	}
	return []string{"sslmode=" + mode, "sslrootcert=" + infoValue(d.caFile())}
}

// sslConfig is the same for the agent's own connections.
func (d *Driver) sslConfig(host string) (*tls.Config, error) {
	ca, err := os.ReadFile(d.caFile())
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s has no certificate in PEM form", d.caFile())
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: host}
	if d.o.TLS.Full {
		return c, nil
	}
	c.InsecureSkipVerify = true // of all that would be verified the name alone is left out
	c.VerifyConnection = func(s tls.ConnectionState) error {
		between := x509.NewCertPool()
		for _, more := range s.PeerCertificates[1:] {
			between.AddCert(more)
		}
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
		return err
	}
	return c, nil
}
