package databasetest

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestNothingOfAProcessIsLeft(t *testing.T) {
	p := start(t, []string{"sh", "-c", "setsid sh -c 'sleep 1000 & echo up; wait' & wait"}, nil)
	for until := time.Now().Add(patience); !strings.Contains(p.said(), "up"); {
		if time.Now().After(until) {
			t.Fatal("the process does not start")
		}
		<-time.After(time.Millisecond)
	}
	pids := p.signal(syscall.SIGCONT)
	if len(pids) != 3 {
		t.Errorf("%d processes were found, want 3", len(pids))
	}
	p.kill()
	for _, pid := range pids {
		if living(pid) {
			t.Errorf("process %d lives", pid)
		}
	}
	if !p.ended() {
		t.Error("it was not waited for")
	}
}
