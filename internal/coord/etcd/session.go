package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"drover/internal/coord"
)

// Of a TTL, renewThird is after how much a lease is renewed, and how long one renewal may
// take; retryTenth is the wait after one that failed.
const (
	renewThird = 3
	retryTenth = 10
)

// goodbye is how long giving a lease back may take where nobody waits for its success.
const goodbye = 2 * time.Second

// session is a lease of etcd that is kept alive, until it is lost.
type session struct {
	client *Client
	id     clientv3.LeaseID
	ctx    context.Context // ends when it is lost, given back or its client is closed
	lose   context.CancelFunc
}

// grant asks for a lease of etcd.
func (c *Client) grant(ctx context.Context, ttl time.Duration) (id clientv3.LeaseID, granted time.Duration, err error) {
	err = c.do(ctx, "grant a lease", func(ctx context.Context) error {
		answer, err := c.etcd.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
		if err == nil {
			id, granted = answer.ID, time.Duration(answer.TTL)*time.Second
		}
		return err
	})
	return id, granted, err
}

// keepAlive renews a lease of etcd by one message: clientv3's own hides when the one was sent
// that was answered, or, when a connection breaks, tries again without a pause. Errors: ErrNotFound.
func (c *Client) keepAlive(ctx context.Context, id clientv3.LeaseID) error {
	return c.do(ctx, "renew a lease", func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the stream
		stream, err := etcdserverpb.NewLeaseClient(c.etcd.ActiveConnection()).LeaseKeepAlive(ctx, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		_ = stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(id)}) // Recv says why it failed
		answer, err := stream.Recv()
		if err == nil && answer.TTL <= 0 {
			return coord.ErrNotFound
		}
		return err
	})
}

// revoke gives a lease of etcd back; its keys are deleted. It is no error if it is gone.
func (c *Client) revoke(ctx context.Context, id clientv3.LeaseID) error {
	err := c.do(ctx, "revoke a lease", func(ctx context.Context) error {
		_, err := c.etcd.Revoke(ctx, id)
		return err
	})
	if errors.Is(err, coord.ErrNotFound) {
		return nil
	}
	return err
}

// newSession begins a session whose keys confirm looks for after each renewal: somebody may have
// deleted them, and not the lease.
func (c *Client) newSession(ctx context.Context, ttl time.Duration, confirm func(context.Context, *session) error) (*session, error) {
	sent := time.Now()
	id, ttl, err := c.grant(ctx, ttl)
	if err != nil {
		return nil, err
	}
	s := &session{client: c, id: id}
	s.ctx, s.lose = context.WithCancel(c.ctx)
	renew := func(ctx context.Context) error {
		if err := c.keepAlive(ctx, id); err != nil {
			return err
		}
		if err := confirm(ctx, s); errors.Is(err, coord.ErrNotFound) {
			return err
		}
		return nil // a key that cannot be read is not gone
	}
	if err := c.run(func() { keep(s.ctx, ttl, sent, renew, s.lose) }); err != nil {
		s.lose()
		return nil, err
	}
	return s, nil
}

// abandon gives the lease back, if that can be done soon.
func (s *session) abandon() {
	s.lose()
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	_ = s.client.revoke(ctx, s.id) // else it expires
}

// keep renews what lives for ttl after each renewal, the first of which was sent already, until
// ctx ends, it is not found any more, or ttl is over since the last one that succeeded was
// sent. Then it has called lose, whatever hangs.
func keep(ctx context.Context, ttl time.Duration, sent time.Time, renew func(context.Context) error, lose func()) {
	defer lose()
	until := sent.Add(ttl)
	fuse := time.AfterFunc(time.Until(until), lose)
	defer fuse.Stop()
	pause := ttl/renewThird - time.Since(sent)
	for coord.Wait(ctx, min(pause, time.Until(until))) && time.Now().Before(until) {
		sent = time.Now()
		try, cancel := context.WithTimeout(ctx, ttl/renewThird)
		err := renew(try)
		cancel()
		switch {
		case errors.Is(err, coord.ErrNotFound):
			return
		case err != nil:
			pause = coord.Jitter(ttl / retryTenth)
		default:
			until = sent.Add(ttl)
			if !fuse.Reset(time.Until(until)) {
				return // it has burnt while the answer was on its way
			}
			pause = ttl/renewThird - time.Since(sent)
		}
	}
}

// there says whether a key is. Errors: ErrNotFound.
func (c *Client) there(ctx context.Context, key string) error {
	return c.do(ctx, fmt.Sprintf("look for %s", key), func(ctx context.Context) error {
		answer, err := c.etcd.Get(ctx, key, clientv3.WithCountOnly())
		if err == nil && answer.Count == 0 {
			return coord.ErrNotFound
		}
		return err
	})
}
