package restore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/localfs"

	"golang.org/x/sys/unix"
)

// job is a file of which content must be written.
type job struct {
	dir   *directory
	node  *format.Node
	path  string
	fresh bool         // it is made anew; else some of its content is right
	was   localfs.Stat // if not fresh
	need  []piece
	left  atomic.Int64 // pieces to be written

	mu     sync.Mutex
	fd     int // -1: closed
	made   bool
	broken bool
}

// piece is a blob and where it stands in the file.
type piece struct {
	id     format.ID
	offset int64
	length int64
}

// pieces returns the content of a file with the blobs' lengths, which must make
// its size.
func (a *run) pieces(n *format.Node) ([]piece, error) {
	ps := make([]piece, len(n.Content))
	var offset int64
	for i, id := range n.Content {
		h := format.Handle{Type: format.DataBlob, ID: id}
		locations, ok := a.r.Lookup(h)
		if !ok || len(locations) == 0 {
			return nil, fmt.Errorf("data blob %s: %w", id, repo.ErrBlobNotFound)
		}
		length := int64(locations[0].PlainLength())
		ps[i] = piece{id, offset, length}
		offset += length
	}
	if uint64(offset) != n.Size {
		return nil, fmt.Errorf("its size in the snapshot is %d bytes, but its content has %d", n.Size, offset)
	}
	return ps, nil
}

// makeRegular makes an empty file, keeps one that is right already, or notes
// which content is to be written. st is what is there.
func (a *run) makeRegular(dir localfs.Dir, d *directory, n *format.Node, path string, st *localfs.Stat) error {
	if a.p.isFurther(n) {
		return nil // linked later
	}
	all, err := a.pieces(n)
	if err != nil {
		return err
	}
	a.res.bytes.Add(n.Size)
	j := &job{dir: d, node: n, path: path, fresh: true, need: all, fd: -1}
	if st != nil {
		missing, ok, err := a.reusable(dir, n, all, st)
		if err != nil {
			return err
		}
		switch {
		case ok && len(missing) == 0 && uint64(st.Size) == n.Size:
			return a.keepFile(dir, n, path, st)
		case ok && len(missing) < len(all):
			j.fresh, j.need, j.was = false, missing, *st
		default:
			if err := a.unlink(dir, n.Name, path); err != nil {
				return err
			}
		}
	}
	j.left.Store(int64(len(j.need)))
	if len(j.need) == 0 {
		return a.finishJob(dir, j)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.jobs = append(a.jobs, j)
	return nil
}

// keepFile sets the metadata of a file whose content is right.
func (a *run) keepFile(dir localfs.Dir, n *format.Node, path string, st *localfs.Stat) error {
	fd, err := dir.OpenFile(n.Name)
	if errors.Is(err, unix.EACCES) {
		return a.setMeta(dirFile{dir, n.Name}, path, n, st)
	}
	if err != nil {
		return err
	}
	err = errors.Join(a.setMeta(fdFile{fd}, path, n, st), unix.Close(fd))
	a.res.kept.Add(1)
	a.progress(path, n.Size)
	return err
}

// reusable compares a file that is there with the snapshot's content. ok false:
// it must not be used, because it is not a file, or has names that the snapshot
// does not know: what is written to it would show there.
func (a *run) reusable(dir localfs.Dir, n *format.Node, all []piece, st *localfs.Stat) (missing []piece, ok bool, err error) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || localfs.Links(st) > max(1, a.p.groups[n]) {
		return nil, false, nil
	}
	if st.Nlink > 1 && !a.claim(st) {
		return nil, false, nil
	}
	fd, err := dir.OpenFile(n.Name)
	if errors.Is(err, unix.EACCES) {
		return nil, false, nil // without privileges: made anew
	}
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	buf := make([]byte, 0, 64<<10)
	for _, p := range all {
		if p.offset+p.length > st.Size {
			missing = append(missing, p)
			continue
		}
		if int64(cap(buf)) < p.length {
			buf = make([]byte, 0, p.length)
		}
		got := buf[:p.length]
		if err := readAt(fd, got, p.offset); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, false, nil // it cannot be read: made anew
		} else if err != nil || format.Hash(got) != p.id {
			missing = append(missing, p)
		}
	}
	return missing, true, nil
}

// claim reports whether nobody else keeps this file: two files of the snapshot
// may be names of one on disk.
func (a *run) claim(st *localfs.Stat) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := inode{st.Dev, st.Ino}
	if _, taken := a.claims[key]; taken {
		return false
	}
	a.claims[key] = struct{}{}
	return true
}

func readAt(fd int, buf []byte, offset int64) error {
	for len(buf) > 0 {
		n, err := unix.Pread(fd, buf, offset)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		buf, offset = buf[n:], offset+int64(n)
	}
	return nil
}

// openJob opens the job's file for writing. The job is locked.
func (a *run) openJob(dir localfs.Dir, j *job) (err error) {
	if j.fd >= 0 {
		return nil
	}
	flags := unix.O_WRONLY
	if j.fresh && !j.made {
		if err := a.step("create", j.path); err != nil {
			return err
		}
		flags |= unix.O_CREAT | unix.O_EXCL
	}
	if j.fd, err = dir.Create(j.node.Name, flags, 0o600); err != nil {
		return err
	}
	a.openJobs.Add(1)
	if !j.fresh && !j.made {
		if err := a.sameAsWas(j); err != nil {
			return err
		}
	}
	j.made = true
	return nil
}

// sameAsWas makes sure that the file opened is the one that was looked at.
func (a *run) sameAsWas(j *job) error {
	var st localfs.Stat
	if err := localfs.Retry(func() error { return unix.Fstat(j.fd, &st) }); err != nil {
		return err
	}
	if st.Ino != j.was.Ino || st.Dev != j.was.Dev || st.Nlink > j.was.Nlink {
		return errors.New("somebody else is changing the directory")
	}
	return nil
}

func (a *run) closeJob(j *job) error {
	if j.fd < 0 {
		return nil
	}
	fd := j.fd
	j.fd = -1
	a.openJobs.Add(-1)
	return unix.Close(fd)
}

// writePiece writes one blob into a file.
func (a *run) writePiece(j *job, offset int64, data []byte) error {
	h, err := a.dirs.get(j.dir)
	if err != nil {
		return err
	}
	defer a.dirs.put(h)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken {
		return nil
	}
	if err := a.openJob(h.Dir, j); err != nil {
		return err
	}
	if err := a.step("write", j.path); err != nil {
		return err
	}
	written, err := writeAt(j.fd, data, offset, j.fresh)
	if err != nil {
		return err
	}
	a.res.written.Add(uint64(written))
	if j.left.Load() > 1 && a.openJobs.Load() > int64(a.dirs.limit) {
		return a.closeJob(j)
	}
	return nil
}

// wrote notes that a piece is done, well or not; the last one finishes the file.
func (a *run) wrote(j *job, err error) {
	if err != nil {
		a.fail(j.path, err)
		j.mu.Lock()
		j.broken = true
		j.mu.Unlock()
	}
	if j.left.Add(-1) > 0 {
		return
	}
	h, err := a.dirs.get(j.dir)
	if err != nil {
		a.fail(j.path, err)
		return
	}
	defer a.dirs.put(h)
	if err := a.finishJob(h.Dir, j); err != nil {
		a.fail(j.path, err)
	}
}

// finishJob sets the length and the metadata of a file. One that is not whole is
// removed if it was made here: no wrong content is left under its name.
func (a *run) finishJob(dir localfs.Dir, j *job) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken {
		err := a.closeJob(j)
		if j.fresh && j.made {
			err = errors.Join(err, a.unlink(dir, j.node.Name, j.path))
		}
		return err
	}
	if err := a.openJob(dir, j); err != nil {
		return errors.Join(err, a.closeJob(j))
	}
	err := a.step("truncate", j.path)
	if err == nil && j.node.Size > 0 || !j.fresh {
		err = localfs.Retry(func() error { return unix.Ftruncate(j.fd, int64(j.node.Size)) })
	}
	if err == nil {
		var was *localfs.Stat
		if !j.fresh {
			was = &localfs.Stat{} // its attributes may be any; the rest is set anyway
			err = localfs.Retry(func() error { return unix.Fstat(j.fd, was) })
		}
		if err == nil {
			err = a.setMeta(fdFile{j.fd}, j.path, j.node, was)
		}
	}
	err = errors.Join(err, a.closeJob(j))
	a.progress(j.path, j.node.Size)
	return err
}

func (a *run) progress(path string, bytes uint64) {
	if a.opt.Progress != nil {
		a.opt.Progress(path, bytes)
	}
}

const page = 4096 // the block size of most file systems; a hole is never smaller

var zeros [page]byte

// writeAt writes data. In a sparse file, which has nothing but holes yet, whole
// blocks of zeros are left out.
func writeAt(fd int, data []byte, offset int64, sparse bool) (written int, err error) {
	for len(data) > 0 {
		n := len(data)
		if sparse {
			var hole int
			hole, n = dataRun(data, offset)
			data, offset = data[hole:], offset+int64(hole)
		}
		for n > 0 {
			done, err := unix.Pwrite(fd, data[:n], offset)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return written, err
			}
			data, offset, n = data[done:], offset+int64(done), n-done
			written += done
		}
	}
	return written, nil
}

// dataRun returns how many bytes of zeros, in whole blocks of the file, data
// begins with, and how many bytes follow up to the next such block.
func dataRun(data []byte, offset int64) (hole, n int) {
	first := int(-offset & (page - 1)) // bytes up to the first whole block
	if first > 0 {
		n = min(first, len(data))
	}
	for n+page <= len(data) {
		if zeroBlock(data[n : n+page]) {
			if n > hole {
				return hole, n - hole
			}
			hole += page
		}
		n += page
	}
	return hole, len(data) - hole
}

func zeroBlock(b []byte) bool {
	return b[0] == 0 && b[page/2] == 0 && b[page-1] == 0 && bytes.Equal(b, zeros[:])
}
