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
	p := Start(t, []string{"sh", "-c", "setsid sh -c 'sleep 1000 & echo up; wait' & wait"}, nil)
	for until := time.Now().Add(patience); !strings.Contains(p.Said(), "up"); {
		if time.Now().After(until) {
			t.Fatal("the process does not start")
		}
		<-time.After(time.Millisecond)
	}
	pids := p.Signal(syscall.SIGCONT)
	if len(pids) != 3 {
		t.Errorf("%d processes were found, want 3", len(pids))
	}
	p.Kill()
	for _, pid := range pids {
		if living(pid) {
			t.Errorf("process %d lives", pid)
		}
	}
	if !p.Ended() {
		t.Error("it was not waited for")
	}
}
