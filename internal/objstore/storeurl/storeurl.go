// Package storeurl turns the URL that people give for a store into the store:
// file:///dir, s3://bucket/prefix?endpoint=http://host:9000&region=…, or
// manta://account/stor/prefix?endpoint=https://host.
//
// A URL that is wrong gets an error that says what is wrong and what is right.
// No error repeats a URL as it was given, because it may hold a secret; secrets
// in URLs are refused, since URLs are logged and listed. It opens the plain
// backend; decorators are the caller's.
package storeurl

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"drover/internal/objstore"
	"drover/internal/objstore/file"
	"drover/internal/objstore/manta"
	"drover/internal/objstore/s3"
)

// Store is what an open URL gives.
type Store interface {
	objstore.Store
	objstore.Describer
	objstore.Closer
}

// Options are what Open may be told.
type Options struct {
	// MustExist makes a missing directory of a file store an error; otherwise
	// the first put makes it.
	MustExist bool
	// Concurrency is how many connections to a server are kept open; zero is
	// the backend's default.
	Concurrency int
}

const forms = "file:///DIR, s3://BUCKET/PREFIX?endpoint=http://HOST:PORT or manta://ACCOUNT/stor/PREFIX?endpoint=https://HOST"

// Check says whether raw is a store's URL, without opening anything.
func Check(raw string) error {
	_, err := parse(raw)
	return err
}

// Open opens the store at raw. A server is not asked anything yet.
func Open(ctx context.Context, raw string, o Options) (Store, error) {
	t, err := parse(raw)
	if err != nil {
		return nil, err
	}
	switch {
	case t.s3 != nil:
		t.s3.Concurrency = o.Concurrency
		return s3.Open(ctx, *t.s3)
	case t.manta != nil:
		t.manta.Concurrency = o.Concurrency
		return manta.Open(ctx, *t.manta)
	}
	return file.Open(t.dir, file.Options{MustExist: o.MustExist})
}

// target is a parsed URL: one of them is set.
type target struct {
	dir   string
	s3    *s3.Options
	manta *manta.Options
}

func parse(raw string) (target, error) {
	if raw == "" {
		return target{}, errors.New("store URL: it is empty; give " + forms)
	}
	if path.IsAbs(raw) {
		return target{}, fmt.Errorf("store URL: a directory is written file://%s", raw)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return target{}, errors.New("store URL: it is not well-formed; give " + forms)
	}
	switch u.Scheme {
	case "file":
		dir, err := directory(u)
		return target{dir: dir}, err
	case "s3":
		if strings.HasPrefix(u.Opaque, "http") {
			return target{}, errors.New("store URL: this is restic's way of writing it; give s3://BUCKET/PREFIX?endpoint=http://HOST:PORT")
		}
		o, err := s3.ParseURL(u)
		return target{s3: &o}, err
	case "manta":
		o, err := manta.ParseURL(u)
		return target{manta: &o}, err
	case "":
		return target{}, errors.New("store URL: it has no scheme; give " + forms)
	case "http", "https":
		return target{}, fmt.Errorf("store URL: a server goes into the endpoint: s3://BUCKET/PREFIX?endpoint=%s://HOST:PORT", u.Scheme)
	}
	return target{}, fmt.Errorf("store URL: unknown scheme %q; give %s", u.Scheme, forms)
}

func directory(u *url.URL) (string, error) {
	switch {
	case u.User != nil:
		return "", errors.New("store URL: a file URL has no user and password")
	case u.Host == "localhost":
	case u.Host != "":
		return "", fmt.Errorf("store URL: %q stands where a host's name would; a directory has three slashes: file:///%s%s", u.Host, u.Host, u.Path)
	case u.Opaque != "":
		return "", errors.New("store URL: the directory has to be absolute: file:///DIR")
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", errors.New("store URL: a file URL has nothing after the directory; write ? as %3F and # as %23")
	}
	if !path.IsAbs(u.Path) {
		return "", errors.New("store URL: the directory has to be absolute: file:///DIR")
	}
	dir := path.Clean(u.Path)
	if dir == "/" || strings.ContainsRune(dir, 0) {
		return "", errors.New("store URL: it names no directory of its own; give file:///DIR")
	}
	return dir, nil
}

// Restic says how stock restic names a volume's repository in the store at raw,
// and which variables it needs besides the password and the credentials. It is
// an error for a store that restic cannot open where it is.
func Restic(raw, volume string) (repository string, env map[string]string, err error) {
	t, err := parse(raw)
	if err != nil {
		return "", nil, err
	}
	switch {
	case t.s3 != nil:
		repository, env = t.s3.Restic(volume)
		return repository, env, nil
	case t.manta != nil:
		return "", nil, errors.New("restic cannot read from Manta: copy the volume's directory to a disk (msync -r), and open that: restic -r DIR")
	}
	return path.Join(t.dir, volume), nil, nil
}
