package readonly

import (
	"errors"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
)

func TestReadOnly(t *testing.T) {
	under := mem.New()
	if err := under.Put(t.Context(), "a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	s := New(under)
	_, conditional := s.PutIf(t.Context(), "b", nil, objstore.IfAbsent())
	for _, err := range []error{s.Put(t.Context(), "a", nil), conditional, s.Delete(t.Context(), "a")} {
		if !errors.Is(err, objstore.ErrUnauthorised) {
			t.Error(err)
		}
	}
	if got, _, err := s.Get(t.Context(), "a", 0, -1); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
	if err := s.Close(); err != nil || s.Describe() == "" {
		t.Error(err)
	}
}
