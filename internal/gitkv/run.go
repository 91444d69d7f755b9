package gitkv

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"drover/internal/coord"
)

// releaseTimeout is for giving the lease back when all else has ended.
const releaseTimeout = 5 * time.Second

func (s *Syncer) acquire(ctx context.Context) (coord.Lease, error) {
	lease, err := s.o.Coord.Acquire(ctx, "git/"+s.o.Name, coord.LeaseOptions{Holder: s.o.Holder, TTL: s.o.TTL})
	if err != nil {
		return nil, fmt.Errorf("become the writer: %w", err)
	}
	return lease, nil
}

// term returns a context that ends with the lease. The function ends the term, and gives the lease back.
func (s *Syncer) term(ctx context.Context, lease coord.Lease) (context.Context, func()) {
	writer := rand.Text()
	for _, w := range s.workers {
		w.begin(writer)
	}
	s.status.lead(true)
	term, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-lease.Done():
			cancel()
		case <-term.Done():
		}
	})
	return term, func() {
		cancel()
		watch.Wait()
		s.status.lead(false)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		_ = lease.Release(ctx) // it runs out by itself
	}
}

// Run looks after all repositories whenever it is the writer, until ctx ends.
func (s *Syncer) Run(ctx context.Context) error {
	var relay sync.WaitGroup
	relay.Go(func() { s.relayPokes(ctx) })
	defer relay.Wait()
	for pause := minPause; ; {
		lease, err := s.acquire(ctx)
		switch {
		case err == nil:
			pause = minPause
			s.lead(ctx, lease)
		case ctx.Err() == nil:
			s.status.fail(err)
			s.o.Log.Warn("this instance cannot become the writer of keys", "error", err)
			pause = min(2*pause, time.Minute)
		}
		if !sleep(ctx, jitter(pause)) {
			return nil
		}
	}
}

func (s *Syncer) lead(ctx context.Context, lease coord.Lease) {
	ctx, end := s.term(ctx, lease)
	defer end()
	s.o.Log.Info("this instance is the writer of keys", "set", s.o.Name)
	var all sync.WaitGroup
	for _, w := range s.workers {
		all.Go(func() { w.run(ctx) })
	}
	all.Go(func() { s.o.Coord.Watch(ctx, s.pokeKey(""), false, s.heard()) })
	all.Wait()
}

func (s *Syncer) pokeKey(repo string) string {
	return s.o.Root + "/poke/" + url.PathEscape(s.o.Name) + "/" + url.PathEscape(repo)
}

// heard wakes those workers for whom a hook came to another instance.
func (s *Syncer) heard() func([]coord.Pair, error) {
	seen := map[string]coord.Revision{}
	return func(all []coord.Pair, err error) {
		if err != nil {
			return // nobody knows; there is polling
		}
		for _, p := range all {
			if seen[p.Key] == p.Revision {
				continue
			}
			seen[p.Key] = p.Revision
			for _, w := range s.workers {
				if s.pokeKey(w.repo.Name) == p.Key {
					w.poke()
				}
			}
		}
	}
}

func (w *worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// called is what a hook does: it wakes the worker, wherever it is.
func (s *Syncer) called(w *worker) {
	w.poke()
	if s.status.leads() {
		return
	}
	w.poked.Store(true)
	select {
	case s.relay <- struct{}{}:
	default:
	}
}

// relayPokes tells the writer, if it is another instance. A poke that cannot be told is lost: there is polling.
func (s *Syncer) relayPokes(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.relay:
		}
		for _, w := range s.workers {
			if !w.poked.Swap(false) {
				continue
			}
			if _, err := s.o.Coord.Put(ctx, s.pokeKey(w.repo.Name), []byte(rand.Text())); err != nil && ctx.Err() == nil {
				s.o.Log.Warn("the writer could not be told of a push", "repository", w.repo.Name, "error", err)
			}
		}
		if !sleep(ctx, minPause) {
			return
		}
	}
}

// pages lists the places that have a ledger of the repository.
func (w *worker) pages(ctx context.Context) ([]page, error) {
	all, err := w.s.o.Coord.List(ctx, ledgerKey(w.s.o.Root, ""))
	if err != nil {
		return nil, fmt.Errorf("list the ledgers: %w", err)
	}
	var found []page
	for _, p := range all {
		var r page
		if err := json.Unmarshal(p.Value, &r); err != nil {
			return nil, errors.New("the ledger at " + p.Key + " cannot be read")
		}
		if r.Repo == w.repo.Name {
			found = append(found, r)
		}
	}
	return found, nil
}
