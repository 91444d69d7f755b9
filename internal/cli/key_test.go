package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const testKey = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// TestKey: a new password comes by a file, a command or a variable, and is shown nowhere.
func TestKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new")
	if err := os.WriteFile(file, []byte("fresh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, env, says string }{
		{"key passwd --new-password-file " + file, "", "key 01234567: the new password's"},
		{"key add --new-password-command 'echo_fresh'", "", "key 01234567: added"},
		{"key add --json", "fresh", `"id": "` + testKey},
	} {
		with := map[string]string{"DROVER_NEW_PASSWORD": c.env}
		for k, v := range storeEnv {
			with[k] = v
		}
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.ReplaceAll(strings.Trim(args[i], "'"), "_", " ")
		}
		ops := &fakeOps{}
		got := try(t, ops, with, args...)
		if got.code != 0 || !strings.Contains(got.out, c.says) || ops.password != "fresh" || strings.Contains(got.out+got.err, "fresh") {
			t.Errorf("%s: %+v, password %q", c.args, got, ops.password)
		}
	}
	ops := &fakeOps{}
	if got := try(t, ops, storeEnv, "key", "remove", "0123"); got.code != 0 || ops.removed != "0123" {
		t.Errorf("%+v", got)
	}
	if got := try(t, ops, storeEnv, "key", "list"); got.code != 0 || !strings.Contains(got.out, "*  01234567  u") || strings.Contains(got.out, "\x1b") {
		t.Errorf("%+v", got)
	}
}

func TestKeyRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"key":               "give list, add, remove ID or passwd",
		"key rotate":        `unknown word "rotate"`,
		"key remove":        "takes the id of one key",
		"key passwd secret": "a password is never one",
		"key passwd":        "the new password has to be given in exactly one way",
		"key add --new-password-file a --new-password-command b": "in exactly one way",
		"key add --new-password-file /none":                      "cannot read password file /none",
		"key list --new-password-file a":                         "takes no new password",
	} {
		got := try(t, &fakeOps{}, storeEnv, strings.Fields(args)...)
		if got.code != exitUsage || strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, want) {
			t.Errorf("%s: %+v, want %s", args, got, want)
		}
	}
}
