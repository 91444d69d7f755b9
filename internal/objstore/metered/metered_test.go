package metered_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
	"drover/internal/objstore/metered"
	"drover/internal/objstore/objstoretest"
)

func TestConformance(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Store {
		s, err := metered.New(mem.New(), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// values gathers the registry as name{label=value,…} → value or, of a
// histogram, its number of samples.
func values(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			found[name] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return found
}

func TestCounts(t *testing.T) {
	reg := prometheus.NewRegistry()
	bad := faulty.New(mem.New(), nil)
	s, err := metered.New(bad, reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := s.Put(ctx, "a", make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	_, _, _ = s.Get(ctx, "a", 0, 30)
	_, _, _ = s.Get(ctx, "b", 0, -1)
	_, _ = s.PutIf(ctx, "a", make([]byte, 7), objstore.IfAbsent())
	_ = s.List(ctx, "", func(objstore.Info) error { return errors.New("enough") })
	bad.Set(func(faulty.Call) faulty.Fault {
		return faulty.Fault{Before: fmt.Errorf("%w: %w", objstore.ErrUnavailable, context.Canceled)}
	})
	_ = s.Delete(ctx, "a")
	bad.Set(func(faulty.Call) faulty.Fault { return faulty.Fault{Before: objstore.ErrUnavailable} })
	_, _ = s.Head(ctx, "a")

	got := values(t, reg)
	want := map[string]float64{
		"drover_store_calls_total op=put":                    1,
		"drover_store_calls_total op=get":                    2,
		"drover_store_calls_total op=putif":                  1,
		"drover_store_calls_total op=list":                   1,
		"drover_store_calls_total op=delete":                 1,
		"drover_store_calls_total op=head":                   1,
		"drover_store_errors_total kind=not_found op=get":    1,
		"drover_store_errors_total kind=conflict op=putif":   1,
		"drover_store_errors_total kind=cancelled op=delete": 1,
		"drover_store_errors_total kind=unavailable op=head": 1,
		"drover_store_bytes_total direction=sent":            107,
		"drover_store_bytes_total direction=received":        30,
		"drover_store_call_seconds op=put":                   1,
		"drover_store_call_seconds op=get":                   2,
		"drover_store_call_seconds op=putif":                 1,
		"drover_store_call_seconds op=list":                  1,
		"drover_store_call_seconds op=delete":                1,
		"drover_store_call_seconds op=head":                  1,
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d series, want %d: %v", len(got), len(want), got)
	}
}

func TestOneStorePerRegisterer(t *testing.T) {
	reg := prometheus.NewRegistry()
	if _, err := metered.New(mem.New(), reg); err != nil {
		t.Fatal(err)
	}
	if _, err := metered.New(mem.New(), reg); err == nil {
		t.Error("a second store was registered over the first")
	}
}
