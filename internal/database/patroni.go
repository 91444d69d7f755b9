package database

import (
	"encoding/json"
	"strconv"
	"time"

	"drover/internal/failover"
)

// The bodies of Patroni's answers, with its names.

type patroniStatus struct {
	State            string           `json:"state"`
	Role             string           `json:"role"`
	Xlog             *patroniLog      `json:"xlog,omitempty"`
	Timeline         json.RawMessage  `json:"timeline,omitempty"`
	ReplicationState string           `json:"replication_state,omitempty"`
	SyncStandby      bool             `json:"sync_standby,omitempty"`
	Replication      []patroniReplica `json:"replication,omitempty"`
	Pause            bool             `json:"pause,omitempty"`
	Unlocked         bool             `json:"cluster_unlocked,omitempty"`
	PendingRestart   bool             `json:"pending_restart,omitempty"`
	LastSeen         int64            `json:"dcs_last_seen"`
	Tags             map[string]any   `json:"tags,omitempty"`
	System           string           `json:"database_system_identifier,omitempty"`
	Patroni          patroniSelf      `json:"patroni"`
	Drover           View             `json:"drover"`
}

type patroniLog struct {
	Location *int64 `json:"location,omitempty"`
	Received *int64 `json:"received_location,omitempty"`
	Replayed *int64 `json:"replayed_location,omitempty"`
}

type patroniReplica struct {
	Application string `json:"application_name"`
	State       string `json:"state"`
	SyncState   string `json:"sync_state"`
}

type patroniSelf struct {
	Version string `json:"version"`
	Scope   string `json:"scope"`
	Name    string `json:"name"`
}

// number is a timeline as Patroni writes it, where it is one.
func number(timeline string) json.RawMessage {
	if _, err := strconv.ParseUint(timeline, 10, 64); err != nil {
		return nil
	}
	return json.RawMessage(timeline)
}

// patroni is how this member is.
func (m *Member) patroni(v View) patroniStatus {
	s := patroniStatus{
		State: v.State, Role: "replica", Timeline: number(v.Timeline), PendingRestart: v.Restart, Tags: tags(v.Tags),
		ReplicationState: v.replication(), Patroni: patroniSelf{m.opt.Failover.Self.Version, m.opt.Prefix, v.Name}, Drover: v, SyncStandby: v.Sync, Unlocked: v.Primary == "",
	}
	switch {
	case v.Role == RolePrimary:
		s.Role = "primary"
		s.Xlog = &patroniLog{Location: v.ReceivedBytes}
	case v.Foremost:
		s.Role = "standby_leader"
		fallthrough
	case v.ReceivedBytes != nil:
		s.Xlog = &patroniLog{Received: v.ReceivedBytes, Replayed: v.AppliedBytes}
	}
	for _, id := range v.Replicas {
		kind := "async"
		if v.set.Has(id) && v.set.Acks > 0 {
			kind = "quorum"
		}
		s.Replication = append(s.Replication, patroniReplica{id, "streaming", kind})
	}
	if r := v.Record; r != nil {
		s.Pause, s.System, s.LastSeen = r.Paused, r.System, v.Known.Unix()
	}
	return s
}

type patroniCluster struct {
	Members    []patroniMember    `json:"members"`
	Scope      string             `json:"scope"`
	Pause      bool               `json:"pause,omitempty"`
	Switchover *patroniSwitchover `json:"scheduled_switchover,omitempty"`
}

type patroniMember struct {
	Name     string          `json:"name"`
	Role     string          `json:"role"`
	State    string          `json:"state"`
	API      string          `json:"api_url"`
	Host     string          `json:"host"`
	Port     int             `json:"port"`
	Timeline json.RawMessage `json:"timeline,omitempty"`
	Tags     map[string]any  `json:"tags,omitempty"`
	Lag      any             `json:"lag,omitempty"` // bytes, or unknown
}

type patroniSwitchover struct {
	At   time.Time `json:"at"`
	From string    `json:"from,omitempty"`
	To   string    `json:"to,omitempty"`
}

// cluster is who there is, as far as this member knows.
func (m *Member) cluster(v View) patroniCluster {
	c := patroniCluster{Members: []patroniMember{}, Scope: m.opt.Prefix}
	for _, name := range v.Names() {
		c.Members = append(c.Members, m.patroniMember(v, name, v.Record.Members[name]))
	}
	if r := v.Record; r != nil {
		c.Pause = r.Paused
		if s := r.Switchover; s != nil && !s.At.IsZero() {
			c.Switchover = &patroniSwitchover{s.At, r.Name(r.Primary), s.To}
		}
	}
	return c
}

func (m *Member) patroniMember(v View, name string, member failover.Member) patroniMember {
	p := patroniMember{
		Name: name, Role: "replica", State: "unknown", Host: member.Host, Port: member.Port, Tags: tags(member.Tags),
		API: "http://" + member.API + "/patroni",
	}
	s, ok := m.Named(v, name)
	if !ok {
		p.Lag = "unknown"
		return p
	}
	p.State, p.Timeline = s.State, number(s.Timeline)
	switch {
	case s.Role == RolePrimary:
		p.Role = "leader"
		return p
	case s.Sync:
		p.Role = "quorum_standby"
	case s.Foremost:
		p.Role = "standby_leader"
	}
	if state := s.replication(); state != "" {
		p.State = state
	}
	p.Lag = "unknown"
	if s.Lag != nil {
		p.Lag = *s.Lag
	}
	return p
}

// lines are the reigns as Patroni shows timelines: which one ended, where, and why; the newest last.
func (m *Member) lines(v View) [][]any {
	lines := [][]any{}
	if v.Record == nil {
		return lines
	}
	gauge, _ := m.opt.Driver.(Gauge)
	timeline := json.RawMessage(nil)
	for _, r := range v.Record.History {
		if gauge != nil && timeline != nil && r.From != "" {
			if at, ok := gauge.Bytes(r.From); ok {
				lines = append(lines, []any{timeline, at, r.Reason, r.Time.Format(time.RFC3339), MemberOf(r.Primary)})
			}
		}
		if n := number(r.Timeline); n != nil {
			timeline = n
		}
	}
	return lines
}
