package manta_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"drover/internal/objstore"
	"drover/internal/objstore/manta"
	"drover/internal/objstore/objstoretest"
	"drover/internal/objstore/probe"
	"drover/internal/testkit/mantaserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, raw string) *manta.Store {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	o, err := manta.ParseURL(u)
	if err != nil {
		t.Fatal(err)
	}
	s, err := manta.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// start starts a server and gives the test its environment.
func start(t *testing.T, o mantaserver.Options) *mantaserver.Server {
	t.Helper()
	server := mantaserver.Start(t, o)
	server.Setenv()
	return server
}

func put(t *testing.T, s objstore.Store, key, data string) {
	t.Helper()
	if err := s.Put(t.Context(), key, []byte(data)); err != nil {
		t.Fatalf("Put %s: %v", key, err)
	}
}

func list(t *testing.T, s objstore.Store, prefix string) []string {
	t.Helper()
	var keys []string
	if err := s.List(t.Context(), prefix, func(i objstore.Info) error { keys = append(keys, i.Key); return nil }); err != nil {
		t.Fatalf("List %q: %v", prefix, err)
	}
	slices.Sort(keys)
	return keys
}

func TestConformance(t *testing.T) {
	for name, o := range map[string]mantaserver.Options{
		"as published":         {RSA: true},
		"true to HTTP":         {RFC: true},
		"subuser, short pages": {Subuser: "backup", MostEntries: 7},
	} {
		t.Run(name, func(t *testing.T) {
			server := start(t, o)
			n := 0
			objstoretest.Run(t, func(t *testing.T) objstore.Store {
				n++
				return open(t, server.URL(fmt.Sprintf("conformance/%d", n)))
			})
		})
	}
}

func TestProbe(t *testing.T) {
	for _, rfc := range []bool{false, true} {
		server := start(t, mantaserver.Options{RFC: rfc})
		report, err := probe.Check(t.Context(), open(t, server.URL("p")), probe.Full)
		if err != nil {
			t.Errorf("%v: %+v", err, report)
		}
		if left := slices.DeleteFunc(server.Paths(), func(p string) bool { return strings.HasSuffix(p, "/") }); len(left) != 0 {
			t.Errorf("the probe left %q", left)
		}
	}
}

// TestRequests is what the time of a commit is counted in.
func TestRequests(t *testing.T) {
	server := start(t, mantaserver.Options{})
	s := open(t, server.URL("p"))
	ctx := t.Context()
	at := "/" + server.Account + "/stor/p"
	var tag objstore.ETag
	for _, step := range []struct {
		name string
		call func() error
		want []string
	}{
		{"first Put", func() error { return s.Put(ctx, "d/e/a", []byte("x")) }, []string{
			"PUT " + at + "/d/e/a", "PUT " + at + "/d/e", "PUT " + at + "/d", "PUT " + at, "PUT " + at + "/d", "PUT " + at + "/d/e", "PUT " + at + "/d/e/a",
		}},
		{"Put", func() error { return s.Put(ctx, "d/e/b", make([]byte, 20<<20)) }, []string{"PUT " + at + "/d/e/b"}},
		{"Put of nothing", func() error { return s.Put(ctx, "empty", nil) }, []string{"PUT " + at + "/empty"}},
		{"creating PutIf", func() (err error) { tag, err = s.PutIf(ctx, "h", []byte("x"), objstore.IfAbsent()); return err }, []string{
			"GET " + at, "PUT " + at + "/h", "HEAD " + at + "/h", "GET " + at + "/h", "PUT " + at + "/h",
		}},
		{"PutIf", func() error { _, err := s.PutIf(ctx, "h", []byte("y"), objstore.IfMatch(tag)); return err }, []string{"PUT " + at + "/h"}},
		{"Get", func() error { _, _, err := s.Get(ctx, "d/e/b", 0, -1); return err }, []string{"GET " + at + "/d/e/b"}},
		{"Get of a range", func() error { _, _, err := s.Get(ctx, "d/e/b", 5, 1000); return err }, []string{"GET " + at + "/d/e/b"}},
		{"Head", func() error { _, err := s.Head(ctx, "h"); return err }, []string{"HEAD " + at + "/h"}},
		{"List", func() error { return s.List(ctx, "d/e/", func(objstore.Info) error { return nil }) }, []string{"GET " + at + "/d/e", "GET " + at + "/d/e"}},
		{"Delete", func() error { return s.Delete(ctx, "h") }, []string{"DELETE " + at + "/h"}},
	} {
		server.TakeRequests()
		if err := step.call(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if seen := server.TakeRequests(); !slices.Equal(seen, step.want) {
			t.Errorf("%s: requests %q, want %q", step.name, seen, step.want)
		}
	}
}

// TestDirectoryRemoved has others tidy up the empty directories that a delete
// leaves.
func TestDirectoryRemoved(t *testing.T) {
	server := start(t, mantaserver.Options{})
	s := open(t, server.URL("p"))
	put(t, s, "a/b/c", "x")
	if err := s.Delete(t.Context(), "a/b/c"); err != nil {
		t.Fatal(err)
	}
	server.Remove("p/a")
	put(t, s, "a/b/c", "y")
	server.Remove("p")
	tag, err := s.PutIf(t.Context(), "a/b/c", []byte("z"), objstore.IfAbsent())
	if err != nil {
		t.Fatal(err)
	}
	server.Remove("p/a")
	if _, err := s.PutIf(t.Context(), "a/b/c", []byte("z"), objstore.IfMatch(tag)); !errors.Is(err, objstore.ErrConflict) {
		t.Errorf("swap of what went with its directory: %v", err)
	}
	if got := list(t, s, ""); len(got) != 0 {
		t.Errorf("left are %q", got)
	}
	if err := s.Delete(t.Context(), "a/b/c"); err != nil {
		t.Errorf("delete of what went with its directory: %v", err)
	}
}

// TestDirectoryRemovedBeforeCreate removes it between the look and the put:
// nothing is stored, nothing is sent again, and the next call makes it anew.
func TestDirectoryRemovedBeforeCreate(t *testing.T) {
	server := start(t, mantaserver.Options{RFC: true})
	s := open(t, server.URL("p"))
	put(t, s, "a/x", "x")
	var once sync.Once
	server.SetAnswer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			once.Do(func() { server.Remove("p/a") })
		}
		return false
	})
	server.TakeRequests()
	if _, err := s.PutIf(t.Context(), "a/h", nil, objstore.IfAbsent()); !errors.Is(err, objstore.ErrUnavailable) || errors.Is(err, objstore.ErrConflict) {
		t.Errorf("got %v", err)
	}
	if puts := len(server.TakeRequests()); puts != 2 {
		t.Errorf("%d requests, want the look and one put", puts)
	}
	if _, err := s.PutIf(t.Context(), "a/h", nil, objstore.IfAbsent()); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// TestObjectInTheWay: a put of a directory would replace an object, so none is
// sent for a name that an object has.
func TestObjectInTheWay(t *testing.T) {
	server := start(t, mantaserver.Options{})
	s := open(t, server.URL("p"))
	put(t, s, "a", "precious")
	for _, key := range []string{"a/b", "a/b/c"} {
		if err := s.Put(t.Context(), key, nil); err == nil {
			t.Errorf("Put %s: no error", key)
		}
		if _, err := s.PutIf(t.Context(), key, nil, objstore.IfAbsent()); err == nil || errors.Is(err, objstore.ErrConflict) {
			t.Errorf("PutIf %s: %v", key, err)
		}
	}
	if data, _, err := s.Get(t.Context(), "a", 0, -1); err != nil || string(data) != "precious" {
		t.Errorf("the object is %q, %v", data, err)
	}
}

// TestDirectoryInTheWay: no object has a directory's name.
func TestDirectoryInTheWay(t *testing.T) {
	server := start(t, mantaserver.Options{})
	s := open(t, server.URL("p"))
	put(t, s, "a/b", "x")
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Errorf("Delete of a directory's name: %v", err)
	}
	if err := s.Put(t.Context(), "a", nil); err == nil {
		t.Error("Put over a directory: no error")
	}
	if got := list(t, s, ""); !slices.Equal(got, []string{"a/b"}) {
		t.Errorf("there is %q", got)
	}
}

// TestOthersObjects are in the listing's pages and not in what is listed.
func TestOthersObjects(t *testing.T) {
	server := start(t, mantaserver.Options{MostEntries: 2})
	s := open(t, server.URL("p"))
	want := []string{"a", "z", "zz/b"}
	for _, key := range want {
		put(t, s, key, "x")
	}
	for _, name := range []string{"b c", "b&marker=z", "b+é", "b%41", "d#", "e?x", "own dir/a", "zz/ä"} {
		server.Add("p/"+name, nil)
	}
	if got := list(t, s, ""); !slices.Equal(got, want) {
		t.Errorf("listed are %q, want %q", got, want)
	}
}

// TestShortListing: a server that fails on the way ends its answer as if it
// were whole; nothing may be missing from ours.
func TestShortListing(t *testing.T) {
	server := start(t, mantaserver.Options{})
	s := open(t, server.URL("p"))
	for _, key := range []string{"a", "b", "c"} {
		put(t, s, key, "x")
	}
	var once sync.Once
	server.SetAnswer(func(w http.ResponseWriter, r *http.Request) (answered bool) {
		if r.URL.Query().Has("limit") {
			once.Do(func() {
				w.Header().Set("Content-Type", "application/x-json-stream; type=directory")
				_, _ = w.Write([]byte(`{"name":"a","type":"object","etag":"x","size":1,"mtime":"2026-01-01T00:00:00.000Z"}` + "\n"))
				answered = true
			})
		}
		return answered
	})
	if got := list(t, s, ""); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("listed are %q", got)
	}
}

func TestMarkerIgnored(t *testing.T) {
	server := start(t, mantaserver.Options{})
	s := open(t, server.URL("p"))
	server.SetAnswer(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/x-json-stream; type=directory")
		for _, name := range []string{"a", "b"} {
			fmt.Fprintf(w, `{"name":%q,"type":"object","etag":"x","size":1,"mtime":"2026-01-01T00:00:00Z"}`+"\n", name)
		}
		return true
	})
	err := s.List(t.Context(), "", func(objstore.Info) error { return nil })
	if !errors.Is(err, objstore.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

func TestWrongCredentials(t *testing.T) {
	server := start(t, mantaserver.Options{RSA: true})
	other := mantaserver.NewKey(t, "rsa")
	for name, env := range map[string]map[string]string{
		"another key":     {"MANTA_KEY_PATH": other.File, "MANTA_KEY_ID": other.ID},
		"another account": {"MANTA_USER": "somebody"},
		"no such user":    {"MANTA_SUBUSER": "nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range env {
				t.Setenv(k, v)
			}
			unauthorised(t, open(t, server.URL("p")), "")
		})
	}
	t.Run("another's storage", func(t *testing.T) {
		unauthorised(t, open(t, strings.Replace(server.URL("p"), server.Account, "somebody", 1)), "AuthorizationFailed")
	})
}

// unauthorised has every method refused, with hint in the error.
func unauthorised(t *testing.T, s objstore.Store, hint string) {
	t.Helper()
	_, _, getErr := s.Get(t.Context(), "a", 0, -1)
	_, headErr := s.Head(t.Context(), "a")
	_, putIfErr := s.PutIf(t.Context(), "a", nil, objstore.IfAbsent())
	_, swapErr := s.PutIf(t.Context(), "a", nil, objstore.IfMatch("x"))
	for op, err := range map[string]error{
		"Get": getErr, "Head": headErr, "Put": s.Put(t.Context(), "a", nil), "Delete": s.Delete(t.Context(), "a"), "PutIf": putIfErr, "swap": swapErr,
		"List": s.List(t.Context(), "", func(objstore.Info) error { return nil }),
	} {
		if !errors.Is(err, objstore.ErrUnauthorised) || op != "Head" && !strings.Contains(err.Error(), hint) {
			t.Errorf("%s: %v, want %q in it", op, err, hint)
		}
	}
}

func TestClockSkew(t *testing.T) {
	server := start(t, mantaserver.Options{})
	s := open(t, server.URL("p"))
	put(t, s, "a", "x")
	for _, skew := range []time.Duration{-4 * time.Minute, 4 * time.Minute} {
		server.SetSkew(skew)
		if _, err := s.Head(t.Context(), "a"); err != nil {
			t.Errorf("clocks that differ by %s: %v", skew, err)
		}
	}
	for _, skew := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		server.SetSkew(skew)
		unauthorised(t, s, "clock differs too much")
		if _, err := s.Head(t.Context(), "a"); !strings.Contains(err.Error(), "by 10m") && !strings.Contains(err.Error(), "by 9m59s") {
			t.Errorf("clocks that differ by %s: %v", skew, err)
		}
	}
}

func TestOutages(t *testing.T) {
	server := start(t, mantaserver.Options{})
	s := open(t, server.URL("p"))
	put(t, s, "a", "x")
	hang, arrived := make(chan struct{}), make(chan struct{}, 1)
	server.SetAnswer(func(http.ResponseWriter, *http.Request) bool { arrived <- struct{}{}; <-hang; return true })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if err := s.Put(ctx, "a", []byte("y")); !errors.Is(err, objstore.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("Put to a server that hangs: %v", err)
	}
	close(hang)
	server.SetAnswer(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	if _, _, err := s.Get(t.Context(), "a", 0, -1); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("Get from a server that hangs up: %v", err)
	}
	if err := s.List(t.Context(), "", func(objstore.Info) error { return nil }); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("List from a server that hangs up: %v", err)
	}
	server.SetAnswer(nil)
	if _, _, err := s.Get(t.Context(), "a", 0, -1); err != nil {
		t.Errorf("Get after an outage: %v", err)
	}
}

func TestUntrustedCertificate(t *testing.T) {
	server := start(t, mantaserver.Options{})
	raw, _, _ := strings.Cut(server.URL("p"), "&ca=")
	_, err := open(t, raw).Head(t.Context(), "a")
	if err == nil || errors.Is(err, objstore.ErrUnavailable) || !strings.Contains(err.Error(), "ca=FILE") {
		t.Errorf("got %v", err)
	}
}
