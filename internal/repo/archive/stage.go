package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"drover/internal/repo/localfs"
)

// ErrStage: a copy could not be kept; nothing is wrong with the file itself.
var ErrStage = errors.New("stage a file")

// Stage holds copies of files' contents between a Look, while the files hold
// still, and its Store. Its files have no name: whatever ends the process, they
// are gone with it. One Look at a time uses it.
type Stage struct {
	dir    string
	memory atomic.Int64 // bytes left
	bytes  atomic.Int64 // copied

	noClone atomic.Bool // the file systems share no extents with ours

	mu    sync.Mutex
	spill *os.File // of small files that memory had no room for
	end   int64
	files []*os.File // all that are open
}

// cloneSize is from where on sharing extents is tried: below, copying is as fast
// as having dirty pages written first, which sharing implies.
const cloneSize = 16 << 20

// ownFile is from where on a copy that memory has no room for is a file of its own.
const ownFile = 4 << 20

// NewStage returns a Stage that keeps up to memory bytes in memory and the rest
// in dir, which must exist.
func NewStage(dir string, memory int64) *Stage {
	s := &Stage{dir: dir}
	s.memory.Store(memory)
	return s
}

// Bytes is how much was copied.
func (s *Stage) Bytes() int64 { return s.bytes.Load() }

// Close gives back what it holds.
func (s *Stage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, f := range s.files {
		err = errors.Join(err, f.Close())
	}
	s.files, s.spill = nil, nil
	return err
}

// staged is the copy of one file.
type staged struct {
	data []byte   // if file is nil
	file *os.File // from start on
	from int64
	size int64
}

// copyFrom copies what src has, which should be size bytes.
func (s *Stage) copyFrom(ctx context.Context, src source, size int64) (staged, error) {
	if size < 0 || s.memory.Add(-size-1) >= 0 {
		return s.toMemory(ctx, src, size)
	}
	s.memory.Add(size + 1)
	if size >= ownFile {
		return s.toFile(ctx, src)
	}
	data, err := readAll(ctx, src, size) // bounded by ownFile, save for one that grows
	if err != nil {
		return staged{}, err
	}
	return s.toSpill(data)
}

func (s *Stage) toMemory(ctx context.Context, src source, size int64) (staged, error) {
	data, err := readAll(ctx, src, size)
	s.bytes.Add(int64(len(data)))
	return staged{data: data, size: int64(len(data))}, err
}

// readAll reads to the end what should have size bytes.
func readAll(ctx context.Context, src source, size int64) ([]byte, error) {
	buf := make([]byte, 0, size+1)
	for {
		if err := ctx.Err(); err != nil {
			return nil, storeError{context.Cause(ctx)}
		}
		if len(buf) == cap(buf) {
			if int64(len(buf)) > size+growLimit {
				return buf, nil
			}
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := src(buf[len(buf):min(cap(buf), len(buf)+readSize)])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return buf, nil
		}
		buf = buf[:len(buf)+n]
	}
}

// toSpill writes what was read behind what others have written.
func (s *Stage) toSpill(data []byte) (staged, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spill == nil {
		f, err := s.open()
		if err != nil {
			return staged{}, err
		}
		s.spill, s.end = f, 0
	}
	from := s.end
	if _, err := s.spill.WriteAt(data, from); err != nil {
		return staged{}, storeError{fmt.Errorf("%w: %w", ErrStage, err)}
	}
	s.end += int64(len(data))
	s.bytes.Add(int64(len(data)))
	return staged{file: s.spill, from: from, size: int64(len(data))}, nil
}

// open makes a file without a name. s.mu is held.
func (s *Stage) open() (*os.File, error) {
	fd, err := unix.Open(s.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		f := os.NewFile(uintptr(fd), "staged")
		s.files = append(s.files, f)
		return f, nil
	}
	f, err := os.CreateTemp(s.dir, "staged-") // not every file system knows O_TMPFILE
	if err != nil {
		return nil, storeError{fmt.Errorf("%w: %w", ErrStage, err)}
	}
	s.files = append(s.files, f)
	if err := os.Remove(f.Name()); err != nil {
		return nil, storeError{fmt.Errorf("%w: %w", ErrStage, err)}
	}
	return f, nil
}

func (s *Stage) openLocked() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open()
}

// cloneOf clones a file that is large enough, where that is not known to be in vain.
func (s *Stage) cloneOf(fd int, size int64) (c staged, ok bool, err error) {
	if size < cloneSize || s.noClone.Load() {
		return c, false, nil
	}
	return s.clone(fd)
}

// clone shares the file's extents, where the file system can; ok is false if not.
func (s *Stage) clone(fd int) (c staged, ok bool, err error) {
	f, err := s.openLocked()
	if err != nil {
		return c, false, err
	}
	if localfs.Retry(func() error { return unix.IoctlFileClone(int(f.Fd()), fd) }) != nil {
		s.noClone.Store(true) // the empty file stays until Close
		return c, false, nil  //nolint:nilerr // it is copied instead
	}
	info, err := f.Stat()
	if err != nil {
		return c, false, storeError{fmt.Errorf("%w: %w", ErrStage, err)}
	}
	return staged{file: f, size: info.Size()}, true, nil
}

// toFile copies into a file of its own.
func (s *Stage) toFile(ctx context.Context, src source) (staged, error) {
	f, err := s.openLocked()
	if err != nil {
		return staged{}, err
	}
	buf := make([]byte, readSize)
	c := staged{file: f}
	for {
		if ctx.Err() != nil {
			return c, storeError{context.Cause(ctx)}
		}
		n, err := src(buf)
		if err != nil {
			return c, err
		}
		if n == 0 {
			return c, nil
		}
		if _, err := f.WriteAt(buf[:n], c.size); err != nil {
			return c, storeError{fmt.Errorf("%w: %w", ErrStage, err)}
		}
		c.size += int64(n)
		s.bytes.Add(int64(n))
	}
}

// source reads a copy from its beginning.
func (c *staged) source() source {
	if c.file == nil {
		data := c.data
		return func(buf []byte) (int, error) {
			n := copy(buf, data)
			data = data[n:]
			return n, nil
		}
	}
	src, left := rangeSource(int(c.file.Fd()), c.from, c.from+c.size), c.size
	return func(buf []byte) (int, error) {
		n, err := src(buf)
		if left -= int64(n); err == nil && n == 0 && left > 0 && len(buf) > 0 {
			err = errors.New("a staged copy became shorter")
		}
		return n, err
	}
}
