package app

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"drover/client"
	"drover/internal/config"
	"drover/internal/coord"
	"drover/internal/event"
	"drover/internal/register"
	"drover/internal/supervise"
)

// services keeps the catalog's entries of the jobs that are services, by what happens to
// the jobs.
type services struct {
	jobs        *jobs
	registry    coord.Registry
	log         *slog.Logger
	maintenance func() bool
	addresses   func() ([]register.Interface, error)

	mu    sync.Mutex
	ctx   context.Context // of run; nil before
	group sync.WaitGroup
	byJob map[string]*service
	known map[string]jobHealth // of all jobs: what a service is told at its start
}

// jobHealth is what the events have told of a job.
type jobHealth struct {
	checked bool // its checks say how it is, not its being ready
	up      bool // it runs
	judged  bool // since its start, whether it is good
	good    bool
	why     string // not
}

// service is one entry.
type service struct {
	*register.Service
	cfg    config.Registration
	cancel context.CancelFunc
	done   chan struct{}
}

func newServices(jobs *jobs, registry coord.Registry, log *slog.Logger, maintenance func() bool) *services {
	return &services{
		jobs: jobs, registry: registry, log: log, maintenance: maintenance, addresses: register.Interfaces,
		byJob: map[string]*service{}, known: map[string]jobHealth{},
	}
}

// follow makes the entries those of a configuration. An entry that did not change stays
// as it is; one that is gone is taken out. What is wrong changes nothing.
func (s *services) follow(cfg *config.Config) error {
	made := map[string]*service{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, job := range cfg.Jobs {
		switch old := s.byJob[name]; {
		case job.Service.Name == "" || s.registry == nil:
		case old != nil && reflect.DeepEqual(old.cfg, job.Service):
			made[name] = old
		default:
			one, err := s.of(cfg, name, job.Service)
			if err != nil {
				return err
			}
			made[name] = one
		}
	}
	s.expect(cfg)
	maps.DeleteFunc(s.known, func(name string, _ jobHealth) bool { _, ok := cfg.Jobs[name]; return !ok })
	for name, old := range s.byJob {
		if made[name] != old && old.cancel != nil {
			old.cancel()
		}
	}
	former := s.byJob
	s.byJob = made
	for name, one := range made {
		if former[name] != one {
			s.begin(name, one, former[name])
		}
	}
	return nil
}

// expect hears of the jobs of a configuration from now on. s.mu is held.
func (s *services) expect(cfg *config.Config) {
	for name, job := range cfg.Jobs {
		h := s.known[name]
		h.checked = len(job.Checks) > 0
		s.known[name] = h
	}
}

// prepare says whether the services of a configuration can be registered here, before its
// jobs are started: what is told of them then is remembered for follow.
func (s *services) prepare(cfg *config.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expect(cfg)
	for name, job := range cfg.Jobs {
		if _, err := s.address(job.Service); job.Service.Name != "" && err != nil {
			return fmt.Errorf("service of job %s: %w", name, err)
		}
	}
	return nil
}

// of makes an entry.
func (s *services) of(cfg *config.Config, name string, r config.Registration) (*service, error) {
	address, err := s.address(r)
	if err != nil {
		return nil, fmt.Errorf("service of job %s: %w", name, err)
	}
	id := r.ID
	if id == "" {
		id = r.Name + "-" + cfg.ID
	}
	return &service{cfg: r, done: make(chan struct{}), Service: register.New(s.registry, register.Options{
		Log: s.log,
		Registration: coord.Registration{
			ID: id, Name: r.Name, Address: address, Port: r.Port, Tags: r.Tags, Meta: r.Meta,
			TTL: r.TTL.Std(), Initial: coord.Status(r.Initial), DeregisterAfter: r.DeregisterAfter.Std(),
		},
	})}, nil
}

func (s *services) address(r config.Registration) (string, error) {
	return pickAddress(r.Address, s.addresses)
}

// pickAddress is the machine's address by the first selector that fits.
func pickAddress(texts []string, addresses func() ([]register.Interface, error)) (string, error) {
	if len(texts) == 0 {
		texts = []string{"inet", "inet6", "static:127.0.0.1"} // a machine without a network serves itself
	}
	var selectors []register.Selector
	for _, text := range texts {
		one, err := register.ParseSelector(text)
		if err != nil {
			return "", err
		}
		selectors = append(selectors, one)
	}
	interfaces, err := addresses()
	if err != nil {
		return "", err
	}
	return register.Pick(selectors, interfaces)
}

// begin runs an entry, once the one that it replaces is gone. s.mu is held.
func (s *services) begin(name string, one, former *service) {
	if s.ctx == nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	one.cancel = cancel
	s.group.Go(func() {
		defer close(one.done)
		if former != nil {
			<-former.done // they may have the same id
		}
		one.Run(ctx)
	})
	s.show(one, s.known[name])
}

// run keeps the entries until ctx ends; then they are taken out.
func (s *services) run(ctx context.Context, sub *event.Subscription) {
	defer sub.Close()
	defer s.group.Wait()
	s.mu.Lock()
	s.ctx = ctx
	for name, one := range s.byJob {
		s.begin(name, one, nil)
	}
	s.mu.Unlock()
	for {
		e, _, err := sub.Next(ctx)
		if err != nil {
			return
		}
		s.take(ctx, e)
	}
}

// subscribe is what run reads.
func (s *services) subscribe(bus *event.Bus) *event.Subscription {
	heard := []string{
		supervise.EventStarted, supervise.EventReady, supervise.EventHealthy, supervise.EventUnhealthy,
		supervise.EventStopping, supervise.EventExit, eventLost, eventMaintenance,
	}
	return bus.Subscribe(event.Options{Coalesce: true, Only: func(e event.Event) bool { return slices.Contains(heard, e.Name) }})
}

// take follows one event.
func (s *services) take(ctx context.Context, e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Name {
	case eventLost: // the jobs are being killed
		for _, one := range s.byJob {
			s.withdraw(ctx, one, nil)
		}
		return
	case eventMaintenance:
		for name, one := range s.byJob {
			if one.Wanted() {
				s.show(one, s.known[name])
			}
		}
		return
	}
	h, ok := s.known[e.Source]
	if !ok {
		return // a watch's
	}
	one := s.byJob[e.Source]
	switch e.Name {
	case supervise.EventStarted:
		h = jobHealth{checked: h.checked, up: true}
	case supervise.EventReady:
		if !h.checked {
			h.judged, h.good = true, true
		}
	case supervise.EventHealthy:
		h.judged, h.good, h.why = true, true, ""
	case supervise.EventUnhealthy:
		h.judged, h.good, h.why = true, false, "its checks fail"
	case supervise.EventExit:
		h = jobHealth{checked: h.checked, why: "it ended"}
		if e.Status != nil {
			h.why = fmt.Sprintf("it ended with status %d", *e.Status)
		}
	case supervise.EventStopping:
		h = jobHealth{checked: h.checked}
		s.known[e.Source] = h
		s.withdraw(ctx, one, s.jobs.supervisorOf(e.Source))
		return
	}
	s.known[e.Source] = h
	if one != nil {
		s.show(one, h)
	}
}

// show tells an entry how its job is. What was never good is not told, unless it is to be.
func (s *services) show(one *service, h jobHealth) {
	switch {
	case s.maintenance() && (h.good || one.Wanted()):
		one.Set(coord.Maintenance, "maintenance is on")
	case h.good:
		one.Set(coord.Passing, "")
	case h.up && !h.judged && one.cfg.Initial != "":
		one.Set(coord.Status(one.cfg.Initial), "it was started")
	case one.Wanted() && h.up && !h.judged:
		one.Set(coord.Critical, "it was started, and is not healthy yet")
	case one.Wanted():
		one.Set(coord.Critical, h.why)
	}
}

// withdrawLimit bounds how long a stop waits for the catalog.
const withdrawLimit = 3 * time.Second

// withdraw takes an entry out, and lets the job's stop go on after its drain.
func (s *services) withdraw(ctx context.Context, one *service, job *stoppingJob) {
	s.group.Go(func() {
		defer job.drained()
		if one == nil {
			return
		}
		there := one.State().Known != ""
		limited, cancel := context.WithTimeout(ctx, withdrawLimit)
		defer cancel()
		if err := one.Withdraw(limited); err != nil {
			s.log.Warn("the job's stop does not wait for the catalog", "err", err)
		}
		if job == nil || !there {
			return // nobody was told of it
		}
		select {
		case <-time.After(one.cfg.Drain.Std()):
		case <-ctx.Done():
		}
	})
}

// stoppingJob is a job whose stop waits.
type stoppingJob struct {
	name string
	of   *supervise.Supervisor
}

func (j *stoppingJob) drained() {
	if j != nil && j.of != nil {
		j.of.Drained(j.name)
	}
}

// supervisorOf remembers which supervisor's job it is.
func (j *jobs) supervisorOf(name string) *stoppingJob { return &stoppingJob{name, j.supervisor()} }

// drainOf is the longest that a job's stop waits: for the catalog, then for clients.
func drainOf(r config.Registration) time.Duration {
	if r.Name == "" {
		return 0
	}
	return withdrawLimit + r.Drain.Std() + time.Second
}

// states tells of all entries, by job.
func (s *services) states() []client.Service {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []client.Service
	for _, name := range slices.Sorted(maps.Keys(s.byJob)) {
		st := s.byJob[name].State()
		one := client.Service{Job: name, Name: s.byJob[name].cfg.Name, ID: st.ID, Status: string(st.Known), Wanted: string(st.Wanted), Since: st.Since}
		if st.Err != nil {
			one.Error = st.Err.Error()
		}
		list = append(list, one)
	}
	return list
}
