package supervise

import (
	"os"
	"strings"
	"testing"
	"time"
)

// A job finds its files in memory at their descriptors, whole and from their start at each run, and
// nobody can write them.
func TestFilesInMemory(t *testing.T) {
	large := strings.Repeat("0123456789", 30_000) // more than a pipe holds
	out := newBuffer()
	runs := 0
	job := sh("app", "echo has $(cat <&3) $(wc -c <&9); echo x 2>/dev/null >/proc/self/fd/3 || echo sealed; stat -Lc 'mode %a' /proc/self/fd/9; test -e /proc/self/fd/5 || echo no more")
	job.Stdout, job.Restart = out, Restart{Policy: Always, Delay: time.Millisecond}
	job.Files = func() map[int]string {
		runs++
		if runs == 1 {
			return map[int]string{3: "first", 9: large}
		}
		return map[int]string{3: "second", 9: ""}
	}
	job.Env = os.Environ()
	runWith(t, Config{Jobs: []Job{job}})
	out.waitFor(t, "has first 300000\nsealed\nmode 400\nno more\nhas second 0\nsealed\n")
}
