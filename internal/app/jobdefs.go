package app

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"drover/internal/config"
	"drover/internal/supervise"
)

// defineJobs translates the jobs of a configuration, the main one last.
func defineJobs(cfg *config.Config, journals *supervise.Journals, stdout, stderr io.Writer) ([]supervise.Job, error) {
	var list []supervise.Job
	names := jobNames(cfg)
	for _, name := range names {
		job, err := defineJob(name, cfg.Jobs[name], cfg)
		if err != nil {
			return nil, err
		}
		give(&job, cfg.Jobs[name], len(names) > 1, stdout, stderr)
		if !isTerminal(job.Stdout) {
			job.Journal = journals.Of(name)
		}
		list = append(list, job)
	}
	return list, nil
}

// jobNames lists the jobs by name, the main one last.
func jobNames(cfg *config.Config) []string {
	main, _, _ := cfg.Main()
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(cfg.Jobs)), func(name string) bool { return name == main })
	if main != "" {
		names = append(names, main)
	}
	return names
}

func defineJob(name string, c config.Job, cfg *config.Config) (supervise.Job, error) {
	extra := []string{"DROVER_SOCKET=" + cfg.Socket}
	for _, k := range slices.Sorted(maps.Keys(c.Env)) {
		extra = append(extra, k+"="+c.Env[k])
	}
	user, err := supervise.ResolveUser(c.User, c.Group)
	if err != nil {
		return supervise.Job{}, fmt.Errorf("job %s: %w", name, err)
	}
	job := supervise.Job{
		Name: name, Command: c.Command, Dir: c.Dir, Main: c.Main, User: user, Limits: limitsOf(c.Limits),
		Env:        supervise.JobEnv(os.Environ(), extra),
		Restart:    restartOf(c.Restart),
		Timeout:    c.Timeout.Std(),
		Early:      c.Early,
		After:      map[string]supervise.Milestone{},
		On:         causesOf(c.On),
		Once:       causesOf(c.Once),
		Every:      c.Every.Interval,
		BeforeStop: c.BeforeStop, AfterStop: c.AfterStop,
		Ready:      readinessOf(c.Ready),
		StopSignal: c.Stop.Signal.Number(), StopCommand: c.Stop.Command, StopGrace: c.Stop.Grace.Std(), Drain: drainOf(c.Service),
		Signals: map[unix.Signal]unix.Signal{},
	}
	if c.Every.Schedule != nil {
		job.Schedule = c.Every.Schedule
	}
	for from, to := range c.Signals {
		job.Signals[from.Number()] = to.Number()
	}
	if to, ok := c.Signals["TERM"]; ok && c.Stop.Signal == config.DefaultSignal {
		job.StopSignal = to.Number() // the end comes to the instance as TERM
	}
	for other, is := range c.After {
		job.After[other] = milestones[is]
	}
	job.Version, err = version(c, job.Env, user)
	return job, err
}

// version tells definitions apart.
func version(c config.Job, env []string, user *supervise.User) (string, error) {
	// They change without the job, but for how long its stop waits.
	c.Checks, c.Service = nil, config.Registration{Drain: c.Service.Drain}
	text, err := json.Marshal(struct {
		Job   config.Job
		Every string
		Env   []string
		User  *supervise.User
	}{c, c.Every.String(), env, user})
	if err != nil {
		return "", fmt.Errorf("describe job: %w", err)
	}
	return string(text), nil
}

var milestones = map[config.Milestone]supervise.Milestone{
	config.WasStarted: supervise.WasStarted, config.WasReady: supervise.WasReady, config.WasHealthy: supervise.WasHealthy,
	config.HasCompleted: supervise.HasCompleted, config.HasSucceeded: supervise.HasSucceeded,
}

var policies = map[config.Policy]supervise.Policy{
	config.RestartNever: supervise.Never, config.RestartFailure: supervise.OnFailure, config.RestartAlways: supervise.Always,
}

func restartOf(c config.Restart) supervise.Restart {
	return supervise.Restart{Policy: policies[c.Policy], Count: c.Count, Delay: c.Delay.Std(), Max: c.Max.Std(), Reset: c.Reset.Std()}
}

func causesOf(list config.Causes) []supervise.Cause {
	var causes []supervise.Cause
	for _, c := range list {
		causes = append(causes, supervise.Cause{Name: c.Name, Source: c.Source})
	}
	return causes
}

func readinessOf(c config.Ready) supervise.Readiness {
	r := supervise.Readiness{FD: c.FD, Notify: c.Notify, Told: c.Check != ""}
	if c.Log != "" {
		r.Log = regexp.MustCompile(string(c.Log)) // checked when it was read
	}
	if c.Tells() {
		r.Limit = c.Timeout.Std()
	}
	return r
}

func limitsOf(c config.JobLimits) supervise.Limits {
	l := supervise.Limits{Nice: c.Nice, OOM: c.OOM, Resources: map[int]uint64{}}
	for resource, limit := range map[int]config.Limit{
		unix.RLIMIT_NOFILE: c.NoFile, unix.RLIMIT_NPROC: c.NProc, unix.RLIMIT_CORE: c.Core, unix.RLIMIT_MEMLOCK: c.MemLock,
		unix.RLIMIT_STACK: c.Stack, unix.RLIMIT_FSIZE: c.FSize, unix.RLIMIT_AS: c.AS, unix.RLIMIT_CPU: c.CPU,
	} {
		if limit == "unlimited" {
			l.Resources[resource] = unix.RLIM_INFINITY
		} else if n, err := strconv.ParseUint(string(limit), 10, 63); err == nil {
			l.Resources[resource] = n
		}
	}
	return l
}

// give connects a job's standard files. What a person sits at is given as it is;
// everything else goes through the agent, which keeps the newest lines.
func give(job *supervise.Job, c config.Job, several bool, stdout, stderr io.Writer) {
	if c.Stdin == config.StdinInherit {
		job.Stdin = os.Stdin
	}
	job.Stdout, job.Stderr = stdout, stderr
	if !(job.Stdin != nil && isTerminal(stdout)) {
		job.Stdout, job.Stderr = through{stdout}, through{stderr}
	}
	switch output := c.Output; {
	case output == config.OutputNone:
		job.Stdout, job.Stderr = nil, nil
	case output == config.OutputJSON:
		job.Form = supervise.FormJSON
	case output == config.OutputPrefix, output == config.OutputAuto && several:
		job.Form, job.Prefix = supervise.FormPrefix, job.Name+": "
	}
}

// through keeps a file from being given to the job itself.
type through struct{ io.Writer }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
