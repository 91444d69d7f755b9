package postgresserver_test

import (
	"testing"

	"drover/internal/testkit/leak"
	"drover/internal/testkit/postgresserver"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestServer(t *testing.T) {
	s := postgresserver.Start(t)
	s.Exec("CREATE ROLE ann LOGIN PASSWORD 'right'; CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
	if got, err := s.Query(t.Context(), "ann", "right", "SELECT current_user"); err != nil || got != "ann" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := s.Query(t.Context(), "ann", "wrong", "SELECT 1"); err == nil {
		t.Error("a wrong password is let in")
	}
	s.Stop()
	if _, err := s.Query(t.Context(), "ann", "right", "SELECT 1"); err == nil {
		t.Error("it answers though it was stopped")
	}
	s.StartAgain()
	if got := s.Exec("SELECT n FROM kept"); got != "7" {
		t.Errorf("after a restart: %q", got)
	}
}
