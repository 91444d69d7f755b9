package object

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"drover/internal/coord"
	"drover/internal/objstore"
)

const (
	parallel = 16        // reads of what is new in a listing
	grave    = time.Hour // how long a mark of a removed instance, or a beat of none, must have lain there before it is deleted
)

// view is what the watches of one client have seen of the services below a prefix. Who has
// the turn has it all.
type view struct {
	c      *Client
	prefix string
	turn   chan struct{} // one look at a time

	failed    failure
	looked    time.Time // when the last whole look was begun; zero: none yet
	instances map[string]*sight
	abouts    map[string]reading // as read, by folder; of a look that failed, too, so that the next one has less to do
}

// reading is one version of what an instance says of itself.
type reading struct {
	etag  objstore.ETag
	about *about
}

// sight is what is known of one instance, by its folder's key. Durations are by our own
// monotonic clock, and of time in which we looked.
type sight struct {
	etag     objstore.ETag // of about, as read
	about    *about        // nil: there is none, only a beat
	sign     string        // version of the beat
	silent   time.Duration // how long the sign has been the same
	critical time.Duration // how long it has been critical, or silent
	still    time.Duration // how long neither of the objects has changed
}

// status is what it reported, unless it is silent.
func (s *sight) status() coord.Status {
	if s.about.Status != coord.Maintenance && s.silent >= s.about.ttl() {
		return coord.Critical
	}
	return s.about.Status
}

// down says whether its time until it is removed runs.
func (s *sight) down() bool {
	return s.there() && (s.about.Status == coord.Critical || s.silent >= s.about.ttl())
}

func (s *sight) there() bool { return s.about != nil && !s.about.Gone }

func (c *Client) view(prefix string) *view {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.views[prefix] == nil {
		c.views[prefix] = &view{c: c, prefix: prefix, turn: make(chan struct{}, 1), instances: map[string]*sight{}, abouts: map[string]reading{}}
	}
	return c.views[prefix]
}

// recent looks, unless somebody has within half an interval, and calls f with what is there.
func (v *view) recent(ctx context.Context, f func(map[string]*sight)) error {
	began := time.Now()
	if err := turn(ctx, v.turn); err != nil {
		return err
	}
	defer func() { <-v.turn }()
	if v.looked.IsZero() || time.Since(v.looked) > v.c.opt.Interval/2 {
		if err := v.failed.since(began); err != nil {
			return err
		}
		err := kind(v.look(ctx))
		v.failed.of(ctx, err)
		if err != nil {
			return err
		}
	}
	f(v.instances)
	return nil
}

// listing is one folder of the store.
type listing struct{ about, beat objstore.Info }

// look lists the prefix and reads the abouts that are new. It needs the turn.
func (v *view) look(ctx context.Context) error {
	began := time.Now()
	folders, err := v.list(ctx)
	if err != nil {
		return err
	}
	next, err := v.read(ctx, folders)
	if err != nil {
		return err
	}
	passed, first := began.Sub(v.looked), v.looked.IsZero()
	for dir, s := range next {
		old := v.instances[dir]
		sign := signOf(folders[dir].beat)
		changed := old == nil || old.sign != sign || old.etag != s.etag
		gap := first || s.about != nil && passed > max(s.about.ttl()/2, 3*v.c.opt.Interval)
		if old != nil && old.sign == sign && !gap {
			s.silent = old.silent + passed
		}
		s.sign = sign
		if !changed {
			s.still = old.still + passed
		}
		if s.down() && old != nil && old.down() && !gap {
			s.critical = old.critical + passed
		}
	}
	v.instances, v.looked = next, began
	maps.DeleteFunc(v.abouts, func(dir string, _ reading) bool { return next[dir] == nil })
	v.bury(ctx)
	return nil
}

// signOf names the version of a beat. Where a listing has no ETags, its time and size must do.
func signOf(beat objstore.Info) string {
	if beat.ETag != "" {
		return string(beat.ETag)
	}
	return fmt.Sprintf("%d %d", beat.ModTime.UnixNano(), beat.Size)
}

func (v *view) list(ctx context.Context) (map[string]listing, error) {
	ctx, cancel := v.c.call(ctx)
	defer cancel()
	folders := map[string]listing{}
	err := v.c.store.List(ctx, v.prefix, func(o objstore.Info) error {
		i := strings.LastIndexByte(o.Key, '/')
		f := folders[o.Key[:i]]
		switch o.Key[i+1:] {
		case "about":
			f.about = o
		case "beat":
			f.beat = o
		default:
			return nil
		}
		folders[o.Key[:i]] = f
		return nil
	})
	return folders, err
}

// read returns a sight of each folder, with what was known of its about or, if that is not
// what is listed, what it is now.
func (v *view) read(ctx context.Context, folders map[string]listing) (map[string]*sight, error) {
	next := make(map[string]*sight, len(folders))
	var group errgroup.Group
	group.SetLimit(parallel)
	for dir, f := range folders {
		s := &sight{}
		next[dir] = s
		if old, ok := v.abouts[dir]; ok && f.about.ETag != "" && old.etag == f.about.ETag {
			s.etag, s.about = old.etag, old.about
			continue
		}
		if f.about.Key == "" {
			continue
		}
		group.Go(func() error {
			ctx, cancel := v.c.call(ctx)
			defer cancel()
			data, info, err := v.c.store.Get(ctx, f.about.Key, 0, -1)
			if errors.Is(err, objstore.ErrNotFound) {
				return nil // it has gone since
			}
			if err != nil {
				return err
			}
			now, err := decode[about](v.c, f.about.Key, data, info.ETag)
			if err != nil {
				return err
			}
			s.etag, s.about = info.ETag, &now.Value
			return nil
		})
	}
	err := group.Wait()
	for dir, s := range next {
		if s.about != nil {
			v.abouts[dir] = reading{s.etag, s.about}
		}
	}
	return next, err
}

// bury marks who was critical for too long as gone, and deletes what has lain there for long
// after that. It does what it can: whoever looks does the rest. It needs the turn.
func (v *view) bury(ctx context.Context) {
	for dir, s := range v.instances {
		after := time.Duration(0)
		if s.about != nil {
			after = time.Duration(s.about.After) * time.Millisecond
		}
		i := v.c.instanceAt(dir)
		switch {
		case s.there() && after > 0 && s.critical >= after:
			seen := *s.about
			_, err := i.cell.update(ctx, newID(), func(now about, _ uint64) (about, error) {
				if !now.equal(seen) {
					return now, errSame // it has stirred
				}
				now.Gone = true
				return now, nil
			})
			if err == nil {
				s.about, s.etag = &about{Gone: true}, "" // until it is read
			}
		case !s.there() && s.still >= max(grave, after):
			_ = v.c.remove(ctx, i)
		}
	}
}

func (s *sight) shown() coord.Instance {
	a, status := s.about, s.status()
	return coord.Instance{
		Registration: coord.Registration{
			ID: a.ID, Name: a.Name, Address: a.Address, Port: a.Port, Tags: slices.Clone(a.Tags), Meta: maps.Clone(a.Meta),
		},
		Status: status, Note: a.Note, Weight: 1, Checks: []coord.Check{{
			ID: "service:" + a.ID, Name: a.Name, Output: a.Note, ServiceID: a.ID, ServiceName: a.Name,
			ServiceTags: slices.Clone(a.Tags), Status: status,
		}},
	}
}

// WatchService implements coord.Catalog. There are no distances: Near changes nothing.
func (c *Client) WatchService(ctx context.Context, q coord.Query, fn func([]coord.Instance, error)) {
	if q.Datacenter != "" {
		coord.Refuse(ctx, fn, fmt.Errorf("watch service %s: datacenter %q: %w", q.Name, q.Datacenter, coord.ErrUnsupported))
		return
	}
	v := c.view(c.services() + element(q.Name) + "/")
	look(ctx, c, coord.EqualInstances, fn, func(ctx context.Context) (found []coord.Instance, err error) {
		err = v.recent(ctx, func(all map[string]*sight) {
			for _, s := range all {
				if s.there() && s.about.Name == q.Name && q.Wants(s.status(), s.about.Tags) {
					found = append(found, s.shown())
				}
			}
		})
		if err != nil {
			return nil, fmt.Errorf("watch service %s: %w", q.Name, err)
		}
		slices.SortFunc(found, func(a, b coord.Instance) int { return strings.Compare(a.ID, b.ID) })
		return found, nil
	})
}

// WatchServices implements coord.Catalog.
func (c *Client) WatchServices(ctx context.Context, datacenter string, fn func(map[string][]string, error)) {
	if datacenter != "" {
		coord.Refuse(ctx, fn, fmt.Errorf("watch services: datacenter %q: %w", datacenter, coord.ErrUnsupported))
		return
	}
	v := c.view(c.services())
	look(ctx, c, coord.EqualServices, fn, func(ctx context.Context) (map[string][]string, error) {
		found := map[string][]string{}
		err := v.recent(ctx, func(all map[string]*sight) {
			for _, s := range all {
				if s.there() {
					found[s.about.Name] = append(found[s.about.Name], s.about.Tags...)
				}
			}
		})
		if err != nil {
			return nil, fmt.Errorf("watch services: %w", err)
		}
		for name, tags := range found {
			slices.Sort(tags)
			found[name] = slices.Compact(tags)
		}
		return found, nil
	})
}
