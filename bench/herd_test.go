//go:build bench

package bench

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/consul"
	"drover/internal/coord/etcd"
	"drover/internal/coord/object"
	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/objstore/storeurl"
	"drover/internal/register"
	"drover/internal/testkit/consulserver"
	"drover/internal/testkit/etcdserver"
	"drover/internal/testkit/s3server"
)

var (
	away     = flag.Duration("away", 2*time.Minute, "how long the coordinator is away (TestHerd)")
	patience = flag.Duration("patience", 5*time.Minute, "how long all may need until they know (TestHerd)")
	soon     = flag.Duration("soon", 90*time.Second, "how long it is watched after it is back (TestHerd)")
)

// herdService is how many instances each service has.
const herdService = 10

// pasture is a coordinator whose requests are counted.
type pasture struct {
	open        func(t *testing.T) coord.Coordinator // of one agent
	requests    func() int64                         // that came ever, answered or not
	stop, start func()
	ttl         time.Duration
	longest     time.Duration // of the pauses between two looks at a server that is away
}

// TestHerd: many agents, each of which keeps an instance registered as an agent does and watches one
// service of 10 instances and one prefix of keys, lose their coordinator, and get it back: how
// often it is asked, second by second.
func TestHerd(t *testing.T) {
	for name, build := range map[string]func(*testing.T) pasture{"consul": consulPasture, "etcd": etcdPasture, "store": storePasture} {
		t.Run(name, func(t *testing.T) { herd(t, name, build(t)) })
	}
}

func herd(t *testing.T, name string, p pasture) {
	c := &crowd{t: t}
	ctx, stop := context.WithCancel(t.Context())
	defer c.group.Wait()
	defer stop()
	for i := range *agents {
		c.join(ctx, p.open(t), i, p.ttl)
		time.Sleep(100 * time.Millisecond) // not at once: that is another story
	}
	c.settle()
	time.Sleep(p.ttl)
	clock := startClock(p.requests)
	defer clock.end()
	time.Sleep(p.ttl)
	rest := clock.take()
	p.stop()
	time.Sleep(*away)
	gone := clock.take()
	p.start()
	back := time.Now()
	clock.take()
	c.settle()
	knows := time.Since(back)
	time.Sleep(time.Until(back.Add(max(*soon, p.longest+p.ttl))))
	after := clock.take()
	t.Logf("RESULT %s, %d agents at rest: %v", name, *agents, rest)
	t.Logf("RESULT %s away for %v: the first 10 s: %v; then: %v", name, *away, gone[:10], gone[10:])
	t.Logf("RESULT %s is back: all watches know the present state after %v; %v; each 5 s: %s", name, round(knows), after, after.fives())
}

// crowd is the agents.
type crowd struct {
	t     *testing.T
	group sync.WaitGroup
	known atomic.Int64 // watches that know the present state
	why   atomic.Value // why one did not, last
}

func registration(i int, ttl time.Duration) coord.Registration {
	name := fmt.Sprintf("service-%d", i%max(1, *agents/herdService))
	return coord.Registration{ID: fmt.Sprintf("%s-%d", name, i), Name: name, Address: "192.0.2.1", Port: 80, TTL: ttl}
}

func (c *crowd) note(err error) {
	if err != nil {
		c.why.Store(err.Error())
	}
}

func (c *crowd) join(ctx context.Context, agent coord.Coordinator, i int, ttl time.Duration) {
	r := registration(i, ttl)
	name, services := r.Name, max(1, *agents/herdService)
	size := (*agents - i%services + services - 1) / services
	s := register.New(agent, register.Options{Log: slog.New(slog.DiscardHandler), Registration: r})
	s.Set(coord.Passing, "well")
	var parts sync.WaitGroup
	parts.Go(func() { s.Run(ctx) })
	parts.Go(func() {
		tell := c.teller()
		agent.WatchService(ctx, coord.Query{Name: name}, func(is []coord.Instance, err error) { c.note(err); tell(err == nil && len(is) == size) })
	})
	parts.Go(func() {
		tell := c.teller()
		agent.Watch(ctx, name+"/", false, func(_ []coord.Pair, err error) { c.note(err); tell(err == nil) })
	})
	c.group.Go(func() {
		parts.Wait()
		_ = agent.Close()
	})
}

// teller counts a watch among those that know the present state.
func (c *crowd) teller() func(knows bool) {
	knew := false
	return func(knows bool) {
		switch {
		case knows && !knew:
			c.known.Add(1)
		case knew && !knows:
			c.known.Add(-1)
		}
		knew = knows
	}
}

func (c *crowd) settle() {
	c.t.Helper()
	for end := time.Now().Add(*patience); c.known.Load() < int64(2**agents); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("%d of %d watches know the present state; the last failure: %v", c.known.Load(), 2**agents, c.why.Load())
		}
	}
}

// clock samples a count each second.
type clock struct {
	mu    sync.Mutex
	rates rates
	quit  chan struct{}
	done  sync.WaitGroup
}

func startClock(count func() int64) *clock {
	c := &clock{quit: make(chan struct{})}
	last := count()
	c.done.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-c.quit:
				return
			case <-tick.C:
			}
			now := count()
			c.mu.Lock()
			c.rates = append(c.rates, now-last)
			c.mu.Unlock()
			last = now
		}
	})
	return c
}

func (c *clock) end() { close(c.quit); c.done.Wait() }

// take returns what was sampled since it was called last.
func (c *clock) take() rates {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.rates
	c.rates = nil
	return r
}

// rates is requests, second by second.
type rates []int64

func (r rates) mean() float64 {
	var sum int64
	for _, n := range r {
		sum += n
	}
	return float64(sum) / float64(max(1, len(r)))
}

func (r rates) String() string {
	return fmt.Sprintf("%.0f requests a second, %d in the busiest", r.mean(), slices.Max(append(rates{0}, r...)))
}

// fives is means of five seconds each.
func (r rates) fives() string {
	var all []string
	for part := range slices.Chunk(r, 5) {
		all = append(all, fmt.Sprintf("%.0f", part.mean()))
	}
	return strings.Join(all, " ")
}

func consulPasture(t *testing.T) pasture {
	s := consulserver.Start(t, consulserver.Options{Connections: 10 * *agents})
	proxy := countRequests(t, s.Address)
	return pasture{
		open: func(t *testing.T) coord.Coordinator {
			c, err := consul.New(consul.Options{Address: proxy.address})
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
		requests: func() (sum int64) {
			for _, n := range proxy.counts() {
				sum += int64(n)
			}
			return sum
		},
		stop: s.Stop, start: s.StartAgain, ttl: 90 * time.Second, longest: 20 * time.Second,
	}
}

// etcdCount counts calls by etcd's own figures, and while it is away the connections that are
// tried.
type etcdCount struct {
	t *testing.T
	s *etcdserver.Server

	mu               sync.Mutex
	sum, last, tried int64
	placeholder      *doorstep // while it is away
}

func etcdPasture(t *testing.T) pasture {
	c := &etcdCount{t: t, s: etcdserver.Start(t, etcdserver.Options{Sync: true})}
	return pasture{
		open: func(t *testing.T) coord.Coordinator {
			client, err := etcd.Open(etcd.Options{Endpoints: c.s.Endpoints})
			if err != nil {
				t.Fatal(err)
			}
			return client
		},
		requests: c.requests, stop: c.stop, start: c.start,
		ttl: 30 * time.Second, longest: 15 * time.Second,
	}
}

func (c *etcdCount) requests() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.placeholder != nil {
		return c.sum + c.tried + c.placeholder.knocks.Load()
	}
	if now := etcdCalls(c.s); now > c.last { // else it does not answer yet
		c.sum, c.last = c.sum+now-c.last, now
	}
	return c.sum + c.tried
}

func (c *etcdCount) stop() {
	c.s.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.placeholder = stand(c.t, strings.TrimPrefix(c.s.Endpoints[0], "http://"))
}

func (c *etcdCount) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.placeholder.close()
	c.tried += c.placeholder.knocks.Load()
	c.placeholder, c.last = nil, 0
	c.s.StartAgain()
}

// etcdCalls is how many calls etcd has begun to answer.
func etcdCalls(s *etcdserver.Server) (sum int64) {
	for name, n := range counters(s) {
		if strings.HasPrefix(name, "calls") {
			sum += int64(n)
		}
	}
	return sum
}

// doorstep counts the connections that are tried at an address where nobody is, and closes them.
type doorstep struct {
	listener net.Listener
	knocks   atomic.Int64
	done     sync.WaitGroup
}

func stand(t *testing.T, address string) *doorstep {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	d := &doorstep{listener: l}
	d.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.knocks.Add(1)
			_ = c.(*net.TCPConn).SetLinger(0) // the port is to be free at once
			_ = c.Close()
		}
	})
	return d
}

func (d *doorstep) close() { _ = d.listener.Close(); d.done.Wait() }

func storePasture(t *testing.T) pasture {
	s := s3server.Start(t, s3server.Options{})
	s.Setenv()
	prepare(t, s)
	var count atomic.Int64
	const interval = 30 * time.Second // one such server on a machine with two processors does not bear a thousand agents that look each 5 s
	return pasture{
		ttl: 3 * interval, longest: 6 * interval,
		open: func(t *testing.T) coord.Coordinator {
			st, err := storeurl.Open(t.Context(), s.URL("herd"), storeurl.Options{Concurrency: 2})
			if err != nil {
				t.Fatal(err)
			}
			return closing{object.New(counted{st, &count}, object.Options{Interval: interval}), st}
		},
		requests: count.Load,
		stop:     s.Stop, start: s.StartAgain,
	}
}

// prepare puts into the bucket what the agents have registered in an earlier life: each new
// one would list all the others.
func prepare(t *testing.T, s *s3server.Server) {
	from := mem.New()
	c := object.New(from, object.Options{})
	for i := range *agents {
		if err := c.Register(t.Context(), registration(i, time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.Close()
	to, err := storeurl.Open(t.Context(), s.URL("herd"), storeurl.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = to.Close() }()
	err = from.List(t.Context(), "", func(o objstore.Info) error {
		data, _, err := from.Get(t.Context(), o.Key, 0, -1)
		if err != nil {
			return err
		}
		return to.Put(t.Context(), o.Key, data)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// closing closes the store, too.
type closing struct {
	*object.Client
	store objstore.Closer
}

func (c closing) Close() error {
	_ = c.Client.Close()
	return c.store.Close()
}

// counted is a store whose calls are counted as they begin.
type counted struct {
	objstore.Store
	calls *atomic.Int64
}

func (c counted) Get(ctx context.Context, key string, offset, length int64) ([]byte, objstore.Info, error) {
	c.calls.Add(1)
	return c.Store.Get(ctx, key, offset, length)
}

func (c counted) Head(ctx context.Context, key string) (objstore.Info, error) {
	c.calls.Add(1)
	return c.Store.Head(ctx, key)
}

func (c counted) Put(ctx context.Context, key string, data []byte) error {
	c.calls.Add(1)
	return c.Store.Put(ctx, key, data)
}

func (c counted) PutIf(ctx context.Context, key string, data []byte, cond objstore.Condition) (objstore.ETag, error) {
	c.calls.Add(1)
	return c.Store.PutIf(ctx, key, data, cond)
}

func (c counted) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	c.calls.Add(1)
	return c.Store.List(ctx, prefix, fn)
}

func (c counted) Delete(ctx context.Context, key string) error {
	c.calls.Add(1)
	return c.Store.Delete(ctx, key)
}
