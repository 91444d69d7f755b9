package postgres

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Everything that is not the same in PostgreSQL 15, 16, 17 and 18 and matters here:
//
//   - 17: allow_alter_system can be switched off: what the agent sets is set nowhere else. Before, ALTER SYSTEM
//     is undone by the next change of the configuration (cleanAuto).
//   - 17: event triggers may fire at log-in; the agent's own sessions switch them off (connect).
//   - 17: pg_walfile_name of a segment's first place names that segment, not the one before: only the timeline is taken from it.
//   - 17: initdb knows a locale provider of its own, whose order does not change with the system's libraries.
//   - 18: initdb makes checksums unless told otherwise; we say so in every version.
//   - 15 (and newer, before the minor releases of May 2025): commits before the checkpointer's first look at
//     synchronous_standby_names do not wait; see awaited.
//   - pg_checkpoint, the role, is there since 15: an older version is refused by its absence.
//
// The views and functions that are asked (pg_stat_wal_receiver, pg_stat_replication, pg_replication_slots,
// pg_stat_activity, pg_control_checkpoint) have the columns that are used in all of them; what moved (the checkpointer's
// statistics in 17) is not used.

// major is the version of the programs.
func (d *Driver) major() int {
	if text, err := os.ReadFile(filepath.Join(d.o.Data, "PG_VERSION")); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return n
		}
	}
	bin, err := d.binaries()
	if err != nil {
		return 0
	}
	return majorOf(filepath.Join(bin, "postgres"))
}

// locale is what a new database orders text by.
func (d *Driver) locale() []string {
	if d.major() >= 17 {
		return []string{"--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C.UTF-8"}
	}
	return []string{"--locale=C.UTF-8"}
}
