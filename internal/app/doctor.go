package app

import (
	"context"
	"errors"
	"os"
	"time"

	"drover/client"
	"drover/internal/config"
	"drover/internal/doctor"
	"drover/internal/doctor/compose"
	inspect "drover/internal/doctor/instance"
)

// What the command line needs of package doctor.
type Finding = doctor.Finding

// The severities of findings.
const (
	SeverityPet  = doctor.Pet
	SeverityRisk = doctor.Risk
	SeverityNote = doctor.Note
)

// IDStateless is the finding of a service that was not judged for mounts.
const IDStateless = doctor.IDStateless

// Grave says whether any of the findings asks for something to be done.
func Grave(all []Finding) bool { return doctor.Grave(all) }

// CheckupOptions are what is known besides what is looked at.
type CheckupOptions struct {
	Took  time.Duration // the longest of the last backups; 0: not known
	Grace time.Duration // what the scheduler gives an instance to stop; 0: not known
	// Status is the agent's of an instance; nil if none answers.
	Status *client.Status
}

// CheckCompose names what is wrong with the services of a Compose file. The error is a
// ConfigError if it is about the file.
func CheckCompose(name string, cfg *Config, env func(string) (string, bool), opt CheckupOptions) ([]Finding, error) {
	facts, err := compose.Read(name, compose.Options{Env: env, State: cfg.Paths(), Store: cfg.Store.URL, Took: opt.Took})
	var bad *compose.Error
	if errors.As(err, &bad) {
		return nil, &config.Error{Where: bad.Where, What: bad.What, Hint: bad.Hint}
	}
	if err != nil {
		return nil, err
	}
	all := []Finding{}
	for _, f := range facts {
		all = append(all, doctor.Judge(f)...)
	}
	return all, nil
}

// Instance is what was seen from inside of an instance.
type Instance struct{ sight *inspect.Sight }

// LookAround looks at the instance that this process is in; root is "/" but for tests.
func LookAround(root string) (*Instance, error) {
	sight, err := inspect.Look(root, os.Environ())
	if err != nil {
		return nil, err
	}
	return &Instance{sight}, nil
}

// Sources adds what the agent was told: its flags below those of this command line, its
// variables below this process's own.
func (i *Instance) Sources(src Sources) Sources {
	flags, file := i.sight.Settings()
	for name, values := range src.Flags {
		flags[name] = values
	}
	own := src.Env
	if own == nil {
		own = os.LookupEnv
	}
	src.Flags = flags
	src.Env = func(name string) (string, bool) {
		if v, ok := own(name); ok {
			return v, true
		}
		return i.sight.Env(name)
	}
	if _, named := own(config.FileEnv); src.File == "" && !named {
		src.File = file
	}
	return src
}

// Check names what is wrong with the instance.
func (i *Instance) Check(cfg *Config, opt CheckupOptions) []Finding {
	known := doctor.Facts{Service: cfg.Service, Instance: cfg.ID, State: cfg.Paths()}
	known.Grace.Took, known.Grace.Given = opt.Took, opt.Grace
	if st := opt.Status; st != nil {
		known.Drover = true
		if len(known.State) == 0 {
			known.State = st.Paths
		}
		if b := st.LastBackup; b != nil {
			known.Grace.Took = max(opt.Took, time.Duration(b.Seconds*float64(time.Second)))
		}
		if st.Service != "" {
			known.Service = st.Service
		}
		known.Instance = st.Instance
	}
	if store, ok := doctor.ParseStore(cfg.Store.URL); ok {
		store.Where = cfg.Where("store.url")
		known.Store = &store
	}
	return append([]Finding{}, doctor.Judge(i.sight.Facts(known))...)
}

// lastBackups is how many commits are looked at for their time.
const lastBackups = 10

// LongestBackup is the longest of the last commits, as their snapshots say; 0 if there
// is none. A line that retention has cut is read up to there.
func (o *Ops) LongestBackup(ctx context.Context) (time.Duration, error) {
	v, err := o.open(ctx)
	if err != nil {
		return 0, err
	}
	seen, err := v.ReadHead(ctx)
	if err != nil || seen.Head.Snapshot == "" {
		return 0, err
	}
	_, sn, err := v.Latest(ctx)
	if err != nil {
		return 0, err
	}
	var longest time.Duration
	for range lastBackups {
		if sn.Summary != nil {
			longest = max(longest, sn.Summary.BackupEnd.Sub(sn.Summary.BackupStart))
		}
		if sn.Parent == nil {
			break
		}
		if sn, err = v.Repo.LoadSnapshot(ctx, *sn.Parent); err != nil {
			break // it was removed, or the store went away: what is known is enough
		}
	}
	return longest, nil //nolint:nilerr // see above
}
