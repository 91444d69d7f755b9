package postgres

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTrial: a restored database is asked as somebody who may read everything and do nothing else, and each of its pages is read.
func TestTrial(t *testing.T) {
	e := newEngine(t)
	from, to := newDriver(t, e.options[0]), newDriver(t, e.options[1])
	must(t, from.Init(t.Context()))
	asked := false
	must(t, to.Restore(t.Context(), Backup{
		Settle: func(string) error { return nil },
		Fetch: func(_ context.Context, dir string) error {
			if err := os.CopyFS(dir, os.DirFS(from.o.Data)); err != nil {
				return err
			}
			conf := filepath.Join(dir, "postgresql.auto.conf")
			return errors.Join(os.WriteFile(conf, []byte("restore_command = 'exit 1'\n"), 0o600), os.WriteFile(filepath.Join(dir, recoverySignal), nil, 0o600))
		},
		Look: func(ctx context.Context) error {
			asked = true
			for query, want := range map[string]string{
				"SELECT count(*) > 1 FROM pg_class": "", "SELECT 'f'": "", "SELECT 0": "",
				"SELECT false": "false", "SELECT NULL": "null", "SELECT 1 WHERE false": "no row", "SELECT 1/0": "division by zero",
				"CREATE TABLE x()": "read-only", "SELECT pg_read_file('PG_VERSION')": "permission denied",
				"SELECT current_setting('is_superuser') = 'off'":                            "",
				"SELECT setting = '0' FROM pg_settings WHERE name = 'max_worker_processes'": "",
				"SELECT setting = 'off' FROM pg_settings WHERE name = 'archive_mode'":       "",
			} {
				err := to.Ask(ctx, "postgres", query)
				if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want %q", query, err, want)
				}
			}
			return to.Consistent(ctx)
		},
	}))
	if !asked {
		t.Fatal("nobody looked")
	}
	if line, history, err := to.Left(t.Context()); err != nil || line != 2 || !strings.HasPrefix(history, "1\t") {
		t.Errorf("timeline %d, %q, %v", line, history, err)
	}
	if sums, err := to.Checksummed(t.Context()); err != nil || !sums {
		t.Errorf("checksums: %t, %v", sums, err)
	}
	must(t, to.Sound(t.Context()))
	file := filepath.Join(to.o.Data, "global", "1262")
	page, err := os.ReadFile(file)
	must(t, err)
	page[100] ^= 1
	must(t, os.WriteFile(file, page, 0o600))
	if err := to.Sound(t.Context()); err == nil || !strings.Contains(err.Error(), "global/1262") {
		t.Errorf("a damaged page: %v", err)
	}
}
