package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/internal/database"

	"github.com/jackc/pgx/v5"
)

// Rewind implements database.Driver.
func (d *Driver) Rewind(ctx context.Context, source database.Peer) error {
	if err := d.rewind(ctx, source); err != nil {
		return fmt.Errorf("rewind to the history of %s: %w", source.Name, err)
	}
	return nil
}

func (d *Driver) rewind(ctx context.Context, source database.Peer) error {
	if err := errors.Join(checkPeer(source), d.makeDir(d.o.Run)); err != nil {
		return err
	}
	disk, err := d.Disk(ctx)
	if err != nil {
		return err
	}
	if disk.Empty {
		return fmt.Errorf("there is no whole database: %w", database.ErrDiverged)
	}
	if d.o.ArchivePending != nil {
		if err := d.o.ArchivePending(ctx); err != nil {
			return fmt.Errorf("store what was not archived: %w", err)
		}
	}
	conn, err := d.dialRewind(ctx, source)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	to, err := newTarget(ctx, conn, disk.System)
	if err != nil {
		return err
	}
	need, err := d.compareWith(ctx, to)
	if err != nil || !need {
		return err
	}
	return d.rewindTo(ctx, source, to)
}

func (d *Driver) dialRewind(ctx context.Context, source database.Peer) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d dbname=%s sslmode=prefer", infoValue(source.Host), source.Port, maintenance))
	if err != nil {
		return nil, err
	}
	config.User, config.Password = d.o.Rewind.Name, d.o.Rewind.Password()
	if d.o.TLS != nil {
		config.Fallbacks = nil // without TLS
		if config.TLSConfig, err = d.sslConfig(source.Host); err != nil {
			return nil, err
		}
	}
	return d.dial(ctx, config, nil)
}

// target is the history that files are to be brought to.
type target struct {
	conn    *pgx.Conn
	at      position // as far as it is flushed, with all of its ancestors
	size    lsn      // of a log segment
	history string   // the timeline's history file
}

// newTarget asks the source, whose control file names its timeline afterwards: pg_rewind believes that.
func newTarget(ctx context.Context, conn *pgx.Conn, system string) (*target, error) {
	t, itself, err := askTarget(ctx, conn)
	switch {
	case err != nil:
		return nil, err
	case itself != system:
		return nil, fmt.Errorf("it is another database (%s) than this one (%s)", itself, system)
	}
	return t, t.control(ctx)
}

// askTarget asks the source, which has to be a primary, and which database it is.
func askTarget(ctx context.Context, conn *pgx.Conn) (t *target, system string, err error) {
	var flush, file string
	var recovering bool
	var size int64
	err = conn.QueryRow(ctx, `SELECT (SELECT system_identifier::text FROM pg_control_system()), pg_is_in_recovery(),
		pg_size_bytes(current_setting('wal_segment_size'))`).Scan(&system, &recovering, &size)
	switch {
	case err != nil:
		return nil, "", err
	case recovering:
		return nil, "", errors.New("it is no primary")
	}
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text, pg_walfile_name(pg_current_wal_flush_lsn())").Scan(&flush, &file); err != nil {
		return nil, "", err
	}
	t = &target{conn: conn, size: lsn(size)}
	end, err1 := parseLSN(flush)
	timeline, err2 := parseHex(file[:min(8, len(file))])
	if err := errors.Join(err1, err2); err != nil {
		return nil, "", err
	}
	t.at = position{span: span{timeline, end}}
	if timeline > 1 {
		var text []byte
		if err := conn.QueryRow(ctx, "SELECT pg_read_binary_file($1::text)", fmt.Sprintf("pg_wal/%08X.history", timeline)).Scan(&text); err != nil {
			return nil, "", err
		}
		t.history = string(text)
		if t.at.before, err = parseHistory(t.history); err != nil {
			return nil, "", err
		}
	}
	return t, system, nil
}

// control waits until the source's control file names its timeline.
func (t *target) control(ctx context.Context) error {
	for asked := false; ; asked = true {
		var timeline uint32
		if err := t.conn.QueryRow(ctx, "SELECT timeline_id FROM pg_control_checkpoint()").Scan(&timeline); err != nil {
			return err
		}
		if timeline == t.at.timeline {
			return nil
		}
		if asked {
			return fmt.Errorf("its checkpoint is of timeline %d, not of %d", timeline, t.at.timeline)
		}
		if _, err := t.conn.Exec(ctx, "SET statement_timeout = 0; CHECKPOINT"); err != nil {
			return err
		}
	}
}

// compareWith says whether files have what the target's history has not; and, as ErrDiverged, whether they
// cannot get there at all. It only reads. That timelines have the same number proves nothing: two members that were
// promoted without knowing of each other chose the same one. What was logged is compared.
func (d *Driver) compareWith(ctx context.Context, to *target) (need bool, err error) {
	files, err := d.control(ctx)
	if err != nil {
		return false, err
	}
	timeline, err := d.newestTimeline(files)
	if err != nil {
		return false, err
	}
	fork, ancestor := to.at.ended(timeline)
	switch {
	case timeline == to.at.timeline:
		fork = to.at.end
	case !ancestor:
		return true, d.sameOrigin(ctx, to, timeline)
	}
	more, err := d.hasRecord(ctx, timeline, fork, to.size)
	if err != nil {
		return false, err
	}
	if more && !ancestor {
		return false, fmt.Errorf("the same timeline %d goes further than %s here: %w", timeline, fork, database.ErrDiverged)
	}
	common := min(fork, to.lastKnown(files, timeline))
	if more {
		common = fork
	}
	known, err := d.sameLog(ctx, to, timeline, common)
	if err == nil && !known && (more || d.o.RestoreCommand == "") {
		err = fmt.Errorf("the log before %s is not kept any more: %w", common, database.ErrDiverged)
	}
	return more, err
}

// Sizes of what is in the log, in bytes: what each record begins with, its checksum included; and that of the record that a
// timeline begins with, up to the time in it.
const (
	recordHeader = 24
	firstRecord  = recordHeader + 2 + 8
)

// lastKnown is a place on a timeline up to which the log here is certainly written, the further the better.
func (t *target) lastKnown(files control, timeline uint32) lsn {
	switch timeline {
	case files.timeline:
		return files.latest + recordHeader
	case files.minimumTimeline():
		return files.minimum
	}
	return t.at.began(timeline) + firstRecord
}

// began is where a timeline left the one before it, in p's history.
func (p position) began(timeline uint32) lsn {
	var began lsn
	for _, s := range p.before {
		if s.timeline < timeline {
			return s.end
		}
	}
	return began
}

// newestTimeline is the last one of which anything is here. The control file may not know of it yet.
func (d *Driver) newestTimeline(files control) (uint32, error) {
	newest := max(files.timeline, files.minimumTimeline())
	names, err := os.ReadDir(filepath.Join(d.o.Data, "pg_wal"))
	if err != nil {
		return 0, err
	}
	for _, n := range names {
		if name := n.Name(); len(name) == 24 {
			if timeline, err := parseHex(name[:8]); err == nil {
				newest = max(newest, timeline)
			}
		}
	}
	return newest, nil
}

// forgetFutures removes the histories of timelines of which nothing else is here. They came from an upstream that was
// followed no further, and would be aimed at, or believed of the next one that has that number. Whoever is followed sends its own.
func (d *Driver) forgetFutures(files control) error {
	newest, err := d.newestTimeline(files)
	if err != nil {
		return err
	}
	here, err := d.histories(true)
	if err != nil {
		return err
	}
	for _, timeline := range here {
		if timeline > newest {
			if err := removeFile(d.historyFile(timeline)); err != nil {
				return err
			}
		}
	}
	return nil
}

// sameOrigin makes sure that a timeline which is not the target's comes from one that is, not only by its number: pg_rewind
// would believe that.
func (d *Driver) sameOrigin(ctx context.Context, to *target, timeline uint32) error {
	text, err := os.ReadFile(filepath.Join(d.o.Data, "pg_wal", fmt.Sprintf("%08X.history", timeline)))
	if err != nil {
		return fmt.Errorf("where timeline %d comes from is not known: %w: %w", timeline, database.ErrDiverged, err)
	}
	mine, err := parseHistory(string(text))
	if err != nil {
		return err
	}
	for _, s := range mine {
		end, ancestor := to.at.ended(s.timeline)
		if s.timeline == to.at.timeline {
			end, ancestor = to.at.end, true
		}
		if !ancestor {
			continue
		}
		common := min(end, s.end)
		known, err := d.sameLog(ctx, to, s.timeline, common)
		if err == nil && !known {
			err = fmt.Errorf("the log before %s is not kept any more: %w", common, database.ErrDiverged)
		}
		return err
	}
	return fmt.Errorf("timeline %d has nothing in common with %d: %w", timeline, to.at.timeline, database.ErrDiverged)
}

func (c control) minimumTimeline() uint32 {
	n, _ := strconv.ParseUint(c.fields["Min recovery ending loc's timeline"], 10, 32)
	return uint32(n)
}

// segment is the file of a timeline that has a byte.
func segment(timeline uint32, at, size lsn) string {
	n, per := uint64(at/size), uint64(1<<32)/uint64(size)
	return fmt.Sprintf("%08X%08X%08X", timeline, n/per, n%per)
}

// hasRecord says whether the log here has a record at a place or after it.
func (d *Driver) hasRecord(ctx context.Context, timeline uint32, at, size lsn) (bool, error) {
	wal := filepath.Join(d.o.Data, "pg_wal")
	if _, err := os.Stat(filepath.Join(wal, segment(timeline, at, size))); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	_, err := d.run(ctx, "", nil, "pg_waldump", "-p", wal, "-t", fmt.Sprint(timeline), "-s", at.String(), "-n", "1", "-q")
	if err != nil && ctx.Err() != nil {
		return false, err
	}
	return err == nil, nil // it fails where no record is valid
}

// compared is how much of the log is compared, in bytes.
const compared = 8 << 10

// sameLog compares the log before a place with the source's: ErrDiverged, if it differs. It is not known if one of both
// has not kept it.
func (d *Driver) sameLog(ctx context.Context, to *target, timeline uint32, before lsn) (known bool, err error) {
	start := (before - 1) / to.size * to.size
	from := max(start, before-min(before, compared))
	mine := make([]byte, before-from)
	f, err := os.Open(filepath.Join(d.o.Data, "pg_wal", segment(timeline, start, to.size)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.ReadAt(mine, int64(from-start)); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	// The first segment of a timeline begins as a copy of the one that it left.
	var tries []uint32
	for _, s := range append([]span{to.at.span}, to.at.before...) {
		if s.timeline >= timeline {
			tries = append(tries, s.timeline)
		}
	}
	for i := len(tries) - 1; i >= 0; i-- {
		var theirs []byte
		err := to.conn.QueryRow(ctx, "SELECT coalesce(pg_read_binary_file($1::text, $2::bigint, $3::bigint, true), '')",
			"pg_wal/"+segment(tries[i], start, to.size), int64(from-start), int64(len(mine))).Scan(&theirs)
		switch {
		case err != nil:
			return false, err
		case len(theirs) != len(mine):
			continue
		case !bytes.Equal(mine, theirs):
			return true, fmt.Errorf("timeline %d is not the same one at %s: %w", timeline, before, database.ErrDiverged)
		}
		return true, nil
	}
	return false, nil
}

// rewindTo lets pg_rewind do it. From its first write until its end the files are no database.
func (d *Driver) rewindTo(ctx context.Context, source database.Peer, to *target) error {
	if err := d.recoverAlone(ctx); err != nil {
		return err
	}
	secret, forget, err := d.secret(d.o.Rewind, "rewind")
	if err != nil {
		return err
	}
	defer forget()
	if err := d.writeFile(d.unfinished(), "this database is being rewound\n"); err != nil {
		return err
	}
	args := []string{"-D", d.o.Data, "--source-server", d.peerInfo(source, d.o.Rewind.Name, secret, agentName, "dbname="+maintenance), "--no-ensure-shutdown"}
	if _, err := d.run(ctx, "", nil, "pg_rewind", args...); err != nil {
		return fmt.Errorf("%w: %w", database.ErrDiverged, err)
	}
	files, err := d.control(ctx)
	if err != nil {
		return err
	}
	if files.timeline != to.at.timeline {
		return fmt.Errorf("it is on timeline %d afterwards, not on %d: %w", files.timeline, to.at.timeline, database.ErrDiverged)
	}
	slots, err := os.ReadDir(filepath.Join(d.o.Data, "pg_replslot")) // of replicas that it had
	if err != nil {
		return err
	}
	for _, s := range slots {
		if err := os.RemoveAll(filepath.Join(d.o.Data, "pg_replslot", s.Name())); err != nil {
			return err
		}
	}
	return errors.Join(d.cleanAuto(), d.writeFile(filepath.Join(d.o.Data, "standby.signal"), ""), removeFile(d.unfinished()))
}

// recoverAlone has files recover and end cleanly, as pg_rewind needs them, without anybody being admitted. A replica's end at
// the last that they received, not only at what was applied. The log that pg_rewind reads is kept meanwhile.
func (d *Driver) recoverAlone(ctx context.Context) error {
	files, err := d.control(ctx)
	if err != nil || files.state == stateShutDown {
		return err
	}
	if err := d.alone(ctx); err != nil {
		return err
	}
	for _, name := range []string{"standby.signal", "recovery.signal"} {
		if err := removeFile(filepath.Join(d.o.Data, name)); err != nil {
			return err
		}
	}
	args := []string{"--single", "-D", d.o.Data}
	if _, err := os.Stat(d.confFile()); err == nil {
		args = append(args, "-c", "config_file="+d.confFile()) // it may name libraries that recovery needs
	}
	args = append(args, "-c", "wal_keep_size=1000000", "-c", "max_slot_wal_keep_size=-1", "-c", "restore_command=", maintenance)
	before := time.Now()
	if _, err := d.run(ctx, "", nil, "postgres", args...); err != nil {
		return fmt.Errorf("recover for %s: %w", time.Since(before).Round(time.Second), err)
	}
	return nil
}

// alone waits until the process that holds the files has ended and was waited for: what an agent started dies with that
// agent, but may take a moment for it.
func (d *Driver) alone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		text, err := os.ReadFile(filepath.Join(d.o.Data, "postmaster.pid"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		line, _, _ := strings.Cut(string(text), "\n")
		pid := strings.TrimPrefix(strings.TrimSpace(line), "-") // which says that it serves nobody else
		args, err := os.ReadFile("/proc/" + pid + "/cmdline")
		if err != nil || len(args) > 0 && !slices.Contains(strings.Split(string(args), "\x00"), d.o.Data) {
			return nil // it has gone, or its number has become another one's
		}
		if err := wait(ctx, pause); err != nil {
			return fmt.Errorf("wait for the end of process %s in %s: %w", pid, d.o.Data, err)
		}
	}
}
