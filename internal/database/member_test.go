package database

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/coord/mem"
	"drover/internal/failover"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// cluster is real members over a database and a coordinator in memory.
type cluster struct {
	*testing.T
	engine  *engine
	server  *mem.Server
	mode    failover.Mode
	roll    time.Duration
	ttl     time.Duration
	version string // of the agents; empty: test
	standby bool   // the members to come are told to follow another cluster
	members map[string]*instance
}

// instance is one of them, and what it runs on.
type instance struct {
	*Member
	*node
	c       *cluster
	kv      *mem.Client
	end     context.CancelFunc
	ended   chan struct{}
	err     error // of Run, when it has ended
	changes chan Change
}

func newCluster(t *testing.T, mode failover.Mode, names ...string) *cluster {
	t.Helper()
	c := &cluster{T: t, engine: newEngine(), server: mem.NewServer(), mode: mode, ttl: 3 * time.Second, members: map[string]*instance{}}
	for _, name := range names {
		c.add(name, failover.Tags{})
	}
	return c
}

// newSteady is a cluster in which nobody is elected unasked, however busy the machine is.
func newSteady(t *testing.T, mode failover.Mode, names ...string) *cluster {
	t.Helper()
	c := newCluster(t, mode)
	c.ttl = 20 * time.Second
	for _, name := range names {
		c.add(name, failover.Tags{})
	}
	return c
}

// add starts another member.
func (c *cluster) add(name string, tags failover.Tags) *instance {
	c.Helper()
	return c.addAs(name, name, tags)
}

// addAs starts one that is called as another one may be.
func (c *cluster) addAs(key, name string, tags failover.Tags) *instance {
	c.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.Fatal(err)
	}
	n := c.engine.node(key)
	i := &instance{node: n, c: c, kv: c.server.Open(), ended: make(chan struct{}), changes: make(chan Change, 100)}
	log := slog.New(slog.NewTextHandler(c.Output(), nil)).With("member", name)
	i.Member, err = New(Options{
		Failover: failover.Config{
			Name: name, Mode: c.mode, Acks: 1, TTL: c.ttl, Missing: time.Second, Forget: time.Minute, Compare: n.Compare, Standby: c.standby,
			Self: failover.Member{Host: "127.0.0.1", Port: 1, API: listener.Addr().String(), Version: cmp.Or(c.version, "test"), Tags: tags},
		},
		Driver: n, Processes: processes{n}, KV: i.kv, Prefix: "db", StateFile: filepath.Join(c.TempDir(), "state"), Listener: listener,
		Secret: []byte("secret"), Log: log, Source: source{n}, Roll: c.roll, Backups: func() json.RawMessage { return json.RawMessage(`"` + name + `'s"`) },
		Changed: func(change Change) {
			select {
			case i.changes <- change:
			default:
			}
		},
	})
	if err != nil {
		c.Fatal(err)
	}
	n.exited = i.Ended
	ctx, end := context.WithCancel(context.Background())
	i.end = end
	go func() {
		defer close(i.ended)
		i.err = i.Run(ctx)
	}()
	c.Cleanup(i.kill)
	c.members[key] = i
	return i
}

// kill ends the agent, and the server with it.
func (i *instance) kill() {
	i.end()
	<-i.ended
	i.kv.Close()
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c.Cleanup(cancel)
	return ctx
}

// until waits for a condition.
func (c *cluster) until(what string, holds func() bool) {
	c.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !holds(); {
		select {
		case <-tick.C:
		case <-deadline:
			text := ""
			for name, i := range c.members {
				text += fmt.Sprintf("\n%s: %+v", name, i.View())
			}
			c.Fatalf("it does not come to pass that %s%s", what, text)
		}
	}
}

// formed waits until one leads and all others receive from it, and are waited for if anybody is.
func (c *cluster) formed() (primary *instance) {
	c.Helper()
	c.until("the cluster is whole", func() bool {
		primary = nil
		replicas := 0
		for _, i := range c.members {
			switch v := i.View(); {
			case v.Role == RolePrimary:
				primary = i
			case v.Role == RoleReplica && (v.Sync || c.mode == failover.Off || v.Tags.NoSync):
				replicas++
			}
		}
		if primary == nil || replicas != len(c.members)-1 {
			return false
		}
		for _, i := range c.members { // and all know that of one another
			v := i.View()
			if v.Primary != primary.name() || len(v.Names()) != len(c.members) {
				return false
			}
			for _, name := range v.Names() {
				if s, ok := i.Of(v, v.Record.Members[name].ID); !ok || s.Role == RoleNone || s.Role == RolePrimary && len(s.Replicas) != replicas {
					return false
				}
			}
		}
		return true
	})
	return primary
}

func (i *instance) name() string { return i.node.name }

// other is one that does not lead.
func (c *cluster) other(primary *instance) *instance {
	names := []string{}
	for name, i := range c.members {
		if i != primary {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return c.members[names[0]]
}

// writes has the primary of now acknowledge a word, and waits for it.
func (c *cluster) writes() string {
	c.Helper()
	for {
		for _, i := range c.members {
			if i.View().Role != RolePrimary {
				continue
			}
			if word, err := i.node.write(c.ctx()); err == nil {
				return word
			}
		}
		if c.ctx().Err() != nil {
			c.Fatal("nobody takes a word")
		}
	}
}

// kept fails the test if a primary lacks what was acknowledged.
func (c *cluster) kept(primary *instance, words ...string) {
	c.Helper()
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	for _, w := range words {
		if !slices.Contains(primary.node.log, w) {
			c.Errorf("%s was acknowledged, and %s has only %v", w, primary.name(), primary.node.log)
		}
	}
}

// refused fails the test unless an order was refused for this reason.
func (c *cluster) refused(err error, kind RefusalKind, why string) {
	c.Helper()
	var r *Refused
	if !errors.As(err, &r) || r.Kind != kind || !strings.Contains(r.Why, why) {
		c.Errorf("want a refusal (%s) that says %q, got: %v", kind, why, err)
	}
}

func TestFormsAndFailsOver(t *testing.T) {
	for _, mode := range []failover.Mode{failover.On, failover.Strict, failover.Off} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, mode, "a", "b", "c")
			first := c.formed()
			word := c.writes()
			first.crash()
			c.until("another one leads", func() bool {
				v := first.View()
				return v.Primary != "" && v.Primary != first.name() || v.Epoch > 2 && v.Role == RolePrimary
			})
			second := c.formed()
			if mode != failover.Off {
				c.kept(second, word)
			}
			if second == first {
				t.Errorf("%s leads again, although others could", first.name())
			}
			if h := second.View().Record.History; len(h) < 2 || h[len(h)-1].Timeline != "2" {
				t.Errorf("history: %+v", h)
			}
		})
	}
}

// TestAgentDies: who is silent is replaced, and nothing that was acknowledged is lost.
func TestAgentDies(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b", "c")
	first := c.formed()
	word := c.writes()
	first.kill()
	delete(c.members, first.name())
	c.until("another one leads", func() bool {
		return slices.ContainsFunc([]string{"a", "b", "c"}, func(name string) bool {
			i := c.members[name]
			return i != nil && i.View().Role == RolePrimary
		})
	})
	for _, i := range c.members {
		if i.View().Role == RolePrimary {
			c.kept(i, word)
		}
	}
}

// TestCannotBeKilled: a primary whose server hangs so that not even a kill ends it, as upon a disk that does not answer,
// is replaced: it falls silent. When it can be killed at last, it follows.
func TestCannotBeKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b", "c")
	first := c.formed()
	word := c.writes()
	wedged := make(chan struct{})
	loose := sync.OnceFunc(func() { close(wedged) })
	t.Cleanup(loose)
	c.engine.change(func() { first.node.wedged, first.node.frozen = wedged, true })
	var second *instance
	c.until("another one leads", func() bool {
		for _, i := range c.members {
			if i != first && i.View().Role == RolePrimary {
				second = i
			}
		}
		return second != nil
	})
	c.kept(second, word)
	if v := first.View(); v.Role == RolePrimary {
		t.Errorf("%s says that it leads", first.name())
	}
	c.engine.change(func() { first.node.wedged = nil })
	loose()
	c.formed()
}

// TestReadinessElectsNobody: a replica that load balancers leave out, and that applies nothing of what it receives, leads when
// nobody else may; what it had received it has.
func TestReadinessElectsNobody(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On)
	c.add("a", failover.Tags{NoLoadBalance: true})
	c.add("b", failover.Tags{NoLoadBalance: true})
	first := c.formed()
	next := c.other(first)
	c.add("c", failover.Tags{NoFailover: true})
	c.formed()
	c.engine.change(func() { next.node.slow = true })
	word := c.writes()
	for _, path := range []string{"/replica", "/read-only"} {
		if got := next.get(http.MethodGet, path).Code; got != http.StatusServiceUnavailable {
			t.Errorf("%s says %d of a replica that is not to be asked", path, got)
		}
	}
	first.kill()
	delete(c.members, first.name())
	c.until("the other one leads", func() bool { return next.View().Role == RolePrimary })
	c.kept(next, word)
}

// TestUpstreamThatMoved: a primary that was started again at another address is followed there, although it is the same one.
func TestUpstreamThatMoved(t *testing.T) {
	t.Parallel()
	c := newCluster(t, failover.On, "a", "b")
	first := c.formed()
	second := c.other(first)
	followed := func() int {
		c.engine.mu.Lock()
		defer c.engine.mu.Unlock()
		return second.node.told.Port
	}
	if n := followed(); n != 1 {
		t.Fatalf("it follows at port %d", n)
	}
	first.Member.mu.Lock()
	first.opt.Failover.Self.Port = 2
	first.Member.mu.Unlock()
	c.until("it is followed where it is now", func() bool { return followed() == 2 })
	c.formed()
}
