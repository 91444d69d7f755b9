// Package gather watches many keys of one folder with one query.
//
// A watch of a key costs a query that waits, and coordinators allow a client only so many:
// a template that reads a thousand keys of a folder is one that reads the folder. So the
// first few keys of a folder are watched one by one, and when there are more, the folder is
// watched for all of them, unless it holds far more than is asked for.
//
// It promises what coord.KV.Watch does for each key, through any change of the way. That a key
// is not in a folder proves nothing (its reader may not be allowed to see it), so a key
// that is not there is watched by itself. A change of the way never takes a key back to an
// older state.
package gather

import (
	"context"
	"errors"
	"strings"
	"sync"

	"drover/internal/coord"
)

const (
	// alone is how many keys of a folder are watched one by one.
	alone = 8
	// A folder may hold spare keys, and so many for each that is asked for, and spare
	// bytes of what is not asked for. One that is watched may have twice as much.
	spareKeys, spareEach, spareBytes = 256, 4, 1 << 20
)

// Keys watches keys of one coordinator.
type Keys struct {
	ctx context.Context
	kv  coord.KV
	run func(func()) // starts what its owner waits for

	mu      sync.Mutex
	folders map[string]*folder
}

// New returns Keys of kv. What it starts, by run, ends with ctx.
func New(ctx context.Context, kv coord.KV, run func(func())) *Keys {
	return &Keys{ctx: ctx, kv: kv, run: run, folders: map[string]*folder{}}
}

// folder is a prefix that ends in a slash, and who watches keys directly below it. It is
// guarded by Keys.mu.
type folder struct {
	prefix string
	subs   map[*sub]bool
	stop   context.CancelFunc    // of the watch of the folder; nil: there is none
	state  map[string]coord.Pair // of the watch, once it has told one
	tooBig int                   // with so many subs it was given up; 0: it was not
}

// way is how a key is watched.
type way int

const (
	single  way = iota // by itself
	waiting            // for the folder's first state
	folded             // with the folder
)

// sub is one watch. It is guarded by Keys.mu.
type sub struct {
	ctx  context.Context // of the caller, who is told nothing after its end
	key  string
	tell *coord.Teller[[]coord.Pair]
	way  way
	turn chan struct{}      // closed and made anew when way changes
	stop context.CancelFunc // of its own watch
	last coord.Revision     // that was told; empty: it is not there, or nothing was
}

func (s *sub) state(pairs []coord.Pair) {
	if s.ctx.Err() != nil {
		return
	}
	s.last = ""
	if len(pairs) > 0 {
		s.last = pairs[0].Revision
	}
	s.tell.State(pairs)
}

func (s *sub) turnTo(w way) {
	s.way = w
	s.stop()
	close(s.turn)
	s.turn = make(chan struct{})
}

// Watch is coord.KV.Watch of one key, but that fn must not wait.
func (k *Keys) Watch(ctx context.Context, key string, fn func([]coord.Pair, error)) {
	slash := strings.LastIndexByte(key, '/')
	if slash <= 0 || slash == len(key)-1 {
		k.kv.Watch(ctx, key, true, fn)
		return
	}
	s := &sub{ctx: ctx, key: key, tell: coord.NewTeller(fn, coord.EqualPairs), turn: make(chan struct{}), stop: func() {}}
	f := k.join(key[:slash+1], s)
	defer k.leave(f, s)
	for ctx.Err() == nil {
		own, cancel := context.WithCancel(ctx)
		k.mu.Lock()
		way, turn := s.way, s.turn
		s.stop = cancel
		k.mu.Unlock()
		if way == single {
			k.kv.Watch(own, key, true, func(pairs []coord.Pair, err error) { k.single(own, f, s, pairs, err) })
		} else {
			select {
			case <-ctx.Done():
			case <-turn:
			}
		}
		cancel()
	}
}

func (k *Keys) join(prefix string, s *sub) *folder {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.folders[prefix]
	if f == nil {
		f = &folder{prefix: prefix, subs: map[*sub]bool{}}
		k.folders[prefix] = f
	}
	f.subs[s] = true
	if f.stop == nil && len(f.subs) > alone && len(f.subs) >= 2*f.tooBig {
		k.open(f)
	}
	if f.stop != nil && f.state == nil {
		s.way = waiting
	}
	return f
}

func (k *Keys) leave(f *folder, s *sub) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(f.subs, s)
	if f.stop != nil && len(f.subs) <= alone/2 {
		k.dissolve(f)
	}
	if len(f.subs) == 0 {
		delete(k.folders, f.prefix)
	}
}

// single takes what the watch of a key alone has found. When the folder has seen the same
// state, it goes on with the folder.
func (k *Keys) single(own context.Context, f *folder, s *sub, pairs []coord.Pair, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case own.Err() != nil: // the way has changed
	case err != nil:
		s.tell.Failed(own, err)
	default:
		s.state(pairs)
		if p, there := f.state[s.key]; there && p.Revision == s.last {
			s.turnTo(folded)
		}
	}
}

// open begins to watch the folder.
func (k *Keys) open(f *folder) {
	ctx, cancel := context.WithCancel(k.ctx)
	f.stop = cancel
	k.run(func() {
		k.kv.Watch(ctx, f.prefix, false, func(pairs []coord.Pair, err error) {
			k.mu.Lock()
			defer k.mu.Unlock()
			switch {
			case ctx.Err() != nil: // it was given up
			case err != nil:
				k.failed(f, err)
			case f.tooLarge(pairs):
				f.tooBig = len(f.subs)
				k.dissolve(f)
			default:
				f.tooBig = 0
				k.state(f, pairs)
			}
		})
	})
}

// dissolve has each key watched by itself again.
func (k *Keys) dissolve(f *folder) {
	f.stop()
	f.stop, f.state = nil, nil
	for s := range f.subs {
		if s.way != single {
			s.turnTo(single)
		}
	}
}

// failed tells those who rely on the folder. Who may not list it may read keys, perhaps.
func (k *Keys) failed(f *folder, err error) {
	if f.state == nil && !errors.Is(err, coord.ErrUnavailable) {
		f.tooBig = len(f.subs)
		k.dissolve(f)
		return
	}
	for s := range f.subs {
		if s.way != single {
			s.tell.Failed(s.ctx, err)
		}
	}
}

func (k *Keys) state(f *folder, pairs []coord.Pair) {
	f.state = make(map[string]coord.Pair, len(pairs))
	for _, p := range pairs {
		f.state[p.Key] = p
	}
	for s := range f.subs {
		p, there := f.state[s.key]
		switch {
		case s.way == single && there && p.Revision == s.last:
			s.turnTo(folded)
		case s.way != single && there:
			s.way = folded
			s.state([]coord.Pair{p})
		case s.way != single:
			s.turnTo(single)
		}
	}
}

// tooLarge says whether a folder holds far more than is asked for.
func (f *folder) tooLarge(pairs []coord.Pair) bool {
	factor := 1
	if f.state != nil {
		factor = 2
	}
	wanted := make(map[string]bool, len(f.subs))
	for s := range f.subs {
		wanted[s.key] = true
	}
	bytes := 0
	for _, p := range pairs {
		if !wanted[p.Key] {
			bytes += len(p.Key) + len(p.Value)
		}
	}
	return len(pairs) > factor*(spareKeys+spareEach*len(wanted)) || bytes > factor*spareBytes
}
