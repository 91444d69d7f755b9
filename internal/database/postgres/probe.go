package postgres

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// probe writes to the disk of the database now and then, and remembers how that went. A server whose disk hangs still
// answers questions.
type probe struct {
	mu      sync.Mutex
	running time.Time // since when; zero: it does not
	last    time.Time // when the last one ended
	problem error
}

const (
	probeEvery = time.Second
	probeSize  = 64 << 10
	probeName  = ".probe"
)

// incident says what is wrong with the disk, if anything is, and has it tried again. It never waits.
func (p *probe) incident(d *Driver) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	hangs := !p.running.IsZero() && now.Sub(p.running) > d.o.DiskTimeout
	if p.running.IsZero() && now.Sub(p.last) > probeEvery && d.life.Err() == nil {
		p.running = now
		d.work.Go(func() {
			err := tryDisk(d.o.Data + probeName)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.running, p.last, p.problem = time.Time{}, time.Now(), err
		})
	}
	switch {
	case hangs:
		return fmt.Sprintf("a write to the disk of %s hangs for longer than %s", d.o.Data, d.o.DiskTimeout)
	case p.problem != nil:
		return fmt.Sprintf("the disk of %s cannot be written: %v", d.o.Data, p.problem)
	}
	return ""
}

// tryDisk writes a file to stable storage, and removes it.
func tryDisk(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, probeSize))
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if removed := os.Remove(path); err == nil {
		err = removed
	}
	return err
}
