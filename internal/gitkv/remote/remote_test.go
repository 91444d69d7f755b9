package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"drover/internal/testkit/gitserver"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func all(string) bool { return true }

func open(t *testing.T, o Options) *Remote {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// show is a snapshot in one line.
func show(s Snapshot) string {
	var b strings.Builder
	for _, f := range s.Files {
		fmt.Fprintf(&b, "%s=%.20q ", f.Path, f.Data)
	}
	for _, k := range s.Skipped {
		fmt.Fprintf(&b, "%s:%s ", k.Path, k.Why)
	}
	return strings.TrimSpace(b.String())
}

func fetch(t *testing.T, r *Remote, ref string) Snapshot {
	t.Helper()
	s, err := r.Fetch(t.Context(), ref, all)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFetch(t *testing.T) {
	plain := gitserver.Start(t, gitserver.Options{})
	secured := gitserver.Start(t, gitserver.Options{TLS: true, User: "u", Password: "s3cret"})
	overSSH := gitserver.Start(t, gitserver.Options{})
	for name, connect := range map[string]func() (*gitserver.Repository, Options){
		"http": func() (*gitserver.Repository, Options) {
			r := plain.Create(t, "conf")
			return r, Options{URL: r.URL()}
		},
		"https with a password": func() (*gitserver.Repository, Options) {
			r := secured.Create(t, "conf")
			return r, Options{URL: r.URL(), CAFile: secured.CAFile, Username: "u", PasswordFile: secured.PasswordFile}
		},
		"ssh": func() (*gitserver.Repository, Options) {
			r := overSSH.Create(t, "it's")
			s := gitserver.StartSSH(t, overSSH)
			return r, Options{URL: s.URL(r), KeyFile: s.KeyFile, KnownHostsFile: s.KnownHostsFile}
		},
	} {
		t.Run(name, func(t *testing.T) {
			repository, o := connect()
			r := open(t, o)
			if refs, err := r.Refs(t.Context()); err != nil || len(refs) != 0 {
				t.Errorf("an empty repository has %v, %v", refs, err)
			}
			if _, err := r.Fetch(t.Context(), "refs/heads/main", all); !errors.Is(err, ErrGone) {
				t.Errorf("a branch of an empty repository: %v", err)
			}
			first := repository.Push("main", map[string]string{"a": "1\n", "dir/b": "2", "dir/sub/c": ""})
			repository.Tag("main", "v1", true)
			repository.Tag("main", "light", false)
			second := repository.Push("main", map[string]string{"a": "one\n"})
			refs, err := r.Refs(t.Context())
			if err != nil || refs["refs/heads/main"] != second || refs["refs/tags/v1"] != first || refs["refs/tags/light"] != first || len(refs) != 3 {
				t.Errorf("refs are %v, %v", refs, err)
			}
			if s := fetch(t, r, "refs/heads/main"); s.Commit != second || show(s) != `a="one\n" dir/b="2" dir/sub/c=""` {
				t.Errorf("main is %s: %s", s.Commit, show(s))
			}
			if s := fetch(t, r, "refs/tags/v1"); s.Commit != first || show(s) != `a="1\n" dir/b="2" dir/sub/c=""` {
				t.Errorf("v1 is %s: %s", s.Commit, show(s))
			}
			if _, err := r.Fetch(t.Context(), "refs/heads/none", all); !errors.Is(err, ErrGone) {
				t.Errorf("a branch that is not there: %v", err)
			}
		})
	}
}

func TestWhatIsNotAFile(t *testing.T) {
	s := gitserver.Start(t, gitserver.Options{})
	repository := s.Create(t, "conf")
	repository.Push("main", map[string]string{"file": "x", "script": "#!"})
	repository.Git("update-index", "--chmod=+x", "script")
	repository.Git("update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("a", 40)+",module")
	link := repository.Git("rev-parse", "HEAD:file")
	repository.Git("update-index", "--add", "--cacheinfo", "120000,"+link+",link")
	repository.Git("commit", "--quiet", "--message=x")
	repository.Git("push", "--quiet", "origin", "main")
	got := show(fetch(t, open(t, Options{URL: repository.URL()}), "refs/heads/main"))
	if want := `file="x" script="#!" link:a symbolic link module:a submodule`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLimits(t *testing.T) {
	zeros := strings.Repeat("\x00", 3<<20) // 3 KiB in a pack
	for _, filter := range []bool{false, true} {
		s := gitserver.Start(t, gitserver.Options{Filter: filter})
		repository := s.Create(t, "conf")
		repository.Push("main", map[string]string{"small": "x", "dir/big": zeros})
		for _, c := range []struct {
			limits Limits
			want   func(string) bool
			fails  string
		}{
			{Limits{File: 4 << 20}, all, ""},
			{Limits{File: 3 << 20}, all, ""},
			{Limits{File: 3<<20 - 1}, all, `"dir/big" has more than`},
			{Limits{}, all, `"dir/big" has more than`},
			{Limits{}, func(path string) bool { return path == "small" }, ""},
			{Limits{File: 4 << 20, Total: 2 << 20}, all, "objects have more than"},
			{Limits{File: 4 << 20, Files: 2}, all, "more than 2 files"},
			{Limits{File: 4 << 20, Pack: 500}, all, "more than 500 bytes"},
		} {
			r := open(t, Options{URL: repository.URL(), Limits: c.limits})
			_, err := r.Fetch(t.Context(), "refs/heads/main", c.want)
			switch {
			case c.fails == "" && err != nil:
				t.Errorf("filter %v, %+v: %v", filter, c.limits, err)
			case c.fails != "" && (!errors.Is(err, errTooMuch) || !strings.Contains(err.Error(), c.fails)):
				t.Errorf("filter %v, %+v: %v", filter, c.limits, err)
			}
		}
	}
}

// The same directory many times over, in itself: 10 trees, 10^10 files.
func TestTreeBomb(t *testing.T) {
	s := gitserver.Start(t, gitserver.Options{})
	repository := s.Create(t, "conf")
	repository.Push("main", map[string]string{"x": "x"})
	for range 10 {
		tree := repository.Git("write-tree")
		repository.Git("read-tree", "--empty")
		for d := range 10 {
			repository.Git("read-tree", fmt.Sprintf("--prefix=d%d/", d), tree)
			if len(repository.Git("ls-files")) > 100_000 {
				break
			}
		}
		if len(repository.Git("ls-files")) > 100_000 {
			break
		}
	}
	repository.Git("commit", "--quiet", "--message=bomb")
	repository.Git("push", "--quiet", "origin", "main")
	r := open(t, Options{URL: repository.URL(), Limits: Limits{Files: 1000}})
	if _, err := r.Fetch(t.Context(), "refs/heads/main", all); !errors.Is(err, errTooMuch) {
		t.Error(err)
	}
}

func TestNew(t *testing.T) {
	for _, c := range []struct {
		o     Options
		fails string
	}{
		{Options{URL: "https://h/r"}, ""},
		{Options{URL: "http://h/r"}, ""},
		{Options{URL: "http://127.0.0.1/r", PasswordFile: "p"}, ""},
		{Options{URL: "http://h/r", PasswordFile: "p"}, "plain http"},
		{Options{URL: "http://h/r", TokenFile: "p"}, "plain http"},
		{Options{URL: "https://h/r", TokenFile: "p", PasswordFile: "q"}, "give one"},
		{Options{URL: "https://u:hunter2@h/r"}, "has a password"},
		{Options{URL: "https://u:hunter2@h:x/r"}, "read the repository's URL"},
		{Options{URL: "/srv/git"}, "no way to"},
		{Options{URL: "file:///srv/git"}, "no way to"},
		{Options{URL: "git://h/r"}, "no way to"},
		{Options{URL: "git@h:r", KeyFile: "k", KnownHostsFile: "h"}, ""},
		{Options{URL: "git@h:r", KeyFile: "k"}, "known hosts"},
		{Options{URL: "ssh://h/r", KnownHostsFile: "h"}, "key file"},
	} {
		_, err := New(c.o)
		if (err == nil) != (c.fails == "") || err != nil && (!strings.Contains(err.Error(), c.fails) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
}

func TestStrangersAreRefused(t *testing.T) {
	s := gitserver.Start(t, gitserver.Options{TLS: true, User: "u", Password: "s3cret"})
	repository := s.Create(t, "conf")
	repository.Push("main", map[string]string{"a": "1"})
	other := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(other, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	over := gitserver.StartSSH(t, s)
	unknown := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(unknown, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stranger := gitserver.StartSSH(t, gitserver.Start(t, gitserver.Options{}))
	known, err := os.ReadFile(stranger.KnownHostsFile)
	if err != nil {
		t.Fatal(err)
	}
	port := over.URL(repository)[len("ssh://git@127.0.0.1:"):]
	port, _, _ = strings.Cut(port, "/")
	changed := filepath.Join(t.TempDir(), "changed_hosts")
	if err := os.WriteFile(changed, append([]byte("[127.0.0.1]:"+port), known[bytes.IndexByte(known, ' '):]...), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"an unknown authority": {URL: repository.URL(), Username: "u", PasswordFile: s.PasswordFile},
		"a wrong password":     {URL: repository.URL(), CAFile: s.CAFile, Username: "u", PasswordFile: other},
		"no password":          {URL: repository.URL(), CAFile: s.CAFile},
		"an unknown host":      {URL: over.URL(repository), KeyFile: over.KeyFile, KnownHostsFile: unknown},
		"a changed host key":   {URL: over.URL(repository), KeyFile: over.KeyFile, KnownHostsFile: changed},
		"a wrong client key":   {URL: over.URL(repository), KeyFile: stranger.KeyFile, KnownHostsFile: over.KnownHostsFile},
		"no such repository":   {URL: over.URL(repository) + "x", KeyFile: over.KeyFile, KnownHostsFile: over.KnownHostsFile},
	} {
		_, err := open(t, o).Refs(t.Context())
		if err == nil {
			t.Errorf("%s was accepted", name)
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %v", name, err)
	}
}

// A server that accepts and says nothing keeps nobody longer than the context.
func TestSilentServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s := gitserver.StartSSH(t, gitserver.Start(t, gitserver.Options{}))
	for _, o := range []Options{
		{URL: "http://" + listener.Addr().String() + "/r"},
		{URL: "ssh://" + listener.Addr().String() + "/r", KeyFile: s.KeyFile, KnownHostsFile: s.KnownHostsFile},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if _, err := open(t, o).Refs(ctx); err == nil {
			t.Errorf("%s answered", o.URL)
		}
		cancel()
	}
}

func TestServerIsDown(t *testing.T) {
	s := gitserver.Start(t, gitserver.Options{})
	repository := s.Create(t, "conf")
	repository.Push("main", map[string]string{"a": "1"})
	s.Down(true)
	r := open(t, Options{URL: repository.URL()})
	if refs, err := r.Refs(t.Context()); err == nil {
		t.Errorf("it has %v", refs)
	}
	s.Down(false)
	if _, err := r.Refs(t.Context()); err != nil {
		t.Error(err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, pack []byte) {
		_, _ = unpack(pack, Limits{Total: 1 << 20, Files: 100, File: 1 << 10}.orDefault())
	})
}

func FuzzEntries(f *testing.F) {
	f.Add([]byte("100644 a\x00" + strings.Repeat("x", 20)))
	f.Fuzz(func(t *testing.T, tree []byte) {
		size := 0
		_ = entries(tree, func(_ uint32, name string, _ plumbing.Hash) error {
			if name == "" || strings.Contains(name, "/") {
				t.Errorf("%q", name)
			}
			size += len(name) + 22
			return nil
		})
		if size > len(tree) {
			t.Errorf("%d bytes of %d", size, len(tree))
		}
	})
}

// Credentials do not follow to where a server sends one: another one, or one that anybody can listen to.
func TestCredentialsStayWithTheServer(t *testing.T) {
	s := gitserver.Start(t, gitserver.Options{TLS: true, User: "git", Password: "s3cret"})
	var calls atomic.Int32
	steal := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if r.Header.Get("Authorization") != "" {
			t.Error("another server was told the password")
		}
		http.Error(w, "who is there?", http.StatusUnauthorized)
	})
	plain, secured := httptest.NewServer(steal), httptest.NewTLSServer(steal)
	defer plain.Close()
	defer secured.Close()
	for _, thief := range []*httptest.Server{plain, secured} {
		guide := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL+r.URL.RequestURI(), http.StatusMovedPermanently)
		}))
		defer guide.Close()
		r := open(t, Options{URL: guide.URL + "/conf.git", CAFile: s.CAFile, PasswordFile: s.PasswordFile})
		if _, err := r.Refs(t.Context()); err == nil {
			t.Error("it has listed branches")
		}
	}
	if calls.Load() != 1 {
		t.Errorf("%d calls, want one, by TLS", calls.Load())
	}
}
