package consul

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// newTransport returns connections of which many wait for a long time: a peer that has
// vanished is noticed by keep-alives, after about half a minute. It is HTTP/1.1: over HTTP/2 the
// reason why a server refuses a certificate does not come through.
func newTransport(opts Options, socket string) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: opts.ServerName}
	if opts.CAFile != "" {
		pem, err := os.ReadFile(opts.CAFile)
		if err != nil {
			return nil, fmt.Errorf("consul: read certificates: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("consul: read certificates: %s has none in PEM form", opts.CAFile)
		}
	}
	if opts.CertFile != "" || opts.KeyFile != "" {
		own := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(opts.CertFile, opts.KeyFile)
			return &pair, err
		}
		if _, err := own(); err != nil {
			return nil, fmt.Errorf("consul: read own certificate: %w", err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() }
	}
	dialer := &net.Dialer{
		Timeout:         5 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4},
	}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if socket != "" {
				network, address = "unix", socket
			}
			return dialer.DialContext(ctx, network, address)
		},
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 5 * time.Second,
		IdleConnTimeout:     30 * time.Second,
		MaxIdleConnsPerHost: opts.Waiting,
	}, nil
}

// newClient makes the vendor's client, which would look for whatever it is not told in
// CONSUL_* variables: it is told all, and door takes away the rest.
func newClient(opts Options, scheme, host string, transport *http.Transport) (*api.Client, error) {
	d := &door{next: transport, token: opts.Token, file: opts.TokenFile}
	client, err := api.NewClient(&api.Config{
		Address: host, Scheme: scheme, Datacenter: opts.Datacenter,
		Transport: transport, HttpClient: &http.Client{Transport: d},
		Token: "set by door", // else the client reads one from the environment, or a file named there
	})
	if err != nil {
		return nil, fmt.Errorf("consul: make client: %w", err)
	}
	return client, nil
}

// door is what every request goes through: it gives it our token, and turns
// answers that are refusals into errors that have a code, which the client's mostly lack.
type door struct {
	next  http.RoundTripper
	token string
	file  string

	mu   sync.Mutex
	last string // the token that the file had when it could be read
}

// RoundTrip implements http.RoundTripper.
func (d *door) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	token, err := d.current()
	if err != nil {
		return nil, err
	}
	req.Header.Del("Authorization")
	req.Header.Del("X-Consul-Token")
	if token != "" {
		req.Header.Set("X-Consul-Token", token)
	}
	params := req.URL.Query()
	params.Del("ns")
	params.Del("partition")
	req.URL.RawQuery = params.Encode()
	resp, err := d.next.RoundTrip(req)
	if err != nil || usable(req, resp) {
		return resp, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	return nil, &statusError{resp.StatusCode, strings.TrimSpace(string(text))}
}

// usable says whether the client understands the answer. That there is no such key is
// believed only of Consul, which says of which state that is; anybody may say 404.
func usable(req *http.Request, resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusOK, http.StatusConflict:
		return true
	case http.StatusNotFound:
		return !strings.HasPrefix(req.URL.Path, "/v1/kv/") || resp.Header.Get("X-Consul-Index") != ""
	}
	return false
}

// current returns the token. While its file cannot be read the last one is as good as any.
func (d *door) current() (string, error) {
	if d.file == "" {
		return d.token, nil
	}
	text, err := os.ReadFile(d.file)
	d.mu.Lock()
	defer d.mu.Unlock()
	if token := strings.TrimSpace(string(text)); token != "" {
		d.last = token
	}
	if d.last == "" {
		if err == nil {
			err = fmt.Errorf("%s is empty", d.file)
		}
		return "", &tokenError{err}
	}
	return d.last, nil
}

// statusError is an answer that is a refusal.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return fmt.Sprintf("consul answered %d: %s", e.code, e.text) }

// tokenError is a token that could not be had.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return "read token: " + e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }
