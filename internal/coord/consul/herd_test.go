package consul_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/consul"
	"drover/internal/testkit/consulserver"
)

// TestHerd: many agents lose one server at the same moment. They do not come again at one
// moment, neither while it is away nor when it is back.
func TestHerd(t *testing.T) {
	const n, away = 300, 8 * time.Second
	s := consulserver.Start(t, consulserver.Options{Connections: 10 * n})
	g := startGate(t, s.Address)
	key := "herd"
	_, err := open(t, consul.Options{Address: s.Address}).Put(t.Context(), key, []byte("1"))
	must(t, err)
	r := newRecord(t)
	for range n {
		c := open(t, consul.Options{Address: g.server.URL, Wait: time.Minute})
		r.run(func() {
			c.Watch(r.ctx, key, true, func(pairs []coord.Pair, err error) { r.add(fmt.Sprint(len(pairs), coord.Kind(err))) })
		})
	}
	states := func(wanted int, what string) {
		t.Helper()
		r.awaitThat(time.Minute, func(lines []string) bool {
			count := 0
			for _, l := range lines {
				if l == what {
					count++
				}
			}
			return count == wanted
		}, fmt.Sprint(wanted, " times ", what))
	}
	states(n, "1 <nil>")
	for waiting := 0; waiting < n; { // until all wait for a change
		waiting = 0
		for _, v := range g.visits(time.Time{}) {
			if strings.Contains(v.what, "index=") {
				waiting++
			}
		}
		coord.Wait(t.Context(), 10*time.Millisecond)
	}
	g.obey(func(*http.Request) verdict { return drop })
	lost := time.Now()
	g.server.CloseClientConnections()
	states(n, "0 unavailable")
	coord.Wait(t.Context(), time.Until(lost.Add(away)))
	g.obey(nil)
	back := time.Now()
	states(2*n, "1 <nil>")
	t.Logf("all %d know the state %v after the server is back", n, time.Since(back).Round(10*time.Millisecond))

	const bucket = 250 * time.Millisecond
	var buckets []int
	total := 0
	for _, v := range g.visits(lost) {
		if !strings.Contains(v.what, "consistent") { // the queries of a watch that has come back
			continue
		}
		i := int(v.at.Sub(lost) / bucket)
		for len(buckets) <= i {
			buckets = append(buckets, 0)
		}
		buckets[i]++
		total++
	}
	t.Logf("requests in each %v: %v", bucket, buckets)
	if total > 12*n {
		t.Errorf("%d requests of %d watches in %v: they do not back off", total, n, time.Since(lost))
	}
	for i, count := range buckets {
		if at := time.Duration(i) * bucket; at > 3*time.Second && count > n/3 {
			t.Errorf("%d of %d watches came in the same %v, %v after the loss", count, n, bucket, at)
		}
	}
}
