package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Job is one process that the agent supervises.
type Job struct {
	Command      Command           `yaml:"command" jsonschema:"required" doc:"What to run: a list, or a string for /bin/sh."`
	Main         bool              `yaml:"main" doc:"The end of this job ends the instance, with its status."`
	Dir          string            `yaml:"dir" doc:"Working directory, an absolute path. Default: the agent's."`
	Env          map[string]string `yaml:"env" doc:"Variables added to the agent's environment."`
	EnvTemplates map[string]string `yaml:"env_templates" doc:"Variables whose values are templates with the delimiters [[ and ]], of keys, services and secrets. The job is restarted when one changes."`
	FDTemplates  map[string]string `yaml:"fd_templates" doc:"The same for file descriptors, 3 to 1023: what is made is a file in memory that the job has open there, at its start."`
	Early        bool              `yaml:"early" doc:"It does not wait until the templates have been rendered: they may need it."`
	User         string            `yaml:"user" doc:"User to run as, name or number. Default: the agent's."`
	Group        string            `yaml:"group" doc:"Group to run as, name or number. Default: the user's."`
	Limits       JobLimits         `yaml:"limits" doc:"Resource limits of the job's processes."`
	Stdin        Stdin             `yaml:"stdin" doc:"none: /dev/null. inherit: the agent's own."`
	Output       Output            `yaml:"output" doc:"What becomes of the lines that it writes. auto: prefix if there are several jobs, else raw. prefix: the job's name before each. raw: as they are. json: each as a field of a JSON object, and a line that is one gets the job's name. none: nothing is shown."`

	Timeout Duration `yaml:"timeout" doc:"A run that takes longer is stopped and counts as failed, with status 124. 0: none; a run that the end of the instance waits for has 30s then."`
	Restart Restart  `yaml:"restart" doc:"When a run that ended is followed by another: never, on-failure or always, or a mapping."`
	Stop    Stop     `yaml:"stop" doc:"How the job is asked to end."`
	Signals Signals  `yaml:"signals" doc:"Signals to pass on to it as others, such as TERM: QUIT."`

	After      map[string]Milestone `yaml:"after" doc:"It starts when each of these jobs has come so far: started, ready, healthy, completed or succeeded."`
	On         Causes               `yaml:"on" doc:"It runs at each of these events, not from the start. An event is a name, or name:source: exit:db."`
	Once       Causes               `yaml:"once" doc:"It runs at the first of these events, and never again."`
	Every      Turn                 `yaml:"every" doc:"It runs at this interval, or at the times of a cron expression. A turn that comes while it still runs is left out."`
	BeforeStop Names                `yaml:"before_stop" doc:"It runs, to its end, before these jobs are asked to stop."`
	AfterStop  Names                `yaml:"after_stop" doc:"It runs, to its end, after these jobs have ended for good."`

	Ready   Ready            `yaml:"ready" doc:"How it tells that it is ready. Default: it is as soon as it runs."`
	Checks  map[string]Check `yaml:"checks" doc:"Checks of its health, by name."`
	Service Registration     `yaml:"service" doc:"The service that it is, for the catalog: a name, or a mapping. It is registered when it is healthy, and taken out before it is asked to stop."`
}

// JobLimits bounds a job's processes, by setrlimit(2) and beside it; "" and 0: as the agent's.
type JobLimits struct {
	NoFile  Limit `yaml:"nofile" doc:"Open files. A number, or unlimited, as for all limits."`
	NProc   Limit `yaml:"nproc" doc:"Processes of its user."`
	Core    Limit `yaml:"core" doc:"Bytes of a core file."`
	MemLock Limit `yaml:"memlock" doc:"Bytes of locked memory."`
	Stack   Limit `yaml:"stack" doc:"Bytes of stack."`
	FSize   Limit `yaml:"fsize" doc:"Bytes of a file that it writes."`
	AS      Limit `yaml:"as" doc:"Bytes of address space."`
	CPU     Limit `yaml:"cpu" doc:"Seconds of processor time."`
	Nice    int   `yaml:"nice" doc:"Nice value, -20 to 19."`
	OOM     int   `yaml:"oom_score_adj" doc:"How willingly the kernel kills it when memory is short, -1000 to 1000."`
}

// Restart says when a run that ended is followed by another.
type Restart struct {
	Policy Policy   `yaml:"policy" doc:"never, on-failure or always."`
	Count  int      `yaml:"count" doc:"At most so many times in a row. 0: no limit."`
	Delay  Duration `yaml:"delay" doc:"Before the first restart; doubled with each, give or take a fifth."`
	Max    Duration `yaml:"max" doc:"The longest delay."`
	Reset  Duration `yaml:"reset" doc:"After a run of this length count and delay begin again."`
}

func (Restart) short() string { return "policy" }

// Stop says how a job is asked to end.
type Stop struct {
	Signal  Signal   `yaml:"signal" doc:"Signal that asks the job to end, as TERM or SIGTERM."`
	Command Command  `yaml:"command" doc:"Command that asks it to end, in place of the signal, in the job's environment and as its user. If it fails the signal is sent."`
	Grace   Duration `yaml:"grace" doc:"Time between that and KILL."`
}

// Ready says how a job tells that it is ready; at most one way is given.
type Ready struct {
	FD      int      `yaml:"fd" doc:"It writes a line to this file descriptor, 3 to 1023."`
	Notify  bool     `yaml:"notify" doc:"It sends READY=1 to the socket in NOTIFY_SOCKET."`
	Log     Pattern  `yaml:"log" doc:"A line of its output matches this regular expression."`
	Check   string   `yaml:"check" doc:"The check of this name passes."`
	Timeout Duration `yaml:"timeout" doc:"If it is not ready in this time the run counts as failed. 0: no limit."`
}

// Tells says whether the job tells that it is ready.
func (r Ready) Tells() bool { return r.FD > 0 || r.Notify || r.Log != "" || r.Check != "" }

// Check is one check of a job's health; exactly one kind is given.
type Check struct {
	HTTP        HTTPCheck `yaml:"http" doc:"A request must be answered with a good status: a URL, or a mapping."`
	TCP         string    `yaml:"tcp" doc:"A connection must open: host:port."`
	Exec        Command   `yaml:"exec" doc:"A command must end with 0, in the job's environment and as its user."`
	GRPC        GRPCCheck `yaml:"grpc" doc:"The gRPC health service must say SERVING: host:port, or a mapping."`
	Level       Level     `yaml:"level" doc:"alive: it is needed to live. ready: it is needed to serve."`
	Every       Duration  `yaml:"every" doc:"How often it is made. A check that still runs is not made again meanwhile."`
	Timeout     Duration  `yaml:"timeout" doc:"After this long it has failed."`
	Threshold   int       `yaml:"threshold" doc:"So many failures in a row make the job unhealthy; one success makes it healthy."`
	StartPeriod Duration  `yaml:"start_period" doc:"Failures in this time after the job's start do not count."`
	OnFailure   OnFailure `yaml:"on_failure" doc:"What to do when the job becomes unhealthy by it. ignore: tell. restart: stop the job and start it again. shutdown: end the instance."`
}

// HTTPCheck is a request.
type HTTPCheck struct {
	URL      string            `yaml:"url" doc:"http:// or https://."`
	Method   string            `yaml:"method" doc:"GET, if nothing else is said."`
	Headers  map[string]string `yaml:"headers" doc:"Headers to send."`
	Status   Names             `yaml:"status" doc:"Good statuses, such as 204 or 2xx. Default: 2xx and 3xx."`
	Body     Pattern           `yaml:"body" doc:"Regular expression that the answer's first 64 KiB must match."`
	CA       string            `yaml:"ca" doc:"File of the certificates to trust. Default: the system's."`
	Insecure bool              `yaml:"insecure" doc:"Do not verify the server's certificate."`
}

func (HTTPCheck) short() string { return "url" }

// GRPCCheck is a question to grpc.health.v1.Health.
type GRPCCheck struct {
	Address string `yaml:"address" doc:"host:port."`
	Service string `yaml:"service" doc:"The service to ask for. Default: the server as a whole."`
	TLS     bool   `yaml:"tls" doc:"Speak TLS, and verify the server's certificate."`
	CA      string `yaml:"ca" doc:"File of the certificates to trust. Default: the system's."`
}

func (GRPCCheck) short() string { return "address" }

// Metric is one custom metric, which a command or the application gives its values.
type Metric struct {
	Type    MetricType `yaml:"type" doc:"gauge: the last value. counter: the sum. histogram: how often which."`
	Help    string     `yaml:"help" doc:"What it means, and its unit."`
	Command Command    `yaml:"command" doc:"Command that prints a number. Without it only drover put-metric gives values."`
	Every   Duration   `yaml:"every" doc:"How often the command runs. At least 1s."`
	Timeout Duration   `yaml:"timeout" doc:"After this long it is killed."`
	Buckets []Number   `yaml:"buckets" doc:"Upper bounds of a histogram's buckets, rising."`
}

// DefaultJob is a job that only has a command.
func DefaultJob() Job {
	return Job{
		Stdin: StdinNone, Output: OutputAuto,
		Restart: Restart{Policy: RestartNever, Delay: Duration(500 * time.Millisecond), Max: Duration(30 * time.Second), Reset: Duration(30 * time.Second)},
		Stop:    Stop{Signal: DefaultSignal, Grace: DefaultGrace},
		Ready:   Ready{Timeout: Duration(time.Minute)},
		Service: Registration{TTL: DefaultCatalogTTL},
	}
}

// DefaultHealth is a check that only has its kind.
func DefaultHealth() Check {
	return Check{
		HTTP: HTTPCheck{Method: "GET"}, Level: LevelReady, Every: Duration(10 * time.Second),
		Timeout: Duration(3 * time.Second), Threshold: 3, OnFailure: FailureIgnore,
	}
}

// DefaultMetric is a metric that only has a name.
func DefaultMetric() Metric {
	return Metric{Type: MetricGauge, Every: Duration(30 * time.Second), Timeout: Duration(10 * time.Second)}
}

// Main returns the name and the job that is main; ok is false if none is.
func (c *Config) Main() (name string, job Job, ok bool) {
	for name, job := range c.Jobs {
		if job.Main {
			return name, job, true
		}
	}
	return "", Job{}, false
}

// Names is a list of names; a single one needs no brackets.
type Names []string

// UnmarshalText makes a list of one.
func (n *Names) UnmarshalText(text []byte) error {
	*n = Names{string(text)}
	return nil
}

// Signals maps the signals that come to those that a job gets.
type Signals map[Signal]Signal

// Causes is a list of events; a single one needs no brackets.
type Causes []Cause

// UnmarshalText makes a list of one.
func (c *Causes) UnmarshalText(text []byte) error {
	var one Cause
	if err := one.UnmarshalText(text); err != nil {
		return err
	}
	*c = Causes{one}
	return nil
}

// Cause names an event: its name, and what it happened to; "": anything.
type Cause struct{ Name, Source string }

// String is the text that UnmarshalText reads.
func (c Cause) String() string {
	if c.Source == "" {
		return c.Name
	}
	return c.Name + ":" + c.Source
}

// UnmarshalText reads name or name:source.
func (c *Cause) UnmarshalText(text []byte) error {
	name, source, given := strings.Cut(string(text), ":")
	if given && (source == "" || strings.TrimSpace(source) != source) {
		return valueError{fmt.Sprintf("event %q has no source after its colon", text), "write name:source without blanks, as exit:db"}
	}
	kind, ok := events[name]
	if !ok {
		known := eventNames()
		hint := meant(name, known)
		if hint == "" {
			hint = "known: " + strings.Join(known, ", ")
		}
		return valueError{fmt.Sprintf("there is no event %q", name), hint}
	}
	if given && kind == ofInstance {
		return valueError{fmt.Sprintf("event %q has no source", name), "write " + name}
	}
	*c = Cause{name, source}
	if name == "signal" {
		var sig Signal
		if err := sig.UnmarshalText([]byte(source)); err != nil {
			return err
		}
		if sig != "HUP" && sig != "USR1" && sig != "USR2" {
			return valueError{fmt.Sprintf("signal %s starts no job", sig), "HUP, USR1 and USR2 can"}
		}
		c.Source = string(sig)
	}
	return nil
}

// eventKind is what an event happens to.
type eventKind int

const (
	ofInstance eventKind = iota
	ofJob
	ofOther // a watch, a signal, a webhook, a role
)

// events are those that can start a job.
var events = map[string]eventKind{
	"started": ofJob, "ready": ofJob, "healthy": ofJob, "unhealthy": ofJob, "exit": ofJob, "succeeded": ofJob,
	"failed": ofJob, "stopping": ofJob, "stopped": ofJob,
	"startup": ofInstance, "shutdown": ofInstance, "claimed": ofInstance, "restored": ofInstance, "lost": ofInstance,
	"committed": ofInstance, "test-passed": ofInstance, "test-failed": ofInstance, "rendered": ofOther, "synced": ofOther,
	"changed": ofOther, "signal": ofOther, "webhook": ofOther, "maintenance": ofOther, "role": ofOther,
	"primary": ofOther, "replica": ofOther, "demoted": ofOther,
}

func eventNames() []string {
	var names []string
	for name := range events {
		names = append(names, name)
	}
	return sorted(names)
}

// Turn is when a job runs again: an interval, or the times of a cron expression.
type Turn struct {
	text     string
	Interval time.Duration // 0: none, or by Schedule
	Schedule cron.Schedule // nil: none, or by Interval
}

// Set says whether there are any turns.
func (t Turn) Set() bool { return t.text != "" }

// String is the text that was given.
func (t Turn) String() string { return t.text }

// UnmarshalText reads a duration, a cron expression of five fields, or @daily and the like.
func (t *Turn) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	var d Duration
	if !strings.Contains(s, " ") && !strings.HasPrefix(s, "@") {
		if err := d.UnmarshalText([]byte(s)); err != nil {
			return err
		}
		if d < MinTurn {
			return valueError{fmt.Sprintf("interval %s is too short", d), fmt.Sprintf("write %s or more", MinTurn)}
		}
		*t = Turn{text: s, Interval: d.Std()}
		return nil
	}
	schedule, err := parseCron(s)
	if err != nil {
		return valueError{fmt.Sprintf("%q is not a cron expression: %v", s, err), `write five fields, as "*/5 * * * *", or @hourly, @daily, @weekly, @monthly`}
	}
	*t = Turn{text: s, Schedule: schedule}
	return nil
}

// MinTurn keeps a job from running all the time.
const MinTurn = Duration(100 * time.Millisecond)

// parseCron does not let the parser's panics through: what it reads comes from outside.
func parseCron(s string) (schedule cron.Schedule, err error) {
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("it cannot be read")
		}
	}()
	return cron.ParseStandard(s)
}

// Pattern is a regular expression (RE2).
type Pattern string

// UnmarshalText takes what compiles.
func (p *Pattern) UnmarshalText(text []byte) error {
	if _, err := regexp.Compile(string(text)); err != nil {
		return valueError{fmt.Sprintf("%q is not a regular expression", text), strings.TrimPrefix(err.Error(), "error parsing regexp: ")}
	}
	*p = Pattern(text)
	return nil
}

// Limit is a number or "unlimited"; "": as it is.
type Limit string

// UnmarshalText takes a whole number, or unlimited.
func (l *Limit) UnmarshalText(text []byte) error {
	s := string(text)
	if _, err := strconv.ParseUint(s, 10, 63); err != nil && s != "unlimited" {
		return valueError{fmt.Sprintf("%q is not a limit", s), "write a whole number, or unlimited"}
	}
	*l = Limit(s)
	return nil
}

// Number is any finite number.
type Number float64

// UnmarshalText reads a number.
func (n *Number) UnmarshalText(text []byte) error {
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil || v != v || v > 1e300 || v < -1e300 {
		return valueError{fmt.Sprintf("%q is not a number", text), ""}
	}
	*n = Number(v)
	return nil
}

// The words of jobs.
type (
	Stdin      string
	Output     string
	Policy     string
	Milestone  string
	Level      string
	OnFailure  string
	MetricType string
)

// Their values.
const (
	StdinNone       Stdin      = "none"
	StdinInherit    Stdin      = "inherit"
	OutputAuto      Output     = "auto"
	OutputPrefix    Output     = "prefix"
	OutputRaw       Output     = "raw"
	OutputJSON      Output     = "json"
	OutputNone      Output     = "none"
	RestartNever    Policy     = "never"
	RestartFailure  Policy     = "on-failure"
	RestartAlways   Policy     = "always"
	WasStarted      Milestone  = "started"
	WasReady        Milestone  = "ready"
	WasHealthy      Milestone  = "healthy"
	HasCompleted    Milestone  = "completed"
	HasSucceeded    Milestone  = "succeeded"
	LevelAlive      Level      = "alive"
	LevelReady      Level      = "ready"
	FailureIgnore   OnFailure  = "ignore"
	FailureRestart  OnFailure  = "restart"
	FailureShutdown OnFailure  = "shutdown"
	MetricGauge     MetricType = "gauge"
	MetricCounter   MetricType = "counter"
	MetricHistogram MetricType = "histogram"
)

func (Stdin) choices() []string { return words(StdinNone, StdinInherit) }
func (Output) choices() []string {
	return words(OutputAuto, OutputPrefix, OutputRaw, OutputJSON, OutputNone)
}
func (Policy) choices() []string { return words(RestartNever, RestartFailure, RestartAlways) }
func (Milestone) choices() []string {
	return words(WasStarted, WasReady, WasHealthy, HasCompleted, HasSucceeded)
}
func (Level) choices() []string      { return words(LevelAlive, LevelReady) }
func (OnFailure) choices() []string  { return words(FailureIgnore, FailureRestart, FailureShutdown) }
func (MetricType) choices() []string { return words(MetricGauge, MetricCounter, MetricHistogram) }

// UnmarshalText takes one of the words.
func (s *Stdin) UnmarshalText(text []byte) error      { return choose(s, text) }
func (o *Output) UnmarshalText(text []byte) error     { return choose(o, text) }
func (p *Policy) UnmarshalText(text []byte) error     { return choose(p, text) }
func (m *Milestone) UnmarshalText(text []byte) error  { return choose(m, text) }
func (l *Level) UnmarshalText(text []byte) error      { return choose(l, text) }
func (o *OnFailure) UnmarshalText(text []byte) error  { return choose(o, text) }
func (m *MetricType) UnmarshalText(text []byte) error { return choose(m, text) }
