package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"drover/internal/objstore"
	"drover/internal/objstore/objstoretest"
	"drover/internal/objstore/probe"
	"drover/internal/objstore/s3"
	"drover/internal/testkit/s3server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a store of the server under prefix, whose requests go through wrap.
func open(t testing.TB, raw string, wrap func(http.RoundTripper) http.RoundTripper) *s3.Store {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s3.ParseURL(u)
	if err != nil {
		t.Fatal(err)
	}
	o.Wrap = wrap
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// counter is a transport that counts requests by method.
type counter struct {
	http.RoundTripper
	mu   sync.Mutex
	seen []*http.Request
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.seen = append(c.seen, r)
	c.mu.Unlock()
	return c.RoundTripper.RoundTrip(r)
}

func (c *counter) wrap(next http.RoundTripper) http.RoundTripper {
	c.RoundTripper = next
	return c
}

func (c *counter) take() []*http.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.seen
	c.seen = nil
	return seen
}

func TestConformance(t *testing.T) {
	for _, tls := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", tls), func(t *testing.T) {
			server := s3server.Start(t, s3server.Options{TLS: tls})
			server.Setenv()
			n := 0
			objstoretest.Run(t, func(t *testing.T) objstore.Store {
				n++
				return open(t, server.URL(fmt.Sprintf("conformance/%d", n)), nil)
			})
		})
	}
}

// TestOneRequestPerCall is what the time of a commit is counted in.
func TestOneRequestPerCall(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv()
	var c counter
	s := open(t, server.URL("p"), c.wrap)
	ctx, data := t.Context(), make([]byte, 20<<20)
	var tag objstore.ETag
	for _, step := range []struct {
		name string
		call func() error
	}{
		{"Put", func() error { return s.Put(ctx, "a", []byte("x")) }},
		{"Put of 20 MiB", func() error { return s.Put(ctx, "big", data) }},
		{"Put of nothing", func() error { return s.Put(ctx, "empty", nil) }},
		{"PutIf", func() (err error) { tag, err = s.PutIf(ctx, "b", []byte("x"), objstore.IfAbsent()); return err }},
		{"PutIf", func() (err error) { _, err = s.PutIf(ctx, "b", []byte("y"), objstore.IfMatch(tag)); return err }},
		{"Get", func() error { _, _, err := s.Get(ctx, "big", 0, -1); return err }},
		{"Get of a range", func() error { _, _, err := s.Get(ctx, "big", 5, 1000); return err }},
		{"Head", func() error { _, err := s.Head(ctx, "a"); return err }},
		{"List", func() error { return s.List(ctx, "", func(objstore.Info) error { return nil }) }},
		{"Delete", func() error { return s.Delete(ctx, "a") }},
	} {
		if err := step.call(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		seen := c.take()
		if len(seen) != 1 {
			t.Errorf("%s: %d requests", step.name, len(seen))
		}
		if sum := seen[0].Header.Get("X-Amz-Content-Sha256"); len(sum) != 64 {
			t.Errorf("%s: payload is signed as %q", step.name, sum)
		}
		if seen[0].Header.Get("Expect") != "" || seen[0].TransferEncoding != nil {
			t.Errorf("%s: header %v", step.name, seen[0].Header)
		}
	}
}

func TestProbe(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv()
	report, err := probe.Check(t.Context(), open(t, server.URL("p"), nil), probe.Full)
	if err != nil {
		t.Errorf("%v: %+v", err, report)
	}
	for _, l := range report.Latency {
		t.Logf("%-16s p50 %v p99 %v", l.Op, l.P50, l.P99)
	}
}

func TestContentMD5(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv()
	var c counter
	s := open(t, server.URL("p")+"&content-md5=true", c.wrap)
	if err := s.Put(t.Context(), "a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if sum := c.take()[0].Header.Get("Content-Md5"); sum != "ndTkYSaMgDT1yFZOFVxnpg==" {
		t.Errorf("Content-MD5 %q", sum)
	}
}

func TestWrongCredentials(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv()
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "topsecretguess"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			s := open(t, server.URL("p"), nil)
			_, _, getErr := s.Get(t.Context(), "a", 0, -1)
			_, headErr := s.Head(t.Context(), "a")
			for op, err := range map[string]error{
				"Get": getErr, "Head": headErr, "Put": s.Put(t.Context(), "a", nil), "Delete": s.Delete(t.Context(), "a"),
				"List": s.List(t.Context(), "", func(objstore.Info) error { return nil }),
			} {
				if !errors.Is(err, objstore.ErrUnauthorised) || strings.Contains(err.Error(), "topsecret") {
					t.Errorf("%s: %v", op, err)
				}
			}
		})
	}
}

func TestMissingBucket(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv()
	server.Bucket = "nosuch"
	s := open(t, server.URL("p"), nil)
	_, _, getErr := s.Get(t.Context(), "a", 0, -1)
	_, headErr := s.Head(t.Context(), "a")
	_, putIfErr := s.PutIf(t.Context(), "a", nil, objstore.IfAbsent())
	for op, err := range map[string]error{
		"Get": getErr, "Head": headErr, "PutIf": putIfErr, "Put": s.Put(t.Context(), "a", nil),
		"List": s.List(t.Context(), "", func(objstore.Info) error { return nil }),
	} {
		if err == nil || errors.Is(err, objstore.ErrNotFound) || !strings.Contains(err.Error(), `bucket "nosuch" does not exist`) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

func TestOutages(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv()
	s := open(t, server.URL("p"), nil)
	if err := s.Put(t.Context(), "a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := s.Put(ctx, "a", []byte("y"))
	if !errors.Is(err, objstore.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Put to a server that hangs: %v", err)
	}
	server.Resume()
	server.Stop()
	if _, _, err := s.Get(t.Context(), "a", 0, -1); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("Get from a server that is down: %v", err)
	}
	if err := s.List(t.Context(), "", func(objstore.Info) error { return nil }); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("List from a server that is down: %v", err)
	}
	server.StartAgain()
	if _, _, err := s.Get(t.Context(), "a", 0, -1); err != nil {
		t.Errorf("Get after an outage: %v", err)
	}
}

func TestUntrustedCertificate(t *testing.T) {
	server := s3server.Start(t, s3server.Options{TLS: true})
	server.Setenv()
	server.CA = ""
	_, err := open(t, server.URL("p"), nil).Head(t.Context(), "a")
	if err == nil || errors.Is(err, objstore.ErrUnavailable) || !strings.Contains(err.Error(), "ca=FILE") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkPut(b *testing.B) {
	server := s3server.Start(b, s3server.Options{})
	server.Setenv()
	s := open(b, server.URL("p"), nil)
	for _, size := range []int{1 << 10, 16 << 20} {
		for _, workers := range []int{1, 4} {
			b.Run(fmt.Sprintf("%dKiB/x%d", size>>10, workers), func(b *testing.B) {
				data := bytes.Repeat([]byte{7}, size)
				b.SetBytes(int64(size))
				inParallel(b, workers, func(i int) error { return s.Put(b.Context(), fmt.Sprintf("put/%d", i%64), data) })
			})
		}
	}
}

func BenchmarkGet(b *testing.B) {
	server := s3server.Start(b, s3server.Options{})
	server.Setenv()
	s := open(b, server.URL("p"), nil)
	for _, size := range []int{1 << 10, 16 << 20} {
		if err := s.Put(b.Context(), fmt.Sprint(size), make([]byte, size)); err != nil {
			b.Fatal(err)
		}
		for _, workers := range []int{1, 4} {
			b.Run(fmt.Sprintf("%dKiB/x%d", size>>10, workers), func(b *testing.B) {
				b.SetBytes(int64(size))
				inParallel(b, workers, func(int) error {
					_, _, err := s.Get(b.Context(), fmt.Sprint(size), 0, -1)
					return err
				})
			})
		}
	}
}

func inParallel(b *testing.B, workers int, do func(i int) error) {
	var group sync.WaitGroup
	b.ResetTimer()
	for w := range workers {
		group.Go(func() {
			for i := w; i < b.N; i += workers {
				if err := do(i); err != nil {
					b.Error(err)
				}
			}
		})
	}
	group.Wait()
}
