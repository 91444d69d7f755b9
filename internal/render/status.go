package render

import (
	"time"

	"drover/internal/render/language"
)

// State of a template.
type State string

// The states.
const (
	Rendered State = "rendered" // with the newest values that are known
	Waiting  State = "waiting"  // a change is known and waits for quiet, or is being rendered
	Blocked  State = "blocked"  // something is missing; the file stays as it is
	Faulty   State = "failed"   // see Fault; the file stays as it is
)

// Missing is what blocks a template.
type Missing struct {
	Dependency string    `json:"dependency"`
	Why        string    `json:"why"`
	Since      time.Time `json:"since"` // it is watched
}

func (m Missing) String() string { return m.Dependency + ": " + m.Why }

// Status of a template: the answer to "what blocks this render?".
type Status struct {
	Template    string `json:"template"`
	Destination string `json:"destination,omitempty"`
	State       State  `json:"state"`
	// Rendered says that it was, since the start.
	Rendered bool `json:"rendered"`
	// Changed is when the file was last replaced since the start.
	Changed *time.Time `json:"changed,omitempty"`
	// Since is when it was blocked, or began to fail.
	Since   *time.Time `json:"since,omitempty"`
	Missing []Missing  `json:"missing,omitempty"`
	Fault   string     `json:"fault,omitempty"`
	// Stale are dependencies whose newest values are unknown; the last ones are in use.
	Stale []Missing `json:"stale,omitempty"`
	// Dependencies counts what it reads.
	Dependencies int `json:"dependencies"`
	// Unacted is why what follows from the last change has not succeeded; it is tried again.
	Unacted string `json:"unacted,omitempty"`
}

// Status of all templates, in their order.
func (e *Engine) Status() []Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]Status, len(e.templates))
	for i := range e.templates {
		all[i] = e.status(i)
	}
	return all
}

func (e *Engine) status(i int) Status {
	t := &e.state.templates[i]
	s := Status{
		Template: e.templates[i].Name, Destination: e.templates[i].Destination, State: Rendered,
		Rendered: t.rendered, Fault: t.fault, Dependencies: len(t.uses), Missing: e.missingOf(i),
	}
	switch {
	case len(t.missing) > 0:
		s.State, s.Since = Blocked, e.at(t.blocked)
	case t.fault != "":
		s.State, s.Since = Faulty, e.at(t.failed)
	case t.dirty || t.phase != idle || !t.rendered:
		s.State = Waiting
	}
	if t.since > 0 {
		s.Changed = e.at(t.since)
	}
	for _, d := range e.state.order {
		if dep := e.state.deps[d]; t.uses[d] && dep.known && dep.fault != "" {
			s.Stale = append(s.Stale, Missing{d.String(), dep.fault, *e.at(dep.asked)})
		}
	}
	for _, a := range e.state.acts {
		for _, n := range a.templates {
			if n == i && a.fault != "" {
				s.Unacted = a.fault
			}
		}
	}
	return s
}

func (e *Engine) at(d time.Duration) *time.Time {
	t := e.begin.Add(d)
	return &t
}

// missingOf is called with the state held.
func (e *Engine) missingOf(i int) []Missing {
	var list []Missing
	for _, m := range e.state.templates[i].missing {
		entry := Missing{Dependency: m.String(), Why: m.Why}
		if d := e.state.deps[m.Dependency]; d != nil {
			entry.Since = *e.at(d.asked)
			entry.Why = why(m, d)
		}
		list = append(list, entry)
	}
	return list
}

func why(m language.Missing, d *depState) string {
	switch {
	case d.fault != "":
		return d.fault
	case m.Why != "":
		return m.Why
	}
	return "no answer yet"
}
