package postgres

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"
)

// probe tries something now and then that may hang, and remembers how that went. A server whose disk hangs, or whose
// postmaster is stopped, still answers in the sessions that there are.
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

// look has it tried again, and says how the last time went, and whether this one takes too long. It never waits.
func (p *probe) look(d *Driver, try func() error) (problem error, hangs bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	hangs = !p.running.IsZero() && now.Sub(p.running) > d.o.DiskTimeout
	if p.running.IsZero() && now.Sub(p.last) > probeEvery && d.life.Err() == nil {
		p.running = now
		d.work.Go(func() {
			err := try()
			p.mu.Lock()
			defer p.mu.Unlock()
			p.running, p.last, p.problem = time.Time{}, time.Now(), err
		})
	}
	return p.problem, hangs
}

// incident says what is wrong with a server that answers, if anything is.
func (d *Driver) incident() string {
	problem, hangs := d.disk.look(d, func() error { return tryDisk(d.o.Data + probeName) })
	switch {
	case hangs:
		return fmt.Sprintf("a write to the disk of %s hangs for longer than %s", d.o.Data, d.o.DiskTimeout)
	case problem != nil:
		return fmt.Sprintf("the disk of %s cannot be written: %v", d.o.Data, problem)
	}
	// That no session is left for the agent is the clients' affair; that nobody answers at all is not.
	if _, hangs := d.door.look(d, d.knock); hangs {
		return fmt.Sprintf("the server has let nobody in for %s", d.o.DiskTimeout)
	}
	return ""
}

// knock opens a session of its own.
func (d *Driver) knock() error {
	ctx, cancel := context.WithTimeout(d.life, time.Minute)
	defer cancel()
	conn, err := d.connect(ctx)
	if err == nil {
		closeConn(conn)
	}
	return err
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
