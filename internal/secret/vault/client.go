package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	// requestLimit is the longest that a request may take: a database behind Vault may need
	// its time. requestLeast is what each has.
	requestLimit = 30 * time.Second
	requestLeast = 5 * time.Second
	answerLimit  = 32 << 20 // bytes
)

// client makes requests. It is ours because a dozen endpoints are all that is needed, and
// what may stand in an error has to be known: the vendor's has its environment variables,
// retries and renewals of its own, and puts what any proxy answers into its errors.
type client struct {
	base      *url.URL
	namespace string
	http      *http.Client
	tls       *tls.Config
}

func newClient(o Options) (*client, error) {
	base, err := url.Parse(o.Address)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, errors.New("the address is not like https://vault.example.com:8200")
	}
	if base.User != nil {
		return nil, errors.New("the address has a user or a password in it")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read certificates: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read certificates: %s has none in PEM form", o.CAFile)
		}
	}
	c := &client{base: base, namespace: strings.Trim(o.Namespace, "/"), tls: config}
	c.http = c.connections(config)
	return c, nil
}

func (c *client) connections(config *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:     config,
			TLSHandshakeTimeout: 10 * time.Second,
			IdleConnTimeout:     30 * time.Second,
			MaxIdleConnsPerHost: 8,
		},
		// A standby sends its clients to the active node, the token with them.
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 3 {
				return errors.New("too many redirections")
			}
			if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
				return errors.New("redirected to a connection without TLS")
			}
			return nil
		},
	}
}

// withCertificate is the same client with a certificate of its own. It is to be closed.
func (c *client) withCertificate(cert tls.Certificate) *client {
	config := c.tls.Clone()
	config.Certificates = []tls.Certificate{cert}
	other := *c
	other.http = c.connections(config)
	return &other
}

func (c *client) close() { c.http.CloseIdleConnections() }

// call is one request.
type call struct {
	method string
	path   string // below /v1/
	query  url.Values
	token  string
	body   any           // made JSON; nil: none
	limit  time.Duration // 0: requestLimit
}

// patience is how long to wait for the renewal of what lasts for ttl: it may be that the
// connection is dead, and another one will do, before the end.
func patience(ttl time.Duration) time.Duration { return min(requestLimit, max(requestLeast, ttl/6)) }

// answer is what Vault says, as far as it is used.
type answer struct {
	RequestID     string         `json:"request_id"`
	LeaseID       string         `json:"lease_id"`
	LeaseDuration int64          `json:"lease_duration"` // seconds
	Renewable     bool           `json:"renewable"`
	Data          map[string]any `json:"data"`
	Warnings      []string       `json:"warnings"`
	Auth          *grantedToken  `json:"auth"`
	Errors        []string       `json:"errors"`
}

// grantedToken is the part of an answer that a login, or a renewal of a token, gets.
type grantedToken struct {
	ClientToken   string `json:"client_token"`
	LeaseDuration int64  `json:"lease_duration"`
	Renewable     bool   `json:"renewable"`
}

// do makes a request. The error is an *Error, or the context's, or says that nobody
// answered; it has nothing of what was sent or received but what Vault says is wrong.
func (c *client) do(ctx context.Context, in call) (*answer, error) {
	limit := in.limit
	if limit == 0 {
		limit = requestLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, sent, err := c.request(ctx, in)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the address, which a redirection may have made anything
		}
		// Other connections may be as dead as this one, and nobody has told us. (That a
		// request ends is no end of its connection in HTTP/2, so that is not spoken.)
		c.http.CloseIdleConnections()
		return nil, &Error{Path: in.path, cause: err}
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit+1))
	if err != nil {
		return nil, &Error{Path: in.path, cause: err}
	}
	got, err := decode(text)
	if err != nil && resp.StatusCode < 300 {
		return nil, &Error{Path: in.path, Status: resp.StatusCode, cause: err}
	}
	if resp.StatusCode >= 300 {
		foreign := err != nil || !bytes.Contains(text, []byte(`"errors"`)) && len(got.Data) == 0
		return got, &Error{Path: in.path, Status: resp.StatusCode, said: said(got, sent), foreign: foreign}
	}
	return got, nil
}

// request builds a request. sent is what must not come back in an error.
func (c *client) request(ctx context.Context, in call) (req *http.Request, sent []string, err error) {
	var body io.Reader
	if in.body != nil {
		text, err := json.Marshal(in.body)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: the parameters cannot be made JSON", in.path)
		}
		body = bytes.NewReader(text)
		sent = texts(in.body)
	}
	u := c.base.JoinPath("v1", in.path)
	u.RawQuery = in.query.Encode()
	req, err = http.NewRequestWithContext(ctx, in.method, u.String(), body)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: not a path of Vault", in.path)
	}
	req.Header.Set("X-Vault-Request", "true")
	if in.token != "" {
		req.Header.Set("X-Vault-Token", in.token)
		sent = append(sent, in.token)
	}
	if c.namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.namespace)
	}
	return req, sent, nil
}

// decode reads an answer. Nothing is the empty one. An error says nothing of the text.
func decode(text []byte) (*answer, error) {
	if len(text) > answerLimit {
		return nil, errors.New("the answer is too large")
	}
	got := &answer{}
	if len(bytes.TrimSpace(text)) == 0 {
		return got, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(got); err != nil {
		return nil, errors.New("the answer is not Vault's")
	}
	return got, nil
}

// texts lists the texts in a value, however deep.
func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case map[string]any:
		var all []string
		for _, inner := range v {
			all = append(all, texts(inner)...)
		}
		return all
	case []any:
		var all []string
		for _, inner := range v {
			all = append(all, texts(inner)...)
		}
		return all
	case []string:
		return slices.Clone(v)
	}
	return nil
}

// said is what Vault says is wrong, on one line, without what was sent.
func said(got *answer, sent []string) string {
	if got == nil {
		return ""
	}
	text := strings.ToValidUTF8(strings.Join(got.Errors, "; "), "")
	text = strings.Join(strings.Fields(text), " ")
	slices.SortFunc(sent, func(a, b string) int { return len(b) - len(a) }) // one may be a part of another
	for _, s := range sent {
		if len(s) > 3 {
			text = strings.ReplaceAll(text, strings.Join(strings.Fields(s), " "), "…")
		}
	}
	const most = 300
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return text
}
