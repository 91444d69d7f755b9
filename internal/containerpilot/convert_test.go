package containerpilot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"drover/internal/config"
)

// TestConvert runs the scripts in testdata. A case is
//
//	convert [env=(NAME=value,…)] [command=(program,argument,…)]
//	a source
//	----
//	the text, and the notes
//
// What comes out must be a configuration: it is read by the real decoder in env.
func TestConvert(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var opt Options
			env := map[string]string{}
			for _, arg := range d.CmdArgs {
				switch arg.Key {
				case "command":
					opt.Command = arg.Vals
				case "env":
					for _, v := range arg.Vals {
						name, value, _ := strings.Cut(v, "=")
						env[name] = value
					}
				default:
					d.Fatalf(t, "unknown argument %s", arg.Key)
				}
			}
			result, err := Convert(d.Input, opt)
			if err != nil {
				return told(err)
			}
			if err := valid(t, result.Text, env); err != nil {
				t.Errorf("%s: %s is not what Drover reads: %v\n%s", path, d.Pos, err, result.Text)
			}
			again, err := Convert(d.Input, opt)
			if err != nil || again.Text != result.Text {
				t.Errorf("%s: %s: the second time it is\n%s", path, d.Pos, again.Text)
			}
			var b strings.Builder
			b.WriteString(result.Text)
			for _, n := range result.Notes {
				fmt.Fprintf(&b, "%d:%d: %s: %s %s\n", n.Line, n.Column, n.Key, n.Text, n.What)
			}
			return b.String()
		})
	})
}

func told(err error) string {
	var bad *Error
	if !errors.As(err, &bad) {
		return "not an Error: " + err.Error()
	}
	return fmt.Sprintf("%d:%d: %s\n", bad.Line, bad.Column, bad)
}

// valid reads text as drover run would.
func valid(t *testing.T, text string, env map[string]string) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "drover.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Sources{File: file, Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	if err != nil {
		return err
	}
	return c.CheckRun()
}

// FuzzConvert: whatever the source, it is an error with a place in it, or a text that
// Drover reads. Of a template this is only known with its environment, so that a source
// without one is converted.
func FuzzConvert(f *testing.F) {
	for _, seed := range []string{
		"{}", "{jobs: [{name: 'a', exec: 'b c', when: {interval: 5}}]}", `{"preStart": "a", "services": [{"name": "a", "health": ["x", "y"], "poll": 1, "ttl": 9}]}`,
		"{jobs: [{exec: ['a', 1, true, null], restarts: 3, health: {exec: 'h', interval: 1, ttl: 3}, port: 80, logging: {raw: true}}], telemetry: {metrics: [{name: 'a', type: 'summary'}]}}",
		"{jobs: [{name: 'a b', exec: 'x'}, {name: 'a b', exec: 'y', when: {source: 'a b', once: 'stopping'}}]}", "// c\n{/* d */ logging: {level: 'DEBUG'}, control: {socket: '/x'}, watches: [{name: 'w'}],}",
		`{a: "\u0041\x41\n\
b", 'b': .5, c: +Infinity, d: 0x1F}`, "{tasks: [{command: 'a', frequency: '1ms'}], coprocesses: [{command: 'a', restarts: 'unlimited'}], backends: [{name: 'b', onChange: 'c', poll: 3}]}",
		"{jobs: [{{ if .A }}{exec: 'a'},{{ end }}{{ range loop 2 }}{exec: '{{ . }}'}{{ end }}]}", "{stopTimeout: -1, preStop: [], postStop: ''}", "{jobs: [{name: 'x', exec: 'e', when: {source: 'x', each: 'healthy'}}]}",
		"{jobs:[{exec:'a',name:'a'},{exec:'b',name:'b',when:{source:'a',once:'healthy'}},{exec:'c',name:'c',when:{source:'b',once:'exitSuccess'}},{exec:'d',when:{source:'c',once:'stopped'}}]}",
		"{consul: {address: 'https://h:1', token: 't', tls: {cafile: 'a', clientcert: 'b', clientkey: 'c'}}, jobs: [{name: 'a', exec: 'x', port: 80, interfaces: ['eth0[1]', '10.0.0.0/8', 'static:a'], tags: ['t'], meta: {'<<': 1, '': 'b'}, initial_status: 'warning', consul: {deregisterCriticalServiceAfter: '5m'}, health: {ttl: 1}}, {name: 'b', port: 1}]}",
		"{consul: 'h:1', jobs: [{name: 'w', exec: 'x', when: {source: 'watch.w', each: 'changed'}}, {name: 'b', exec: 'x', when: {source: 'watch.x', once: 'healthy'}}], watches: [{name: 'w', interval: 1, tag: 't', dc: 'd'}, {name: 'w'}, {name: 'w', tag: 'u'}]}",
		`{"consul": "h:1", "services": [{"name": "a", "port": 1, "health": "h", "poll": 1, "ttl": 9}, {"name": "b", "port": 2, "ttl": 1}], "backends": [{"name": "a", "poll": 1, "onChange": "x"}, {"name": "main", "onChange": "x", "tag": "t"}]}`,
		`{"etcd": {"endpoints": ["http://h", "g:2379"], "prefix": "/p"}, "services": [{"name": "a", "port": 1}], "coprocesses": [{"name": "a", "command": "x"}]}`,
		"{consul: {}, jobs: [{port: 10, meta: {'': 0 '': 0}}]}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, source string) {
		result, err := Convert(source, Options{})
		if err != nil {
			var bad *Error
			if !errors.As(err, &bad) || bad.Line < 1 || bad.Column < 1 || strings.ContainsAny(bad.Error(), "\n\r") {
				t.Fatalf("not a line with a place: %v", err)
			}
			return
		}
		lines := 1 + strings.Count(source, "\n")
		for _, n := range result.Notes {
			if n.Line < 1 || n.Line > lines || n.Column < 1 || strings.Contains(n.Text+n.Key, "\n") {
				t.Fatalf("a note on nothing: %+v", n)
			}
		}
		if strings.Contains(source, "{{") {
			return
		}
		if err := valid(t, result.Text, nil); err != nil && !strings.Contains(err.Error(), "nothing to run") {
			t.Fatalf("%v\n%s", err, result.Text)
		}
	})
}
