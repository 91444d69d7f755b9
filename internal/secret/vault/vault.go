// Package vault is the source of secrets over Vault, and over OpenBao, which speaks the same.
//
// It logs in and stays logged in, renews leases, fetches anew what ends before it does, and
// asks again for what may have changed. While Vault is sealed or away, what was given stays
// given, one request in up to 15 s asks for it, and Health says so. When to do what is
// decided in lifetime. It leaves to others where secrets go. It writes one file itself, if
// it is told to: its token, in memory only.
package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"drover/internal/secret"
	"drover/internal/secret/tmpfile"
	"drover/internal/secret/vault/lifetime"
)

// Options of a source. The environment is not read.
type Options struct {
	Address    string // https://vault.example.com:8200
	Namespace  string // "": none
	CAFile     string // the authorities to trust, in PEM form; "": the system's
	ServerName string // to expect in the server's certificate; "": the address's
	Login      Login

	// Poll is how often it asks for what does not end, give or take a tenth; 0: 5 minutes.
	Poll time.Duration
	// TokenCache is a file on a tmpfs where the token is kept for a start after a crash;
	// "": it is not. Only for a login that makes its own token.
	TokenCache string
	Log        *slog.Logger // nil: silent
}

// Health says whether Vault serves this source.
type Health struct {
	// Err is why it does not; nil: it does. It is ErrUnavailable, or what logging in says.
	Err   error
	Since time.Time // of Err, or of its end
	// Failing are the secrets that could not be got, renewed or asked for lately, by path.
	// What was given of them stays.
	Failing map[string]error
}

// Source is a secret.Source. See Open.
type Source struct {
	o     Options
	c     *client
	log   *slog.Logger
	files *tmpfile.Files
	begun time.Time

	posts chan func(*loop)
	ended chan struct{} // the loop has ended
	group sync.WaitGroup

	mu     sync.Mutex
	health Health
}

var _ secret.Source = (*Source)(nil)

// Open starts a source. It does not wait for Vault: an error is one of the options.
func Open(o Options) (*Source, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	if o.Login == nil {
		return nil, errors.New("open vault: there is no way to log in")
	}
	if o.TokenCache != "" && !o.Login.own() {
		return nil, errors.New("open vault: a token that is given is not kept in a file")
	}
	if o.Poll <= 0 {
		o.Poll = 5 * time.Minute
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Source{
		o: o, c: c, log: log, files: tmpfile.New(false), begun: time.Now(),
		posts: make(chan func(*loop)), ended: make(chan struct{}),
	}
	s.health = Health{Err: fmt.Errorf("log in: not done yet: %w", secret.ErrUnavailable), Since: s.begun}
	s.group.Go(newLoop(s, rand.Uint64()).run)
	return s, nil
}

// Health is how it is now.
func (s *Source) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.health
	h.Failing = maps.Clone(h.Failing)
	return h
}

// post has the loop do something; false: it has ended.
func (s *Source) post(f func(*loop)) bool {
	select {
	case s.posts <- f:
		return true
	case <-s.ended:
		return false
	}
}

// Watch implements secret.Source.
func (s *Source) Watch(ctx context.Context, r secret.Request, fn func(*secret.Secret, error)) {
	w := &watcher{news: make(chan struct{}, 1)}
	id := 0
	if s.post(func(l *loop) { id = l.watch(r, w) }) {
		defer s.post(func(l *loop) { l.unwatch(id, w) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.news:
		}
		if value, err := w.take(); ctx.Err() == nil {
			if value != nil {
				fn(value, nil)
			}
			if err != nil {
				fn(nil, err)
			}
		}
	}
}

// watcher is one call of Watch: what it has not been told yet.
type watcher struct {
	news chan struct{}

	mu    sync.Mutex
	value *secret.Secret
	err   error

	last error // the kind of the row of errors that it is in; the loop's
	seen *secret.Secret
}

// give hands it a state. It is the loop's to call, as fail is.
func (w *watcher) give(value *secret.Secret) {
	if value == w.seen && w.last == nil {
		return
	}
	w.seen, w.last = value, nil
	w.mu.Lock()
	w.value, w.err = value, nil
	w.mu.Unlock()
	w.wake()
}

func (w *watcher) fail(err error) {
	kind := kindOf(err)
	if w.last == kind {
		return
	}
	w.last = kind
	w.mu.Lock()
	w.err = err
	w.mu.Unlock()
	w.wake()
}

func (w *watcher) wake() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

func (w *watcher) take() (value *secret.Secret, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	value, err = w.value, w.err
	w.value, w.err = nil, nil
	return value, err
}

var errOther = errors.New("another kind of error")

// kindOf tells errors apart as watchers and operators are told of them. It is never nil.
func kindOf(err error) error {
	if kind := secret.Kind(err); kind != nil {
		return kind
	}
	return errOther
}

// failureOf is what an error means for lifetime.
func failureOf(err error) lifetime.Failure {
	var e *Error
	switch {
	case err == nil:
		return lifetime.None
	case errors.As(err, &e):
		return e.failure()
	case errors.Is(err, secret.ErrUnauthorized):
		return lifetime.Refused
	}
	return lifetime.Broken // a file that cannot be read
}
