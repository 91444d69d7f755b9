package database

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"drover/internal/failover"
)

// maxHead bounds the head of a request, in bytes.
const maxHead = 16 << 10

// serve answers load balancers and other members until ctx ends.
func (m *Member) serve(ctx context.Context) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+askPath, m.answer)
	mux.HandleFunc("POST "+orderPath, m.ordered)
	mux.HandleFunc("/", m.health)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: maxHead,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(m.opt.Listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		m.opt.Log.Error("database: serve its API", "err", err)
	}
}

// health answers one of Patroni's paths, as Patroni does: 200, or 503 if the member is not what is asked
// for. It answers from what was seen last: nothing that hangs can hold it up.
func (m *Member) health(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	show := r.Method == http.MethodGet
	if !show && r.Method != http.MethodHead && r.Method != http.MethodOptions {
		w.WriteHeader(http.StatusNotImplemented)
		return
	}
	v := m.View()
	var body any
	status := http.StatusOK
	switch path := strings.TrimSuffix(r.URL.Path, "/"); path {
	case "/cluster":
		body = m.cluster(v)
	case "/history":
		body = m.lines(v)
	case "/patroni":
		body = m.patroni(v)
	case "/liveness", "/readiness":
		body = struct{}{}
		if path == "/liveness" && !m.alive(v) || path == "/readiness" && !v.ready(r.URL.Query()) {
			status = http.StatusServiceUnavailable
		}
	default:
		is, known := v.is(path, r.URL.Query())
		body = m.patroni(v)
		switch {
		case !known:
			status, body = http.StatusNotFound, struct{}{}
		case !is:
			status = http.StatusServiceUnavailable
		}
	}
	w.WriteHeader(status)
	if show {
		_ = json.NewEncoder(w).Encode(body) // who has left hears nothing
	}
}

// alive reports whether the member still decides: a primary has to within a TTL, a replica within two.
func (m *Member) alive(v View) bool {
	limit := 2 * m.opt.Failover.TTL
	if m.seen.Load().Role == RolePrimary {
		limit = m.opt.Failover.TTL
	}
	return m.now()-v.stepped < limit
}

// standard is how far a replica may be behind that nothing is said of, in bytes; as Patroni's maximum_lag_on_failover.
const standard = 1 << 20

// ready is for the readiness probes of schedulers.
func (v View) ready(q url.Values) bool {
	limit, ok := parseSize(q.Get("lag"))
	if !ok || q.Get("lag") == "" {
		limit = standard
	}
	lag := v.Lag
	if q.Get("mode") == "write" && lag != nil && v.ReceivedBytes != nil && v.AppliedBytes != nil {
		received := max(*lag-(*v.ReceivedBytes-*v.AppliedBytes), 0)
		lag = &received
	}
	return v.Role == RolePrimary || v.Role == RoleStandby || v.Role == RoleReplica && within(lag, limit)
}

// is reports whether the member is what a path asks for; known is false if that is none of the paths.
func (v View) is(path string, q url.Values) (ok, known bool) {
	primary := v.Role == RolePrimary
	// What a standby cluster's members lack is not known: who asks for a limit is not answered by them.
	replica := (v.Role == RoleReplica || v.Role == RoleStandby) && !v.Tags.NoLoadBalance && v.near(q)
	switch path {
	case "", "/primary", "/master", "/read-write":
		return primary, true
	case "/leader":
		return primary || v.Foremost, true
	case "/standby-leader", "/standby_leader":
		return v.Foremost, true
	case "/replica":
		ok = replica
	case "/read-only":
		ok = primary || replica
	case "/sync", "/synchronous", "/quorum":
		ok = replica && v.Sync
	case "/read-only-sync", "/read-only-synchronous", "/read-only-quorum":
		ok = primary || replica && v.Sync
	case "/async", "/asynchronous":
		ok = replica && !v.Sync
	case "/health":
		ok = v.State == "running"
	default:
		return false, false
	}
	return ok && v.tagged(q), true
}

// near reports whether a replica is as near to the primary as was asked for. What cannot be read asks for nothing.
func (v View) near(q url.Values) bool {
	if state := q.Get("replication_state"); state != "" && state != v.replication() {
		return false
	}
	limit, ok := parseSize(q.Get("lag"))
	return !ok || q.Get("lag") == "" || within(v.Lag, limit)
}

// replication is Patroni's replication_state.
func (v View) replication() string {
	switch {
	case v.Role == RoleReplica && v.Receiving:
		return "streaming"
	case v.Role == RoleStandby:
		return "in archive recovery"
	}
	return ""
}

func within(lag *int64, limit int64) bool { return lag != nil && *lag <= limit }

// tagged reports whether the member has all tags that were asked for.
func (v View) tagged(q url.Values) bool {
	for key, values := range q {
		name, is := strings.CutPrefix(key, "tag_")
		if !is {
			continue
		}
		if have, ok := tags(v.Tags)[name]; !ok || !strings.EqualFold(textOf(have), values[0]) {
			return false
		}
	}
	return true
}

func textOf(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}

// tags are those that a member has; Patroni shows no others.
func tags(t failover.Tags) map[string]any {
	all := map[string]any{}
	for name, set := range map[string]bool{"nofailover": t.NoFailover, "nosync": t.NoSync, "noloadbalance": t.NoLoadBalance, "clonefrom": t.CloneFrom} {
		if set {
			all[name] = true
		}
	}
	if t.Priority != 0 {
		all["failover_priority"] = t.Priority
	}
	if t.ReplicateFrom != "" {
		all["replicatefrom"] = t.ReplicateFrom
	}
	return all
}

// parseSize reads bytes as PostgreSQL writes them: 1048576, 1024kB, 16MB, 1GB, 1TB.
func parseSize(text string) (bytes int64, ok bool) {
	number := strings.TrimRight(strings.TrimSpace(text), "BbKkMmGgTt ")
	unit := strings.ToLower(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), number)))
	factor, ok := map[string]int64{"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}[unit]
	n, err := strconv.ParseFloat(number, 64)
	if most := float64(1 << 62); text == "" || !ok || err != nil || !(n >= 0 && n*float64(factor) <= most) {
		return 0, false
	}
	return int64(n * float64(factor)), true
}
