package vault

import (
	"maps"
	"time"
)

// show tells of the health, if it is another one.
func (l *loop) show() {
	h := Health{Err: l.loginErr, Since: l.told.Since}
	switch {
	case l.machine.Away():
		h.Err = l.away
	case l.session == nil && h.Err == nil:
		h.Err = l.told.Err // there was no answer yet
	}
	for _, e := range l.entries {
		if e.err != nil {
			if h.Failing == nil {
				h.Failing = map[string]error{}
			}
			h.Failing[e.request.Path] = e.err
		}
	}
	turned := !sameKind(h.Err, l.told.Err)
	if turned {
		h.Since = time.Now()
		if h.Err != nil {
			l.s.log.Warn("Vault does not serve: what was given stays", "error", h.Err)
		} else {
			l.s.log.Info("Vault serves")
		}
	}
	for path, err := range h.Failing {
		if !sameKind(err, l.told.Failing[path]) {
			l.s.log.Warn("a secret cannot be got or renewed: what was given stays", "path", path, "error", err)
		}
	}
	if !turned && maps.EqualFunc(h.Failing, l.told.Failing, sameKind) {
		return
	}
	l.told = h
	l.s.mu.Lock()
	l.s.health = h
	l.s.mu.Unlock()
}

func sameKind(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return kindOf(a) == kindOf(b)
}
