package supervise

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Limits bounds a job's processes.
type Limits struct {
	Resources map[int]uint64 // by RLIMIT_…; unix.RLIM_INFINITY: none. Soft and hard are the same.
	Nice      int            // 0: the agent's
	OOM       int            // oom_score_adj; 0: the agent's
}

func (l Limits) set() bool { return len(l.Resources) > 0 || l.Nice != 0 || l.OOM != 0 }

// apply sets the limits of a process that was started traced, and lets it go. The
// kernel stops such a process at its exec, so the program never runs without them. It
// must be called from the thread that started it.
func (l Limits) apply(process *os.Process) error {
	pid := process.Pid
	err := waitStopped(pid)
	if err == nil {
		err = l.applyTo(pid)
	}
	if err == nil {
		err = unix.PtraceDetach(pid)
	}
	if err != nil {
		_ = process.Kill() // it has not run yet; its waiter, if any, collects it
		return fmt.Errorf("limit the job: %w", err)
	}
	return nil
}

// waitStopped waits for the stop at exec.
func waitStopped(pid int) error {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		runtime.KeepAlive(info)
		return err
	}
}

func (l Limits) applyTo(pid int) error {
	for resource, value := range l.Resources {
		limit := unix.Rlimit{Cur: value, Max: value}
		if err := unix.Prlimit(pid, resource, &limit, nil); err != nil {
			return fmt.Errorf("set limit %d to %d: %w", resource, value, err)
		}
	}
	if l.Nice != 0 {
		if err := unix.Setpriority(unix.PRIO_PROCESS, pid, l.Nice); err != nil {
			return fmt.Errorf("set nice to %d: %w", l.Nice, err)
		}
	}
	if l.OOM != 0 {
		if err := os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(l.OOM)), 0o644); err != nil {
			return fmt.Errorf("set oom_score_adj: %w", err)
		}
	}
	return nil
}
