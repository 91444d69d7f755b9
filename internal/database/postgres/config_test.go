package postgres

import (
	"strings"
	"testing"

	"drover/internal/database"
	"drover/internal/failover"
)

func plain() Options {
	return Options{
		Data: "/data/pg", Run: "/run/pg", Bin: "/usr/bin",
		Superuser: role("super", "s"), Replication: role("repl", "r"), Rewind: role("rewinder", "w"),
	}
}

func TestOptions(t *testing.T) {
	o := plain()
	d, err := New(o)
	if err != nil || d.o.Port != 5432 || d.o.Listen != "*" || len(d.o.HBA) != 1 {
		t.Fatalf("%+v %v", d, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for what, change := range map[string]func(*Options){
		"no data":           func(o *Options) { o.Data = "" },
		"relative":          func(o *Options) { o.Data = "data" },
		"unclean":           func(o *Options) { o.Data = "/data/../pg" },
		"long":              func(o *Options) { o.Run = "/" + strings.Repeat("x", 100) },
		"comma":             func(o *Options) { o.Run = "/a,b" },
		"no password":       func(o *Options) { o.Superuser.Password = nil },
		"quoted role":       func(o *Options) { o.Superuser.Name = `a"b` },
		"keyword":           func(o *Options) { o.Rewind.Name = "all" },
		"reserved":          func(o *Options) { o.Rewind.Name = "pg_x" },
		"one role":          func(o *Options) { o.Rewind.Name = "repl" },
		"forced":            func(o *Options) { o.Parameters = map[string]string{"Primary_ConnInfo": "x"} },
		"ours":              func(o *Options) { o.Parameters = map[string]string{"drover.stamp": "x"} },
		"no parameter":      func(o *Options) { o.Parameters = map[string]string{"a = b\nc": "x"} },
		"include":           func(o *Options) { o.Parameters = map[string]string{"include 'x'": "x"} },
		"NUL":               func(o *Options) { o.Parameters = map[string]string{"a.b": "x\x00"} },
		"two lines":         func(o *Options) { o.HBA = []string{"host all all all trust\nhost all all all trust"} },
		"continued":         func(o *Options) { o.HBA = []string{"host all all \\ "} },
		"NUL in a command":  func(o *Options) { o.ArchiveCommand = "\x00" },
		"include by itself": func(o *Options) { o.Parameters = map[string]string{"include": "/etc/passwd"} },
	} {
		o := plain()
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: the options are accepted", what)
		}
	}
}

func TestConfiguration(t *testing.T) {
	o := plain()
	o.Parameters = map[string]string{"work_mem": "1'\nfsync = off\n'"}
	o.RestoreCommand = "fetch %f %p"
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	up := &database.Peer{Name: "a", ID: "A-1", Host: "db.example", Port: 5433}
	w := &wanted{Configuration: database.Configuration{
		ID: "b", Standby: true, Upstream: up, Set: failover.SyncSet{Members: []string{"c"}, Acks: 1},
	}, Stamp: "s"}
	conf := d.conf(w)
	for _, line := range []string{
		`include_if_exists '/data/pg/postgresql.conf'`,
		`work_mem = '1''\nfsync = off\n'''`,
		`primary_slot_name = 'drover_b'`,
		`synchronous_standby_names = 'ANY 1 ("c")'`,
		`restore_command = 'fetch %f %p'`,
		`drover.open = 'false'`,
	} {
		if strings.Count(conf, "\n"+line+"\n") != 1 {
			t.Errorf("%s is not in\n%s", line, conf)
		}
	}
	if i := strings.Index(conf, "primary_conninfo"); strings.Index(conf, "work_mem") > i || strings.Contains(conf[i:], "\nfsync") {
		t.Errorf("what is the agent's is not last:\n%s", conf)
	}
	if !strings.Contains(conf, `host=''db.example'' port=5433`) || strings.Contains(conf, "password") && strings.Contains(conf, "'r'") {
		t.Errorf("the upstream:\n%s", conf)
	}
	w.Upstream = nil
	conf = d.conf(w)
	for _, line := range []string{"primary_conninfo = ''", "restore_command = ''", "primary_slot_name = ''"} {
		if strings.Count(conf, "\n"+line+"\n") != 1 {
			t.Errorf("%s is not in\n%s", line, conf)
		}
	}
	for _, open := range []bool{true, false} {
		lines := strings.Split(strings.TrimSpace(d.hba(open)), "\n")
		first := strings.Index(d.hba(open), defaultHBA)
		if open != (first > 0) || first > 0 && first < strings.Index(d.hba(open), "replication") || lines[len(lines)-1] != "host all all all reject" {
			t.Errorf("open: %v\n%s", open, d.hba(open))
		}
	}
	for _, arg := range d.Command() {
		if strings.Contains(arg, "password") || arg == "s" || arg == "r" || arg == "w" {
			t.Errorf("the command line says %q", arg)
		}
	}
}

func TestWhatAlterSystemMayNotChange(t *testing.T) {
	auto := "# comment\nwork_mem = '4MB'\nprimary_conninfo = 'host=x'\nSynchronous_Standby_Names='*'\nrecovery_target_lsn = '0/1'\ndrover.open = 'true'\n  restore_command = 'x'\nport=1"
	if got, want := (&Options{}).cleaned(auto), "# comment\nwork_mem = '4MB'\n"; got != want {
		t.Errorf("%q is left, want %q", got, want)
	}
}

func TestPeers(t *testing.T) {
	for _, p := range []database.Peer{
		{ID: "", Host: "h", Port: 1}, {ID: "a/b", Host: "h", Port: 1}, {ID: "a", Host: "", Port: 1}, {ID: "a", Host: "h", Port: 0},
		{ID: "a", Host: "h,g", Port: 1}, {ID: "a", Host: "h' user=x", Port: 1}, {ID: "a", Host: "/tmp", Port: 1}, {ID: "..", Host: "h", Port: 1},
		{ID: "a", Host: "h:1", Port: 1}, {ID: "a", Host: "@x", Port: 1}, {ID: "a", Host: "h\n", Port: 65536},
	} {
		if err := checkPeer(p); err == nil {
			t.Errorf("%+v is a peer", p)
		}
	}
	for _, host := range []string{"10.0.0.1", "::1", "db-1.example", "fe80::1"} {
		if err := checkPeer(database.Peer{ID: "a", Host: host, Port: 5432}); err != nil {
			t.Error(err)
		}
	}
}
