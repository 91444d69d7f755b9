package config

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func sorted(names []string) []string { slices.Sort(names); return names }

func (c *Config) checkJobs() error {
	main := ""
	for _, name := range slices.Sorted(maps.Keys(c.Jobs)) {
		job := c.Jobs[name]
		at := "jobs." + name
		if !validName(name) {
			return c.origin.at(at, fmt.Sprintf("job name %q is not valid", name), nameHint)
		}
		if job.Main && main != "" {
			return c.origin.at(at, fmt.Sprintf("jobs %q and %q are both main", main, name), "one job ends the instance: keep one")
		}
		if job.Main {
			main = name
		}
		for _, check := range []func(at, name string, job Job) error{c.checkJob, c.checkNumbersOf, c.checkConditions, c.checkHooks, c.checkReady, c.checkDescriptors, c.checkChecks, c.checkRegistration} {
			if err := check(at, name, job); err != nil {
				return err
			}
		}
	}
	return c.checkCycles()
}

func (c *Config) checkJob(at, name string, job Job) error {
	if len(job.Command) == 0 || job.Command[0] == "" {
		return c.origin.at(at, fmt.Sprintf("job %q has no command", name), "add command: [program, argument, …]")
	}
	for _, arg := range append(slices.Clone(job.Command), job.Stop.Command...) {
		if strings.ContainsRune(arg, 0) {
			return c.origin.at(at+".command", fmt.Sprintf("an argument of job %q holds a zero byte", name), "")
		}
	}
	if job.Dir != "" && !filepath.IsAbs(job.Dir) {
		return c.origin.at(at+".dir", fmt.Sprintf("directory %q of job %q is not absolute", job.Dir, name), "begin it with a slash")
	}
	for variable, value := range job.Env {
		if variable == "" || strings.ContainsAny(variable, "=\x00") || strings.ContainsRune(value, 0) {
			return c.origin.at(at+".env", fmt.Sprintf("variable %q of job %q is not valid", variable, name), "no '=' in its name, no zero byte")
		}
	}
	return nil
}

func (c *Config) checkNumbersOf(at, name string, job Job) error {
	for _, n := range []struct {
		path      string
		value     int
		low, high int
	}{
		{".restart.count", job.Restart.Count, 0, 1 << 30},
		{".limits.nice", job.Limits.Nice, -20, 19},
		{".limits.oom_score_adj", job.Limits.OOM, -1000, 1000},
	} {
		if n.value < n.low || n.value > n.high {
			return c.origin.at(at+n.path, fmt.Sprintf("%d is out of range for %s%s", n.value, name, n.path), fmt.Sprintf("write one from %d to %d", n.low, n.high))
		}
	}
	r := job.Restart
	for _, t := range []struct {
		path  string
		value Duration
	}{{".restart.delay", r.Delay}, {".restart.max", r.Max}, {".restart.reset", r.Reset}, {".stop.grace", job.Stop.Grace}} {
		if t.value <= 0 {
			return c.origin.at(at+t.path, fmt.Sprintf("%s%s has no time", name, t.path), "write a time such as 500ms")
		}
	}
	return nil
}

func (c *Config) checkConditions(at, name string, job Job) error {
	for _, other := range slices.Sorted(maps.Keys(job.After)) {
		path := at + ".after." + other
		on, ok := c.Jobs[other]
		switch {
		case !ok:
			return c.origin.at(path, fmt.Sprintf("job %q waits for %q, which is no job", name, other), c.meantJob(other))
		case other == name:
			return c.origin.at(path, fmt.Sprintf("job %q waits for itself", name), "take it out")
		case on.hook():
			return c.origin.at(path, fmt.Sprintf("job %q waits for %q, which runs only when others stop", name, other), "take it out")
		case job.After[other] == WasHealthy && len(on.Checks) == 0:
			return c.origin.at(path, fmt.Sprintf("job %q waits until %q is healthy, which has no checks", name, other), "give it checks, or write ready or started")
		}
	}
	for key, causes := range map[string]Causes{".on": job.On, ".once": job.Once} {
		for i, cause := range causes {
			kind := events[cause.Name]
			_, isJob := c.Jobs[cause.Source]
			_, isWatch := c.Watches[cause.Source]
			isJob = isJob || isWatch && (cause.Name == "healthy" || cause.Name == "unhealthy")
			if cause.Name == "changed" && cause.Source != "" && !isWatch {
				return c.origin.at(fmt.Sprintf("%s%s[%d]", at, key, i), fmt.Sprintf("event %s is of no watch", cause), c.meantWatch(cause.Source))
			}
			if kind == ofJob && cause.Source != "" && !isJob {
				return c.origin.at(fmt.Sprintf("%s%s[%d]", at, key, i), fmt.Sprintf("event %s is of no job", cause), c.meantJob(cause.Source))
			}
			if cause.Name == "maintenance" && cause.Source != "" && cause.Source != "on" && cause.Source != "off" {
				return c.origin.at(fmt.Sprintf("%s%s[%d]", at, key, i), fmt.Sprintf("there is no event %s", cause), "write maintenance:on or maintenance:off")
			}
		}
	}
	if job.Main && job.Every.Set() {
		return c.origin.at(at+".every", fmt.Sprintf("job %q is main and runs by turns: its first end would be the instance's", name), "make another job main, or none")
	}
	return nil
}

// meantJob is the hint for a name that is no job's.
func (c *Config) meantJob(name string) string {
	names := slices.Sorted(maps.Keys(c.Jobs))
	if hint := meant(name, names); hint != "" {
		return hint
	}
	return "the jobs are " + strings.Join(names, ", ")
}

// meantWatch is the hint for a name that is no watch's.
func (c *Config) meantWatch(name string) string {
	names := slices.Sorted(maps.Keys(c.Watches))
	if hint := meant(name, names); hint != "" {
		return hint
	}
	if len(names) == 0 {
		return "add it below watches"
	}
	return "the watches are " + strings.Join(names, ", ")
}

// hook: the job runs as part of the stop of others.
func (j Job) hook() bool { return len(j.BeforeStop)+len(j.AfterStop) > 0 }

func (c *Config) checkHooks(at, name string, job Job) error {
	for key, of := range map[string]Names{".before_stop": job.BeforeStop, ".after_stop": job.AfterStop} {
		for _, other := range of {
			on, ok := c.Jobs[other]
			switch {
			case !ok:
				return c.origin.at(at+key, fmt.Sprintf("job %q belongs to the stop of %q, which is no job", name, other), c.meantJob(other))
			case on.hook():
				return c.origin.at(at+key, fmt.Sprintf("job %q belongs to the stop of %q, which itself runs only when others stop", name, other), "")
			}
		}
	}
	if !job.hook() {
		return nil
	}
	if job.Main || len(job.After)+len(job.On)+len(job.Once) > 0 || job.Every.Set() {
		return c.origin.at(at, fmt.Sprintf("job %q runs when others stop, so nothing else can start it", name), "take out main, after, on, once and every, or before_stop and after_stop")
	}
	return nil
}

func (c *Config) checkReady(at, name string, job Job) error {
	r := job.Ready
	var ways []string
	for way, given := range map[string]bool{"fd": r.FD != 0, "notify": r.Notify, "log": r.Log != "", "check": r.Check != ""} {
		if given {
			ways = append(ways, way)
		}
	}
	switch {
	case len(ways) > 1:
		return c.origin.at(at+".ready", fmt.Sprintf("job %q tells in more than one way that it is ready (%s)", name, strings.Join(sorted(ways), ", ")), "keep one")
	case r.FD != 0 && (r.FD < 3 || r.FD > 1023):
		return c.origin.at(at+".ready.fd", fmt.Sprintf("file descriptor %d of job %q is out of range", r.FD, name), "write one from 3 to 1023")
	}
	if _, ok := job.Checks[r.Check]; r.Check != "" && !ok {
		return c.origin.at(at+".ready.check", fmt.Sprintf("job %q is ready by check %q, which it does not have", name, r.Check), "")
	}
	return nil
}

// checkDescriptors checks those that a job has files at.
func (c *Config) checkDescriptors(at, name string, job Job) error {
	for _, fd := range slices.Sorted(maps.Keys(job.FDTemplates)) {
		at := at + ".fd_templates." + fd
		n, err := strconv.Atoi(fd)
		switch {
		case err != nil || strconv.Itoa(n) != fd || n < 3 || n > 1023:
			return c.origin.at(at, fmt.Sprintf("file descriptor %s of job %q is out of range", fd, name), "write one from 3 to 1023")
		case n == job.Ready.FD:
			return c.origin.at(at, fmt.Sprintf("job %q tells at file descriptor %d that it is ready", name, n), "take another one")
		}
	}
	return nil
}

// The bounds of a check's times.
const (
	minEvery  = Duration(100 * time.Millisecond)
	maxChecks = 1000
)

func (c *Config) checkChecks(at, name string, job Job) error {
	if len(job.Checks) > maxChecks {
		return c.origin.at(at+".checks", fmt.Sprintf("job %q has %d checks", name, len(job.Checks)), fmt.Sprintf("at most %d", maxChecks))
	}
	if len(job.Checks) > 0 && job.hook() {
		return c.origin.at(at+".checks", fmt.Sprintf("job %q runs only when others stop, and has checks", name), "take them out")
	}
	for _, key := range slices.Sorted(maps.Keys(job.Checks)) {
		check, path := job.Checks[key], at+".checks."+key
		if !validName(key) {
			return c.origin.at(path, fmt.Sprintf("check name %q is not valid", key), nameHint)
		}
		var kinds []string
		for kind, given := range map[string]bool{"http": check.HTTP.URL != "", "tcp": check.TCP != "", "exec": len(check.Exec) > 0, "grpc": check.GRPC.Address != ""} {
			if given {
				kinds = append(kinds, kind)
			}
		}
		switch {
		case len(kinds) != 1:
			return c.origin.at(path, fmt.Sprintf("check %q of job %q has %d kinds", key, name, len(kinds)), "give it one of http, tcp, exec and grpc")
		case check.Every < minEvery:
			return c.origin.at(path+".every", fmt.Sprintf("interval %s of check %q is too short", check.Every, key), fmt.Sprintf("write %s or more", minEvery))
		case check.Timeout <= 0:
			return c.origin.at(path+".timeout", fmt.Sprintf("check %q has no time", key), "write a timeout such as 3s")
		case check.Threshold < 1:
			return c.origin.at(path+".threshold", fmt.Sprintf("threshold %d of check %q is out of range", check.Threshold, key), "write 1 or more")
		}
		if err := c.checkTarget(path, check); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkTarget(path string, check Check) error {
	for key, address := range map[string]string{".tcp": check.TCP, ".grpc": check.GRPC.Address} {
		if address == "" {
			continue
		}
		if err := checkAddress(address); err != "" {
			return c.origin.at(path+key, err, "write host:port, as localhost:5432")
		}
	}
	if check.HTTP.URL == "" {
		return nil
	}
	u, err := url.Parse(check.HTTP.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return c.origin.at(path+".http", "the check's URL is not one of HTTP", "write http://host:port/path")
	}
	for _, status := range check.HTTP.Status {
		if !regexp.MustCompile(`^[1-5]([0-9][0-9]|xx)$`).MatchString(status) {
			return c.origin.at(path+".http", fmt.Sprintf("status %q is none", status), "write 204, or 2xx for all from 200 to 299")
		}
	}
	return nil
}

// checkAddress says what is wrong with host:port; "": nothing.
func checkAddress(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Sprintf("address %q is not host:port", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Sprintf("port %q of address %q is none", port, address)
	}
	return ""
}

// checkCycles finds jobs that wait for one another.
func (c *Config) checkCycles() error {
	const open, done = 1, 2
	seen := map[string]int{}
	var visit func(name string, way []string) error
	visit = func(name string, way []string) error {
		way = append(way, name)
		switch seen[name] {
		case done:
			return nil
		case open:
			return c.origin.at("jobs."+name+".after", "jobs wait for one another: "+strings.Join(way[slices.Index(way, name):], " after "), "take one of these conditions out")
		}
		seen[name] = open
		for _, other := range slices.Sorted(maps.Keys(c.Jobs[name].After)) {
			if err := visit(other, way); err != nil {
				return err
			}
		}
		seen[name] = done
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(c.Jobs)) {
		if err := visit(name, nil); err != nil {
			return err
		}
	}
	return nil
}

// metricName is what Prometheus takes, less the colon, which is for recording rules.
var metricName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

func (c *Config) checkMetrics() error {
	for _, name := range slices.Sorted(maps.Keys(c.Metrics)) {
		m, at := c.Metrics[name], "metrics."+name
		switch {
		case len(name) > 128, !metricName.MatchString(name):
			return c.origin.at(at, fmt.Sprintf("metric name %q is not valid", name), "use letters, digits and '_', and begin with a letter")
		case strings.HasPrefix(name, "drover_") || strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_"):
			return c.origin.at(at, fmt.Sprintf("metric name %q has a prefix of the agent's own", name), "begin it with the application's name")
		case m.Every < MinTTL:
			return c.origin.at(at+".every", fmt.Sprintf("interval %s of metric %q is too short", m.Every, name), "write 1s or more")
		case m.Timeout <= 0:
			return c.origin.at(at+".timeout", fmt.Sprintf("metric %q has no time", name), "write a timeout such as 10s")
		case len(m.Buckets) > 0 && m.Type != MetricHistogram:
			return c.origin.at(at+".buckets", fmt.Sprintf("metric %q has buckets, and is a %s", name, m.Type), "write type: histogram, or take them out")
		case !slices.IsSorted(m.Buckets) || len(slices.Compact(slices.Clone(m.Buckets))) != len(m.Buckets):
			return c.origin.at(at+".buckets", fmt.Sprintf("buckets of metric %q do not rise", name), "write each above the one before")
		}
	}
	return nil
}

func (c *Config) checkListen() error {
	if c.Listen == "" {
		return nil
	}
	if err := checkAddress(c.Listen); err != "" {
		return c.origin.at("listen", err, "write host:port, as 127.0.0.1:9464 or :9464")
	}
	return nil
}
