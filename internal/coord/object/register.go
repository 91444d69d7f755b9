package object

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"drover/internal/coord"
	"drover/internal/objstore"
)

// about is what an instance says of itself and how it is, as stored beside its beat. It is
// written when something of it changes; that the instance lives says the beat alone.
type about struct {
	Gone bool `json:"gone,omitempty"` // removed, by somebody who saw it critical for too long

	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Address string            `json:"address"`
	Port    int               `json:"port"`
	Tags    []string          `json:"tags,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
	TTL     int64             `json:"ttl_ms"`
	After   int64             `json:"deregister_after_ms,omitempty"`

	Status coord.Status `json:"status"`
	Note   string       `json:"note,omitempty"`
}

func aboutOf(r coord.Registration, s coord.Status, note string) about {
	return about{
		ID: r.ID, Name: r.Name, Address: r.Address, Port: r.Port, Tags: slices.Clone(r.Tags), Meta: maps.Clone(r.Meta),
		TTL: max(1, r.TTL.Milliseconds()), After: r.DeregisterAfter.Milliseconds(), Status: s, Note: note,
	}
}

func (a about) equal(b about) bool {
	return a.Gone == b.Gone && a.ID == b.ID && a.Name == b.Name && a.Address == b.Address && a.Port == b.Port &&
		slices.Equal(a.Tags, b.Tags) && maps.Equal(a.Meta, b.Meta) && a.TTL == b.TTL && a.After == b.After &&
		a.Status == b.Status && a.Note == b.Note
}

func (a about) ttl() time.Duration { return time.Duration(a.TTL) * time.Millisecond }

// instance is one that this client writes to.
type instance struct {
	cell  *cell[about]
	beats string    // key
	beat  time.Time // when the last one was sent
	wrote time.Time // when the note was written last
}

func (c *Client) services() string { return c.opt.Prefix + "/services/" }

func (c *Client) instance(name, id string) *instance {
	return c.instanceAt(c.services() + element(name) + "/" + element(id))
}

func (c *Client) instanceAt(dir string) *instance {
	return &instance{cell: newCell[about](c, dir+"/about"), beats: dir + "/beat"}
}

// find returns the instance with this ID, of whatever name, or ErrNotFound. Of those that
// the client did not register itself it knows by listing all.
func (c *Client) find(ctx context.Context, id string) (*instance, error) {
	c.mu.Lock()
	i := c.own[id]
	c.mu.Unlock()
	if i != nil {
		return i, nil
	}
	limited, cancel := c.call(ctx)
	defer cancel()
	var dirs []string
	err := c.store.List(limited, c.services(), func(o objstore.Info) error {
		if dir, ok := strings.CutSuffix(o.Key, "/"+element(id)+"/about"); ok {
			dirs = append(dirs, dir+"/"+element(id))
		}
		return nil
	})
	if err != nil {
		return nil, kind(err)
	}
	for _, dir := range dirs {
		i := c.instanceAt(dir)
		if s, err := i.cell.read(ctx); err != nil {
			return nil, err
		} else if s.etag != "" && !s.Value.Gone && s.Value.ID == id {
			return c.adopt(id, i), nil
		}
	}
	return nil, coord.ErrNotFound
}

// findFrom is find for who knows where the instance should be: an agent that starts again
// finds it there, and does not list what all others have registered.
func (c *Client) findFrom(ctx context.Context, id string, at *instance) (*instance, error) {
	c.mu.Lock()
	i := c.own[id]
	c.mu.Unlock()
	if i != nil {
		return i, nil
	}
	s, err := at.cell.read(ctx)
	switch {
	case err != nil:
		return nil, err
	case s.etag != "" && !s.Value.Gone && s.Value.ID == id:
		return c.adopt(id, at), nil
	}
	return c.find(ctx, id)
}

func (c *Client) adopt(id string, i *instance) *instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own[id] = i
	return i
}

func (c *Client) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.own, id)
}

// Register implements coord.Registry.
func (c *Client) Register(ctx context.Context, r coord.Registration) error {
	if err := coord.CheckRegistration(r); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	status := r.Initial
	if status == "" {
		status = coord.Critical
	}
	at := c.instance(r.Name, r.ID)
	i, err := c.findFrom(ctx, r.ID, at)
	switch {
	case errors.Is(err, coord.ErrNotFound):
		i = at
	case err != nil:
		return fmt.Errorf("register %s: %w", r.ID, err)
	}
	if at.cell.key != i.cell.key { // it had another name
		if err := c.remove(ctx, i); err != nil {
			return fmt.Errorf("register %s: remove it under its former name: %w", r.ID, err)
		}
		i = at
	}
	_, err = i.cell.update(ctx, newID(), func(now about, count uint64) (about, error) {
		next := aboutOf(r, status, "")
		if count > 1 && !now.Gone {
			next.Status, next.Note = now.Status, now.Note
		}
		if next.equal(now) {
			return now, errSame
		}
		return next, nil
	})
	if err != nil && !errors.Is(err, errSame) {
		return fmt.Errorf("register %s: %w", r.ID, err)
	}
	c.adopt(r.ID, i)
	if err := c.beat(ctx, i); err != nil {
		return fmt.Errorf("register %s: %w", r.ID, err)
	}
	return nil
}

// Report implements coord.Registry. Where nothing has changed it is a look whether the
// catalog still has the instance, and a beat, but for one that would follow another within a sixth of the TTL.
func (c *Client) Report(ctx context.Context, id string, s coord.Status, note string) error {
	i, err := c.find(ctx, id)
	if err != nil {
		return fmt.Errorf("report %s: %w", id, err)
	}
	now, err := i.cell.read(ctx)
	if err != nil {
		return fmt.Errorf("report %s: %w", id, err)
	}
	gone := func(a about) bool { return a.Gone || a.ID != id }
	if gone(now.Value) {
		c.forget(id)
		return fmt.Errorf("report %s: %w", id, coord.ErrNotFound)
	}
	ttl := now.Value.ttl()
	if now.Value.Status != s || now.Value.Note != note && c.noteDue(i, ttl) {
		_, err := i.cell.update(ctx, newID(), func(a about, _ uint64) (about, error) {
			if gone(a) {
				return a, coord.ErrNotFound
			}
			a.Status, a.Note = s, note
			return a, nil
		})
		if errors.Is(err, coord.ErrNotFound) {
			c.forget(id)
		}
		if err != nil {
			return fmt.Errorf("report %s: %w", id, err)
		}
		c.noted(i)
	} else if !c.beatDue(i, ttl) {
		return nil
	}
	if err := c.beat(ctx, i); err != nil {
		return fmt.Errorf("report %s: %w", id, err)
	}
	return nil
}

// noteDue says whether a note that differs, with the same status, is worth a write: once in
// a TTL, since every watcher reads what is written, and notes have times and figures in them.
func (c *Client) noteDue(i *instance, ttl time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return i.wrote.IsZero() || time.Since(i.wrote) >= ttl
}

func (c *Client) noted(i *instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i.wrote = time.Now()
}

func (c *Client) beatDue(i *instance, ttl time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return i.beat.IsZero() || time.Since(i.beat) >= ttl/6
}

// beat shows that the instance lives: by new bytes, whatever was there. One that lands late
// makes it seem to live a little longer, and no more.
func (c *Client) beat(ctx context.Context, i *instance) error {
	limited, cancel := c.call(ctx)
	defer cancel()
	sent := time.Now()
	if err := c.store.Put(limited, i.beats, []byte(newID()+"\n")); err != nil {
		return kind(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i.beat = sent
	return nil
}

// Deregister implements coord.Registry.
func (c *Client) Deregister(ctx context.Context, id string) error {
	i, err := c.find(ctx, id)
	if errors.Is(err, coord.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = c.remove(ctx, i)
	}
	if err != nil {
		return fmt.Errorf("deregister %s: %w", id, err)
	}
	c.forget(id)
	return nil
}

// remove deletes both objects, the one that makes it an instance first.
func (c *Client) remove(ctx context.Context, i *instance) error {
	for _, key := range []string{i.cell.key, i.beats} {
		limited, cancel := c.call(ctx)
		err := c.store.Delete(limited, key)
		cancel()
		if err != nil {
			return kind(err)
		}
	}
	return nil
}
