package cli

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/cli.md anew")

const reference = "../../docs/cli.md"

// TestReference holds docs/cli.md to what --help says, command by command.
func TestReference(t *testing.T) {
	got := referenceText(t)
	if *update {
		if err := os.WriteFile(reference, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs from what --help says: go test ./internal/cli -run Reference -update", reference)
	}
}

func referenceText(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("# The command line\n\nWhat `--help` says, in one place; a test holds this file to it. The configuration file and\nthe variables are in [config.md](config.md).\n")
	s := &session{}
	for _, cmd := range s.root().Commands() {
		if cmd.Hidden || cmd.Name() == "help" {
			continue
		}
		b.WriteString("\n## drover " + cmd.Name() + "\n\n" + cmd.Short + ".\n\n```\n" + helpOf(t, cmd.Name()) + "```\n")
	}
	return b.String()
}

func helpOf(t *testing.T, name string) string {
	t.Helper()
	got := try(t, nil, nil, name, "--help")
	if got.code != 0 || got.err != "" {
		t.Fatalf("%s --help: %+v", name, got)
	}
	return got.out
}

// TestHelpIsWhole: every command says what it does, by example, and how it exits.
func TestHelpIsWhole(t *testing.T) {
	s := &session{}
	for _, cmd := range s.root().Commands() {
		if cmd.Name() == "help" {
			continue
		}
		help := helpOf(t, cmd.Name())
		for _, part := range []string{"Exit codes:", "Examples:\n  ", "Usage:"} {
			if !strings.Contains(help, part) {
				t.Errorf("%s --help has no %q", cmd.Name(), part)
			}
		}
		for line := range strings.Lines(cmd.Long) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > 90 {
				t.Errorf("%s --help: line of %d characters: %s", cmd.Name(), n, line)
			}
		}
		if cmd.Name() != "completion" && cmd.Flags().Lookup("json") == nil {
			t.Errorf("%s has no --json", cmd.Name())
		}
	}
}

// TestEveryCommandOfTheContract: none is missing.
func TestEveryCommandOfTheContract(t *testing.T) {
	s := &session{}
	root := s.root()
	for _, name := range strings.Fields("run backup takeover status events logs ping start stop restart signal reload maintenance put-env put-metric webhook render roll wal members switchover failover pause resume reinit history init snapshot restore snapshots ls diff rollback export clone copy key verify restore-test forget prune probe doctor restic-env git config convert demo version completion") {
		cmd, _, err := root.Find([]string{name})
		if err != nil || cmd.Name() != name {
			t.Errorf("no command %s", name)
		}
	}
	for name, flags := range map[string]string{
		"run":        "store volume password-file password-command state exclude on-change every ttl fence first-start data-dir id config",
		"backup":     "queue timeout",
		"snapshots":  "all json",
		"restore":    "target delete strict-metadata",
		"verify":     "read-data read-data-subset",
		"snapshot":   "replace-paths allow-shrink",
		"status":     "json",
		"config":     "store every config json",
		"events":     "recent follow",
		"logs":       "lines follow",
		"ping":       "level",
		"switchover": "to at cancel timeout json",
		"failover":   "to force timeout json",
		"reinit":     "timeout json",
		"restart":    "member all timeout json",
		"render":     "dry-run timeout json",
	} {
		help := helpOf(t, name)
		for flag := range strings.FieldsSeq(flags) {
			if !strings.Contains(help, "--"+flag+" ") {
				t.Errorf("%s has no --%s", name, flag)
			}
		}
	}
}
