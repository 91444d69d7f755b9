package storeurl_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover/internal/objstore/storeurl"
	"drover/internal/testkit/mantaserver"
)

func TestFile(t *testing.T) {
	base := t.TempDir()
	for raw, dir := range map[string]string{
		"file://" + base + "/a":           base + "/a",
		"file:" + base + "/a":             base + "/a",
		"file://localhost" + base + "/a/": base + "/a",
		"file://" + base + "/with%20gap":  base + "/with gap",
	} {
		s, err := storeurl.Open(t.Context(), raw, storeurl.Options{})
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if got := s.Describe(); got != "file://"+dir {
			t.Errorf("%s: opens %s", raw, got)
		}
		if err := s.Put(t.Context(), "vol/x", nil); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "vol/x")); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := storeurl.Open(t.Context(), "file://"+base+"/none", storeurl.Options{MustExist: true}); err == nil {
		t.Error("a missing directory was opened")
	}
}

func TestS3(t *testing.T) {
	t.Setenv("AWS_CA_BUNDLE", "")
	s, err := storeurl.Open(t.Context(), "s3://bucket/some/prefix?endpoint=http://127.0.0.1:9&region=x", storeurl.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.Describe(); got != "s3://bucket/some/prefix" {
		t.Errorf("opens %s", got)
	}
}

func TestManta(t *testing.T) {
	server := mantaserver.Start(t, mantaserver.Options{})
	server.Setenv()
	s, err := storeurl.Open(t.Context(), server.URL("some/prefix"), storeurl.Options{Concurrency: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.Describe(); got != "manta://"+server.Account+"/stor/some/prefix" {
		t.Errorf("opens %s", got)
	}
	if err := s.Put(t.Context(), "vol/x", nil); err != nil {
		t.Error(err)
	}
	if got := server.Paths(); !slices.Equal(got, []string{"some/", "some/prefix/", "some/prefix/vol/", "some/prefix/vol/x"}) {
		t.Errorf("stored are %q", got)
	}
	if repository, _, err := storeurl.Restic(server.URL("p"), "data"); err == nil || !strings.Contains(err.Error(), "copy") {
		t.Errorf("for restic: %q, %v", repository, err)
	}
}

func TestRefused(t *testing.T) {
	for raw, hint := range map[string]string{
		"":                           "file:///DIR",
		"/srv/store":                 "file:///srv/store",
		"srv/store":                  "no scheme",
		"file://srv/store":           "file:///srv/store",
		"file:srv/store":             "absolute",
		"file://":                    "absolute",
		"file:///":                   "no directory",
		"file:///srv?x=y":            "%3F",
		"file:///srv#x":              "%23",
		"file://u:topsecret@/srv":    "no user",
		"s3://":                      "s3://BUCKET",
		"s3://u:topsecret@b/p":       "AWS_SECRET_ACCESS_KEY",
		"s3:http://h:9000/b/p":       "restic's way",
		"https://h/b":                "endpoint=https://HOST",
		"manta://a/public/p":         "private storage",
		"manta://u:topsecret@a/stor": "MANTA_KEY_PATH",
		"gs://b/p":                   `unknown scheme "gs"`,
		"mem:":                       `unknown scheme "mem"`,
		"s3://b:topsecret%zz@h/p":    "not well-formed",
		"s3://b/p?secret=topsecret":  "unknown parameter",
		"://topsecret":               "not well-formed",
		"s3://b/p?endpoint=%3A%2F/x": "endpoint",
	} {
		err := storeurl.Check(raw)
		if err == nil || !strings.Contains(err.Error(), hint) || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%q: %v, want %q in it and no secret", raw, err, hint)
		}
		if _, openErr := storeurl.Open(t.Context(), raw, storeurl.Options{}); openErr == nil {
			t.Errorf("%q was opened", raw)
		}
	}
}

func TestRestic(t *testing.T) {
	for raw, want := range map[string]struct {
		repository string
		env        map[string]string
	}{
		"file:///srv/store": {"/srv/store/data", nil},
		"s3://b/p/q?endpoint=https://h:9000/&region=r&ca=/x.pem": {"s3:https://h:9000/b/p/q/data",
			map[string]string{"AWS_DEFAULT_REGION": "r", "RESTIC_CACERT": "/x.pem"}},
		"s3://b": {"s3:https://s3.amazonaws.com/b/data", nil},
	} {
		repository, env, err := storeurl.Restic(raw, "data")
		if err != nil || repository != want.repository || !maps.Equal(env, want.env) {
			t.Errorf("%s: %s %v, %v", raw, repository, env, err)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, raw := range []string{"file:///a", "manta://a/stor/p?endpoint=https://h&user=u", "s3://b/p?endpoint=http://h:1&region=x", "s3://u:p@h", "file:a?b#c", "%"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if err := storeurl.Check(raw); err == nil {
			_, _, err := storeurl.Restic(raw, "data")
			if manta := strings.HasPrefix(strings.ToLower(raw), "manta:"); manta != (err != nil) {
				t.Errorf("%q: is checked, and for restic: %v", raw, err)
			}
		}
	})
}
