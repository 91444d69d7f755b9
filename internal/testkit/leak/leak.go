// Package leak is the TestMain of test packages that start goroutines or
// processes: the tests fail if one of either is left when they have ended.
//
// It promises to name what was left. It leaves to each package which goroutines
// of its dependencies are known to stay.
package leak

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// Main runs the tests of m and does not return. The options are goleak's, for
// what is known to stay.
func Main(m *testing.M, known ...goleak.Option) {
	cleanup := goleak.Cleanup(func(code int) {
		children, err := Children()
		if err != nil {
			fmt.Fprintln(os.Stderr, "leak: look for child processes:", err)
			code = 1
		}
		for _, c := range children {
			fmt.Fprintln(os.Stderr, "leak: a child process was left:", c)
			code = 1
		}
		os.Exit(code)
	})
	goleak.VerifyTestMain(m, append(known, cleanup)...)
}

// Children returns "pid: command line" of each child of this process, zombies
// included.
func Children() ([]string, error) {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, list := range lists {
		pids, err := os.ReadFile(list)
		if os.IsNotExist(err) {
			continue // the thread has ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		for pid := range strings.FieldsSeq(string(pids)) {
			command, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if err != nil || len(command) == 0 {
				command = []byte("(ended, not waited for)")
			}
			found = append(found, pid+": "+strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " ")))
		}
	}
	return found, nil
}
