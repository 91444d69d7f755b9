// Package objstore is the port to object storage: a flat map from keys to
// byte strings with one atomic operation, the conditional put.
//
// Everything that Drover keeps outside an instance goes through Store. The
// backends are in sub-packages (s3, file, mem), and so are the decorators
// (retry, faulty, metered); objstoretest holds the one conformance suite that
// all of them pass. What the objects mean is left to the packages above.
package objstore

import (
	"context"
	"errors"
	"io"
	"time"
)

// The kinds of error that callers act on. Backends translate their vendor's
// errors into these and wrap them with the operation and the key; anything
// else is a plain failure that a repetition will not mend.
var (
	// ErrNotFound: the store answered, and no object has that key.
	ErrNotFound = errors.New("object not found")
	// ErrConflict: the condition of a PutIf did not hold when the store looked.
	// It does not prove that this writer's bytes are not there: a proxy may
	// have repeated a request that had succeeded. Read back to know.
	ErrConflict = errors.New("conditional put refused")
	// ErrUnauthorised: the store refuses these credentials or this action.
	ErrUnauthorised = errors.New("store refuses the credentials")
	// ErrUnavailable: no answer, or an answer that says to try again. The
	// operation may or may not have taken effect.
	ErrUnavailable = errors.New("store unavailable")
	// ErrRange: the range asked for begins after the object's end.
	ErrRange = errors.New("range outside the object")
	// ErrUnsupported: the store cannot do this at all (a network file system
	// under a file store, a conditional put on a server without it).
	ErrUnsupported = errors.New("store does not support this")
)

// ETag identifies one version of one object's content. It is opaque: compare
// it only for equality, and only with ETags of the same key from the same store.
type ETag string

// Info describes one stored object.
type Info struct {
	Key     string
	Size    int64 // bytes
	ETag    ETag  // may be empty in a List
	ModTime time.Time
}

// Condition is what must hold for a PutIf to take effect. Exactly one of its
// fields is set.
type Condition struct {
	Absent bool // no object has the key (S3: If-None-Match: *)
	ETag   ETag // the object's current ETag is this one (S3: If-Match)
}

// IfAbsent is the condition that creates.
func IfAbsent() Condition { return Condition{Absent: true} }

// IfMatch is the condition that replaces exactly the version etag.
func IfMatch(etag ETag) Condition { return Condition{ETag: etag} }

// Valid reports whether c states exactly one condition.
func (c Condition) Valid() bool { return c.Absent != (c.ETag != "") }

// Store keeps objects under keys. A key is a non-empty, slash-separated path
// without a leading or trailing slash and without empty, "." or ".." elements,
// in [A-Za-z0-9._-] plus "/"; see CheckKey.
//
// All methods may be called from many goroutines at once. All honour ctx: they
// return soon after it ends, with an error that wraps ctx.Err(). No method
// retries by itself (the retry decorator does), so one call is one attempt.
// After a method returned nil, every later call by anybody sees its effect.
type Store interface {
	// Get returns length bytes of the object from offset; length < 0 means to
	// its end. A range that ends after the object's end is cut there. Info is
	// that of the version read: bytes and ETag belong together. Safe to repeat.
	// Errors: ErrNotFound, ErrRange (offset > size), ErrUnauthorised, ErrUnavailable.
	Get(ctx context.Context, key string, offset, length int64) ([]byte, Info, error)

	// Head returns the object's Info. Safe to repeat.
	// Errors: ErrNotFound, ErrUnauthorised, ErrUnavailable.
	Head(ctx context.Context, key string) (Info, error)

	// Put stores data under key, whole or not at all, whatever was there.
	// It does not keep data after it returned. Repeating the same bytes is safe;
	// a Put that failed may still take effect later.
	// Errors: ErrUnauthorised, ErrUnavailable.
	Put(ctx context.Context, key string, data []byte) error

	// PutIf stores data under key if cond holds, atomically: of any number of
	// writers with the same condition at most one succeeds. It returns the new
	// version's ETag. It must never be repeated blindly: ErrConflict and
	// ErrUnavailable both leave open whether data was stored (even later), and
	// the caller reads back. A server that ignores conditions is not noticed
	// here: `drover probe` and Check find it.
	// Errors: ErrConflict, ErrUnauthorised, ErrUnavailable, ErrUnsupported.
	PutIf(ctx context.Context, key string, data []byte, cond Condition) (ETag, error)

	// List calls fn for every object whose key begins with prefix (a string
	// prefix, usually ending in "/"), in no promised order, each once. An error
	// of fn ends the listing and is returned as it is. Nothing found is not an
	// error. Objects put or deleted meanwhile may or may not appear.
	// Errors: ErrUnauthorised, ErrUnavailable: what was listed so far is then
	// not the whole, and must not be taken for it.
	List(ctx context.Context, prefix string, fn func(Info) error) error

	// Delete removes the object; one that is not there is no error. Safe to
	// repeat. Errors: ErrUnauthorised, ErrUnavailable.
	Delete(ctx context.Context, key string) error
}

// Describer is implemented by stores that can say where they are, for messages
// ("s3://bucket/prefix"); never with credentials in it.
type Describer interface{ Describe() string }

// Closer is implemented by stores that hold something to give back.
type Closer = io.Closer
