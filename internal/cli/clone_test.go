package cli

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCloneTarget: the new volume's place and password are its own, the rest is this one's.
func TestCloneTarget(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	config := "store: {url: 'file:///bucket', password_file: /ours}\nvolume: wiki\nlimits: {connections: 3}\n"
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"--to-volume b --to-password-file /p":                       "file:///bucket b /p",
		"--to-store file:///other --to-password-file /p":            "file:///other wiki /p",
		"--to-store file:///other --to-volume b":                    "file:///other b ",
		"--to-volume b --volume c --store file:///x":                "file:///x b ",
		"--to-volume b --password-command false":                    "file:///bucket b ",
		"--to-volume b --to-password-file /p --password-file /ours": "file:///bucket b /p",
	} {
		env := map[string]string{}
		if !strings.Contains(args, "--to-password-file") {
			env["DROVER_TO_PASSWORD"] = "theirs"
		}
		ops := &fakeOps{}
		got := try(t, ops, env, append([]string{"clone", "-c", file}, strings.Fields(args)...)...)
		if got.code != 0 || got.err != "" {
			t.Errorf("%s: %+v", args, got)
			continue
		}
		to := ops.clone.To
		if said := to.Store.URL + " " + to.Volume + " " + to.Store.PasswordFile; said != want || to.Limits.Connections != 3 || len(to.Store.PasswordCommand) != 0 {
			t.Errorf("%s: to %s, want %s", args, said, want)
		}
		if password := to.Store.Password.Reveal(); password != env["DROVER_TO_PASSWORD"] {
			t.Errorf("%s: the password is %q", args, password)
		}
	}
}

func TestCloneRefuses(t *testing.T) {
	with := maps.Clone(storeEnv)
	with["DROVER_TO_PASSWORD"] = "theirs"
	for args, want := range map[string]string{
		"clone": "nothing says where the clone goes; give --to-store URL, --to-volume NAME, or both",
		"clone --to-volume b --to-password-file /p": "the new volume's password is given in more than one way",
		"clone --to-volume data":                    "the clone would be the volume itself",
		"clone --to-volume drover":                  `--to-volume: volume name "drover" is reserved`,
		"clone --to-store /bucket":                  "--to-store: store is not a URL",
		"clone --to-store s3://user:theirs@host/b":  "--to-store: the store's URL holds credentials",
	} {
		got := try(t, &fakeOps{}, with, strings.Fields(args)...)
		if got.code != exitUsage || strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, want) || strings.Contains(got.err, "theirs") {
			t.Errorf("%s: %+v, want %s", args, got, want)
		}
	}
	if got := try(t, &fakeOps{}, storeEnv, "clone", "--to-volume", "b"); got.code != exitUsage || !strings.Contains(got.err, "set DROVER_TO_PASSWORD or --to-password-file") {
		t.Errorf("without a password: %+v", got)
	}
}
