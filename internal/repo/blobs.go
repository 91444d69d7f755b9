package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"drover/internal/objstore"
	"drover/internal/repo/crypto"
	"drover/internal/repo/format"
)

const (
	// maxGap between two wanted blobs is read and thrown away rather than
	// starting another request, in bytes: what a link moves in a round trip.
	maxGap = 512 << 10
	// maxRange bounds one request, in bytes, and so the memory it takes: two of
	// them for each pack that is read. What is longer leaves the processor's caches
	// before it is verified (measured: an eighth more processor time with whole packs).
	maxRange = 4 << 20
)

// LoadBlob reads the blob h and compares it with its id. If a copy is damaged or
// gone, the next is tried. The result may use buf's array.
//
// Errors: ErrBlobNotFound, ErrDamaged (every copy is), those of the store.
func (r *Repository) LoadBlob(ctx context.Context, h format.Handle, buf []byte) ([]byte, error) {
	return r.loadBlob(ctx, h, buf, format.ID{})
}

// loadBlob passes over the copy in the pack except.
func (r *Repository) loadBlob(ctx context.Context, h format.Handle, buf []byte, except format.ID) ([]byte, error) {
	var errs []error
	for _, l := range r.idx().lookup(h) {
		if l.Pack == except {
			continue
		}
		plain, err := r.loadCopy(ctx, h, l, buf)
		if err == nil {
			return plain, nil
		}
		errs = append(errs, err)
		if !copyLost(err) {
			break
		}
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("load %s blob %s: %w", h.Type, h.ID, ErrBlobNotFound)
	}
	return nil, fmt.Errorf("load %s blob %s: %w", h.Type, h.ID, errors.Join(errs...))
}

// copyLost reports whether err says that this copy is unusable for good, so that
// another one may serve; anything else would befall the other copy as well.
func copyLost(err error) bool {
	return errors.Is(err, ErrDamaged) || errors.Is(err, objstore.ErrNotFound) || errors.Is(err, objstore.ErrRange)
}

func (r *Repository) loadCopy(ctx context.Context, h format.Handle, l Location, buf []byte) ([]byte, error) {
	sealed, _, err := r.st.Get(ctx, format.DataFile.Key(l.Pack), int64(l.Offset), int64(l.Length))
	if err != nil {
		return nil, err
	}
	return r.openBlob(h, l, sealed, buf)
}

// openBlob decrypts sealed in place, decompresses it into buf if that is large
// enough, and verifies it.
func (r *Repository) openBlob(h format.Handle, l Location, sealed, buf []byte) ([]byte, error) {
	damaged := func(err error) error {
		return fmt.Errorf("%s at %d: %w: %w", format.DataFile.Key(l.Pack), l.Offset, ErrDamaged, err)
	}
	if len(sealed) != int(l.Length) {
		return nil, damaged(fmt.Errorf("%d of %d bytes", len(sealed), l.Length))
	}
	plain, err := r.key.Open(sealed)
	if err != nil {
		return nil, damaged(err)
	}
	if size := int(l.Uncompressed); size != 0 {
		if cap(buf) < size {
			buf = make([]byte, 0, size)
		}
		if plain, err = r.zstd.expandBlob(buf, plain, size); err != nil {
			return nil, damaged(err)
		}
	}
	if format.Hash(plain) != h.ID {
		return nil, damaged(fmt.Errorf("its content is not blob %s", h.ID))
	}
	return plain, nil
}

// LoadPackBlobs reads blobs of one pack with as few requests as is sensible, and
// calls fn for each, in the order of their offsets, with its verified content;
// data is valid only during the call. A blob that is damaged here, or a pack
// that is gone, is replaced by another copy; fn gets an error if there is none.
//
// It returns fn's error, or that of a store that did not answer.
func (r *Repository) LoadPackBlobs(ctx context.Context, id format.ID, blobs []PackedBlob, fn func(h format.Handle, data []byte, err error) error) error {
	var buf []byte
	return r.readPack(ctx, id, blobs, func(b PackedBlob, sealed []byte, err error) error {
		var plain []byte
		if err == nil {
			if size := int(b.Uncompressed); cap(buf) < size {
				buf = make([]byte, 0, max(size, 1<<20))
			}
			plain, err = r.openBlob(b.Handle, b.Location, sealed, buf)
		}
		if err != nil {
			if plain, err = r.otherCopy(ctx, b, err); err != nil && !copyLost(err) && !errors.Is(err, ErrBlobNotFound) {
				return err
			}
		}
		return fn(b.Handle, plain, err)
	})
}

// otherCopy loads a copy that is not in b's pack; first is why that one is no good.
func (r *Repository) otherCopy(ctx context.Context, b PackedBlob, first error) ([]byte, error) {
	plain, err := r.loadBlob(ctx, b.Handle, nil, b.Pack)
	switch {
	case err == nil:
		r.opt.Log.Warn("damaged blob read from another pack", "blob", b.Handle, "error", first)
		return plain, nil
	case errors.Is(err, ErrBlobNotFound):
		return nil, fmt.Errorf("load %s blob %s: %w", b.Type, b.ID, first)
	}
	return nil, errors.Join(first, err)
}

// readPack gets the sealed bytes of blobs, which are fn's to change, and calls
// fn for each in the order of offsets; err says that the pack is gone or too short.
// While fn is busy the next bytes are on their way.
func (r *Repository) readPack(ctx context.Context, id format.ID, blobs []PackedBlob, fn func(b PackedBlob, sealed []byte, err error) error) error {
	blobs = slices.Clone(blobs)
	slices.SortFunc(blobs, func(a, b PackedBlob) int { return int(int64(a.Offset) - int64(b.Offset)) })
	fetching, stop := context.WithCancel(ctx)
	var ahead sync.WaitGroup
	defer ahead.Wait()
	defer stop()
	var next packRange
	if len(blobs) > 0 {
		next.fetch(fetching, r, id, blobs)
	}
	for len(blobs) > 0 {
		ahead.Wait()
		got := next
		if blobs = blobs[len(got.blobs):]; len(blobs) > 0 {
			ahead.Go(func() { next.fetch(fetching, r, id, blobs) })
		}
		if err := got.err; err != nil && (ctx.Err() != nil || !copyLost(err)) {
			return fmt.Errorf("read pack %s: %w", id.Short(), err)
		}
		if err := got.each(id, fn); err != nil {
			return err
		}
	}
	return nil
}

// packRange is what one request reads of a pack.
type packRange struct {
	blobs []PackedBlob // in order of offsets
	start int64
	data  []byte
	err   error
}

// fetch reads as many of the sorted blobs as one request should.
func (p *packRange) fetch(ctx context.Context, r *Repository, id format.ID, blobs []PackedBlob) {
	n, end := coalesce(blobs)
	*p = packRange{blobs: blobs[:n], start: int64(blobs[0].Offset)}
	p.data, _, p.err = r.st.Get(ctx, format.DataFile.Key(id), p.start, end-p.start)
}

// each hands out the blobs.
func (p *packRange) each(id format.ID, fn func(b PackedBlob, sealed []byte, err error) error) error {
	var done int64 // bytes of data that are handed out: decrypting in place spoils them
	for _, b := range p.blobs {
		from := int64(b.Offset) - p.start
		to := from + int64(b.Length)
		blobErr := p.err
		if blobErr == nil && (to > int64(len(p.data)) || from < done) {
			blobErr = fmt.Errorf("%s at %d: %w: the pack ends before, or blobs overlap", format.DataFile.Key(id), b.Offset, ErrDamaged)
		}
		var sealed []byte
		if blobErr == nil {
			sealed, done = p.data[from:to:to], to
		}
		if err := fn(b, sealed, blobErr); err != nil {
			return err
		}
	}
	return nil
}

// coalesce returns how many of the sorted blobs to read with one request, and
// where they end.
func coalesce(blobs []PackedBlob) (n int, end int64) {
	start := int64(blobs[0].Offset)
	for _, b := range blobs {
		next := int64(b.Offset) + int64(b.Length)
		if n > 0 && (int64(b.Offset)-end > maxGap || next-start > maxRange) {
			break
		}
		n, end = n+1, max(end, next)
	}
	return n, end
}

// sealedLength is the bytes that a blob of n bytes takes in a pack.
func sealedLength(n int) int { return n + crypto.Overhead }
