package manta

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"drover/internal/objstore"
)

// errNoDirectory is a server's word that the directory of a put is not there,
// and so that nothing was stored.
var errNoDirectory = errors.New("the directory does not exist")

// answer is a refusal by the server. Code is one of the list "Errors" of
// Manta's REST API, or empty if the body was none of Manta's.
type answer struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	status  int
	// ahead is how far the server's clock was ahead of ours, as far as its
	// answer tells; negative is behind.
	ahead time.Duration
}

// maxErrorBody is more than any error of Manta has.
const maxErrorBody = 64 << 10

// maxSkew is how far the clocks may be apart, less what a Date header cuts off.
// (Manta, "maxRequestAge": 300 s.)
const maxSkew = 5*time.Minute - 2*time.Second

func newAnswer(resp *http.Response, sent time.Time) *answer {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	a := parseAnswer(body)
	if err != nil {
		a = answer{}
	}
	a.status = resp.StatusCode
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		a.ahead = date.Sub(sent)
	}
	return &a
}

// parseAnswer reads the body of an error; it is empty for one that is not Manta's.
func parseAnswer(body []byte) answer {
	var a answer
	if err := json.Unmarshal(body, &a); err != nil || a.Code == "" {
		return answer{}
	}
	return a
}

func (a *answer) Error() string {
	text := fmt.Sprintf("status %d, and no word of Manta's", a.status)
	if a.Code != "" {
		text = fmt.Sprintf("%s (%s, status %d)", a.Message, a.Code, a.status)
	}
	if a.skewed() {
		text = fmt.Sprintf("this machine's clock differs too much from the server's (by %s): %s", a.ahead.Abs().Round(time.Second), text)
	}
	return text
}

// skewed says whether the refusal is likely due to this machine's clock.
func (a *answer) skewed() bool {
	refused := slices.Contains([]int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden}, a.status)
	return a.Code == "RequestExpired" || refused && a.ahead.Abs() >= maxSkew
}

// Is makes an answer the kind of error that it tells of.
func (a *answer) Is(target error) bool { return target == a.kind() }

// kind translates; nil is a plain failure.
func (a *answer) kind() error {
	switch {
	case a.skewed():
		return objstore.ErrUnauthorised
	case a.Code == "ResourceNotFound":
		return objstore.ErrNotFound
	case a.Code == "DirectoryDoesNotExist":
		return errNoDirectory
	case a.status == http.StatusPreconditionFailed, a.Code == "ConcurrentRequest":
		return objstore.ErrConflict
	case a.status == http.StatusRequestedRangeNotSatisfiable:
		return objstore.ErrRange
	case a.status == http.StatusUnauthorized, a.status == http.StatusForbidden:
		return objstore.ErrUnauthorised
	case a.status == http.StatusNotImplemented:
		return objstore.ErrUnsupported
	case a.status >= 500, a.mayMend():
		return objstore.ErrUnavailable
	}
	return nil
}

// mayMend says whether an answer below 500 is worth another try: the server is
// busy, the request was damaged on its way, or it is not Manta that answered.
func (a *answer) mayMend() bool {
	return slices.Contains([]int{
		http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, 499,
	}, a.status) || a.Code == "ContentMD5Mismatch" ||
		a.Code == "" && (a.status == http.StatusNotFound || a.status == http.StatusConflict)
}

// wrap gives err its kind and says what was tried.
func wrap(ctx context.Context, op, key string, err error) error {
	if ctxErr := ctx.Err(); ctxErr != nil {
		// The request may have been on its way: nobody knows what it did.
		return fmt.Errorf("%s %s: %w: %w", op, key, objstore.ErrUnavailable, ctxErr)
	}
	return fmt.Errorf("%s %s: %w", op, key, kind(err))
}

// kind makes errors of the connection what they mean; those of the server, and
// ours, have their kinds.
func kind(err error) error {
	if _, ok := errors.AsType[*answer](err); ok {
		return err
	}
	for _, known := range []error{objstore.ErrUnavailable, objstore.ErrUnsupported, objstore.ErrNotFound, objstore.ErrRange, errNotDirectory} {
		if errors.Is(err, known) {
			return err
		}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("%w (a private authority's certificate is given with ?ca=FILE)", err)
	}
	return fmt.Errorf("%w: %w", objstore.ErrUnavailable, err)
}
