package s3server

import (
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOutages(t *testing.T) {
	s := Start(t, Options{})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	ask := func() error {
		resp, err := client.Get(s.Endpoint + "/health")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	client.Timeout = 100 * time.Millisecond
	if err := ask(); err == nil {
		t.Error("a paused server answers")
	}
	client.Timeout = 10 * time.Second
	s.Resume()
	if err := ask(); err != nil {
		t.Errorf("after a pause: %v", err)
	}
	s.Stop()
	if c, err := net.Dial("tcp", strings.TrimPrefix(s.Endpoint, "http://")); err == nil {
		_ = c.Close()
		t.Error("a stopped server takes connections")
	}
	s.StartAgain()
	if err := ask(); err != nil {
		t.Errorf("after a stop: %v", err)
	}
	s.Pause() // the clean-up has to end a paused one, too
}

func TestEnvHidesTheMachines(t *testing.T) {
	t.Setenv("AWS_PROFILE", "somebody")
	s := &Server{t: t, AccessKey: "a", SecretKey: "b"}
	for _, v := range s.Env() {
		if strings.HasPrefix(v, "AWS_PROFILE=") {
			t.Errorf("Env has %s", v)
		}
	}
	s.Setenv()
	if v, found := os.LookupEnv("AWS_PROFILE"); found || os.Getenv("AWS_ACCESS_KEY_ID") != "a" {
		t.Errorf("AWS_PROFILE is %q", v)
	}
}
