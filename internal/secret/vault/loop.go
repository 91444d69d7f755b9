package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"drover/internal/secret"
	"drover/internal/secret/vault/lifetime"
)

// loop is what one goroutine owns: the machine, the secrets and the tokens. Requests are
// made beside it and tell it their outcome.
type loop struct {
	s       *Source
	machine *lifetime.Machine
	entries map[int]*entry
	ids     map[string]int // by request
	lastID  int

	session  *session             // the newest; nil: there was none
	earlier  []*session           // whose leases may still be in use
	leases   map[string]time.Time // that were granted: when they end; zero: not known to
	loginErr error                // of the last login; nil: it succeeded
	away     error                // of the last request that nobody answered
	told     Health

	calls           sync.WaitGroup
	ctx             context.Context // of the requests
	cancel          context.CancelFunc
	closing, closed bool
}

// entry is one secret, for all who watch it.
type entry struct {
	key      string
	request  secret.Request
	watchers map[*watcher]struct{}
	value    *secret.Secret
	ends     time.Time // of value, as last renewed; zero: it does not
	err      error     // of the last request; nil: it succeeded
	mount    *string   // of the engine, if it is the second version of KV; nil: not known
}

func newLoop(s *Source, seed uint64) *loop {
	l := &loop{
		s: s, machine: lifetime.New(s.o.Poll, seed), entries: map[int]*entry{}, ids: map[string]int{},
		leases: map[string]time.Time{}, told: s.health,
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *loop) run() {
	defer close(l.s.ended)
	defer l.cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !l.closed {
		select {
		case f := <-l.s.posts:
			f(l)
		case <-timer.C:
			l.step(lifetime.Input{What: lifetime.Tick})
		}
		timer.Stop()
		if at, ok := l.machine.Next(); ok {
			timer.Reset(max(0, at-l.now()))
		}
	}
}

func (l *loop) now() time.Duration { return time.Since(l.s.begun) }

// at is a moment in the machine's time.
func (l *loop) at(t time.Time) time.Duration { return t.Sub(l.s.begun) }

// step tells the machine what happened and does what it says.
func (l *loop) step(in lifetime.Input) {
	was := l.machine.Away()
	for _, a := range l.machine.Step(in, l.now()) {
		if a.What == lifetime.Forget {
			delete(l.ids, l.entries[a.ID].key)
			delete(l.entries, a.ID)
			continue
		}
		l.begin(a)
	}
	if !was && l.machine.Away() {
		l.failAll(l.away)
	}
	l.show()
}

// begin makes the request of an action, beside the loop.
func (l *loop) begin(a lifetime.Action) {
	if l.closing {
		return
	}
	in := lifetime.Input{What: a.What, ID: a.ID, Generation: a.Generation, Sent: l.now()}
	had := l.session
	var r secret.Request
	var lease *secret.Secret
	var mount *string
	if e := l.entries[a.ID]; e != nil {
		r, mount = e.request, e.mount
		e.request.Known = nil // once
		lease = e.value
	}
	l.calls.Go(func() {
		var done func(*loop)
		switch a.What {
		case lifetime.Login:
			got, err := l.s.logIn(l.ctx, had)
			done = func(l *loop) { l.loggedIn(in, got, err) }
		case lifetime.Extend:
			got, err := had.extend(l.ctx, l.s.c)
			done = func(l *loop) { l.extended(in, got, err) }
		case lifetime.Check:
			err := (&session{token: had.token}).learn(l.ctx, l.s.c)
			done = func(l *loop) { l.checked(in, err) }
		case lifetime.Probe:
			err := l.s.c.probe(l.ctx)
			done = func(l *loop) { l.checked(in, err) }
		case lifetime.Fetch:
			done = l.fetch(in, r, had.token, mount)
		case lifetime.Renew:
			got, err := l.s.c.renew(l.ctx, lease, had.token)
			done = func(l *loop) { l.renewed(in, got, err) }
		case lifetime.Look:
			err := l.s.c.look(l.ctx, lease, had.token)
			done = func(l *loop) { l.checked(in, err) }
		}
		l.s.post(done)
	})
}

// fetch gets a secret and returns what the loop does with it.
func (l *loop) fetch(in lifetime.Input, r secret.Request, token string, mount *string) func(*loop) {
	sent := time.Now()
	var got *answer
	var err error
	if reusable(r, sent) {
		got = &answer{Data: r.Known.Data}
	} else {
		got, mount, err = l.s.c.read(l.ctx, r, token, mount)
	}
	if err != nil {
		return func(l *loop) { l.fetched(in, nil, nil, err) } // where it is mounted may have changed
	}
	granted := life(r, got, time.Now())
	in.Life, in.TTL, in.Full, in.Renewable = granted.Life, granted.TTL, granted.Full, granted.Renewable
	return func(l *loop) { l.fetched(in, state(r, got, in, sent), mount, nil) }
}

// probe asks whether Vault serves.
func (c *client) probe(ctx context.Context) error {
	_, err := c.do(ctx, call{method: http.MethodGet, path: "sys/health", limit: 2 * requestLeast, query: map[string][]string{
		"standbyok": {"true"}, "perfstandbyok": {"true"}, // they pass on what they are asked
	}})
	return err
}

// renew renews a lease. Vault answers alike whether the lease is gone or what is behind it
// is away, so it is asked about the lease then.
func (c *client) renew(ctx context.Context, lease *secret.Secret, token string) (*answer, error) {
	got, err := c.do(ctx, call{
		method: http.MethodPut, path: "sys/leases/renew", token: token, body: map[string]any{"lease_id": lease.LeaseID}, limit: patience(lease.LeaseDuration),
	})
	var e *Error
	if errors.As(err, &e) && e.failure() == lifetime.Invalid {
		e.broken = c.look(ctx, lease, token) == nil
	}
	return got, err
}

// look asks whether a lease is one.
func (c *client) look(ctx context.Context, lease *secret.Secret, token string) error {
	_, err := c.do(ctx, call{
		method: http.MethodPut, path: "sys/leases/lookup", token: token, body: map[string]any{"lease_id": lease.LeaseID}, limit: patience(lease.LeaseDuration),
	})
	return err
}

func (l *loop) loggedIn(in lifetime.Input, got *session, err error) {
	in.Failure, l.loginErr = l.heard(err), err
	if err != nil {
		l.loginErr = fmt.Errorf("log in: %w", err)
		l.failAll(l.loginErr)
		l.step(in)
		return
	}
	if l.session != nil && l.session.token != got.token {
		l.earlier = append(l.earlier, l.session)
	}
	l.earlier = slices.DeleteFunc(l.earlier, func(s *session) bool { return ended(s.end()) })
	l.session = got
	in.Sent, in.TTL, in.Full, in.Renewable, in.Checkable = l.at(got.sent), got.ttl, got.full, got.renewable, got.checkable
	l.s.log.Info("logged in to Vault", "ttl", got.ttl, "renewable", got.renewable)
	l.step(in)
}

func (l *loop) extended(in lifetime.Input, got *session, err error) {
	in.Failure = l.heard(err)
	if err == nil {
		l.session = got
		in.Sent, in.TTL, in.Renewable = l.at(got.sent), got.ttl, got.renewable
	} else {
		l.s.log.Debug("the token is not renewed", "error", err)
	}
	l.step(in)
}

// checked is the outcome of what only asks.
func (l *loop) checked(in lifetime.Input, err error) {
	in.Failure = l.heard(err)
	l.step(in)
}

func (l *loop) fetched(in lifetime.Input, got *secret.Secret, mount *string, err error) {
	in.Failure = l.heard(err)
	e := l.entries[in.ID]
	e.err, e.mount = err, mount
	switch {
	case err != nil:
		l.s.log.Debug("a secret is not fetched", "path", e.request.Path, "error", err)
		e.fail(err)
	case e.value != nil && unchanged(in.Life, e.value.Data, got.Data):
		e.give()
	default:
		e.value = got
		l.hold(e, in)
		e.give()
	}
	l.step(in)
}

// hold notes how long a state is good, and its lease.
func (l *loop) hold(e *entry, in lifetime.Input) {
	e.ends = time.Time{}
	if in.TTL > 0 {
		e.ends = l.s.begun.Add(in.Sent + in.TTL)
	}
	maps.DeleteFunc(l.leases, func(_ string, ends time.Time) bool { return ended(ends) })
	if e.value.LeaseID != "" {
		l.leases[e.value.LeaseID] = e.ends
	}
}

func (l *loop) renewed(in lifetime.Input, got *answer, err error) {
	in.Failure = l.heard(err)
	e := l.entries[in.ID]
	e.err = err
	if err == nil {
		in.TTL, in.Renewable = seconds(json.Number(fmt.Sprint(got.LeaseDuration))), got.Renewable
		l.hold(e, in)
		e.give()
	} else {
		l.s.log.Debug("a lease is not renewed", "path", e.request.Path, "error", err)
		e.fail(err)
	}
	l.step(in)
}

// heard turns the outcome of a request into the machine's words.
func (l *loop) heard(err error) lifetime.Failure {
	failure := failureOf(err)
	if failure == lifetime.Away {
		l.away = err
	}
	return failure
}

// failAll tells those who have nothing yet.
func (l *loop) failAll(err error) {
	for _, e := range l.entries {
		if e.value == nil {
			e.fail(err)
		}
	}
}

func (e *entry) give() {
	for w := range e.watchers {
		w.give(e.value)
	}
}

func (e *entry) fail(err error) {
	for w := range e.watchers {
		w.fail(err)
	}
}

func (l *loop) watch(r secret.Request, w *watcher) int {
	key := keyOf(r)
	id, ok := l.ids[key]
	if !ok {
		l.lastID++
		id = l.lastID
		l.ids[key], l.entries[id] = id, &entry{key: key, request: r, watchers: map[*watcher]struct{}{}}
	}
	e := l.entries[id]
	e.watchers[w] = struct{}{}
	switch {
	case e.value != nil && !ended(e.ends):
		w.give(e.value)
	case e.err != nil:
		w.fail(e.err)
	case l.loginErr != nil:
		w.fail(l.loginErr)
	case l.machine.Away():
		w.fail(l.away)
	}
	l.step(lifetime.Input{What: lifetime.Watch, ID: id})
	return id
}

func (l *loop) unwatch(id int, w *watcher) {
	e := l.entries[id]
	delete(e.watchers, w)
	if len(e.watchers) == 0 {
		l.step(lifetime.Input{What: lifetime.Unwatch, ID: id})
	}
}

// keyOf is the same for equal requests.
func keyOf(r secret.Request) string {
	params, err := json.Marshal(r.Params)
	if err != nil {
		params = fmt.Append(nil, r.Params)
	}
	return fmt.Sprintf("%s\x00%v\x00%s", r.Path, r.List, params)
}

// ended says that a moment is over; never, if it is zero.
func ended(t time.Time) bool { return !t.IsZero() && time.Now().After(t) }
