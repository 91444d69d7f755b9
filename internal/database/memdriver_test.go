package database

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"drover/internal/failover"
)

// engine is a replicated database in memory, of all members of a test: a log of words. Positions are
// the log itself, so that they can be compared.
type engine struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	nodes   map[string]*node
	words   int
	starts  []string // of servers, by name
	archive []string // of another one, that a standby cluster follows
}

func newEngine() *engine { return &engine{nodes: map[string]*node{}, changed: make(chan struct{})} }

// node is one member's files, server and hands on them: a Driver and Processes.
type node struct {
	e    *engine
	name string

	// The files.
	system  string // empty: there are none
	log     []string
	replica bool

	// The server.
	conf     Configuration
	running  bool
	frozen   bool // it does not answer
	primary  bool
	open     bool
	upstream string // ID
	told     Peer   // whom it was told to follow last
	archive  bool   // it applies the archive
	set      failover.SyncSet
	streamed map[string]bool
	slow     bool // it receives, and does not apply
	applied  int
	kills    int
	segments int // that it was told to end
	exited   func()
	wedged   chan struct{} // it cannot be killed before that is closed; nil: it can
	hold     chan struct{} // clients are not turned away before it is closed; nil: it does not hold
	version  string        // of its server; empty: 1
	settings string
	pending  []string // what a start puts into effect
	lowers   bool
	outgrown bool
	broken   bool // it does not start
}

// node is the one of that name, made if there is none.
func (e *engine) node(name string) *node {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.nodes[name]
	if n == nil {
		n = &node{e: e, name: name}
		e.nodes[name] = n
	}
	return n
}

// change does something under the lock, and lets what can flow.
func (e *engine) change(do func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	do()
	e.flow()
	close(e.changed)
	e.changed = make(chan struct{})
}

// flow has replicas receive. e.mu is held.
func (e *engine) flow() {
	for _, n := range e.nodes {
		if n.running && n.archive && !n.slow {
			n.log = slices.Clone(e.archive)
			n.applied = len(n.log)
		}
		up := e.byID(n.upstream)
		if !n.running || n.primary || n.frozen || up == nil || !up.running || up.frozen || !up.primary {
			continue
		}
		if len(n.log) <= len(up.log) && slices.Equal(n.log, up.log[:len(n.log)]) {
			n.log = slices.Clone(up.log)
			up.streamed[n.conf.ID] = true
		}
		if !n.slow {
			n.applied = len(n.log)
		}
	}
}

func (e *engine) byID(id string) *node {
	for _, n := range e.nodes {
		if n.running && n.conf.ID == id && id != "" {
			return n
		}
	}
	return nil
}

// write is a client's: it returns when the word is acknowledged by so many as must.
func (n *node) write(ctx context.Context) (word string, err error) {
	err = errors.New("refused")
	var at int
	n.e.change(func() {
		if n.running && n.primary && n.open {
			n.e.words++
			word = "w" + strconv.Itoa(n.e.words)
			n.log = append(n.log, word)
			at, err = len(n.log), nil
		}
	})
	for err == nil {
		n.e.mu.Lock()
		acks, lost, changed := 0, !n.running || !n.open || len(n.log) < at || n.log[at-1] != word, n.e.changed
		for _, id := range n.set.Members {
			if r := n.e.byID(id); r != nil && len(r.log) >= at && r.log[at-1] == word {
				acks++
			}
		}
		enough := acks >= n.set.Acks
		n.e.mu.Unlock()
		switch {
		case lost:
			return word, errors.New("the session has ended")
		case enough:
			return word, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return word, ctx.Err()
		}
	}
	return word, err
}

func position(log []string) string { return "/" + strings.Join(log, "/") }

func (n *node) Compare(a, b string) (int, bool) {
	switch {
	case a == "" || b == "":
		return 0, false
	case a == b:
		return 0, true
	case strings.HasPrefix(b+"/", a+"/"), a == "/":
		return -1, true
	case strings.HasPrefix(a+"/", b+"/"), b == "/":
		return 1, true
	}
	return 0, false
}

// Bytes: a word has a MiB.
func (n *node) Bytes(position string) (int64, bool) {
	if position == "" {
		return 0, false
	}
	return int64(strings.Count(position, "/")) << 20, true
}

func (n *node) Disk(context.Context) (failover.Disk, error) {
	n.e.mu.Lock()
	defer n.e.mu.Unlock()
	return failover.Disk{Empty: n.system == "", System: n.system, Replica: n.replica}, nil
}

func (n *node) Command() []string { return []string{"none"} }

func (n *node) Init(context.Context) error {
	n.e.change(func() { n.system, n.log, n.replica = "system", []string{"t1"}, false })
	return nil
}

func (n *node) Clone(_ context.Context, source Peer) (err error) {
	n.e.change(func() {
		up := n.e.byID(source.ID)
		if n.running {
			err = errors.New("its own server runs")
			return
		}
		if n.system, n.log = "", nil; up == nil || !up.primary {
			err = ErrNotRunning
			return
		}
		n.system, n.log, n.replica = up.system, slices.Clone(up.log), true
	})
	return err
}

func (n *node) Rewind(_ context.Context, source Peer) (err error) {
	n.e.change(func() {
		up := n.e.byID(source.ID)
		if up == nil || !up.primary {
			err = ErrNotRunning
			return
		}
		same := 0
		for same < min(len(n.log), len(up.log)) && n.log[same] == up.log[same] {
			same++
		}
		n.log, n.replica = n.log[:same], true
	})
	return err
}

func (n *node) Configure(_ context.Context, c Configuration) error {
	n.e.change(func() { n.conf, n.set, n.open, n.upstream, n.archive = c, c.Set, false, "", c.Archive })
	if c.Upstream != nil {
		n.e.change(func() { n.upstream, n.told = c.Upstream.ID, *c.Upstream })
	}
	return nil
}

func (n *node) Status(context.Context) (db failover.Database, err error) {
	n.e.change(func() {
		if !n.running || n.frozen {
			err = ErrNotRunning
			return
		}
		db = failover.Database{
			Primary: n.primary, Received: position(n.log), Applied: position(n.log[:min(n.applied, len(n.log))]), Upstream: n.upstream, Open: n.open, Set: n.set,
			Detached: !n.primary && n.upstream == "" && !n.archive, Archive: n.archive, Version: cmp.Or(n.version, "1"), Settings: n.settings, Pending: n.pending, Lowers: n.lowers, Outgrown: n.outgrown,
		}
		for _, w := range n.log {
			if t, is := strings.CutPrefix(w, "t"); is {
				db.Timeline = t
			}
		}
		up := n.e.byID(n.upstream)
		db.Receiving = up != nil && up.primary && !up.frozen && up.streamed[n.conf.ID]
		for _, r := range n.e.nodes {
			if n.primary && r.running && !r.frozen && r.upstream == n.conf.ID && n.streamed[r.conf.ID] {
				db.Replicas = append(db.Replicas, failover.Replica{ID: r.conf.ID, Flushed: position(r.log), Streaming: true})
			}
		}
	})
	return db, err
}

func (n *node) Follow(_ context.Context, upstream *Peer) error {
	n.e.change(func() {
		n.archive = false
		if n.upstream = ""; upstream != nil {
			n.upstream, n.told = upstream.ID, *upstream
		}
	})
	return nil
}

func (n *node) Promote(context.Context) error {
	n.e.change(func() {
		if !n.primary {
			n.primary, n.replica, n.upstream, n.open, n.streamed = true, false, "", false, map[string]bool{}
			timelines := 0
			for _, w := range n.log {
				if strings.HasPrefix(w, "t") {
					timelines++
				}
			}
			n.log = append(n.log, fmt.Sprintf("t%d", timelines+1))
		}
	})
	return nil
}

func (n *node) Synchronize(_ context.Context, set failover.SyncSet) (at string, err error) {
	n.e.change(func() { n.set, at = set, position(n.log) })
	return at, nil
}

func (n *node) Admit(ctx context.Context, clients bool) error {
	if !clients && n.hold != nil {
		select {
		case <-n.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	n.e.change(func() { n.open = clients })
	return nil
}

func (n *node) EndSegment(context.Context) error {
	n.e.change(func() { n.segments++ })
	return nil
}

// source is the archive of another cluster's database.
type source struct{ *node }

func (s source) Seed(_ context.Context, system string) error {
	if system != "" && system != "theirs" {
		return errors.New("that is another database")
	}
	s.e.change(func() { s.system, s.log, s.replica = "theirs", slices.Clone(s.e.archive), true })
	return nil
}

func (n *node) Replicas(context.Context, []Peer) error { return nil }
func (n *node) Stop(context.Context) error             { return nil }
func (n *node) Close() error                           { return nil }

// Processes. A method of that name is the driver's already, so they are another type.
type processes struct{ *node }

func (p processes) Start(context.Context) error {
	p.e.change(func() {
		p.running, p.frozen, p.primary, p.streamed = !p.broken, false, !p.conf.Standby && !p.replica, map[string]bool{}
		p.applied = len(p.log)
		p.pending, p.lowers, p.outgrown = nil, false, false
		p.e.starts = append(p.e.starts, p.name)
	})
	return nil
}

func (p processes) Stop(context.Context) { p.e.change(func() { p.running, p.open = false, false }) }

func (p processes) Kill(string) {
	p.e.mu.Lock()
	wedged := p.wedged
	p.e.mu.Unlock()
	if wedged != nil {
		<-wedged
	}
	p.e.change(func() {
		if p.running {
			p.kills++
		}
		p.running, p.open = false, false
	})
}

func (p processes) Running() bool {
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	return p.running
}

// crash ends the server as by itself.
func (n *node) crash() {
	n.e.change(func() { n.running, n.open = false, false })
	n.exited()
}

const patience = 2 * time.Minute
