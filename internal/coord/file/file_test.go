package file_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/file"
)

// said is a file and what watches of it are told, as text.
type said struct {
	t    *testing.T
	path string
	c    *file.Catalog

	mu    sync.Mutex
	lines []string
}

func newSaid(t *testing.T) *said {
	path := filepath.Join(t.TempDir(), "catalog.yaml")
	return &said{t: t, path: path, c: file.New(path, file.Options{})}
}

func (s *said) write(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *said) add(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

// want waits for two looks at the file.
func (s *said) want(what string, lines ...string) {
	s.t.Helper()
	coord.Wait(s.t.Context(), 4900*time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := fmt.Sprintf("%q", s.lines); got != fmt.Sprintf("%q", lines) {
		s.t.Errorf("%s: told %s, want %q", what, got, lines)
	}
	s.lines = nil
}

func (s *said) instances(found []coord.Instance, err error) {
	if err != nil {
		s.add("error: " + strings.ReplaceAll(err.Error(), s.path, "FILE"))
		return
	}
	var parts []string
	for _, i := range found {
		parts = append(parts, fmt.Sprintf("%s %s:%d %v %v %s", i.ID, i.Address, i.Port, i.Tags, i.Meta, i.Status))
	}
	s.add(strings.Join(parts, ", "))
}

// TestFile follows one file through its life.
func TestFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSaid(t)
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { s.c.WatchService(ctx, coord.Query{Name: "db"}, s.instances) })
		s.want("no file", "error: unavailable: open FILE: no such file or directory")
		s.write("services: {db: [{address: 10.0.0.5, port: 5432, tags: [primary, 2], meta: {zone: a}}]}")
		s.want("first", "db-10.0.0.5-5432 10.0.0.5:5432 [primary 2] map[zone:a] passing")
		s.write("# a comment\nservices:\n  db:\n    - address: 10.0.0.5\n      port: 5432\n      tags: [primary, 2]\n      meta:\n        zone: a\n  web: []\n")
		s.want("the same in other words")
		s.write("services:\n  db:\n    - address: 10.0.0.5\n      prt: 5432\n")
		s.want("a wrong name", `error: FILE:4:12: "prt" is not known of an instance`)
		s.write("services:\n  db: [")
		s.want("another mistake")
		if err := os.Remove(s.path); err != nil {
			t.Fatal(err)
		}
		s.want("no file again", "error: unavailable: open FILE: no such file or directory")
		s.write(`{"services": {"db": [{"address": "db.example", "id": "b", "status": "passing", "node": "n2"}, {"address": "::1", "id": "c", "node": "n1"},
			{"address": "x", "status": "critical"}, {"address": "y", "status": "maintenance"}]}}`)
		s.want("JSON, sorted by node", "c ::1:0 [] map[] passing, b db.example:0 [] map[] passing")
		s.write("")
		s.want("empty", "error: FILE:1:1: it is empty; of no services it says services: {}")
		s.write("services: {}")
		s.want("none", "")
		s.write("services: {db: [{address: x}]}")
		s.want("one", "db-x-0 x:0 [] map[] passing")
		for i := range 50 { // written again and again, and never whole when it is looked at
			s.write("services: {db: [" + strings.Repeat("{address: y},", i) + "]}")
			coord.Wait(s.t.Context(), 150*time.Millisecond)
			s.write(fmt.Sprintf("services: {} # %d", i))
			coord.Wait(s.t.Context(), 150*time.Millisecond)
		}
		s.write("services: {db: [{address: z}]}")
		s.want("what it says when it holds still", "db-z-0 z:0 [] map[] passing")
		cancel()
		group.Wait()
	})
}

func TestServicesAndQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSaid(t)
		s.write("services:\n  a: [{address: x, tags: [c, b]}, {address: y, tags: [b, d], status: warning}]\n  none:\n")
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() {
			s.c.WatchServices(ctx, "", func(all map[string][]string, err error) { s.add(fmt.Sprint(all, err)) })
		})
		s.want("services", "map[a:[b c d] none:[]] <nil>")
		for _, q := range []coord.Query{
			{Name: "a", Tag: "b"}, {Name: "a", Tag: "b", Status: []coord.Status{coord.Warning}}, {Name: "none"}, {Name: "unknown"},
		} {
			group.Go(func() { s.c.WatchService(ctx, q, s.instances) })
			synctest.Wait()
		}
		s.want("queries", "a-x-0 x:0 [c b] map[] passing", "a-y-0 y:0 [b d] map[] warning", "", "")
		for _, watch := range []func(){
			func() {
				s.c.WatchService(ctx, coord.Query{Name: "a", Datacenter: "dc1"}, func(_ []coord.Instance, err error) {
					s.add(fmt.Sprint(errors.Is(err, coord.ErrUnsupported)))
				})
			},
			func() {
				s.c.WatchServices(ctx, "dc1", func(_ map[string][]string, err error) {
					s.add(fmt.Sprint(errors.Is(err, coord.ErrUnsupported)))
				})
			},
		} {
			group.Go(watch)
		}
		s.want("a datacenter", "true", "true")
		cancel()
		group.Wait()
	})
}

func TestMistakesHaveTheirPlace(t *testing.T) {
	for text, want := range map[string]string{
		"services: 1":           `f:1:11: services is no mapping`,
		"a: 1":                  `f:1:4: "a" is not known here, only services`,
		"- a":                   `f:1:1: the catalog is no mapping`,
		"services:\n  db: x":    `f:2:7: db is no list`,
		"services:\n  db: [x]":  `f:2:8: an instance is no mapping`,
		"services:\n  db: [{}]": `f:2:8: an instance of db has no address`,
		"services:\n  db: [{address: x, port: 65536}]":  `f:2:27: port is "65536", not a number from 0 to 65535`,
		"services:\n  db: [{address: x, port: http}]":   `f:2:27: port is "http", not a number from 0 to 65535`,
		"services:\n  db: [{address: x, status: well}]": `f:2:29: status is "well", not passing, warning, critical or maintenance`,
		"services:\n  db: [{address: x, tags: {a: b}}]": `f:2:27: tags is no list`,
		"services:\n  db: [{address: x, tags: [[a]]}]":  `f:2:28: a tag is no plain text (anchors and tags are not for catalogues)`,
		"services:\n  db: [{address: &a x}]":            `f:2:18: address is no plain text (anchors and tags are not for catalogues)`,
		"services:\n  db: [{address: x}, {address: x}]": `f:2:22: id "db-x-0" is twice there`,
		"services:\n  a/b: []":                          `f:2:8: "a/b" cannot be the name of a service`,
		"services: {}\n---\nservices: {}":               `f:3:9: it has more than one document`,
		"services: " + strings.Repeat("[", 30):          `f:1:1: it is nested too deeply`,
		strings.Repeat("#", 4<<20+1):                    `f: it has 4194305 bytes, of at most 4194304`,
		"services:\n  db: [{address: x, address: y}]":   ``,
		"services:\n  db: [\n":                          ``,
		"services:\n  db:\n   - address: x\n  - a: b\n": ``,
	} {
		err := file.Check("f", []byte(text))
		var e *file.Error
		if !errors.As(err, &e) || want != "" && err.Error() != want || e.Line == 0 && len(text) < 1000 {
			t.Errorf("%.60q: got %q, want %q", text, err, want)
		}
	}
}

// FuzzCheck: any bytes are an error with its place, or a catalog.
func FuzzCheck(f *testing.F) {
	for _, text := range []string{
		"", "services:", "services: {db: [{address: x, port: 1, tags: [a], meta: {a: b}, id: c, node: n, weight: 2, status: warning}]}",
		"services:\n  db:\n    - address: |\n        x\n", "a: &a [*a]", "? a\n: b", "services: {db: [{address: !!str x}]}", "\"\\u0000\": 1", "- - - -", "<<: 1",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := file.Check("f", data)
		var e *file.Error
		if err != nil && (!errors.As(err, &e) || !strings.HasPrefix(err.Error(), "f:")) {
			t.Errorf("%v", err)
		}
	})
}
