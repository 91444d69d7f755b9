package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/internal/failover"

	"github.com/jackc/pgx/v5"
)

// asker keeps a session to ask by, and what was learned in it.
type asker struct {
	conn *pgx.Conn
	// histories are the ancestors of timelines, which do not change.
	histories map[uint32][]span
	// known names the start of the server since which it was seen to have read all of its own log.
	known string
	quiet quiet
	// replies are those of the replicas that this server has.
	replies replies
}

// quiet is since when a detached replica's startup process was seen to find nothing more.
type quiet struct {
	since    time.Time // zero: it is not
	replay   lsn
	process  int
	switches int // how often it had gone to sleep by then
}

func (a *asker) close() {
	if a.conn != nil {
		closeConn(a.conn)
		a.conn = nil
	}
}

// general is what a session says of the server in the first place.
type general struct {
	Recovery bool
	Start    string
	Stamp    string
	Open     string
	Conninfo string
	Restore  string
	Names    string
	Pending  map[string]string // what the parameters that a restart would change are until then
	Version  string
	Paused   bool
	// Receiver: there is a receiver, connected or not. It starts when the log at hand is read.
	Receiver bool
	// Asked: a receiver was asked for since the server started, which is when the log at hand is read.
	Asked bool
	// Startup is the process that applies, and Idle says that it waits to try again, having found nothing.
	Startup int
	Idle    bool
	Retry   int // ms, that it waits
}

const generalQuery = `SELECT json_build_object(
	'recovery', pg_is_in_recovery(),
	'start', pg_postmaster_start_time()::text,
	'stamp', coalesce(current_setting('drover.stamp', true), ''),
	'open', coalesce(current_setting('drover.open', true), ''),
	'conninfo', current_setting('primary_conninfo'),
	'restore', current_setting('restore_command'),
	'names', current_setting('synchronous_standby_names'),
	'pending', (SELECT json_object_agg(name, setting) FROM pg_settings WHERE pending_restart),
	'version', split_part(current_setting('server_version'), ' ', 1),
	'paused', CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() <> 'not paused' ELSE false END,
	'receiver', EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver'),
	'asked', pg_last_wal_receive_lsn() IS NOT NULL,
	'startup', coalesce((SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'), 0),
	'idle', EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event = 'RecoveryRetrieveRetryInterval'),
	'retry', (SELECT setting::int FROM pg_settings WHERE name = 'wal_retrieve_retry_interval'))`

// receiver is a row of pg_stat_wal_receiver.
type receiver struct {
	Status   string
	Timeline uint32
	End      string // how far the sender's log goes at least: to where it was asked to begin, and what it said since
	Host     string
	Port     int
	Conninfo string
}

type following struct {
	Replay    string
	Receive   string
	Committed *time.Time
	Receiver  *receiver
	WAL       []string // histories, and the segments of all timelines in which the last byte is
}

// followingQuery asks a replica. Its parameter says whether what was received beyond what was applied counts.
const followingQuery = `WITH l AS MATERIALIZED (
		SELECT coalesce(pg_last_wal_replay_lsn(), '0/0') AS replay, coalesce(pg_last_wal_receive_lsn(), '0/0') AS receive,
			pg_size_bytes(current_setting('wal_segment_size')) AS size),
	s AS (SELECT (pg_wal_lsn_diff(CASE WHEN $1 THEN greatest(replay, receive) ELSE replay END, '0/0')::bigint - 1) / size AS n,
			4294967296 / size AS per FROM l)
	SELECT json_build_object('replay', l.replay, 'receive', l.receive, 'committed', pg_last_xact_replay_timestamp(),
		'receiver', (SELECT row_to_json(r) FROM (SELECT status, received_tli AS timeline, greatest(receive_start_lsn, latest_end_lsn) AS end,
			coalesce(sender_host, '') AS host, coalesce(sender_port, 0) AS port, coalesce(conninfo, '') AS conninfo
			FROM pg_stat_wal_receiver) r),
		'wal', (SELECT json_agg(f) FROM pg_ls_dir('pg_wal') f WHERE f ~ '^[0-9A-F]{8}[.]history$' OR
			length(f) = 24 AND substr(f, 9) = upper(lpad(to_hex(s.n / s.per), 8, '0') || lpad(to_hex(s.n % s.per), 8, '0'))))
	FROM l, s`

type leading struct {
	Flush    string
	File     string
	Replicas []struct{ ID, State, Flushed, Replied string }
}

const leadingQuery = `SELECT json_build_object('flush', pg_current_wal_flush_lsn(), 'file', pg_walfile_name(pg_current_wal_flush_lsn()),
	'replicas', (SELECT json_agg(r) FROM (SELECT application_name AS id, state, coalesce(flush_lsn, '0/0')::text AS flushed,
		pid || ' ' || coalesce(reply_time::text, '') AS replied
		FROM pg_stat_replication WHERE application_name !~ '^pg_' AND usename = $1 ORDER BY pid) r))`

// Status implements database.Driver. It asks in a session that is kept, and reads no file itself.
func (d *Driver) Status(ctx context.Context) (failover.Database, error) {
	var a *asker
	select {
	case a = <-d.status:
	case <-ctx.Done():
		return failover.Database{}, fmt.Errorf("ask PostgreSQL: %w", ctx.Err())
	case <-d.life.Done():
		return failover.Database{}, errors.New("ask PostgreSQL: the driver is closed")
	}
	defer func() { d.status <- a }()
	kept := a.conn != nil
	s, err := d.ask(ctx, a)
	if err != nil && kept && ctx.Err() == nil {
		s, err = d.ask(ctx, a) // the session had ended with the server that it was opened to
	}
	if err != nil {
		return failover.Database{}, fmt.Errorf("ask PostgreSQL: %w", err)
	}
	return s, nil
}

// ask asks once. A session that failed is not used again.
func (d *Driver) ask(ctx context.Context, a *asker) (s failover.Database, err error) {
	if a.conn == nil {
		if a.conn, err = d.connect(ctx); err != nil {
			return s, err
		}
		a.histories = map[uint32][]span{}
	}
	defer func() {
		if err != nil {
			a.close()
			err = ailing(err)
		}
	}()
	w, known, cut := d.told(ctx) // before: what follows must not be older
	var g general
	if err := query(ctx, a.conn, &g, generalQuery); err != nil {
		return s, err
	}
	s = failover.Database{
		Primary: !g.Recovery, Set: parseSyncNames(g.Names), Open: g.Open == "true", Incident: d.incident(),
		Version: g.Version, Pending: slices.Sorted(maps.Keys(g.Pending)),
	}
	s.Settings, s.Lowers = d.settings(g.Pending)
	current := known && g.Stamp == w.Stamp
	if s.Primary {
		if current && s.Open && s.Set.Acks > 0 && !d.waitsNow(g.Start) {
			s.Set = failover.SyncSet{} // nobody has seen yet that commits wait
		}
		return s, d.askPrimary(ctx, a, &s)
	}
	if g.Paused && s.Incident == "" {
		s.Incident = "applying what is received is paused"
		if lacking := d.outgrown(ctx, a.conn); lacking != "" {
			s.Incident, s.Outgrown = lacking, true
		}
	}
	s.Detached = current && cut && g.Conninfo == "" && g.Restore == "" && !g.Receiver
	if a.known != g.Start && (g.Receiver || g.Asked || g.Idle) {
		a.known = g.Start
	}
	return s, d.askReplica(ctx, a, &s, g, w, current)
}

// told is what the server was last told, and whether no password for an upstream is left.
func (d *Driver) told(ctx context.Context) (w wanted, known, cut bool) {
	var got wanted
	err := d.quick(ctx, func() (err error) { // a file, the first time
		got, err = d.want()
		return err
	})
	if err != nil {
		return wanted{}, false, false
	}
	d.set(func() { cut = d.cut })
	return got, true, cut
}

func query(ctx context.Context, conn *pgx.Conn, into any, sql string, args ...any) error {
	var text string
	if err := conn.QueryRow(ctx, sql, args...).Scan(&text); err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), into)
}

func (d *Driver) askPrimary(ctx context.Context, a *asker, s *failover.Database) error {
	var l leading
	if err := query(ctx, a.conn, &l, leadingQuery, d.o.Replication.Name); err != nil {
		return err
	}
	at, err := a.leadingAt(ctx, l.Flush, l.File)
	if err != nil {
		return err
	}
	s.Received, s.Applied, s.Timeline = at.String(), at.String(), fmt.Sprint(at.timeline)
	if len(at.before) > 0 {
		s.Began = position{at.before[0], at.before[1:]}.String()
	}
	before := a.replies
	a.replies = replies{}
	for _, r := range l.Replicas {
		flushed, err := parseLSN(r.Flushed)
		if err != nil {
			return err
		}
		if old, ok := before[r.ID]; ok {
			a.replies[r.ID] = old
		}
		// A replica replies each second. PostgreSQL itself takes longer to give one up that is cut off.
		silent := a.replies.heard(r.ID, r.Replied, time.Now())
		s.Replicas = append(s.Replicas, failover.Replica{
			ID: r.ID, Flushed: at.back(flushed).String(), Streaming: r.State == "streaming" && silent < d.o.DiskTimeout,
		})
	}
	return nil
}

// leadingAt is a position on a primary's own timeline, which its log files' names begin with.
func (a *asker) leadingAt(ctx context.Context, flush, file string) (position, error) {
	end, err := parseLSN(flush)
	if err != nil {
		return position{}, err
	}
	if len(file) < 8 {
		return position{}, fmt.Errorf("%q is no log file", file)
	}
	timeline, err := parseHex(file[:8])
	if err != nil {
		return position{}, err
	}
	before, err := a.ancestors(ctx, timeline)
	return place(timeline, end, before), err
}

// ancestors reads a timeline's history file.
func (a *asker) ancestors(ctx context.Context, timeline uint32) ([]span, error) {
	if known, ok := a.histories[timeline]; ok || timeline == 1 {
		return known, nil
	}
	var text *string
	if err := a.conn.QueryRow(ctx, "SELECT pg_read_file($1, 0, 1048576, true)", fmt.Sprintf("pg_wal/%08X.history", timeline)).Scan(&text); err != nil {
		return nil, err
	}
	if text == nil {
		return nil, nil // it may come yet
	}
	spans, err := parseHistory(*text)
	if err == nil {
		a.histories[timeline] = spans
	}
	return spans, err
}

// back is a place before p, or at it, in p's history; or beyond it, on its timeline.
func (p position) back(at lsn) position {
	for len(p.before) > 0 && at <= p.before[0].end {
		p = position{p.before[0], p.before[1:]}
	}
	p.end = at
	return p
}

func (d *Driver) askReplica(ctx context.Context, a *asker, s *failover.Database, g general, w wanted, current bool) error {
	settled := s.Detached && a.settled(g)
	f, replay, at, err := a.following(ctx, settled)
	if err == nil && !a.stays(replay, g, s.Detached && g.Idle) && settled {
		f, replay, at, err = a.following(ctx, false)
	}
	if err != nil {
		return err
	}
	p, newest, err := a.followingAt(ctx, at, f.WAL)
	if err != nil {
		return err
	}
	s.Timeline, s.Applied = fmt.Sprint(p.timeline), p.back(replay).String()
	s.Archive = current && w.Archive && g.Restore != ""
	if a.known == g.Start || s.Archive { // what the archive has can be had again
		s.Received = p.String()
	}
	if f.Committed != nil {
		s.Committed = *f.Committed
	}
	if !current || w.Upstream == nil || !slices.ContainsFunc(d.reloadable(&w), func(x setting) bool { return x.name == "primary_conninfo" && x.value == g.Conninfo }) {
		return nil
	}
	s.Upstream = w.Upstream.ID
	if r := f.Receiver; r != nil {
		end, err := parseLSN(r.End)
		// A receiver whose upstream has a newer timeline fetches that one's history before it streams the older one to its end: as
		// long as it does, it is not known whether what is here has a place in it.
		s.Receiving = err == nil && r.Status == "streaming" && r.Host == w.Upstream.Host && r.Port == w.Upstream.Port &&
			strings.Contains(r.Conninfo, d.passFile(w.Upstream.ID)) && r.Timeline >= newest && end >= replay
	}
	return nil
}

// following asks a replica for what it has applied, and how far its log goes, which is the same if it is settled.
func (a *asker) following(ctx context.Context, settled bool) (f following, replay, at lsn, err error) {
	if err := query(ctx, a.conn, &f, followingQuery, !settled); err != nil {
		return f, 0, 0, err
	}
	replay, err1 := parseLSN(f.Replay)
	receive, err2 := parseLSN(f.Receive)
	at = max(replay, receive)
	if settled {
		at = replay
	}
	return f, replay, at, errors.Join(err1, err2)
}

// followingAt finds the timeline of a place in a replica's log, which no function tells: the newest one that
// began before it and has a file with the byte before it. It also returns the newest timeline that is known.
func (a *asker) followingAt(ctx context.Context, at lsn, files []string) (position, uint32, error) {
	var newest uint32
	best := position{}
	for _, f := range files {
		timeline, err := parseHex(f[:min(8, len(f))])
		if err != nil {
			return position{}, 0, err
		}
		newest = max(newest, timeline)
		if strings.HasSuffix(f, ".history") || timeline <= best.timeline {
			continue
		}
		before, err := a.ancestors(ctx, timeline)
		if err != nil {
			return position{}, 0, err
		}
		if len(before) == 0 || before[0].end < at {
			best = place(timeline, at, before)
		}
	}
	if best.timeline > 0 {
		return best, newest, nil
	}
	var timeline uint32
	if err := a.conn.QueryRow(ctx, "SELECT timeline_id FROM pg_control_checkpoint()").Scan(&timeline); err != nil {
		return position{}, 0, err
	}
	before, err := a.ancestors(ctx, timeline)
	return place(timeline, at, before).back(at), max(newest, timeline), err
}

// settled says whether a detached replica has applied all that it can: what it has received beyond that is a part of a
// record, which no restart and no promotion brings back. Two looks are needed between which the startup process
// has tried again, as it has if it went to sleep several times: it may wait once before it has read the last.
func (a *asker) settled(g general) bool {
	q := a.quiet
	return g.Idle && !q.since.IsZero() && q.process == g.Startup &&
		time.Since(q.since) > 2*time.Second+4*time.Duration(g.Retry)*time.Millisecond &&
		sleeps(g.Startup) >= q.switches+4
}

// stays keeps what settled looks back at, and reports whether nothing has been applied since.
func (a *asker) stays(replay lsn, g general, idle bool) bool {
	same := a.quiet.process == g.Startup && a.quiet.replay == replay
	switch {
	case !idle:
		a.quiet = quiet{}
	case a.quiet.since.IsZero(), !same:
		a.quiet = quiet{since: time.Now(), replay: replay, process: g.Startup, switches: sleeps(g.Startup)}
	}
	return same
}

// sleeps is how often a process has gone to sleep by itself.
func sleeps(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "\nvoluntary_ctxt_switches:")
	line, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.Atoi(strings.TrimSpace(line))
	return n
}
