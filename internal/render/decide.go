package render

import (
	"slices"
	"time"

	"drover/internal/render/language"
)

// Deciding is pure: the state of all templates and dependencies, an input and the time, in
// and out. Times are counted from the start of the engine.

// spec is what deciding needs to know of a template.
type spec struct {
	wait     Wait
	deadline time.Duration // 0: none
	act      string        // templates with the same one share an action; empty: none
}

// Repeating what failed: the first wait and the longest.
const (
	firstRetry = 5 * time.Second
	lastRetry  = 5 * time.Minute
)

// state of all. The zero value, with as many templates as there are specs, is the start.
type state struct {
	templates []templateState
	deps      map[language.Dependency]*depState
	order     []language.Dependency // of deps, by when they were first needed
	pass      []int                 // the templates of the pass that is under way
	acts      []actState            // that wait
	acting    *actState             // that runs
}

// phase of a template in a pass.
type phase int

const (
	idle phase = iota
	executing
	executed // and complete
	writing
)

type templateState struct {
	phase   phase
	started bool // it was executed
	uses    map[language.Dependency]bool
	missing []language.Missing // of the last execution
	blocked time.Duration      // since when it misses something
	late    bool               // and that it is so for too long was told

	dirty       bool
	first, last time.Duration // change since the last execution

	rendered bool
	changed  bool          // by this pass
	fresh    bool          // this pass's write was the first
	since    time.Duration // the last write that changed it
	fault    string        // why the last try failed; empty: it did not
	failed   time.Duration // since when
	tries    int
	retry    time.Duration // when to try again, if tries > 0
}

type depState struct {
	known bool
	index int           // counts its values
	asked time.Duration // since when it is watched
	fault string        // why there is no newer value; empty: as far as is known there is none
	never bool          // there will be no value
}

// actState is an action that is due, or will be.
type actState struct {
	key       string
	templates []int
	first     bool // all of them were rendered for the first time
	tries     int
	at        time.Duration
	fault     string
}

// input is one thing that happened.
type input struct {
	kind     inputKind
	dep      language.Dependency // value, failure
	template int                 // executed, wrote
	fault    string              // why it did not go well; empty: it did
	never    bool                // failure: for good
	used     []language.Dependency
	missing  []language.Missing
	changed  bool // wrote: the file is another one now
}

type inputKind int

const (
	tick    inputKind = iota // nothing more has happened so far
	value                    // a dependency has a new value
	failure                  // its newest value is unknown
	executionEnded
	writeEnded
	actEnded
	again // what failed is due
)

// action is one thing to do.
type action struct {
	kind      actionKind
	dep       language.Dependency // watch, unwatch
	template  int                 // execute, write, tell
	templates []int               // act
	first     bool                // act
}

type actionKind int

const (
	watch   actionKind = iota
	unwatch            // nobody uses it
	execute            // answered by executionEnded
	write              // answered by writeEnded
	act                // answered by actEnded
	tell               // the template is blocked for longer than its deadline
)

// step takes an input in and says what to do. It changes s.
func step(specs []spec, s *state, in input, now time.Duration) []action {
	switch in.kind {
	case value:
		s.changed(in.dep, now)
	case failure:
		if d := s.deps[in.dep]; d != nil {
			d.fault, d.never = in.fault, in.never
		}
	case executionEnded:
		return append(s.executed(in, now), s.proceed(specs, now)...)
	case writeEnded:
		s.wrote(in, now)
		return s.proceed(specs, now)
	case actEnded:
		s.acted(in.fault, now)
		return s.nextAct(now)
	case again:
		for i := range s.templates {
			s.templates[i].retry = min(s.templates[i].retry, now)
		}
	case tick:
		return append(s.begin(specs, now), s.nextAct(now)...)
	}
	return nil
}

// changed notes a new value. Of a dependency that nobody uses any more it is none.
func (s *state) changed(dep language.Dependency, now time.Duration) {
	d := s.deps[dep]
	if d == nil {
		return
	}
	d.known, d.fault = true, ""
	d.index++
	for i := range s.templates {
		if t := &s.templates[i]; t.uses[dep] {
			t.touch(now)
		}
	}
}

func (t *templateState) touch(now time.Duration) {
	if !t.dirty {
		t.dirty, t.first = true, now
	}
	t.last = now
}

// due says when a template is to be executed, if it is. One that was rendered waits for
// quiet; one that never was, or misses something, waits for nothing.
func (t *templateState) due(w Wait) (time.Duration, bool) {
	if t.phase != idle {
		return 0, false
	}
	at, is := time.Duration(0), false
	switch {
	case !t.started:
		return 0, true
	case t.dirty && t.rendered && len(t.missing) == 0:
		at, is = min(t.last+w.Min, t.first+max(w.Max, w.Min)), true
	case t.dirty:
		return t.first, true
	}
	if t.tries > 0 && (!is || t.retry < at) {
		at, is = t.retry, true
	}
	return at, is
}

// begin starts a pass of all templates that are due, and tells of those that are late.
func (s *state) begin(specs []spec, now time.Duration) []action {
	var actions []action
	for i := range s.templates {
		t := &s.templates[i]
		if d := specs[i].deadline; d > 0 && len(t.missing) > 0 && !t.late && now >= t.blocked+d {
			t.late = true
			actions = append(actions, action{kind: tell, template: i})
		}
	}
	if len(s.pass) > 0 {
		return actions
	}
	for i := range s.templates {
		t := &s.templates[i]
		if at, is := t.due(specs[i].wait); is && at <= now {
			t.phase, t.started, t.dirty, t.changed, t.fresh = executing, true, false, false, false
			s.pass = append(s.pass, i)
			actions = append(actions, action{kind: execute, template: i})
		}
	}
	return actions
}

// executed takes in what a template used. What it no longer uses is let go when that is
// sure: the execution was whole.
func (s *state) executed(in input, now time.Duration) []action {
	t := &s.templates[in.template]
	whole := in.fault == "" && len(in.missing) == 0
	if whole || t.uses == nil {
		t.uses = map[language.Dependency]bool{}
	}
	for _, d := range in.used {
		t.uses[d] = true
	}
	if len(in.missing) > 0 && len(t.missing) == 0 {
		t.blocked = now
	}
	t.missing = in.missing
	t.phase = idle
	switch {
	case in.fault != "":
		t.fail(in.fault, now)
	case whole:
		t.phase, t.late = executed, false
	default:
		t.fault, t.tries = "", 0
	}
	return s.watches(in.used, now)
}

// watches asks for what is newly used, and lets go of what nobody uses.
func (s *state) watches(used []language.Dependency, now time.Duration) []action {
	var actions []action
	for _, d := range used {
		if s.deps[d] == nil {
			if s.deps == nil {
				s.deps = map[language.Dependency]*depState{}
			}
			s.deps[d] = &depState{asked: now}
			s.order = append(s.order, d)
			actions = append(actions, action{kind: watch, dep: d})
		}
	}
	s.order = slices.DeleteFunc(s.order, func(d language.Dependency) bool {
		if slices.ContainsFunc(s.templates, func(t templateState) bool { return t.uses[d] }) {
			return false
		}
		delete(s.deps, d)
		actions = append(actions, action{kind: unwatch, dep: d})
		return true
	})
	return actions
}

func (t *templateState) fail(fault string, now time.Duration) {
	if t.fault == "" {
		t.failed = now
	}
	t.fault = fault
	t.retry = now + backoff(t.tries)
	t.tries++
}

func backoff(tries int) time.Duration {
	return min(firstRetry<<min(tries, 10), lastRetry)
}

func (s *state) wrote(in input, now time.Duration) {
	t := &s.templates[in.template]
	t.phase = idle
	if in.fault != "" {
		t.fail(in.fault, now)
		return
	}
	t.fault, t.tries = "", 0
	t.fresh, t.changed = !t.rendered, in.changed
	t.rendered = true
	if in.changed {
		t.since = now
	}
}

// proceed leads the pass on: all are executed, then all are written, one after the other,
// then what follows from the changes is due.
func (s *state) proceed(specs []spec, now time.Duration) []action {
	in := func(p phase) bool {
		return slices.ContainsFunc(s.pass, func(i int) bool { return s.templates[i].phase == p })
	}
	if in(executing) || in(writing) {
		return nil
	}
	for _, i := range s.pass {
		if t := &s.templates[i]; t.phase == executed {
			t.phase = writing
			return []action{{kind: write, template: i}}
		}
	}
	for _, i := range s.pass {
		if t := &s.templates[i]; t.changed && specs[i].act != "" {
			s.due(specs[i].act, i, t.fresh, now)
		}
	}
	s.pass = nil
	return s.nextAct(now)
}

// due puts an action at the end of those that wait, or joins one that does already. One
// that is running has to run again: it may have read the older file.
func (s *state) due(key string, template int, first bool, now time.Duration) {
	for i := range s.acts {
		if a := &s.acts[i]; a.key == key {
			if !slices.Contains(a.templates, template) {
				a.templates = append(a.templates, template)
			}
			a.first = a.first && first
			a.tries, a.at = 0, now
			return
		}
	}
	s.acts = append(s.acts, actState{key: key, templates: []int{template}, first: first, at: now})
}

// nextAct starts the first action that is due, if none runs.
func (s *state) nextAct(now time.Duration) []action {
	if s.acting != nil {
		return nil
	}
	for i, a := range s.acts {
		if a.at <= now {
			s.acts = slices.Delete(s.acts, i, i+1)
			s.acting = &a
			return []action{{kind: act, templates: slices.Clone(a.templates), first: a.first}}
		}
	}
	return nil
}

func (s *state) acted(fault string, now time.Duration) {
	a := s.acting
	s.acting = nil
	if fault == "" {
		return
	}
	if i := slices.IndexFunc(s.acts, func(other actState) bool { return other.key == a.key }); i >= 0 {
		for _, t := range a.templates {
			if !slices.Contains(s.acts[i].templates, t) {
				s.acts[i].templates = append(s.acts[i].templates, t)
			}
		}
		return
	}
	a.fault, a.at = fault, now+backoff(a.tries)
	a.tries++
	s.acts = append(s.acts, *a)
}

// next says when something is due without any further input.
func (s *state) next(specs []spec) (at time.Duration, is bool) {
	sooner := func(t time.Duration) {
		if !is || t < at {
			at, is = t, true
		}
	}
	for i := range s.templates {
		t := &s.templates[i]
		if due, ok := t.due(specs[i].wait); ok && len(s.pass) == 0 {
			sooner(due)
		}
		if d := specs[i].deadline; d > 0 && len(t.missing) > 0 && !t.late {
			sooner(t.blocked + d)
		}
	}
	if s.acting == nil {
		for _, a := range s.acts {
			sooner(a.at)
		}
	}
	return at, is
}

// settled says that all templates are rendered, or cannot be for now for a reason that is
// not a value that is on its way; and that no action is left to begin with.
func (s *state) settled() bool {
	if len(s.pass) > 0 || s.acting != nil {
		return false
	}
	if slices.ContainsFunc(s.acts, func(a actState) bool { return a.tries == 0 }) {
		return false
	}
	for _, t := range s.templates {
		if !t.started || t.dirty {
			return false
		}
		if t.fault == "" && !t.rendered && !slices.ContainsFunc(t.missing, func(m language.Missing) bool {
			d := s.deps[m.Dependency]
			return d != nil && d.never
		}) {
			return false
		}
	}
	return true
}
