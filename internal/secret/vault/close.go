package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"drover/internal/secret"
)

// leftover is what a source that ends has to give back.
type leftover struct {
	tokens []*session // its own: their leases end with them
	token  string     // somebody else's,
	leases []string   // which end one by one
}

// Close implements secret.Source: it waits for the requests that are under way, revokes what
// was granted to this source, and removes the kept token.
func (s *Source) Close(ctx context.Context) error {
	var left leftover
	if !s.post(func(l *loop) { left = l.close(ctx) }) {
		return nil
	}
	s.group.Wait()
	defer s.c.close()
	return errors.Join(s.revoke(ctx, left), s.files.Close())
}

// close ends the loop when no request is under way any more: one of them may be granted
// a lease. It begins none.
func (l *loop) close(ctx context.Context) leftover {
	if l.closing {
		return leftover{}
	}
	l.closing = true
	patience := 10 * time.Second
	if end, ok := ctx.Deadline(); ok {
		patience = time.Until(end) / 2 // the rest is for revoking
	}
	late := time.AfterFunc(max(0, patience), l.cancel)
	defer late.Stop()
	defer context.AfterFunc(ctx, l.cancel)()
	idle := make(chan struct{})
	go func() { // ends before this function
		l.calls.Wait()
		close(idle)
	}()
	for !l.closed {
		select {
		case f := <-l.s.posts:
			f(l)
		case <-idle:
			l.closed = true
		}
	}
	return l.leftover()
}

func (l *loop) leftover() leftover {
	var left leftover
	if l.session == nil {
		return left
	}
	for _, s := range append(l.earlier, l.session) {
		if s.own && !ended(s.end()) {
			left.tokens = append(left.tokens, s)
		}
	}
	if l.session.own {
		return left
	}
	left.token = l.session.token
	for id, ends := range l.leases {
		if !ended(ends) {
			left.leases = append(left.leases, id)
		}
	}
	return left
}

// revoke gives back what was granted.
func (s *Source) revoke(ctx context.Context, left leftover) error {
	var errs []error
	for _, token := range left.tokens {
		_, err := s.c.do(ctx, call{method: http.MethodPut, path: "auth/token/revoke-self", token: token.token, body: map[string]any{}})
		if token.checkable && errors.Is(err, secret.ErrUnauthorized) {
			continue // it is none any more; one that cannot be checked may lack the right
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("revoke the token: %w", err))
		}
	}
	for _, lease := range left.leases {
		_, err := s.c.do(ctx, call{method: http.MethodPut, path: "sys/leases/revoke", token: left.token, body: map[string]any{"lease_id": lease}})
		if err != nil {
			errs = append(errs, fmt.Errorf("revoke a lease: %w", err))
		}
	}
	return errors.Join(errs...)
}
