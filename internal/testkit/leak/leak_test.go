package leak_test

import (
	"os/exec"
	"strings"
	"testing"

	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestChildrenAreSeenUntilTheyAreWaitedFor(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	seen, err := leak.Children()
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != 1 || !strings.HasSuffix(seen[0], "sleep 60") {
		t.Errorf("one child runs, seen %q", seen)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil {
		t.Error("a killed child ended well")
	}
	if seen, err := leak.Children(); err != nil || len(seen) != 0 {
		t.Errorf("no child is left, seen %q, %v", seen, err)
	}
}
