package consul_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"drover/internal/coord"
	"drover/internal/coord/consul"
	"drover/internal/testkit/consulserver"
)

// untilTold runs a watch and returns the first state that fits.
func untilTold[T any](t *testing.T, watch func(ctx context.Context, fn func(T, error)), fits func(T) bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch(ctx, func(state T, err error) {
		if err != nil {
			t.Errorf("%v", err)
			cancel()
		}
		if fits(state) {
			cancel()
		}
	})
}

func TestMachines(t *testing.T) {
	s := consulserver.Start(t, consulserver.Options{})
	s.Ask("PUT", "/v1/catalog/register", `{"Node": "far", "Address": "10.9.9.9", "NodeMeta": {"rack": "r9"}, "Service": {"ID": "cache-1", "Service": "cache", "Port": 6379}}`)
	s.Ask("PUT", "/v1/catalog/register", `{"Node": "bare", "Address": "10.9.9.8"}`)
	s.Ask("PUT", "/v1/kv/a", "1")
	c, err := consul.New(consul.Options{Address: s.Address})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	untilTold(t, func(ctx context.Context, fn func([]coord.Instance, error)) { c.WatchNodes(ctx, "dc1", "", fn) }, func(all []coord.Instance) bool {
		return len(all) == 3 && all[0].Node == "bare" && all[1].NodeAddress == "10.9.9.9" && all[1].NodeMeta["rack"] == "r9" && all[2].Node == s.Node
	})
	on := func(name string, fits func([]coord.Instance) bool) {
		untilTold(t, func(ctx context.Context, fn func([]coord.Instance, error)) { c.WatchNode(ctx, name, "", fn) }, fits)
	}
	on("far", func(all []coord.Instance) bool { return len(all) == 1 && all[0].ID == "cache-1" && all[0].Port == 6379 })
	on("bare", func(all []coord.Instance) bool { return len(all) == 1 && all[0].ID == "" && all[0].Node == "bare" })
	on("none", func(all []coord.Instance) bool { return len(all) == 0 })
	on("", func(all []coord.Instance) bool { return len(all) > 0 && all[0].Node == s.Node })
	untilTold(t, func(ctx context.Context, fn func([]string, error)) { c.WatchDatacenters(ctx, true, fn) }, func(names []string) bool { return slices.Equal(names, []string{"dc1"}) })
	untilTold(t, func(ctx context.Context, fn func([]coord.Pair, error)) { c.WatchKeysOf(ctx, "dc1", "a", true, fn) }, func(pairs []coord.Pair) bool { return len(pairs) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.WatchKeysOf(ctx, "nowhere", "a", true, func(_ []coord.Pair, err error) {
		if err == nil || !strings.Contains(err.Error(), "watch a") {
			t.Errorf("a datacenter that is not there: %v", err)
		}
		cancel()
	})
}
