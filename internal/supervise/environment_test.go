package supervise

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestJobEnv(t *testing.T) {
	got := JobEnv(
		[]string{"A=1", "DROVER_PASSWORD=x", "DROVER_PASSWORD_FILE=y", "DROVER_PASSWORD_COMMAND=z", "B=2=3", "AWS_SECRET_ACCESS_KEY=k", "DROVER_STORE=s"},
		[]string{"A=one", "DROVER_SOCKET=/s", "DROVER_PASSWORD=again"})
	want := []string{"B=2=3", "AWS_SECRET_ACCESS_KEY=k", "DROVER_STORE=s", "A=one", "DROVER_SOCKET=/s"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestJobSeesNoPassword(t *testing.T) {
	out := newBuffer()
	job := sh("main", "env")
	job.Env = append(os.Environ(), "DROVER_PASSWORD=hunter2", "DROVER_JOB=forged")
	job.Main, job.Stdout = true, out
	<-run(t, job).Done()
	if got := out.String(); strings.Contains(got, "hunter2") || strings.Contains(got, "forged") || !strings.Contains(got, "DROVER_JOB=main\n") {
		t.Errorf("environment %q", got)
	}
}
