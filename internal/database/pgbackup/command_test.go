package pgbackup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever happens to the program that restore_command calls, only its own word says that the log ends.
func TestRestoreCommandHidesCrashes(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "drover")
	for script, want := range map[string]int{
		"exit 0": 0, "exit 1": 1, "exit 2": 254, "exit 3": 254, "exit 125": 254, "exit 254": 254, "kill -9 $$": 254, "kill -11 $$": 254, "": -1,
	} {
		must(t, os.WriteFile(program, []byte("#!/bin/sh\ntest \"$*\" = 'wal fetch 00000002.history pg_wal/RECOVERYHISTORY' || exit 9\n"+script+"\n"), 0o700))
		if want == -1 {
			must(t, os.Remove(program))
			want = 254
		}
		cmd := exec.Command("/bin/sh", "-c", strings.NewReplacer("%f", "00000002.history", "%p", "pg_wal/RECOVERYHISTORY").Replace(RestoreCommand))
		cmd.Env = []string{"PATH=" + dir}
		err := cmd.Run()
		got := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: status %s, want %d", script, fmt.Sprint(got), want)
		}
	}
}
