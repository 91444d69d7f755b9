// Package metered counts what is asked of another store, for Prometheus:
// calls, errors by kind, bytes and times.
//
// Put it under the retries to see every attempt, or over them to see what
// callers see. Labels are bounded: no key is one.
package metered

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"drover/internal/objstore"
)

// Store is a store that is counted. Use New.
type Store struct {
	under   objstore.Store
	calls   *prometheus.CounterVec
	errs    *prometheus.CounterVec
	bytes   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// New returns under, counted by collectors that it registers in reg. One
// registerer takes one store.
func New(under objstore.Store, reg prometheus.Registerer) (*Store, error) {
	s := &Store{
		under: under,
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drover_store_calls_total", Help: "Calls of the object store."}, []string{"op"}),
		errs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drover_store_errors_total", Help: "Failed calls of the object store, by kind of error."}, []string{"op", "kind"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drover_store_bytes_total", Help: "Bytes of objects sent to and received from the store."}, []string{"direction"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "drover_store_call_seconds", Help: "Times of the calls of the object store.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 13)}, []string{"op"}), // 1 ms to 60 s
	}
	for _, c := range []prometheus.Collector{s.calls, s.errs, s.bytes, s.seconds} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// kind names err for the label; "" if it is none that counts.
func kind(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.Canceled):
		return "cancelled" // our own doing, whatever else it wraps
	case errors.Is(err, objstore.ErrNotFound):
		return "not_found"
	case errors.Is(err, objstore.ErrConflict):
		return "conflict"
	case errors.Is(err, objstore.ErrUnauthorised):
		return "unauthorised"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, objstore.ErrUnavailable):
		return "unavailable"
	case errors.Is(err, objstore.ErrRange):
		return "range"
	case errors.Is(err, objstore.ErrUnsupported):
		return "unsupported"
	}
	return "other"
}

func (s *Store) count(op string, began time.Time, err error) {
	s.calls.WithLabelValues(op).Inc()
	s.seconds.WithLabelValues(op).Observe(time.Since(began).Seconds())
	if k := kind(err); k != "" {
		s.errs.WithLabelValues(op, k).Inc()
	}
}

// Describe implements objstore.Describer.
func (s *Store) Describe() string {
	if d, ok := s.under.(objstore.Describer); ok {
		return d.Describe()
	}
	return ""
}

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) ([]byte, objstore.Info, error) {
	began := time.Now()
	data, info, err := s.under.Get(ctx, key, offset, length)
	s.count("get", began, err)
	s.bytes.WithLabelValues("received").Add(float64(len(data)))
	return data, info, err
}

// Head implements objstore.Store.
func (s *Store) Head(ctx context.Context, key string) (objstore.Info, error) {
	began := time.Now()
	info, err := s.under.Head(ctx, key)
	s.count("head", began, err)
	return info, err
}

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, data []byte) error {
	began := time.Now()
	err := s.under.Put(ctx, key, data)
	s.count("put", began, err)
	s.bytes.WithLabelValues("sent").Add(float64(len(data)))
	return err
}

// PutIf implements objstore.Store.
func (s *Store) PutIf(ctx context.Context, key string, data []byte, cond objstore.Condition) (objstore.ETag, error) {
	began := time.Now()
	etag, err := s.under.PutIf(ctx, key, data, cond)
	s.count("putif", began, err)
	s.bytes.WithLabelValues("sent").Add(float64(len(data)))
	return etag, err
}

// List implements objstore.Store. Its time includes that of fn.
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	began := time.Now()
	var ended error
	err := s.under.List(ctx, prefix, func(i objstore.Info) error {
		ended = fn(i)
		return ended
	})
	if ended != nil {
		s.count("list", began, nil) // the caller's own end
	} else {
		s.count("list", began, err)
	}
	return err
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	began := time.Now()
	err := s.under.Delete(ctx, key)
	s.count("delete", began, err)
	return err
}

// Folders implements objstore.FolderLister. It counts as a listing.
func (s *Store) Folders(ctx context.Context, fn func(string) error) error {
	began := time.Now()
	var ended error
	err := objstore.Folders(ctx, s.under, func(name string) error {
		ended = fn(name)
		return ended
	})
	if ended != nil {
		s.count("list", began, nil) // the caller's own end
	} else {
		s.count("list", began, err)
	}
	return err
}
