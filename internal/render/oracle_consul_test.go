package render

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/coord/consul"
	"drover/internal/testkit/consulserver"
	"drover/internal/testkit/consultemplate"
)

// otherwise are the templates of the corpora whose output is another one, with the
// reason. docs/templates.md tells them to users.
var otherwise = map[string]string{
	"pairs_json":               "CreateIndex, LockIndex, Flags and Session are nothing that every coordinator has",
	"service_json":             "checks and addresses have only what every catalog has",
	"checks_json":              "checks have only what every catalog has",
	"weights_of_warning":       "an instance has the one weight that counts for its status",
	"service_tagged_addresses": "the port of coordinators has the tagged addresses of machines only",
	"spew_of_pairs":            "it shows the names of Go's types, which are ours",
}

// fixture is what the corpus reads.
func fixture(s *consulserver.Server) {
	for key, value := range map[string]string{
		"app/port": "8080", "app/name": "shop", "app/empty": "", "app/json": `{"a":[1,2]}`, "app/text": "two\nlines <&>\n", "app/pointer": "app/items/x",
		"app/list": "x,y", "app/items/x": "one", "app/items/y": "two", "app/items/": "", "app/deep/a/b/c": "1", "app/deep/a/d": "2", "app/deep/e": "3",
		"apple": "no child of app", "a%20b/%C3%BC": "spaced",
	} {
		s.Ask("PUT", "/v1/kv/"+key, value)
	}
	const check = `"Check": {"CheckID": "own-%s", "Name": "own", "Notes": "a note", "TTL": "1h", "Status": "%s"}`
	for _, i := range []struct{ id, status, rest string }{
		{"web-1", "passing", `"Address": "10.0.0.1", "Port": 80, "TaggedAddresses": {"lan": {"address": "10.1.0.1", "port": 8000}}, "Tags": ["red", "blue", "v1.2"], "Meta": {"zone": "a", "shard": "2"}, "Weights": {"Passing": 5, "Warning": 1}`},
		{"web-2", "passing", `"Port": 81, "Tags": ["a=b:c"], "Meta": {"zone": "b/x", "shard": "12"}`},
		{"web-3", "warning", `"Address": "web.example", "Port": 80, "Tags": ["blue"], "Weights": {"Passing": 3, "Warning": 2}`},
		{"web-4", "critical", `"Address": "10.0.0.4", "Port": 80, "Meta": {"zone": "a"}`},
		{"web-5", "passing", `"Address": "10.0.0.5", "Port": 85`},
	} {
		s.Ask("PUT", "/v1/agent/service/register", fmt.Sprintf(`{"ID": %q, "Name": "web", %s, `+check+`}`, i.id, i.rest, i.id, i.status))
	}
	s.Ask("PUT", "/v1/agent/service/maintenance/web-5?enable=true&reason=tests", "")
	s.Ask("PUT", "/v1/agent/service/register", `{"ID": "db.1", "Name": "Db", "Port": 5432, "Tags": ["primary"]}`)
	s.Ask("PUT", "/v1/catalog/register", `{"Node": "far", "ID": "0b1c2d3e-0000-4000-8000-000000000001", "Address": "10.9.9.9", "NodeMeta": {"rack": "r9"}, "TaggedAddresses": {"lan": "10.9.9.9", "wan": "1.9.9.9"},
		"Service": {"ID": "cache-1", "Service": "cache", "Port": 6379, "Tags": ["z", "y"]}}`)
	s.Ask("PUT", "/v1/catalog/register", `{"Node": "bare", "ID": "0b1c2d3e-0000-4000-8000-000000000002", "Address": "10.9.9.8"}`)
}

// settle waits until the catalog has what the agent was told.
func settle(t *testing.T, s *consulserver.Server) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		health := string(s.Ask("GET", "/v1/health/service/web", ""))
		if strings.Count(health, `"own-web-`) == 5 && strings.Contains(health, "_service_maintenance:web-5") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the catalog has only %s", health)
		}
	}
}

func openConsul(t *testing.T, s *consulserver.Server) *consul.Coordinator {
	t.Helper()
	c, err := consul.New(consul.Options{Address: s.Address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// compare renders the corpus with both, and holds the outputs against each other.
func compare(t *testing.T, names []string, texts map[string]string, settings string, env []string, sources Sources) {
	t.Helper()
	theirs, ours := t.TempDir(), t.TempDir()
	if out, err := consultemplate.Once(t, consultemplate.Job{Templates: texts, Dir: theirs, Env: env, Settings: settings}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cfg := Config{Sources: sources}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		cfg.Templates = append(cfg.Templates, Template{Content: texts[name], Name: name, Destination: filepath.Join(ours, name), OnDisk: true})
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := e.Once(ctx, false); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		want, err := os.ReadFile(filepath.Join(theirs, name))
		if err != nil {
			t.Fatal(err)
		}
		got := content(filepath.Join(ours, name))
		switch reason := otherwise[name]; {
		case got != string(want) && reason == "":
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		case got == string(want) && reason != "":
			t.Errorf("%s: it is the same, so it needs no reason (%s)", name, reason)
		}
	}
}

// The same templates on the same Consul render the same bytes.
func TestSameAsConsulTemplateOnConsul(t *testing.T) {
	s := consulserver.Start(t, consulserver.Options{})
	fixture(s)
	settle(t, s)
	names, texts := consultemplate.Corpus(t, "testdata/consul/corpus.txt")
	c := openConsul(t, s)
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	compare(t, names, texts, fmt.Sprintf("consul {\n address = %q\n}\n", strings.TrimPrefix(s.Address, "http://")), env, Sources{KV: c, Catalog: c, Nodes: machines(c)})
}

// machines returns what the coordinator knows of machines.
func machines(c any) Machines { m, _ := c.(Machines); return m }
