package failover

import "time"

// Withdrawn is a switchover that was taken back because it could not be done.
type Withdrawn struct {
	Switchover
	Why  string    `json:"why"`
	Time time.Time `json:"time,omitzero"` // by the primary's clock, for people
}

// same reports whether both ask for the same; the time zones in which they do may differ.
func (s Switchover) same(o Switchover) bool {
	at := s.At.Equal(o.At)
	s.At = o.At
	return at && s == o
}

// feasible reports whether the record has no switchover that is due and cannot be; else, when that has lasted, it is taken out. What
// can be done again in a moment is waited for: a TTL for a member that is none any more, Forget for one that is not ready.
func (t *step) feasible() bool {
	s := t.r.Switchover
	if s == nil || t.r.Paused || t.o.Stopping || t.o.Clock.Before(s.At) || t.s.leaving || t.heir() != "" {
		t.s.stuck = 0
		return true
	}
	if t.s.stuck = max(t.s.stuck, t.s.began); t.s.stuck == t.s.began || !s.same(t.s.wish) {
		t.s.stuck, t.s.wish = t.o.Now, *s
	}
	why, patience := t.d.Why, t.cfg.Forget
	if _, member := t.r.Members[s.To]; s.To != "" && !member {
		why, patience = s.To+" is no member any more", min(patience, t.cfg.TTL)
	}
	if t.o.Now-t.s.stuck < patience {
		return true
	}
	t.d.Why = "a switchover is withdrawn: " + why
	t.write(func(r *Record) { r.Switchover, r.Withdrawn = nil, &Withdrawn{*s, why, t.o.Clock} })
	return false
}
