package wal

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// Stats are what became of the files that a courier was to store.
type Stats struct {
	Last     Name      // the segment that was stored last; of no kind: none was
	Stored   time.Time // when that was
	Failures int       // in all
	Problem  error     // of the last attempt
}

// Stats returns the figures.
func (c *Courier) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// count notes what an attempt came to.
func (c *Courier) count(file string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stats.Problem = err; err != nil {
		c.stats.Failures++
		return
	}
	if name, err := ParseName(filepath.Base(file)); err == nil && name.Kind == Segment {
		c.stats.Last, c.stats.Stored = name, time.Now()
	}
}

// Waiting is the log that is to be archived, and is not yet.
type Waiting struct {
	Segments int
	Bytes    int64
	Since    time.Time // when the first of them was full, by the clock of the disk
}

// WaitingIn looks at what waits in a data directory.
func WaitingIn(directoryPath string) (w Waiting, err error) {
	d := directory{path: directoryPath}
	ready, err := d.ready()
	if err != nil || len(ready) == 0 {
		return w, err
	}
	root, err := d.open()
	if err != nil {
		return w, err
	}
	defer func() { _ = root.Close() }()
	for _, name := range ready {
		mark, err1 := root.Stat(path.Join(readyFolder, name.String()+".ready"))
		file, err2 := root.Stat(path.Join(walFolder, name.String()))
		switch err := errors.Join(err1, err2); {
		case errors.Is(err, fs.ErrNotExist): // archived, and gone, meanwhile
			continue
		case err != nil:
			return w, err
		}
		w.add(mark, file)
	}
	return w, nil
}

func (w *Waiting) add(mark, file os.FileInfo) {
	w.Segments++
	w.Bytes += file.Size()
	if w.Since.IsZero() || mark.ModTime().Before(w.Since) {
		w.Since = mark.ModTime()
	}
}
