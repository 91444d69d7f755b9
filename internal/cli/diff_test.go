package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"drover/internal/app"
)

func TestDiff(t *testing.T) {
	ops := &fakeOps{changes: []app.Change{
		{Path: "/a\nb", Kind: "added", Type: "file"}, {Path: "/d", Kind: "removed", Type: "dir"},
		{Path: "/<m>", Kind: "changed", Type: "file", What: []string{"content", "mtime"}},
	}}
	moment := func(s int64) string { return time.Unix(s, 0).Format(momentLayout) }
	want := "+ /a\\nb\n- /d/\nM /<m> (content, mtime)\n1 added, 0 removed, 2 changed from 11111111 of " + moment(1e9) + " to 33333333 of " + moment(1e9+60) + "\n"
	if got := try(t, ops, storeEnv, "diff"); got != (result{0, want, ""}) {
		t.Errorf("got %+v\nwant %s", got, want)
	}
	got := try(t, ops, storeEnv, "diff", "--json")
	var object struct {
		Changes []app.Change
		app.DiffResult
	}
	if err := json.Unmarshal([]byte(got.out), &object); err != nil || len(object.Changes) != 3 || object.Changes[2].What[1] != "mtime" ||
		object.From.ID != "1111111122222222" || object.To.ID != "3333333344444444" || object.Added != 1 || object.Changed != 2 {
		t.Errorf("%v: %+v\n%s", err, object, got.out)
	}
	for args, ends := range map[string][2]string{
		"diff": {}, "diff a": {"a", ""}, "diff a b": {"a", "b"}, "diff --at 1h": {"1111111122222222", ""}, "diff --at 1h b": {"1111111122222222", "b"},
	} {
		if try(t, ops, storeEnv, strings.Fields(args)...); ops.ends != ends {
			t.Errorf("%s compares %q, want %q", args, ops.ends, ends)
		}
	}
}
