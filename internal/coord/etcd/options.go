package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
)

// Options are where the cluster is and who asks.
type Options struct {
	// Endpoints are URLs of members: https://etcd-1:2379. All are https or all http.
	Endpoints []string
	// Prefix stands before every key, Drover's own included: "team/" lets a user with the
	// rights to what is below team/ use it. Drover's own are below Prefix + ".drover/",
	// where the port's KV neither shows nor writes anything.
	Prefix string
	// User asks with a password, or with the content of PasswordFile, which is read again
	// at each login.
	User, Password, PasswordFile string
	TLS                          TLS
	DialTimeout                  time.Duration // for a connection; 0: 5 s
	RequestTimeout               time.Duration // for a call and its answer; 0: 5 s
	// Relist is after how long a watch lists again although nothing is wrong, or up to twice
	// as long; 0: 10 min.
	Relist time.Duration
}

// TLS is how the members are known, for https endpoints.
type TLS struct {
	CA        string // file of the authorities; empty: the system's
	Cert, Key string // files of the client's certificate; read again for each connection
	// ServerName is the name that the members' certificates have; empty: the endpoint's.
	ServerName string
	// Insecure believes any certificate.
	Insecure bool
}

func (o Options) withDefaults() Options {
	for d, def := range map[*time.Duration]time.Duration{
		&o.DialTimeout: 5 * time.Second, &o.RequestTimeout: 5 * time.Second, &o.Relist: 10 * time.Minute,
	} {
		if *d <= 0 {
			*d = def
		}
	}
	return o
}

// check returns the configuration of TLS, nil for http.
func (o Options) check() (*tls.Config, error) {
	if len(o.Endpoints) == 0 {
		return nil, errors.New("there is no endpoint")
	}
	secure := false
	for i, e := range o.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("endpoint %d is no URL as https://host:2379", i+1)
		}
		if i > 0 && secure != (u.Scheme == "https") {
			return nil, errors.New("some endpoints are https, some http")
		}
		secure = u.Scheme == "https"
	}
	switch {
	case o.User == "" && (o.Password != "" || o.PasswordFile != ""):
		return nil, errors.New("there is a password without a user")
	case o.User != "" && (o.Password == "") == (o.PasswordFile == ""):
		return nil, errors.New("a user needs a password or a file of one")
	case !secure && o.TLS != TLS{}:
		return nil, errors.New("the endpoints are http, which ignores what is set for TLS")
	case !secure:
		return nil, nil
	}
	return o.TLS.config()
}

func (t TLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.Insecure}
	if t.CA != "" {
		text, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read the authorities: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read the authorities: no certificate in %s", t.CA)
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errors.New("a client's certificate needs its key, and a key its certificate")
	}
	if t.Cert != "" {
		load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
			return &pair, err
		}
		if _, err := load(nil); err != nil {
			return nil, fmt.Errorf("read the client's certificate: %w", err)
		}
		c.GetClientCertificate = load
	}
	return c, nil
}

// named asks each member for the certificate of one name: gRPC takes the endpoint's, whatever
// the configuration of TLS says.
type named struct {
	credentials.TransportCredentials
	name string
}

func (n named) ClientHandshake(ctx context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return n.TransportCredentials.ClientHandshake(ctx, n.name, conn)
}

func (n named) Clone() credentials.TransportCredentials {
	return named{n.TransportCredentials.Clone(), n.name}
}

// password returns it without the line end that editors leave.
func (o Options) password() (string, error) {
	if o.PasswordFile == "" {
		return o.Password, nil
	}
	text, err := os.ReadFile(o.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}
