package s3

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// newTransport returns connections for many requests at once to one host. How
// long a whole request may take is left to its context.
func newTransport(concurrency int, caFile string) (*http.Transport, error) {
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

// wary turns answers that no S3 server gave into 502 Bad Gateway. The SDK takes
// any 404 for "no such key" and any XML-like page for an empty listing, so that
// a misguided proxy would make a full bucket look empty.
type wary struct{ next http.RoundTripper }

// peekSize is enough for the first elements of any S3 answer.
const peekSize = 4 << 10

func (w wary) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(req)
	if err != nil || req.Method == http.MethodHead {
		return resp, err
	}
	var mark []byte
	switch {
	case resp.StatusCode == http.StatusNotFound:
		mark = []byte("<Code>")
	case resp.StatusCode == http.StatusOK && req.URL.Query().Has("list-type"):
		mark = []byte("<ListBucketResult")
	default:
		return resp, nil
	}
	body := bufio.NewReaderSize(resp.Body, peekSize)
	head, err := body.Peek(peekSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, resp.Body.Close())
	}
	if !bytes.Contains(head, mark) {
		resp.StatusCode, resp.Status = http.StatusBadGateway, "502 not an answer of an S3 server"
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{body, resp.Body}
	return resp, nil
}
