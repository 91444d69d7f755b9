package env_test

import (
	"context"
	"errors"
	"testing"

	"drover/internal/secret"
	"drover/internal/secret/env"
)

func TestVariables(t *testing.T) {
	s := env.New(func(name string) (string, bool) { return "of " + name, name != "NONE" })
	for _, c := range []struct {
		request secret.Request
		want    string
		kind    error
	}{
		{secret.Request{Path: "PASSWORD"}, "of PASSWORD", nil},
		{secret.Request{Path: "NONE"}, "", secret.ErrNotFound},
		{secret.Request{Path: "PASSWORD", List: true}, "", nil},
		{secret.Request{Path: "PASSWORD", Params: map[string]any{}}, "", nil},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		told := 0
		s.Watch(ctx, c.request, func(got *secret.Secret, err error) {
			told++
			switch {
			case c.want == "" && (err == nil || !errors.Is(err, c.kind) && c.kind != nil):
				t.Errorf("%+v: %v", c.request, err)
			case c.want != "" && (err != nil || got.Data["value"] != c.want):
				t.Errorf("%+v: %v, %v", c.request, got, err)
			}
			cancel()
		})
		if told != 1 {
			t.Errorf("%+v: told %d times", c.request, told)
		}
	}
}
