package supervise

import (
	"fmt"
	"os"
	"testing"
)

func TestResolveUser(t *testing.T) {
	for _, c := range []struct {
		name, group string
		want        string
	}{
		{"", "", "own"}, {"root", "", "0:0"}, {"0", "", "0:0"}, {"4242", "17", "4242:17"},
		{"4242", "", "error"}, {"no-such-user", "", "error"}, {"root", "no-such-group", "error"}, {"root", "root", "0:0"},
	} {
		u, err := ResolveUser(c.name, c.group)
		got := "error"
		if err == nil && u == nil {
			got = "own"
		} else if err == nil {
			got = fmt.Sprintf("%d:%d", u.UID, u.GID)
		}
		if got != c.want {
			t.Errorf("%q %q: %s (%v), want %s", c.name, c.group, got, err, c.want)
		}
	}
}

func TestJobRunsAsItsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	u, err := ResolveUser("4242", "17")
	if err != nil {
		t.Fatal(err)
	}
	out := newBuffer()
	job := sh("main", "id -u; id -g; id -G")
	job.User, job.Main, job.Stdout, job.Dir = u, true, out, "/"
	<-run(t, job).Done()
	if got := out.String(); got != "4242\n17\n17\n" {
		t.Errorf("id says %q", got)
	}
}
