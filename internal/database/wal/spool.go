package wal

import (
	"context"
)

// spool holds segments that were read before they were asked for, sealed as they are in the store: that is
// what is small, and they are verified when they are taken out.
type spool struct {
	flights map[Name]*flight
	last    Name // that was brought
	run     int  // how many were brought one after the other
}

// spooled is the flight of a file, if there is one.
func (c *Courier) spooled(name Name) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	fl := c.spool.flights[name]
	delete(c.spool.flights, name)
	return fl
}

// readAhead begins to read what follows name, the more the longer one came after the other,
// and drops what is not expected any more.
func (c *Courier) readAhead(name Name, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.spool
	if s.last.Kind == Segment && s.last.Next(size) == name {
		s.run++
	} else {
		s.run = 1
	}
	s.last = name
	wanted := map[Name]bool{}
	next := name
	for range min(s.run, room(abreast, size)) {
		next = next.Next(size)
		wanted[next] = true
	}
	for n, fl := range s.flights {
		if !wanted[n] || fl.landed() && fl.err != nil {
			fl.cancel()
			delete(s.flights, n)
		}
	}
	for n := range wanted {
		if !c.closed && s.flights[n] == nil {
			s.flights[n] = c.fly(func(ctx context.Context, fl *flight) (err error) {
				fl.sealed, err = c.from.sealed(ctx, n)
				return err
			})
		}
	}
}
