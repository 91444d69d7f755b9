package control

import (
	"context"
	"net/http"
	"time"

	"drover/client"
)

// Database is the part of an agent that has to do with a database's cluster. An instance that is no member of
// one answers with the kind "unknown". The end of ctx ends the wait, and what has not begun.
type Database interface {
	DatabaseMembers() (client.DatabaseCluster, error)
	DatabaseHistory() (client.DatabaseHistory, error)
	Switchover(ctx context.Context, r client.SwitchoverRequest) (client.DatabaseOutcome, error)
	Failover(ctx context.Context, r client.FailoverRequest) (client.DatabaseOutcome, error)
	Pause(ctx context.Context, on bool) (client.DatabaseOutcome, error)
	Reinit(ctx context.Context, r client.ReinitRequest) (client.DatabaseOutcome, error)
	RestartDatabase(ctx context.Context, r client.RestartRequest) (client.DatabaseOutcome, error)
	UpgradeDatabase(ctx context.Context, r client.UpgradeRequest) (client.DatabaseOutcome, error)
}

func (s *Server) databaseRoutes() []route {
	return []route{
		{"GET /v1/database/members", own, show(s, Database.DatabaseMembers), nil},
		{"GET /v1/database/history", own, show(s, Database.DatabaseHistory), nil},
		{"POST /v1/database/switchover", own, ordered(s, Database.Switchover, func(r client.SwitchoverRequest) float64 { return r.Timeout }), nil},
		{"POST /v1/database/failover", own, ordered(s, Database.Failover, func(r client.FailoverRequest) float64 { return r.Timeout }), nil},
		{"POST /v1/database/pause", own, ordered(s, pause, func(client.PauseRequest) float64 { return 0 }), nil},
		{"POST /v1/database/reinit", own, ordered(s, reinit, func(r client.ReinitRequest) float64 { return r.Timeout }), nil},
		{"POST /v1/database/restart", own, ordered(s, Database.RestartDatabase, func(r client.RestartRequest) float64 { return r.Timeout }), nil},
		{"POST /v1/database/upgrade", own, ordered(s, upgrade, func(r client.UpgradeRequest) float64 { return r.Timeout }), nil},
	}
}

func pause(d Database, ctx context.Context, r client.PauseRequest) (client.DatabaseOutcome, error) {
	if r.On == nil {
		return client.DatabaseOutcome{}, invalid("on is missing")
	}
	return d.Pause(ctx, *r.On)
}

func reinit(d Database, ctx context.Context, r client.ReinitRequest) (client.DatabaseOutcome, error) {
	if r.Member == "" {
		return client.DatabaseOutcome{}, invalid("member is missing")
	}
	return d.Reinit(ctx, r)
}

func upgrade(d Database, ctx context.Context, r client.UpgradeRequest) (client.DatabaseOutcome, error) {
	if r.Members < 0 {
		return client.DatabaseOutcome{}, invalid("members is negative")
	}
	return d.UpgradeDatabase(ctx, r)
}

// show answers what an agent knows.
func show[T any](s *Server, what func(Database) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		v, err := what(s.agent)
		if err != nil {
			s.refuse(w, err)
			return
		}
		s.answer(w, http.StatusOK, v)
	}
}

// ordered has an order carried out in the time that its request gives; 0: however long it takes.
func ordered[T any](s *Server, do func(Database, context.Context, T) (client.DatabaseOutcome, error), timeout func(T) float64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request T
		err := s.readBody(w, r, &request)
		limit := timeout(request)
		if err == nil && (limit < 0 || limit > maxGrace.Seconds()) {
			err = invalid("timeout_seconds is not a time of at most a day")
		}
		if err != nil {
			s.refuse(w, err)
			return
		}
		ctx := r.Context()
		if limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Duration(limit*float64(time.Second)))
			defer cancel()
		}
		begun := time.Now()
		out, err := do(s.agent, ctx, request)
		if err != nil {
			s.refuseCaller(w, r, err)
			return
		}
		out.Seconds = time.Since(begun).Seconds()
		s.answer(w, http.StatusOK, out)
	}
}
