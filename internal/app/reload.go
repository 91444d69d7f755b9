package app

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"drover/client"
	"drover/internal/config"
	"drover/internal/supervise"
)

// live are the keys whose change a reload applies; that of any other needs a new start.
var live = []string{"jobs", "metrics", "watches", "templates", "log", "database.parameters", "database.hba"}

// Reload is control.Agent's: it reads the configuration again and brings the jobs to
// it. What is wrong changes nothing; a start that fails goes back to what was.
func (a *agent) Reload(ctx context.Context) (client.Reload, error) {
	var done client.Reload
	if a.load == nil {
		return done, refused(client.KindFailed, "there is no configuration file to read again")
	}
	cfg, err := a.load()
	if err == nil {
		err = cfg.CheckRun()
	}
	if err != nil {
		return done, refused(client.KindInvalid, "the new configuration is not valid, and nothing was changed: %v", err)
	}
	if !a.reloading.TryLock() {
		return done, refused(client.KindBusy, "another reload is under way")
	}
	defer a.reloading.Unlock()
	cfg = cfg.Own()
	if fixed := changedKeys(a.cfg, cfg); len(fixed) > 0 {
		return done, refused(client.KindInvalid, "nothing was changed: a new start is needed for %s", strings.Join(fixed, ", "))
	}
	before := a.jobs.versions()
	list, err := a.jobs.define(cfg)
	if err != nil {
		return done, refused(client.KindInvalid, "the new configuration is not valid, and nothing was changed: %v", err)
	}
	// The checks come first: a job may be ready by one of them.
	if err := a.services.prepare(cfg); err != nil {
		return done, refused(client.KindInvalid, "the new configuration is not valid, and nothing was changed: %v", err)
	}
	changed, backDatabase, err := a.reparameter(ctx, cfg)
	if err != nil {
		return done, err
	}
	back, err := a.renders.reload(ctx, cfg)
	if err != nil {
		backDatabase()
		return done, refused(client.KindFailed, "the templates are the former ones again: %v", err)
	}
	former := a.checks.follow(cfg)
	if err := a.jobs.reload(ctx, list); err != nil {
		a.checks.follow(former)
		back()
		backDatabase()
		if k := (*client.Error)(nil); errors.As(explained("", err), &k) {
			return done, k
		}
		return done, refused(client.KindFailed, "%v", err)
	}
	a.apply(cfg)
	done = compared(before, a.jobs.versions())
	done.Parameters, done.Pending = changed, a.pendingParameters(ctx)
	return done, nil
}

// apply makes the parts beside the jobs follow a configuration whose jobs run.
func (a *agent) apply(cfg *config.Config) {
	a.jobs.journals.Keep(slices.Collect(maps.Keys(cfg.Jobs)))
	a.metrics.follow(cfg)
	a.watches.follow(cfg)
	if err := a.services.follow(cfg); err != nil {
		a.log.Error("the catalog is told of the former services", "err", err)
	}
}

// changedKeys lists the keys at the top of the file, and those of the database, that differ and that no reload applies.
func changedKeys(old, new *config.Config) []string {
	all := changedFields("", reflect.ValueOf(*old), reflect.ValueOf(*new))
	if i := slices.Index(all, "database"); i >= 0 {
		all = slices.Replace(all, i, i+1, changedFields("database.", reflect.ValueOf(old.Database), reflect.ValueOf(new.Database))...)
	}
	return all
}

func changedFields(prefix string, a, b reflect.Value) []string {
	var keys []string
	for i := range a.NumField() {
		key := a.Type().Field(i).Tag.Get("yaml")
		if key == "" || slices.Contains(live, prefix+key) {
			continue
		}
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			keys = append(keys, prefix+key)
		}
	}
	return keys
}

// versions are the definitions of now, by job.
func (j *jobs) versions() map[string]string {
	all := map[string]string{}
	for _, job := range j.all() {
		all[job.Name] = job.Version
	}
	return all
}

// compared says what became of each job.
func compared(before, after map[string]string) client.Reload {
	var r client.Reload
	for _, name := range slices.Sorted(maps.Keys(after)) {
		switch was, there := before[name]; {
		case !there:
			r.Started = append(r.Started, name)
		case was != after[name]:
			r.Changed = append(r.Changed, name)
		default:
			r.Kept = append(r.Kept, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, there := after[name]; !there {
			r.Stopped = append(r.Stopped, name)
		}
	}
	return r
}

// reload brings the jobs to a new definition: those of now, and those of later starts.
func (j *jobs) reload(ctx context.Context, list []supervise.Job) error {
	j.mu.Lock()
	s, former := j.current, j.list
	j.list = inSlot(list, j.slot) // checks run as their jobs will
	list = j.list
	j.mu.Unlock()
	if s == nil {
		return nil
	}
	// Whoever asked may go away: what was begun is ended, one way or the other.
	err := s.Reload(context.WithoutCancel(ctx), list)
	if err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.list = former
	}
	return err
}
