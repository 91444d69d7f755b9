// Package tarexport writes a snapshot as a tar archive, in the order of its paths.
//
// It promises: every byte was compared with its blob's id before it is written; the
// memory that it takes depends neither on the size of the files nor on their number
// (but for the names of files that have several); the output is written from begin
// to end and never sought in; an error names the path, and leaves an archive without
// an end.
//
// The archive has the POSIX format (pax): names and numbers of any length, times to
// the nanosecond, and extended attributes as GNU tar, star and bsdtar know them.
// Names are those of the snapshot without the leading slash. Holes are written as
// zeros; sockets are in no snapshot.
//
// It leaves to others: where the archive goes, and which snapshot it is of.
package tarexport

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/localfs"
	"drover/internal/repo/trees"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Options of Run.
type Options struct {
	Progress func(path string, bytes uint64) // after each file
}

// Result counts what was written.
type Result struct {
	Files, Dirs uint64
	Bytes       uint64 // of files' content
}

// Run writes the tree of sn to out. The index is loaded.
//
// Errors: repo.ErrBlobNotFound, repo.ErrDamaged or objstore.ErrNotFound, with the
// path, if something is lost; those of the store; those of out.
func Run(ctx context.Context, r *repo.Repository, sn *format.Snapshot, out io.Writer, opt Options) (Result, error) {
	g, gctx := errgroup.WithContext(ctx)
	planned, loaded := make(chan *batch), make(chan *batch)
	p := planner{r: r, send: func(b *batch) error { return pass(gctx, planned, b) }, links: make(map[inode]*first)}
	g.Go(func() error {
		defer close(planned)
		return p.plan(gctx, *sn.Tree)
	})
	g.Go(func() error {
		defer close(loaded)
		for b := range planned {
			if err := b.load(gctx, r); err != nil {
				return err
			}
			if err := pass(gctx, loaded, b); err != nil {
				return err
			}
		}
		return nil
	})
	w := writer{tar: tar.NewWriter(out), opt: opt}
	g.Go(func() error {
		for b := range loaded {
			if err := w.batch(b); err != nil {
				return err
			}
		}
		return gctx.Err() // the others may have ended early
	})
	if err := g.Wait(); err != nil {
		return w.res, err
	}
	if err := w.tar.Close(); err != nil {
		return w.res, fmt.Errorf("end the archive: %w", err)
	}
	return w.res, nil
}

func pass(ctx context.Context, to chan<- *batch, b *batch) error {
	select {
	case to <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// planner turns entries into batches.
type planner struct {
	r     *repo.Repository
	send  func(*batch) error
	b     *batch
	links map[inode]*first // files of which further names may come
}

type inode struct{ dev, ino uint64 }

// first is the first name of a file that has several.
type first struct {
	name    string
	content []format.ID
	left    uint64 // further names that the file had
}

func (p *planner) plan(ctx context.Context, root format.ID) error {
	p.b = new(batch)
	err := trees.Walk(ctx, p.r, root, trees.Visitor{Entry: p.entry})
	if err != nil {
		return err
	}
	return p.send(p.b)
}

func (p *planner) entry(path string, n *format.Node) error {
	h, err := p.header(path, n)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := p.add(piece{path: path, header: h}); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	var size int64
	for _, id := range n.Content {
		at, ok := p.r.Lookup(format.Handle{Type: format.DataBlob, ID: id})
		if !ok {
			return fmt.Errorf("%s: data blob %s: %w", path, id.Short(), repo.ErrBlobNotFound)
		}
		size += int64(at[0].PlainLength())
		if err := p.add(piece{path: path, blob: id, at: at[0]}); err != nil {
			return err
		}
	}
	if size != h.Size {
		return fmt.Errorf("%s: %w: its size is %d bytes, its content has %d", path, repo.ErrDamaged, h.Size, size)
	}
	return nil
}

func (p *planner) add(x piece) error {
	if p.b.full(x) {
		if err := p.send(p.b); err != nil {
			return err
		}
		p.b = new(batch)
	}
	p.b.add(x)
	return nil
}

// header describes an entry.
func (p *planner) header(path string, n *format.Node) (*tar.Header, error) {
	h := &tar.Header{
		Format: tar.FormatPAX, Name: strings.TrimPrefix(path, "/"), Mode: int64(localfs.Permissions(n.Mode)),
		Uid: int(n.UID), Gid: int(n.GID), Uname: n.User, Gname: n.Group, ModTime: n.ModTime,
	}
	if len(n.Xattrs) > 0 {
		h.PAXRecords = make(map[string]string, len(n.Xattrs))
	}
	for _, x := range n.Xattrs {
		h.PAXRecords["SCHILY.xattr."+keyword.Replace(x.Name)] = string(x.Value)
	}
	switch n.Type {
	case format.NodeDir:
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case format.NodeFile:
		h.Typeflag, h.Size = tar.TypeReg, int64(n.Size)
		if name, ok := p.linkedTo(h.Name, n); ok {
			h.Typeflag, h.Size, h.Linkname, h.PAXRecords = tar.TypeLink, 0, name, nil
		}
	case format.NodeSymlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, n.LinkTarget
	case format.NodeFifo:
		h.Typeflag = tar.TypeFifo
	case format.NodeDevice, format.NodeCharDev:
		h.Typeflag = tar.TypeBlock
		if n.Type == format.NodeCharDev {
			h.Typeflag = tar.TypeChar
		}
		h.Devmajor, h.Devminor = int64(unix.Major(n.Device)), int64(unix.Minor(n.Device))
	default:
		return nil, fmt.Errorf("a tar archive cannot hold a file of type %q", n.Type)
	}
	return h, nil
}

// keyword is how GNU tar writes an attribute's name: "=" would end it.
var keyword = strings.NewReplacer("%", "%25", "=", "%3D")

// linkedTo returns the first name of the file, if that has come already. Two names
// with other content were read while it changed: each keeps what was read.
func (p *planner) linkedTo(name string, n *format.Node) (string, bool) {
	if n.Links < 2 {
		return "", false
	}
	key := inode{n.DeviceID, n.Inode}
	f := p.links[key]
	if f == nil || !slices.Equal(f.content, n.Content) {
		p.links[key] = &first{name: name, content: n.Content, left: n.Links - 1}
		return "", false
	}
	if f.left--; f.left == 0 {
		delete(p.links, key)
	}
	return f.name, true
}

// writer writes batches that are loaded.
type writer struct {
	tar *tar.Writer
	opt Options
	res Result
}

func (w *writer) batch(b *batch) error {
	for i := range b.pieces {
		x := &b.pieces[i]
		if err := w.piece(b, x); err != nil {
			return fmt.Errorf("%s: %w", x.path, err)
		}
	}
	return nil
}

func (w *writer) piece(b *batch, x *piece) error {
	if x.header != nil {
		w.count(x)
		return w.tar.WriteHeader(x.header)
	}
	data := b.data[x.blob]
	if data.err != nil {
		return data.err
	}
	n, err := w.tar.Write(data.plain)
	w.res.Bytes += uint64(n)
	return err
}

func (w *writer) count(x *piece) {
	if x.header.Typeflag == tar.TypeDir {
		w.res.Dirs++
		return
	}
	w.res.Files++
	if w.opt.Progress != nil {
		w.opt.Progress(x.path, uint64(x.header.Size))
	}
}
