package storeurl_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/storeurl"
	"drover/internal/testkit/gotool"
	"drover/internal/testkit/s3server"
)

// restic runs stock restic on the volume "data" of the store at url.
type restic struct {
	t   *testing.T
	url string
	env []string
}

func (r restic) run(args ...string) string {
	r.t.Helper()
	repository, more, err := storeurl.Restic(r.url, "data")
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.CommandContext(r.t.Context(), gotool.Path(r.t, "restic"), append([]string{"--no-cache", "-r", repository}, args...)...)
	cmd.Env = append(r.env, "RESTIC_PASSWORD=test")
	for name, value := range more {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("restic %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestResticOpensWhatWeStore copies a repository that restic made, object by
// object, into each kind of store, and has restic check every byte of it and
// write to it beside our objects.
func TestResticOpensWhatWeStore(t *testing.T) {
	server := s3server.Start(t, s3server.Options{TLS: true})
	server.Setenv()
	made := "file://" + filepath.Join(t.TempDir(), "made")
	files := t.TempDir()
	if err := os.WriteFile(filepath.Join(files, "a"), make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	first := restic{t, made, os.Environ()}
	first.run("init")
	first.run("backup", files)
	for _, url := range []string{"file://" + filepath.Join(t.TempDir(), "copy"), server.URL("some/prefix")} {
		r := restic{t, url, os.Environ()}
		to := copyStore(t, made, url)
		if _, err := to.PutIf(t.Context(), "data/drover/head", []byte("sealed"), objstore.IfAbsent()); err != nil {
			t.Fatal(err)
		}
		r.run("check", "--read-data")
		r.run("backup", "--force", files)
		r.run("forget", "--keep-last", "1", "--group-by", "", "--prune")
		if data, _, err := to.Get(t.Context(), "data/drover/head", 0, -1); err != nil || string(data) != "sealed" {
			t.Errorf("%s: after restic's work the head is %q, %v", url, data, err)
		}
		snapshots := 0
		if err := to.List(t.Context(), "data/snapshots/", func(objstore.Info) error { snapshots++; return nil }); err != nil || snapshots != 1 {
			t.Errorf("%s: %d snapshots, %v", url, snapshots, err)
		}
	}
}

func copyStore(t *testing.T, from, to string) storeurl.Store {
	t.Helper()
	var stores [2]storeurl.Store
	for i, url := range []string{from, to} {
		s, err := storeurl.Open(t.Context(), url, storeurl.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		stores[i] = s
	}
	copied := 0
	err := stores[0].List(t.Context(), "data/", func(i objstore.Info) error {
		data, _, err := stores[0].Get(t.Context(), i.Key, 0, -1)
		if err != nil {
			return err
		}
		copied++
		return stores[1].Put(t.Context(), i.Key, data)
	})
	if err != nil || copied < 5 { // config, key, snapshot, index, pack
		t.Fatalf("copied %d objects, %v", copied, err)
	}
	return stores[1]
}
