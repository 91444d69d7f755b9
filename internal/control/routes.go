package control

import (
	"net/http"
	"os"
	"slices"

	"drover/client"
)

// audience is who may make a call on the socket.
type audience string

const (
	anyJob audience = "jobs" // the users of jobs besides
	own    audience = "own"  // the agent's user, and root
)

// route is one call of the API.
type route struct {
	pattern string
	who     audience
	handler http.HandlerFunc
	public  http.HandlerFunc // what answers it over TCP; nil: nothing does
}

// routes is the API: each call, who may make it, and what answers.
func (s *Server) routes() []route {
	return append(s.databaseRoutes(), []route{
		{"GET /v1/ping", anyJob, s.ping, s.ping},
		{"GET /v1/status", anyJob, s.status, nil},
		{"GET /v1/health", anyJob, s.health, s.publicHealth},
		{"POST /v1/backup", anyJob, s.backup, nil},
		{"POST /v1/metrics", anyJob, s.putMetrics, nil},
		{"POST /v1/wal/push", anyJob, s.pushWAL, nil},
		{"POST /v1/wal/fetch", anyJob, s.fetchWAL, nil},
		{"POST /v1/takeover", own, s.takeover, nil},
		{"GET /v1/events", own, s.events, nil},
		{"GET /v1/logs", own, s.logs, nil},
		{"POST /v1/jobs/{name}/start", own, s.onJob(Agent.StartJob), nil},
		{"POST /v1/jobs/{name}/stop", own, s.onJob(Agent.StopJob), nil},
		{"POST /v1/jobs/{name}/restart", own, s.onJob(Agent.RestartJob), nil},
		{"POST /v1/jobs/{name}/signal", own, s.signal, nil},
		{"POST /v1/reload", own, s.reload, nil},
		{"POST /v1/maintenance", own, s.maintenance, nil},
		{"POST /v1/env", own, s.putEnv, nil},
		{"POST /v1/webhook/{name}", own, s.webhook, nil},
		{"GET /metrics", own, s.metrics, s.metrics},
	}...)
}

// private is the handler of the socket.
func (s *Server) private() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.HandleFunc(r.pattern, s.allow(r.who, r.handler))
	}
	return mux
}

// allow lets those through who may make the call.
func (s *Server) allow(who audience, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		uid, known := peerOf(r.Context())
		switch {
		case known && (uid == 0 || uid == uint32(os.Geteuid())):
		case known && who == anyJob && s.opt.JobUIDs != nil && slices.Contains(s.opt.JobUIDs(), uid):
		default:
			s.refuse(w, &client.Error{Kind: client.KindForbidden, Message: "this user may not ask the agent for that"})
			return
		}
		next(w, r)
	}
}
