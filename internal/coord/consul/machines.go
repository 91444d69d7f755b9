package consul

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"drover/internal/coord"
)

// Beside the port: what templates ask of a coordinator that knows machines and
// datacenters.

// WatchNodes tells the machines of a datacenter, sorted by name, or by distance from near.
func (c *Coordinator) WatchNodes(ctx context.Context, datacenter, near string, fn func([]coord.Instance, error)) {
	tell := coord.NewTeller(fn, equalMachines)
	follow(ctx, c, "watch nodes", func(o *api.QueryOptions) ([]coord.Instance, *api.QueryMeta, error) {
		o.Datacenter, o.Near = cmp.Or(datacenter, o.Datacenter), near
		nodes, meta, err := c.api.Catalog().Nodes(o)
		list := make([]coord.Instance, 0, len(nodes))
		for _, n := range nodes {
			list = append(list, machine(n))
		}
		if near == "" {
			slices.SortStableFunc(list, func(a, b coord.Instance) int {
				return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.NodeAddress, b.NodeAddress))
			})
		}
		return list, meta, err
	}, tell.State, tell.Failed)
}

func machine(n *api.Node) coord.Instance {
	return coord.Instance{
		Node: n.Node, NodeID: n.ID, NodeAddress: n.Address, Datacenter: n.Datacenter,
		NodeMeta: n.Meta, TaggedAddresses: n.TaggedAddresses,
	}
}

// WatchNode tells what is on a machine, without its health: one instance without an ID if that
// is nothing, none if there is no such machine. An empty name is the agent's.
func (c *Coordinator) WatchNode(ctx context.Context, name, datacenter string, fn func([]coord.Instance, error)) {
	tell := coord.NewTeller(fn, equalMachines)
	follow(ctx, c, "watch node "+name, func(o *api.QueryOptions) ([]coord.Instance, *api.QueryMeta, error) {
		o.Datacenter = cmp.Or(datacenter, o.Datacenter)
		own := name
		if own == "" {
			var err error
			if own, err = c.agentsNode(o.Context()); err != nil {
				return nil, nil, err
			}
		}
		node, meta, err := c.api.Catalog().Node(own, o)
		if err != nil || node == nil || node.Node == nil {
			return nil, meta, err
		}
		return onMachine(node), meta, nil
	}, tell.State, tell.Failed)
}

// agentsNode is the name of the machine of the agent that is spoken to.
func (c *Coordinator) agentsNode(ctx context.Context) (string, error) {
	var self struct{ Config struct{ NodeName string } }
	if _, err := c.api.Raw().Query("/v1/agent/self", &self, new(api.QueryOptions).WithContext(ctx)); err != nil {
		return "", err
	}
	return self.Config.NodeName, nil
}

func onMachine(node *api.CatalogNode) []coord.Instance {
	list := []coord.Instance{}
	for _, id := range slices.Sorted(maps.Keys(node.Services)) {
		s, i := node.Services[id], machine(node.Node)
		i.ID, i.Name, i.Address, i.Port, i.Tags, i.Meta = s.ID, s.Service, s.Address, s.Port, s.Tags, s.Meta
		list = append(list, i)
	}
	if len(list) == 0 {
		list = append(list, machine(node.Node))
	}
	return list
}

func equalMachines(a, b []coord.Instance) bool { return coord.EqualInstances(a, b) }

// datacentersPoll is how often datacenters are asked for, which cannot be waited for.
const datacentersPoll = 15 * time.Second

// WatchDatacenters tells the datacenters that there are, sorted; reachable: those that
// answer.
func (c *Coordinator) WatchDatacenters(ctx context.Context, reachable bool, fn func([]string, error)) {
	tell := coord.NewTeller(fn, slices.Equal[[]string])
	for {
		names, err := c.datacenters(ctx, reachable)
		if err != nil {
			tell.Failed(ctx, explain(ctx, "watch datacenters", err))
		} else if ctx.Err() == nil {
			tell.State(names)
		}
		if !coord.Wait(ctx, coord.Jitter(datacentersPoll)) {
			return
		}
	}
}

func (c *Coordinator) datacenters(ctx context.Context, reachable bool) ([]string, error) {
	ctx, cancel := c.short(ctx)
	defer cancel()
	var names []string
	if _, err := c.api.Raw().Query("/v1/catalog/datacenters", &names, c.query(ctx)); err != nil {
		return nil, err
	}
	if reachable {
		names = slices.DeleteFunc(names, func(name string) bool {
			o := c.consistent(ctx)
			o.Datacenter = name
			_, _, err := c.api.Catalog().Services(o)
			return err != nil
		})
	}
	slices.Sort(names)
	return names, nil
}
