// Package control serves an agent's control API: HTTP on a unix socket, to the jobs
// and to people.
//
// It promises: who asks is known by the kernel's word (SO_PEERCRED), not by a file
// mode; the users of jobs may ping, ask for status and back up, the agent's own user
// and root may do everything; a caller that goes away ends its own wait and nothing
// else; the socket of an agent that lives is never taken over.
//
// It leaves to others: what a backup is (Agent), and the client's side (package client).
package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/client"
	"drover/internal/event"
)

// Agent is who answers. Its methods are called from many goroutines.
type Agent interface {
	// Status does not block.
	Status() client.Status
	// Backup waits until what is on the disk now is committed; queue: until the
	// request is accepted. The end of ctx ends the wait, never the backup. With an
	// error, Backup.Kind may say which; "" means failed.
	Backup(ctx context.Context, queue bool) (client.Backup, error)
	// HandOver makes room for a standby and waits until one has the volume; what is
	// not done after grace is given up. The end of ctx ends the wait alone.
	HandOver(ctx context.Context, grace time.Duration) (client.Takeover, error)

	// Bus is where events are published.
	Bus() *event.Bus
	// Logs begins with so many of the newest lines of the job; "": of all jobs.
	Logs(job string, newest int) Lines

	// The rest answer with a *client.Error where its Kind matters; any other error
	// counts as "failed". The end of ctx ends the wait alone.

	// StartJob starts the job, and waits until it runs and is ready, or has failed.
	StartJob(ctx context.Context, name string) error
	// StopJob stops the job, and waits until it is gone.
	StopJob(ctx context.Context, name string) error
	// RestartJob stops the job and starts it, and waits until it runs again.
	RestartJob(ctx context.Context, name string) error
	// SignalJob sends the job a signal, named as TERM or SIGTERM.
	SignalJob(name, signal string) error
	// Reload reads the configuration again, and waits until the new jobs are as it says.
	Reload(ctx context.Context) (client.Reload, error)
	Maintenance(on bool) error
	// PutEnv changes the environment of runs that start from now on; nil takes a
	// variable out.
	PutEnv(change map[string]*string) error
	// PutMetric sets, adds to or observes the metrics of the configuration, by their type.
	PutMetric(values map[string]float64) error
	// Webhook says that a hook of that name was called.
	Webhook(name string) error
	// Health says whether all that counts at a level ("alive" or "ready") is well. It
	// does not block.
	Health(level string) client.Health
}

// Lines are lines of jobs' output, oldest first. It is used by one goroutine.
type Lines interface {
	// Next returns what came since the last call, nothing if there is nothing.
	Next() []client.LogLine
	// Wait waits until there is something, or until ctx ends.
	Wait(ctx context.Context) ([]client.LogLine, error)
}

// Bounds on a request: time to send its head and its body, and their sizes in bytes.
const (
	readTimeout = 5 * time.Second
	idleTimeout = time.Minute
	maxHead     = 16 << 10
	maxBody     = 64 << 10
	// stopGrace is how long answers that are being written may take at the end.
	stopGrace = time.Second
)

// Options of New.
type Options struct {
	Path    string          // of the socket
	Log     *slog.Logger    // nil: silent
	JobUIDs func() []uint32 // users of the jobs; nil: none but the agent's own
	Metrics http.Handler    // nil: no /metrics

	readTimeout time.Duration // 0: the constant; tests shorten it
}

// Server is the API of one agent.
type Server struct {
	agent  Agent
	opt    Options
	http   *http.Server
	listen sync.Mutex // guards socket
	socket *socket
}

// New prepares a server; Listen takes the socket, Serve answers.
func New(agent Agent, opt Options) *Server {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.readTimeout == 0 {
		opt.readTimeout = readTimeout
	}
	s := &Server{agent: agent, opt: opt}
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: opt.readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHead,
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(opt.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Listen takes the socket, so that jobs started from now on find it. It fails if
// another agent has it.
func (s *Server) Listen() error {
	s.listen.Lock()
	defer s.listen.Unlock()
	if s.socket != nil {
		return nil
	}
	socket, err := takeSocket(s.opt.Path)
	if err != nil {
		return err
	}
	s.socket = socket
	return nil
}

// Serve answers until ctx ends, then gives the socket back. It calls Listen if nobody
// did. A server serves once.
func (s *Server) Serve(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	defer s.socket.release()
	ended := make(chan error, 1)
	go func() { ended <- s.http.Serve(s.socket.listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if err := s.http.Shutdown(grace); err != nil {
		_ = s.http.Close() // cuts who still waits; it has no other failure to tell
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// routes is the API: each call, who may make it, and what answers.
func (s *Server) routes() http.Handler {
	const jobs, own = true, false
	mux := http.NewServeMux()
	for _, route := range []struct {
		pattern string
		jobs    bool
		handler http.HandlerFunc
	}{
		{"GET /v1/ping", jobs, func(w http.ResponseWriter, _ *http.Request) { s.answer(w, http.StatusOK, struct{}{}) }},
		{"GET /v1/status", jobs, func(w http.ResponseWriter, _ *http.Request) { s.answer(w, http.StatusOK, s.agent.Status()) }},
		{"POST /v1/backup", jobs, s.backup},
		{"POST /v1/takeover", own, s.takeover},
		{"GET /metrics", own, s.metrics},
	} {
		mux.HandleFunc(route.pattern, s.allow(route.jobs, route.handler))
	}
	return mux
}

// allow lets those through who may make the call.
func (s *Server) allow(jobs bool, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		uid, known := peerOf(r.Context())
		switch {
		case known && (uid == 0 || uid == uint32(os.Geteuid())):
		case known && jobs && s.opt.JobUIDs != nil && slices.Contains(s.opt.JobUIDs(), uid):
		default:
			s.answer(w, http.StatusForbidden, client.Error{Kind: client.KindForbidden, Message: "this user may not ask the agent for that"})
			return
		}
		next(w, r)
	}
}

func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	var request client.BackupRequest
	if err := s.readBody(w, r, &request); err != nil {
		s.answer(w, http.StatusBadRequest, client.Error{Kind: client.KindFailed, Message: "request is not understood: " + err.Error()})
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
		b.Error = err.Error()
		status = http.StatusInternalServerError
		if b.Kind == client.KindHeld {
			status = http.StatusConflict
		}
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
		err = errors.New("grace_seconds is not a time of at most a day")
	}
	if err != nil {
		s.answer(w, http.StatusBadRequest, client.Error{Kind: client.KindFailed, Message: "request is not understood: " + err.Error()})
		return
	}
	t, err := s.agent.HandOver(r.Context(), time.Duration(request.Grace*float64(time.Second)))
	status := http.StatusOK
	switch {
	case err != nil && r.Context().Err() != nil:
		return // nobody listens any more
	case err != nil:
		t.Error, status = err.Error(), http.StatusInternalServerError
		if t.Kind == "" {
			t.Kind = client.KindFailed
		}
		if t.Kind == client.KindHeld {
			status = http.StatusConflict
		}
	}
	s.answer(w, status, t)
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	if s.opt.Metrics == nil {
		http.NotFound(w, r)
		return
	}
	s.opt.Metrics.ServeHTTP(w, r)
}

// readBody decodes a bounded body in bounded time; an empty one leaves v as it is.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, v any) error {
	conn := http.NewResponseController(w)
	if err := conn.SetReadDeadline(time.Now().Add(s.opt.readTimeout)); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return err
	}
	// The wait that follows has no limit: only the caller's leaving ends it.
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if len(body) == 0 {
		return nil
	}
	return json.Unmarshal(body, v)
}

func (s *Server) answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.opt.Log.Debug("answer of the control API not delivered", "error", err)
	}
}

type peerKey struct{}

// withPeer keeps who is at the other end, by the kernel's word.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	uid, err := peerUID(c)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, uid)
}

func peerOf(ctx context.Context) (uid uint32, known bool) {
	uid, known = ctx.Value(peerKey{}).(uint32)
	return uid, known
}

func peerUID(c net.Conn) (uint32, error) {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a unix socket")
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
