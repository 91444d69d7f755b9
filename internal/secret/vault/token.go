package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"drover/internal/secret"
	"drover/internal/secret/tmpfile"
)

// session is a token and what is known of it.
type session struct {
	token     string
	sent      time.Time     // of the request whose answer follows; zero: nothing is known
	ttl, full time.Duration // 0: it does not end
	renewable bool
	checkable bool // it may ask about itself
	own       bool // nobody else has it: it is revoked at the end
}

// end is when the token ends; zero: never.
func (s *session) end() time.Time {
	if s.ttl == 0 {
		return time.Time{}
	}
	return s.sent.Add(s.ttl)
}

func (g *grantedToken) session(sent time.Time) *session {
	return &session{token: g.ClientToken, sent: sent, ttl: time.Duration(g.LeaseDuration) * time.Second, renewable: g.Renewable}
}

// learn asks Vault about a token.
func (s *session) learn(ctx context.Context, c *client) error {
	sent := time.Now()
	got, err := c.do(ctx, call{method: http.MethodGet, path: "auth/token/lookup-self", token: s.token})
	if err != nil {
		return err
	}
	s.sent, s.checkable = sent, true
	s.ttl, s.full = seconds(got.Data["ttl"]), seconds(got.Data["creation_ttl"])
	s.renewable, _ = got.Data["renewable"].(bool)
	return nil
}

// extend renews a token and returns what is known then.
func (s *session) extend(ctx context.Context, c *client) (*session, error) {
	sent := time.Now()
	got, err := c.do(ctx, call{method: http.MethodPut, path: "auth/token/renew-self", token: s.token, body: map[string]any{}, limit: patience(s.ttl)})
	if err != nil {
		return nil, err
	}
	if got.Auth == nil {
		return nil, errors.New("auth/token/renew-self: nothing was granted")
	}
	next := got.Auth.session(sent)
	next.token, next.full, next.checkable, next.own = s.token, s.full, s.checkable, s.own
	return next, nil
}

// logIn gets a token that Vault takes. A token that is kept is tried first, if there is
// none yet.
func (s *Source) logIn(ctx context.Context, had *session) (*session, error) {
	if had == nil && s.o.TokenCache != "" {
		if got, err := s.cached(ctx); got != nil || err != nil {
			return got, err
		}
	}
	got, err := s.o.Login.login(ctx, s.c)
	if err != nil {
		return nil, err
	}
	got.own = s.o.Login.own()
	if err := s.know(ctx, got); err != nil {
		return nil, err
	}
	if had != nil && had.token == got.token && !got.end().After(had.end().Add(time.Second)) {
		return nil, fmt.Errorf("the token ends, cannot be renewed, and is all that there is: %w", secret.ErrUnauthorized)
	}
	if s.o.TokenCache != "" {
		if err := s.files.Write(s.o.TokenCache, []byte(got.token), tmpfile.Options{}); err != nil {
			s.log.Warn("a token is not kept for the next start", "error", err)
		}
	}
	return got, nil
}

// know fills in what is known of a token. One that may not ask about itself is taken as
// it was granted, or else renewed.
func (s *Source) know(ctx context.Context, got *session) error {
	err := got.learn(ctx, s.c)
	if err == nil || !errors.Is(err, secret.ErrUnauthorized) {
		return err
	}
	if !got.sent.IsZero() {
		return nil
	}
	next, renewErr := got.extend(ctx, s.c)
	if renewErr != nil {
		return fmt.Errorf("the token is none, or may neither be looked up nor renewed (the policy default lets it): %w", err)
	}
	*got = *next
	return nil
}

// cached is the token that an earlier run has kept, if it is good for a while; nil: none.
func (s *Source) cached(ctx context.Context) (*session, error) {
	token, err := readCredential("token", s.o.TokenCache)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("a kept token is not used", "error", err)
		}
		return nil, nil
	}
	got := &session{token: token, own: true}
	err = got.learn(ctx, s.c)
	switch {
	case errors.Is(err, secret.ErrUnavailable):
		return nil, err // it may be good
	case err != nil || got.ttl != 0 && got.ttl < got.full/5:
		return nil, nil //nolint:nilerr // it is none any more: log in
	}
	if err := s.files.Adopt(s.o.TokenCache); err != nil {
		s.log.Warn("a kept token will not be removed", "error", err)
	}
	s.log.Info("logged in to Vault with the token of an earlier run")
	return got, nil
}
