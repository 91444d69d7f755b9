//go:build bench

package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/consul"
	"drover/internal/testkit/consulserver"
)

var (
	agents  = flag.Int("agents", 1000, "simulated agents of one coordinator (TestConsulAtRest)")
	watches = flag.Int("watches", 1000, "keys that one agent watches, each by itself (TestConsulKeys)")
)

// TestConsulAtRest: what agents cost one Consul while nothing happens. Each is registered with
// a TTL, reports in time, and watches a service and a prefix of keys. In earnest they
// speak to the Consul of their own machine, which spares the servers the reports; here one
// is all.
func TestConsulAtRest(t *testing.T) {
	const ttl = 30 * time.Second
	s := consulserver.Start(t, consulserver.Options{Connections: 10 * *agents})
	proxy := countRequests(t, s.Address)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	var told, failed atomic.Int64
	note := func(err error) {
		if err != nil {
			failed.Add(1)
			return
		}
		told.Add(1)
	}
	before := heap()
	clients := make([]*consul.Coordinator, *agents)
	instance := func(i int) coord.Registration { // 50 agents in each service, as 20 services have
		return coord.Registration{
			ID: fmt.Sprintf("agent-%d", i), Name: fmt.Sprintf("service-%d", i%max(1, *agents/50)),
			Address: "192.0.2.1", Port: 80, TTL: ttl, Initial: coord.Passing,
		}
	}
	start := time.Now()
	for i := range clients {
		var err error
		if clients[i], err = consul.New(consul.Options{Address: proxy.address}); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = clients[i].Close() }()
		if err := clients[i].Register(ctx, instance(i)); err != nil {
			t.Fatal(err)
		}
		group.Go(func() { report(ctx, clients[i], instance(i), ttl, note) })
	}
	t.Logf("RESULT registration, one after the other: %v each", round(time.Since(start)/time.Duration(*agents)))
	for i, c := range clients {
		r := instance(i)
		group.Go(func() {
			c.WatchService(ctx, coord.Query{Name: r.Name}, func(_ []coord.Instance, err error) { note(err) })
		})
		group.Go(func() { c.Watch(ctx, "config/"+r.Name+"/", false, func(_ []coord.Pair, err error) { note(err) }) })
	}
	waitCalm(t, &told)
	settled := told.Load()
	const rest = 6 * time.Minute // longer than a query waits
	pids := []int{s.Pid()}
	requests, used, ours := proxy.counts(), cpu(pids), ownCPU()
	time.Sleep(rest)
	after := proxy.counts()
	t.Logf("RESULT %d agents at rest on one Consul, %v: %s", *agents, rest, perSecond(requests, after, rest))
	t.Logf("RESULT Consul: CPU %.1f %% of a core, RSS %.0f MB; all agents and the counting proxy: CPU %.1f %% of a core, %.0f kB of heap and stacks per agent; %d states told meanwhile, %d failures ever",
		100*(cpu(pids)-used).Seconds()/rest.Seconds(), float64(rssKiB(pids))/1024, 100*(ownCPU()-ours).Seconds()/rest.Seconds(),
		float64(heap()-before)/1024/float64(*agents), told.Load()-settled, failed.Load())
}

// report reports three times in a TTL, as an agent does, and registers what was forgotten.
func report(ctx context.Context, c coord.Registry, r coord.Registration, ttl time.Duration, note func(error)) {
	for coord.Wait(ctx, coord.Jitter(ttl/3)) {
		err := c.Report(ctx, r.ID, coord.Passing, "well")
		if errors.Is(err, coord.ErrNotFound) {
			err = c.Register(ctx, r)
		}
		if err != nil && ctx.Err() == nil {
			note(err)
		}
	}
}

// TestConsulKeys: many keys that one agent watches, each by itself, as templates do: what that
// costs the agent, and how late a change is told, with the connections that Consul allows by default.
func TestConsulKeys(t *testing.T) {
	s := consulserver.Start(t, consulserver.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	c, err := consul.New(consul.Options{Address: s.Address})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	key := func(i int) string { return fmt.Sprintf("keys/%04d", i) }
	var ops []coord.Op
	for i := range *watches { // a query for a key that is not there would be woken by each write
		ops = append(ops, coord.Op{Key: key(i), Value: []byte("old")})
		if len(ops) == c.MaxOps() || i == *watches-1 {
			if err := c.Apply(ctx, ops); err != nil {
				t.Fatal(err)
			}
			ops = nil
		}
	}
	var first, failed atomic.Int64
	changed := make(chan int, *watches)
	before, goroutines := heap(), runtime.NumGoroutine()
	for i := range *watches {
		group.Go(func() {
			c.Watch(ctx, key(i), true, func(pairs []coord.Pair, err error) {
				switch {
				case err != nil:
					failed.Add(1)
				case string(pairs[0].Value) == "old":
					first.Add(1)
				default:
					changed <- i
				}
			})
		})
	}
	for first.Load() < int64(*watches) {
		time.Sleep(10 * time.Millisecond)
	}
	const rest = time.Minute
	pids := []int{s.Pid()}
	used, ours := cpu(pids), ownCPU()
	time.Sleep(rest)
	t.Logf("RESULT %d keys watched one by one by one agent, at rest: agent: CPU %.1f %% of a core, %.0f MB of heap and stacks, %d goroutines, %d failures; Consul: CPU %.1f %%, RSS %.0f MB",
		*watches, 100*(ownCPU()-ours).Seconds()/rest.Seconds(), float64(heap()-before)/(1<<20), runtime.NumGoroutine()-goroutines, failed.Load(),
		100*(cpu(pids)-used).Seconds()/rest.Seconds(), float64(rssKiB(pids))/1024)
	var late figures
	for i := 0; i < *watches; i += max(1, *watches/20) {
		start := time.Now()
		if _, err := c.Put(ctx, key(i), []byte("new")); err != nil {
			t.Fatal(err)
		}
		for got := range changed {
			if got == i {
				break
			}
		}
		late = append(late, time.Since(start))
	}
	t.Logf("RESULT %d keys watched one by one: a change of one is told after %v", *watches, late)
}

// counter is a proxy that counts requests by what they are for.
type counter struct {
	address string
	mu      sync.Mutex
	seen    map[string]int
}

func countRequests(t *testing.T, server string) *counter {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 10_000, DialContext: (&net.Dialer{}).DialContext}
	back := httputil.NewSingleHostReverseProxy(u)
	back.Transport, back.ErrorLog = transport, log.New(io.Discard, "", 0) // the end of the test ends many queries
	c := &counter{seen: map[string]int{}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.URL.Path, "/")
		c.mu.Lock()
		c.seen[strings.Join(parts[2:min(len(parts), 4)], "/")]++
		c.mu.Unlock()
		back.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { front.CloseClientConnections(); front.Close(); transport.CloseIdleConnections() })
	c.address = front.URL
	return c
}

func (c *counter) counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	copied := map[string]int{}
	for k, v := range c.seen {
		copied[k] = v
	}
	return copied
}

func perSecond(before, after map[string]int, over time.Duration) string {
	var all float64
	var parts []string
	for what, n := range after {
		rate := float64(n-before[what]) / over.Seconds()
		all += rate
		if rate > 0 {
			parts = append(parts, fmt.Sprintf("%s %.1f", what, rate))
		}
	}
	return fmt.Sprintf("%.1f requests a second (%s)", all, strings.Join(parts, ", "))
}

// waitCalm waits until nothing was told for 10 seconds.
func waitCalm(t *testing.T, told *atomic.Int64) {
	t.Helper()
	last, since := int64(-1), time.Now()
	for limit := time.Now().Add(5 * time.Minute); time.Since(since) < 10*time.Second; time.Sleep(100 * time.Millisecond) {
		if now := told.Load(); now != last {
			last, since = now, time.Now()
		}
		if time.Now().After(limit) {
			t.Log("states are told all the time")
			return
		}
	}
}

// heap is what this process needs, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
