package app

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"drover/internal/event"
	"drover/internal/supervise"
	"drover/internal/volume/protocol"
)

// Events of the instance that parts other than the supervisor make.
const (
	eventClaimed     = "claimed"
	eventRestored    = "restored"
	eventLost        = "lost"
	eventCommitted   = "committed"
	eventTestPassed  = "test-passed" // of a restore test
	eventTestFailed  = "test-failed"
	eventProgress    = "progress" // of a long restore or backup: for people, no job is caused by it
	eventSignal      = "signal"
	eventWebhook     = "webhook"
	eventMaintenance = "maintenance"
	eventSynced      = "synced" // the keys of a Git repository are those of another commit
)

// outside are those that may cause runs of jobs. (What the supervisor makes itself it
// has acted upon already.)
var outside = map[string]bool{
	eventClaimed: true, eventRestored: true, eventLost: true, eventCommitted: true, eventTestPassed: true, eventTestFailed: true,
	eventSignal: true, eventWebhook: true, eventMaintenance: true, eventChanged: true, eventRendered: true, eventSynced: true,
	eventPrimary: true, eventReplica: true, eventDemoted: true,
	supervise.EventHealthy: true, supervise.EventUnhealthy: true, // of watches
}

// recentEvents is how many are kept for those who ask later.
const recentEvents = 200

// lastLines is how much of a failed job's output its event tells.
const lastLines = 3

// tell publishes what the supervisor says.
func (j *jobs) tell(e supervise.Emitted) {
	out := event.Event{Name: e.Name, Source: e.Source}
	if e.Name == supervise.EventExit || e.Name == supervise.EventFailed || e.Name == supervise.EventSucceeded || e.Name == supervise.EventStopped {
		out.Status = &e.Status
	}
	if e.Name == supervise.EventFailed {
		var last []string
		for _, l := range j.journals.Follow(e.Source, lastLines).Next() {
			last = append(last, l.Text)
		}
		out.Text = strings.Join(last, " | ")
	}
	j.bus.Publish(out)
}

// listen passes the events of other parts on to the jobs, until ctx ends. What happens
// while there is no supervisor waits for the next one, if it is of a kind that leads to
// its start.
func (j *jobs) listen(ctx context.Context, sub *event.Subscription) {
	defer sub.Close()
	for {
		e, _, err := sub.Next(ctx)
		if err != nil {
			return
		}
		if e.Name == eventLost {
			j.runLost(ctx)
		} else if j.tells(e) {
			continue
		} else if s := j.orEarly(e); s != nil {
			s.Happened(e.Name, e.Source)
		}
	}
}

// tells says whether the event is of a job: the supervisor has acted upon it already.
func (j *jobs) tells(e event.Event) bool {
	return (e.Name == supervise.EventHealthy || e.Name == supervise.EventUnhealthy) &&
		slices.ContainsFunc(j.all(), func(job supervise.Job) bool { return job.Name == e.Source })
}

// early are the events that wait for a start: what leads to it, and the newest of what
// was seen in the coordinator.
var early = map[string]bool{
	eventClaimed: true, eventRestored: true,
	eventChanged: true, supervise.EventHealthy: true, supervise.EventUnhealthy: true,
}

// orEarly is the supervisor; without one the event waits for the next.
func (j *jobs) orEarly(e event.Event) *supervise.Supervisor {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.current == nil && early[e.Name] {
		j.early = slices.DeleteFunc(j.early, func(c supervise.Cause) bool {
			return c.Source == e.Source && c.Source != "" && (c.Name == eventChanged) == (e.Name == eventChanged)
		})
		j.early = append(j.early, supervise.Cause{Name: e.Name, Source: e.Source})
	}
	return j.current
}

// lostLimit bounds the jobs that a lost claim causes.
const lostLimit = 30 * time.Second

// runLost runs the jobs that the loss of the claim causes. All jobs are dead or dying
// then, and none may start: these run outside of the supervisor, one after another.
func (j *jobs) runLost(ctx context.Context) {
	for _, job := range j.all() {
		if !caused(&job, eventLost, "") {
			continue
		}
		limit := lostLimit
		if job.Timeout > 0 {
			limit = min(limit, job.Timeout)
		}
		running, cancel := context.WithTimeout(ctx, limit)
		said, group, err := supervise.Command{Argv: job.Command, Env: job.Env, Dir: job.Dir, User: job.User}.Output(running)
		cancel()
		supervise.KillGroup(group)
		j.log.Info("job ran: the claim was lost", "job", job.Name, "output", strings.TrimSpace(said), "err", err)
	}
}

// subscribe is what listen reads; nothing that happens after it is missed.
func (j *jobs) subscribe() *event.Subscription {
	return j.bus.Subscribe(event.Options{Coalesce: true, Only: func(e event.Event) bool { return outside[e.Name] }})
}

// causedBy says whether the event starts any job.
func (j *jobs) causedBy(name, source string) bool {
	for _, job := range j.all() {
		if caused(&job, name, source) {
			return true
		}
	}
	return false
}

func caused(job *supervise.Job, name, source string) bool {
	return slices.ContainsFunc(slices.Concat(job.On, job.Once), func(c supervise.Cause) bool {
		return c.Name == name && (c.Source == "" || c.Source == source)
	})
}

// putEnv changes the environment of runs that start from now on; nil takes a variable out.
func (j *jobs) putEnv(change map[string]*string) {
	j.mu.Lock()
	maps.Copy(j.env, change)
	s, env := j.current, maps.Clone(j.env)
	j.mu.Unlock()
	if s != nil {
		s.PutEnv(env)
	}
}

// happenings makes events of the changes of a volume's status.
type happenings struct {
	phase protocol.Phase
	seq   uint64
	held  bool
}

// of returns the events between the last status and this one, oldest first.
func (h *happenings) of(s protocol.Status) []event.Event {
	var events []event.Event
	holds := s.Phase == protocol.PhaseHolder || s.Phase == protocol.PhaseRestoring || s.Phase == protocol.PhaseStopping
	switch {
	case holds && !h.held:
		events = append(events, event.Event{Name: eventClaimed})
		h.held = true
	case !holds && h.held && (s.Phase == protocol.PhaseDeposed || s.Phase == protocol.PhaseFenced || s.Phase == protocol.PhaseStandby):
		events = append(events, event.Event{Name: eventLost, Text: strings.TrimSpace(s.Reason)})
		h.held = false
	}
	if h.phase == protocol.PhaseRestoring && s.Phase == protocol.PhaseHolder {
		events = append(events, event.Event{Name: eventRestored})
	}
	if h.held && h.phase != "" && s.Head.Seq > h.seq {
		events = append(events, event.Event{Name: eventCommitted, Text: s.Head.Snapshot})
	}
	h.phase, h.seq = s.Phase, s.Head.Seq
	return events
}
