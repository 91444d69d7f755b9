package initproc_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"drover/internal/initproc"
)

// roleVar makes the test binary act as the agent: shim first, then the worker
// whose behaviour the variable names.
const roleVar = "INITPROC_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		if !initproc.IsWorker() {
			os.Exit(initproc.Shim{}.Run())
		}
		os.Exit(work(role))
	}
	goleak.VerifyTestMain(m)
}

// work is the worker. It writes what the test waits for to standard output.
func work(role string) int {
	w, err := initproc.Attach()
	if err != nil {
		fmt.Println(err)
		return 99
	}
	defer w.Close()
	name, argument, _ := strings.Cut(role, " ")
	switch name {
	case "exit":
		var code int
		fmt.Sscan(argument, &code)
		return code
	case "sh": // starts a shell script, waits for the line that it prints, goes on as "wait"
		job := exec.Command("/bin/sh", "-c", argument)
		job.Stdout = os.Stdout
		if err := job.Start(); err != nil {
			return 98
		}
	case "signals":
		return echoSignals(argument)
	case "panic":
		panic("a bug in the worker")
	case "die":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	if name == "wait" || name == "sh" {
		stdin := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(stdin) }()
		select {
		case <-w.ShimGone():
			fmt.Println("shim gone")
			return 0
		case <-stdin: // the test says: end in order
			return 0
		}
	}
	return 97
}

// echoSignals prints each signal that arrives, until the last of the list.
func echoSignals(last string) int {
	got := make(chan os.Signal, 64)
	signal.Notify(got)
	fmt.Println("ready")
	for {
		select {
		case sig := <-got:
			n := sig.(unix.Signal)
			if n == unix.SIGURG {
				continue
			}
			fmt.Println("got", int(n))
			if fmt.Sprint(int(n)) == last {
				return 0
			}
		case <-time.After(20 * time.Second):
			return 96
		}
	}
}
