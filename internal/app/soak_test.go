package app

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/client"
	"drover/internal/proctree"
	"drover/internal/repo/fstest"
)

// soak is an agent in processes of its own, and who torments it.
type soak struct {
	*soakPlan
	t       *testing.T
	length  time.Duration
	bound   func(early, late float64) bool // whether a figure has not grown
	agent   *exec.Cmd
	calls   *rpc.Client
	control *client.Client
	begin   time.Time

	mu       sync.Mutex
	counts   map[string]int
	samples  []soakSample
	trips    map[string][]soakTrip
	suspects map[soakProcess]soakSuspect
}

// TestSupervisionSoak runs jobs that crash, hang, escape, are deaf, flood their logs and
// so on, while configurations, signals and orders come at random. Nothing may be left
// behind, and nothing may grow. DROVER_SOAK: 200 jobs for DROVER_SOAK_TIME (10m), and
// the figures are held against their bounds; without it it is short, and only gross
// growth is an error. DROVER_SOAK_SEED repeats what is random here.
func TestSupervisionSoak(t *testing.T) {
	s := startSoak(t)
	t.Run("under fire", func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), s.length)
		defer stop()
		var parts sync.WaitGroup
		defer parts.Wait()
		for _, part := range []func(context.Context){s.watch, s.ask, s.signals, s.reloads, s.hands(4), s.hands(5), s.puts} {
			parts.Go(func() { part(ctx) })
		}
	})
	s.comesToRest()
	s.end()
	s.report()
}

func startSoak(t *testing.T) *soak {
	t.Helper()
	fstest.Must(t, proctree.BecomeSubreaper()) // what the agent would leave comes to us
	dir, err := os.MkdirTemp("", "s")          //nolint:usetesting // short, for the socket
	fstest.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &soak{
		soakPlan: &soakPlan{dir: dir, jobs: 30, now: map[int]fields{}, deaf: deafServer(t)}, t: t, length: 20 * time.Second,
		bound:  func(early, late float64) bool { return late <= 2*early+100 },
		counts: map[string]int{}, trips: map[string][]soakTrip{}, suspects: map[soakProcess]soakSuspect{},
	}
	if os.Getenv("DROVER_SOAK") != "" {
		s.jobs, s.length = 200, 10*time.Minute
		s.bound = func(early, late float64) bool { return late <= 1.15*early+20 }
		if text := os.Getenv("DROVER_SOAK_TIME"); text != "" {
			s.length, err = time.ParseDuration(text)
			fstest.Must(t, err)
		}
	}
	r := s.random(0)
	for i := range s.jobs {
		s.now[i] = s.one(r, i)
	}
	s.write(t, s.now)
	s.launch()
	return s
}

// random is a source of its own for each part.
func (s *soak) random(part uint64) *rand.Rand {
	seed := uint64(1)
	if text := os.Getenv("DROVER_SOAK_SEED"); text != "" {
		_, err := fmt.Sscan(text, &seed)
		fstest.Must(s.t, err)
	}
	return rand.New(rand.NewPCG(seed, part))
}

// deafServer accepts, and never answers.
func deafServer(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fstest.Must(t, err)
	var parts sync.WaitGroup
	parts.Go(func() {
		var held []net.Conn
		for {
			conn, err := listener.Accept()
			if err != nil {
				break
			}
			if held = append(held, conn); len(held) > 100 {
				_ = held[0].Close()
				held = held[1:]
			}
		}
		for _, conn := range held {
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = listener.Close(); parts.Wait() })
	return listener.Addr().String()
}

func (s *soak) launch() {
	log, err := os.Create(filepath.Join(s.dir, "log"))
	fstest.Must(s.t, err)
	s.agent = exec.Command(os.Args[0], "-test.run=^$")
	s.agent.Env = append(os.Environ(), soakVar+"="+s.dir)
	s.agent.Stderr = log
	in, err := s.agent.StdinPipe()
	fstest.Must(s.t, err)
	out, err := s.agent.StdoutPipe()
	fstest.Must(s.t, err)
	fstest.Must(s.t, s.agent.Start())
	s.t.Cleanup(func() {
		_ = s.agent.Process.Kill() // it has ended, if all is well
		if s.t.Failed() {
			said, _ := os.ReadFile(log.Name())
			s.t.Logf("the end of the agent's log:\n%s", said[max(0, len(said)-20_000):])
		}
		_ = log.Close()
	})
	s.calls = rpc.NewClient(standardPipe{standard{out, in}})
	s.control = client.New(s.dir + "/s")
	s.begin = time.Now()
	s.until("the main job is ready", func() bool {
		return slices.ContainsFunc(s.look(true).Jobs, func(j client.Job) bool { return j.Name == soakMain && j.Ready })
	})
}

// standardPipe closes the input alone: the agent ends, and with it the output.
type standardPipe struct{ standard }

func (s *soak) look(jobs bool) (f SoakFigures) {
	if err := s.calls.Call("Soak.Look", jobs, &f); err != nil {
		s.t.Errorf("the agent does not answer: %v", err)
	}
	return f
}

func (s *soak) until(what string, holds func() bool) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			s.t.Fatalf("not after %v: %s", patience, what)
		}
	}
}

func (s *soak) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

// do gives an order, and counts what came of it.
func (s *soak) do(c SoakCall) string {
	var kind string
	began := time.Now()
	defer func() {
		if took := time.Since(began); took > 20*time.Second {
			s.t.Logf("%v took %v: %s", c, took, kind)
		}
	}()
	if err := s.calls.Call("Soak.Do", c, &kind); err != nil {
		s.t.Errorf("%s: %v", c.Do, err)
	}
	s.count(c.Do + ": " + kind)
	return kind
}

// pause waits for a random time, at most twice the mean; false: the time is over.
func pause(ctx context.Context, r *rand.Rand, mean time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Duration(r.Int64N(int64(2 * mean)))):
		return true
	}
}

// reloads changes the configuration. Every other one holds jobs that fail: it is turned
// back as a rule. Now and then two come at once.
func (s *soak) reloads(ctx context.Context) {
	r := s.random(1)
	for pause(ctx, r, time.Second) {
		next := s.change(r, r.IntN(2) == 0)
		s.write(s.t, next)
		if r.IntN(5) == 0 {
			other := s.calls.Go("Soak.Do", SoakCall{Do: "reload"}, new(string), nil)
			kind := s.do(SoakCall{Do: "reload"})
			<-other.Done
			if kind == "done" || *other.Reply.(*string) == "done" {
				s.now = next
			}
		} else if s.do(SoakCall{Do: "reload"}) == "done" {
			s.now = next
		}
	}
}

// signals go to the shim, as a scheduler's would.
func (s *soak) signals(ctx context.Context) {
	r := s.random(2)
	for pause(ctx, r, 400*time.Millisecond) {
		sig := []unix.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH}[r.IntN(4)]
		if err := s.agent.Process.Signal(sig); err != nil {
			s.t.Errorf("signal: %v", err)
		}
		s.count("to the agent: " + unix.SignalName(sig))
	}
}

// hands start, stop, restart and signal jobs, and read their logs.
func (s *soak) hands(part uint64) func(context.Context) {
	return func(ctx context.Context) {
		r := s.random(part)
		for pause(ctx, r, 150*time.Millisecond) {
			c := SoakCall{Do: []string{"start", "start", "stop", "restart", "signal", "logs"}[r.IntN(6)], Name: soakName(r.IntN(s.jobs))}
			if c.Do == "signal" {
				c.Value = []string{"TERM", "KILL", "HUP", "STOP", "CONT", "USR2"}[r.IntN(6)]
			}
			s.do(c)
		}
	}
}

// puts change the environment and metrics, call webhooks and turn maintenance on and off.
func (s *soak) puts(ctx context.Context) {
	r := s.random(3)
	for pause(ctx, r, 200*time.Millisecond) {
		s.do([]SoakCall{
			{Do: "env", Name: fmt.Sprint("SOAK_", r.IntN(20)), Value: strings.Repeat("x", r.IntN(100))},
			{Do: "metric", Name: "soak_count"}, {Do: "webhook", Name: "soak"},
			{Do: "maintenance", Value: []string{"on", "off"}[r.IntN(2)]},
		}[r.IntN(4)])
	}
}

// comesToRest waits until nothing is out of place that is so now.
func (s *soak) comesToRest() {
	s.inspect()
	before := maps.Clone(s.suspects)
	s.t.Cleanup(func() {
		for p, suspect := range s.suspects {
			if _, still := before[p]; still && s.t.Failed() {
				s.t.Logf("process %d: %s", p.pid, suspect.what)
			}
		}
	})
	s.until("all that was out of place is gone", func() bool {
		s.inspect()
		for p := range before {
			if _, still := s.suspects[p]; still {
				return false
			}
		}
		return true
	})
}

// end asks the agent to end; nothing may be left.
func (s *soak) end() {
	began := time.Now()
	fstest.Must(s.t, s.agent.Process.Signal(unix.SIGTERM))
	fstest.Must(s.t, s.calls.Close())
	s.control.Close()
	ended := make(chan error, 1)
	go func() { ended <- s.agent.Wait() }()
	select {
	case <-ended:
	case <-time.After(patience):
		s.t.Error("the agent does not end")
		_ = s.agent.Process.Kill()
		<-ended
	}
	s.t.Logf("the end took %v", time.Since(began).Round(time.Millisecond))
	if status := s.agent.ProcessState.ExitCode(); status != 128+int(unix.SIGTERM) {
		s.t.Errorf("status %d", status)
	}
	for _, line := range s.marked() {
		s.t.Errorf("left behind: %s", line)
	}
}

// marked are the processes anywhere that descend from the agent, by their environment.
func (s *soak) marked() (found []string) {
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	fstest.Must(s.t, err)
	for _, file := range environs {
		environ, _ := os.ReadFile(file)
		if bytes.Contains(environ, []byte(soakVar+"="+s.dir+"\x00")) {
			command, _ := os.ReadFile(filepath.Dir(file) + "/cmdline")
			found = append(found, file+": "+strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return found
}
