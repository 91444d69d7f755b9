package supervise

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"drover/internal/proctree"
)

// The record names the jobs that run, one fact a line:
//
//	drover-jobs 1
//	boot UUID
//	run HEX
//	job PID START
//
// It is replaced by rename and not synced: after a power cut there are no
// survivors.
const recordHeader = "drover-jobs 1"

// writeRecord is called before the first job starts, for its run line, and
// after each start. An empty path: no record.
func (s *Supervisor) writeRecord() error {
	if s.record == "" {
		return nil
	}
	boot, err := bootID()
	if err != nil {
		return fmt.Errorf("record jobs: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nboot %s\nrun %s\n", recordHeader, boot, s.run)
	s.pids.Lock()
	for pid := range s.first {
		if p, ok := proctree.Lookup(pid); ok {
			fmt.Fprintf(&b, "job %d %d\n", pid, p.Start)
		}
	}
	s.pids.Unlock()
	if err := os.MkdirAll(filepath.Dir(s.record), 0o755); err != nil {
		return fmt.Errorf("record jobs: %w", err)
	}
	temporary := s.record + ".new"
	if err := os.WriteFile(temporary, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("record jobs: %w", err)
	}
	if err := os.Rename(temporary, s.record); err != nil {
		return fmt.Errorf("record jobs: %w", err)
	}
	return nil
}

func (s *Supervisor) removeRecord() {
	if s.record == "" {
		return
	}
	if err := os.Remove(s.record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the record of the jobs is left behind", "error", err)
	}
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// recordedJob is a job's first process: nothing else has this PID and this start
// time while the machine is up.
type recordedJob struct {
	pid   int
	start uint64
}

// KillSurvivors kills the jobs of an earlier life of the agent that the record
// names, and returns how many processes it found. Killed are: a first process
// whose PID and start time match; its session, even if it is dead itself (the
// PID stays taken while its session has members); whatever carries the run's
// mark in its environment; and the descendants of all these. A daemon that left
// its session and erased its environment is not found.
//
// No record, or one of another boot: nothing to do. The record is removed when
// nothing of it lives.
func KillSurvivors(record string) (int, error) {
	data, err := os.ReadFile(record)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the record of the jobs: %w", err)
	}
	boot, run, jobs, err := parseRecord(data)
	if err != nil {
		return 0, fmt.Errorf("read the record of the jobs: %s: %w", record, err)
	}
	now, err := bootID()
	if err != nil {
		return 0, err
	}
	killed := 0
	if boot == now {
		if killed, err = killRecorded(run, jobs); err != nil {
			return killed, fmt.Errorf("kill jobs of an earlier life: %w", err)
		}
	}
	if err := os.Remove(record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return killed, fmt.Errorf("remove the record of the jobs: %w", err)
	}
	return killed, nil
}

func parseRecord(data []byte) (boot, run string, jobs []recordedJob, err error) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	if !lines.Scan() || lines.Text() != recordHeader {
		return "", "", nil, fmt.Errorf("it does not begin with %q", recordHeader)
	}
	for lines.Scan() {
		kind, value, _ := strings.Cut(lines.Text(), " ")
		switch kind {
		case "boot":
			boot = value
		case "run":
			run = value
		case "job":
			var j recordedJob
			if _, err := fmt.Sscanf(value, "%d %d", &j.pid, &j.start); err != nil || j.pid <= 1 {
				return "", "", nil, fmt.Errorf("line %q: not a process", lines.Text())
			}
			jobs = append(jobs, j)
		default:
			return "", "", nil, fmt.Errorf("line %q: unknown", lines.Text())
		}
	}
	if boot == "" || run == "" {
		return "", "", nil, errors.New("it is not whole")
	}
	return boot, run, jobs, lines.Err()
}

func killRecorded(run string, jobs []recordedJob) (int, error) {
	killer, err := proctree.NewKiller()
	if err != nil {
		return 0, err
	}
	// Should this agent have been started from within an old job, it spares
	// itself and its ancestors.
	spared := map[int]bool{}
	for pid := os.Getpid(); pid > 0 && !spared[pid]; {
		spared[pid] = true
		p, _ := proctree.Lookup(pid)
		pid = p.PPID
	}
	mark := []string{runVar + "=" + run}
	// A process that is ending has no environment any more: once seen is enough.
	marked := map[recordedJob]bool{}
	return killer.Kill(func(p *proctree.Proc) bool {
		if spared[p.PID] || p.PID == 1 {
			return false
		}
		for _, j := range jobs {
			if p.PID == j.pid && p.Start == j.start {
				return true
			}
			if p.Session == j.pid && p.Start >= j.start {
				leader, there := proctree.Lookup(j.pid)
				if !there || leader.Start == j.start {
					return true
				}
			}
		}
		id := recordedJob{p.PID, p.Start}
		marked[id] = marked[id] || hasEnvironment(p.PID, mark)
		return marked[id]
	})
}
