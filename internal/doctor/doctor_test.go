package doctor

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestJudge plays testdata: facts as JSON, and what is found. `-rewrite` writes down what
// is found now; read the diff.
func TestJudge(t *testing.T) {
	seen := map[string]bool{}
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var f Facts
			in := json.NewDecoder(strings.NewReader(d.Input))
			in.DisallowUnknownFields()
			if err := in.Decode(&f); err != nil {
				d.Fatalf(t, "%v", err)
			}
			var b strings.Builder
			found := Judge(f)
			for _, one := range found {
				seen[one.ID] = true
				fmt.Fprintf(&b, "%s %s %s\n  %s\n  %s\n  %s\n", one.Severity, one.ID, one.Where, one.What, one.Reason, one.Mend)
			}
			if again := Judge(f); !reflect.DeepEqual(found, again) {
				d.Fatalf(t, "judged again, it is %v", again)
			}
			if b.Len() == 0 {
				return "nothing\n"
			}
			return b.String()
		})
	})
	for _, kind := range Catalogue() {
		if !seen[kind.ID] {
			t.Errorf("no script of testdata finds %s", kind.ID)
		}
		delete(seen, kind.ID)
	}
	for id := range seen {
		t.Errorf("%s is not in the catalogue", id)
	}
}

func TestIsSecret(t *testing.T) {
	for variable, want := range map[string]bool{
		"DB_PASSWORD=x": true, "PGPASSWORD=x": true, "MYSQL_ROOT_PASSWORD=x": true, "DB_PASS=x": true, "GITHUB_TOKEN=x": true,
		"AWS_SECRET_ACCESS_KEY=x": true, "API_KEY=x": true, "APIKEY=x": true, "db_password=x": true, "SECRET_KEY_BASE=x": true, "PASSPHRASE=x": true,
		"DROVER_PASSWORD=x": true, "CLIENT_SECRET=x": true, "app.token=x": true,
		"DATABASE_URL=postgres://u:p@db/x": true, "REDIS_URL=redis://:p@h": true,

		"DROVER_PASSWORD_FILE=/run/secrets/store": false, "AWS_ACCESS_KEY_ID=AKIA": false, "TOKEN_TTL=3600": false, "SECRET_NAME=x": false,
		"MYSQL_ALLOW_EMPTY_PASSWORD=yes": false, "MYSQL_RANDOM_ROOT_PASSWORD=1": false, "DB_PASSWORD=": false, "DB_PASSWORD=/run/secrets/db": false,
		"PUBLIC_KEY=x": false, "GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D": false, "KEY_SPACING=2": false, "PWD=/srv": false, "OLDPWD=/": false, "PATH=/bin": false,
		"BYPASS=x": false, "MONKEY=x": false, "COMPASS=x": false, "KEYBOARD=us": false, "URL=http://host/a@b:c": false, "URL=http://user@host/": false, "=x": false,
	} {
		name, value, _ := strings.Cut(variable, "=")
		if got, _ := IsSecret(name, value); got != want {
			t.Errorf("%s: secret %v, want %v", variable, got, want)
		}
	}
}

func TestReadCommand(t *testing.T) {
	type both struct {
		Command
		Flags
	}
	drover := Command{Program: "drover", Drover: true, First: true}
	for line, want := range map[string]both{
		"":                                 {},
		"app --serve":                      {Command: Command{Program: "app"}},
		"drover run --state /a --state=/b": {drover, Flags{State: []string{"/a", "/b"}}},
		"/usr/bin/drover run --store s3://b -c /d.yaml --socket=/s -- app --state /no": {drover, Flags{Store: "s3://b", Config: "/d.yaml", Socket: "/s"}},
		"run --state /a":                   {Command{Program: "run"}, Flags{State: []string{"/a"}}},
		"tini -s -- drover run":            {Command: Command{Program: "drover", Drover: true, First: true, Init: true}},
		"tini drover run":                  {Command: Command{Program: "drover", Drover: true, First: true, Init: true}},
		"tini --":                          {Command: Command{Init: true}},
		"/usr/bin/env -i A=b drover run":   {Command: drover},
		"entrypoint.sh drover run":         {Command: Command{Program: "entrypoint.sh", Drover: true}},
		"sh /entry.sh drover run":          {Command: Command{Program: "sh", Drover: true}},
		"sh -c|app --serve":                {Command: Command{Program: "sh", Shell: true, Simple: true}},
		"sh -c|exec app":                   {Command: Command{Program: "sh", Simple: true}},
		"sh -c|mkdir -p /a && app":         {Command: Command{Program: "sh", Shell: true}},
		"bash -ec|mkdir /a; exec app":      {Command: Command{Program: "bash"}},
		"sh -c|trap 'kill 1' TERM; app":    {Command: Command{Program: "sh"}},
		"sh -c|exec drover run --state /a": {Command{Program: "sh", Drover: true, First: true, Simple: true}, Flags{State: []string{"/a"}}},
		"sh -c|x; drover run -c /d.yaml":   {Command{Program: "sh", Drover: true, Shell: true}, Flags{Config: "/d.yaml"}},
		"sh -c":                            {Command: Command{Program: "sh"}},
		"sh --rcfile c":                    {Command: Command{Program: "sh"}},
		"drover status":                    {Command: drover},
		"echo drover":                      {Command: Command{Program: "echo"}},
	} {
		before, script, hasScript := strings.Cut(line, "|")
		argv := strings.Fields(before)
		if hasScript {
			argv = append(argv, script)
		}
		command, flags := ReadCommand(argv)
		if got := (both{command, flags}); !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n got %+v\nwant %+v", line, got, want)
		}
	}
}

func TestParseStore(t *testing.T) {
	for url, want := range map[string]Store{
		"file:///srv/../bucket":                     {Kind: "file", Dir: "/bucket"},
		"s3://b/p?endpoint=http://s3:9000&region=x": {Kind: "s3", Host: "s3"},
		"s3://b/p":                                {Kind: "s3"},
		"s3://b?endpoint=http://[::1]:9000":       {Kind: "s3", Host: "::1"},
		"manta://a/stor/x?endpoint=https://manta": {Kind: "manta", Host: "manta"},
		"${STORE}":                                {}, "": {}, "/bucket": {}, "ftp://x": {}, "s3://%zz": {},
	} {
		got, ok := ParseStore(url)
		if got != want || ok != (want.Kind != "") {
			t.Errorf("%q: got %+v, %v", url, got, ok)
		}
	}
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.1.2.3": true, "::1": true, "0.0.0.0": true, "host.docker.internal": true, "x.localhost": true,
		"s3": false, "10.0.0.1": false, "": false, "localhost.example.org": false,
	} {
		if got := local(host); got != want {
			t.Errorf("%q: local %v", host, got)
		}
	}
}

const page = "../../docs/doctor.md"

// TestPage holds the table of docs/doctor.md to the catalogue.
func TestPage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const head = "| Finding | Severity | What | Mend |\n|---|---|---|---|\n"
	before, after, ok := strings.Cut(string(text), head)
	if !ok {
		t.Fatalf("%s has no table", page)
	}
	got := after[:max(0, strings.Index(after+"\n\n", "\n\n"))] + "\n"
	var b strings.Builder
	for _, k := range Catalogue() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.ID, k.Severity, k.What, k.Mend)
	}
	want := b.String()
	if strings.TrimSpace(got) == strings.TrimSpace(want) {
		return
	}
	if flag.Lookup("rewrite").Value.String() == "true" {
		rest := after[min(len(after), len(strings.TrimSuffix(got, "\n"))):]
		if err := os.WriteFile(page, []byte(before+head+strings.TrimSuffix(want, "\n")+rest), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("the table of %s differs from the catalogue: go test ./internal/doctor -run Page -rewrite", page)
}

// TestOrder: what is grave comes first.
func TestOrder(t *testing.T) {
	found := Judge(Facts{
		Service: "a", Where: "c:1:1", Ports: []Item{{"80:80", "c:2:1"}}, Name: Item{"x", "c:3:1"},
		Mounts: []Mount{{Kind: Volume, Source: "v", Target: "/a", Where: "c:4:1"}},
	})
	var order []Severity
	for _, f := range found {
		order = append(order, f.Severity)
	}
	if !slices.Equal(order, []Severity{Pet, Risk, Note}) || !Grave(found) || Grave(found[2:]) {
		t.Errorf("order %v, %+v", order, found)
	}
}
