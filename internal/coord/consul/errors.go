package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/consul/api"

	"drover/internal/coord"
)

// explain says what was done, and of which of the port's kinds an error is.
func explain(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	kind := kindOf(err)
	var outer *url.Error // repeats the address and the method
	if errors.As(err, &outer) {
		err = outer.Err
	}
	if ended := ctx.Err(); ended != nil {
		err, kind = errors.Join(ended, err), nil
		if errors.Is(ended, context.DeadlineExceeded) { // of the caller's, nobody answered by then
			kind = coord.ErrUnavailable
		}
	}
	if kind != nil && !errors.Is(err, kind) {
		return fmt.Errorf("%s: %w: %w", what, kind, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func kindOf(err error) error {
	if kind := coord.Kind(err); kind != nil {
		return kind
	}
	var token *tokenError
	switch code := codeOf(err); {
	case errors.As(err, &token), code == http.StatusForbidden, code == http.StatusUnauthorized:
		return coord.ErrUnauthorized
	case code == http.StatusRequestEntityTooLarge:
		return coord.ErrTooLarge
	case code == http.StatusNotFound && errors.As(err, new(*statusError)):
		return coord.ErrUnavailable // door did not take it for Consul's
	case code == http.StatusNotFound:
		return coord.ErrNotFound
	case code == http.StatusTooManyRequests, code >= 500: // Consul says 500 of all that its servers could not do
		return coord.ErrUnavailable
	case code != 0:
		return nil
	}
	return coord.ErrUnavailable // nobody answered, not in time, what is no answer, or the certificates did not suit
}

// codeOf returns the status of an answer that was refused, 0 if there was no answer.
func codeOf(err error) int {
	var own *statusError
	if errors.As(err, &own) {
		return own.code
	}
	var vendors api.StatusError
	if errors.As(err, &vendors) {
		return vendors.Code
	}
	return 0
}

// refused says why a transaction was not done. Consul has no code for each of its errors: that
// its access control is the reason can be told by the text alone.
func refused(errs api.TxnErrors) error {
	var all []error
	kind := coord.ErrConflict
	for _, e := range errs {
		if strings.HasPrefix(e.What, "Permission denied") {
			kind = coord.ErrUnauthorized
		}
		all = append(all, errors.New(e.What))
	}
	return fmt.Errorf("%w: %w", kind, errors.Join(all...))
}
