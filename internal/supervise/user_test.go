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
	uid, gid, script, want := "4242", "17", "id -u; id -g; id -G", "4242\n17\n17\n"
	if os.Geteuid() != 0 { // nobody but root can become another user, or leave groups
		uid, gid = fmt.Sprint(os.Geteuid()), fmt.Sprint(os.Getegid())
		script, want = "id -u; id -g", uid+"\n"+gid+"\n"
	}
	u, err := ResolveUser(uid, gid)
	if err != nil {
		t.Fatal(err)
	}
	out := newBuffer()
	job := sh("main", script)
	job.User, job.Main, job.Stdout, job.Dir = u, true, out, "/"
	<-run(t, job).Done()
	if got := out.String(); got != want {
		t.Errorf("id says %q", got)
	}
}
