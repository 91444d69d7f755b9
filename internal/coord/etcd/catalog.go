package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"drover/internal/coord"
)

// record is the value of the key that an instance is listed by. It is bound to a lease of
// etcd if the instance is to be forgotten when it was critical for long.
type record struct {
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Address string            `json:"address,omitempty"`
	Port    int               `json:"port,omitempty"`
	Tags    []string          `json:"tags,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
	// Milliseconds; who reports needs them, not who lists.
	TTL             int64 `json:"ttl_ms"`
	DeregisterAfter int64 `json:"deregister_after_ms,omitempty"`
}

// health is the value of the key beside it. It is bound to a lease of the TTL: without it the
// instance is silent, and so critical.
type health struct {
	Status coord.Status `json:"status"`
	Note   string       `json:"note,omitempty"`
}

const silent = "no report came for longer than its TTL"

func recordOf(r coord.Registration) record {
	return record{
		ID: r.ID, Name: r.Name, Address: r.Address, Port: r.Port, Tags: r.Tags, Meta: r.Meta,
		TTL: r.TTL.Milliseconds(), DeregisterAfter: max(0, r.DeregisterAfter.Milliseconds()),
	}
}

func (r record) equal(o record) bool {
	return r.ID == o.ID && r.Name == o.Name && r.Address == o.Address && r.Port == o.Port && slices.Equal(r.Tags, o.Tags) &&
		maps.Equal(r.Meta, o.Meta) && r.TTL == o.TTL && r.DeregisterAfter == o.DeregisterAfter
}

func (r record) ttl() time.Duration { return time.Duration(r.TTL) * time.Millisecond }

// slack is how old the last renewal of the record's lease may become: a quarter of the time
// for which it outlives the last good report, so that it need not be renewed by every one.
func (r record) slack() time.Duration {
	return max(time.Duration(r.DeregisterAfter)*time.Millisecond/4, time.Second)
}

// lifetime is the TTL of the record's lease; 0: it needs none. After the last good report
// the instance may be well for a TTL; it is critical then for DeregisterAfter at least.
func (r record) lifetime() time.Duration {
	if r.DeregisterAfter == 0 {
		return 0
	}
	return r.ttl() + time.Duration(r.DeregisterAfter)*time.Millisecond + r.slack()
}

// The keys of an instance: the record and the health are neighbours, so that one watch sees both.
// The third finds the service of an ID.
func (c *Client) serviceDir(name string) string {
	return c.own + "service/" + url.PathEscape(name) + "/"
}
func (c *Client) instanceDir(name, id string) string {
	return c.serviceDir(name) + url.PathEscape(id) + "/"
}
func (c *Client) indexKey(id string) string { return c.own + "instance/" + url.PathEscape(id) }

const (
	recordPart = "record"
	healthPart = "health"
)

// fact is a record or a health, of whose key dir is the rest.
type fact struct {
	dir    string
	record *record
	health *health
}

// parseFact reads a key of the catalog. What is none of both, or not understood, is not
// there.
func parseFact(kv *mvccpb.KeyValue) (fact, bool) {
	i := strings.LastIndexByte(string(kv.Key), '/') + 1
	f := fact{dir: string(kv.Key[:i])}
	var err error
	switch string(kv.Key[i:]) {
	case recordPart:
		f.record = &record{}
		err = json.Unmarshal(kv.Value, f.record)
	case healthPart:
		f.health = &health{}
		err = json.Unmarshal(kv.Value, f.health)
	default:
		return fact{}, false
	}
	return f, err == nil
}

// WatchService implements coord.Catalog. There are no distances: Near changes nothing.
func (c *Client) WatchService(ctx context.Context, q coord.Query, fn func([]coord.Instance, error)) {
	what := "watch service " + q.Name
	if q.Datacenter != "" {
		refuse(ctx, fn, fmt.Errorf("%s: datacenter %q: %w", what, q.Datacenter, coord.ErrUnsupported))
		return
	}
	watch(ctx, c, what, below(c.serviceDir(q.Name)), parseFact, coord.EqualInstances, fn, func(facts []item[fact]) []coord.Instance {
		return instances(facts, q)
	})
}

// instances puts together what is known of each. A health stands before its record: their
// keys are sorted.
func instances(facts []item[fact], q coord.Query) []coord.Instance {
	var found []coord.Instance
	var last fact
	for _, it := range facts {
		f := it.value
		if f.record != nil {
			said := health{coord.Critical, silent}
			if last.health != nil && last.dir == f.dir {
				said = *last.health
			}
			if q.Wants(said.Status, f.record.Tags) {
				found = append(found, instanceOf(*f.record, said))
			}
		}
		last = f
	}
	slices.SortFunc(found, func(a, b coord.Instance) int { return strings.Compare(a.ID, b.ID) })
	return found
}

func instanceOf(r record, h health) coord.Instance {
	return coord.Instance{
		Registration: coord.Registration{ID: r.ID, Name: r.Name, Address: r.Address, Port: r.Port, Tags: r.Tags, Meta: r.Meta},
		Status:       h.Status, Note: h.Note, Weight: 1,
		Checks: []coord.Check{{
			ID: "service:" + r.ID, Name: r.Name, Output: h.Note, ServiceID: r.ID, ServiceName: r.Name, ServiceTags: r.Tags, Status: h.Status,
		}},
	}
}

// WatchServices implements coord.Catalog.
func (c *Client) WatchServices(ctx context.Context, datacenter string, fn func(map[string][]string, error)) {
	if datacenter != "" {
		refuse(ctx, fn, fmt.Errorf("watch services: datacenter %q: %w", datacenter, coord.ErrUnsupported))
		return
	}
	watch(ctx, c, "watch services", below(c.own+"service/"), parseFact, coord.EqualServices, fn, func(facts []item[fact]) map[string][]string {
		all := map[string][]string{}
		for _, it := range facts {
			if r := it.value.record; r != nil {
				all[r.Name] = append(all[r.Name], r.Tags...)
			}
		}
		for name, tags := range all {
			slices.Sort(tags)
			all[name] = slices.Compact(tags)
		}
		return all
	})
}
