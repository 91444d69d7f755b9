package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A promotion makes a timeline of the next number whose history the server does not see. One that another member has made, and stored the history
// of before it died, is not seen by a server that followed neither: it would make a second one of that number, whose log
// could not be archived. So empty files stand in that way during a promotion, which the server takes for histories that are
// not its own. Afterwards they are those histories, for replicas, who want all of them.

// takenLimit is for how long a promotion waits for who knows of other timelines.
const takenLimit = 500 * time.Millisecond

func (d *Driver) history(timeline uint32) string {
	return filepath.Join(d.o.Data, "pg_wal", fmt.Sprintf("%08X.history", timeline))
}

// passOver has the next promotion make a timeline that is nobody's, as far as can be known soon. settle is to be called after it.
func (d *Driver) passOver(ctx context.Context) (settle func() error, err error) {
	taken := map[uint32]string{}
	if d.o.Taken != nil {
		known, err := d.newestKnown()
		if err != nil {
			return nil, err
		}
		soon, cancel := context.WithTimeout(ctx, takenLimit)
		defer cancel()
		if taken, err = d.o.Taken(soon, known); err != nil {
			taken = nil // the archive is away: clients do not wait for it
		}
	}
	for timeline := range taken {
		if err := d.writeFile(d.history(timeline), ""); err != nil {
			return nil, err
		}
	}
	return func() error {
		var all error
		for timeline, text := range taken {
			all = errors.Join(all, d.writeFile(d.history(timeline), text))
		}
		return all
	}, nil
}

// newestKnown is the newest timeline of which there is anything in pg_wal.
func (d *Driver) newestKnown() (newest uint32, err error) {
	files, err := os.ReadDir(filepath.Join(d.o.Data, "pg_wal"))
	for _, f := range files {
		name := f.Name()
		if len(name) != 24 && !(len(name) == 16 && strings.HasSuffix(name, ".history")) {
			continue
		}
		if timeline, err := parseHex(name[:8]); err == nil {
			newest = max(newest, timeline)
		}
	}
	return newest, err
}
