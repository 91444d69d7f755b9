package cli

import (
	"strings"
	"testing"
)

func TestCopy(t *testing.T) {
	ops := &fakeOps{}
	with := map[string]string{"DROVER_TO_PASSWORD": "theirs"}
	for k, v := range storeEnv {
		with[k] = v
	}
	got := try(t, ops, with, "copy", "--to-store", "file:///other", "abc", "def")
	if got.code != 0 || !strings.Contains(got.out, "copied 2 snapshots to volume data of file:///other, which is at seq 7 now") {
		t.Errorf("%+v", got)
	}
	if to := ops.copied; strings.Join(to.Snapshots, " ") != "abc def" || to.To.Store.Password.Reveal() != "theirs" {
		t.Errorf("%+v", to)
	}
	if got := try(t, ops, with, "copy", "--to-volume", "data"); got.code != exitUsage || !strings.Contains(got.err, "the copy would be the volume itself") {
		t.Errorf("%+v", got)
	}
}
