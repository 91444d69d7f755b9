package app

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"drover/internal/config"
	"drover/internal/render"
	"drover/internal/roll"
)

// RenderOptions of Render.
type RenderOptions struct {
	Names  []string // of templates; empty: all
	DryRun bool
}

// Rendered is what a template came to.
type Rendered struct {
	Template    string `json:"template"`
	Destination string `json:"destination"`
	Changed     bool   `json:"changed"` // the file is, or would be, another one
	Secret      bool   `json:"secret"`  // its text may hold secrets: it is not shown
	New         bool   `json:"new"`     // there was no file
	Old         string `json:"-"`
	Text        string `json:"-"`
}

// Render renders templates once, and waits for what they miss until ctx ends. What follows
// from a change is an agent's to do, and so are turns. The error names what is missing; what
// is done is returned with it. Errors: ConfigError.
func (o *Ops) Render(ctx context.Context, opt RenderOptions) (_ []Rendered, err error) {
	list, err := templatesNamed(o.cfg, opt.Names)
	if err != nil {
		return nil, err
	}
	co, err := openCoordinator(ctx, o.cfg, o.log)
	if err != nil {
		return nil, err
	}
	defer co.close()
	secrets, err := openSecrets(o.cfg, o.log)
	if err != nil {
		return nil, err
	}
	defer func() {
		if opt.DryRun || err != nil {
			closeSecrets(ctx, secrets, o.log)
			return
		}
		secrets.leave()
	}()
	engine, err := render.New(render.Config{Templates: list, Sources: sourcesOf(co, secrets)})
	if err != nil {
		return nil, &config.Error{What: err.Error()}
	}
	results, err := engine.Once(ctx, opt.DryRun)
	var done []Rendered
	for _, r := range results {
		if _, ok := engine.Output(r.Template); ok {
			done = append(done, Rendered{
				Template: r.Template, Destination: r.Destination, Changed: r.Changes(), Secret: r.Secret,
				New: r.Old == nil, Old: string(r.Old), Text: string(r.Output),
			})
		}
	}
	return done, err
}

// templatesNamed are the configured templates with these names; without names, all.
func templatesNamed(cfg *config.Config, names []string) ([]render.Template, error) {
	all := slices.Sorted(maps.Keys(cfg.Templates))
	if len(all) == 0 {
		return nil, &config.Error{What: "no template is configured", Hint: "put templates into the configuration file"}
	}
	if len(names) == 0 {
		names = all
	}
	var list []render.Template
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		c, ok := cfg.Templates[name]
		if !ok {
			return nil, &config.Error{What: fmt.Sprintf("there is no template %q", name), Hint: "there is " + strings.Join(all, ", ")}
		}
		list = append(list, templateOf(name, c))
	}
	return list, nil
}

// ResumeRoll lets a roll that was stopped go on with the same change, and returns why it
// was stopped; "": it was not. It needs no agent. Errors: ConfigError.
func (o *Ops) ResumeRoll(ctx context.Context, name string) (why string, err error) {
	if names := RollNames(o.cfg); !slices.Contains(names, name) {
		hint := "no template has a roll"
		if len(names) > 0 {
			hint = "there is " + strings.Join(names, ", ")
		}
		return "", &config.Error{What: fmt.Sprintf("there is no roll %q", name), Hint: hint}
	}
	co, err := openCoordinator(ctx, o.cfg, o.log)
	if err != nil {
		return "", err
	}
	defer co.close()
	return roll.New(turns{co.kv, co.leases}, roll.Options{
		Prefix: o.cfg.CoordinatorPrefix(), Name: name, Instance: o.cfg.ID, Limit: 1, TTL: o.cfg.Lease.TTL.Std(), Log: o.log,
	}).Resume(ctx)
}

// TemplateNames are those of the templates of a configuration.
func TemplateNames(cfg *Config) []string { return slices.Sorted(maps.Keys(cfg.Templates)) }

// RollNames are those of its rolls.
func RollNames(cfg *Config) []string {
	var names []string
	for name, t := range cfg.Templates {
		if t.Roll.Limit > 0 {
			names = append(names, rollOf(name, t))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
