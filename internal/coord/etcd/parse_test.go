package etcd

import (
	"encoding/json"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"drover/internal/coord"
)

func FuzzParseFact(f *testing.F) {
	f.Add("x/service/web/web-1/record", `{"id":"web-1","name":"web","ttl_ms":1000,"tags":["a"]}`)
	f.Add("x/service/web/web-1/health", `{"status":"passing"}`)
	f.Add("health", `null`)
	f.Add("", `[]`)
	f.Fuzz(func(t *testing.T, key, value string) {
		got, ok := parseFact(&mvccpb.KeyValue{Key: []byte(key), Value: []byte(value)})
		if !ok {
			return
		}
		if (got.record == nil) == (got.health == nil) {
			t.Fatalf("%s is a record and a health, or none", key)
		}
		instances([]item[fact]{{key, got}, {key, got}}, coord.Query{})
	})
}

func FuzzParseClaim(f *testing.F) {
	f.Add([]byte(`{"holder":"a","slots":3}`))
	f.Add([]byte(`{"slots":-1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c := parseClaim(text); c.Slots < 1 {
			t.Fatalf("%d slots", c.Slots)
		}
	})
}

// TestFormatsStay holds what other agents, older and newer ones, read.
func TestFormatsStay(t *testing.T) {
	for want, v := range map[string]any{
		`{"holder":"a","slots":2}`:                    claim{"a", 2},
		`{"status":"critical","note":"disk is full"}`: health{coord.Critical, "disk is full"},
		`{"id":"i","name":"n","address":"h","port":1,"tags":["t"],"meta":{"k":"v"},"ttl_ms":1500,"deregister_after_ms":60000}`: recordOf(coord.Registration{
			ID: "i", Name: "n", Address: "h", Port: 1, Tags: []string{"t"}, Meta: map[string]string{"k": "v"},
			TTL: 1500 * time.Millisecond, DeregisterAfter: time.Minute,
		}),
	} {
		if got, err := json.Marshal(v); err != nil || string(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
	c := &Client{own: "p/.drover/"}
	for want, got := range map[string]string{
		"p/.drover/lease/a%2Fb/":         c.contenders("a/b"),
		"p/.drover/service/web/web%201/": c.instanceDir("web", "web 1"),
		"p/.drover/instance/web-1":       c.indexKey("web-1"),
	} {
		if got != want {
			t.Errorf("key %s, want %s", got, want)
		}
	}
}

// TestLifetime holds that an instance is not forgotten before it was critical for the
// time that it asked for, however late its last renewal was.
func TestLifetime(t *testing.T) {
	for _, after := range []time.Duration{time.Second, time.Minute, time.Hour} {
		r := recordOf(coord.Registration{TTL: 10 * time.Second, DeregisterAfter: after})
		if left := r.lifetime() - r.slack(); left < r.ttl()+after {
			t.Errorf("%v: after the last good report it lives for %v", after, left)
		}
		if r.slack() < time.Second || r.lifetime() > r.ttl()+2*after+time.Second {
			t.Errorf("%v: slack %v, lifetime %v", after, r.slack(), r.lifetime())
		}
	}
	if r := recordOf(coord.Registration{TTL: time.Second}); r.lifetime() != 0 {
		t.Error("what is never to be removed has a lifetime")
	}
}
