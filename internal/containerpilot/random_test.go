package containerpilot

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestAnyConfiguration: of whatever keys and values a source is put together, it is a
// configuration that Drover reads.
func TestAnyConfiguration(t *testing.T) {
	rounds := 300
	for seed := range rounds {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		source := anySource(r)
		result, err := Convert(source, Options{})
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, source)
		}
		if err := valid(t, result.Text, nil); err != nil && !strings.Contains(err.Error(), "nothing to run") {
			t.Fatalf("seed %d: %v\n%s\n%s", seed, err, source, result.Text)
		}
	}
}

// anyValues are those of a key, good and bad; names are few, so that they meet.
var anyValues = map[string][]string{
	"name":           {"'a'", "'b'", "'watch-a'", "'A b_'", "''", "7", "'main'"},
	"exec":           {"'x'", "['x', 'y']", "''", "[]"},
	"when":           {"{source: 'watch.a', each: 'changed'}", "{source: 'watch.A b_', once: 'healthy'}", "{source: 'a', once: 'stopping'}", "{source: 'b', once: 'healthy'}", "{interval: 5}", "{source: 'watch.', each: 'changed'}", "{source: 'watch.z', each: 'unhealthy'}"},
	"port":           {"80", "'81'", "0", "70000", "'x'", "null", "1e3"},
	"tags":           {"['a', 'b']", "'a'", "[]", "[null]", "[1, true]", "{}"},
	"meta":           {"{a: 'b'}", "{'': 1, '<<': 'x', 'a b': null}", "[]", "{}"},
	"ttl":            {"10", "1", "'x'", "0", "null"},
	"poll":           {"3", "'x'"},
	"health":         {"{exec: 'h', interval: 1, ttl: 3}", "{ttl: 9}", "{}", "'h'", "['h', 'i']", "null"},
	"interfaces":     {"'eth0'", "['eth0[1]', 'inet6', 'static:a', '10.0.0.0/8', 'what is this']", "[]", "['?']", "7"},
	"initial_status": {"'passing'", "'ill'", "''"},
	"consul":         {"'h:1'", "'h'", "''", "{address: 'https://h:1', token: 't', tls: {cafile: 'c', clientcert: 'd', clientkey: 'e'}}", "{address: 'u@h:1'}", "{}", "{deregisterCriticalServiceAfter: '5m', enableTagOverride: true}", "7"},
	"etcd":           {"{endpoints: 'http://h:1'}", "{endpoints: ['h:1', 'https://h:1']}", "{endpoints: ['h:1', 'g:2'], prefix: '/p'}", "'x'"},
	"onChange":       {"'x'", "['x']"},
	"tag":            {"'t'", "''", "[]"}, "dc": {"'d'", "''", "7"}, "interval": {"3", "'x'"},
	"command": {"'x'"},
}

func anySource(r *rand.Rand) string {
	object := func(keys ...string) string {
		var members []string
		for _, key := range keys {
			if r.IntN(4) > 0 {
				values := anyValues[key]
				members = append(members, key+": "+values[r.IntN(len(values))])
			}
		}
		return "{" + strings.Join(members, ", ") + "}"
	}
	objects := func(keys ...string) string {
		var items []string
		for range r.IntN(5) {
			items = append(items, object(keys...))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	catalog := strings.TrimSuffix(strings.TrimPrefix(object("consul", "etcd"), "{"), "}")
	if r.IntN(2) == 0 {
		return fmt.Sprintf("{%s, services: %s, backends: %s, coprocesses: %s}", catalog,
			objects("name", "port", "health", "ttl", "poll", "tags", "interfaces", "consul"), objects("name", "onChange", "poll", "tag"), objects("name", "command"))
	}
	return fmt.Sprintf("{%s, jobs: %s, watches: %s}", catalog,
		objects("name", "exec", "when", "port", "tags", "meta", "health", "interfaces", "initial_status", "consul"), objects("name", "interval", "tag", "dc"))
}
