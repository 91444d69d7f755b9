// Package httpconn makes the connections that the backends with an HTTP API use:
// many requests at once to one host, with the timeouts and certificates of all of
// them. What is said over a connection, and how often, is the backends' own.
package httpconn

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// New returns connections for concurrency requests at once. How long a whole request
// may take is left to its context. caFile names further certificates to trust, in PEM
// form; "": the system's alone.
func New(concurrency int, caFile string) (*http.Transport, error) {
	pool, err := trusted(caFile)
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool},
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute,
		IdleConnTimeout:       30 * time.Second, // less than servers keep one, else a put now and then meets a closed one
		MaxIdleConns:          concurrency,
		MaxIdleConnsPerHost:   concurrency,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true, // objects are returned as they were stored
	}, nil
}

// trusted returns the system's certificates and those in file; nil means the
// system's.
func trusted(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read certificates: %s has none in PEM form", file)
	}
	return pool, nil
}
