package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"drover/internal/database"
)

// Seed makes the files a replica's from a backup, whatever they are: its server, once it is configured and started, applies what
// the archive has, and then what its upstream sends. The files count as none until they are whole; called again after it
// was interrupted, it goes on, and if nothing can be used of what is there it begins anew. It is called as the methods of
// database.Driver are. Whether the upstream has what comes after the backup and the archive is the caller's to know, see Lead.
func (d *Driver) Seed(ctx context.Context, b Backup) error {
	if err := d.seed(ctx, b); err != nil {
		return fmt.Errorf("make a replica of a backup: %w", err)
	}
	return nil
}

func (d *Driver) seed(ctx context.Context, b Backup) error {
	stage, err := os.ReadFile(d.unfinished())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.removeFresh(); err != nil {
		return err
	}
	if err := d.fetch(ctx, b, string(stage) == fetching); err != nil {
		return err
	}
	// What is a replica's comes first: nothing may start as a primary from here.
	if err := d.writeFile(filepath.Join(d.o.Data, standbySignal), ""); err != nil {
		return err
	}
	if err := errors.Join(b.Settle(d.o.Data), removeFile(filepath.Join(d.o.Data, recoverySignal)), d.cleanAuto()); err != nil {
		return err
	}
	return removeFile(d.unfinished())
}

// Lead is what a replica has to be able to follow: where a primary's history goes. Places are bytes of the log since
// the database's beginning.
type Lead struct {
	System   string
	Timeline uint32
	History  string // the timeline's history file; empty of the first
	End      uint64 // how far it is on stable storage
	Kept     uint64 // from where on the primary certainly still has it
	Size     int64  // of its databases that anybody may connect to, in bytes
}

// Lead asks a running primary.
func (d *Driver) Lead(ctx context.Context, source database.Peer) (Lead, error) {
	l, err := d.lead(ctx, source)
	if err != nil {
		return Lead{}, fmt.Errorf("ask %s where its history goes: %w", source.Name, err)
	}
	return l, nil
}

func (d *Driver) lead(ctx context.Context, source database.Peer) (Lead, error) {
	if err := checkPeer(source); err != nil {
		return Lead{}, err
	}
	conn, err := d.dialRewind(ctx, source)
	if err != nil {
		return Lead{}, err
	}
	defer closeConn(conn)
	t, system, err := askTarget(ctx, conn)
	if err != nil {
		return Lead{}, err
	}
	l := Lead{System: system, Timeline: t.at.timeline, End: uint64(t.at.end), History: t.history}
	var oldest string
	err = conn.QueryRow(ctx, `SELECT (SELECT coalesce(min(substr(f, 9)), '') FROM pg_ls_dir('pg_wal', true, false) f WHERE f ~ '^[0-9A-F]{24}$'),
		(SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database WHERE has_database_privilege(oid, 'CONNECT'))`).Scan(&oldest, &l.Size)
	if err != nil {
		return Lead{}, err
	}
	if len(oldest) != 16 {
		return Lead{}, errors.New("it shows no log")
	}
	high, err1 := parseHex(oldest[:8])
	low, err2 := parseHex(oldest[8:])
	l.Kept = uint64(high)<<32 + uint64(low)*uint64(t.size)
	return l, errors.Join(err1, err2)
}
