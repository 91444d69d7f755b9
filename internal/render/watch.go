package render

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/internal/coord"
	"drover/internal/render/language"
	"drover/internal/secret"
)

// errNoSource: what the template reads is not configured. It will never be known.
var errNoSource = errors.New("is not configured")

// report takes what a watch found: a value, or why there is none.
type report func(value any, err error)

// follow watches a dependency until ctx ends.
func (s Sources) follow(ctx context.Context, d language.Dependency, tell report) {
	switch d.Kind {
	case language.Key, language.Tree:
		s.followKeys(ctx, d, tell)
	case language.Health, language.Services:
		s.followCatalog(ctx, d, tell)
	case language.NodeOf, language.Nodes, language.Datacenters:
		s.followMachines(ctx, d, tell)
	case language.FileContent:
		followFile(ctx, d.Name, tell)
	case language.Secret, language.SecretNames:
		s.followSecret(ctx, d, tell)
	case language.Certificate:
		s.followCertificate(ctx, d, tell)
	}
}

func (s Sources) followKeys(ctx context.Context, d language.Dependency, tell report) {
	if s.KV == nil {
		tell(nil, fmt.Errorf("a coordinator with keys %w", errNoSource))
		return
	}
	watch := s.KV.Watch
	if d.Datacenter != "" {
		elsewhere, ok := s.KV.(Datacenters)
		if !ok {
			tell(nil, fmt.Errorf("another datacenter %w: %w", errNoSource, coord.ErrUnsupported))
			return
		}
		watch = func(ctx context.Context, prefix string, exact bool, fn func([]coord.Pair, error)) {
			elsewhere.WatchKeysOf(ctx, d.Datacenter, prefix, exact, fn)
		}
	}
	if d.Kind == language.Tree {
		watch(ctx, d.Name, false, func(pairs []coord.Pair, err error) {
			if err != nil {
				tell(nil, err)
				return
			}
			tell(keyPairs(d.Name, pairs), nil)
		})
		return
	}
	var last language.KeyState
	state := func(pairs []coord.Pair, err error) {
		if err != nil {
			tell(nil, err)
			return
		}
		if last.Exists = len(pairs) > 0; last.Exists {
			last.Value, last.Seen = string(pairs[0].Value), true
		}
		tell(last, nil)
	}
	if d.Datacenter == "" {
		s.keys.Watch(ctx, d.Name, state)
	} else {
		watch(ctx, d.Name, true, state)
	}
}

func keyPairs(prefix string, pairs []coord.Pair) []*language.KeyPair {
	list := make([]*language.KeyPair, len(pairs))
	for i, p := range pairs {
		index, _ := strconv.ParseUint(string(p.Revision), 10, 64) // 0 where it is no number
		list[i] = &language.KeyPair{
			Path: p.Key, Key: strings.TrimLeft(strings.TrimPrefix(p.Key, prefix), "/"),
			Value: string(p.Value), ModifyIndex: index,
		}
	}
	return list
}

func (s Sources) followCatalog(ctx context.Context, d language.Dependency, tell report) {
	if s.Catalog == nil {
		tell(nil, fmt.Errorf("a catalog of services %w", errNoSource))
		return
	}
	if d.Kind == language.Services {
		s.Catalog.WatchServices(ctx, d.Datacenter, func(names map[string][]string, err error) {
			if err != nil {
				tell(nil, err)
				return
			}
			list := make([]*language.ServiceName, 0, len(names))
			for _, name := range slices.Sorted(maps.Keys(names)) {
				list = append(list, &language.ServiceName{Name: name, Tags: tags(names[name])})
			}
			tell(list, nil)
		})
		return
	}
	status, none := statuses(d.Filter)
	if none {
		tell([]*language.Service{}, nil)
		return
	}
	q := coord.Query{Name: d.Name, Tag: d.Tag, Datacenter: d.Datacenter, Near: d.Near, Status: status}
	s.Catalog.WatchService(ctx, q, func(all []coord.Instance, err error) {
		if err != nil {
			tell(nil, err)
			return
		}
		list := make([]*language.Service, len(all))
		for i, x := range all {
			list[i] = service(x)
		}
		tell(list, nil)
	})
}

// statuses are those that a filter lets through; none: it lets nothing through.
func statuses(filter string) (list []coord.Status, none bool) {
	for _, s := range strings.Split(filter, ",") {
		switch s {
		case "none":
			return nil, true
		case "any":
			return []coord.Status{coord.Passing, coord.Warning, coord.Critical, coord.Maintenance}, false
		}
		list = append(list, coord.Status(s))
	}
	return list, false
}

func tags(list []string) language.Tags {
	sorted := make(language.Tags, len(list))
	copy(sorted, list)
	slices.Sort(sorted)
	return sorted
}

func service(x coord.Instance) *language.Service {
	s := &language.Service{
		Node: x.Node, NodeID: x.NodeID, NodeAddress: x.NodeAddress,
		NodeTaggedAddresses: x.TaggedAddresses, NodeMeta: x.NodeMeta,
		ServiceMeta: x.Meta, Address: x.Address, ServiceTaggedAddresses: map[string]language.TaggedAddress{},
		ID: x.ID, Name: x.Name, Tags: tags(x.Tags), Status: string(x.Status), Port: x.Port,
		Weights: language.Weights{Passing: x.Weight, Warning: 1}, Checks: language.Checks{},
	}
	if s.Address == "" {
		s.Address = x.NodeAddress
	}
	for _, c := range x.Checks {
		s.Checks = append(s.Checks, &language.Check{
			Node: c.Node, CheckID: c.ID, Name: c.Name, Status: string(c.Status), Notes: c.Notes,
			Output: c.Output, ServiceID: c.ServiceID, ServiceName: c.ServiceName, ServiceTags: c.ServiceTags,
		})
	}
	return s
}

func (s Sources) followMachines(ctx context.Context, d language.Dependency, tell report) {
	if s.Nodes == nil {
		tell(nil, fmt.Errorf("a coordinator that knows machines %w: %w", errNoSource, coord.ErrUnsupported))
		return
	}
	switch d.Kind {
	case language.Datacenters:
		s.Nodes.WatchDatacenters(ctx, d.Reachable, func(names []string, err error) {
			if err != nil {
				tell(nil, err)
				return
			}
			tell(slices.Sorted(slices.Values(names)), nil)
		})
	case language.Nodes:
		s.Nodes.WatchNodes(ctx, d.Datacenter, d.Near, func(all []coord.Instance, err error) {
			if err != nil {
				tell(nil, err)
				return
			}
			list := make([]*language.Node, len(all))
			for i, x := range all {
				list[i] = node(x)
			}
			tell(list, nil)
		})
	default:
		s.Nodes.WatchNode(ctx, d.Name, d.Datacenter, func(all []coord.Instance, err error) {
			if err != nil {
				tell(nil, err)
				return
			}
			tell(nodeServices(all), nil)
		})
	}
}

func node(x coord.Instance) *language.Node {
	return &language.Node{
		ID: x.NodeID, Node: x.Node, Address: x.NodeAddress, Datacenter: x.Datacenter,
		TaggedAddresses: x.TaggedAddresses, Meta: x.NodeMeta,
	}
}

func nodeServices(all []coord.Instance) *language.NodeServices {
	n := &language.NodeServices{}
	for _, x := range all {
		n.Node = node(x)
		if x.ID == "" {
			continue
		}
		n.Services = append(n.Services, &language.NodeService{
			ID: x.ID, Service: x.Name, Tags: tags(x.Tags), Meta: x.Meta, Port: x.Port, Address: x.Address,
		})
	}
	slices.SortStableFunc(n.Services, func(a, b *language.NodeService) int {
		if c := strings.Compare(a.Service, b.Service); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return n
}

// filePoll is how often a file is looked at, and how late a change of it is seen.
const filePoll = time.Second

// followFile tells the content of a file, and again when its size, time or number differ.
func followFile(ctx context.Context, path string, tell report) {
	var last os.FileInfo
	failed := false
	tick := time.NewTicker(filePoll)
	defer tick.Stop()
	for {
		info, err := os.Stat(path)
		switch {
		case err == nil && last != nil && os.SameFile(info, last) && info.Size() == last.Size() && info.ModTime().Equal(last.ModTime()):
		case err == nil:
			var content []byte
			if content, err = os.ReadFile(path); err == nil {
				last, failed = info, false
				tell(string(content), nil)
			}
		}
		if err != nil && !failed {
			last, failed = nil, true
			tell(nil, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s Sources) followSecret(ctx context.Context, d language.Dependency, tell report) {
	if s.Secrets == nil {
		tell(nil, fmt.Errorf("a source of secrets %w", errNoSource))
		return
	}
	r := secret.Request{Path: d.Name, Params: d.Written(), List: d.Kind == language.SecretNames}
	s.Secrets.Watch(ctx, r, func(v *secret.Secret, err error) {
		switch {
		case err != nil && r.List && errors.Is(err, secret.ErrNotFound):
			tell([]string(nil), nil) // as with consul-template
		case err != nil:
			tell(nil, err)
		case r.List:
			tell(names(v.Data["keys"]), nil)
		default:
			tell(&language.SecretValue{
				RequestID: v.RequestID, LeaseID: v.LeaseID, LeaseDuration: int(v.LeaseDuration / time.Second),
				Renewable: v.Renewable, Data: v.Data, Warnings: v.Warnings,
			}, nil)
		}
	})
}

func names(keys any) []string {
	var list []string
	all, _ := keys.([]any)
	for _, k := range all {
		if name, ok := k.(string); ok {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}
