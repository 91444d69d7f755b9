package wal

import (
	"context"
	"crypto/sha256"
)

// pushes are segments that were stored, or are being stored, before PostgreSQL asked.
type pushes struct {
	going map[Name]*flight
	done  map[Name][sha256.Size]byte // by the hash of their content
	asked Name                       // the last that PostgreSQL asked for
}

// follow notes what PostgreSQL asks for. known: that content is stored already; under: it may be on
// its way. Those that come next are begun.
func (c *Courier) follow(name Name, sum [sha256.Size]byte, size int64) (known bool, under *flight) {
	c.mu.Lock()
	c.push.asked = name
	have, ok := c.push.done[name]
	delete(c.push.done, name) // another content than that is pushed, and refused, in the open
	under = c.push.going[name]
	c.mu.Unlock()
	c.lookAhead(size)
	return ok && have == sum, under
}

// lookAhead begins to store what is ready and comes after what was asked for last.
func (c *Courier) lookAhead(size int64) {
	c.mu.Lock()
	full := c.closed || len(c.push.going) >= room(abreast, size)
	c.mu.Unlock()
	if full {
		return
	}
	ready, err := c.dir.ready()
	if err != nil {
		c.log.Debug("what is ready to be archived cannot be listed", "err", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(ready)
	for _, name := range ready {
		if c.closed || len(c.push.going) >= room(abreast, size) || len(c.push.going)+len(c.push.done) >= lead {
			return
		}
		_, done := c.push.done[name]
		if done || c.push.going[name] != nil || name.Timeline != c.push.asked.Timeline || compare(name, c.push.asked) <= 0 {
			continue
		}
		c.push.going[name] = c.fly(func(ctx context.Context, fl *flight) error { return c.pushAhead(ctx, fl, name, size) })
	}
}

// forget drops what is not ready any more: nobody will ask for it.
func (c *Courier) forget(ready []Name) {
	waits := make(map[Name]bool, len(ready))
	for _, name := range ready {
		waits[name] = true
	}
	for name := range c.push.done {
		if !waits[name] {
			delete(c.push.done, name)
		}
	}
}

// pushAhead stores one segment. What is wrong with it is told when PostgreSQL asks for it.
func (c *Courier) pushAhead(ctx context.Context, fl *flight, name Name, size int64) error {
	content, err := c.dir.read(name.String())
	if err == nil {
		fl.sum = sha256.Sum256(content)
		err = c.archive.Push(ctx, name, content)
	}
	c.mu.Lock()
	delete(c.push.going, name)
	if err == nil && c.push.asked != name {
		c.push.done[name] = fl.sum
	}
	c.mu.Unlock()
	if err != nil {
		c.log.Debug("a segment was not archived before it was asked for", "file", name.String(), "err", err)
		return err
	}
	c.lookAhead(size)
	return nil
}
