// Package probe finds out whether a store keeps what the objstore port
// promises, above all whether it honours conditional puts: some servers ignore
// the headers and answer 200, and then two holders can commit.
//
// It works on scratch objects of random names under drover/probe/ and removes
// them, also those that a crashed probe left, so it may run beside any number of
// agents and other probes. It says "unsupported" only on evidence: a store that
// does not answer is unavailable, and nothing is known about it. What to do
// about the result is left to the caller.
package probe

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"drover/internal/objstore"
)

// Level is how much to ask of the store.
type Level int

const (
	// Start is what every start of an agent affords: are conditions honoured?
	// Four small requests in three round trips.
	Start Level = iota
	// Full tests every operation, races 32 writers and takes times: some 300
	// requests.
	Full
)

// Report is what was found, for people and as JSON.
type Report struct {
	Store   string    `json:"store"`
	Steps   []Step    `json:"steps"`
	Latency []Latency `json:"latency,omitempty"`
}

// Step is one thing that was tried.
type Step struct {
	Name  string        `json:"name"`
	OK    bool          `json:"ok"`
	Error string        `json:"error,omitempty"`
	Took  time.Duration `json:"took_ns"`
}

// prefix is where scratch objects are.
const prefix = "drover/probe/"

// cleanUpTime limits the removal of scratch objects, which happens even if the
// probe was cancelled.
const cleanUpTime = 30 * time.Second

// Check probes the store. The error is that of the first step that failed; it
// wraps objstore.ErrUnsupported if the store ignores conditions or cannot do
// something, and else what the store said. The report is valid with any error.
func Check(ctx context.Context, s objstore.Store, level Level) (Report, error) {
	p := &probe{store: s, dir: prefix + strings.ToLower(rand.Text()) + "/"}
	if d, ok := s.(objstore.Describer); ok {
		p.report.Store = d.Describe()
	}
	steps := []step{{"conditions are honoured", p.conditions}}
	if level == Full {
		steps = append(steps, p.fullSteps()...)
	}
	var first error
	for _, st := range steps {
		began := time.Now()
		err := st.run(ctx)
		done := Step{Name: st.name, OK: err == nil, Took: time.Since(began)}
		if err != nil {
			done.Error = err.Error()
			if first == nil {
				first = fmt.Errorf("probe the store: %s: %w", st.name, err)
			}
		}
		p.report.Steps = append(p.report.Steps, done)
		if err != nil && !errors.Is(err, objstore.ErrUnsupported) && !errors.Is(err, errWrong) {
			break // it does not answer, or refuses us: more would tell no more
		}
	}
	if err := p.cleanUp(ctx, level); err != nil && first == nil {
		first = fmt.Errorf("probe the store: remove scratch objects: %w", err)
	}
	return p.report, first
}

// errWrong marks an answer that contradicts the port's contract.
var errWrong = errors.New("the store answers wrongly")

type step struct {
	name string
	run  func(context.Context) error
}

// probe is one run.
type probe struct {
	store  objstore.Store
	dir    string // of this run's scratch objects; ends in a slash
	report Report

	mu   sync.Mutex
	made map[string]bool // keys to remove
}

// key names a scratch object and remembers to remove it.
func (p *probe) key(name string) string {
	key := p.dir + name
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made == nil {
		p.made = map[string]bool{}
	}
	p.made[key] = true
	return key
}

// ignored is the one clear line about a store that cannot be used.
func ignored(what string) error {
	return fmt.Errorf("%w: it ignores conditional writes (%s), so two instances could both commit; "+
		"use a store that honours If-None-Match and If-Match", objstore.ErrUnsupported, what)
}

// noETag is a well-formed ETag that no scratch object has.
const noETag = objstore.ETag("00000000000000000000000000000000")

// conditions creates an object, and then tries what must be refused: to create
// it again, and to replace a version of it that never was.
func (p *probe) conditions(ctx context.Context) error {
	key := p.key("conditions")
	if _, err := p.create(ctx, key, []byte(key)); err != nil {
		return err
	}
	var again, stale error
	var group sync.WaitGroup
	group.Go(func() { again = p.refused(ctx, key, objstore.IfAbsent(), "created one object twice") })
	group.Go(func() {
		stale = p.refused(ctx, key, objstore.IfMatch(noETag), "replaced another version than the one named")
	})
	group.Wait()
	for _, err := range []error{again, stale} { // evidence before doubt
		if errors.Is(err, objstore.ErrUnsupported) {
			return err
		}
	}
	return cmp.Or(again, stale)
}

// create makes an object that is not there. A refusal is looked into, since a
// proxy may have repeated the request.
func (p *probe) create(ctx context.Context, key string, data []byte) (objstore.ETag, error) {
	tag, err := p.store.PutIf(ctx, key, data, objstore.IfAbsent())
	if !errors.Is(err, objstore.ErrConflict) {
		return tag, err
	}
	got, info, readErr := p.store.Get(ctx, key, 0, -1)
	if readErr == nil && bytes.Equal(got, data) {
		return info.ETag, nil
	}
	if readErr != nil && !errors.Is(readErr, objstore.ErrNotFound) {
		return "", readErr
	}
	return "", fmt.Errorf("%w: it refused to create an object that was not there: %w", errWrong, err)
}

// refused makes a conditional put whose condition does not hold.
func (p *probe) refused(ctx context.Context, key string, cond objstore.Condition, what string) error {
	_, err := p.store.PutIf(ctx, key, []byte("must not be stored: "+what), cond)
	switch {
	case err == nil:
		return ignored("it " + what)
	case errors.Is(err, objstore.ErrConflict):
		return nil
	}
	return err
}

// cleanUp removes this run's scratch objects and, after a full probe, those
// that a crashed one left an hour ago by the store's clock.
func (p *probe) cleanUp(ctx context.Context, level Level) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	if level == Full {
		if err := p.findStale(ctx); err != nil {
			return err
		}
	}
	for key := range p.made {
		if err := p.store.Delete(ctx, key); err != nil {
			return err // the others would wait as long in vain
		}
	}
	return nil
}

func (p *probe) findStale(ctx context.Context) error {
	clock := p.key("clock")
	if err := p.store.Put(ctx, clock, nil); err != nil {
		return err
	}
	now, err := p.store.Head(ctx, clock)
	if err != nil {
		return err
	}
	return p.store.List(ctx, prefix, func(i objstore.Info) error {
		if now.ModTime.Sub(i.ModTime) > time.Hour {
			p.made[i.Key] = true
		}
		return nil
	})
}
