package manta

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"

	"drover/internal/objstore"
)

const (
	objectType    = "application/octet-stream"
	directoryType = "application/json; type=directory" // of a put that makes a directory
)

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, data []byte) error {
	if err := begin(ctx, "put", key); err != nil {
		return err
	}
	_, err := s.put(ctx, key, data, nil)
	if errors.Is(err, errNoDirectory) {
		if err = s.makeDirectory(ctx, path.Dir(s.path(key))); err == nil {
			_, err = s.put(ctx, key, data, nil)
		}
	}
	if err != nil {
		return wrapPut(ctx, key, err)
	}
	return nil
}

// PutIf implements objstore.Store.
func (s *Store) PutIf(ctx context.Context, key string, data []byte, cond objstore.Condition) (objstore.ETag, error) {
	if !cond.Valid() {
		return "", fmt.Errorf("put %s: condition %+v is not exactly one", key, cond)
	}
	if err := begin(ctx, "put", key); err != nil {
		return "", err
	}
	if cond.Absent {
		return s.create(ctx, key, data)
	}
	// As it came from the server: Manta's tags have no quotes, and it does not
	// take off those of a tag with a hyphen in it.
	etag, err := s.put(ctx, key, data, map[string]string{"If-Match": string(cond.ETag)})
	return etag, wrapPutIf(ctx, key, err)
}

// create stores data if no object has the key.
//
// RFC 9110 has If-None-Match: * for that. The published server (manta-muskie,
// by way of restify's conditionalRequest) refuses a put with it always. What it
// takes as "no object" is If-Match with an empty tag, which is what it compares
// with where there is none, and which a server true to the RFC refuses always.
// So no server takes one of the two for leave to overwrite, and the second is
// only sent when the first was refused and yet nothing is there.
func (s *Store) create(ctx context.Context, key string, data []byte) (objstore.ETag, error) {
	if err := s.needDirectory(ctx, path.Dir(s.path(key))); err != nil {
		return "", wrapPut(ctx, key, err)
	}
	etag, err := s.put(ctx, key, data, map[string]string{"If-None-Match": "*"})
	if a, ok := errors.AsType[*answer](err); ok && a.status == http.StatusPreconditionFailed {
		_, headErr := s.Head(ctx, key)
		switch {
		case headErr == nil:
			return "", wrapPutIf(ctx, key, err)
		case !errors.Is(headErr, objstore.ErrNotFound):
			return "", fmt.Errorf("put %s: was refused: %w", key, headErr)
		}
		etag, err = s.put(ctx, key, data, map[string]string{"If-Match": `""`})
	}
	return etag, wrapPutIf(ctx, key, err)
}

// put sends one put and checks what the server says that it stored.
func (s *Store) put(ctx context.Context, key string, data []byte, condition map[string]string) (objstore.ETag, error) {
	sum := md5.Sum(data)
	want := base64.StdEncoding.EncodeToString(sum[:])
	header := map[string]string{"Content-Type": objectType, "Content-MD5": want}
	maps.Copy(header, condition)
	resp, err := s.do(ctx, request{method: http.MethodPut, path: s.path(key), header: header, body: data})
	if err != nil {
		return "", err
	}
	_ = resp.Body.Close()
	if got := resp.Header.Get("Computed-MD5"); got != "" && got != want {
		return "", fmt.Errorf("%w: the server stored bytes of MD5 %s, sent were %s", objstore.ErrUnavailable, got, want)
	}
	return etagOf(resp.Header)
}

// wrapPut is wrap for a plain put, for which no answer is a conflict or
// something missing: somebody works on the same names, and it may be tried again.
func wrapPut(ctx context.Context, key string, err error) error {
	err = wrap(ctx, "put", key, err)
	for _, other := range []error{objstore.ErrConflict, objstore.ErrNotFound, errNoDirectory} {
		if errors.Is(err, other) {
			return fmt.Errorf("%w: %v", objstore.ErrUnavailable, err) //nolint:errorlint // its kind is replaced
		}
	}
	return err
}

// wrapPutIf is wrap for a conditional put; nil stays nil. What is not there
// does not have the ETag asked for. If a directory was removed since it was
// looked for, nothing was stored; the caller finds that out, and tries again.
func wrapPutIf(ctx context.Context, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNoDirectory):
		return wrapPut(ctx, key, err)
	}
	if err = wrap(ctx, "put", key, err); errors.Is(err, objstore.ErrNotFound) {
		return fmt.Errorf("%w: %v", objstore.ErrConflict, err) //nolint:errorlint // its kind is replaced
	}
	return err
}

// needDirectory makes dir unless it is there.
func (s *Store) needDirectory(ctx context.Context, dir string) error {
	_, err := s.page(ctx, dir, "", 1)
	if errors.Is(err, objstore.ErrNotFound) {
		return s.makeDirectory(ctx, dir)
	}
	return err
}

// makeDirectory makes dir, which the server said does not exist, and what is
// missing above it, from below: each of them is put only after the server said
// that it is not there, since a put of a directory replaces an object.
//
// What is made is not remembered: a directory may be removed by others at any
// time, and the server says so for nothing with the next put into it.
func (s *Store) makeDirectory(ctx context.Context, dir string) error {
	err := s.putDirectory(ctx, dir)
	if !errors.Is(err, errNoDirectory) || len(dir) <= len(s.root) {
		return err
	}
	if err := s.makeDirectory(ctx, path.Dir(dir)); err != nil {
		return err
	}
	return s.putDirectory(ctx, dir)
}

func (s *Store) putDirectory(ctx context.Context, dir string) error {
	resp, err := s.do(ctx, request{method: http.MethodPut, path: dir, header: map[string]string{"Content-Type": directoryType}})
	if err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	return resp.Body.Close()
}
