// Package render keeps files that are made of templates: it watches what a template reads,
// renders it when all of that is known, checks the result, puts it in place and says what
// should follow.
//
// It promises:
//
//   - A file is replaced as a whole, only by the output of a template to which nothing was
//     missing, and only after its check command agreed; else the old file stays.
//   - That a coordinator or a source of secrets is away changes nothing: the last values
//     stay in use, and what blocks a template is told (Status).
//   - What follows from a change (Config.Act) is asked for once per pass for all templates
//     that share it, in their order, one at a time, after all files of the pass are in place, and
//     again until it succeeds. Rendering does not wait for it.
//   - A template that reads secrets is not written to a disk unless it is told so. No
//     status, error or event has the value of a secret in it.
//
// It leaves to others how a job is reloaded and commands are run, and retrying what a port
// retries itself. language has the functions, target the files.
package render

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"drover/internal/coord"
	"drover/internal/render/gather"
	"drover/internal/render/language"
	"drover/internal/render/target"
	"drover/internal/secret"
)

// Wait is how long to wait for quiet after a change: Min since the last, at most Max since
// the first. A template that was never rendered does not wait.
type Wait struct{ Min, Max time.Duration }

// Kind of a change.
type Kind string

// What can follow from a new file.
const (
	Nothing Kind = ""
	Signal  Kind = "signal"  // sent to a job
	Restart Kind = "restart" // of a job
	Reload  Kind = "reload"  // a command that is run
	Job     Kind = "job"     // a job that is run
)

// Change is what should happen when a file has changed. Equal changes of one pass happen
// once.
type Change struct {
	Kind    Kind
	Job     string   // Signal, Restart, Job
	Signal  string   // like HUP
	Command []string // Reload
	Timeout time.Duration
}

func (c Change) key() string {
	if c.Kind == Nothing {
		return ""
	}
	return fmt.Sprintf("%s %q %q %q %v", c.Kind, c.Job, c.Signal, c.Command, c.Timeout)
}

// Template is one file to render.
type Template struct {
	// Name is unique and for people; empty: the destination.
	Name string
	// Source is the file of the template, read by New; Content is it itself. One is set.
	Source, Content string
	// Destination is the file to render; empty: the output is kept for Output.
	Destination string
	// User and Group are names or numbers; empty: those of the file in place, else ours.
	User, Group string
	Mode        fs.FileMode // 0: 0600
	// Backup keeps the file that is replaced, with .bak behind its name.
	Backup bool
	// NoDirectories leaves directories that are missing for others to make.
	NoDirectories bool
	// OnDisk lets a template that reads secrets be written to a disk.
	OnDisk bool

	LeftDelim, RightDelim string
	// ErrorOnMissing makes it an error to index a map with a key that it has not.
	ErrorOnMissing bool
	// Deny are functions that may not be called, * stands for anything.
	Deny []string
	// Sandbox is the directory that the function file must not leave; empty: none.
	Sandbox string

	// Wait; zero: Config.Wait.
	Wait Wait
	// Deadline is after how long it is told (Event Late) that something is missing; 0: never.
	Deadline time.Duration
	// Check is a command that must succeed before the file is replaced; {file} in its arguments is
	// the new file, as is the variable DROVER_FILE. Empty: none.
	Check []string
	// CheckTimeout ends it; 0: 30 s.
	CheckTimeout time.Duration
	// Change is what follows.
	Change Change
}

// DefaultCheckTimeout is that of a check command which states none.
const DefaultCheckTimeout = 30 * time.Second

// Machines is what a coordinator that knows machines has beside its port: node, nodes and
// datacenters need it. fn is called by the contract of coord.KV.Watch.
type Machines interface {
	// WatchNodes lists machines: of Instance what belongs to the machine is set.
	WatchNodes(ctx context.Context, datacenter, near string, fn func([]coord.Instance, error))
	// WatchNode lists what is on a machine, or one Instance without an ID if that is
	// nothing; none if there is no such machine. An empty name is the coordinator's own.
	WatchNode(ctx context.Context, name, datacenter string, fn func([]coord.Instance, error))
	// WatchDatacenters lists datacenters; reachable: those that answer.
	WatchDatacenters(ctx context.Context, reachable bool, fn func([]string, error))
}

// Datacenters is what a coordinator has beside its port if its keys are of a datacenter.
type Datacenters interface {
	// WatchKeysOf is coord.KV.Watch in another datacenter.
	WatchKeysOf(ctx context.Context, datacenter, prefix string, exact bool, fn func([]coord.Pair, error))
}

// Sources are what templates read. One that is nil is not there.
type Sources struct {
	KV      coord.KV // perhaps Datacenters, too
	Catalog coord.Catalog
	Nodes   Machines
	Secrets secret.Source

	keys *gather.Keys // of KV, while an engine runs
}

// Act is what should happen now.
type Act struct {
	Change
	Templates []string // whose files have changed
	// First says that all of them were rendered for the first time since the start.
	First bool
}

// EventKind is what happened to a template.
type EventKind string

// What is told.
const (
	Changed EventKind = "changed" // its file is another one now
	Failed  EventKind = "failed"  // it cannot be executed, or its file not be written, or the check refused
	Late    EventKind = "late"    // it misses something for longer than its deadline
	Acted   EventKind = "acted"   // what follows was done
	Unacted EventKind = "unacted" // it was tried, and failed
)

// Event is told when it happens.
type Event struct {
	Kind     EventKind
	Template string
	Text     string // one line for people
}

// Config of an Engine.
type Config struct {
	Templates []Template
	Sources   Sources
	// Wait of templates that state none.
	Wait Wait
	// Act does what follows from changes, and returns when it is done. It is called from one
	// goroutine at a time; an error has it called again, later. nil: nothing follows.
	Act func(context.Context, Act) error
	// Check runs a check command with the variables of env beside its own, and returns its
	// output; nil: one that this package has.
	Check func(ctx context.Context, command, env []string) (output []byte, err error)
	// Around is called in place of putting a file of a template in place that was put there
	// before and is, or may be, another one now: it calls put in its own time, or returns why it does
	// not; it is asked again then, later. digest is of the output, and of the template alone if that has
	// secrets in it. nil: put is called at once.
	Around func(ctx context.Context, template, digest string, put func() (changed bool, err error)) (changed bool, err error)
	// Tell is called with what happens, and must not wait; nil: nobody.
	Tell func(Event)
	// Env looks up variables for templates; nil: the process's.
	Env func(string) (string, bool)
	// Debug takes what spew_dump and spew_printf print; nil: nobody.
	Debug io.Writer
}

// parsed is a template that is ready to be executed.
type parsed struct {
	Template
	tmpl *language.Template
}

// prepare checks the templates and reads their sources.
func prepare(cfg Config) ([]parsed, error) {
	var all []parsed
	names := map[string]bool{}
	for _, t := range cfg.Templates {
		if t.Name == "" {
			t.Name = t.Destination
		}
		if t.Name == "" || names[t.Name] {
			return nil, fmt.Errorf("template %q: it needs a name of its own", t.Name)
		}
		names[t.Name] = true
		tmpl, err := parse(cfg, t)
		if err != nil {
			return nil, fmt.Errorf("template %s: %w", t.Name, err)
		}
		if t.Wait == (Wait{}) {
			t.Wait = cfg.Wait
		}
		all = append(all, parsed{t, tmpl})
	}
	return all, nil
}

func parse(cfg Config, t Template) (*language.Template, error) {
	text := t.Content
	switch {
	case t.Source != "" && t.Content != "":
		return nil, errors.New("it has both a source and a content")
	case t.Source != "":
		b, err := os.ReadFile(t.Source)
		if err != nil {
			return nil, fmt.Errorf("read source: %w", err)
		}
		text = string(b)
	}
	env := cfg.Env
	if env == nil {
		env = os.LookupEnv
	}
	return language.Parse(t.Name, text, language.Options{
		LeftDelim: t.LeftDelim, RightDelim: t.RightDelim, ErrorOnMissing: t.ErrorOnMissing,
		Deny: t.Deny, Sandbox: t.Sandbox, Destination: t.Destination, Env: env, Debug: cfg.Debug,
	})
}

// place is where the output goes.
func (p parsed) place(secret bool, check func(string) error) target.File {
	return target.File{
		Path: p.Destination, User: p.User, Group: p.Group, Mode: p.Mode,
		Backup: p.Backup, NoDirectories: p.NoDirectories, MemoryOnly: secret && !p.OnDisk, Check: check,
	}
}

// command is the check command for a candidate.
func (p parsed) command(candidate string) []string {
	args := make([]string, len(p.Check))
	for i, arg := range p.Check {
		args[i] = strings.ReplaceAll(arg, "{file}", candidate)
	}
	return args
}
