package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"drover/internal/repo/chunk"
	"drover/internal/repo/crew"
	"drover/internal/repo/format"
	"drover/internal/repo/localfs"

	"golang.org/x/sys/unix"
)

const (
	// tries is how often a file that changes while it is read is read; a long one
	// only twice.
	tries      = 4
	retryLimit = 64 << 20 // bytes
	readSize   = 512 << 10
	// growLimit ends the reading of a file that grows as fast as it is read, in
	// bytes beyond its first size; it is fuzzy then.
	growLimit = 1 << 30
)

// file makes the node of a regular file, with its content stored or staged.
func (a *run) file(ctx context.Context, d localfs.Dir, path string, l *look) (made, error) {
	if err := ctx.Err(); err != nil {
		return made{}, storeError{err}
	}
	if old, ok := a.unchanged(l); ok {
		a.noteLink(path, &l.st)
		a.count(l, old, 0, true)
		a.progress(path, old.Size)
		if l.name == old.Name {
			return made{Entry: *l.old}, nil
		}
		return made{Entry: encode(old)}, nil
	}
	for try := 1; ; try++ {
		began := time.Now()
		n, st, later, err := a.readFile(ctx, d, path, l)
		if err != nil {
			return made{}, err
		}
		steady := a.opt.Torn || sameContent(&l.st, &st)
		if !steady && try < tries && (try < 2 || st.Size < retryLimit) {
			l.st = st
			continue
		}
		a.mu.Lock()
		if !steady {
			a.res.Fuzzy = append(a.res.Fuzzy, path)
		} else if a.racy(&st, began) {
			a.res.Racy = append(a.res.Racy, path)
		}
		a.mu.Unlock()
		a.noteLink(path, &st)
		a.count(l, n, n.Size, false)
		a.progress(path, n.Size)
		return a.settled(n, later), nil
	}
}

// settled is the node's entry, or with its content staged what makes it.
func (a *run) settled(n *format.Node, later contentMaker) made {
	if later == nil {
		return made{Entry: encode(n)}
	}
	return made{later: func(ctx context.Context) (_ format.Entry, err error) {
		n.Content, err = later(ctx)
		return encode(n), err
	}}
}

// unchanged returns the parent's node if the file looks as it did then and its
// content is in the repository.
func (a *run) unchanged(l *look) (*format.Node, bool) {
	if l.old == nil || l.h.forces() {
		return nil, false
	}
	n, ok := decode(l.old)
	if !ok || n.Type != format.NodeFile || n.Error != "" || n.Size != uint64(l.st.Size) || n.Inode != l.st.Ino || n.Links != localfs.Links(&l.st) {
		return nil, false
	}
	if !n.ModTime.Equal(localfs.Time(l.st.Mtim)) || !n.ChangeTime.Equal(localfs.Time(l.st.Ctim)) || a.recent(&l.st) {
		return nil, false
	}
	for _, id := range n.Content {
		if !a.r.Has(format.Handle{Type: format.DataBlob, ID: id}) {
			return nil, false
		}
	}
	return n, true
}

// readFile reads the content once, and stores or stages it. It returns the node,
// and what the kernel said of the file after it was read.
func (a *run) readFile(ctx context.Context, d localfs.Dir, path string, l *look) (n *format.Node, st localfs.Stat, later contentMaker, err error) {
	fd, err := d.OpenFile(l.file)
	if err != nil {
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
			err = fmt.Errorf("it became another kind of file: %w", err)
		}
		return nil, st, nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	var content []format.ID
	var size uint64
	switch {
	case a.stage != nil:
		later, size, err = a.stageFile(ctx, fd, l)
	case l.st.Size <= chunk.MinSize:
		content, size, err = a.readSmall(ctx, fd, l.st.Size)
	default:
		content, size, err = a.readFrom(ctx, fd, l.oldContent(), l.st.Size)
	}
	if err != nil {
		return nil, st, nil, err
	}
	if a.opt.afterRead != nil {
		a.opt.afterRead(path)
	}
	if err := localfs.Retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return nil, st, nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, st, nil, errors.New("it became another kind of file")
	}
	n = &format.Node{Name: l.name, Content: content}
	localfs.Fill(n, format.NodeFile, &st)
	n.Size = size
	a.owners.Name(n)
	n.Xattrs, err = localfs.FdXattrs(fd)
	return n, st, later, err
}

// readSmall reads a file of at most chunk.MinSize bytes with one call.
func (a *run) readSmall(ctx context.Context, fd int, size int64) ([]format.ID, uint64, error) {
	buf := a.small.Get().(*[]byte)
	defer a.small.Put(buf)
	n, err := read(fd, *buf)
	if err != nil {
		return nil, 0, err
	}
	if int64(n) != size && n > 0 { // it changed, or its size is none (/proc): the slow way finds the end
		return a.readLarge(ctx, fdSource(fd), (*buf)[:n], size)
	}
	if n == 0 {
		return []format.ID{}, 0, nil
	}
	id, err := a.w.Save(ctx, format.DataBlob, (*buf)[:n])
	if err != nil {
		return nil, 0, storeError{err}
	}
	return []format.ID{id}, uint64(n), nil
}

// readLarge reads a file to its end in chunks, of which several are stored at
// once. begin was read already.
func (a *run) readLarge(ctx context.Context, src source, begin []byte, expected int64) ([]format.ID, uint64, error) {
	s := chunkSaver{a: a, ctx: ctx, g: a.crew.Group()}
	scan := a.chunker.Scan()
	buf := a.large.Get().(*[]byte)
	*buf = append((*buf)[:0], begin...)
	var size uint64
	var readErr error
	for !s.g.Failed() && size < uint64(expected)+growLimit {
		if n, ok := scan.Next(*buf); ok {
			next := a.large.Get().(*[]byte)
			*next = append((*next)[:0], (*buf)[n:]...)
			*buf = (*buf)[:n]
			size += uint64(n)
			s.save(buf)
			buf = next
			continue
		}
		if readErr = ctx.Err(); readErr != nil {
			readErr = storeError{readErr}
			break
		}
		var n int
		*buf, n, readErr = readMore(src, *buf)
		if n == 0 {
			break
		}
	}
	if len(*buf) > 0 && readErr == nil {
		size += uint64(len(*buf))
		s.save(buf)
	} else {
		a.large.Put(buf)
	}
	if err := s.g.Wait(); err != nil {
		return nil, 0, storeError{err}
	}
	return s.content(), size, readErr
}

// source reads on, as read(2) does: 0 bytes at the end.
type source func(buf []byte) (int, error)

func fdSource(fd int) source { return func(buf []byte) (int, error) { return read(fd, buf) } }

// rangeSource reads what of a file is from here to there; there < 0: to its end.
func rangeSource(fd int, from, to int64) source {
	return func(buf []byte) (n int, err error) {
		if to >= 0 {
			buf = buf[:min(int64(len(buf)), to-from)]
		}
		if len(buf) == 0 {
			return 0, nil
		}
		err = localfs.Retry(func() error { n, err = unix.Pread(fd, buf, from); return err })
		n = max(n, 0)
		from += int64(n)
		return n, err
	}
}

func readMore(src source, buf []byte) ([]byte, int, error) {
	if cap(buf)-len(buf) < readSize {
		buf = append(make([]byte, 0, 2*cap(buf)+readSize), buf...)
	}
	n, err := src(buf[len(buf) : len(buf)+readSize])
	return buf[:len(buf)+max(n, 0)], n, err
}

func read(fd int, buf []byte) (n int, err error) {
	err = localfs.Retry(func() error {
		n, err = unix.Read(fd, buf)
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// chunkSaver stores the chunks of one file, in any order.
type chunkSaver struct {
	a   *run
	ctx context.Context
	g   *crew.Group
	ids []*format.ID
}

// save stores buf, which is the saver's from now on.
func (s *chunkSaver) save(buf *[]byte) {
	id := new(format.ID)
	s.ids = append(s.ids, id)
	s.g.Run(func() (err error) {
		defer s.a.large.Put(buf)
		*id, err = s.a.w.Save(s.ctx, format.DataBlob, *buf)
		return err
	})
}

func (s *chunkSaver) content() []format.ID {
	ids := make([]format.ID, len(s.ids))
	for i, id := range s.ids {
		ids[i] = *id
	}
	return ids
}

// sameContent reports whether nothing was written between the two looks. The
// change time shows what the modification time may hide.
func sameContent(a, b *localfs.Stat) bool {
	return a.Ino == b.Ino && a.Dev == b.Dev && a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim
}

func (a *run) count(l *look, n *format.Node, read uint64, unmodified bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.res.Files++
	a.res.Bytes += n.Size
	a.res.BytesRead += read
	switch {
	case l.old == nil:
		a.res.FilesNew++
	case !unmodified:
		a.res.FilesChanged++
	}
}

func (a *run) progress(path string, bytes uint64) {
	if a.opt.Progress != nil {
		a.opt.Progress(path, bytes)
	}
}
