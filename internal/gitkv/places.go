package gitkv

import (
	"fmt"
	"sync"
)

// places knows which target makes which key in place, so that two of them do not write one key by turns.
// It knows those that this process has made.
type places struct {
	mu     sync.Mutex
	owner  map[string]*target   // by key
	owned  map[*target][]string // the same, the other way
	prefix map[string]placeName // by prefix: who has it
}

type placeName struct{ repo, ref string }

// take reserves a prefix for a ref.
func (p *places) take(prefix string, who placeName) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prefix == nil {
		p.prefix = map[string]placeName{}
	}
	if other, ok := p.prefix[prefix]; ok && other != who {
		return fmt.Errorf("%s of %s has the prefix %q, too", other.ref, other.repo, prefix)
	}
	p.prefix[prefix] = who
	return nil
}

// leave gives a prefix up.
func (p *places) leave(prefix string, who placeName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prefix[prefix] == who {
		delete(p.prefix, prefix)
	}
}

// own reserves keys for a target.
func (p *places) own(t *target, keys []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owner == nil {
		p.owner, p.owned = map[string]*target{}, map[*target][]string{}
	}
	for _, key := range keys {
		if other := p.owner[key]; other != nil && other != t {
			return fmt.Errorf("key %q is made by %s of %s, too", key, other.ref, other.worker.repo.Name)
		}
	}
	for _, key := range p.owned[t] {
		delete(p.owner, key)
	}
	for _, key := range keys {
		p.owner[key] = t
	}
	p.owned[t] = keys
	return nil
}

// forget gives a target's keys up.
func (p *places) forget(t *target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range p.owned[t] {
		delete(p.owner, key)
	}
	delete(p.owned, t)
}
