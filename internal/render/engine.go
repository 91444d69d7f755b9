package render

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"drover/internal/render/gather"
	"drover/internal/render/language"
	"drover/internal/render/target"
)

// Engine renders the templates of a Config. Run is called once; the other methods may be called
// from any goroutine.
type Engine struct {
	cfg       Config
	templates []parsed
	specs     []spec
	begin     time.Time
	dry       bool

	more chan struct{} // capacity 1: the mailbox has something

	mu      sync.Mutex
	state   state
	mailbox map[language.Dependency]letter
	ended   []input // of what runs beside the loop
	outputs []output
	ready   chan struct{} // closed when all are rendered
	isReady bool

	// Of the loop alone.
	values  known
	stops   map[language.Dependency]context.CancelFunc
	results []language.Result
	work    sync.WaitGroup
}

// letter is what a watch found last.
type letter struct {
	value any
	err   error
	fresh bool // value is one that was not taken
}

// output is what a template rendered last.
type output struct {
	done    bool
	content []byte
	secret  bool
	unsure  bool // a later one failed on its way: the file may be that one
}

// New reads and checks the templates.
func New(cfg Config) (*Engine, error) {
	templates, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Check == nil {
		cfg.Check = runCommand
	}
	e := &Engine{
		cfg: cfg, templates: templates, more: make(chan struct{}, 1), ready: make(chan struct{}),
		mailbox: map[language.Dependency]letter{}, values: known{},
		stops: map[language.Dependency]context.CancelFunc{}, outputs: make([]output, len(templates)),
		results: make([]language.Result, len(templates)), begin: time.Now(),
	}
	e.state.templates = make([]templateState, len(templates))
	for _, t := range templates {
		s := spec{wait: t.Wait, deadline: t.Deadline}
		if cfg.Act != nil {
			s.act = t.Change.key()
		}
		e.specs = append(e.specs, s)
	}
	return e, nil
}

// Run renders and goes on until ctx ends; it returns nil then, when all that it started has
// ended.
func (e *Engine) Run(ctx context.Context) error {
	e.loop(ctx, func() bool { return false })
	return nil
}

// Ready is closed when each template was rendered once.
func (e *Engine) Ready() <-chan struct{} { return e.ready }

// Output is what a template rendered last, and whether it has.
func (e *Engine) Output(name string) ([]byte, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, t := range e.templates {
		if t.Name == name {
			return e.outputs[i].content, e.outputs[i].done
		}
	}
	return nil, false
}

// Again tries at once what failed and would be tried again later.
func (e *Engine) Again() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = append(e.ended, input{kind: again})
	e.wake()
}

func (e *Engine) now() time.Duration { return time.Since(e.begin) }

// loop owns the state until ctx ends or done says so.
func (e *Engine) loop(ctx context.Context, done func() bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer e.work.Wait()
	defer cancel()
	if e.cfg.Sources.KV != nil {
		e.cfg.Sources.keys = gather.New(ctx, e.cfg.Sources.KV, e.work.Go)
	}
	for ctx.Err() == nil {
		e.receive(ctx)
		e.turn(ctx, input{kind: tick})
		if e.told(done) {
			return
		}
		e.rest(ctx)
	}
}

// told closes ready and asks whether to end.
func (e *Engine) told(done func() bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.isReady && !slices.ContainsFunc(e.state.templates, func(t templateState) bool { return !t.rendered }) {
		e.isReady = true
		close(e.ready)
	}
	return done()
}

// rest waits for something to do.
func (e *Engine) rest(ctx context.Context) {
	e.mu.Lock()
	at, is := e.state.next(e.specs)
	e.mu.Unlock()
	var due <-chan time.Time
	if is {
		timer := time.NewTimer(max(0, at-e.now()))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
	case <-e.more:
	case <-due:
	}
}

// receive takes all that came: the newest of each dependency only.
func (e *Engine) receive(ctx context.Context) {
	e.mu.Lock()
	letters, ended := e.mailbox, e.ended
	e.mailbox, e.ended = map[language.Dependency]letter{}, nil
	e.mu.Unlock()
	for d, l := range letters {
		if e.stops[d] == nil {
			continue // nobody uses it any more
		}
		if l.fresh {
			e.values[d] = l.value
			e.turn(ctx, input{kind: value, dep: d})
		}
		if l.err != nil {
			e.turn(ctx, input{kind: failure, dep: d, fault: l.err.Error(), never: errors.Is(l.err, errNoSource)})
		}
	}
	for _, in := range ended {
		e.turn(ctx, in)
	}
}

// turn steps, and does what step says, which may bring further steps.
func (e *Engine) turn(ctx context.Context, in input) {
	inputs := []input{in}
	for len(inputs) > 0 {
		e.mu.Lock()
		actions := step(e.specs, &e.state, inputs[0], e.now())
		e.mu.Unlock()
		inputs = inputs[1:]
		for _, a := range actions {
			switch a.kind {
			case watch:
				e.watch(ctx, a.dep)
			case unwatch:
				e.unwatch(a.dep)
			case execute:
				inputs = append(inputs, e.execute(a.template))
			case write:
				e.write(ctx, a.template)
			case act:
				e.act(ctx, a)
			case tell:
				e.tell(Late, a.template, e.missing(a.template))
			}
		}
	}
}

func (e *Engine) wake() {
	select {
	case e.more <- struct{}{}:
	default:
	}
}

func (e *Engine) watch(ctx context.Context, d language.Dependency) {
	ctx, cancel := context.WithCancel(ctx)
	e.stops[d] = cancel
	e.work.Go(func() {
		e.cfg.Sources.follow(ctx, d, func(v any, err error) {
			e.mu.Lock()
			defer e.mu.Unlock()
			if ctx.Err() != nil {
				return
			}
			l := e.mailbox[d]
			if l.err = err; err == nil {
				l.value, l.fresh = v, true
			}
			e.mailbox[d] = l
			e.wake()
		})
	})
}

func (e *Engine) unwatch(d language.Dependency) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stops[d]()
	delete(e.stops, d)
	delete(e.mailbox, d)
	delete(e.values, d)
}

// known are the newest values.
type known map[language.Dependency]any

// Value implements language.Data.
func (k known) Value(d language.Dependency) (any, bool) { v, ok := k[d]; return v, ok }

func (e *Engine) execute(i int) input {
	result, err := e.templates[i].tmpl.Execute(e.values)
	e.results[i] = result
	in := input{kind: executionEnded, template: i, used: result.Used, missing: result.Missing}
	if err != nil {
		in.fault = err.Error()
		e.tell(Failed, i, in.fault)
	}
	return in
}

// write runs beside the loop: a check may take its time.
func (e *Engine) write(ctx context.Context, i int) {
	result := e.results[i]
	e.work.Go(func() {
		in := input{kind: writeEnded, template: i}
		changed, err := e.around(ctx, i, result)
		switch {
		case err != nil:
			in.fault = err.Error()
			e.tell(Failed, i, in.fault)
		case changed:
			in.changed = true
			e.tell(Changed, i, "")
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if err == nil {
			e.outputs[i] = output{done: true, content: result.Output, secret: result.Secret}
		} else {
			e.outputs[i].unsure = true
		}
		e.ended = append(e.ended, in)
		e.wake()
	})
}

// around puts a result in place, in somebody's turn where it replaces an earlier one.
func (e *Engine) around(ctx context.Context, i int, r language.Result) (changed bool, err error) {
	put := func() (bool, error) { return e.put(ctx, e.templates[i], r) }
	e.mu.Lock()
	last := e.outputs[i]
	e.mu.Unlock()
	if e.cfg.Around == nil || e.dry || !last.done || !last.unsure && string(last.content) == string(r.Output) {
		return put()
	}
	name := e.templates[i].Name
	hashed := sha256.Sum256(r.Output)
	if r.Secret {
		hashed = sha256.Sum256([]byte(name))
	}
	return e.cfg.Around(ctx, name, hex.EncodeToString(hashed[:]), put)
}

// put writes the files that the template asked for, and its destination.
func (e *Engine) put(ctx context.Context, p parsed, r language.Result) (changed bool, err error) {
	if e.dry {
		return false, nil
	}
	for _, f := range r.Files {
		if err := putFile(f, r.Secret && !p.OnDisk); err != nil {
			return false, err
		}
	}
	if p.Destination == "" {
		e.mu.Lock()
		defer e.mu.Unlock()
		last, done := e.lastOutput(p.Name)
		return !done || string(last) != string(r.Output), nil
	}
	var check func(string) error
	if len(p.Check) > 0 {
		check = func(candidate string) error { return e.check(ctx, p, candidate, r.Private) }
	}
	return p.place(r.Secret, check).Write(r.Output)
}

func (e *Engine) lastOutput(name string) ([]byte, bool) {
	i := slices.IndexFunc(e.templates, func(t parsed) bool { return t.Name == name })
	return e.outputs[i].content, e.outputs[i].done
}

func putFile(f language.File, memoryOnly bool) error {
	place := target.File{Path: f.Path, User: f.User, Group: f.Group, Mode: fileMode(f.Mode), MemoryOnly: memoryOnly}
	if f.Append {
		return place.Append([]byte(f.Content))
	}
	_, err := place.Write([]byte(f.Content))
	return err
}

// check asks the check command about a candidate. What it prints may quote the file.
func (e *Engine) check(ctx context.Context, p parsed, candidate string, private bool) error {
	timeout := p.CheckTimeout
	if timeout <= 0 {
		timeout = DefaultCheckTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out, err := e.cfg.Check(ctx, p.command(candidate), []string{"DROVER_FILE=" + candidate})
	text := strings.TrimSpace(string(out))
	if err == nil || text == "" {
		return err
	}
	if private {
		text = "(what it printed is not shown: it may quote a secret or a file)"
	}
	return fmt.Errorf("%w: %s", err, text)
}

// act runs beside the loop, one at a time.
func (e *Engine) act(ctx context.Context, a action) {
	what := Act{Change: e.templates[a.templates[0]].Change, First: a.first}
	for _, i := range a.templates {
		what.Templates = append(what.Templates, e.templates[i].Name)
	}
	e.work.Go(func() {
		in := input{kind: actEnded}
		err := e.cfg.Act(ctx, what)
		for _, i := range a.templates {
			if err != nil {
				e.tell(Unacted, i, err.Error())
			} else {
				e.tell(Acted, i, "")
			}
		}
		if err != nil {
			in.fault = err.Error()
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.ended = append(e.ended, in)
		e.wake()
	})
}

func (e *Engine) tell(kind EventKind, i int, text string) {
	if e.cfg.Tell != nil {
		e.cfg.Tell(Event{kind, e.templates[i].Name, text})
	}
}

// missing says in a line what a template misses.
func (e *Engine) missing(i int) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []string
	for _, m := range e.missingOf(i) {
		list = append(list, m.String())
	}
	return strings.Join(list, "; ")
}
