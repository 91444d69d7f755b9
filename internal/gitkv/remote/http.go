package remote

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

// responseTimeout is for the head of an answer; the caller's context bounds the rest.
const responseTimeout = time.Minute

// httpSession closes its connections when it ends, so that a new certificate or password counts
// the next time.
type httpSession struct {
	session
	transport *http.Transport
}

func (s httpSession) Close() error {
	err := s.session.Close()
	s.transport.CloseIdleConnections()
	return err
}

func (r *Remote) newHTTP() (session, error) {
	tr := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		ForceAttemptHTTP2:     true,
		ResponseHeaderTimeout: responseTimeout,
		TLSHandshakeTimeout:   responseTimeout,
	}
	if r.o.CAFile != "" {
		pool, err := authorities(r.o.CAFile)
		if err != nil {
			return nil, err
		}
		tr.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	auth, err := r.httpAuth()
	if err != nil {
		return nil, err
	}
	// A list of branches is smaller than a pack may be; progress and frames are some more.
	client := githttp.NewClient(&http.Client{Transport: bounded{tr, r.o.Limits.Pack + r.o.Limits.Pack/8 + 1<<20}})
	ep := *r.endpoint // a session changes it when it is redirected
	s, err := client.NewUploadPackSession(&ep, auth)
	if err != nil {
		return nil, err
	}
	return httpSession{s, tr}, nil
}

func (r *Remote) httpAuth() (githttp.AuthMethod, error) {
	switch {
	case r.o.TokenFile != "":
		token, err := secret(r.o.TokenFile)
		if err != nil {
			return nil, err
		}
		return &githttp.TokenAuth{Token: token}, nil
	case r.o.PasswordFile != "":
		password, err := secret(r.o.PasswordFile)
		if err != nil {
			return nil, err
		}
		user := r.o.Username
		if user == "" {
			user = "git"
		}
		return &githttp.BasicAuth{Username: user, Password: password}, nil
	}
	return nil, nil
}

func authorities(file string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read authorities: %s has no certificate", file)
	}
	return pool, nil
}

// secret reads a file of one secret; white space around it does not count.
func secret(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read credentials: %w", err)
	}
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return "", fmt.Errorf("read credentials: %s is empty", file)
	}
	return string(data), nil
}

// bounded cuts answers off: whoever parses them holds them in memory.
type bounded struct {
	http.RoundTripper
	limit int64
}

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(req)
	if err == nil {
		limit := b.limit
		if res.StatusCode >= 300 {
			limit = 4 << 10 // an explanation
		}
		res.Body = &cutOff{res.Body, limit}
	}
	return res, err
}

// cutOff fails when more than left bytes are read.
type cutOff struct {
	io.ReadCloser
	left int64
}

func (c *cutOff) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("read the server's answer: %w", errTooMuch)
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if c.left == 0 && err == nil {
		var one [1]byte
		if _, end := c.ReadCloser.Read(one[:]); errors.Is(end, io.EOF) {
			return n, io.EOF
		}
	}
	return n, err
}
