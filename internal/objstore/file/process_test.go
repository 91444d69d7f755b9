package file

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"drover/internal/objstore"
)

// The test binary runs itself as many processes that write to one store. Each
// reads commands from its standard input and answers with one line each, so
// that all can be let go at one moment.
const racerEnv = "DROVER_TEST_FILE_RACER"

// racer is such a process: every line "KEY ETAG" (an ETag of "-" means absent)
// is one conditional put of its own name.
func racer() int {
	s, err := Open(os.Getenv(racerEnv), Options{})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		key, tag, _ := strings.Cut(in.Text(), " ")
		cond := objstore.IfMatch(objstore.ETag(tag))
		if tag == "-" {
			cond = objstore.IfAbsent()
		}
		tag2, err := s.PutIf(context.Background(), key, []byte(fmt.Sprintf("process %d", os.Getpid())), cond)
		switch {
		case err == nil:
			fmt.Println("won", tag2)
		case errors.Is(err, objstore.ErrConflict):
			fmt.Println("lost")
		default:
			fmt.Println("error", err)
		}
	}
	return 0
}

type racing struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startRacers(t *testing.T, dir string, n int) []racing {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	racers := make([]racing, n)
	for i := range racers {
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), racerEnv+"="+dir)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		racers[i] = racing{cmd, in, bufio.NewReader(out)}
	}
	t.Cleanup(func() {
		for _, r := range racers {
			_ = r.in.Close()
			if err := r.cmd.Wait(); err != nil && t.Context().Err() == nil {
				t.Errorf("racer: %v", err)
			}
		}
	})
	return racers
}

// round lets all racers go with one condition and returns the winner and its ETag.
func round(t *testing.T, racers []racing, key string, tag objstore.ETag) (pid int, won objstore.ETag) {
	t.Helper()
	answers := make([]string, len(racers))
	var group sync.WaitGroup
	for i, r := range racers {
		group.Go(func() {
			if _, err := fmt.Fprintf(r.in, "%s %s\n", key, tag); err != nil {
				answers[i] = err.Error()
				return
			}
			line, err := r.out.ReadString('\n')
			if err != nil {
				line = err.Error()
			}
			answers[i] = strings.TrimSpace(line)
		})
	}
	group.Wait()
	winners := 0
	for i, answer := range answers {
		word, rest, _ := strings.Cut(answer, " ")
		switch word {
		case "won":
			winners++
			pid, won = racers[i].cmd.Process.Pid, objstore.ETag(rest)
		case "lost":
		default:
			t.Errorf("racer %d: %s", i, answer)
		}
	}
	if winners != 1 {
		t.Fatalf("%d winners", winners)
	}
	return pid, won
}

func TestRaceOfProcesses(t *testing.T) {
	dir := t.TempDir()
	racers := startRacers(t, dir, 32)
	s := open(t, dir)
	tag := objstore.ETag("-")
	for range 8 {
		pid, won := round(t, racers, "vol/drover/head", tag)
		got, info, err := s.Get(t.Context(), "vol/drover/head", 0, -1)
		if err != nil || string(got) != fmt.Sprintf("process %d", pid) || info.ETag != won {
			t.Fatalf("process %d won with ETag %s; stored is %q with %s, %v", pid, won, got, info.ETag, err)
		}
		tag = won
	}
}

// TestKilledWriters kills processes in the midst of writing and wants every
// object whole, no lock left, and the store usable.
func TestKilledWriters(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	tag, err := s.PutIf(t.Context(), "vol/drover/head", []byte("process 0"), objstore.IfAbsent())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		ctx, cancel := context.WithCancel(t.Context())
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), racerEnv+"="+dir)
		// It wins or loses with stale conditions; what matters is dying in it.
		cmd.Stdin = strings.NewReader(strings.Repeat(fmt.Sprintf("vol/drover/head %s\nvol/other-%d -\n", tag, i), 2000))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + i {
			lines.Scan()
		}
		cancel()
		_ = cmd.Wait()
		data, info, err := s.Get(t.Context(), "vol/drover/head", 0, -1)
		if err != nil || !strings.HasPrefix(string(data), "process ") {
			t.Fatalf("after a kill: %q, %v", data, err)
		}
		if tag, err = s.PutIf(t.Context(), "vol/drover/head", []byte("process 0"), objstore.IfMatch(info.ETag)); err != nil {
			t.Fatalf("after a kill: %v", err)
		}
	}
}

const limitedEnv = "DROVER_TEST_FILE_LIMITED"

// limited is a process that may write files of 1 MiB, as on a disk that ends.
func limited() int {
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}); err != nil {
		fmt.Println(err)
		return 1
	}
	s, err := Open(os.Getenv(limitedEnv), Options{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	err = s.Put(context.Background(), "a", make([]byte, 2<<20))
	fmt.Println(err)
	if !errors.Is(err, unix.EFBIG) {
		return 1
	}
	return 0
}

// TestWriteThatFails wants the former version whole and no rest of the new one.
func TestWriteThatFails(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.Put(t.Context(), "a", []byte("before")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), limitedEnv+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, _, err := s.Get(t.Context(), "a", 0, -1); err != nil || string(got) != "before" {
		t.Errorf("got %q, %v", got, err)
	}
	if left := temps(t, dir); len(left) != 0 {
		t.Errorf("temporary files left: %v", left)
	}
}
