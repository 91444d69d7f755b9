package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"drover/internal/failover"
)

const (
	// freshSuffix is what directories beside the database end in while they are made.
	freshSuffix = ".new-"
	// unfinishedSuffix is that of the file beside the database which says that it is not whole, or
	// about to be replaced. It cannot be inside: pg_rewind removes what its source does not have.
	unfinishedSuffix = ".unfinished"
)

func (d *Driver) unfinished() string { return d.o.Data + unfinishedSuffix }

// Disk implements database.Driver.
func (d *Driver) Disk(context.Context) (failover.Disk, error) {
	if _, err := os.Lstat(d.unfinished()); err == nil {
		return failover.Disk{Empty: true}, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return failover.Disk{}, fmt.Errorf("look at the database's files: %w", err)
	}
	names, err := os.ReadDir(d.o.Data)
	if errors.Is(err, fs.ErrNotExist) {
		return failover.Disk{Empty: true}, nil
	}
	if err != nil {
		return failover.Disk{}, fmt.Errorf("look at the database's files: %w", err)
	}
	found := false
	for _, n := range names {
		found = found || n.Name() != "lost+found"
	}
	if !found {
		return failover.Disk{Empty: true}, nil
	}
	system, err := systemID(d.o.Data)
	if err != nil {
		return failover.Disk{}, fmt.Errorf("look at the database's files: %s is not empty, and holds no whole database: %w", d.o.Data, err)
	}
	_, err = os.Lstat(filepath.Join(d.o.Data, standbySignal))
	return failover.Disk{System: system, Replica: err == nil}, nil
}

// systemID reads the identity that initdb gave. It is the first field of pg_control, as it has
// been in every version, in the machine's own byte order.
func systemID(data string) (string, error) {
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err != nil {
		return "", err
	}
	control, err := os.ReadFile(filepath.Join(data, "global", "pg_control"))
	if err != nil {
		return "", err
	}
	if len(control) < 8 || binary.NativeEndian.Uint64(control) == 0 {
		return "", errors.New("pg_control is damaged")
	}
	return strconv.FormatUint(binary.NativeEndian.Uint64(control), 10), nil
}

// control is what pg_controldata says of a stopped server's files.
type control struct {
	state    string
	timeline uint32 // of the latest checkpoint
	redo     lsn    // where recovery would begin
	latest   lsn    // of the latest checkpoint's record
	minimum  lsn    // how far recovery must get at least; 0: not said
	fields   map[string]string
}

// States of a control file that matter here.
const (
	stateShutDown         = "shut down"
	stateShutDownRecovery = "shut down in recovery"
	stateInRecovery       = "in archive recovery"
)

// replica says whether the files are those of a replica, which has a primary's timeline without being one.
func (c control) replica() bool {
	return c.state == stateShutDownRecovery || c.state == stateInRecovery
}

func (d *Driver) control(ctx context.Context) (control, error) {
	out, err := d.run(ctx, "", nil, "pg_controldata", "-D", d.o.Data)
	if err != nil {
		return control{}, err
	}
	c := control{fields: map[string]string{}}
	for line := range strings.Lines(out) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			c.fields[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	c.state = c.fields["Database cluster state"]
	timeline, err1 := strconv.ParseUint(c.fields["Latest checkpoint's TimeLineID"], 10, 32)
	redo, err2 := parseLSN(c.fields["Latest checkpoint's REDO location"])
	latest, err3 := parseLSN(c.fields["Latest checkpoint location"])
	minimum, err4 := parseLSN(c.fields["Minimum recovery ending location"])
	if err := errors.Join(err1, err2, err3, err4); err != nil || c.state == "" {
		return control{}, fmt.Errorf("read pg_control of %s: %w", d.o.Data, errors.Join(err, errors.New("pg_controldata's output is not understood")))
	}
	c.timeline, c.redo, c.latest, c.minimum = uint32(timeline), redo, latest, minimum
	return c, nil
}
