//go:build bench

package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/internal/coord/consul"
	"drover/internal/render"
	"drover/internal/testkit/consulserver"
	"drover/internal/testkit/consultemplate"
)

// What the child of TestRender is told.
const (
	renderConsul   = "DROVER_BENCH_CONSUL"
	renderTemplate = "DROVER_BENCH_TEMPLATE"
	renderTo       = "DROVER_BENCH_OUT"
)

// TestRenderChild is no test: it is the process that TestRender measures.
func TestRenderChild(t *testing.T) {
	address := os.Getenv(renderConsul)
	if address == "" {
		return
	}
	c, err := consul.New(consul.Options{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	e, err := render.New(render.Config{
		Sources:   render.Sources{KV: c, Catalog: c},
		Templates: []render.Template{{Content: os.Getenv(renderTemplate), Destination: os.Getenv(renderTo)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// TestRender: from the answer to a change of a key in Consul to the rendered file, and
// the memory of the process that watches, for Drover's engine and consul-template by turns.
func TestRender(t *testing.T) {
	const changes, space = 100, 300 * time.Millisecond
	fmt.Println("change of a key in Consul to the rendered file, ms from sending the change:")
	fmt.Println("| keys | what | p50 | p99 | most | first render, s | memory, MB |")
	for _, n := range []int{1, 100, 1000} {
		s := consulserver.Start(t, consulserver.Options{Connections: 4096})
		for i := range n {
			putKey(t, s, i, "0")
		}
		template := fmt.Sprintf(`{{ range loop %d }}{{ key (printf "bench/k%%04d" .) }} {{ end }}`, n)
		for _, who := range []string{"drover", "consul-template", "drover", "consul-template"} {
			out := filepath.Join(t.TempDir(), "out")
			begin := time.Now()
			cmd := renderer(t, who, s, template, out)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			await(t, out, func(string) bool { return true })
			first := time.Since(begin)
			lag := make([]time.Duration, changes)
			pace := time.NewTicker(space)
			for i := range lag {
				<-pace.C
				value := fmt.Sprintf("%s-%d-%d", who, begin.UnixNano(), i)
				sent := time.Now()
				putKey(t, s, rand.IntN(n), value)
				await(t, out, func(text string) bool { return strings.Contains(text, value+" ") })
				lag[i] = time.Since(sent)
			}
			pace.Stop()
			memory := resident(t, cmd.Process.Pid)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			slices.Sort(lag)
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			fmt.Printf("| %d | %s | %.1f | %.1f | %.1f | %.2f | %.1f |\n", n, who, ms(lag[changes/2]), ms(lag[changes*99/100-1]), ms(lag[changes-1]), first.Seconds(), memory)
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

// renderer is the process that renders the template to out.
func renderer(t *testing.T, who string, s *consulserver.Server, template, out string) *exec.Cmd {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	var cmd *exec.Cmd
	if who == "drover" {
		cmd = exec.Command(os.Args[0], "-test.run", "^TestRenderChild$")
		cmd.Env = append(env, renderConsul+"="+s.Address, renderTemplate+"="+template, renderTo+"="+out)
	} else {
		cmd = consultemplate.Command(context.WithoutCancel(t.Context()), t, consultemplate.Job{
			Templates: map[string]string{filepath.Base(out): template}, Dir: filepath.Dir(out), Env: env,
			Settings: fmt.Sprintf("consul {\n address = %q\n}\n", strings.TrimPrefix(s.Address, "http://")),
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

// resident is the memory of a process, in MB.
func resident(t *testing.T, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kb float64
	for line := range strings.Lines(string(b)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			fmt.Sscan(rest, &kb)
		}
	}
	return kb / 1024
}
