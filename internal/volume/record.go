package volume

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"drover/internal/volume/protocol"
)

// newID returns 128 random bits from the kernel, in hexadecimal.
func newID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // crypto/rand never returns an error since Go 1.24
	}
	return hex.EncodeToString(b[:])
}

const recordVersion = 1

// recordFile is the record as it stands on the disk, with what identifies the
// files that it speaks of.
type recordFile struct {
	protocol.Record
	Markers []marker `json:"markers"`
}

// DataDir is the agent's own directory of one volume: record, tree cache, and
// the lock that keeps a second agent out. It lies outside the volume's paths.
type DataDir struct {
	path string
	lock *os.File
}

// OpenDataDir makes and locks <base>/<volume>. Errors: ErrDataDirInUse.
func OpenDataDir(base, volume string) (*DataDir, error) {
	path := filepath.Join(base, volume)
	// Others may pass through, since a restore test's check may be of another user.
	if err := os.MkdirAll(base, 0o711); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s: another agent of volume %q runs here; give this one its own --data-dir", ErrDataDirInUse, path, volume)
		}
		return nil, fmt.Errorf("lock data directory %s: %w", path, err)
	}
	return &DataDir{path: path, lock: lock}, nil
}

// Path returns the path of name in the directory.
func (d *DataDir) Path(name string) string { return filepath.Join(d.path, name) }

// Close gives the directory's lock back.
func (d *DataDir) Close() error { return d.lock.Close() }

// load reads the record; nil if there is none, or none of this volume. A record
// that cannot be read is an error: what it protects must not be guessed.
func (d *DataDir) load(volume string) (*recordFile, error) {
	data, err := os.ReadFile(d.Path("record"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	var r recordFile
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("decode record %s: %w: move it away to start as on a new server; local files that differ are then kept as a diverged snapshot", d.Path("record"), err)
	}
	if r.Version > recordVersion {
		return nil, fmt.Errorf("decode record %s: %w: upgrade this drover", d.Path("record"), ErrNewer)
	}
	if r.Volume != volume {
		return nil, nil
	}
	return &r, nil
}

// store writes the record such that after a power cut the old or the new one is there.
func (d *DataDir) store(r recordFile) error {
	r.Version = recordVersion
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	if err := writeDurably(d.Path("record"), append(data, '\n')); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

// writeDurably replaces the file at path: whole, synced, with its directory entry.
func writeDurably(path string, data []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// bootID is the kernel's id of this boot; empty if it cannot be read, which
// equals no other boot.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
