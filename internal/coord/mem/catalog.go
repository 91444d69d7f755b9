package mem

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"drover/internal/coord"
)

// instance is one that is registered.
type instance struct {
	said     coord.Registration
	status   coord.Status // as reported
	note     string
	lapses   time.Time // when it will have been silent for a TTL
	critical time.Time // since when it was reported critical, else zero
}

func (i *instance) report(s coord.Status, note string, now time.Time) {
	if s == coord.Critical {
		i.critical = i.since(now)
	} else {
		i.critical = time.Time{}
	}
	i.status, i.note, i.lapses = s, note, now.Add(i.said.TTL)
}

// since is when the instance became critical: now, if it is not.
func (i *instance) since(now time.Time) time.Time {
	since := now
	if i.status == coord.Critical && !i.critical.IsZero() {
		since = i.critical
	}
	if i.lapses.Before(since) {
		since = i.lapses
	}
	return since
}

func (i *instance) statusAt(now time.Time) coord.Status {
	if i.status != coord.Maintenance && !now.Before(i.lapses) {
		return coord.Critical
	}
	return i.status
}

// ends is when the catalog forgets the instance if nothing is reported; zero: never.
func (i *instance) ends() time.Time {
	if i.said.DeregisterAfter <= 0 {
		return time.Time{}
	}
	return i.since(i.lapses).Add(i.said.DeregisterAfter)
}

// sweep forgets who was critical for too long, and returns when the next change comes by
// time alone. It needs the lock.
func (s *Server) sweep(now time.Time) (next time.Time) {
	for id, i := range s.services {
		if end := i.ends(); !end.IsZero() && !now.Before(end) {
			delete(s.services, id)
			continue
		}
		for _, t := range []time.Time{i.lapses, i.ends()} {
			if t.After(now) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}

func (i *instance) shown(now time.Time) coord.Instance {
	r := i.said
	r.Tags, r.Meta = slices.Clone(r.Tags), maps.Clone(r.Meta)
	r.TTL, r.Initial, r.DeregisterAfter = 0, "", 0
	status := i.statusAt(now)
	return coord.Instance{Registration: r, Status: status, Note: i.note, Weight: 1, Checks: []coord.Check{{
		ID: "service:" + r.ID, Name: r.Name, Output: i.note, ServiceID: r.ID, ServiceName: r.Name,
		ServiceTags: slices.Clone(r.Tags), Status: status,
	}}}
}

// Register implements coord.Registry.
func (c *Client) Register(ctx context.Context, r coord.Registration) error {
	if err := coord.CheckRegistration(r); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	r.Tags, r.Meta = slices.Clone(r.Tags), maps.Clone(r.Meta)
	return c.do(ctx, "register "+r.ID, func() error {
		now := time.Now()
		c.server.sweep(now)
		if old := c.server.services[r.ID]; old != nil {
			old.said = r
		} else {
			i := &instance{said: r}
			status := r.Initial
			if status == "" {
				status = coord.Critical
			}
			i.lapses = now.Add(r.TTL)
			i.report(status, "", now)
			c.server.services[r.ID] = i
		}
		c.server.change()
		return nil
	})
}

// Report implements coord.Registry.
func (c *Client) Report(ctx context.Context, id string, s coord.Status, note string) error {
	return c.do(ctx, "report "+id, func() error {
		now := time.Now()
		c.server.sweep(now)
		i := c.server.services[id]
		if i == nil {
			return coord.ErrNotFound
		}
		i.report(s, note, now)
		c.server.change()
		return nil
	})
}

// Deregister implements coord.Registry.
func (c *Client) Deregister(ctx context.Context, id string) error {
	return c.do(ctx, "deregister "+id, func() error {
		delete(c.server.services, id)
		c.server.change()
		return nil
	})
}

// WatchService implements coord.Catalog. There are no distances: Near changes nothing.
func (c *Client) WatchService(ctx context.Context, q coord.Query, fn func([]coord.Instance, error)) {
	if q.Datacenter != "" {
		coord.Refuse(ctx, fn, fmt.Errorf("watch service %s: datacenter %q: %w", q.Name, q.Datacenter, coord.ErrUnsupported))
		return
	}
	watch(ctx, c, "watch service "+q.Name, coord.EqualInstances, fn, func() ([]coord.Instance, time.Time) {
		now := time.Now()
		next := c.server.sweep(now)
		var found []coord.Instance
		for _, i := range c.server.services {
			if i.said.Name == q.Name && q.Wants(i.statusAt(now), i.said.Tags) {
				found = append(found, i.shown(now))
			}
		}
		slices.SortFunc(found, func(a, b coord.Instance) int { return strings.Compare(a.ID, b.ID) })
		return found, next
	})
}

// WatchServices implements coord.Catalog.
func (c *Client) WatchServices(ctx context.Context, datacenter string, fn func(map[string][]string, error)) {
	if datacenter != "" {
		coord.Refuse(ctx, fn, fmt.Errorf("watch services: datacenter %q: %w", datacenter, coord.ErrUnsupported))
		return
	}
	watch(ctx, c, "watch services", coord.EqualServices, fn, func() (map[string][]string, time.Time) {
		next := c.server.sweep(time.Now())
		all := map[string][]string{}
		for _, i := range c.server.services {
			all[i.said.Name] = append(all[i.said.Name], i.said.Tags...)
		}
		for name, tags := range all {
			slices.Sort(tags)
			all[name] = slices.Compact(tags)
		}
		return all, next
	})
}
