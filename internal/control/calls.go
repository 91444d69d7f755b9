package control

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"drover/client"
)

func (s *Server) ping(w http.ResponseWriter, _ *http.Request) { s.done(w) }

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, http.StatusOK, s.agent.Status())
}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	s.answerHealth(w, r, func(h client.Health) client.Health { return h })
}

// publicHealth leaves out why: what a check says may hold addresses and more.
func (s *Server) publicHealth(w http.ResponseWriter, r *http.Request) {
	s.answerHealth(w, r, func(h client.Health) client.Health { h.Failing = nil; return h })
}

func (s *Server) answerHealth(w http.ResponseWriter, r *http.Request, show func(client.Health) client.Health) {
	q := queryOf(r)
	level := q.word("level", client.LevelReady, client.LevelAlive)
	if err := q.end(); err != nil {
		s.refuse(w, err)
		return
	}
	h := s.agent.Health(level)
	status := http.StatusOK
	if !h.Healthy {
		status = http.StatusServiceUnavailable
	}
	s.answer(w, status, show(h))
}

func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	var request client.BackupRequest
	if err := s.readBody(w, r, &request); err != nil {
		s.refuse(w, err)
		return
	}
	b, err := s.agent.Backup(r.Context(), request.Queue)
	status := http.StatusOK
	switch {
	case err != nil && r.Context().Err() != nil:
		return // nobody listens any more
	case err != nil:
		if b.Kind == "" {
			b.Kind = client.KindFailed
		}
		b.Error, status = err.Error(), statusOf(b.Kind)
	case b.Queued:
		status = http.StatusAccepted
	}
	s.answer(w, status, b)
}

// maxGrace bounds what a caller may ask for.
const maxGrace = 24 * time.Hour

func (s *Server) takeover(w http.ResponseWriter, r *http.Request) {
	var request client.TakeoverRequest
	err := s.readBody(w, r, &request)
	if err == nil && (request.Grace <= 0 || request.Grace > maxGrace.Seconds()) {
		err = invalid("grace_seconds is not a time of at most a day")
	}
	if err != nil {
		s.refuse(w, err)
		return
	}
	t, err := s.agent.HandOver(r.Context(), time.Duration(request.Grace*float64(time.Second)))
	status := http.StatusOK
	switch {
	case err != nil && r.Context().Err() != nil:
		return // nobody listens any more
	case err != nil:
		if t.Kind == "" {
			t.Kind = client.KindFailed
		}
		t.Error, status = err.Error(), statusOf(t.Kind)
	}
	s.answer(w, status, t)
}

// onJob does something to the job that the path names, and answers how it is then.
func (s *Server) onJob(do func(Agent, context.Context, string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		err := s.readBody(w, r, &struct{}{})
		if err == nil {
			err = do(s.agent, r.Context(), name)
		}
		if err != nil {
			s.refuseCaller(w, r, err)
			return
		}
		job, err := s.job(name)
		if err != nil {
			s.refuse(w, err)
			return
		}
		s.answer(w, http.StatusOK, job)
	}
}

func (s *Server) job(name string) (client.Job, error) {
	jobs := s.agent.Status().Jobs
	if i := slices.IndexFunc(jobs, func(j client.Job) bool { return j.Name == name }); i >= 0 {
		return jobs[i], nil
	}
	return client.Job{}, &client.Error{Kind: client.KindUnknown, Message: "there is no job " + name}
}

func (s *Server) signal(w http.ResponseWriter, r *http.Request) {
	var request client.SignalRequest
	err := s.readBody(w, r, &request)
	if err == nil && request.Signal == "" {
		err = invalid("signal is missing")
	}
	if err == nil {
		err = s.agent.SignalJob(r.PathValue("name"), request.Signal)
	}
	s.end(w, err)
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	err := s.readBody(w, r, &struct{}{})
	var changed client.Reload
	if err == nil {
		changed, err = s.agent.Reload(r.Context())
	}
	if err != nil {
		s.refuseCaller(w, r, err)
		return
	}
	s.answer(w, http.StatusOK, changed)
}

func (s *Server) maintenance(w http.ResponseWriter, r *http.Request) {
	var request client.MaintenanceRequest
	err := s.readBody(w, r, &request)
	if err == nil && request.On == nil {
		err = invalid("on is missing")
	}
	if err == nil {
		err = s.agent.Maintenance(*request.On)
	}
	s.end(w, err)
}

func (s *Server) putEnv(w http.ResponseWriter, r *http.Request) {
	var change map[string]*string
	err := s.readBody(w, r, &change)
	if err == nil {
		err = checkEnv(change)
	}
	if err == nil {
		err = s.agent.PutEnv(change)
	}
	s.end(w, err)
}

func (s *Server) putMetrics(w http.ResponseWriter, r *http.Request) {
	var given map[string]*float64 // a null is told from a number
	var values map[string]float64
	err := s.readBody(w, r, &given)
	if err == nil {
		values, err = checkMetrics(given)
	}
	if err == nil {
		err = s.agent.PutMetric(values)
	}
	s.end(w, err)
}

// webhook passes the body over: who calls a hook sends what it likes.
func (s *Server) webhook(w http.ResponseWriter, r *http.Request) {
	s.end(w, s.agent.Webhook(r.PathValue("name")))
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	if s.opt.Metrics == nil {
		http.NotFound(w, r)
		return
	}
	s.opt.Metrics.ServeHTTP(w, r)
}

// end answers a call that has no result.
func (s *Server) end(w http.ResponseWriter, err error) {
	if err != nil {
		s.refuse(w, err)
		return
	}
	s.done(w)
}

// statusOf is the HTTP status of a refusal's kind.
func statusOf(kind string) int {
	switch kind {
	case client.KindInvalid:
		return http.StatusBadRequest
	case client.KindForbidden:
		return http.StatusForbidden
	case client.KindUnknown, client.KindAbsent:
		return http.StatusNotFound
	case client.KindBusy, client.KindHeld, client.KindConflict, client.KindUnsafe:
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

// refuse answers an error; one that is no refusal has failed.
func (s *Server) refuse(w http.ResponseWriter, err error) {
	refusal := client.Error{Kind: client.KindFailed, Message: err.Error()}
	var known *client.Error
	if errors.As(err, &known) {
		refusal.Kind = known.Kind
	}
	s.answer(w, statusOf(refusal.Kind), refusal)
}

// refuseCaller is refuse for calls that wait: a caller that left hears nothing.
func (s *Server) refuseCaller(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		s.refuse(w, err)
	}
}
