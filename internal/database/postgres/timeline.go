package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A promotion makes a timeline of the next number whose history the server does not see. One that another member has made, and stored the history
// of before it died, is not seen by a server that followed neither: it would make a second one of that number, whose log
// could not be archived. So empty files stand in that way during a promotion, which the server takes for histories that are
// not its own. Afterwards they are those histories, for replicas, who want all of them; not before it is certain that it is a primary: a
// replica would aim at them. An empty one that a replica has fetched meanwhile is none to the archive either.

// takenLimit is for how long a promotion waits for who knows of other timelines.
const takenLimit = 500 * time.Millisecond

func (d *Driver) historyFile(timeline uint32) string {
	return filepath.Join(d.o.Data, "pg_wal", fmt.Sprintf("%08X.history", timeline))
}

// histories are the timelines whose histories are here, the empty ones left out unless they are asked for, in order.
func (d *Driver) histories(empty bool) ([]uint32, error) {
	found, err := filepath.Glob(filepath.Join(escapeGlob(d.o.Data), "pg_wal", "*.history"))
	var all []uint32
	for _, f := range found {
		timeline, err := parseHex(strings.TrimSuffix(filepath.Base(f), ".history"))
		if err != nil {
			continue
		}
		if fi, err := os.Stat(f); empty || err == nil && fi.Size() > 0 {
			all = append(all, timeline)
		}
	}
	slices.Sort(all)
	return all, err
}

// passOver has the next promotion make a timeline that is nobody's, as far as can be known soon. settle is to be called when
// the server is a primary.
func (d *Driver) passOver(ctx context.Context) (settle func() error, err error) {
	taken, err := d.takenElsewhere(ctx)
	if err != nil {
		return nil, err
	}
	for timeline := range taken {
		if err := d.writeFile(d.historyFile(timeline), ""); err != nil {
			return nil, err
		}
	}
	return func() error {
		var all error
		for _, timeline := range slices.Sorted(maps.Keys(taken)) {
			all = errors.Join(all, d.writeFile(d.historyFile(timeline), taken[timeline]))
		}
		return all
	}, nil
}

// takenElsewhere are timelines after the newest one of which there is anything here.
func (d *Driver) takenElsewhere(ctx context.Context) (map[uint32]string, error) {
	if d.o.Taken == nil {
		return nil, nil
	}
	known, err := d.newestTimeline(control{})
	if err != nil {
		return nil, err
	}
	here, err := d.histories(false)
	if err != nil {
		return nil, err
	}
	if len(here) > 0 {
		known = max(known, here[len(here)-1])
	}
	soon, cancel := context.WithTimeout(ctx, takenLimit)
	defer cancel()
	taken, err := d.o.Taken(soon, known)
	if err != nil {
		return nil, nil //nolint:nilerr // the archive is away: clients do not wait for it
	}
	return taken, nil
}
