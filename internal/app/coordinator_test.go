package app

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/internal/config"
	"drover/internal/coord"
	"drover/internal/coord/etcd"
	"drover/internal/repo/fstest"
	"drover/internal/testkit/etcdserver"
)

// A store may be the coordinator and nothing else: no password, no state, no volume.
func TestStoreThatIsOnlyTheCoordinator(t *testing.T) {
	dir := t.TempDir()
	fstest.Must(t, os.Mkdir(dir+"/bucket", 0o755))
	s := runs(t, "store: {url: \"file://"+dir+"/bucket\"}\ncoordinator: {url: store, every: 1s}\nwatches: {level: {key: shop/level}}\njobs: {app: {command: sleep infinity}}\n")
	s.event("ready", "app")
	if st := s.Status(); st.Role != "supervisor" || st.Volume != "" || st.Health != "ok" {
		t.Errorf("%+v", st)
	}
	co, err := openCoordinator(t.Context(), s.cfg, slog.New(slog.DiscardHandler))
	fstest.Must(t, err)
	defer co.close()
	_, err = co.kv.Put(t.Context(), "shop/level", []byte("1"))
	fstest.Must(t, err)
	s.event("changed", "level")
	if _, err := os.Stat(dir + "/bucket/data"); !os.IsNotExist(err) {
		t.Errorf("a volume was made: %v", err)
	}
}

// With a secret, what the coordinator keeps in the store cannot be read there.
func TestSealedCoordinatorInTheStore(t *testing.T) {
	dir := t.TempDir()
	fstest.Write(t, dir+"/seal", strings.Repeat("s", 16)+"\n")
	fstest.Write(t, dir+"/c.yaml", "store: {url: \"file://"+dir+"/bucket\", password: x}\ncoordinator: {url: store, seal_file: "+dir+"/seal}\n")
	cfg, err := LoadConfig(config.Sources{File: dir + "/c.yaml"})
	fstest.Must(t, err)
	co, err := openCoordinator(t.Context(), cfg, slog.New(slog.DiscardHandler))
	fstest.Must(t, err)
	defer co.close()
	_, err = co.kv.Put(t.Context(), "shop/canary", []byte("tweet"))
	fstest.Must(t, err)
	if pair, err := co.kv.Get(t.Context(), "shop/canary"); err != nil || string(pair.Value) != "tweet" {
		t.Errorf("%v, %v", pair, err)
	}
	files := 0
	fstest.Must(t, filepath.WalkDir(dir+"/bucket", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("canary")) || bytes.Contains(data, []byte("tweet")) {
			t.Errorf("%s is plain", path)
		}
		return err
	}))
	if files == 0 {
		t.Error("nothing was stored")
	}
	fstest.Write(t, dir+"/seal", "short")
	if _, err := openCoordinator(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "shorter than 16") {
		t.Errorf("%v", err)
	}
}

// With a path in its URL everything of etcd is below that, so that a user needs the rights
// to nothing else.
func TestEtcdBelowAPrefix(t *testing.T) {
	server := etcdserver.Start(t, etcdserver.Options{Auth: true})
	server.AddUser("shop", "secret", "team/")
	dir := t.TempDir()
	fstest.Write(t, dir+"/password", "secret\n")
	fstest.Write(t, dir+"/c.yaml", "service: shop\ncoordinator: {url: \"etcd://"+strings.TrimPrefix(server.Endpoints[0], "http://")+"/team\", user: shop, password_file: "+dir+"/password}\n")
	cfg, err := LoadConfig(config.Sources{File: dir + "/c.yaml"})
	fstest.Must(t, err)
	co, err := openCoordinator(t.Context(), cfg, slog.New(slog.DiscardHandler))
	fstest.Must(t, err)
	defer co.close()
	_, err = co.kv.Put(t.Context(), "level", []byte("1"))
	fstest.Must(t, err)
	fstest.Must(t, co.registry.Register(t.Context(), coord.Registration{ID: "web-1", Name: "web", Address: "192.0.2.1", Port: 80, TTL: time.Minute, Initial: coord.Passing}))
	lease, err := co.leases.Acquire(t.Context(), "leader", coord.LeaseOptions{Holder: "a", TTL: 10 * time.Second})
	fstest.Must(t, err)
	fstest.Must(t, lease.Release(t.Context()))
	all, err := etcd.Open(etcd.Options{Endpoints: server.Endpoints, User: "root", Password: server.Password})
	fstest.Must(t, err)
	defer func() { _ = all.Close() }()
	if pair, err := all.Get(t.Context(), "team/level"); err != nil || string(pair.Value) != "1" {
		t.Errorf("%v, %v", pair, err)
	}
}
