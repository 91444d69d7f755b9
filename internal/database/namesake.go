package database

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"time"

	"drover/internal/failover"
)

// Two instances of one name would take the record's entry from each other. Who comes later waits until the other has gone; if neither
// was first, one of them ends.

// awaitName waits as long as another instance of this one's name lives, or until this one is to end.
func (m *Member) awaitName(ctx context.Context) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	began, told := m.now(), ""
	for {
		m.mu.Lock()
		known, r, id, stopping := m.obs.Known, m.obs.Record, m.state.ID, m.stopping
		m.mu.Unlock()
		why := "the coordinator has not answered yet"
		switch {
		case stopping || known && r == nil:
			return
		case known:
			entry, is := r.Members[m.opt.Failover.Name]
			if !is || entry.API == m.opt.Failover.Self.API {
				return
			}
			said, err := m.inquire(ctx, client, entry.API, question{})
			alive := err == nil && said.ID == entry.ID
			// Who is only slow is asked again; but not before a member that comes back with its files.
			gone := err == nil || entry.ID == id || errors.Is(err, syscall.ECONNREFUSED) || m.now()-began > m.opt.Failover.TTL/2
			if !alive && gone {
				return
			}
			if why = "asking whether another instance has this one's name"; alive {
				why = m.namesake(entry) + ": this one waits until it has gone"
			}
		}
		if why != told {
			m.opt.Log.Warn("database: " + why)
			told = why
		}
		m.mu.Lock()
		m.decision = failover.Decision{Why: why}
		m.publish()
		m.mu.Unlock()
		if !m.rest(ctx, nil, min(m.opt.Failover.TTL/8, 100*time.Millisecond)) {
			return
		}
	}
}

func (m *Member) namesake(entry failover.Member) string {
	return fmt.Sprintf("another instance is called %s, too, and lives at %s (id: each needs its own)", m.opt.Failover.Name, entry.API)
}

// stands reports whether this member may stay one: nil, or, if another instance has its name, and neither waited, why it ends. Whoever
// was made primary stays, and else the one whose ID is smaller. m.mu is held.
func (m *Member) stands(o failover.Observation) error {
	if o.Record == nil {
		return nil
	}
	entry, is := o.Record.Members[m.opt.Failover.Name]
	id := m.state.ID
	if !is || entry.ID == id || entry.API == m.opt.Failover.Self.API || o.Record.Primary == id {
		return nil
	}
	a, ok := o.Answers[entry.ID]
	if !ok || o.Now-a.Sent > m.opt.Failover.TTL || o.Record.Primary != entry.ID && id < entry.ID {
		return nil
	}
	return errors.New(m.namesake(entry))
}
