package postgres

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestRestoreGoesOn: whenever a Restore fails, or its agent dies, the next one ends with a database; until
// then the files count as none.
func TestRestoreGoesOn(t *testing.T) {
	e := newEngine(t)
	from, to := newDriver(t, e.options[0]), newDriver(t, e.options[1])
	must(t, from.Init(t.Context()))
	broken := errors.New("broken")
	whole := Backup{Settle: func(string) error { return nil }, Fetch: func(_ context.Context, dir string) error {
		if err := os.CopyFS(dir, os.DirFS(from.o.Data)); err != nil {
			return err
		}
		conf := filepath.Join(dir, "postgresql.auto.conf")
		return errors.Join(os.WriteFile(conf, []byte("restore_command = 'exit 1'\n"), 0o600), os.WriteFile(filepath.Join(dir, recoverySignal), nil, 0o600))
	}}
	for name, first := range map[string]func() error{
		"at once": func() error { return nil },
		"what a copy had left": func() error {
			return errors.Join(to.writeFile(to.unfinished(), "a copy\n"), os.MkdirAll(filepath.Join(to.o.Data, "base"), 0o700))
		},
		"fetched in part": func() error {
			return to.Restore(t.Context(), Backup{Settle: whole.Settle, Fetch: func(context.Context, string) error { return broken }})
		},
		"settled too late": func() error {
			return to.Restore(t.Context(), Backup{Fetch: whole.Fetch, Settle: func(string) error { return broken }})
		},
		"fetched, and not owned": func() error {
			return errors.Join(to.writeFile(to.unfinished(), fetching), os.MkdirAll(to.o.Data, 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, errors.Join(os.RemoveAll(to.o.Data), removeFile(to.unfinished())))
			if err := first(); err != nil && !errors.Is(err, broken) {
				t.Fatal(err)
			}
			if disk, err := to.Disk(t.Context()); err != nil || !disk.Empty {
				t.Errorf("before it has ended there is %+v, %v", disk, err)
			}
			must(t, to.Restore(t.Context(), whole))
			disk, err := to.Disk(t.Context())
			if err != nil || disk.Empty || disk.Replica {
				t.Errorf("there is %+v, %v", disk, err)
			}
			c, err := to.control(t.Context())
			if err != nil || c.state != stateShutDown || c.timeline < 2 {
				t.Errorf("it is %s, on timeline %d: %v", c.state, c.timeline, err)
			}
			if err := to.Restore(t.Context(), whole); err == nil {
				t.Error("a database was restored over another one")
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newDriver(t *testing.T, o Options) *Driver {
	t.Helper()
	d, err := New(o)
	must(t, err)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}
