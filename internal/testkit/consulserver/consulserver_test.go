package consulserver

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestOutages(t *testing.T) {
	s := Start(t, Options{})
	s.Ask(http.MethodPut, "/v1/kv/a", "kept")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(limit time.Duration) error {
		client.Timeout = limit
		resp, err := client.Get(s.Address + "/v1/kv/a?raw")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	s.Pause()
	if err := ask(100 * time.Millisecond); err == nil {
		t.Error("a paused server answers")
	}
	s.Resume()
	if err := ask(30 * time.Second); err != nil {
		t.Errorf("after a pause: %v", err)
	}
	s.Stop()
	if err := ask(10 * time.Second); err == nil {
		t.Error("a stopped server answers")
	}
	s.StartAgain()
	if got := s.Ask(http.MethodGet, "/v1/kv/a?raw", ""); string(got) != "kept" {
		t.Errorf("after a stop: %q", got)
	}
	s.Pause() // the clean-up has to end a paused one, too
}

func TestTokensAndTLS(t *testing.T) {
	s := Start(t, Options{ACL: true, TLS: true, Clients: true, Unix: true})
	admin := s.Token
	s.Token = s.NewToken("reader", `key_prefix "open/" { policy = "read" }`)
	status, body, err := s.ask(t.Context(), http.MethodPut, "/v1/kv/open/a", "x")
	if err != nil || status != http.StatusForbidden {
		t.Errorf("a reader writes: %d %s: %v", status, body, err)
	}
	s.Token = admin
	s.Ask(http.MethodPut, "/v1/kv/open/a", "x")
	bare := http.Client{Transport: &http.Transport{TLSClientConfig: s.transport.TLSClientConfig.Clone()}}
	bare.Transport.(*http.Transport).TLSClientConfig.Certificates = nil
	defer bare.CloseIdleConnections()
	if resp, err := bare.Get(s.Address + "/v1/status/leader"); err == nil {
		_ = resp.Body.Close()
		t.Error("a client without a certificate is let in")
	}
}

func TestVariableNamesAnotherProgram(t *testing.T) {
	own := filepath.Join(t.TempDir(), "consul")
	if err := os.WriteFile(own, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DROVER_CONSUL", own)
	if got := Program(t); got != own {
		t.Fatalf("got %s", got)
	}
}

func TestFetchSaysWhatApt(t *testing.T) {
	dir := t.TempDir()
	err := fetchFrom(t.Context(), dir, "file://"+dir+"/nowhere/")
	if err == nil || !strings.Contains(err.Error(), "apt-get") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "root")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("something was laid out: %v", err)
	}
}

func TestMirrors(t *testing.T) {
	got := mirrors("'http://a.example/debian/dists/x/InRelease' a_InRelease 0 \n'http://a.example/debian/dists/y/InRelease' b 0 \n'http://b.example/dists/z/InRelease' c 0\n")
	if strings.Join(got, " ") != "http://a.example/debian/ http://b.example/" {
		t.Errorf("%q", got)
	}
}
