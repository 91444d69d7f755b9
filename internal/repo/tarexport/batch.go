package tarexport

import (
	"archive/tar"
	"context"
	"slices"
	"sync"

	"drover/internal/repo"
	"drover/internal/repo/format"

	"golang.org/x/sync/errgroup"
)

// A batch ends with either, so that at most three of them are in memory.
const (
	batchBytes  = 16 << 20
	batchPieces = 4096
)

// batch is a stretch of the archive. Its blobs are read together, pack by pack:
// one by one, small files would cost a round trip each.
type batch struct {
	pieces []piece
	bytes  int // of its blobs
	data   map[format.ID]content
}

// piece is an entry's header, or a blob of the entry before.
type piece struct {
	path   string
	header *tar.Header
	blob   format.ID // without a header
	at     repo.Location
}

// content is a blob's, or why it cannot be had.
type content struct {
	plain []byte
	err   error
}

// full reports whether x belongs to the next batch.
func (b *batch) full(x piece) bool {
	return len(b.pieces) >= batchPieces || x.header == nil && b.bytes > 0 && b.bytes+x.at.PlainLength() > batchBytes
}

func (b *batch) add(x piece) {
	b.pieces = append(b.pieces, x)
	if x.header == nil {
		b.bytes += x.at.PlainLength()
	}
}

// load reads the batch's blobs, each once.
func (b *batch) load(ctx context.Context, r *repo.Repository) error {
	b.data = make(map[format.ID]content)
	packs := make(map[format.ID][]repo.PackedBlob)
	for _, x := range b.pieces {
		if _, ok := b.data[x.blob]; ok || x.header != nil {
			continue
		}
		b.data[x.blob] = content{}
		packs[x.at.Pack] = append(packs[x.at.Pack], repo.PackedBlob{Handle: format.Handle{Type: format.DataBlob, ID: x.blob}, Location: x.at})
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.Options().Connections)
	for pack, blobs := range packs {
		g.Go(func() error {
			return r.LoadPackBlobs(gctx, pack, blobs, func(h format.Handle, data []byte, err error) error {
				mu.Lock()
				defer mu.Unlock()
				b.data[h.ID] = content{slices.Clone(data), err}
				return nil
			})
		})
	}
	return g.Wait()
}
