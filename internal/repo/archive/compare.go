package archive

import (
	"context"
	"slices"
	"sync/atomic"

	"drover/internal/repo/chunk"
	"drover/internal/repo/format"
)

// A long file that changed is compared with what the parent has of it, chunk by
// chunk, since no event tells which of its bytes changed. Chunks that are what they
// were are read and hashed, and no more: neither cut anew nor, while the application
// is held still, copied.

// compareSize is from where on a file is compared, in bytes.
const compareSize = chunk.MaxSize

// giveUp ends a comparison in which so many chunks differ, and more than half: most
// of the file is new then, and would be read twice.
const giveUp = 16

// span is a part of a file.
type span struct {
	from, to int64       // to < 0: the file's end
	known    []format.ID // the chunks that it is; nil: it differs
}

// contentMaker stores content, in the second step of two.
type contentMaker func(context.Context) ([]format.ID, error)

// oldContent is what the parent has as the file's content; nil: nothing.
func (l *look) oldContent() []format.ID {
	if n, ok := decode(l.old); ok && n.Type == format.NodeFile {
		return n.Content
	}
	return nil
}

// readFrom reads and stores a long file; old is its content in the parent.
func (a *run) readFrom(ctx context.Context, fd int, old []format.ID, size int64) ([]format.ID, uint64, error) {
	spans, err := a.compare(ctx, fd, old, size)
	if err != nil {
		return nil, 0, err
	}
	content, total := []format.ID{}, uint64(0)
	for _, s := range spans {
		if s.known != nil {
			content, total = append(content, s.known...), total+uint64(s.to-s.from)
			continue
		}
		ids, n, err := a.readLarge(ctx, rangeSource(fd, s.from, s.to), nil, s.expected(size))
		if err != nil {
			return nil, 0, err
		}
		content, total = append(content, ids...), total+n
	}
	return content, total, nil
}

func (s *span) expected(size int64) int64 {
	if s.to < 0 {
		return max(size-s.from, 0)
	}
	return s.to - s.from
}

// stageFile stages what of a file the repository may not have.
func (a *run) stageFile(ctx context.Context, fd int, l *look) (contentMaker, uint64, error) {
	clone, ok, err := a.stage.cloneOf(fd, l.st.Size)
	if err != nil {
		return nil, 0, err
	}
	if ok {
		return func(ctx context.Context) ([]format.ID, error) {
			ids, _, err := a.readFrom(ctx, int(clone.file.Fd()), l.oldContent(), clone.size)
			return ids, err
		}, uint64(clone.size), nil
	}
	spans, err := a.compare(ctx, fd, l.oldContent(), l.st.Size)
	if err != nil {
		return nil, 0, err
	}
	copies := make([]staged, len(spans))
	var total uint64
	for i, s := range spans {
		if s.known != nil {
			total += uint64(s.to - s.from)
			continue
		}
		if copies[i], err = a.stage.copyFrom(ctx, rangeSource(fd, s.from, s.to), s.expected(l.st.Size)); err != nil {
			return nil, 0, err
		}
		total += uint64(copies[i].size)
	}
	return func(ctx context.Context) ([]format.ID, error) { return a.storeCopies(ctx, spans, copies) }, total, nil
}

func (a *run) storeCopies(ctx context.Context, spans []span, copies []staged) ([]format.ID, error) {
	content := []format.ID{}
	for i, s := range spans {
		ids := s.known
		if ids == nil {
			var err error
			if ids, _, err = a.readLarge(ctx, copies[i].source(), nil, copies[i].size); err != nil {
				return nil, err
			}
		}
		content = append(content, ids...)
	}
	return content, nil
}

// compare divides a file into what is as it was and what differs. The whole is one
// span that differs where there is nothing to compare with.
func (a *run) compare(ctx context.Context, fd int, old []format.ID, size int64) ([]span, error) {
	all := []span{{to: -1}}
	if size < compareSize || len(old) < 2 {
		return all, nil
	}
	chunks := a.place(old, size)
	same := make([]bool, len(chunks))
	var looked, differ atomic.Int64
	err := a.crew.Each(len(chunks), func(i int) (err error) {
		if n := differ.Load(); n >= giveUp && 2*n > looked.Load() {
			return nil
		}
		if same[i], err = a.isStill(ctx, fd, chunks[i]); err != nil {
			return err
		}
		looked.Add(1)
		if !same[i] {
			differ.Add(1)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return spansOf(chunks, same), nil
}

// place says where the parent's chunks would be, up to the first of which the
// length is not known. A file that grew continues its last chunk, so that is cut anew.
func (a *run) place(old []format.ID, size int64) []span {
	var chunks []span
	var at int64
	for _, id := range old {
		n, ok := a.w.Length(format.Handle{Type: format.DataBlob, ID: id})
		if !ok || at+n > size {
			break
		}
		chunks = append(chunks, span{at, at + n, []format.ID{id}})
		at += n
	}
	if at < size && len(chunks) == len(old) {
		chunks = chunks[:len(chunks)-1]
	}
	return chunks
}

// isStill reports whether a chunk is what it was, and in the repository.
func (a *run) isStill(ctx context.Context, fd int, s span) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, storeError{err}
	}
	buf := a.large.Get().(*[]byte)
	defer a.large.Put(buf)
	n := int(s.to - s.from)
	*buf = slices.Grow((*buf)[:0], n)[:n]
	src := rangeSource(fd, s.from, s.to)
	for read := 0; read < n; {
		got, err := src((*buf)[read:])
		if err != nil {
			return false, err
		}
		if got == 0 {
			return false, nil // it is shorter now
		}
		read += got
	}
	h := format.Handle{Type: format.DataBlob, ID: s.known[0]}
	if format.Hash(*buf) != h.ID {
		return false, nil
	}
	// The snapshot counts on it. If it was condemned a moment ago it is stored again.
	if err := a.w.SaveHashed(ctx, h, *buf); err != nil {
		return false, storeError{err}
	}
	return true, nil
}

// spansOf joins neighbours. What follows the last chunk differs.
func spansOf(chunks []span, same []bool) []span {
	var spans []span
	for i, c := range chunks {
		if !same[i] {
			c.known = nil
		}
		if n := len(spans); n > 0 && (spans[n-1].known == nil) == (c.known == nil) {
			spans[n-1].to = c.to
			spans[n-1].known = append(spans[n-1].known, c.known...)
			continue
		}
		spans = append(spans, c)
	}
	n := len(spans)
	if n > 0 && spans[n-1].known == nil {
		spans[n-1].to = -1
		return spans
	}
	var end int64
	if n > 0 {
		end = spans[n-1].to
	}
	return append(spans, span{from: end, to: -1})
}
