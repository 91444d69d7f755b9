package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"drover/internal/coord"
)

// errOvertaken ends a stream whose next change cannot be had: it is compacted, etcd is not
// so far (any more), or does not say why. A list tells more, and so this is no failure yet.
var errOvertaken = errors.New("the watch was overtaken")

// Watch implements coord.KV.
func (c *Client) Watch(ctx context.Context, prefix string, exact bool, fn func([]coord.Pair, error)) {
	check, s := coord.CheckPrefix, below(c.opts.Prefix+prefix)
	if exact {
		check, s = coord.CheckKey, span{key: c.opts.Prefix + prefix}
	}
	if err := check(prefix); err != nil {
		refuse(ctx, fn, fmt.Errorf("watch: %w", err))
		return
	}
	watch(ctx, c, "watch "+prefix, s, c.pair, coord.EqualPairs, fn, func(items []item[coord.Pair]) []coord.Pair {
		pairs := make([]coord.Pair, len(items))
		for i := range items {
			pairs[i] = items[i].value
		}
		return pairs
	})
}

// refuse tells an error that stays, until ctx ends.
func refuse[T any](ctx context.Context, fn func(T, error), err error) {
	if ctx.Err() == nil {
		var none T
		fn(none, err)
	}
	<-ctx.Done()
}

// watch tells fn what view makes of the keys of a span, decoded, until ctx ends.
func watch[E, T any](ctx context.Context, c *Client, what string, s span, decode func(*mvccpb.KeyValue) (E, bool),
	equal func(a, b T) bool, fn func(T, error), view func([]item[E]) T,
) {
	m := &mirror[E]{client: c, what: what, span: s, decode: decode, news: make(chan struct{}, 1)}
	var reader sync.WaitGroup
	reader.Go(func() { m.read(ctx) })
	defer reader.Wait()
	tell := coord.NewTeller(fn, equal)
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.news:
		}
		items, err := m.now()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			tell.Failed(ctx, err)
		default:
			tell.State(view(items))
		}
	}
}

// item is a key and what was decoded of its value.
type item[E any] struct {
	key   string
	value E
}

// mirror is a copy of a span, kept by one goroutine and read by another, which may be
// slower: it sees the newest state then, not all.
type mirror[E any] struct {
	client *Client
	what   string
	span   span
	decode func(*mvccpb.KeyValue) (E, bool)
	news   chan struct{} // holds one if there is something that now has not returned

	mu    sync.Mutex
	items []item[E] // sorted by key
	err   error     // why items are not the present state
}

func (m *mirror[E]) now() ([]item[E], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.items), m.err
}

// set changes the state under the lock.
func (m *mirror[E]) set(change func()) {
	m.mu.Lock()
	change()
	m.mu.Unlock()
	select {
	case m.news <- struct{}{}:
	default: // it is told already
	}
}

// read keeps the mirror until ctx ends.
func (m *mirror[E]) read(ctx context.Context) {
	wait := retryBackoff()
	for ctx.Err() == nil {
		began := time.Now()
		err := m.follow(ctx)
		if time.Since(began) > wait.Most {
			wait.Reset()
		}
		switch {
		case err == nil:
			continue // it was time to list again
		case !errors.Is(err, errOvertaken):
			m.set(func() { m.err = err })
		}
		coord.Wait(ctx, wait.Next())
	}
}

// retryBackoff is for who waits for the cluster to come back.
func retryBackoff() *coord.Backoff {
	return &coord.Backoff{Least: 100 * time.Millisecond, Most: 5 * time.Second}
}

// follow lists, and applies what changes from there. It returns nil when it is time to
// list again.
func (m *mirror[E]) follow(ctx context.Context) error {
	c := m.client
	var at int64
	err := c.do(ctx, m.what, func(ctx context.Context) error {
		answer, err := c.list(ctx, m.span)
		if err != nil {
			return err
		}
		at = answer.Header.Revision
		items := make([]item[E], 0, len(answer.Kvs))
		for _, kv := range answer.Kvs {
			if v, ok := m.decode(kv); ok {
				items = append(items, item[E]{string(kv.Key), v})
			}
		}
		m.set(func() { m.items, m.err = items, nil })
		return nil
	})
	if err != nil {
		return err
	}
	return c.follow(ctx, m.what, m.span, at+1, false, func(events []*mvccpb.Event) bool {
		m.set(func() {
			for _, e := range events {
				m.apply(e)
			}
		})
		return true
	})
}

// apply needs the lock.
func (m *mirror[E]) apply(e *mvccpb.Event) {
	key := string(e.Kv.Key)
	i, found := slices.BinarySearchFunc(m.items, key, func(it item[E], key string) int { return strings.Compare(it.key, key) })
	var (
		v    E
		keep bool
	)
	if e.Type == mvccpb.Event_PUT {
		v, keep = m.decode(e.Kv)
	}
	switch {
	case keep && found:
		m.items[i].value = v
	case keep:
		m.items = slices.Insert(m.items, i, item[E]{key, v})
	case found:
		m.items = slices.Delete(m.items, i, i+1)
	}
}

// follow calls fn with the changes of a span from a revision on, those of one revision
// together, until fn returns false or it is time to list again.
func (c *Client) follow(ctx context.Context, what string, s span, from int64, deletesOnly bool, fn func([]*mvccpb.Event) bool) error {
	stream, cancel := context.WithCancel(ctx)
	defer cancel()
	// No deadline: gRPC tells it to the member, whose clock may end the stream before ours.
	defer time.AfterFunc(coord.Jitter(2*c.opts.Relist), cancel).Stop()
	defer context.AfterFunc(c.ctx, cancel)()
	err := c.stream(stream, s, from, deletesOnly, fn)
	switch {
	case err == nil || errors.Is(err, errOvertaken):
		return err
	case ctx.Err() == nil && c.ctx.Err() == nil && stream.Err() != nil:
		return nil
	}
	return fmt.Errorf("%s: %w", what, c.kind(ctx, err))
}

// stream is a gRPC stream of its own, and not one that clientv3 shares and resumes: that it
// broke has to be told, and etcd may be another one when it is back.
func (c *Client) stream(ctx context.Context, s span, from int64, deletesOnly bool, fn func([]*mvccpb.Event) bool) error {
	token, err := c.login(ctx, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := etcdserverpb.NewWatchClient(c.etcd.ActiveConnection()).Watch(authorized(ctx, token))
	if err != nil {
		return err
	}
	create := &etcdserverpb.WatchCreateRequest{Key: []byte(s.key), RangeEnd: []byte(s.end), StartRevision: from}
	if deletesOnly {
		create.Filters = []etcdserverpb.WatchCreateRequest_FilterType{etcdserverpb.WatchCreateRequest_NOPUT}
	}
	if err := stream.Send(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		_, err = stream.Recv() // what Send returns does not say why
		return err
	}
	for {
		answer, err := stream.Recv()
		switch {
		case err != nil:
			return err
		case answer.CompactRevision != 0:
			return errOvertaken
		case answer.Canceled:
			// Not permitted, most likely, which only the text would say: the list will.
			c.forgetLogin(&token, 0)
			return errOvertaken
		case answer.Created && answer.Header.Revision < from-1:
			return errOvertaken
		case len(answer.Events) > 0 && !fn(answer.Events):
			return nil
		}
	}
}
