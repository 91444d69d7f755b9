package pgbackup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"drover/internal/volume"
)

// RestoreCommand is what PostgreSQL calls for its log. For it a status of 1 to 125 says that the
// log ends, so a program that crashed, or was called wrong, must not end with one: all but 0 and 1 is made 254.
const RestoreCommand = `drover wal fetch %f %p || { s=$?; test $s -eq 1 || s=254; exit $s; }`

// ArchiveCommand is what PostgreSQL calls to have its log stored: only a status of 0 says so.
const ArchiveCommand = `drover wal push %p`

const (
	// marker is in a directory that Restore has not finished.
	marker = "drover.restoring"
	// Settings between these lines are Restore's.
	blockBegin = "# Recovery, by drover. Removed when it has ended."
	blockEnd   = "# End of recovery, by drover."
	autoConf   = "postgresql.auto.conf"
	signalFile = "recovery.signal"
)

// RestoreOptions of Restore.
type RestoreOptions struct {
	Into     string // the data directory: empty, missing, or left by an interrupted Restore
	Target   Target
	Command  string                          // restore_command; empty: RestoreCommand
	Progress func(path string, bytes uint64) // nil: nobody
	// Concurrency is how many files are restored at once; 0: as many as is good.
	Concurrency int
}

// Restore makes a data directory from a base backup, from which a server, once it is started, goes to the
// target by itself. Interrupted, it is called again; until it has ended no server starts there.
//
// Errors: ErrNoBackup, ErrTarget, ErrNotEmpty, volume.ErrIncomplete; the store's.
func (s *Store) Restore(ctx context.Context, opt RestoreOptions) (Record, error) {
	r, err := s.Choose(ctx, opt.Target)
	if err == nil {
		err = s.restore(ctx, r, opt)
	}
	if err != nil {
		return r, fmt.Errorf("restore base backup: %w", err)
	}
	return r, nil
}

func (s *Store) restore(ctx context.Context, r Record, opt RestoreOptions) error {
	if err := checkControl(r.Control, r.System); err != nil {
		return fmt.Errorf("backup %s: pg_control: %w", r.Name, err)
	}
	if _, _, err := readLabel(r.Label); err != nil {
		return fmt.Errorf("backup %s: %w", r.Name, err)
	}
	if err := begin(opt.Into); err != nil {
		return err
	}
	err := s.Volume.RestorePath(ctx, volume.PathRestore{
		Snapshot: r.Snapshot, Path: r.Path, Into: opt.Into, Keep: []string{marker},
		Instance: s.Claim.Protocol.Self.ID, Progress: opt.Progress, Concurrency: opt.Concurrency,
	})
	if err != nil {
		return err
	}
	command := opt.Command
	if command == "" {
		command = RestoreCommand
	}
	return finish(opt.Into, r, opt.Target.settings(command))
}

// begin marks a directory as one in which nothing is whole, if there is nothing else.
func begin(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	mark := filepath.Join(dir, marker)
	if _, err := os.Lstat(mark); len(entries) > 0 && err != nil {
		return fmt.Errorf("%w: %s", ErrNotEmpty, dir)
	}
	if err := os.WriteFile(mark, []byte("A restore into this directory has not ended.\n"), 0o600); err != nil {
		return err
	}
	d, err := openData(dir)
	if err != nil {
		return err
	}
	defer d.close()
	return d.sync(".")
}

// Interrupted reports whether a Restore into dir has not ended.
func Interrupted(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, marker))
	return err == nil
}

// finish writes what makes the files a database to recover: pg_control last.
func finish(dir string, r Record, set []setting) error {
	d, err := openData(dir)
	if err != nil {
		return err
	}
	defer d.close()
	conf, err := d.root.ReadFile(autoConf)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	type file struct {
		name    string
		content []byte
	}
	files := []file{{autoConf, []byte(withBlock(string(conf), set))}, {"backup_label", []byte(r.Label)}, {signalFile, nil}}
	if r.Spaces != "" {
		files = append(files, file{"tablespace_map", []byte(r.Spaces)})
	}
	for _, f := range append(files, file{controlFile, r.Control}) {
		if err := d.put(f.name, f.content); err != nil {
			return err
		}
	}
	for _, folder := range []string{"pg_wal", "pg_wal/archive_status"} {
		if err := d.mkdir(folder); err != nil {
			return err
		}
	}
	if err := d.syncAll(); err != nil {
		return err
	}
	if err := d.root.Remove(marker); err != nil {
		return err
	}
	return d.sync(".")
}

// Settle takes the settings of Restore out of a directory again, when the server has become a
// primary or is a replica's: a later recovery must not stop at an old target. The server reads them at its next reload.
func Settle(dir string) error {
	err := settle(dir)
	if err != nil {
		return fmt.Errorf("take recovery's settings away: %w", err)
	}
	return nil
}

func settle(dir string) error {
	d, err := openData(dir)
	if err != nil {
		return err
	}
	defer d.close()
	conf, err := d.root.ReadFile(autoConf)
	if err != nil {
		return err
	}
	rest := withoutBlock(string(conf))
	if rest == string(conf) {
		return nil
	}
	return d.put(autoConf, []byte(rest))
}

func withBlock(conf string, set []setting) string {
	var b strings.Builder
	b.WriteString(withoutBlock(conf))
	if b.Len() > 0 && !strings.HasSuffix(b.String(), "\n") {
		b.WriteString("\n")
	}
	b.WriteString(blockBegin + "\n")
	for _, s := range set {
		fmt.Fprintf(&b, "%s = '%s'\n", s.name, quote(s.value))
	}
	b.WriteString(blockEnd + "\n")
	return b.String()
}

// quote escapes a value as guc-file.l reads it.
func quote(text string) string {
	return strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(text)
}

// withoutBlock takes all targets, also where ALTER SYSTEM has dropped the comments.
func withoutBlock(conf string) string {
	var b strings.Builder
	inside := false
	for line := range strings.Lines(conf) {
		text := strings.TrimSpace(line)
		name, _, _ := strings.Cut(text, "=")
		name = strings.TrimSpace(name)
		switch {
		case text == blockBegin:
			inside = true
		case text == blockEnd:
			inside = false
		case inside, strings.HasPrefix(name, "recovery_target"):
		default:
			b.WriteString(line)
		}
	}
	return b.String()
}
