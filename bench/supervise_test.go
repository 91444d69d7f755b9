//go:build bench

package bench

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

// service is a job, as every supervisor can run it.
type service struct {
	name  string
	argv  []string
	check []string // must succeed every second; nil: no check
}

// keeper is a supervisor under test. It runs services, or only one.
type keeper struct {
	name    string
	program string // Debian's package has it; empty: it needs none
	only    bool   // one service, no more, and no restarts
	// command makes what it needs in the directory, and returns how it is started.
	command func(t *testing.T, dir string, services []service) []string
}

// keepers are measured in this order, each of them first in another round.
func keepers(t *testing.T) []keeper {
	t.Helper()
	drover, err := filepath.Abs("../bin/drover")
	if err != nil {
		t.Fatal(err)
	}
	all := []keeper{
		{name: "drover", program: drover, command: drovers(drover, "{policy: always}")},
		{name: "drover, delay 1ms", program: drover, command: drovers(drover, "{policy: always, delay: 1ms}")},
		{name: "s6", program: "s6-svscan", command: scanned("run", "s6-svscan")},
		{name: "runit", program: "runsvdir", command: scanned("run", "runsvdir", "-P")},
		{name: "supervisord", program: "supervisord", command: supervisord},
		{name: "tini", program: "tini", only: true, command: func(_ *testing.T, _ string, s []service) []string {
			return append([]string{"tini", "-s", "--"}, s[0].argv...)
		}},
	}
	for _, k := range all {
		if _, err := exec.LookPath(k.program); err != nil {
			t.Fatalf("%s: %v (make build; Debian's packages s6, runit, supervisor and tini)", k.name, err)
		}
	}
	return all
}

func drovers(program, restart string) func(*testing.T, string, []service) []string {
	return func(t *testing.T, dir string, services []service) []string {
		var text strings.Builder
		text.WriteString("jobs:\n")
		for _, s := range services {
			fmt.Fprintf(&text, "  %s:\n    command: [%s]\n    restart: %s\n", s.name, strings.Join(s.argv, ", "), restart)
			if s.check != nil {
				fmt.Fprintf(&text, "    checks: {alive: {exec: [%s], every: 1s}}\n", strings.Join(s.check, ", "))
			}
		}
		put(t, filepath.Join(dir, "drover.yaml"), text.String(), 0o600)
		return []string{program, "run", "-c", filepath.Join(dir, "drover.yaml"), "--socket", filepath.Join(dir, "sock")}
	}
}

// scanned is a supervisor of a directory with a directory for each service, in which
// run is executed. Neither s6 nor runit has checks: a second service is the usual way.
func scanned(run string, argv ...string) func(*testing.T, string, []service) []string {
	return func(t *testing.T, dir string, services []service) []string {
		for _, s := range services {
			place := filepath.Join(dir, "scan", s.name)
			if len(s.argv) == 1 { // as it is: no shell
				mkdir(t, place)
				if err := os.Symlink(s.argv[0], filepath.Join(place, run)); err != nil {
					t.Fatal(err)
				}
			} else {
				put(t, filepath.Join(place, run), "#!/bin/sh\nexec "+strings.Join(s.argv, " ")+"\n", 0o700)
			}
			if s.check != nil {
				put(t, filepath.Join(place+"-check", run), "#!/bin/sh\n"+loop(s.check)+"\n", 0o700)
			}
		}
		// runit waits for the second to pass in which a directory was changed.
		scan, before := filepath.Join(dir, "scan"), time.Now().Add(-time.Hour)
		if err := os.Chtimes(scan, before, before); err != nil {
			t.Fatal(err)
		}
		return append(slices.Clone(argv), scan)
	}
}

func loop(check []string) string {
	return "while sleep 1; do " + strings.Join(check, " ") + " || echo unhealthy >&2; done"
}

func supervisord(t *testing.T, dir string, services []service) []string {
	var text strings.Builder
	fmt.Fprintf(&text, "[supervisord]\nnodaemon=true\nuser=root\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=%s/pid\n", dir)
	program := func(name, command string) {
		fmt.Fprintf(&text, "[program:%s]\ncommand=%s\nautorestart=true\nstdout_logfile=NONE\nstderr_logfile=NONE\n", name, command)
	}
	for _, s := range services {
		program(s.name, strings.Join(s.argv, " "))
		if s.check != nil {
			program(s.name+"-check", "sh -c '"+loop(s.check)+"'")
		}
	}
	put(t, filepath.Join(dir, "conf"), text.String(), 0o600)
	return []string{"supervisord", "-c", filepath.Join(dir, "conf")}
}

func put(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	mkdir(t, filepath.Dir(file))
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// yard is where supervisors run: all that they leave comes to this process.
type yard struct {
	t      *testing.T
	killer *proctree.Killer
	stamp  string // the program that tells when it began
	runs   []*exec.Cmd
}

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{t: t, stamp: filepath.Join(t.TempDir(), "stamp")}
	build := exec.Command("go", "build", "-o", y.stamp, "./testdata/stamp")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build stamp: %v\n%s", err, out)
	}
	y.must(proctree.BecomeSubreaper())
	var err error
	y.killer, err = proctree.NewKiller()
	y.must(err)
	t.Cleanup(y.clear)
	return y
}

func (y *yard) must(err error) {
	y.t.Helper()
	if err != nil {
		y.t.Fatal(err)
	}
}

// kept is a supervisor that runs.
type kept struct {
	*keeper
	pid   int
	begun time.Duration // by the monotonic clock, right before it was forked
	stamp string        // the file
}

// start starts a supervisor of services.
func (y *yard) start(k *keeper, services ...service) *kept {
	y.t.Helper()
	dir, err := os.MkdirTemp(y.t.TempDir(), "k")
	y.must(err)
	argv := k.command(y.t, dir, services)
	run := &kept{keeper: k, stamp: filepath.Join(dir, "stamps")}
	log, err := os.Create(filepath.Join(dir, "log"))
	y.must(err)
	defer func() { _ = log.Close() }()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/", "STAMP=" + run.stamp}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	run.begun = monotonic()
	y.must(cmd.Start())
	run.pid = cmd.Process.Pid
	y.runs = append(y.runs, cmd)
	y.t.Cleanup(func() {
		if y.t.Failed() {
			said, _ := os.ReadFile(log.Name())
			y.t.Logf("%s said:\n%s", k.name, said)
		}
	})
	return run
}

func monotonic() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail for this clock
	return time.Duration(now.Nano())
}

// clear kills all that runs here.
func (y *yard) clear() {
	self := y.killer.Self().PID
	if _, err := y.killer.Kill(func(p *proctree.Proc) bool { return p.PPID == self }); err != nil {
		y.t.Error(err)
	}
	for _, cmd := range y.runs {
		_ = cmd.Wait() // SIGKILL
	}
	y.runs = nil
	if _, err := y.killer.ReapZombies(func(*proctree.Proc) bool { return true }); err != nil {
		y.t.Error(err)
	}
}

// stamps waits for the n-th line of the stamp file.
func (y *yard) stamped(k *kept, n int) (at time.Duration, pid int) {
	y.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		data, _ := os.ReadFile(k.stamp)
		if lines := strings.Split(string(data), "\n"); len(lines) > n {
			if _, err := fmt.Sscan(lines[n-1], &at, &pid); err == nil {
				return at, pid
			}
		}
		time.Sleep(time.Millisecond)
	}
	y.t.Fatalf("%s: no start number %d within a minute", k.name, n)
	return 0, 0
}

// below lists the living processes of a supervisor, itself included: its own, and
// those of services, which are known by their names.
func (y *yard) below(k *kept) (own, services []int) {
	y.t.Helper()
	y.must(y.killer.Look())
	y.killer.Select(func(p *proctree.Proc) bool { return p.PID == k.pid })
	y.killer.Selected(func(p *proctree.Proc) {
		switch content(fmt.Sprintf("/proc/%d/comm", p.PID)) {
		case "sleep", "stamp", "sh", "true", "run":
			services = append(services, p.PID)
		default:
			own = append(own, p.PID)
		}
	})
	return own, services
}

// sleepers are services that do nothing.
func sleepers(n int, check []string) (all []service) {
	for i := range n {
		all = append(all, service{fmt.Sprintf("j%02d", i), []string{"sleep", "infinity"}, check})
	}
	return all
}

// startAll starts all supervisors that can run so many services, and waits for these.
func (y *yard) startAll(all []keeper, n int, check []string) (runs []*kept) {
	y.t.Helper()
	for i := range all {
		if !all[i].only || n == 1 && check == nil {
			runs = append(runs, y.start(&all[i], sleepers(n, check)...))
		}
	}
	for _, run := range runs {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if _, services := y.below(run); len(services) >= n {
				break
			}
			if time.Now().After(deadline) {
				y.t.Fatalf("%s does not start %d services", run.name, n)
			}
		}
	}
	return runs
}

// inTurn is the order of a round: each first in another one.
func inTurn(all []keeper, round int) []keeper {
	at := round % len(all)
	return append(slices.Clone(all[at:]), all[:at]...)
}

// table collects figures, and prints them beside those of drover.
type table[T int | time.Duration] map[string][]T

func (f table[T]) print(t *testing.T, what string, names []keeper, show func(T) string) {
	median := func(name string) T { s := slices.Sorted(slices.Values(f[name])); return s[len(s)/2] }
	for _, k := range names {
		if len(f[k.name]) == 0 {
			t.Logf("RESULT %s: %-18s n/a", what, k.name)
			continue
		}
		t.Logf("RESULT %s: %-18s %s (%s–%s, %d runs), ratio %.2f", what, k.name, show(median(k.name)),
			show(slices.Min(f[k.name])), show(slices.Max(f[k.name])), len(f[k.name]), float64(median(k.name))/float64(median("drover")))
	}
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

// TestSupervisorStart: from the fork of the supervisor to the first instruction of the
// job's main function, less what a direct start takes.
func TestSupervisorStart(t *testing.T) {
	y, all := newYard(t), keepers(t)
	direct := keeper{name: "direct", command: func(_ *testing.T, _ string, s []service) []string { return s[0].argv }}
	with := append(slices.Clone(all), direct)
	took := table[time.Duration]{}
	for round := range 4 * *rounds {
		for _, k := range inTurn(with, round) {
			run := y.start(&k, service{name: "job", argv: []string{y.stamp}})
			at, _ := y.stamped(run, 1)
			took[k.name] = append(took[k.name], at-run.begun)
			y.clear()
		}
	}
	base := slices.Sorted(slices.Values(took["direct"]))[len(took["direct"])/2]
	t.Logf("RESULT start to exec: direct %s", millis(base))
	for name := range took {
		for i := range took[name] {
			took[name][i] -= base
		}
	}
	took.print(t, "start to exec, added", all, millis)
}

// TestSupervisorMemory: what the processes of a supervisor have while one job or 50 run.
func TestSupervisorMemory(t *testing.T) {
	y, all := newYard(t), keepers(t)
	all = slices.DeleteFunc(all, func(k keeper) bool { return k.name == "drover, delay 1ms" }) // it is the same
	for _, n := range []int{1, 50} {
		rss, pss, count := table[int]{}, table[int]{}, map[string]int{}
		for round := range *rounds {
			runs := y.startAll(inTurn(all, round), n, nil)
			time.Sleep(8 * time.Second) // what a start leaves is given back by then, or never
			for _, run := range runs {
				own, _ := y.below(run)
				rss[run.name] = append(rss[run.name], rssKiB(own))
				pss[run.name] = append(pss[run.name], pssKiB(own))
				count[run.name] = len(own)
			}
			y.clear()
		}
		show := func(kib int) string { return fmt.Sprintf("%.1f MB", float64(kib)/1024) }
		rss.print(t, fmt.Sprintf("RSS, %d jobs", n), all, show)
		pss.print(t, fmt.Sprintf("PSS, %d jobs", n), all, show)
		t.Logf("processes of the supervisors, %d jobs: %v", n, count)
	}
}

// pssKiB is the memory of processes, each shared page split among those that share it.
func pssKiB(pids []int) (sum int) {
	for _, pid := range pids {
		file, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if rest, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
				n, _ := strconv.Atoi(strings.Fields(rest)[0])
				sum += n
			}
		}
		_ = file.Close()
	}
	return sum
}

// TestSupervisorAtRest: processor time with 50 jobs checked each second, that of the
// checks included. All run at the same time.
func TestSupervisorAtRest(t *testing.T) {
	y, all := newYard(t), keepers(t)
	all = slices.DeleteFunc(all, func(k keeper) bool { return k.name == "drover, delay 1ms" })
	const rest = 30 * time.Second
	for _, check := range [][]string{{"/bin/true"}, nil} { // not the shell's own
		used := table[time.Duration]{}
		for round := range min(*rounds, 3) {
			runs := y.startAll(inTurn(all, round), 50, check)
			time.Sleep(3 * time.Second)
			before := map[string]time.Duration{}
			for _, run := range runs {
				before[run.name] = y.used(run)
			}
			time.Sleep(rest)
			for _, run := range runs {
				used[run.name] = append(used[run.name], y.used(run)-before[run.name])
			}
			y.clear()
		}
		what := "CPU at rest, 50 jobs, no checks"
		if check != nil {
			what = "CPU at rest, 50 jobs, checked every second by a command"
		}
		used.print(t, what, all, func(d time.Duration) string { return fmt.Sprintf("%.2f %%", 100*float64(d)/float64(rest)) })
	}
}

// used is the processor time of all processes of a supervisor, those included that
// they have waited for.
func (y *yard) used(k *kept) (sum time.Duration) {
	own, services := y.below(k)
	for _, pid := range append(own, services...) {
		stat := content(fmt.Sprintf("/proc/%d/stat", pid))
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		for _, at := range []int{11, 12, 13, 14} { // user and system, its own and its children's
			if at < len(fields) {
				ticks, _ := strconv.Atoi(fields[at])
				sum += time.Duration(ticks) * 10 * time.Millisecond
			}
		}
	}
	return sum
}

// TestSupervisorRestart: from the SIGKILL of a job to the first instruction of its
// next run: of one that ran for two seconds, and of one that has just been restarted.
func TestSupervisorRestart(t *testing.T) {
	y, all := newYard(t), keepers(t)
	all = slices.DeleteFunc(all, func(k keeper) bool { return k.only })
	after, again := table[time.Duration]{}, table[time.Duration]{}
	for round := range *rounds {
		var runs []*kept
		turn := inTurn(all, round)
		for i := range turn {
			runs = append(runs, y.start(&turn[i], service{name: "job", argv: []string{y.stamp}}))
		}
		for _, run := range runs {
			y.stamped(run, 1)
		}
		time.Sleep(2 * time.Second)
		for _, run := range runs {
			after[run.name] = append(after[run.name], y.crash(run, 1))
			again[run.name] = append(again[run.name], y.crash(run, 2))
		}
		y.clear()
	}
	after.print(t, "crash to restart, after 2 s", all, millis)
	again.print(t, "crash to restart, at once after that", all, millis)
}

// crash kills the n-th run of the job, and returns how long the next one took to come.
func (y *yard) crash(run *kept, n int) time.Duration {
	_, pid := y.stamped(run, n)
	began := monotonic()
	y.must(unix.Kill(pid, unix.SIGKILL))
	at, _ := y.stamped(run, n+1)
	return at - began
}
