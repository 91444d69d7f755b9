package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"drover/internal/failover"
)

// setting is one parameter of the server.
type setting struct{ name, value string }

// floors are the settings that a replica needs as high as its primary had them, with PostgreSQL's (or our)
// defaults, and how pg_control calls them.
var floors = []struct {
	name    string
	initial int
	control string
}{
	{"max_connections", 100, "max_connections setting"},
	{"max_worker_processes", 8, "max_worker_processes setting"},
	{"max_wal_senders", 20, "max_wal_senders setting"},
	{"max_prepared_transactions", 0, "max_prepared_xacts setting"},
	{"max_locks_per_transaction", 64, "max_locks_per_xact setting"},
}

// floor is what a replica needs beyond what was configured: with less, it would stop to apply.
func (d *Driver) floor(c control) map[string]string {
	f := map[string]string{}
	for _, s := range floors {
		if need, err := strconv.Atoi(c.fields[s.control]); err == nil && need > d.o.number(s.name, s.initial) {
			f[s.name] = strconv.Itoa(need)
		}
	}
	return f
}

// number is a parameter as configured, where that is a plain number, or what it is if nothing is said.
func (o *Options) number(name string, preset int) int {
	if n, err := strconv.Atoi(o.Parameters[name]); err == nil {
		return n
	}
	return preset
}

// namespace is that of the parameters which tell a session what the server has read.
const namespace = "drover."

func (d *Driver) confFile() string { return filepath.Join(d.o.Run, "postgresql.conf") }
func (d *Driver) hbaFile() string  { return filepath.Join(d.o.Run, "pg_hba.conf") }

// fixed are the settings that stand on the command line.
func (d *Driver) fixed() []setting {
	return []setting{
		{"config_file", d.confFile()},
		{"hba_file", d.hbaFile()},
		{"listen_addresses", d.o.Listen},
		{"port", strconv.Itoa(d.o.Port)},
		{"unix_socket_directories", d.o.Run},
		{"hot_standby", "on"},
		{"wal_log_hints", "on"},    // what pg_rewind needs, also without checksums
		{"full_page_writes", "on"}, // the same
		{"recovery_target_timeline", "latest"},
		// A server that begins anew by itself would admit clients before its replicas have what it has.
		{"restart_after_crash", "off"},
	}
}

// defaults are what the user may set otherwise.
func (d *Driver) defaults() []setting {
	s := []setting{
		{"wal_level", "replica"},
		{"max_wal_senders", "20"},
		{"max_replication_slots", "20"},
		{"wal_keep_size", "512MB"},
		{"max_slot_wal_keep_size", "10GB"},
		{"superuser_reserved_connections", "5"},
		{"wal_retrieve_retry_interval", "200ms"},
		{"wal_receiver_status_interval", "1s"},
		{"wal_receiver_timeout", "10s"},
		{"wal_sender_timeout", "10s"},
		{"password_encryption", "scram-sha-256"},
	}
	if d.major() >= 17 {
		s = append(s, setting{"allow_alter_system", "off"})
	}
	return s
}

// reloadable are the settings that follow from what the server is to do.
func (d *Driver) reloadable(w *wanted) []setting {
	info, slot, restore := "", "", d.o.RestoreCommand
	if w.Upstream != nil {
		info = d.peerInfo(*w.Upstream, d.o.Replication.Name, d.passFile(w.Upstream.ID), w.ID)
		if !w.Upstream.NoSlot {
			slot = slotName(w.ID)
		}
	} else if w.Standby {
		restore = "" // who follows nobody receives nothing, from the archive neither
	}
	archive, command := "off", d.o.ArchiveCommand
	if w.Archive {
		restore = d.o.SourceCommand
		if command != "" {
			command = "true" // it is archived already: where it comes from
		}
	}
	if d.o.ArchiveCommand != "" {
		// Replicas, too: what a lost primary had not archived is removed by the first checkpoint after a promotion else.
		archive = "always"
	}
	upstream := ""
	if w.Upstream != nil {
		upstream = w.Upstream.ID
	}
	return append(d.sslSettings(), []setting{
		{"primary_conninfo", info},
		{"primary_slot_name", slot},
		{"synchronous_standby_names", syncNames(w.Set)},
		{"restore_command", restore},
		{"archive_mode", archive},
		{"archive_command", command},
		{"archive_library", ""},
		{"archive_cleanup_command", ""},
		{"recovery_end_command", ""},
		{"recovery_min_apply_delay", strconv.FormatInt(d.o.Delay.Milliseconds(), 10)},
		{"recovery_target", ""},
		{"recovery_target_lsn", ""},
		{"recovery_target_name", ""},
		{"recovery_target_time", ""},
		{"recovery_target_xid", ""},
		{namespace + "id", w.ID},
		{namespace + "upstream", upstream},
		{namespace + "open", strconv.FormatBool(w.Open)},
		{namespace + "stamp", w.Stamp},
	}...)
}

// forced says whether a parameter is nobody's but the agent's.
func (o *Options) forced(name string) bool {
	switch name {
	case "data_directory", "external_pid_file", "ident_file", "promote_trigger_file", "recovery_target_inclusive", "recovery_target_action":
		return true
	}
	d := &Driver{o: Options{TLS: o.TLS}}
	is := func(s setting) bool { return s.name == name }
	return slices.ContainsFunc(d.fixed(), is) || slices.ContainsFunc(d.reloadable(&wanted{}), is)
}

// conf is the server's configuration: what initdb or the user wrote in the data directory, then ours.
func (d *Driver) conf(w *wanted) string {
	var b strings.Builder
	b.WriteString("# Made by the agent, and made anew. What is to stay belongs into its own configuration.\n")
	fmt.Fprintf(&b, "include_if_exists %s\n", confValue(filepath.Join(d.o.Data, "postgresql.conf")))
	put := func(settings []setting) {
		for _, s := range settings {
			fmt.Fprintf(&b, "%s = %s\n", s.name, confValue(s.value))
		}
	}
	put(d.defaults())
	if w.Archive { // each try asks a store
		put([]setting{{"wal_retrieve_retry_interval", "5s"}})
	}
	for _, more := range []map[string]string{d.o.Parameters, w.Floor} {
		for _, name := range slices.Sorted(maps.Keys(more)) {
			put([]setting{{name, more[name]}})
		}
	}
	put(d.reloadable(w))
	return b.String()
}

// hba says who may connect: the agent and replicas always, others if it is open. The first line that fits decides.
func (d *Driver) hba(open bool) string {
	lines := d.hbaHead()
	if open {
		lines = append(lines, d.o.HBA...)
	}
	lines = append(lines, "local all all reject", "host all all all reject")
	return strings.Join(lines, "\n") + "\n"
}

// hbaHead are the lines for the agent and for replicas.
func (d *Driver) hbaHead() []string {
	host := "host "
	if d.o.TLS != nil {
		host = "hostssl "
	}
	return []string{
		"# Made by the agent, and made anew.",
		"local all " + ident(d.o.Superuser.Name) + " scram-sha-256",
		"local all " + ident(d.o.Replication.Name) + " reject",
		host + "replication " + ident(d.o.Replication.Name) + " all scram-sha-256",
		"host replication,all " + ident(d.o.Replication.Name) + " all reject",
		host + ident(maintenance) + " " + ident(d.o.Rewind.Name) + " all scram-sha-256",
		"host all " + ident(d.o.Rewind.Name) + " all reject",
	}
}

// nobody is the name in synchronous_standby_names of whom a primary waits for that is to wait, and has nobody to wait for.
const nobody = "-"

// syncNames writes a set as synchronous_standby_names.
func syncNames(s failover.SyncSet) string {
	if s.Acks == 0 {
		return ""
	}
	members := s.Members
	if len(members) == 0 {
		members = []string{nobody}
	}
	names := make([]string, 0, len(members))
	for _, m := range members {
		names = append(names, ident(m))
	}
	return fmt.Sprintf("ANY %d (%s)", s.Acks, strings.Join(names, ","))
}

// parseSyncNames reads what syncNames wrote. Anything else is a set of nobody.
func parseSyncNames(s string) failover.SyncSet {
	var set failover.SyncSet
	rest, ok := strings.CutPrefix(s, "ANY ")
	count, list, ok2 := strings.Cut(rest, " (")
	n, err := strconv.Atoi(count)
	if !ok || !ok2 || err != nil || n < 1 {
		return set
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(list, ")"), ",") {
		if name = strings.Trim(name, `"`); name != nobody {
			set.Members = append(set.Members, name)
		}
	}
	set.Acks = n
	if syncNames(set) != s {
		return failover.SyncSet{}
	}
	return set
}

func checkSet(s failover.SyncSet) error {
	seen := map[string]bool{}
	for _, m := range s.Members {
		lower := strings.ToLower(m) // PostgreSQL compares them so
		if !memberID.MatchString(m) || seen[lower] {
			return fmt.Errorf("%q cannot be an ID in a set of synchronous members", m)
		}
		seen[lower] = true
	}
	if s.Acks < 0 || len(s.Members) > 0 && s.Acks > len(s.Members) {
		return fmt.Errorf("%d of %d members cannot acknowledge", s.Acks, len(s.Members))
	}
	return nil
}

// cleanAuto takes out of postgresql.auto.conf (ALTER SYSTEM), which overrules all other files, what is ours.
// It comes along with copies of other members' files.
func (d *Driver) cleanAuto() error {
	path := filepath.Join(d.o.Data, "postgresql.auto.conf")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if kept := d.o.cleaned(string(text)); kept != string(text) {
		return d.writeFile(path, kept)
	}
	return nil
}

func (o *Options) cleaned(auto string) string {
	var kept strings.Builder
	for line := range strings.Lines(auto) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "=")
		name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
		if lower := strings.ToLower(name); !o.forced(lower) && !strings.HasPrefix(lower, namespace) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}
