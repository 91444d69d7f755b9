package consul

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"drover/internal/coord"
)

// WatchService implements coord.Catalog.
func (c *Coordinator) WatchService(ctx context.Context, q coord.Query, fn func([]coord.Instance, error)) {
	tell := coord.NewTeller(fn, coord.EqualInstances)
	// What is not wanted need not be sent; the passing are all that Consul can choose.
	passing := len(q.Status) == 0 || len(q.Status) == 1 && q.Status[0] == coord.Passing
	follow(ctx, c, "watch service "+q.Name, func(o *api.QueryOptions) ([]coord.Instance, *api.QueryMeta, error) {
		o.Datacenter, o.Near = cmp.Or(q.Datacenter, o.Datacenter), q.Near
		entries, meta, err := c.api.Health().Service(q.Name, q.Tag, passing, o)
		if err == nil && len(entries) == 0 && meta.ResultsFilteredByACLs {
			err = errHidden
		}
		return toInstances(q, entries), meta, err
	}, tell.State, tell.Failed)
}

func toInstances(q coord.Query, entries []*api.ServiceEntry) []coord.Instance {
	instances := make([]coord.Instance, 0, len(entries))
	for _, e := range entries {
		if e.Node == nil || e.Service == nil {
			continue
		}
		if i := toInstance(e); q.Wants(i.Status, i.Tags) {
			instances = append(instances, i)
		}
	}
	if q.Near == "" {
		slices.SortFunc(instances, func(a, b coord.Instance) int {
			return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.ID, b.ID))
		})
	}
	return instances
}

func toInstance(e *api.ServiceEntry) coord.Instance {
	i := coord.Instance{
		Registration: coord.Registration{
			ID: e.Service.ID, Name: e.Service.Service, Port: e.Service.Port, Tags: e.Service.Tags, Meta: e.Service.Meta,
			Address: cmp.Or(e.Service.Address, e.Node.Address),
		},
		Status: coord.Status(e.Checks.AggregatedStatus()),
		Node:   e.Node.Node, NodeID: e.Node.ID, NodeAddress: e.Node.Address, Datacenter: e.Node.Datacenter,
		NodeMeta: e.Node.Meta, TaggedAddresses: e.Node.TaggedAddresses, Weight: e.Service.Weights.Passing,
	}
	if i.Status == coord.Warning {
		i.Weight = e.Service.Weights.Warning
	}
	if i.Status == "" { // of a check in a state that is none of Consul's
		i.Status = coord.Critical
	}
	for _, check := range e.Checks {
		i.Checks = append(i.Checks, coord.Check{
			ID: check.CheckID, Name: check.Name, Node: check.Node, Notes: check.Notes, Output: check.Output,
			ServiceID: check.ServiceID, ServiceName: check.ServiceName, ServiceTags: check.ServiceTags,
			Status: coord.Status(check.Status),
		})
		switch check.CheckID {
		case checkID(i.ID):
			if i.Note == "" {
				i.Note = check.Output
			}
		case api.ServiceMaintPrefix + i.ID:
			i.Note = strings.TrimPrefix(check.Notes, upkeepNote)
		}
	}
	return i
}

// WatchServices implements coord.Catalog.
func (c *Coordinator) WatchServices(ctx context.Context, datacenter string, fn func(map[string][]string, error)) {
	tell := coord.NewTeller(fn, coord.EqualServices)
	follow(ctx, c, "watch services", func(o *api.QueryOptions) (map[string][]string, *api.QueryMeta, error) {
		o.Datacenter = cmp.Or(datacenter, o.Datacenter)
		services, meta, err := c.api.Catalog().Services(o)
		if err == nil && len(services) == 0 && meta.ResultsFilteredByACLs {
			err = errHidden
		}
		for name := range services {
			slices.Sort(services[name])
		}
		return services, meta, err
	}, tell.State, tell.Failed)
}
