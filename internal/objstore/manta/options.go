package manta

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"drover/internal/objstore"
)

// Options say where a store is. What they leave open, and the key, comes from
// the environment: MANTA_URL, MANTA_USER, MANTA_SUBUSER, MANTA_KEY_ID and
// MANTA_KEY_PATH.
type Options struct {
	Account  string // whose storage it is
	Prefix   string // a directory below /account/stor; no slash at its ends; may be empty
	Endpoint string // https://host or https://host:port; empty: MANTA_URL

	User    string // the account that signs; empty: MANTA_USER, then Account
	Subuser string // the user of that account that signs; empty: MANTA_SUBUSER, then none

	// CA is a file of PEM certificates to trust besides the system's.
	CA string

	// Concurrency is how many connections are kept open between requests.
	// Zero means 64.
	Concurrency int

	// Wrap is put around the transport of requests to the store; for tests.
	Wrap func(http.RoundTripper) http.RoundTripper
}

// ParseURL reads manta://account/stor/prefix?endpoint=…&user=…&subuser=…&ca=…
// Credentials in it are refused, and no error shows them.
func ParseURL(u *url.URL) (Options, error) {
	if u.User != nil {
		return Options{}, errors.New("manta URL: it holds credentials; the key's file goes into MANTA_KEY_PATH, a user into ?user= and ?subuser=")
	}
	if u.Scheme != "manta" || u.Opaque != "" || u.Host == "" {
		return Options{}, errors.New("manta URL: it has to begin manta://ACCOUNT/stor")
	}
	if u.Port() != "" {
		return Options{}, fmt.Errorf("manta URL: %q is not an account; the server goes into ?endpoint=https://HOST", u.Host)
	}
	if u.Fragment != "" {
		return Options{}, errors.New("manta URL: it has a fragment (#…)")
	}
	top, prefix, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	if top != "stor" {
		return Options{}, errors.New("manta URL: after the account comes its private storage: manta://ACCOUNT/stor/PREFIX")
	}
	o := Options{Account: u.Host, Prefix: prefix}
	if err := checkLogin(o.Account); err != nil {
		return Options{}, fmt.Errorf("manta URL: account: %w", err)
	}
	if o.Prefix != "" {
		if err := objstore.CheckKey(o.Prefix); err != nil {
			return Options{}, fmt.Errorf("manta URL: prefix: %w", err)
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Options{}, errors.New("manta URL: the part after ? is not well-formed")
	}
	for name, values := range query {
		if len(values) != 1 {
			return Options{}, fmt.Errorf("manta URL: %s is given %d times", name, len(values))
		}
		if err := o.set(name, values[0]); err != nil {
			return Options{}, fmt.Errorf("manta URL: %w", err)
		}
	}
	return o, nil
}

func (o *Options) set(name, value string) error {
	switch name {
	case "endpoint":
		o.Endpoint = value
		_, err := parseEndpoint(value)
		return err
	case "ca":
		o.CA = value
	case "user":
		o.User = value
		return checkLogin(value)
	case "subuser":
		o.Subuser = value
		return checkLogin(value)
	default:
		return fmt.Errorf("unknown parameter %q; known are endpoint, user, subuser, ca", name)
	}
	return nil
}

// checkLogin refuses what would end the name in a path or in the header that
// names the key.
func checkLogin(name string) error {
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("%q is not a login", name)
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`/"\,%?#`, c) >= 0 {
			return fmt.Errorf("%q is not a login: it has a byte %q", name, c)
		}
	}
	return nil
}

// parseEndpoint returns the server's URL with nothing but scheme and host, and
// nil for "". Only https: a signature covers no more than the time, so whoever
// reads one request can send others.
func parseEndpoint(raw string) (*url.URL, error) {
	if raw == "" {
		return nil, nil
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("endpoint (or MANTA_URL) is not a URL")
	case u.User != nil:
		return nil, errors.New("endpoint (or MANTA_URL) holds credentials; the key's file goes into MANTA_KEY_PATH")
	case u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("endpoint (or MANTA_URL) %q has to begin https:// and name a host", raw)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("endpoint (or MANTA_URL) %q has more than a host and a port", raw)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}
