package database

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"drover/internal/failover"
)

// newID is an ID that no copy of a member's files has had. It begins with the member's name, for
// people, and is a valid application name (PostgreSQL: 63 bytes).
func newID(name string) string {
	return fmt.Sprintf("%.40s-%s", name, strings.ToLower(rand.Text()[:10]))
}

// MemberOf is the name of the member that an ID was made for, as far as it is in it.
func MemberOf(id string) string {
	if i := strings.LastIndexByte(id, '-'); i > 0 {
		return id[:i]
	}
	return id
}

// readState reads what a member remembers; none is no error.
func readState(path string) (failover.Persistent, error) {
	var p failover.Persistent
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return p, fmt.Errorf("read what the database's member remembers: %w", err)
	}
	return p, nil
}

// writeState replaces it; it is on the disk then.
func writeState(path string, p failover.Persistent) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := writeSynced(tmp, text); err != nil {
		return fmt.Errorf("remember: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("remember: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("remember: %w", err)
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}

func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
