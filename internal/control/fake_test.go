package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"drover/client"
	"drover/internal/event"
)

// calls is the part of the fake agent that answers about jobs and the like: each call
// is noted, and refused if the tests say so.
type calls struct {
	bus *event.Bus

	mu       sync.Mutex
	refusal  error
	made     []string
	lines    []client.LogLine
	lost     int           // lines, before whatever is read
	more     chan struct{} // closed when there are more lines, and replaced
	changed  client.Reload
	unhealth []string
}

func newCalls() calls { return calls{bus: event.NewBus(200), more: make(chan struct{})} }

// refuse has the calls from now on refused with the error; nil: not.
func (c *calls) refuse(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusal = err
}

// called returns the calls since the last time.
func (c *calls) called() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	made := c.made
	c.made = nil
	return made
}

func (c *calls) note(format string, args ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = append(c.made, fmt.Sprintf(format, args...))
	return c.refusal
}

func (c *calls) Bus() *event.Bus { return c.bus }

func (c *calls) StartJob(_ context.Context, name string) error   { return c.note("start %s", name) }
func (c *calls) StopJob(_ context.Context, name string) error    { return c.note("stop %s", name) }
func (c *calls) RestartJob(_ context.Context, name string) error { return c.note("restart %s", name) }
func (c *calls) SignalJob(name, signal string) error             { return c.note("signal %s %s", name, signal) }
func (c *calls) Maintenance(on bool) error                       { return c.note("maintenance %t", on) }
func (c *calls) Webhook(name string) error                       { return c.note("webhook %s", name) }

func (c *calls) PushWAL(_ context.Context, path string) error { return c.note("push %s", path) }
func (c *calls) FetchWAL(_ context.Context, name, path string) error {
	return c.note("fetch %s %s", name, path)
}

func (c *calls) Reload(context.Context) (client.Reload, error) { return c.changed, c.note("reload") }

func (c *calls) PutEnv(change map[string]*string) error {
	text := map[string]string{}
	for name, value := range change {
		text[name] = "(out)"
		if value != nil {
			text[name] = *value
		}
	}
	return c.note("env %v", text)
}

func (c *calls) PutMetric(values map[string]float64) error { return c.note("metrics %v", values) }

func (c *calls) Health(level string) client.Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	return client.Health{Level: level, Healthy: len(c.unhealth) == 0, Failing: c.unhealth}
}

func (c *calls) DatabaseMembers() (client.DatabaseCluster, error) {
	lag, at := int64(5), time.Now()
	return client.DatabaseCluster{
		Cluster: "main", Engine: "postgres", Member: "m1", Switchover: &client.DatabaseSwitchover{To: "m2", At: &at},
		Members: []client.DatabaseMember{{Name: "m1", Role: "replica", State: "running", Lag: &lag, LastBackup: &at, Tags: []string{"nosync"}}},
	}, c.note("members")
}

func (c *calls) DatabaseHistory() (client.DatabaseHistory, error) {
	return client.DatabaseHistory{Reigns: []client.DatabaseReign{{Epoch: 2, Primary: "m1", Reason: "bootstrap", Time: time.Now()}}}, c.note("history")
}

func (c *calls) Switchover(_ context.Context, r client.SwitchoverRequest) (client.DatabaseOutcome, error) {
	return client.DatabaseOutcome{Primary: "m2", Scheduled: r.At}, c.note("switchover %s %t %v", r.To, r.Cancel, r.At != nil)
}

func (c *calls) Failover(_ context.Context, r client.FailoverRequest) (client.DatabaseOutcome, error) {
	return client.DatabaseOutcome{}, c.note("failover %s %t", r.To, r.Force)
}

func (c *calls) Pause(_ context.Context, on bool) (client.DatabaseOutcome, error) {
	return client.DatabaseOutcome{Changed: on}, c.note("pause %t", on)
}

func (c *calls) Reinit(_ context.Context, r client.ReinitRequest) (client.DatabaseOutcome, error) {
	return client.DatabaseOutcome{}, c.note("reinit %s", r.Member)
}

func (c *calls) UpgradeDatabase(_ context.Context, r client.UpgradeRequest) (client.DatabaseOutcome, error) {
	return client.DatabaseOutcome{}, c.note("upgrade %s %d", r.Version, r.Members)
}

func (c *calls) RestartDatabase(ctx context.Context, r client.RestartRequest) (client.DatabaseOutcome, error) {
	_, limited := ctx.Deadline()
	return client.DatabaseOutcome{}, c.note("restart database %s %t %t", r.Member, r.All, limited)
}

// write adds lines to the log.
func (c *calls) write(lines ...client.LogLine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, lines...)
	close(c.more)
	c.more = make(chan struct{})
}

func (c *calls) Logs(job string, newest int) Lines {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &fakeLines{c: c, job: job, at: max(0, len(c.lines)-newest)}
}

type fakeLines struct {
	c   *calls
	job string
	at  int
}

func (f *fakeLines) take() ([]client.LogLine, <-chan struct{}) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	var found []client.LogLine
	for _, line := range f.c.lines[f.at:] {
		if f.job == "" || f.job == line.Job {
			found = append(found, line)
		}
	}
	f.at = len(f.c.lines)
	return found, f.c.more
}

func (f *fakeLines) Missed() int {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	return f.c.lost
}

func (f *fakeLines) Next() []client.LogLine { found, _ := f.take(); return found }

func (f *fakeLines) Wait(ctx context.Context) ([]client.LogLine, error) {
	for {
		found, more := f.take()
		if len(found) > 0 {
			return found, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Errors of each kind, as an agent has them.
var (
	errUnknown = &client.Error{Kind: client.KindUnknown, Message: "there is none of that name"}
	errBusy    = &client.Error{Kind: client.KindBusy, Message: "another one is under way"}
	errInvalid = &client.Error{Kind: client.KindInvalid, Message: "that cannot be meant"}
	errFailed  = errors.New("it did not work")
)
