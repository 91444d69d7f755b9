package database

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"drover/internal/failover"
)

// serve answers load balancers and other members until ctx ends.
func (m *Member) serve(ctx context.Context) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+askPath, m.answer)
	mux.HandleFunc("/", m.health)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(m.opt.Listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		m.opt.Log.Error("database: serve its API", "err", err)
	}
}

// health answers one of Patroni's paths with 200 or 503, and says in the body how it is.
func (m *Member) health(w http.ResponseWriter, r *http.Request) {
	v := m.View()
	ok, known := v.is(r)
	if !known {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if r.Method != http.MethodHead && r.Method != http.MethodOptions {
		_ = json.NewEncoder(w).Encode(v)
	}
}

// View is a member as others see it.
type View struct {
	State    string            `json:"state"` // running, starting, stopped
	Role     Role              `json:"role"`
	Name     string            `json:"name"`
	ID       string            `json:"id"`
	Epoch    uint64            `json:"epoch"`
	System   string            `json:"database_system_identifier,omitempty"`
	Timeline string            `json:"timeline,omitempty"`
	Received string            `json:"received,omitempty"`
	Applied  string            `json:"applied,omitempty"`
	Sync     bool              `json:"sync,omitempty"` // commits wait for it
	Why      string            `json:"why,omitempty"`
	Tags     failover.Tags     `json:"tags,omitzero"`
	Record   *failover.Record  `json:"-"`
	Stepped  time.Time         `json:"-"`
	Answers  map[string]string `json:"-"` // the position that each other member told last, by ID
	ttl      time.Duration
}

// View is how this member is now.
func (m *Member) View() View {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.change()
	v := View{
		State: "stopped", Role: c.Role, Name: m.opt.Failover.Name, ID: m.state.ID, Epoch: c.Epoch, Why: m.decision.Why,
		Tags: m.opt.Failover.Self.Tags, Record: m.obs.Record, Stepped: m.stepped, ttl: m.opt.Failover.TTL, Answers: map[string]string{},
	}
	for id, a := range m.obs.Answers {
		if m.now()-a.Sent < m.opt.Failover.TTL {
			v.Answers[id] = a.Received
		}
	}
	if d := m.obs.Disk; d != nil {
		v.System = d.System
	}
	if db := m.obs.Database; db != nil {
		v.State, v.Timeline, v.Received, v.Applied = "running", db.Timeline, db.Received, db.Applied
	} else if m.opt.Processes.Running() {
		v.State = "starting"
	}
	if v.Record != nil {
		v.Sync = v.Record.Set.Has(v.ID) && v.Record.Set.Acks > 0 && v.Role == RoleReplica
	}
	return v
}

// is reports whether the member is what a path asks for; known is false if it is none of them.
func (v View) is(r *http.Request) (ok, known bool) {
	replica := v.Role == RoleReplica && !v.Tags.NoLoadBalance
	switch r.URL.Path {
	case "/", "/primary", "/master", "/leader", "/read-write":
		return v.Role == RolePrimary, true
	case "/replica":
		return replica, true
	case "/read-only":
		return replica || v.Role == RolePrimary, true
	case "/sync", "/synchronous", "/quorum":
		return replica && v.Sync, true
	case "/async", "/asynchronous":
		return replica && !v.Sync, true
	case "/health":
		return v.State == "running", true
	case "/liveness":
		return time.Since(v.Stepped) < v.ttl, true
	case "/readiness":
		return v.Role != RoleNone, true
	case "/patroni":
		return true, true
	}
	return false, false
}
