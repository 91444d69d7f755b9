package vault

import (
	"net/http"
	"strconv"

	"drover/internal/secret"
	"drover/internal/secret/vault/lifetime"
)

// Error is what became of a request that failed. It is one of the port's kinds where it
// is one. Nothing in it is secret.
type Error struct {
	Path   string
	Status int // of HTTP; 0: nobody answered

	said    string // by Vault
	foreign bool   // not Vault has answered, but something before it
	broken  bool   // whatever the status: it is known to be a thing that may pass
	cause   error
}

func (e *Error) kind() error {
	switch e.failure() {
	case lifetime.Away, lifetime.Broken:
		return secret.ErrUnavailable
	case lifetime.Missing:
		return secret.ErrNotFound
	case lifetime.Refused:
		return secret.ErrUnauthorized
	}
	return nil
}

func (e *Error) Error() string {
	text := e.Path
	if e.Status != 0 {
		text += ": " + strconv.Itoa(e.Status)
	}
	if e.said != "" {
		return text + ": " + e.said
	}
	if e.cause != nil {
		return text + ": " + e.cause.Error()
	}
	return text + ": " + http.StatusText(e.Status)
}

// Unwrap gives the port's kind, and the cause if there is one.
func (e *Error) Unwrap() []error {
	var kinds []error
	if e.cause != nil {
		kinds = append(kinds, e.cause)
	}
	if kind := e.kind(); kind != nil {
		kinds = append(kinds, kind)
	}
	return kinds
}

// failure says what follows from an error.
func (e *Error) failure() lifetime.Failure {
	switch e.Status {
	case 0, http.StatusNotImplemented, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
		http.StatusTooManyRequests, 472, 473: // sealed, not set up, a standby, a proxy without a server, over its limit
		return lifetime.Away
	}
	if e.broken || e.foreign { // what is foreign knows nothing of secrets and tokens
		return lifetime.Broken
	}
	switch e.Status {
	case http.StatusNotFound:
		return lifetime.Missing
	case http.StatusForbidden, http.StatusUnauthorized:
		return lifetime.Refused
	}
	if e.Status >= 500 || e.Status < 400 || e.Status == http.StatusPreconditionFailed {
		return lifetime.Broken
	}
	return lifetime.Invalid
}
