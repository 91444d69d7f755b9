package polling_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/secret"
	"drover/internal/secret/polling"
)

func TestWatch(t *testing.T) {
	unreadable := errors.New("of no kind")
	type answer struct {
		value string
		err   error
	}
	for _, c := range []struct {
		name    string
		answers []answer
		want    string
		atLeast time.Duration
	}{
		{"only what differs", []answer{{"a", nil}, {"a", nil}, {"b", nil}, {"b", nil}, {"a", nil}}, "a b a", 35 * time.Second},
		{"errors once for each kind in a row", []answer{
			{"", secret.ErrNotFound}, {"", fmt.Errorf("x: %w", secret.ErrNotFound)}, {"", unreadable}, {"", unreadable}, {"", secret.ErrNotFound}, {"a", nil},
		}, "[not found] [of no kind] [not found] a", 15 * time.Second},
		{"the same again after an error", []answer{{"a", nil}, {"", unreadable}, {"a", nil}, {"a", nil}}, "a [of no kind] a", 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				n := 0
				s := polling.New(func(context.Context, secret.Request) (*secret.Secret, error) {
					if n == len(c.answers) {
						cancel()
						return nil, errors.New("nobody listens")
					}
					a := c.answers[n]
					n++
					return &secret.Secret{Data: map[string]any{"value": a.value}}, a.err
				}, 10*time.Second)
				begun := time.Now()
				var told []string
				s.Watch(ctx, secret.Request{}, func(got *secret.Secret, err error) {
					if err != nil {
						told = append(told, fmt.Sprintf("[%v]", err))
					} else {
						told = append(told, got.Data["value"].(string))
					}
				})
				if got := strings.Join(told, " "); got != c.want {
					t.Errorf("told %s, want %s", got, c.want)
				}
				if took := time.Since(begun); took < c.atLeast || took > time.Minute {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}
