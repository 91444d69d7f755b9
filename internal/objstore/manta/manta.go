// Package manta keeps objects in a directory of Manta, the object store of
// Triton, through its REST API.
//
// Manta differs from S3 in what this package levels out: requests are signed
// with an SSH key, objects lie in directories that must exist, and a listing is
// of one directory. A call is one request, but for these: the first put into a
// directory makes it; a conditional put that creates looks for the directory
// first, and may need a second way of saying "only if absent" (see create); Head
// of what is not there is confirmed; List asks at least twice for each
// directory. Directories are never removed by a delete of what was in them.
//
// Whether the server honours conditional writes is not seen here: see probe.
// Retries, limits and metrics are left to the decorators, and how long a call
// may take to its context.
package manta

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/httpconn"
)

// Store is a directory of an account's private storage. Use Open.
type Store struct {
	client    *http.Client
	transport *http.Transport
	endpoint  *url.URL
	root      string // /account/stor, which always exists
	dir       string // root, or a directory below it; no slash at its end
	signer    *signer
}

// Open returns the store that o and the MANTA_* variables describe. It reads
// the key and sends nothing: the first call finds out whether the server knows
// the key.
func Open(_ context.Context, o Options) (*Store, error) {
	s, err := o.store()
	if err != nil {
		return nil, fmt.Errorf("open manta store: %w", err)
	}
	return s, nil
}

func (o Options) store() (*Store, error) {
	if on, err := strconv.ParseBool(cmp.Or(os.Getenv("MANTA_TLS_INSECURE"), "false")); err != nil || on {
		return nil, errors.New("MANTA_TLS_INSECURE is set, and certificates are verified always: unset it, and trust a private authority with ?ca=FILE")
	}
	endpoint, err := parseEndpoint(cmp.Or(o.Endpoint, os.Getenv("MANTA_URL")))
	if err != nil {
		return nil, err
	}
	if endpoint == nil {
		return nil, errors.New("no server: set MANTA_URL, or add ?endpoint=https://HOST to the store's URL")
	}
	user := identity{
		account: cmp.Or(o.User, os.Getenv("MANTA_USER"), o.Account),
		subuser: cmp.Or(o.Subuser, os.Getenv("MANTA_SUBUSER")),
	}
	key, err := newSigner(os.Getenv("MANTA_KEY_PATH"), os.Getenv("MANTA_KEY_ID"), user)
	if err != nil {
		return nil, err
	}
	transport, err := httpconn.New(cmp.Or(o.Concurrency, 64), o.CA)
	if err != nil {
		return nil, err
	}
	var chain http.RoundTripper = transport
	if o.Wrap != nil {
		chain = o.Wrap(transport)
	}
	root := "/" + o.Account + "/stor"
	return &Store{
		client: &http.Client{
			Transport:     chain,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		transport: transport, endpoint: endpoint, signer: key,
		root: root, dir: strings.TrimSuffix(root+"/"+o.Prefix, "/"),
	}, nil
}

// Describe implements objstore.Describer.
func (s *Store) Describe() string { return "manta:/" + s.dir }

// Close gives back idle connections.
func (s *Store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// path is that of an object, or of a directory, of the store; "" is the store.
func (s *Store) path(key string) string {
	if key == "" {
		return s.dir
	}
	return s.dir + "/" + key
}

// request is what do sends.
type request struct {
	method string
	path   string
	query  url.Values
	header map[string]string
	body   []byte
}

// do sends one signed request. An answer of 300 or more is an *answer, as an
// error; of any other the caller closes the body.
func (s *Store) do(ctx context.Context, r request) (*http.Response, error) {
	u := url.URL{Scheme: s.endpoint.Scheme, Host: s.endpoint.Host, Path: r.path, RawQuery: r.query.Encode()}
	var body io.Reader
	if r.method == http.MethodPut {
		body = bytes.NewReader(r.body) // empty too: a put without a body's length is refused
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	sent := time.Now().UTC()
	date := sent.Format(http.TimeFormat)
	authorisation, err := s.signer.sign(date)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Date", date)
	req.Header.Set("Authorization", authorisation)
	resp, err := s.client.Do(req)
	if err != nil {
		var sending *url.Error
		if errors.As(err, &sending) {
			err = sending.Err // the URL is said already, by way of the key
		}
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	return nil, newAnswer(resp, sent)
}

// begin holds the checks that every call on a key starts with.
func begin(ctx context.Context, op, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", op, key, err)
	}
	return nil
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := begin(ctx, "delete", key); err != nil {
		return err
	}
	resp, err := s.do(ctx, request{method: http.MethodDelete, path: s.path(key)})
	if err == nil {
		return resp.Body.Close()
	}
	if a, ok := errors.AsType[*answer](err); ok && a.Code == "DirectoryNotEmpty" {
		return nil // a directory has the name, so no object has it
	}
	if err = wrap(ctx, "delete", key, err); errors.Is(err, objstore.ErrNotFound) {
		return nil
	}
	return err
}
