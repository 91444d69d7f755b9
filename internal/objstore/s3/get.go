package s3

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

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
	want := byteRange(offset, length)
	var opts minio.GetObjectOptions
	if want != "" {
		opts.Set("Range", want)
	}
	body, stat, header, err := s.client.GetObject(ctx, s.bucket, s.prefix+key, opts)
	if err != nil {
		err = s.wrap(ctx, "get", key, err)
		if errors.Is(err, objstore.ErrRange) {
			return s.getNothing(ctx, key, offset)
		}
		return nil, objstore.Info{}, err
	}
	defer func() { _ = body.Close() }()
	size, err := checkRange(header, stat.Size, offset, length)
	if err != nil {
		return nil, objstore.Info{}, fmt.Errorf("get %s: %w", key, err)
	}
	if stat.ETag == "" {
		return nil, objstore.Info{}, fmt.Errorf("get %s: %w: the answer has no ETag, so it is not an S3 server's", key, objstore.ErrUnavailable)
	}
	data, err := drain(body, stat.Size)
	if err != nil {
		return nil, objstore.Info{}, s.wrap(ctx, "get", key, err)
	}
	return data, objstore.Info{Key: key, Size: size, ETag: objstore.ETag(stat.ETag), ModTime: stat.LastModified}, nil
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

// byteRange returns the Range header's value; "" is the whole object.
func byteRange(offset, length int64) string {
	switch {
	case offset == 0 && length < 0:
		return ""
	case length < 0, length > math.MaxInt64-offset:
		return fmt.Sprintf("bytes=%d-", offset)
	}
	return fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)
}

// checkRange returns the whole object's size, after making sure that the answer
// of bodySize bytes is the range that was asked for. (RFC 9110, section 14: a
// server may ignore Range and send everything.)
func checkRange(header http.Header, bodySize, offset, length int64) (size int64, err error) {
	if bodySize < 0 {
		return 0, fmt.Errorf("%w: the answer does not say its length", objstore.ErrUnsupported)
	}
	content := header.Get("Content-Range")
	if content == "" {
		if offset == 0 && (length < 0 || bodySize <= length) {
			return bodySize, nil
		}
		return 0, fmt.Errorf("%w: the server ignores ranges", objstore.ErrUnsupported)
	}
	span, total, _ := strings.Cut(strings.TrimPrefix(content, "bytes "), "/")
	first, last, _ := strings.Cut(span, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	switch {
	case errors.Join(err1, err2, err3) != nil:
		return 0, fmt.Errorf("%w: the answer's range is %q", objstore.ErrUnsupported, content)
	case from != offset, to-from+1 != bodySize, length > 0 && bodySize > length:
		return 0, fmt.Errorf("%w: asked for %d bytes from %d, the answer is %d bytes of %q", objstore.ErrUnavailable, length, offset, bodySize, content)
	case bodySize < length && to+1 != size, length < 0 && to+1 != size:
		return 0, fmt.Errorf("%w: asked for %d bytes from %d, the answer ends at %q", objstore.ErrUnavailable, length, offset, content)
	}
	return size, nil
}
