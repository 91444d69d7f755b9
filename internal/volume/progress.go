package volume

import (
	"sync/atomic"
	"time"
)

// The kinds of work that Progress tells of.
const (
	Restoring = "restore"
	BackingUp = "backup"
)

// Progress is how far the restore or the capture under way is.
type Progress struct {
	Work              string
	Since             time.Time
	Files, TotalFiles int64 // that were looked at; a total of 0 is not known
	Bytes, TotalBytes int64 // of those files
}

// progress counts, from any goroutine.
type progress struct {
	Progress // but for Files and Bytes
	files    atomic.Int64
	bytes    atomic.Int64
}

// begin tells that work has begun; the totals are 0 if they are not known. end is to be
// called at its end.
func (r *Runtime) begin(work string, files, bytes int64) (end func()) {
	p := &progress{Progress: Progress{Work: work, Since: time.Now(), TotalFiles: files, TotalBytes: bytes}}
	r.going.Store(p)
	return func() { r.going.CompareAndSwap(p, nil) }
}

// passed counts a file of the work under way, if there is any.
func (r *Runtime) passed(_ string, bytes uint64) {
	if p := r.going.Load(); p != nil {
		p.files.Add(1)
		p.bytes.Add(int64(bytes))
	}
}

// Progress returns how far the work under way is; nil: there is none.
func (r *Runtime) Progress() *Progress {
	p := r.going.Load()
	if p == nil {
		return nil
	}
	now := p.Progress
	now.Files, now.Bytes = p.files.Load(), p.bytes.Load()
	return &now
}
