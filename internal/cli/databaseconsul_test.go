package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"drover/client"
	"drover/internal/testkit/consulserver"
)

// listed are the passing members in Consul's catalog, as "role port", sorted.
func listed(t *testing.T, consul string) []string {
	t.Helper()
	resp, err := http.Get(consul + "/v1/health/service/db?passing") //nolint:noctx // Consul answers at once
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var entries []struct {
		Service struct {
			Tags []string
			Meta map[string]string
			Port int
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&entries); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		if e.Service.Meta["epoch"] == "" || e.Service.Meta["timeline"] == "" {
			t.Errorf("an entry without meta: %+v", e)
		}
		all = append(all, strings.Join(e.Service.Tags, ",")+" "+fmt.Sprint(e.Service.Port))
	}
	slices.Sort(all)
	return all
}

// TestDatabaseInConsul: with Consul as its coordinator a cluster's members are in the catalog by their roles, which
// move with the failover.
func TestDatabaseInConsul(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "")
	consul := consulserver.Start(t, consulserver.Options{}).Address
	c := newCluster(t, 2, clusterOptions{coordinator: "consul://" + strings.TrimPrefix(consul, "http://"), more: "  service: db", boxed: true})
	defer http.DefaultClient.CloseIdleConnections()
	has := func(want ...string) {
		t.Helper()
		slices.Sort(want)
		var last []string
		eventually(t, func() string { return fmt.Sprintf("Consul lists %v, want %v", last, want) }, func() bool {
			last = listed(t, consul)
			return slices.Equal(last, want)
		})
	}
	first := c.whole()
	second := c.others(first)[0]
	has("primary "+first.port, "replica "+second.port)
	if got := second.do("switchover", "--timeout", "3m"); got.code != 0 {
		t.Fatal(got)
	}
	has("primary "+second.port, "replica "+first.port)
	c.whole()
	second.kill()
	c.leads(first)
	has("primary " + first.port)
	first.status("degraded without a replica", func(s client.Status) bool { return s.Health == "degraded" && s.Database.Acks == 0 })
}
