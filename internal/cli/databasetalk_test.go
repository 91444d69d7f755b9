package cli

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/client"
)

func (a agent) DatabaseMembers() (client.DatabaseCluster, error) {
	if a.talk == nil || a.talk.err != nil {
		return client.DatabaseCluster{}, &client.Error{Kind: client.KindUnknown, Message: "this instance is no member of a database"}
	}
	lag, at := int64(3<<20), time.Unix(1e9, 0)
	return client.DatabaseCluster{
		Cluster: "main", Engine: "postgres", Member: "m2", Primary: "m1", Epoch: 4, Mode: "on", Acks: 1, Paused: true,
		Switchover: &client.DatabaseSwitchover{To: "m2"}, Roll: "restarts wait: for\x1b that",
		Members: []client.DatabaseMember{
			{Name: "m1", Role: "primary", State: "running", Timeline: "2", Host: "10.0.0.1", Port: 5432, LastBackup: &at},
			{Name: "m2", Role: "replica", State: "running", Sync: true, Receiving: true, Timeline: "2", Lag: &lag, Tags: []string{"nofailover"}, Server: "15.4", Version: "2.0", Restart: true, Pending: []string{"max_connections", "shared_buffers"}, Host: "10.0.0.2", Port: 5432, Why: "it\x1bwaits"},
			{Name: "m3", Role: "none", State: "silent", Host: "10.0.0.3", Port: 5432},
		},
	}, nil
}

func (a agent) DatabaseHistory() (client.DatabaseHistory, error) {
	return client.DatabaseHistory{Reigns: []client.DatabaseReign{
		{Epoch: 2, Primary: "m1", Reason: "bootstrap", Timeline: "1", Time: time.Unix(1e9, 0)},
		{Epoch: 4, Primary: "m2", Reason: "switchover", Timeline: "2", Position: "1/0/30", Time: time.Unix(1e9, 0)},
	}, Withdrawn: &client.DatabaseWithdrawn{To: "m9", Why: "m9 is no member any more", Time: time.Unix(1e9, 0)}}, a.note("history")
}

// ruled is what an order came to, as all of these have it.
func (a agent) ruled(format string, args ...any) (client.DatabaseOutcome, error) {
	return client.DatabaseOutcome{Primary: "m2", Former: "m1", Epoch: 5, Changed: true}, a.note(format, args...)
}

func (a agent) Switchover(_ context.Context, r client.SwitchoverRequest) (client.DatabaseOutcome, error) {
	out, err := a.ruled("switchover %q %t %v", r.To, r.Cancel, r.Timeout)
	out.Scheduled = r.At
	return out, err
}

func (a agent) Failover(_ context.Context, r client.FailoverRequest) (client.DatabaseOutcome, error) {
	return a.ruled("failover %q %t %v", r.To, r.Force, r.Timeout)
}

func (a agent) Pause(_ context.Context, on bool) (client.DatabaseOutcome, error) {
	out, err := a.ruled("pause %t", on)
	out.Changed = on
	return out, err
}

func (a agent) Reinit(_ context.Context, r client.ReinitRequest) (client.DatabaseOutcome, error) {
	return a.ruled("reinit %q %v", r.Member, r.Timeout)
}

func (a agent) RestartDatabase(_ context.Context, r client.RestartRequest) (client.DatabaseOutcome, error) {
	return a.ruled("restart %q %t %v", r.Member, r.All, r.Timeout)
}

func (a agent) UpgradeDatabase(_ context.Context, r client.UpgradeRequest) (client.DatabaseOutcome, error) {
	out, err := a.ruled("upgrade %q %d %v", r.Version, r.Members, r.Timeout)
	out.Server, out.Agent = "15.4", "2.0"
	if r.Version != "" {
		out.Leave = []string{"m1", "m3"}
	}
	return out, err
}

// TestDatabaseTalk: what each command asks for, and what it prints.
func TestDatabaseTalk(t *testing.T) {
	for args, want := range map[string]struct{ call, out string }{
		"switchover":                           {`switchover "" false 60`, "m2 leads, in epoch 5, after m1 ("},
		"switchover --to m2 --timeout 5s":      {`switchover "m2" false 5`, "m2 leads"},
		"switchover --at 2030-01-02T03:04:05Z": {`switchover "" false 60`, "written down for 2030-01-0"},
		"switchover --cancel":                  {`switchover "" true 60`, "taken back\n"},
		"failover":                             {`failover "" false 60`, "m2 leads"},
		"failover --to m3 --force":             {`failover "m3" true 60`, "m2 leads"},
		"pause":                                {"pause true", "failover is paused\n"},
		"resume":                               {"pause false", "failover goes on: it was so already\n"},
		"reinit m3":                            {`reinit "m3" 0`, "m3 receives from m2 ("},
		"upgrade":                              {`upgrade "" 0 0`, "all members have the release (server 15.4, agent 2.0); m2 leads, in epoch 5, after m1 ("},
		"upgrade --to 2.0 --members 4":         {`upgrade "2.0" 4 0`, "m2 leads, in epoch 5, after m1 ("},
		"history":                              {"history", "EPOCH  PRIMARY  REASON      TIMELINE  FROM"},
		"members":                              {"", "postgres cluster main, epoch 4: m1 leads; on, 1 acknowledgement a commit\nfailover is paused\na switchover to m2 is under way\n"},
	} {
		a := agent{talk: newTalk()}
		env := serve(t, a)
		got := try(t, nil, env, strings.Fields(args)...)
		if got.code != 0 || got.err != "" || !strings.HasPrefix(got.out, want.out) || strings.Join(a.talk.made, "; ") != want.call {
			t.Errorf("%s: got %+v, called %q; want %+v", args, got, a.talk.made, want)
		}
		got = try(t, nil, env, append(strings.Fields(args), "--json")...)
		if got.code != 0 || got.err != "" || !json.Valid([]byte(got.out)) {
			t.Errorf("%s --json: %+v", args, got)
		}
	}
}

// TestDatabasePage: HAProxy takes the configuration that the page has.
func TestDatabasePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/databases.md")
	if err != nil {
		t.Fatal(err)
	}
	_, config, _ := strings.Cut(string(page), "```haproxy\n")
	config, _, found := strings.Cut(config, "```")
	if !found {
		t.Fatal("the page has no configuration of HAProxy")
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "haproxy", "-c", "-f", file).CombinedOutput(); err != nil || strings.Contains(string(out), "WARNING") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestHistoryTellsWhatWasWithdrawn below the reigns.
func TestHistoryTellsWhatWasWithdrawn(t *testing.T) {
	got := try(t, nil, serve(t, agent{talk: newTalk()}), "history")
	if want := "a switchover to m9 was withdrawn at "; !strings.Contains(got.out, want) || !strings.HasSuffix(got.out, ": m9 is no member any more\n") {
		t.Errorf("got %+v", got)
	}
}

// TestMembersTable: each member in a row, and what it waits for below.
func TestMembersTable(t *testing.T) {
	got := try(t, nil, serve(t, agent{talk: newTalk()}), "members")
	for _, want := range []string{
		" MEMBER", "*m2 ", " m1 ", "● receiving", "● silent", "3.0 MiB", "nofailover", "10.0.0.3:5432", `it\x1bwaits`, "ago", "15.4    2.0", "restart needed: max_connections, shared_buffers", `restarts wait: for\x1b that`,
	} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}
}

func TestDatabaseTalkRefused(t *testing.T) {
	for kind, code := range map[string]int{client.KindUnknown: 1, client.KindUnsafe: 11, client.KindBusy: 11, client.KindTimeout: 1} {
		a := agent{talk: newTalk()}
		a.talk.err = &client.Error{Kind: kind, Message: "says " + kind}
		env := serve(t, a)
		for _, args := range []string{"switchover", "failover --force", "pause", "resume", "reinit m1", "history"} {
			name, _, _ := strings.Cut(args, " ")
			if got := try(t, nil, env, strings.Fields(args)...); got != (result{code, "", "drover: " + name + ": says " + kind + "\n"}) {
				t.Errorf("%s: got %+v, want %d", args, got, code)
			}
		}
	}
	for args, want := range map[string]string{
		"reinit":                             "no member given; drover members lists them",
		"switchover m2":                      `unexpected argument "m2"`,
		"switchover --at noon":               `--at: "noon" is no time; write one such as 2026-03-01T03:00:00Z`,
		"switchover --cancel --to m1":        "--cancel goes with neither --to nor --at",
		"restart postgres --all --member m1": "--member, --all and --pending exclude one another",
		"restart postgres --all --pending":   "--member, --all and --pending exclude one another",
		"upgrade --members -1":               "--members is negative",
		"restart web --all":                  `job "web" is no database's server`,
	} {
		a := agent{talk: newTalk()}
		got := try(t, nil, serve(t, a), strings.Fields(args)...)
		if got.code != exitUsage || got.out != "" || !strings.Contains(got.err, want) || len(a.talk.made) > 0 {
			t.Errorf("%s: got %+v, called %v\nwant %s", args, got, a.talk.made, want)
		}
	}
}
