// Package volume carries out the protocol of one volume: it keeps the head, the
// claim, the record beside the data and the repository in step, for an agent
// (Runtime) and for the commands that work on a store without one (Session).
//
// It promises: a backup that was acknowledged is in every later restore; the
// committed history is a line; files that no commit holds are kept, on the disk
// or as a diverged snapshot, before anything overwrites them. All decisions are
// package protocol's; this package does what it says and reports what happened.
//
// It leaves to others: running processes (it calls the small Jobs interface),
// noticing changes (Changes), the format of blobs and trees (repo), configuration
// and user messages (app, cli).
package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/volume/protocol"
)

// The keys of the control objects, below the volume's prefix.
const (
	headKey = "drover/head"
	initKey = "drover/init"
)

// What callers act on, besides the errors of repo and protocol.
var (
	// ErrForeign: objects are here, but no volume of Drover's.
	ErrForeign = errors.New("not a volume of Drover's")
	// ErrNewer: the volume was written by a newer version.
	ErrNewer = errors.New("volume is of a newer format")
	// ErrHeld: another instance holds the volume.
	ErrHeld = errors.New("volume is held")
	// ErrIncomplete: something could not be read or kept; the error names the paths.
	ErrIncomplete = errors.New("incomplete")
	// ErrShrunk: the commit would drop more than half of the files.
	ErrShrunk = errors.New("more than half of the files are gone")
	// ErrPaths: the paths asked for are not the volume's.
	ErrPaths = errors.New("paths differ from the volume's")
	// ErrNoSnapshot: the volume has no committed snapshot yet, or the head's is gone.
	ErrNoSnapshot = errors.New("no committed snapshot")
	// ErrDataDirInUse: another agent uses the same data directory.
	ErrDataDirInUse = errors.New("data directory is in use")
)

// errOtherVolume: the head is another volume's.
var errOtherVolume = errors.New("head of another volume")

// Volume is one opened volume of a store: its repository and its head.
type Volume struct {
	Name string
	Repo *repo.Repository
	st   objstore.Store // below the volume's prefix; retries everything but PutIf
}

// Store returns the store below the volume's prefix.
func (v *Volume) Store() objstore.Store { return v.st }

// encodeHead seals h.
func (v *Volume) encodeHead(h protocol.Head) ([]byte, error) {
	plain, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode head: %w", err)
	}
	return v.Repo.Seal(plain), nil
}

// decodeHead opens what encodeHead sealed. Errors: ErrNewer and errOtherVolume,
// with as much of the head as is known; or damage.
func (v *Volume) decodeHead(sealed []byte) (protocol.Head, error) {
	plain, err := v.Repo.Unseal(sealed)
	if err != nil {
		return protocol.Head{}, fmt.Errorf("open %s: %w: it is damaged, or of another repository: put an older version of this object back, if the bucket keeps them (`drover snapshots` and the agents need it; restic does not)", headKey, err)
	}
	return parseHead(plain, v.Name)
}

func parseHead(plain []byte, volume string) (protocol.Head, error) {
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(plain, &version); err != nil {
		return protocol.Head{}, fmt.Errorf("decode head: %w", err)
	}
	if version.Version > protocol.HeadVersion {
		return protocol.Head{Version: version.Version, Volume: volume}, fmt.Errorf("%w (head version %d, this drover knows %d): upgrade this instance's drover",
			ErrNewer, version.Version, protocol.HeadVersion)
	}
	var h protocol.Head
	if err := json.Unmarshal(plain, &h); err != nil {
		return protocol.Head{}, fmt.Errorf("decode head: %w", err)
	}
	if h.Volume != volume {
		return protocol.Head{Version: h.Version, Volume: h.Volume}, fmt.Errorf("decode head: %w: it is of %q, not of %q: objects were copied between prefixes",
			errOtherVolume, h.Volume, volume)
	}
	return h, nil
}

// ReadHead gets the head. Errors: objstore's; ErrNewer, of which the format is known.
func (v *Volume) ReadHead(ctx context.Context) (protocol.Seen, error) {
	sealed, info, err := v.st.Get(ctx, headKey, 0, -1)
	if err != nil {
		return protocol.Seen{}, fmt.Errorf("read head: %w", err)
	}
	h, err := v.decodeHead(sealed)
	return protocol.Seen{Head: h, Tag: protocol.Tag(info.ETag)}, err
}

// HeadWritten is when the head was last written, by the store's clock.
func (v *Volume) HeadWritten(ctx context.Context) (time.Time, error) {
	info, err := v.st.Head(ctx, headKey)
	if err != nil {
		return time.Time{}, fmt.Errorf("look at head: %w", err)
	}
	return info.ModTime, nil
}

// Exists says whether st holds a volume, made whole or not. No password is needed.
func Exists(ctx context.Context, st objstore.Store) (bool, error) {
	for _, key := range []string{headKey, initKey} {
		_, err := st.Head(ctx, key)
		if !errors.Is(err, objstore.ErrNotFound) {
			return err == nil, err
		}
	}
	return false, nil
}
