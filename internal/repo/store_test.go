package repo

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
)

// watched records calls and lets a test fail or hold them.
type watched struct {
	*mem.Store
	mu    sync.Mutex
	calls []string                   // "put data/…", in the order in which they began
	hook  func(op, key string) error // before the call, without the lock
}

func watch(st *mem.Store) *watched { return &watched{Store: st} }

func (s *watched) note(op, key string) error {
	s.mu.Lock()
	s.calls = append(s.calls, op+" "+key)
	hook := s.hook
	s.mu.Unlock()
	if hook != nil {
		return hook(op, key)
	}
	return nil
}

func (s *watched) setHook(hook func(op, key string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

func (s *watched) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

func (s *watched) Get(ctx context.Context, key string, offset, length int64) ([]byte, objstore.Info, error) {
	if err := s.note("get", key); err != nil {
		return nil, objstore.Info{}, err
	}
	return s.Store.Get(ctx, key, offset, length)
}

func (s *watched) Put(ctx context.Context, key string, data []byte) error {
	if err := s.note("put", key); err != nil {
		return err
	}
	return s.Store.Put(ctx, key, data)
}

func (s *watched) Delete(ctx context.Context, key string) error {
	if err := s.note("delete", key); err != nil {
		return err
	}
	return s.Store.Delete(ctx, key)
}

// List can fail half-way: the hook is asked before every object, too.
func (s *watched) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	if err := s.note("list", prefix); err != nil {
		return err
	}
	return s.Store.List(ctx, prefix, func(info objstore.Info) error {
		s.mu.Lock()
		hook := s.hook
		s.mu.Unlock()
		if hook != nil {
			if err := hook("listed", info.Key); err != nil {
				return err
			}
		}
		return fn(info)
	})
}

var errInjected = errors.New("injected")

// keys returns the keys with a prefix.
func keys(t testing.TB, st objstore.Store, prefix string) []string {
	t.Helper()
	var found []string
	err := st.List(t.Context(), prefix, func(info objstore.Info) error {
		found = append(found, info.Key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func countPrefix(calls []string, prefix string) (n int) {
	for _, c := range calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}
