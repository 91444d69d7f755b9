package app

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/client"
	"drover/internal/coord"
	"drover/internal/coord/mem"
	"drover/internal/event"
	"drover/internal/repo/fstest"
)

// inMemory is a coordinator of this process, and another client of it.
func inMemory(t *testing.T) (*coordinator, *mem.Server, *mem.Client) {
	server := mem.NewServer()
	c, other := server.Open(), server.Open()
	t.Cleanup(func() { _ = c.Close(); _ = other.Close() })
	return &coordinator{catalog: c, kv: c, leases: c, registry: c, close: func() {}}, server, other
}

// catalogSays waits until the catalog lists the service as wanted: "status note" of each instance.
func catalogSays(t *testing.T, c coord.Catalog, service string, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []string
	all := []coord.Status{coord.Passing, coord.Warning, coord.Critical, coord.Maintenance}
	c.WatchService(ctx, coord.Query{Name: service, Status: all}, func(found []coord.Instance, err error) {
		got = nil
		for _, i := range found {
			got = append(got, fmt.Sprint(i.Status, " ", i.Address, ":", i.Port, " ", strings.Join(i.Tags, ",")))
		}
		if slices.Equal(got, want) {
			cancel()
		}
	})
	if !slices.Equal(got, want) {
		t.Fatalf("the catalog says %q of %s, want %q", got, service, want)
	}
}

const webService = `
coordinator: consul://127.0.0.1:1
jobs:
  web:
    command: [sleep, "1000"]
    checks: {up: {exec: [test, -e, %q], every: 100ms, threshold: 2}}
    service: {name: web, port: 80, address: "static:10.0.0.1", tags: [%s], %s}
`

func TestServiceOfAJob(t *testing.T) {
	co, _, other := inMemory(t)
	up := filepath.Join(t.TempDir(), "up")
	s := runsWith(t, fmt.Sprintf(webService, up, "a, b", ""), co)
	s.event("ready", "web")
	if st := s.Status().Services; len(st) != 1 || st[0].Status != "" || st[0].Wanted != "" {
		t.Errorf("before its check passed: %+v", st)
	}
	fstest.Write(t, up, "")
	catalogSays(t, other, "web", "passing 10.0.0.1:80 a,b")
	fstest.Must(t, os.Remove(up))
	catalogSays(t, other, "web", "critical 10.0.0.1:80 a,b")
	fstest.Must(t, s.Maintenance(true))
	catalogSays(t, other, "web", "maintenance 10.0.0.1:80 a,b")
	fstest.Write(t, up, "")
	s.event("healthy", "web")
	fstest.Must(t, s.Maintenance(false))
	catalogSays(t, other, "web", "passing 10.0.0.1:80 a,b")
	s.until("it knows what the catalog says", func(st client.Status) bool { return st.Services[0].Status == "passing" })
	if st := s.Status().Services[0]; st.Job != "web" || st.Name != "web" || !strings.HasPrefix(st.ID, "web-") {
		t.Errorf("%+v", st)
	}

	// Another tag is no other job; without a service the entry goes.
	pid := s.job("web").PID
	s.write(fmt.Sprintf(webService, up, "c", ""))
	if r, err := s.Reload(t.Context()); err != nil || !slices.Equal(r.Kept, []string{"web"}) {
		t.Fatalf("%+v, %v", r, err)
	}
	catalogSays(t, other, "web", "passing 10.0.0.1:80 c")
	if now := s.job("web").PID; now != pid {
		t.Errorf("the job was restarted for a tag: %d, then %d", pid, now)
	}
	fstest.Must(t, s.StopJob(t.Context(), "web"))
	catalogSays(t, other, "web")
	fstest.Must(t, s.StartJob(t.Context(), "web"))
	catalogSays(t, other, "web", "passing 10.0.0.1:80 c")
}

// The catalog's entry is gone, and the drain over, before the job is asked to stop.
func TestServiceIsTakenOutBeforeItsJobStops(t *testing.T) {
	co, _, other := inMemory(t)
	dir := t.TempDir()
	s := runsWith(t, fmt.Sprintf(`
coordinator: consul://127.0.0.1:1
jobs:
  web:
    main: true
    command: "trap 'touch %[1]s/asked; exit 0' TERM; touch %[1]s/runs; while :; do sleep 0.05; done"
    service: {name: web, address: "static:10.0.0.1", drain: 300ms}
`, dir), co)
	catalogSays(t, other, "web", "passing 10.0.0.1:0 ")
	gone := make(chan bool, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		other.WatchService(ctx, coord.Query{Name: "web"}, func(found []coord.Instance, err error) {
			if len(found) == 0 {
				_, err := os.Stat(dir + "/asked")
				gone <- os.IsNotExist(err)
				cancel()
			}
		})
	}()
	start := time.Now()
	s.askStop()
	if !<-gone {
		t.Error("the job was asked to stop while the catalog listed it")
	}
	if state := s.job("web").State; state != "draining" && state != "stopping" && state != "exited" {
		t.Errorf("it is %s", state)
	}
	if status := <-s.ended; status != 0 {
		t.Errorf("status %d", status)
	}
	s.ended <- 0
	if took := time.Since(start); took < 300*time.Millisecond {
		t.Errorf("it ended after %s, within its drain", took)
	}
}

// A catalog that is away holds up neither the job's start nor, for long, its stop; a job
// that crashes is told as critical, and as passing when it runs again.
func TestServiceWhileTheCatalogIsAway(t *testing.T) {
	co, server, other := inMemory(t)
	server.SetAvailable(false)
	s := runsWith(t, `
coordinator: consul://127.0.0.1:1
jobs:
  web: {command: [sleep, "1000"], restart: {policy: always, delay: 100ms}, service: {name: web, address: "static:10.0.0.1"}}
`, co)
	s.event("ready", "web")
	server.SetAvailable(true)
	catalogSays(t, other, "web", "passing 10.0.0.1:0 ")
	fstest.Must(t, s.SignalJob("web", "KILL"))
	s.event("exit", "web")
	s.event("ready", "web")
	catalogSays(t, other, "web", "passing 10.0.0.1:0 ")
	server.SetAvailable(false)
	fstest.Must(t, s.StopJob(t.Context(), "web"))
	s.event("stopped", "web")
}

func TestServiceWithoutAnAddress(t *testing.T) {
	co, _, _ := inMemory(t)
	s := runsWith(t, "coordinator: consul://127.0.0.1:1\njobs: {web: {command: [sleep, \"1000\"]}}", co)
	s.event("ready", "web")
	s.write("coordinator: consul://127.0.0.1:1\njobs: {web: {command: [sleep, \"1000\"], service: {name: web, address: eth77}}}")
	if _, err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "no address is eth77") {
		t.Errorf("%v", err)
	}
}

// changes counts the events changed of a watch that the bus keeps and that came after the
// newest of unhealthy.
func (s *supervisor) changes(name string) (n int) {
	s.t.Helper()
	sub := s.bus.Subscribe(event.Options{Queue: recentEvents, Recent: recentEvents})
	defer sub.Close()
	ctx, cancel := context.WithCancel(s.t.Context())
	cancel()
	for {
		e, _, err := sub.Next(ctx)
		if err != nil {
			return n
		}
		switch {
		case e.Name == "unhealthy" && e.Source == name:
			n = 0
		case e.Name == "changed" && e.Source == name:
			n++
		}
	}
}

// watches3 waits until the first of three watches is as wanted.
func (s *supervisor) watches3(wanted func(client.Watch) bool) {
	s.t.Helper()
	s.until("the watches", func(st client.Status) bool { return len(st.Watches) == 3 && wanted(st.Watches[0]) })
}

// Of a service: members, addresses and tags count; of keys: their values.
func TestWatchesIgnoredTagChanges(t *testing.T) {
	co, server, other := inMemory(t)
	s := runsWith(t, `
coordinator: consul://127.0.0.1:1
watches: {db: postgres, conf: {key: shop/conf}, all: {prefix: shop/}}
jobs:
  web: {command: [sleep, "1000"]}
  on: {command: "echo changed", on: ["changed:db"]}
  up: {command: "echo up", on: ["healthy:db"]}
  down: {command: "echo down", on: ["unhealthy:db"]}
`, co)
	s.event("ready", "web")
	r := coord.Registration{ID: "db-1", Name: "postgres", Address: "10.0.0.2", TTL: time.Hour, Initial: coord.Passing}
	fstest.Must(t, other.Register(t.Context(), r))
	s.event("changed", "db")
	s.event("healthy", "db")
	s.says("up", "up")
	r.Tags = []string{"primary"}
	fstest.Must(t, other.Register(t.Context(), r))
	s.event("changed", "db")
	r.Address = "10.0.0.3"
	fstest.Must(t, other.Register(t.Context(), r))
	s.event("changed", "db")
	fstest.Must(t, other.Deregister(t.Context(), "db-1"))
	s.event("changed", "db")
	s.event("unhealthy", "db")
	s.says("down", "down")
	_, err := other.Put(t.Context(), "shop/conf", []byte("1"))
	fstest.Must(t, err)
	s.event("changed", "conf")
	_, err = other.Put(t.Context(), "shop/other", []byte("1"))
	fstest.Must(t, err)
	s.watches3(func(w client.Watch) bool { return w.Size == 2 && w.Error == "" })
	server.SetAvailable(false)
	s.watches3(func(w client.Watch) bool { return w.Size == 2 && w.Error != "" && w.Known })

	// That it was away is no change: nothing is caused by its return.
	server.SetAvailable(true)
	s.until("it is back", func(st client.Status) bool {
		return !slices.ContainsFunc(st.Watches, func(w client.Watch) bool { return w.Error != "" })
	})
	put(t, other, "shop/conf", "2")
	s.until("the change is known", func(client.Status) bool { return s.changes("conf") == 2 && s.changes("all") >= 2 })
	if n := s.changes("db"); n != 0 {
		t.Errorf("%d changes of a service that was only unknown for a while", n)
	}
	// What was known of one question is not known of another: with nobody to answer, nothing is.
	server.SetAvailable(false)
	s.write(`
coordinator: consul://127.0.0.1:1
watches: {db: {service: postgres, tag: primary}}
jobs: {web: {command: [sleep, "1000"]}}
`)
	if _, err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w := s.Status().Watches; len(w) != 1 || w[0].Known {
		t.Errorf("%+v", w)
	}
}
