// Package appender is a client that writes to a PostgreSQL cluster through whatever happens to it, and
// says at the end what became of what was acknowledged.
//
// It knows a cluster as any program does: by a list of hosts, of which it wants the one that lets it
// write. A commit whose answer it did not get may have happened or not; it is never tried again.
package appender

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options of Start.
type Options struct {
	Hosts    []string // host:port of all members
	User     string
	Password string
	Workers  int           // 0: 2
	Pause    time.Duration // of each worker between two writes; 0: 5 ms
	// Timeout of a connection, and of a write; 0: 2 s.
	Timeout time.Duration
}

// Ack is one acknowledged write.
type Ack struct {
	Value  int64
	Server string    // address of who acknowledged
	Asked  time.Time // when the write was sent
	Told   time.Time // when its acknowledgement was there
}

// Appender writes until it is stopped.
type Appender struct {
	opt    Options
	run    string // tells its rows from those of others
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu      sync.Mutex
	next    int64
	acks    []Ack
	unknown int64 // writes without an answer
	last    error
}

const table = "appended"

// Start makes the table, and begins to write.
func Start(ctx context.Context, opt Options) (*Appender, error) {
	if opt.Workers == 0 {
		opt.Workers = 2
	}
	if opt.Pause == 0 {
		opt.Pause = 5 * time.Millisecond
	}
	if opt.Timeout == 0 {
		opt.Timeout = 2 * time.Second
	}
	a := &Appender{opt: opt, run: rand.Text()}
	conn, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS "+table+" (run text NOT NULL, value bigint NOT NULL)")
	_ = conn.Close(ctx)
	if err != nil {
		return nil, fmt.Errorf("make the table: %w", err)
	}
	ctx, a.cancel = context.WithCancel(ctx)
	for range opt.Workers {
		a.group.Go(func() { a.work(ctx) })
	}
	return a, nil
}

// connect connects to the member that lets one write.
func (a *Appender) connect(ctx context.Context) (*pgx.Conn, error) {
	var hosts, ports []string
	for _, h := range a.opt.Hosts {
		i := strings.LastIndexByte(h, ':')
		hosts, ports = append(hosts, h[:i]), append(ports, h[i+1:])
	}
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s user=%s dbname=postgres target_session_attrs=read-write sslmode=disable connect_timeout=1",
		strings.Join(hosts, ","), strings.Join(ports, ","), a.opt.User))
	if err != nil {
		return nil, err
	}
	cfg.Password = a.opt.Password
	return pgx.ConnectConfig(ctx, cfg)
}

// work is one worker: it keeps a connection as long as it is good.
func (a *Appender) work(ctx context.Context) {
	var conn *pgx.Conn
	var server string
	drop := func() {
		if conn != nil {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 100*time.Millisecond)
			_ = conn.Close(end)
			cancel()
			conn = nil
		}
	}
	defer drop()
	for ctx.Err() == nil {
		var err error
		if conn == nil {
			conn, server, err = a.open(ctx)
		}
		if err == nil {
			err = a.write(ctx, conn, server)
		}
		wait := a.opt.Pause
		if err != nil {
			drop()
			a.mu.Lock()
			a.last = err
			a.mu.Unlock()
			wait = 20 * time.Millisecond
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (a *Appender) open(ctx context.Context) (*pgx.Conn, string, error) {
	call, cancel := context.WithTimeout(ctx, a.opt.Timeout)
	defer cancel()
	conn, err := a.connect(call)
	if err != nil {
		return nil, "", err
	}
	return conn, conn.PgConn().Conn().RemoteAddr().String(), nil
}

func (a *Appender) write(ctx context.Context, conn *pgx.Conn, server string) error {
	a.mu.Lock()
	a.next++
	value := a.next
	a.mu.Unlock()
	call, cancel := context.WithTimeout(ctx, a.opt.Timeout)
	defer cancel()
	asked := time.Now()
	tag, err := conn.Exec(call, "INSERT INTO "+table+" VALUES ($1, $2)", a.run, value)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.unknown++
		return err
	}
	if tag.RowsAffected() != 1 {
		return errors.New("nothing was written")
	}
	a.acks = append(a.acks, Ack{value, server, asked, time.Now()})
	return nil
}

// Acked is how many writes were acknowledged as yet.
func (a *Appender) Acked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.acks)
}

// LastError is why the last failed write did.
func (a *Appender) LastError() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// Move has it look for the cluster at other hosts. It does not write.
func (a *Appender) Move(hosts []string) { a.opt.Hosts = hosts }

// Stop ends the writing.
func (a *Appender) Stop() {
	a.cancel()
	a.group.Wait()
}

// Report is what became of the writes.
type Report struct {
	Acked, Unknown int
	Missing        []int64 // acknowledged, and not there
	Duplicated     []int64
	// Changes is how often an acknowledgement came from another server than the one before: more
	// often than there were new primaries, and two have led at the same time.
	Changes int
	Gap     time.Duration // the longest time between two acknowledgements
	GapAt   time.Time
}

func (r Report) String() string {
	return fmt.Sprintf("%d acknowledged, %d unknown, %d missing, %d duplicated, %d changes of primary, longest gap %.2f s",
		r.Acked, r.Unknown, len(r.Missing), len(r.Duplicated), r.Changes, r.Gap.Seconds())
}

// Check stops the writing, reads everything back, and compares.
func (a *Appender) Check(ctx context.Context) (Report, error) {
	a.Stop()
	conn, err := a.connect(ctx)
	if err != nil {
		return Report{}, err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, "SELECT value FROM "+table+" WHERE run = $1", a.run)
	if err != nil {
		return Report{}, err
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return Report{}, err
	}
	return a.compare(values), nil
}

func (a *Appender) compare(values []int64) Report {
	r := Report{Acked: len(a.acks), Unknown: int(a.unknown)}
	there := map[int64]int{}
	for _, v := range values {
		if there[v]++; there[v] == 2 {
			r.Duplicated = append(r.Duplicated, v)
		}
	}
	for _, ack := range a.acks {
		if there[ack.Value] == 0 {
			r.Missing = append(r.Missing, ack.Value)
		}
	}
	told := slices.SortedFunc(slices.Values(a.acks), func(x, y Ack) int { return x.Told.Compare(y.Told) })
	for i := 1; i < len(told); i++ {
		if told[i].Server != told[i-1].Server {
			r.Changes++
		}
		if gap := told[i].Told.Sub(told[i-1].Told); gap > r.Gap {
			r.Gap, r.GapAt = gap, told[i-1].Told
		}
	}
	return r
}
