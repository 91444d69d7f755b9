package instance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"drover/internal/doctor"
)

// TestInstance plays testdata: the files of an instance, and what is found. `-rewrite`
// writes down what is found now; read the diff.
//
//	look [state=/a] [environ=(A=B,…)]     the environment is our own, not the agent's
//	== NAME [-> TARGET]                  begins a file; \0 stands for a zero byte
func TestInstance(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			root := t.TempDir()
			lay(t, root, d.Input)
			var env []string
			known := doctor.Facts{Instance: "i1"}
			for _, arg := range d.CmdArgs {
				switch arg.Key {
				case "state":
					known.State = append(known.State, arg.Vals...)
				case "environ":
					env = append(env, arg.Vals...)
				}
			}
			s, err := Look(root, env)
			if err != nil {
				return "error: " + strings.ReplaceAll(err.Error(), root, "") + "\n"
			}
			flags, config := s.Settings()
			known.State = append(known.State, flags["state"]...)
			f := s.Facts(known)
			var b strings.Builder
			fmt.Fprintf(&b, "container %v, agent %d, flags %v, config %q, state %v\n", f.Container, s.pid, flags, config, f.State)
			for _, one := range doctor.Judge(f) {
				fmt.Fprintf(&b, "%-4s %s %s: %s\n", one.Severity, one.ID, one.Where, one.What)
			}
			return b.String()
		})
	})
}

// lay writes the files of a script.
func lay(t *testing.T, root, script string) {
	t.Helper()
	name := ""
	texts := map[string]string{}
	for line := range strings.Lines(script + "\n") {
		if next, ok := strings.CutPrefix(line, "== "); ok {
			name = strings.TrimSpace(next)
			texts[name] = ""
			continue
		}
		texts[name] += line
	}
	for name, text := range texts {
		file, target, link := strings.Cut(name, " -> ")
		full := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if link {
			if err := os.Symlink(target, full); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if strings.Contains(text, `\0`) {
			text = strings.ReplaceAll(strings.ReplaceAll(text, "\n", ""), `\0`, "\x00")
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHere looks at the machine or container of the test itself: nothing fails, and the
// environment's values stay inside.
func TestHere(t *testing.T) {
	const value = "xyzzy0815"
	s, err := Look("/", []string{"A_PASSWORD=" + value})
	if err != nil {
		t.Fatal(err)
	}
	f := s.Facts(doctor.Facts{Instance: "here", State: []string{t.TempDir()}})
	for _, v := range []any{f, doctor.Judge(f)} {
		text, err := json.Marshal(v)
		if err != nil || strings.Contains(string(text), value) {
			t.Errorf("%v: the secret is in %s", err, text)
		}
	}
}

// FuzzMounts: whatever the kernel might say, each place has one mount, and none is
// classified without a kind.
func FuzzMounts(f *testing.F) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add("1 2 0:3 / / rw shared:1 master:2 - overlay overlay rw\n4 1 8:1 /a\\040b /c\\134d ro,x - ext4 /dev/sda ro\n4 1 8:1 /x /c\\134d rw - ext4 a b\n")
	f.Add("1 2 3 / /x rw - a\n1 2 3 / /x rw")
	f.Fuzz(func(t *testing.T, text string) {
		seen := map[string]bool{}
		for _, m := range parseMounts(text) {
			if seen[m.point] {
				t.Fatalf("%q is there twice", m.point)
			}
			seen[m.point] = true
			if known, ok := m.classify(); ok && (known.Kind == 0 || known.Target != m.point || known.Where == "") {
				t.Fatalf("%+v is %+v", m, known)
			}
		}
	})
}
