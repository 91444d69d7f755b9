package cli

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"drover/client"
)

// TestWALExits: what PostgreSQL is told of each outcome. A status of 1 to 125 of fetch ends the
// recovery as if the log ended there; one above 125 of push ends the archiver.
func TestWALExits(t *testing.T) {
	kind := func(k string) error { return &client.Error{Kind: k, Message: "no"} }
	for _, c := range []struct {
		what        string
		err         error
		push, fetch int
	}{
		{"done", nil, 0, 0},
		{"not there", kind(client.KindAbsent), 1, 1},
		{"another content", kind(client.KindConflict), 3, 254},
		{"another member stores it", kind(client.KindHeld), 254, 254},
		{"a path elsewhere", kind(client.KindInvalid), 2, 254},
		{"the store is away", errors.New("store unavailable"), 1, 254},
		{"not found by an older agent", kind(client.KindUnknown), 1, 254},
		{"not allowed", kind(client.KindForbidden), 1, 254},
		{"busy", kind(client.KindBusy), 1, 254},
	} {
		talk := &talk{err: c.err}
		env := serve(t, agent{talk: talk})
		if got := try(t, nil, env, "wal", "push", "pg_wal/1"); got.code != c.push || (got.code == 0) != (got.err == "") {
			t.Errorf("push, %s: %+v, want %d", c.what, got, c.push)
		}
		if got := try(t, nil, env, "wal", "fetch", "1", "pg_wal/RECOVERYXLOG"); got.code != c.fetch || (got.code == 0) != (got.err == "") {
			t.Errorf("fetch, %s: %+v, want %d", c.what, got, c.fetch)
		}
		dir, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(dir, "pg_wal")
		if want := []string{"push " + at + "/1", "fetch 1 " + at + "/RECOVERYXLOG"}; len(talk.made) != 2 || talk.made[0] != want[0] || talk.made[1] != want[1] {
			t.Errorf("asked for %q, want %q", talk.made, want)
		}
	}
	hung := serve(t, agent{talk: &talk{}, wait: true})
	none := map[string]string{"DROVER_SOCKET": filepath.Join(t.TempDir(), "none")}
	for _, c := range []struct {
		env  map[string]string
		args []string
		want int
	}{
		{hung, []string{"wal", "push", "--timeout", "50ms", "x"}, 1},
		{hung, []string{"wal", "fetch", "--timeout", "50ms", "1", "x"}, 254},
		{none, []string{"wal", "push", "x"}, 1},
		{none, []string{"wal", "fetch", "1", "x"}, 254},
		{none, []string{"wal", "push"}, 2},
		{none, []string{"wal", "push", "x", "y"}, 2},
		{none, []string{"wal", "push", "--no", "x"}, 2},
		{none, []string{"wal", "fetch", "1"}, 254},
		{none, []string{"wal", "fetch", "1", "2", "3"}, 254},
		{none, []string{"wal", "fetch", "--timeout", "soon", "1", "x"}, 254},
		{none, []string{"wal", "fetch", "--no", "1", "x"}, 254},
		{none, []string{"wal", "fetched", "1", "x"}, 254},
		{none, []string{"wal"}, 254},
	} {
		if got := try(t, nil, c.env, c.args...); got.code != c.want || got.err == "" {
			t.Errorf("%q: %+v, want %d", c.args, got, c.want)
		}
	}
}
