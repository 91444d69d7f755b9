package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"drover/client"
	"drover/internal/config"
	"drover/internal/coord"
	"drover/internal/event"
	"drover/internal/render"
	"drover/internal/roll"
	"drover/internal/supervise"
)

const eventRendered = "rendered"

// templates are the files and variables that are made of keys, services and secrets: an
// engine for those that change whenever they like, and one for each roll.
type templates struct {
	engines []*render.Engine
	rolls   map[string]*roll.Roll
	byJob   map[string]map[string]string // variables of jobs: the template of each
	atFD    map[string]map[int]string    // files of jobs, by descriptor: the same
	of      map[string]*render.Engine    // by template
	ready   chan struct{}
	held    bool            // the jobs wait for them: they are the agent's first
	early   map[string]bool // jobs that do not
	log     *slog.Logger
	bus     *event.Bus
	jobs    *jobs

	mu      sync.Mutex
	awaited map[*roll.Roll]bool // somebody waits until nothing stops it
	group   sync.WaitGroup      // they
}

// rollOptions is what rolls need of the agent.
type rollOptions struct {
	co      *coordinator
	prefix  string
	healthy func(ctx context.Context, settle, timeout time.Duration) error
}

// newTemplates reads and checks the templates of a configuration; it starts nothing.
func newTemplates(cfg *config.Config, sources render.Sources, rolls rollOptions, jobs *jobs, bus *event.Bus, log *slog.Logger) (*templates, error) {
	t := &templates{
		rolls: map[string]*roll.Roll{}, byJob: map[string]map[string]string{}, atFD: map[string]map[int]string{}, of: map[string]*render.Engine{}, awaited: map[*roll.Roll]bool{},
		ready: make(chan struct{}), early: map[string]bool{}, log: log, bus: bus, jobs: jobs,
	}
	for name, job := range cfg.Jobs {
		t.early[name] = job.Early
	}
	free, together := []render.Template{}, map[string][]render.Template{}
	for _, name := range slices.Sorted(maps.Keys(cfg.Templates)) {
		c := cfg.Templates[name]
		one := templateOf(name, c)
		if c.Roll.Limit == 0 {
			free = append(free, one)
			continue
		}
		group := rollOf(name, c)
		together[group] = append(together[group], one)
		if t.rolls[group] == nil {
			t.rolls[group] = newRoll(cfg, group, c.Roll, rolls, log)
		}
	}
	for _, job := range slices.Sorted(maps.Keys(cfg.Jobs)) {
		free = append(free, t.given(job, cfg.Jobs[job])...)
	}
	all := waitOf(cfg.Wait)
	if err := t.add(free, sources, nil, all); err != nil {
		return nil, err
	}
	for _, group := range slices.Sorted(maps.Keys(together)) {
		if err := t.add(together[group], sources, t.rolls[group], all); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// given are the templates of what a job is given at its start: variables, and files at
// descriptors.
func (t *templates) given(job string, c config.Job) (list []render.Template) {
	made := func(kind, what, text string) string {
		one := templateOf(kind+"."+job+"."+what, config.Template{Content: text, OnChange: config.OnChange{Restart: job}})
		list = append(list, one)
		return one.Name
	}
	t.byJob[job], t.atFD[job] = map[string]string{}, map[int]string{}
	for _, variable := range slices.Sorted(maps.Keys(c.EnvTemplates)) {
		t.byJob[job][variable] = made("env", variable, c.EnvTemplates[variable])
	}
	for _, fd := range slices.Sorted(maps.Keys(c.FDTemplates)) {
		n, _ := strconv.Atoi(fd) // it was checked
		t.atFD[job][n] = made("fd", fd, c.FDTemplates[fd])
	}
	return list
}

// rollOf is the name of a template's roll.
func rollOf(name string, c config.Template) string {
	if c.Roll.Name != "" {
		return c.Roll.Name
	}
	return name
}

func newRoll(cfg *config.Config, name string, c config.RollOf, o rollOptions, log *slog.Logger) *roll.Roll {
	settle := max(c.Settle.Std(), slowestCheck(cfg)+time.Second)
	return roll.New(turns{o.co.kv, o.co.leases}, roll.Options{
		Prefix: o.prefix, Name: name, Instance: cfg.ID, Limit: c.Limit, TTL: cfg.Lease.TTL.Std(), Log: log,
		Healthy: func(ctx context.Context) error { return o.healthy(ctx, settle, max(c.Timeout.Std(), 2*settle)) },
	})
}

// turns is what a roll needs of a coordinator.
type turns struct {
	coord.KV
	coord.Leases
}

// slowestCheck is how long a check may need to find out that its job is not well.
func slowestCheck(cfg *config.Config) (slowest time.Duration) {
	for _, job := range cfg.Jobs {
		for _, c := range job.Checks {
			slowest = max(slowest, time.Duration(c.Threshold)*c.Every.Std()+c.Timeout.Std())
		}
	}
	return slowest
}

// add makes an engine of its own for some templates.
func (t *templates) add(list []render.Template, sources render.Sources, turn *roll.Roll, wait render.Wait) error {
	if len(list) == 0 {
		return nil
	}
	cfg := render.Config{Templates: list, Sources: sources, Wait: wait, Act: t.act, Tell: t.tell}
	if turn != nil {
		changes := map[string]render.Change{}
		for i, one := range list {
			changes[one.Name] = one.Change
			list[i].Change = render.Change{} // it is a part of the turn
		}
		cfg.Around = t.inTurn(turn, changes)
	}
	e, err := render.New(cfg)
	if err != nil {
		return err
	}
	t.engines = append(t.engines, e)
	for _, one := range list {
		t.of[one.Name] = e
	}
	return nil
}

// inTurn puts files in place in turns; changes are what follows of each template.
func (t *templates) inTurn(turn *roll.Roll, changes map[string]render.Change) func(context.Context, string, string, func() (bool, error)) (bool, error) {
	owed := map[string]bool{} // what follows has not succeeded; one call is made at a time
	return func(ctx context.Context, name, digest string, put func() (bool, error)) (changed bool, err error) {
		err = turn.Do(ctx, digest, func(ctx context.Context) error {
			if changed, err = put(); err != nil || !changed && !owed[name] {
				return err
			}
			owed[name] = true
			if err := t.act(ctx, render.Act{Change: changes[name], Templates: []string{name}}); err != nil {
				return err
			}
			delete(owed, name)
			return nil
		})
		if errors.Is(err, roll.ErrStopped) {
			t.waitFor(ctx, turn, t.of[name])
		}
		return changed, err
	}
}

// waitFor has an engine try again when nothing stops its roll any more.
func (t *templates) waitFor(ctx context.Context, turn *roll.Roll, e *render.Engine) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.awaited[turn] {
		return
	}
	t.awaited[turn] = true
	t.group.Go(func() {
		turn.Freed(ctx)
		t.mu.Lock()
		delete(t.awaited, turn)
		t.mu.Unlock()
		e.Again()
	})
}

// templateOf translates one template.
func templateOf(name string, c config.Template) render.Template {
	one := render.Template{
		Name: name, Source: c.Source, Content: c.Content, Destination: c.Destination, User: c.User, Group: c.Group, Mode: fs.FileMode(c.Mode),
		Backup: c.Backup, NoDirectories: !c.MakeDirs, OnDisk: c.OnDisk, ErrorOnMissing: c.Strict, Deny: c.Deny, Sandbox: c.Sandbox,
		Wait: waitOf(c.Wait), Deadline: c.Deadline.Std(),
		Check: c.Check.Command, CheckTimeout: c.Check.Timeout.Std(), Change: changeOf(c.OnChange),
	}
	switch {
	case len(c.Delimiters) == 2:
		one.LeftDelim, one.RightDelim = c.Delimiters[0], c.Delimiters[1]
	case c.Content != "":
		one.LeftDelim, one.RightDelim = "[[", "]]" // {{ is drover.yaml's own
	}
	return one
}

func waitOf(c config.WaitTimes) render.Wait {
	const quiet = 4 // times the least wait: the longest, if nothing is said
	w := render.Wait{Min: c.Min.Std(), Max: c.Max.Std()}
	if w.Max == 0 {
		w.Max = quiet * w.Min
	}
	return w
}

func changeOf(c config.OnChange) render.Change {
	switch {
	case c.Signal != "":
		return render.Change{Kind: render.Signal, Job: c.Signal, Signal: string(c.With)}
	case c.Restart != "":
		return render.Change{Kind: render.Restart, Job: c.Restart}
	case c.Run != "":
		return render.Change{Kind: render.Job, Job: c.Run}
	case len(c.Reload) > 0:
		return render.Change{Kind: render.Reload, Command: c.Reload, Timeout: c.Timeout.Std()}
	}
	return render.Change{}
}

// run renders until ctx ends.
func (t *templates) run(ctx context.Context) {
	var group sync.WaitGroup
	defer t.group.Wait()
	defer group.Wait()
	for _, e := range t.engines {
		group.Go(func() {
			if err := e.Run(ctx); err != nil {
				t.log.Error("render", "err", err)
			}
		})
	}
	for name, r := range t.rolls {
		group.Go(func() {
			select {
			case <-t.ready:
			case <-ctx.Done():
				return
			}
			if err := r.Back(ctx); err != nil && ctx.Err() == nil {
				t.log.Warn("the roll does not know that this instance is well", "roll", name, "err", err)
			}
		})
	}
	for _, e := range t.engines {
		select {
		case <-e.Ready():
		case <-ctx.Done():
			return
		}
	}
	close(t.ready)
	t.jobs.open()
}

// act does what follows from a change. A job that does not run will read the file when it starts.
func (t *templates) act(ctx context.Context, a render.Act) error {
	if a.First && t.held && !t.early[a.Change.Job] {
		return nil // the jobs waited for this, and have not been started with anything else
	}
	t.log.Info("templates have changed", "templates", strings.Join(a.Templates, " "), "then", string(a.Change.Kind), "job", a.Change.Job)
	if a.Change.Kind == render.Reload {
		return t.command(ctx, a.Change)
	}
	s := t.jobs.supervisor()
	if s == nil {
		return nil
	}
	var err error
	switch a.Change.Kind {
	case render.Signal:
		var sig config.Signal
		if err = sig.UnmarshalText([]byte(a.Change.Signal)); err == nil && whenReady(ctx, s, a.Change.Job) {
			err = s.Signal(a.Change.Job, sig.Number())
		}
	case render.Restart:
		if !hasProcess(s, a.Change.Job) {
			return nil
		}
		err = s.RestartJob(ctx, a.Change.Job)
	case render.Job:
		err = s.StartJob(ctx, a.Change.Job)
	}
	if errors.Is(err, supervise.ErrNotRunning) || errors.Is(err, supervise.ErrKilled) {
		return nil
	}
	return err
}

// whenReady waits while a job is on its way to being ready: a signal that it does not
// handle yet would end it. It says whether the job runs then.
func whenReady(ctx context.Context, s *supervise.Supervisor, name string) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		jobs := s.Jobs()
		i := slices.IndexFunc(jobs, func(j supervise.JobStatus) bool { return j.Name == name })
		if i < 0 || jobs[i].PID == 0 || jobs[i].Ready {
			return i >= 0 && jobs[i].PID > 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// hasProcess says whether a job has one.
func hasProcess(s *supervise.Supervisor, name string) bool {
	return slices.ContainsFunc(s.Jobs(), func(j supervise.JobStatus) bool { return j.Name == name && j.PID > 0 })
}

func (t *templates) command(ctx context.Context, c render.Change) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	group, err := supervise.Command{Argv: c.Command, Env: supervise.JobEnv(os.Environ(), nil)}.Run(ctx)
	supervise.KillGroup(group)
	return err
}

// tell makes events of what happens to templates, and logs what is wrong.
func (t *templates) tell(e render.Event) {
	switch e.Kind {
	case render.Changed:
		t.log.Info("template rendered", "template", e.Template)
		t.bus.Publish(event.Event{Name: eventRendered, Source: e.Template})
	case render.Failed, render.Unacted:
		t.log.Error("template "+string(e.Kind), "template", e.Template, "err", e.Text)
	case render.Late:
		t.log.Warn("template waits", "template", e.Template, "missing", e.Text)
	}
}

// variables are those of a job that are made of templates, with their newest values.
func (t *templates) variables(job string) []string {
	if t == nil {
		return nil
	}
	var list []string
	for _, variable := range slices.Sorted(maps.Keys(t.byJob[job])) {
		name := t.byJob[job][variable]
		if value, ok := t.of[name].Output(name); ok {
			list = append(list, variable+"="+string(value))
		}
	}
	return list
}

// files are what a job has open at descriptors, with their newest contents.
func (t *templates) files(job string) map[int]string {
	if t == nil {
		return nil
	}
	list := map[int]string{}
	for fd, name := range t.atFD[job] {
		if value, ok := t.of[name].Output(name); ok {
			list[fd] = string(value)
		}
	}
	return list
}

// holds says whether jobs must wait for templates.
func (t *templates) holds() bool { return t != nil && t.waits() != "" }

// waits says what keeps the jobs from starting; "": nothing.
func (t *templates) waits() string {
	select {
	case <-t.ready:
		return ""
	default:
	}
	for _, s := range t.status() {
		switch {
		case s.State == string(render.Blocked) && len(s.Missing) > 0:
			return "template " + s.Name + " waits for " + s.Missing[0]
		case s.Error != "":
			return "template " + s.Name + ": " + s.Error
		}
	}
	return "templates are being rendered"
}

// status tells of all templates, by name.
func (t *templates) status() []client.Template {
	if t == nil {
		return nil
	}
	var list []client.Template
	for _, e := range t.engines {
		for _, s := range e.Status() {
			one := client.Template{Name: s.Template, Destination: s.Destination, State: string(s.State), Changed: s.Changed, Since: s.Since, Error: s.Fault, Unacted: s.Unacted}
			for _, m := range s.Missing {
				one.Missing = append(one.Missing, m.String())
			}
			for _, m := range s.Stale {
				one.Stale = append(one.Stale, m.String())
			}
			list = append(list, one)
		}
	}
	slices.SortFunc(list, func(a, b client.Template) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// rollStates tells of all rolls, by name.
func (t *templates) rollStates() []client.Roll {
	if t == nil {
		return nil
	}
	var list []client.Roll
	for _, name := range slices.Sorted(maps.Keys(t.rolls)) {
		s := t.rolls[name].State()
		list = append(list, client.Roll{Name: name, State: s.Doing, Since: s.Since, Why: s.Why})
	}
	return list
}

// unsettled says what is not as it should be, or not known to be: "" is nothing. A job on
// its way from one run to the next is neither well nor ill yet.
func unsettled(jobs []client.Job) string {
	for _, job := range jobs {
		switch {
		case job.State == "waiting" || job.Held:
		case job.State == "exited":
			if job.Exit != nil && *job.Exit != 0 {
				return fmt.Sprintf("job %s ended with status %d", job.Name, *job.Exit)
			}
		case job.State != "running":
			return "job " + job.Name + " is " + job.State
		case !job.Ready:
			return "job " + job.Name + " is not ready"
		}
		for _, c := range job.Checks {
			if job.State == "running" && c.Health != "healthy" {
				return "check " + c.Name + " of job " + job.Name + " is " + c.Health
			}
		}
	}
	return ""
}

// healthyFor waits until the instance was healthy for a while; an error says why it was not, in time.
func (a *agent) healthyFor(ctx context.Context, settle, timeout time.Duration) error {
	tick := time.NewTicker(min(settle/10, 500*time.Millisecond))
	defer tick.Stop()
	begin := time.Now()
	since := begin
	for {
		now := time.Now()
		bad := unsettled(a.Status().Jobs)
		if bad != "" {
			since = now
		}
		switch {
		case bad == "" && now.Sub(since) >= settle:
			return nil
		case now.Sub(begin) >= timeout:
			return fmt.Errorf("within %s: %s", timeout, bad)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
