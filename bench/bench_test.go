//go:build bench

// Package bench measures Drover beside stock restic, stock kopia and tar with zstd:
// the same data, the same S3 server on loopback, one run, and prints medians,
// spreads and ratios. It asserts no speed; it fails only if something does not work.
//
//	make bench                                # all
//	go test -tags bench -v -run Increment ./bench
//	go test -tags bench -v -run Increment ./bench -files 1000000
//	go test -tags bench -v -run Page ./bench -gigabytes 10 -tools drover,kopia
package bench

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/testkit/gotool"
	"drover/internal/testkit/s3server"
)

const password = "bench"

// bed is one S3 server and the programs that are measured on it.
type bed struct {
	t              *testing.T
	s3             *s3server.Server
	endpoint       string // of the server, or of the delaying proxy before it
	drover, restic string
	kopia          string
	dir            string
}

// The sizes and tools of a run; `go test ./bench -args` takes them.
var (
	files     = flag.Int("files", 200_000, "files of which one changes (TestIncrement)")
	watched   = flag.Int("watched", 1_000_000, "files that an agent watches (TestWatch)")
	gigabytes = flag.Int("gigabytes", 2, "size of the file of which a page changes (TestPage)")
	rounds    = flag.Int("rounds", 5, "how often each thing is measured")
	wanted    = flag.String("tools", "drover,restic,kopia,tar|zstd", "which tools are measured, for those that take long")
)

func newBed(t *testing.T, delay time.Duration) *bed {
	t.Helper()
	b := &bed{t: t, restic: gotool.Path(t, "restic"), kopia: gotool.Path(t, "kopia"), dir: t.TempDir()}
	var err error
	if b.drover, err = filepath.Abs("../bin/drover"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.drover); err != nil {
		t.Fatalf("no binary to measure: %v (make build)", err)
	}
	b.s3 = s3server.Start(t, s3server.Options{})
	b.endpoint = b.s3.Endpoint
	if delay > 0 {
		b.endpoint = delayed(t, b.s3.Endpoint, delay)
	}
	return b
}

func (b *bed) storeURL(prefix string) string {
	return "s3://" + b.s3.Bucket + "/" + prefix + "?endpoint=" + b.endpoint + "&region=" + b.s3.Region
}

// choose leaves out the tools that this run is not to measure.
func choose(tools ...tool) []tool {
	return slices.DeleteFunc(tools, func(tl tool) bool {
		return !slices.Contains(strings.Split(*wanted, ","), tl.name)
	})
}

func (b *bed) socket(id string) string { return filepath.Join(b.dir, id+".sock") }

func (b *bed) env(id string, more ...string) []string {
	return append(b.s3.Env(), append([]string{
		"DROVER_PASSWORD=" + password, "RESTIC_PASSWORD=" + password, "KOPIA_PASSWORD=" + password,
		"KOPIA_CHECK_FOR_UPDATES=false", "KOPIA_USE_KEYRING=false", "HOME=" + b.dir,
		"DROVER_SOCKET=" + b.socket(id),
		"GOGC=", "GOMAXPROCS=",
	}, more...)...)
}

// run runs a command to its end.
func (b *bed) run(id, name string, args ...string) took {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), name, args...)
	cmd.Env = b.env(id)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	wall := time.Since(start)
	if err != nil {
		b.t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return took{wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// agent starts `drover run` in its own process group and returns how to kill all of it.
//
// With a disk it sees that directory in the place of its state's.
func (b *bed) agent(id, disk, state string, args ...string) (*exec.Cmd, func()) {
	b.t.Helper()
	log, err := os.Create(filepath.Join(b.dir, id+".log"))
	if err != nil {
		b.t.Fatal(err)
	}
	command := append([]string{b.drover, "run", "--id", id, "--data-dir", filepath.Join(b.dir, id), "--state", state}, args...)
	if disk != "" {
		command = append([]string{"unshare", "--mount", "--", "sh", "-c", `mount --bind "$1" "$2" && shift 2 && exec "$@"`, "sh", disk, state}, command...)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = b.env(id), log, log
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	killed := false
	kill := func() {
		if killed {
			return
		}
		killed = true
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	b.t.Cleanup(func() {
		kill()
		_ = log.Close()
		if b.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			b.t.Logf("%s said:\n%s", id, text)
		}
	})
	return cmd, kill
}

// waitFor polls until ok, and returns when that was.
func (b *bed) waitFor(what string, limit time.Duration, ok func() bool) time.Time {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			b.t.Fatalf("waited %v for %s", limit, what)
		case <-tick.C:
		}
	}
	return time.Now()
}

// figures are repeated measurements of one thing.
type figures []time.Duration

func (f figures) median() time.Duration { return f.quantile(0.5) }

func (f figures) quantile(q float64) time.Duration {
	s := slices.Sorted(slices.Values(f))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

func (f figures) String() string {
	return fmt.Sprintf("median %v (%v–%v, %d runs)", round(f.median()), round(slices.Min(f)), round(slices.Max(f)), len(f))
}

func round(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d > 100*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}

func TestMain(m *testing.M) {
	flag.Parse()
	fmt.Printf("machine: %d cores, %s, %s\n", runtime.NumCPU(), runtime.GOARCH, runtime.Version())
	os.Exit(m.Run())
}
