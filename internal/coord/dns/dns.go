// Package dns is a catalog that is asked of DNS: addresses (A, AAAA) or services (SRV). It
// can only be read.
//
// Which names stand for which services is told, since DNS cannot be listed. A name is asked
// again when its answer's TTL is over. That a name does not exist is an answer, and empties
// the service; no answer, or one that says that the server failed, is a failure, and what was told last stays.
// All that is found is passing: what is unwell is left out by who runs the zone.
//
// The library is miekg/dns and not package net's resolver, which hides the TTL and, where
// one of several answers is missing, that it is.
package dns

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"drover/internal/coord"
)

// Record says how one service is asked for.
type Record struct {
	// Name to ask for. One with a dot at its end is whole; to others the search list of
	// the system is applied.
	Name string
	// Type is SRV, A, AAAA, or empty: A and AAAA, both of which must be answered.
	Type string
	// Port of A and AAAA, whose answers have none.
	Port int
}

// Options are what New may be told; zero values mean the defaults given here.
type Options struct {
	// Services are the names of services, and what to ask for each.
	Services map[string]Record
	// Domain is what the names of all other services are in; nil: there are no others. One whose
	// name begins with an underscore is asked for SRV, others for what Domain's type says. Its
	// name may be empty.
	Domain *Record
	// Servers are host:port; none: those of Config, which is read each time, and whose
	// search list holds unless Servers are given without it.
	Servers []string
	Config  string // /etc/resolv.conf, if Servers are not given
	// Least and Most bound the time until a name is asked again, whatever TTL its
	// answer has: 1 s and 30 s. (Docker says 600 s of containers that may be gone in one.)
	Least, Most time.Duration
	Timeout     time.Duration // of one question to one server; 2 s
}

// Catalog is the catalog in DNS. Use New.
type Catalog struct{ opt Options }

var _ coord.Catalog = (*Catalog)(nil)

// New returns the catalog. It asks nothing.
func New(opt Options) (*Catalog, error) {
	if len(opt.Servers) == 0 {
		opt.Config = cmp.Or(opt.Config, "/etc/resolv.conf")
	}
	opt.Least, opt.Most = cmp.Or(opt.Least, time.Second), cmp.Or(opt.Most, 30*time.Second)
	opt.Timeout = cmp.Or(opt.Timeout, 2*time.Second)
	opt.Services = maps.Clone(opt.Services)
	for name, r := range opt.Services {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("service %s: %w", name, err)
		}
	}
	if d := opt.Domain; d != nil {
		if err := d.in("x").check(); err != nil {
			return nil, fmt.Errorf("domain %s: %w", d.Name, err)
		}
	}
	return &Catalog{opt}, nil
}

// WatchService implements coord.Catalog. There are no distances: Near changes nothing. A tag
// or a status other than passing finds nobody, since DNS has neither.
func (c *Catalog) WatchService(ctx context.Context, q coord.Query, fn func([]coord.Instance, error)) {
	record, ok := c.record(q.Name)
	switch {
	case q.Datacenter != "":
		coord.Refuse(ctx, fn, fmt.Errorf("watch service %s: datacenter %q: %w", q.Name, q.Datacenter, coord.ErrUnsupported))
		return
	case !ok:
		coord.Refuse(ctx, fn, fmt.Errorf("watch service %s: no name in DNS is given for it: %w", q.Name, coord.ErrNotFound))
		return
	}
	tell := coord.NewTeller(fn, coord.EqualInstances)
	again := coord.Backoff{Least: c.opt.Least, Most: c.opt.Most}
	for ctx.Err() == nil {
		found, ttl, err := c.lookup(ctx, q.Name, record)
		wait := min(max(ttl, c.opt.Least), c.opt.Most)
		if err != nil {
			tell.Failed(ctx, fmt.Errorf("watch service %s: %w", q.Name, err))
			wait = again.Next()
		} else if ctx.Err() == nil {
			again.Reset()
			tell.State(slices.DeleteFunc(found, func(i coord.Instance) bool { return !q.Wants(i.Status, i.Tags) }))
		}
		coord.Wait(ctx, wait)
	}
}

// record is what to ask for a service.
func (c *Catalog) record(service string) (Record, bool) {
	if r, ok := c.opt.Services[service]; ok {
		return r, true
	}
	if c.opt.Domain == nil {
		return Record{}, false
	}
	r := c.opt.Domain.in(service)
	return r, r.check() == nil
}

// in is the record of a service in the domain.
func (r Record) in(service string) Record {
	if strings.HasPrefix(service, "_") {
		r.Type = "SRV"
	}
	if r.Name == "" {
		r.Name = service
	} else {
		r.Name = service + "." + r.Name
	}
	return r
}

// WatchServices implements coord.Catalog: the services are those that were given, and never
// change. What else is in the domain DNS does not say.
func (c *Catalog) WatchServices(ctx context.Context, datacenter string, fn func(map[string][]string, error)) {
	if datacenter != "" {
		coord.Refuse(ctx, fn, fmt.Errorf("watch services: datacenter %q: %w", datacenter, coord.ErrUnsupported))
		return
	}
	all := map[string][]string{}
	for name := range c.opt.Services {
		all[name] = nil
	}
	fn(all, nil)
	<-ctx.Done()
}

// instance is one address of a service.
func instance(service, address string, port int) coord.Instance {
	i := coord.Instance{Status: coord.Passing, Weight: 1}
	i.Name, i.Address, i.Port = service, address, port
	i.ID = fmt.Sprintf("%s-%s-%d", service, address, port)
	return i
}

func sorted(found []coord.Instance) []coord.Instance {
	slices.SortFunc(found, func(a, b coord.Instance) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.ID, b.ID))
	})
	return slices.CompactFunc(found, func(a, b coord.Instance) bool { return a.ID == b.ID })
}
