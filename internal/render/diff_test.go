package render

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	for _, c := range []struct{ old, output, want string }{
		{"a\nb\nc\n", "a\nb\nc\n", ""},
		{"1\n2\n3\n4\nx\n5\n6\n7\n8\n", "1\n2\n3\n4\ny\n5\n6\n7\n8\n", "--- /f\n+++ /f\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-x\n+y\n 5\n 6\n 7\n"},
		{"a", "a\n", "--- /f\n+++ /f\n@@ -1,1 +1,1 @@\n-a\n\\ No newline at end of file\n+a\n"},
		{"a\n", "", "--- /f\n+++ /f\n@@ -1,1 +0,0 @@\n-a\n"},
	} {
		if got := (Result{Destination: "/f", Old: []byte(c.old), Output: []byte(c.output)}).Diff(); got != c.want {
			t.Errorf("%q to %q: got\n%s", c.old, c.output, got)
		}
	}
	if got, want := (Result{Destination: "/f", Output: []byte("a\n")}).Diff(), "--- /dev/null\n+++ /f\n@@ -0,0 +1,1 @@\n+a\n"; got != want {
		t.Errorf("a new file: got\n%s", got)
	}
}

// The real patch makes one file of the other with it.
func TestDiffIsAPatch(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	text := func() string {
		var b strings.Builder
		for range r.IntN(12) {
			b.WriteString(string(rune('a'+r.IntN(3))) + "\n")
		}
		if r.IntN(3) == 0 {
			b.WriteString("end")
		}
		return b.String()
	}
	for range 100 {
		path := filepath.Join(t.TempDir(), "f")
		res := Result{Destination: path, Old: []byte(text()), Output: []byte(text())}
		if err := os.WriteFile(path, res.Old, 0o600); err != nil {
			t.Fatal(err)
		}
		if !res.Changes() {
			continue
		}
		cmd := exec.CommandContext(t.Context(), "git", "apply", "--unidiff-zero", "-p0", "--unsafe-paths", "-")
		cmd.Dir = filepath.Dir(path)
		cmd.Stdin = strings.NewReader(strings.ReplaceAll(res.Diff(), path, "f"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s\n%s", err, out, res.Diff())
		}
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			b, err = nil, nil // git takes a file that becomes empty away
		}
		if err != nil || string(b) != string(res.Output) {
			t.Fatalf("%q, want %q; %v\n%s", b, res.Output, err, res.Diff())
		}
	}
}
