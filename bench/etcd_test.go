//go:build bench

package bench

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/etcd"
	"drover/internal/testkit/etcdserver"
)

const (
	etcdAgents   = 1000
	etcdServices = 20
	etcdTTL      = 15 * time.Second
)

// fleet is many agents, each a client of its own, in this process.
type fleet struct {
	t        *testing.T
	group    sync.WaitGroup
	known    atomic.Int64 // watches that know the present state
	reports  atomic.Int64
	failures atomic.Int64 // reports that failed
	gone     atomic.Int64 // reports of what etcd had forgotten
	calls    atomic.Int64 // of the watches' functions
}

// TestEtcdAtRest: what 1,000 agents need of one etcd while nothing happens, each of which
// has registered an instance and reports for it three times in its TTL of 15 s, watches one
// of 20 services and one prefix of keys. Then etcd is killed and started again.
func TestEtcdAtRest(t *testing.T) {
	s := etcdserver.Start(t, etcdserver.Options{Sync: true})
	f := &fleet{t: t}
	ctx, stop := context.WithCancel(t.Context())
	defer func() { stop(); f.group.Wait() }()
	began := time.Now()
	for i := range etcdAgents {
		c, err := etcd.Open(etcd.Options{Endpoints: s.Endpoints, RequestTimeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		f.start(ctx, c, i)
	}
	f.settle()
	t.Logf("RESULT etcd, %d agents come at once: all are registered and know what they watch after %v", etcdAgents, round(time.Since(began)))
	time.Sleep(3 * etcdTTL) // until the reports are spread
	f.measure(s)
	s.Stop()
	time.Sleep(5 * time.Second)
	s.StartAgain()
	began = time.Now()
	f.settle()
	t.Logf("RESULT etcd is back after 5 s: all watches know the present state after %v; failed reports %d, forgotten instances %d",
		round(time.Since(began)), f.failures.Load(), f.gone.Load())
}

func (f *fleet) start(ctx context.Context, c *etcd.Client, i int) {
	service := fmt.Sprintf("service-%d", i%etcdServices)
	r := coord.Registration{
		ID: fmt.Sprintf("%s-%d", service, i), Name: service, Address: "192.0.2.1", Port: 8080, Tags: []string{"v1"},
		TTL: etcdTTL, Initial: coord.Passing, DeregisterAfter: time.Hour,
	}
	var agent sync.WaitGroup
	agent.Go(func() {
		f.must(c.Register(ctx, r))
		for coord.Wait(ctx, coord.Jitter(etcdTTL/3)) {
			f.reports.Add(1)
			switch err := c.Report(ctx, r.ID, coord.Passing, ""); {
			case ctx.Err() != nil || err == nil:
			case coord.Kind(err) == coord.ErrNotFound:
				f.gone.Add(1)
				_ = c.Register(ctx, r)
			default:
				f.failures.Add(1)
			}
		}
	})
	agent.Go(func() {
		tell := f.teller()
		c.WatchService(ctx, coord.Query{Name: service}, func(is []coord.Instance, err error) {
			tell(err == nil && len(is) == etcdAgents/etcdServices)
		})
	})
	agent.Go(func() {
		tell := f.teller()
		c.Watch(ctx, service+"/", false, func(_ []coord.Pair, err error) { tell(err == nil) })
	})
	f.group.Go(func() {
		agent.Wait()
		_ = c.Close()
	})
}

// teller counts a watch among those that know the present state.
func (f *fleet) teller() func(knows bool) {
	knew := false
	return func(knows bool) {
		f.calls.Add(1)
		switch {
		case knows && !knew:
			f.known.Add(1)
		case knew && !knows:
			f.known.Add(-1)
		}
		knew = knows
	}
}

func (f *fleet) must(err error) {
	if err != nil {
		f.t.Error(err)
	}
}

func (f *fleet) settle() {
	f.t.Helper()
	for end := time.Now().Add(5 * time.Minute); f.known.Load() < 2*etcdAgents; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("%d of %d watches know the present state", f.known.Load(), 2*etcdAgents)
		}
	}
}

// measure prints what a minute at rest needs.
func (f *fleet) measure(s *etcdserver.Server) {
	const rest = time.Minute
	server, own := []int{s.Pid(0)}, []int{os.Getpid()}
	before, calls, reports := counters(s), f.calls.Load(), f.reports.Load()
	usedServer, usedOwn := cpu(server), cpu(own)
	time.Sleep(rest)
	usedServer, usedOwn = cpu(server)-usedServer, cpu(own)-usedOwn
	after := counters(s)
	sum := 0.0
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if n := (after[name] - before[name]) / rest.Seconds(); n > 0.005 {
			f.t.Logf("RESULT etcd at rest: %s %.2f per second", name, n)
			if strings.HasPrefix(name, "calls") {
				sum += n
			}
		}
	}
	f.t.Logf("RESULT etcd at rest, %d agents: %.0f requests per second, for %.0f reports; CPU %.1f %% of a core, RSS %.0f MB; the agents together: CPU %.1f %%, RSS %.0f MB; %d calls of watches",
		etcdAgents, sum, float64(f.reports.Load()-reports)/rest.Seconds(), percent(usedServer, rest), float64(rssKiB(server))/1024,
		percent(usedOwn, rest), float64(rssKiB(own))/1024, f.calls.Load()-calls)
}

func percent(used, of time.Duration) float64 { return 100 * used.Seconds() / of.Seconds() }

// counters reads etcd's own: calls by method (each renewal is a stream of its own), and
// what went through its log. There are none while it does not answer.
func counters(s *etcdserver.Server) map[string]float64 {
	found := map[string]float64{}
	resp, err := http.Get(s.MetricsURL(0))
	if err != nil {
		return found
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return found
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		name, number, _ := strings.Cut(line, " ")
		n, err := strconv.ParseFloat(number, 64)
		if err != nil {
			continue
		}
		switch {
		case strings.HasPrefix(name, "grpc_server_started_total"):
			_, method, _ := strings.Cut(name, `grpc_method="`)
			method, _, _ = strings.Cut(method, `"`)
			found["calls of "+method] += n
		case name == "etcd_server_proposals_committed_total":
			found["entries of its log"] = n
		}
	}
	return found
}
