package repo

import (
	"sync"

	"drover/internal/objstore"
	"drover/internal/repo/format"
)

// Again is the same repository, opened with the same key, with an index of its own:
// for work beside somebody else's who drops and loads theirs. It knows the Writers at
// work of the handle that it was made of.
func (r *Repository) Again() *Repository { return r.again(r.st, r.opt) }

// Aside is Again with at most so many requests at once, for work that nobody waits for.
// through is what it sees of the store; nil: the store itself.
func (r *Repository) Aside(connections int, through func(objstore.Store) objstore.Store) *Repository {
	opt, st := r.opt, r.st
	opt.Connections = connections
	if through != nil {
		st = through(st)
	}
	return r.again(st, opt)
}

func (r *Repository) again(st objstore.Store, opt Options) *Repository {
	a := newRepository(st, opt, r.key, r.keyID, r.cfg)
	a.crew = r.crew
	return a
}

// crew is the Writers at work.
type crew struct {
	mu   sync.Mutex
	work map[*Writer]struct{}
}

func newCrew() *crew { return &crew{work: make(map[*Writer]struct{})} }

func (c *crew) join(w *Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.work[w] = struct{}{}
}

func (c *crew) leave(w *Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.work, w)
}

// packs returns the packs that the Writers at work count on.
func (c *crew) packs() map[format.ID]struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	packs := make(map[format.ID]struct{})
	for w := range c.work {
		for _, id := range w.Packs() {
			packs[id] = struct{}{}
		}
	}
	return packs
}
