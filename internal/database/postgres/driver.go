// Package postgres drives PostgreSQL 15 to 18 for package database: how its files are
// made, copied and rewound, how it is configured, asked, promoted and told who acknowledges.
//
// It promises the contract of database.Driver. What the user configured is included and never
// edited: all that is generated stands in a directory of the agent's. It leaves the server's process to who
// supervises it, and what to do when to package failover. DESIGN.md has what PostgreSQL does that one would not expect.
package postgres

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"drover/internal/database"
)

// Driver implements database.Driver.
type Driver struct {
	o Options

	writing sync.Mutex // held while the configuration is written, which may hang with the disk

	mu     sync.Mutex // never held while anything is read or written
	wanted *wanted    // nil: not looked up yet
	// cut says that no password for an upstream is left: whatever the server does with what it
	// was told before, it cannot connect to anybody.
	cut bool
	// waits names the start of the server for which commits were seen to wait for acknowledgements.
	waits string

	status chan *asker // holds the one asker, unless somebody asks

	// unread says that a running server has not been told of its certificates since this driver began; Renew's own.
	unread bool

	work sync.WaitGroup
	life context.Context // ends with Close
	end  context.CancelFunc

	disk, door probe
}

var _ database.Driver = (*Driver)(nil)

// New makes a driver. It starts nothing.
func New(o Options) (*Driver, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("configure PostgreSQL: %w", err)
	}
	d := &Driver{o: o, status: make(chan *asker, 1), unread: true}
	d.status <- &asker{}
	d.life, d.end = context.WithCancel(context.Background())
	return d, nil
}

// Close implements database.Driver. A write that hangs in the system is not waited for longer than DiskTimeout.
func (d *Driver) Close() error {
	d.end()
	done := make(chan struct{})
	go func() {
		d.work.Wait()
		close(done)
	}()
	a := <-d.status
	a.close()
	select {
	case <-done:
		return nil
	case <-time.After(d.o.DiskTimeout):
		return errors.New("close PostgreSQL's driver: a write to its disk hangs")
	}
}

// wanted is what the server is to do. It survives the agent, in a file beside the configuration that is made from it.
type wanted struct {
	database.Configuration
	Open bool
	// Floor are parameters that a replica needs higher than they were configured.
	Floor map[string]string
	// Major is the server's version.
	Major int
	// Stamp is another one for each version of the configuration: a session that shows it is one of
	// a server that has read it.
	Stamp string
}

func (d *Driver) wantedFile() string { return filepath.Join(d.o.Run, "wanted.json") }

// want returns what the server was last told.
func (d *Driver) want() (wanted, error) {
	d.mu.Lock()
	known := d.wanted
	d.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	text, err := os.ReadFile(d.wantedFile())
	if errors.Is(err, fs.ErrNotExist) {
		return wanted{}, fmt.Errorf("look up PostgreSQL's configuration: it was not made here: %w", database.ErrNotRunning)
	}
	var w wanted
	if err == nil {
		err = json.Unmarshal(text, &w)
	}
	if err != nil {
		return wanted{}, fmt.Errorf("look up PostgreSQL's configuration: %w", err)
	}
	d.set(func() { d.wanted = &w })
	return w, nil
}

func (d *Driver) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// apply writes what the server is to do, and tells it, if it runs.
func (d *Driver) apply(w wanted) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.write(&w); err != nil {
		return fmt.Errorf("configure PostgreSQL: %w", err)
	}
	return nil
}

// write does it. An upstream's password goes before the configuration does, and comes before it.
func (d *Driver) write(w *wanted) error {
	w.Stamp, w.Major = rand.Text(), d.major()
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	if err := errors.Join(d.makeDir(d.o.Run), d.admitUpstream(w.Upstream)); err != nil {
		return err
	}
	if err := d.cleanAuto(); err != nil {
		return err
	}
	err = errors.Join(
		d.writeRun(d.hbaFile(), d.hba(w.Open)),
		d.writeRun(d.confFile(), d.conf(w)),
		d.writeRun(d.wantedFile(), string(text)),
	)
	if err == nil {
		d.set(func() { d.wanted = w })
	}
	return err
}

// admitUpstream leaves the replication user's password for one upstream, or none.
func (d *Driver) admitUpstream(upstream *database.Peer) error {
	keep := ""
	if upstream != nil {
		keep = d.passFile(upstream.ID)
		line, err := passLine(d.o.Replication.Name, d.o.Replication.Password())
		if err != nil {
			return err
		}
		d.set(func() { d.cut = false })
		if err := d.writeRun(keep, line); err != nil {
			return err
		}
	}
	found, err := filepath.Glob(escapeGlob(d.passFile("")[:len(d.passFile(""))-len(passSuffix)]) + "*" + passSuffix)
	if err != nil {
		return err
	}
	for _, f := range found {
		if f != keep {
			if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	d.set(func() { d.cut = upstream == nil })
	return nil
}

const passSuffix = ".pass"

// passFile is where the server finds the password for an upstream. Its name says which one, also in
// what a running receiver shows of its connection.
func (d *Driver) passFile(id string) string {
	return filepath.Join(d.o.Run, "upstream-"+id+passSuffix)
}

// Configure implements database.Driver.
func (d *Driver) Configure(ctx context.Context, c database.Configuration) error {
	if err := d.checkConfiguration(c); err != nil {
		return fmt.Errorf("configure PostgreSQL: %w", err)
	}
	disk, err := d.Disk(ctx)
	if err != nil {
		return err
	}
	if disk.Empty {
		return errors.New("configure PostgreSQL: there is no database")
	}
	files, err := d.control(ctx)
	if err != nil {
		return err
	}
	if !c.Standby && (files.replica() || d.copied()) {
		return errors.New("configure PostgreSQL: the files are a replica's, and become a primary's by promotion only")
	}
	signals := map[string]bool{standbySignal: c.Standby, recoverySignal: false, "promote": false}
	for name, there := range signals {
		path := filepath.Join(d.o.Data, name)
		if there {
			err = d.writeFile(path, "")
		} else {
			err = removeFile(path)
		}
		if err != nil {
			return fmt.Errorf("configure PostgreSQL: %w", err)
		}
	}
	w := wanted{Configuration: c}
	if c.Standby {
		w.Floor = d.floor(files)
		if err := d.forgetFutures(files); err != nil {
			return fmt.Errorf("configure PostgreSQL: %w", err)
		}
	}
	return d.apply(w)
}

// copied says whether the files are a copy, or were rewound, and no server has run with them since: their
// control file is still that of the primary.
func (d *Driver) copied() bool {
	_, err := os.Lstat(filepath.Join(d.o.Data, "backup_label"))
	return !errors.Is(err, fs.ErrNotExist)
}

func (d *Driver) checkConfiguration(c database.Configuration) error {
	if !memberID.MatchString(c.ID) {
		return fmt.Errorf("%q cannot be an ID: letters, digits, - and _, 63 at most", c.ID)
	}
	if c.Upstream != nil {
		if !c.Standby {
			return errors.New("a primary follows nobody")
		}
		if err := checkPeer(*c.Upstream); err != nil {
			return err
		}
	}
	if c.Archive && (!c.Standby || c.Upstream != nil || d.o.SourceCommand == "") {
		return errors.New("nothing says which archive it is to apply, or it is no standby that follows nobody")
	}
	return checkSet(c.Set)
}

func checkPeer(p database.Peer) error {
	if !memberID.MatchString(p.ID) {
		return fmt.Errorf("%q cannot be an ID: letters, digits, - and _, 63 at most", p.ID)
	}
	if p.Port < 1 || p.Port > 65535 {
		return fmt.Errorf("%d is no port", p.Port)
	}
	return checkHost(p.Host)
}

// Command implements database.Driver. What no file may overrule stands here: postgresql.auto.conf is read
// after all others, but before this.
func (d *Driver) Command() []string {
	bin, err := d.binaries()
	if err != nil {
		bin = "" // found in PATH, or not: who runs it says so
	}
	command := []string{filepath.Join(bin, "postgres"), "-D", d.o.Data}
	for _, s := range d.fixed() {
		command = append(command, "-c", s.name+"="+s.value)
	}
	return command
}

// quick runs what may hang in the system, and does not wait for it longer than ctx lasts.
func (d *Driver) quick(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	d.work.Go(func() { done <- f() })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// peerInfo is a connection string to a member, as one of the agent's users.
func (d *Driver) peerInfo(p database.Peer, user, passfile, name string, more ...string) string {
	pairs := append([]string{
		"host=" + infoValue(p.Host), fmt.Sprintf("port=%d", p.Port), "user=" + infoValue(user), "passfile=" + infoValue(passfile),
		"application_name=" + infoValue(name), "gssencmode=disable", "connect_timeout=5",
		"keepalives_idle=5", "keepalives_interval=2", "keepalives_count=3",
	}, d.sslInfo()...)
	return strings.Join(append(pairs, more...), " ")
}
