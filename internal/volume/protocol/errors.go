package protocol

import "errors"

// Errors that callers act upon. Exit and Reply wrap them with what happened.
var (
	// ErrNotHolder ends a request to an instance that does not hold the head.
	ErrNotHolder = errors.New("volume is not held by this instance")
	// ErrHeld ends a detached claim: somebody else holds the head, and lives.
	ErrHeld = errors.New("volume is held")
	// ErrUnfit ends a machine that may leave: the volume could not be had for a TTL, or
	// could not be restored here and was given back.
	ErrUnfit = errors.New("volume cannot be had here now")
	// ErrDeposed ends requests that were under way when another one claimed.
	ErrDeposed = errors.New("another instance took the volume over")
	// ErrStopping ends requests that came too late.
	ErrStopping = errors.New("instance is stopping")
	// ErrFilesPresent ends a first start on a directory that is not empty.
	ErrFilesPresent = errors.New("the volume has no snapshot yet, and its directory is not empty")
	// ErrStale ends a condemnation that was computed against an older head.
	ErrStale = errors.New("the head has changed since")
	// ErrUnfinished ends an instance whose grace is over before its work.
	ErrUnfinished = errors.New("stopped before all was in the store")
)
