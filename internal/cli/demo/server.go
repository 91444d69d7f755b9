package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"drover/client"
)

// server is one disposable server: `drover run` with git daemon as the main job.
type server struct {
	name   string
	story  *story
	dir    string // its own files: socket, record, log
	port   int
	cmd    *exec.Cmd
	ended  chan struct{} // closed when cmd ended; its state is in cmd then
	killed time.Time
}

// marker in the environment of everything that a server starts, so that all of it can
// be found again, whatever detached itself.
const marker = "DROVER_DEMO_SERVER="

// Times that something on this machine may take.
const (
	startLimit = time.Minute
	endLimit   = 30 * time.Second
	pollEvery  = 20 * time.Millisecond
)

func (s *story) newServer(ctx context.Context, name string) (*server, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	return &server{name: name, story: s, dir: s.path(name), port: port}, nil
}

// freePort finds a port of the loopback that nobody listens on.
func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err = errors.Join(err, l.Close()); err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return strconv.Atoi(port)
}

func (s *server) url() string { return fmt.Sprintf("git://127.0.0.1:%d/review.git", s.port) }

// application makes the repository where there is none, as the application's own first
// start would, then serves.
const application = `test -d review.git || {
  git init --quiet --bare --initial-branch=main review.git &&
  git -C review.git config receive.autogc false &&
  printf '#!/bin/sh\nexec drover backup\n' >review.git/hooks/post-receive &&
  chmod +x review.git/hooks/post-receive
} && exec git daemon --reuseaddr --export-all --enable=receive-pack --base-path="$PWD" --listen=127.0.0.1 --port="$PORT"`

func (s *server) arguments() []string {
	return []string{
		"run", "--store", "file://" + s.story.path("bucket"), "--state", s.story.repository(), "--ttl", s.story.TTL.String(),
		"--id", s.name, "--data-dir", filepath.Join(s.dir, "data"), "-c", filepath.Join(s.dir, "drover.yaml"),
	}
}

// commandLine is what a user would type, without the flags that only keep two servers
// apart on one machine.
func (s *server) commandLine() string {
	return fmt.Sprintf("drover run --store file://…/bucket --state …/srv/git --ttl %s -- git daemon --port=%d", s.story.TTL, s.port)
}

// start starts the server and waits until it serves.
func (s *server) start(ctx context.Context) (time.Duration, error) {
	if err := os.MkdirAll(s.story.repository(), 0o755); err != nil {
		return 0, fmt.Errorf("make %s's disk: %w", s.name, err)
	}
	if err := s.writeConfig(); err != nil {
		return 0, err
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return 0, fmt.Errorf("make log: %w", err)
	}
	defer func() { _ = log.Close() }() // the server has its own descriptor
	// Not bound to ctx: kill ends all of it, and this only its first process.
	s.cmd = exec.CommandContext(context.WithoutCancel(ctx), s.story.Binary, s.arguments()...)
	s.cmd.Dir = s.dir
	s.cmd.Env = s.env()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo alone
	begun := time.Now()
	if err := s.cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", s.name, err)
	}
	s.ended = make(chan struct{})
	go func() { defer close(s.ended); _ = s.cmd.Wait() }() // its state says how it ended
	err = s.waitServing(ctx)
	return time.Since(begun), err
}

// writeConfig puts the job into a file, since its command is a script.
func (s *server) writeConfig() error {
	job := map[string]any{"command": []string{"/bin/sh", "-c", application}, "dir": s.story.repository(), "main": true}
	config, err := json.Marshal(map[string]any{"jobs": map[string]any{"git": job}})
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return os.WriteFile(filepath.Join(s.dir, "drover.yaml"), config, 0o600)
}

func (s *server) socket() string { return filepath.Join(s.dir, "s") }

func (s *server) env() []string {
	env := gitEnv(s.dir)
	env[0] = "PATH=" + s.story.path("bin") + ":" + os.Getenv("PATH")
	return append(env, marker+s.dir, "PORT="+strconv.Itoa(s.port),
		"DROVER_SOCKET="+s.socket(), "DROVER_PASSWORD_FILE="+s.story.path("password"))
}

// waitServing returns when the repository can be read through the server.
func (s *server) waitServing(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	dialer := net.Dialer{Timeout: time.Second}
	var last error
	for {
		if conn, err := dialer.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", s.port)); err != nil {
			last = err
		} else {
			_ = conn.Close()
			if last = s.story.git.run(ctx, "ls-remote", s.url()); last == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not serve after %s: %w", s.name, startLimit, last)
		case <-s.ended:
			return fmt.Errorf("%s ended by itself: %s", s.name, s.cmd.ProcessState)
		case <-poll.C:
		}
	}
}

// committed says whether the agent's last backup is newer than since and went well.
func (s *server) committed(ctx context.Context, since time.Time) error {
	status, err := s.status(ctx)
	switch {
	case err != nil:
		return err
	case status.LastBackup == nil || status.LastBackup.Time.Before(since):
		return errors.New("but no backup was made for it")
	case status.LastBackup.Error != "":
		return errors.New("but its backup failed: " + status.LastBackup.Error)
	}
	return nil
}

// status asks the server's agent.
func (s *server) status(ctx context.Context) (client.Status, error) {
	agent := client.New(s.socket())
	defer agent.Close()
	return agent.Status(ctx)
}

// drover runs a command on the store, as an operator would.
func (s *server) drover(ctx context.Context, args ...string) ([]byte, error) {
	args = append(args, "--store", "file://"+s.story.path("bucket"))
	cmd := exec.CommandContext(ctx, s.story.Binary, args...)
	cmd.Dir = s.story.dir
	cmd.Env = s.env()
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("drover %s: %w: %s", args[0], err, strings.TrimSpace(said.String()))
	}
	return out, nil
}

// headState reads the state of the head from the store.
func (s *server) headState(ctx context.Context) (string, error) {
	out, err := s.drover(ctx, "status", "--json")
	if err != nil {
		return "", err
	}
	var status client.Status
	if err := json.Unmarshal(out, &status); err != nil {
		return "", fmt.Errorf("read status: %w", err)
	}
	return status.State, nil
}

// kill ends every process of the server at once, as the loss of power would, and
// returns how many there were.
func (s *server) kill(ctx context.Context) (int, error) {
	if s.cmd == nil || s.cmd.Process == nil {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	s.killed = time.Now()
	seen := map[int]bool{}
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		pids, err := processesWith(marker + s.dir)
		if err != nil {
			return len(seen), err
		}
		// All stand still before any dies: nobody may see the death of another.
		for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
			for _, pid := range pids {
				seen[pid] = true
				_ = syscall.Kill(pid, signal) // it may be gone already
			}
		}
		if len(pids) == 0 {
			<-s.ended
			return len(seen), nil
		}
		select {
		case <-ctx.Done():
			return len(seen), fmt.Errorf("kill %s: %d processes live on", s.name, len(pids))
		case <-poll.C:
		}
	}
}

// processesWith lists the living processes with a variable in their environment that
// begins so.
func processesWith(beginning string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// Gone meanwhile, or another user's: not one of ours. A zombie's is empty.
		env, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if err == nil && bytes.Contains(append([]byte{0}, env...), append([]byte{0}, beginning...)) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// end asks the server to end in order.
func (s *server) end(ctx context.Context) (time.Duration, error) {
	begun := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("stop %s: %w", s.name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	select {
	case <-s.ended:
		return time.Since(begun), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%s does not end within %s of SIGTERM", s.name, endLimit)
	}
}

// lastLines is the end of the server's log.
func (s *server) lastLines() string {
	const most = 15
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return "    (none)"
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	lines = lines[max(0, len(lines)-most):]
	return "    " + strings.Join(lines, "\n    ")
}
