package manta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"

	"drover/internal/objstore"
)

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) ([]byte, objstore.Info, error) {
	if err := begin(ctx, "get", key); err != nil {
		return nil, objstore.Info{}, err
	}
	if offset < 0 {
		return nil, objstore.Info{}, fmt.Errorf("get %s: negative offset %d", key, offset)
	}
	if length == 0 { // HTTP has no range of nothing
		return s.getNothing(ctx, key, offset)
	}
	data, info, err := s.get(ctx, key, span{offset, length})
	if err != nil {
		if err = wrap(ctx, "get", key, err); errors.Is(err, objstore.ErrRange) {
			return s.getNothing(ctx, key, offset)
		}
		return nil, objstore.Info{}, err
	}
	return data, info, nil
}

func (s *Store) get(ctx context.Context, key string, part span) ([]byte, objstore.Info, error) {
	r := request{method: http.MethodGet, path: s.path(key)}
	if want := part.header(); want != "" {
		r.header = map[string]string{"Range": want}
	}
	resp, err := s.do(ctx, r)
	if err != nil {
		return nil, objstore.Info{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	info, err := infoOf(resp, key)
	if err != nil {
		return nil, objstore.Info{}, err
	}
	if info.Size, err = part.check(resp); err != nil {
		return nil, objstore.Info{}, err
	}
	data := make([]byte, resp.ContentLength)
	if _, err := io.ReadFull(resp.Body, data); err != nil {
		return nil, objstore.Info{}, fmt.Errorf("the answer ended early: %w", err)
	}
	return data, info, nil
}

// getNothing is for ranges without a byte in them. A server answers those with
// 416, whether they begin at the object's end or behind it.
func (s *Store) getNothing(ctx context.Context, key string, offset int64) ([]byte, objstore.Info, error) {
	info, err := s.Head(ctx, key)
	if err != nil {
		return nil, objstore.Info{}, fmt.Errorf("get %s: %w", key, err)
	}
	if offset > info.Size {
		return nil, objstore.Info{}, fmt.Errorf("get %s from %d of %d bytes: %w", key, offset, info.Size, objstore.ErrRange)
	}
	return []byte{}, info, nil
}

// Head implements objstore.Store.
func (s *Store) Head(ctx context.Context, key string) (objstore.Info, error) {
	if err := begin(ctx, "head", key); err != nil {
		return objstore.Info{}, err
	}
	info, err := s.head(ctx, http.MethodHead, key)
	if a, ok := errors.AsType[*answer](err); ok && a.status == http.StatusNotFound {
		// A HEAD's 404 has no body that says whether it is Manta's or a proxy's.
		info, err = s.head(ctx, http.MethodGet, key)
	}
	if err != nil {
		return objstore.Info{}, wrap(ctx, "head", key, err)
	}
	return info, nil
}

// head takes the headers of an answer, and leaves the rest of it.
func (s *Store) head(ctx context.Context, method, key string) (objstore.Info, error) {
	resp, err := s.do(ctx, request{method: method, path: s.path(key)})
	if err != nil {
		return objstore.Info{}, err
	}
	_ = resp.Body.Close()
	return infoOf(resp, key)
}

// infoOf reads what the answer's headers say of an object.
func infoOf(resp *http.Response, key string) (objstore.Info, error) {
	if isDirectory(resp.Header) {
		return objstore.Info{}, fmt.Errorf("%w: a directory has its name", objstore.ErrNotFound)
	}
	etag, err := etagOf(resp.Header)
	if err != nil {
		return objstore.Info{}, err
	}
	if resp.ContentLength < 0 {
		return objstore.Info{}, fmt.Errorf("%w: the answer does not say its length", objstore.ErrUnsupported)
	}
	info := objstore.Info{Key: key, Size: resp.ContentLength, ETag: etag}
	// A time that cannot be read stays zero: nothing depends on it.
	info.ModTime, _ = http.ParseTime(resp.Header.Get("Last-Modified"))
	return info, nil
}

// etagOf returns the one ETag of an answer. (Two, the former and the new one,
// are known from servers of before 2018.)
func etagOf(h http.Header) (objstore.ETag, error) {
	if tags := h.Values("Etag"); len(tags) == 1 && tags[0] != "" {
		return objstore.ETag(tags[0]), nil
	}
	return "", fmt.Errorf("%w: the answer has %d ETags, so it is not a Manta server's", objstore.ErrUnavailable, len(h.Values("Etag")))
}

// isDirectory says whether an answer is of a directory:
// application/x-json-stream; type=directory.
func isDirectory(h http.Header) bool {
	media, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && media == "application/x-json-stream" && params["type"] == "directory"
}

// span is a part of an object; a length below zero is to its end.
type span struct{ offset, length int64 }

// header returns the Range header's value; "" is the whole object.
func (p span) header() string {
	switch {
	case p.offset == 0 && p.length < 0:
		return ""
	case p.length < 0, p.length > math.MaxInt64-p.offset:
		return fmt.Sprintf("bytes=%d-", p.offset)
	}
	return fmt.Sprintf("bytes=%d-%d", p.offset, p.offset+p.length-1)
}

// check returns the whole object's size, after making sure that the answer is
// the part that was asked for.
func (p span) check(resp *http.Response) (size int64, err error) {
	body, content := resp.ContentLength, resp.Header.Get("Content-Range")
	if resp.StatusCode == http.StatusOK {
		switch {
		case p.offset == 0 && (p.length < 0 || body <= p.length):
			return body, nil
		case body == 0: // of an empty object Manta sends all, whatever is asked
			return 0, objstore.ErrRange
		}
		return 0, fmt.Errorf("%w: the server ignores ranges", objstore.ErrUnsupported)
	}
	var first, last int64
	_, err = fmt.Sscanf(content, "bytes %d-%d/%d", &first, &last, &size)
	if err != nil || fmt.Sprintf("bytes %d-%d/%d", first, last, size) != content {
		return 0, fmt.Errorf("%w: the answer's range is %q", objstore.ErrUnsupported, content)
	}
	end := size
	if p.length >= 0 && p.length < size-p.offset {
		end = p.offset + p.length
	}
	if first != p.offset || last != end-1 || body != last-first+1 {
		return 0, fmt.Errorf("%w: asked for %d bytes from %d, the answer is %d bytes of %q", objstore.ErrUnavailable, p.length, p.offset, body, content)
	}
	return size, nil
}
