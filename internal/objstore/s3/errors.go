package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/minio/minio-go/v7"

	"drover/internal/objstore"
)

// wrap gives err its kind and says what was tried.
func (s *Store) wrap(ctx context.Context, op, key string, err error) error {
	if ctxErr := ctx.Err(); ctxErr != nil {
		// The request may have been on its way: nobody knows what it did.
		return fmt.Errorf("%s %s: %w: %w", op, key, objstore.ErrUnavailable, ctxErr)
	}
	return fmt.Errorf("%s %s: %w", op, key, s.kind(err))
}

func (s *Store) kind(err error) error {
	var answer minio.ErrorResponse
	if errors.As(err, &answer) {
		return s.answerKind(answer)
	}
	if errors.Is(err, objstore.ErrUnauthorised) || errors.Is(err, objstore.ErrUnavailable) {
		return err // from the search for credentials
	}
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return fmt.Errorf("%w (a private authority's certificate is given with ?ca=FILE)", err)
	}
	return fmt.Errorf("%w: %w", objstore.ErrUnavailable, err)
}

// answerKind translates an error that the server sent. Codes are those of the
// Amazon S3 API Reference, "Error responses".
func (s *Store) answerKind(a minio.ErrorResponse) error {
	text := fmt.Sprintf("%s (%s, status %d)", a.Error(), a.Code, a.StatusCode)
	as := func(kind error) error { return fmt.Errorf("%w: %s", kind, text) }
	switch {
	case a.Code == minio.NoSuchBucket:
		return fmt.Errorf("the bucket %q does not exist at %s: create it first", s.bucket, s.client.EndpointURL())
	case a.Region != "" && a.Region != s.region && slices.Contains([]int{301, 307, 400}, a.StatusCode):
		return fmt.Errorf("the bucket %q is in region %s, not %s: add ?region=%s to the store's URL", s.bucket, a.Region, s.region, a.Region)
	case a.Code == minio.NoSuchKey || a.Code == "NotFound":
		return as(objstore.ErrNotFound)
	case a.StatusCode == http.StatusPreconditionFailed, a.Code == "ConditionalRequestConflict":
		return as(objstore.ErrConflict)
	case a.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return as(objstore.ErrRange)
	case a.Code == "RequestTimeTooSkewed":
		return fmt.Errorf("%w: this machine's clock differs too much from the server's: %s", objstore.ErrUnauthorised, text)
	case a.StatusCode == http.StatusUnauthorized, a.StatusCode == http.StatusForbidden,
		// The last is versitygw's for an unknown access key, with status 404.
		slices.Contains([]string{"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "XAdminUserNotFound"}, a.Code):
		return as(objstore.ErrUnauthorised)
	case a.StatusCode == http.StatusNotImplemented:
		return as(objstore.ErrUnsupported)
	case a.StatusCode >= 500, mayMend(a):
		return as(objstore.ErrUnavailable)
	}
	return errors.New(text)
}

// mayMend says whether an answer below 500 is worth another try: the server is
// busy, or the request was damaged on its way.
func mayMend(a minio.ErrorResponse) bool {
	return slices.Contains([]int{
		http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests, 499,
	}, a.StatusCode) || slices.Contains([]string{
		"RequestTimeout", "SlowDown", "InternalError", "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody",
	}, a.Code)
}
