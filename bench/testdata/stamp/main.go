// Command stamp appends a line to the file that STAMP names: the monotonic clock when
// it began, in nanoseconds, and its PID. Then it waits to be killed.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	file, err := os.OpenFile(os.Getenv("STAMP"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	if _, err := fmt.Fprintln(file, now.Nano(), os.Getpid()); err != nil {
		panic(err)
	}
	for {
		_ = unix.Pause()
	}
}
