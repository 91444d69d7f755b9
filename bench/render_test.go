//go:build bench

package bench

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"drover/internal/testkit/consulserver"
	"drover/internal/testkit/consultemplate"
)

// What the process that is reloaded is told: where to write what it reads, and what to read.
const (
	reloadTo   = "DROVER_BENCH_FIFO"
	reloadFrom = "DROVER_BENCH_FILE"
)

// TestReloadChild is no test: it is the process that TestRender has reloaded. At its start and
// at each SIGHUP it reads its file, and says when it had read what.
func TestReloadChild(t *testing.T) {
	fifo := os.Getenv(reloadTo)
	if fifo == "" {
		return
	}
	hangups := make(chan os.Signal, 16)
	signal.Notify(hangups, syscall.SIGHUP)
	out, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for {
		text, err := os.ReadFile(os.Getenv(reloadFrom))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(out, "%d\t%s\n", time.Now().UnixNano(), text); err != nil {
			return
		}
		<-hangups
	}
}

// reading is what the process had read when.
type reading struct {
	at   time.Time
	text string
}

// readings opens the pipe that the process writes to.
func readings(t *testing.T, fifo string) <-chan reading {
	t.Helper()
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(fifo, os.O_RDWR, 0) // so that it neither waits for the process nor ends with it
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan reading, 1024)
	var group sync.WaitGroup
	group.Go(func() {
		lines := bufio.NewReaderSize(f, 1<<20)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			at, text, _ := strings.Cut(line, "\t")
			n, _ := strconv.ParseInt(at, 10, 64)
			ch <- reading{time.Unix(0, n), text}
		}
	})
	t.Cleanup(func() { _ = f.Close(); group.Wait() })
	return ch
}

// TestRender: from sending a change of a key in Consul to the rendered file, and to the process
// that has read it after its signal, and the memory of who watches, for Drover's agent and
// consul-template by turns.
func TestRender(t *testing.T) {
	drover, err := filepath.Abs("../bin/drover")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("change of a key in Consul, ms from sending it to the rendered file, and to the process that has read it:")
	fmt.Println("| keys | what | file p50 | p99 | most | process p50 | p99 | most | first render, s | memory, MB |")
	for _, n := range []int{1, 100, 1000} {
		s := consulserver.Start(t, consulserver.Options{Connections: 4096})
		for i := range n {
			putKey(t, s, i, "0")
		}
		for _, who := range []string{"drover", "consul-template", "drover", "consul-template"} {
			fmt.Printf("| %d | %s | %s |\n", n, who, followed(t, who, drover, s, n))
		}
	}
}

// followed runs one program that follows n keys, changes them, and returns the figures.
func followed(t *testing.T, who, drover string, s *consulserver.Server, n int) string {
	t.Helper()
	const changes, space = 200, 200 * time.Millisecond
	template := fmt.Sprintf(`{{ range loop %d }}{{ key (printf "bench/k%%04d" .) }} {{ end }}`, n)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	read := readings(t, filepath.Join(dir, "fifo"))
	cmd := reloader(t, who, drover, s, template, dir)
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, out, func(string) bool { return true })
	first := time.Since(begin)
	until(t, read, func(string) bool { return true })
	var file, process figures
	pace := time.NewTicker(space)
	defer pace.Stop()
	for i := range changes {
		<-pace.C
		value := fmt.Sprintf("%s-%d-%d ", who, begin.UnixNano(), i)
		is := func(text string) bool { return strings.Contains(text, value) }
		sent := time.Now()
		putKey(t, s, rand.IntN(n), strings.TrimSpace(value))
		await(t, out, is)
		file = append(file, time.Since(sent))
		process = append(process, time.Duration(until(t, read, is).at.UnixNano()-sent.UnixNano()))
	}
	rss := float64(rssKiB(tree(cmd.Process.Pid))) / 1024
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	return fmt.Sprintf("%s | %s | %.2f | %.1f", tail(file), tail(process), first.Seconds(), rss)
}

// tail is the median, the 99th percentile and the most, in ms.
func tail(f figures) string {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return fmt.Sprintf("%.1f | %.1f | %.1f", ms(f.quantile(0.5)), ms(f.quantile(0.99)), ms(f.quantile(1)))
}

// until waits for a reading.
func until(t *testing.T, read <-chan reading, is func(string) bool) reading {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		select {
		case r := <-read:
			if is(r.text) {
				return r
			}
		case <-deadline:
			t.Fatal("the process was not reloaded")
		}
	}
}

func putKey(t *testing.T, s *consulserver.Server, i int, value string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, fmt.Sprintf("%s/v1/kv/bench/k%04d", s.Address, i), strings.NewReader(value))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

// reloader is the program that renders the template to DIR/out and reloads the process.
func reloader(t *testing.T, who, drover string, s *consulserver.Server, template, dir string) *exec.Cmd {
	out := filepath.Join(dir, "out")
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), reloadTo + "=" + filepath.Join(dir, "fifo"), reloadFrom + "=" + out}
	process := []string{os.Args[0], "-test.run", "^TestReloadChild$"}
	address := strings.TrimPrefix(s.Address, "http://")
	var cmd *exec.Cmd
	if who == "drover" {
		put(t, filepath.Join(dir, "template"), template, 0o600)
		put(t, filepath.Join(dir, "drover.yaml"), fmt.Sprintf(`
service: bench
coordinator: consul://%s
templates:
  out: {source: %s/template, destination: %s, on_change: {signal: app}}
jobs:
  app: {command: [%s]}
`, address, dir, out, strings.Join(process, ", ")), 0o600)
		cmd = exec.Command(drover, "run", "-c", filepath.Join(dir, "drover.yaml"), "--socket", filepath.Join(dir, "sock"), "--data-dir", filepath.Join(dir, "data"))
		cmd.Env = env
	} else {
		cmd = consultemplate.Command(context.WithoutCancel(t.Context()), t, consultemplate.Job{
			Templates: map[string]string{filepath.Base(out): template}, Dir: dir, Env: env,
			Settings: fmt.Sprintf("consul {\n address = %q\n}\nexec {\n command = [%q, %q, %q]\n reload_signal = \"SIGHUP\"\n}\n", address, process[0], process[1], process[2]),
		})
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// await looks at a file until it is as it should be.
func await(t *testing.T, path string, is func(string) bool) {
	t.Helper()
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for {
		if b, err := os.ReadFile(path); err == nil && is(string(b)) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s did not come", path)
		}
	}
}
