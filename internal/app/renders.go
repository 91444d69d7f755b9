package app

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"drover/internal/config"

	"golang.org/x/sys/unix"
)

// renders runs the templates of one configuration after another's.
type renders struct {
	make func(*config.Config) (*templates, error)
	jobs *jobs

	mu   sync.Mutex
	ctx  context.Context // of run; nil before
	cfg  *config.Config
	now  atomic.Pointer[templates]
	stop context.CancelFunc
	done chan struct{}
	// opened: some templates were ready once, and the jobs may have been started with them.
	opened bool
}

// first reads the templates of the configuration that an agent starts with.
func (r *renders) first(cfg *config.Config) error {
	t, err := r.make(cfg)
	if err != nil {
		return err
	}
	t.held = true
	r.cfg = cfg
	r.now.Store(t)
	r.jobs.follow(t)
	return nil
}

// run renders until ctx ends.
func (r *renders) run(ctx context.Context) {
	r.mu.Lock()
	r.ctx = ctx
	r.begin(r.cfg, r.now.Load())
	r.mu.Unlock()
	<-ctx.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	<-r.done
}

// begin starts templates in the place of those that have ended. r.mu is held.
func (r *renders) begin(cfg *config.Config, t *templates) {
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan struct{})
	r.cfg, r.stop, r.done = cfg, cancel, done
	if len(t.engines) > 0 {
		withoutCores()
	}
	r.now.Store(t)
	r.jobs.follow(t) // before they can be ready: that is what opens the jobs
	go func() {
		defer close(done)
		t.run(ctx)
	}()
}

// withoutCores has this process leave no core file, nor those that it starts from now on unless
// they have a limit of their own (limits.core): what templates read may be secret, and a core is on a disk.
func withoutCores() {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_CORE, &l) == nil {
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 0, Max: l.Max}) // lowering it is always allowed
	}
}

// end ends what renders now. r.mu is held.
func (r *renders) end() {
	r.stop()
	<-r.done
}

// current are the templates of now.
func (r *renders) current() *templates { return r.now.Load() }

// renderLimit is how long a reload waits for new templates.
const renderLimit = 30 * time.Second

// reload makes the templates those of cfg, and returns when all of them were rendered. After
// an error the former are in place again; back puts them there later.
func (r *renders) reload(ctx context.Context, cfg *config.Config) (back func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	former := r.cfg
	if r.ctx == nil || sameTemplates(former, cfg) {
		return func() {}, nil
	}
	t, err := r.make(cfg)
	if err != nil {
		return nil, err
	}
	r.replace(cfg, t)
	limit := time.NewTimer(renderLimit)
	defer limit.Stop()
	select {
	case <-t.ready:
		return func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.restore(former)
		}, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-r.ctx.Done():
		err = r.ctx.Err()
	case <-limit.C:
		err = fmt.Errorf("not rendered within %s: %s", renderLimit, t.waits())
	}
	r.restore(former)
	return nil, err
}

// restore puts the templates of an earlier configuration back. r.mu is held.
func (r *renders) restore(cfg *config.Config) {
	t, err := r.make(cfg)
	if err != nil { // its files are gone: what runs stays
		r.jobs.log.Error("the former templates cannot be had again: the new ones stay", "err", err)
		return
	}
	r.replace(cfg, t)
}

// replace ends the templates of now, and begins others. r.mu is held.
func (r *renders) replace(cfg *config.Config, t *templates) {
	r.opened = r.opened || !r.now.Load().holds()
	t.held = !r.opened
	r.end()
	r.begin(cfg, t)
}

// sameTemplates says whether two configurations have the same templates.
func sameTemplates(a, b *config.Config) bool {
	if !reflect.DeepEqual(a.Templates, b.Templates) || a.Wait != b.Wait {
		return false
	}
	given := func(c *config.Config) map[string][2]map[string]string {
		all := map[string][2]map[string]string{}
		for name, job := range c.Jobs {
			if len(job.EnvTemplates)+len(job.FDTemplates) > 0 {
				all[name] = [2]map[string]string{job.EnvTemplates, job.FDTemplates}
			}
		}
		return all
	}
	return reflect.DeepEqual(given(a), given(b))
}
